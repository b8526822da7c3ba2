"""Adversarial attacks: each a frozen dataclass of hyper-parameters, called on a model, images and labels."""

from tinyadv.attacks.attack import Attack, AttackResult
from tinyadv.attacks.batch import Batch, Step
from tinyadv.attacks.fgsm import FGSM, least_likely_class
from tinyadv.attacks.pgd import PGD

__all__ = ["FGSM", "PGD", "Attack", "AttackResult", "Batch", "Step", "least_likely_class"]
