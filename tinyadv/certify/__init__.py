"""Certificates: proofs that no image of a set is classified wrongly, in place of an attack that found none."""

from tinyadv.certify import rules as rules  # so that intervals have them
from tinyadv.certify.accuracy import certified_accuracy
from tinyadv.certify.interval import Interval
from tinyadv.certify.report import CertifiedReport
from tinyadv.spellings import missing

__all__ = ["CertifiedReport", "Interval", "certified_accuracy"]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
