"""Adversarial attacks: each a frozen dataclass of hyper-parameters, called on a model, images and labels."""

from tinyadv.attacks.base.attack import Attack, WhiteBox
from tinyadv.attacks.base.batch import Batch, Step
from tinyadv.attacks.base.result import AttackResult
from tinyadv.attacks.black_box.boundary import BoundaryAttack
from tinyadv.attacks.black_box.hopskipjump import HopSkipJump
from tinyadv.attacks.black_box.sparse_rs import SparseRS
from tinyadv.attacks.black_box.square import Square
from tinyadv.attacks.combined.at_budget import AtBudget
from tinyadv.attacks.combined.autoattack import AutoAttack
from tinyadv.attacks.combined.multi import MultiAttack
from tinyadv.attacks.combined.transfer import Transfer
from tinyadv.attacks.gradient.apgd import APGD
from tinyadv.attacks.gradient.fgsm import FGSM, least_likely_class
from tinyadv.attacks.gradient.mifgsm import MIFGSM
from tinyadv.attacks.gradient.pgd import BIM, PGD
from tinyadv.attacks.localized.patch import Patch
from tinyadv.attacks.localized.universal import paste, universal_patch
from tinyadv.attacks.minimum_norm.brendel_bethge import BrendelBethge
from tinyadv.attacks.minimum_norm.carlini_wagner import CarliniWagner
from tinyadv.attacks.minimum_norm.ddn import DDN
from tinyadv.attacks.minimum_norm.deepfool import DeepFool
from tinyadv.attacks.minimum_norm.ead import EAD
from tinyadv.attacks.minimum_norm.fab import FAB
from tinyadv.attacks.minimum_norm.fmn import FMN
from tinyadv.attacks.minimum_norm.primal_dual import PDGD, PDPGD
from tinyadv.attacks.minimum_norm.sigma_zero import SigmaZero
from tinyadv.spellings import missing

__all__ = [
    "APGD", "BIM", "DDN", "EAD", "FAB", "FGSM", "FMN", "MIFGSM", "PDGD", "PDPGD", "PGD", "AtBudget", "Attack",
    "AttackResult", "AutoAttack", "Batch", "BoundaryAttack", "BrendelBethge", "CarliniWagner", "DeepFool",
    "HopSkipJump", "MultiAttack", "Patch", "SigmaZero", "SparseRS", "Square", "Step", "Transfer", "WhiteBox",
    "least_likely_class", "paste", "universal_patch",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
