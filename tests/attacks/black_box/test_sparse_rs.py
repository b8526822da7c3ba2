"""Sparse-RS: what the paper says of its proposals. What it shares with others is in the tables of all attacks."""

from itertools import pairwise

import numpy as np
import pytest
from attack_cases import constant, images

from tinyadv.attacks import SparseRS


@pytest.mark.parametrize("eps", [1, 3])
def test_a_query_changes_pixels_that_were_not_changed_in_place_of_others(eps):
    """The model is never fooled and all losses are equal, so the first pixels stay the best: algorithm 2, line 2."""
    x, seen = 0.1 + 0.8 * images(20, (1, 3, 4)), []
    SparseRS(eps, queries=30).run(constant, x, np.ones(20, int), batch_size=20,
                                  callback=lambda step: seen.append((step.points != x).any(axis=1)))
    first = seen[0].reshape(20, -1)
    assert (first.sum(axis=1) == eps).all()
    for changed in seen[1:]:
        changed = changed.reshape(20, -1)
        assert (changed.sum(axis=1) == eps).all()
        assert (changed != first).any(axis=1).all()
    assert any((one != other).any() for one, other in pairwise(seen[1:]))


def test_where_nearly_all_pixels_are_changed_the_same_may_be_again():
    x, seen = 0.1 + 0.8 * images(20, (1, 2, 2)), []
    SparseRS(4, queries=10).run(constant, x, np.ones(20, int), batch_size=20,
                                callback=lambda step: seen.append(step.points))
    assert all((points != x).all() for points in seen)
