"""How well a model does, with and without an adversary."""

from tinyadv.evaluation.accuracy import accuracy, epsilon_curve, predict, robust_accuracy

__all__ = ["accuracy", "epsilon_curve", "predict", "robust_accuracy"]
