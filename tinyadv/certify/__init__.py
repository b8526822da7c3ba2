"""Certificates: proofs that no image of a set is classified wrongly, in place of an attack that found none."""

from tinyadv.certify import rules as rules  # so that intervals have them
from tinyadv.certify.ablation import Ablation
from tinyadv.certify.accuracy import certified_accuracy
from tinyadv.certify.bands import Bands
from tinyadv.certify.binomial import clopper_pearson, sign_test
from tinyadv.certify.crown import crown_worst
from tinyadv.certify.hiding import hidden
from tinyadv.certify.interval import Interval
from tinyadv.certify.report import CertifiedReport
from tinyadv.certify.sampling import CertifiedRadii
from tinyadv.certify.smoothing import Smoothing
from tinyadv.certify.zonotope import Zonotope
from tinyadv.spellings import missing

__all__ = [
    "Ablation", "Bands", "CertifiedRadii", "CertifiedReport", "Interval", "Smoothing", "Zonotope",
    "certified_accuracy", "clopper_pearson", "crown_worst", "hidden", "sign_test",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
