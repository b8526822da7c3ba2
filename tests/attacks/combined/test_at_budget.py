"""Any attack at equal cost. What it shares with others is in the tables of all attacks."""

import numpy as np
from attack_cases import images

from tinyadv import ops
from tinyadv.attacks import PGD, AtBudget
from tinyadv.driver import logits


def test_a_success_that_rounding_may_have_made_does_not_end_the_search_above_it():
    """Logits of about 1,000 are a few of their roundings apart on both sides of the boundary."""
    def model(x):
        z = ops.sum(ops.flatten(x), axis=1, keepdims=True)
        return z * np.array([[0, 1e-3]], np.float32) + np.array([1000, 999.97], np.float32)

    x = images(6, (1, 8, 8))
    y = logits(model, x).argmax(axis=1)
    for eps in (0.1, 0.2, 0.8):
        assert AtBudget(PGD(eps, steps=3), queries=1000).run(model, x, y).success.all()
