"""Adversarial attacks: each a frozen dataclass of hyper-parameters, called on a model, images and labels."""

from tinyadv.attacks.apgd import APGD
from tinyadv.attacks.attack import Attack
from tinyadv.attacks.autoattack import AutoAttack
from tinyadv.attacks.batch import Batch, Step
from tinyadv.attacks.boundary import BoundaryAttack
from tinyadv.attacks.carlini_wagner import CarliniWagner
from tinyadv.attacks.deepfool import DeepFool
from tinyadv.attacks.fab import FAB
from tinyadv.attacks.fgsm import FGSM, least_likely_class
from tinyadv.attacks.hopskipjump import HopSkipJump
from tinyadv.attacks.mifgsm import MIFGSM
from tinyadv.attacks.multi import MultiAttack
from tinyadv.attacks.pgd import BIM, PGD
from tinyadv.attacks.result import AttackResult
from tinyadv.attacks.square import Square
from tinyadv.attacks.transfer import Transfer

__all__ = [
    "APGD", "BIM", "FAB", "FGSM", "MIFGSM", "PGD", "Attack", "AttackResult", "AutoAttack", "Batch", "BoundaryAttack",
    "CarliniWagner", "DeepFool", "HopSkipJump", "MultiAttack", "Square", "Step", "Transfer", "least_likely_class",
]
