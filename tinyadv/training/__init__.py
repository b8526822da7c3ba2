"""Training: one loop over seeded batches, and the standard and adversarial methods that it can use."""

from tinyadv.spellings import missing
from tinyadv.training.certified import CCIBP, CROWNIBP, MTLIBP, SABR, Certified
from tinyadv.training.checkpoint import Interrupted
from tinyadv.training.consistent import Consistent
from tinyadv.training.contrastive import Contrastive, Trapped
from tinyadv.training.fast import NFGSM, Fast, Free
from tinyadv.training.history import Epoch, History
from tinyadv.training.loop import CatastrophicOverfitting, fit
from tinyadv.training.methods import TRADES, Adversarial, Method, Mixed, Scene, Standard, attacked, ramp
from tinyadv.training.update import Update, updates

__all__ = [
    "CCIBP", "CROWNIBP", "MTLIBP", "NFGSM", "SABR", "TRADES", "Adversarial", "CatastrophicOverfitting", "Certified",
    "Consistent", "Contrastive", "Epoch", "Fast", "Free", "History", "Interrupted", "Method", "Mixed", "Scene",
    "Standard", "Trapped", "Update", "attacked", "fit", "ramp", "updates",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
