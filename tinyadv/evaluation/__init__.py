"""Measuring a model, clean and under attack."""

from tinyadv.evaluation.accuracy import accuracy, epsilon_curve, predict, robust_accuracy, security_curve
from tinyadv.evaluation.adversarial import WorstCase, validate, worst_case
from tinyadv.evaluation.checks import sanity_checks
from tinyadv.evaluation.optimality import at_budget, optimality
from tinyadv.evaluation.report import Check, Report
from tinyadv.evaluation.three_ways import ThreeWays, three_ways
from tinyadv.spellings import missing

__all__ = [
    "Check", "Report", "ThreeWays", "WorstCase", "accuracy", "at_budget", "epsilon_curve", "optimality", "predict",
    "robust_accuracy", "sanity_checks", "security_curve", "three_ways", "validate", "worst_case",
]


def __getattr__(name: str) -> object:
    raise missing(__name__, name)
