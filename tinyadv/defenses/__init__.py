"""Defences: each a layer in front of the model, with a true forward pass and a vjp that is chosen by name."""

from tinyadv.defenses.bpda import Defense, bpda
from tinyadv.defenses.contrastive import NearestLatent
from tinyadv.defenses.jpeg import JPEG, SHIELD
from tinyadv.defenses.smoothing import LGS
from tinyadv.defenses.trapdoor import TrapdoorDetector, Trapdoors, trapdoor_detector
from tinyadv.defenses.watermark import DW
from tinyadv.spellings import missing

__all__ = [
    "DW", "JPEG", "LGS", "SHIELD", "Defense", "NearestLatent", "TrapdoorDetector", "Trapdoors", "bpda",
    "trapdoor_detector",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
