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


@pytest.mark.parametrize(("eps", "p_init"), [(1, 0.3), (12, 0.3), (20, 0.8)])
def test_a_query_moves_the_part_of_the_pixels_that_the_schedule_says(eps, p_init):
    """All losses are equal, so that every query is made of the first points."""
    x, seen, attack = 0.1 + 0.8 * images(3, (1, 6, 7)), [], SparseRS(eps, queries=30, p_init=p_init)
    attack.run(constant, x, np.ones(3, int), batch_size=3,
               callback=lambda step: seen.append((step.points != x).reshape(3, -1)))
    for query, changed in enumerate(seen[1:], 1):
        moved = max(1, int(attack._part(query) * eps))
        np.testing.assert_array_equal((changed & ~seen[0]).sum(axis=1), moved)


def test_the_schedule_of_the_paper():
    """p is divided by 2 after the first, then by 4, 5, ..., after 50, 200, ..., of 10,000 queries."""
    after, parts = [1, 51, 201, 501, 1001, 2001, 4001, 6001, 8001], [2, 4, 5, 6, 8, 10, 12, 15, 20]
    attack = SparseRS(9, queries=10_000, p_init=0.6)
    assert [attack._part(query) for query in after] == [0.6 / part for part in parts]
    assert [attack._part(query - 1) for query in after[1:]] == [0.6 / part for part in parts[:-1]]
    fewer = SparseRS(9, queries=5000, p_init=0.6)
    assert [fewer._part(query // 2 + 1) for query in after] == [0.6 / part for part in parts]
    assert SparseRS(9, queries=5000, p_init=0.6, rescale_schedule=False)._part(5000) == 0.6 / 12
