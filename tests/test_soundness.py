import numpy as np
import pytest
from soundness import ALL, CASES, SIZES, above, pushed, sampled

from tinyadv.certify.accuracy import METHODS


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ALL)
def test_no_sampled_logit_leaves_its_bound(name, method):
    """A sample of what `python tests/soundness.py` runs by the million."""
    make, shape = CASES[name]
    model = make().eval()
    for eps in SIZES:
        seen, broken = sampled(model, shape, method, eps, 3000, seed=1)
        assert seen >= 3000
        assert broken == 0


def test_a_search_breaks_bounds_without_rounding_and_none_with_it():
    for name in ALL:
        make, shape = CASES[name]
        seen, ratio = pushed(make().eval(), shape, "ibp", 0.0, 30, seed=1)
        assert seen > 1000
        assert 0 < ratio < 1


def test_what_is_above_its_bound_is_seen():
    make, shape = CASES["dense"]
    worst = np.full((3, 4), -100.0)
    excess = above(make(), np.zeros((3, *shape), np.float32), np.array([0, 1, 2]), worst)
    assert (excess > 0).sum() == 9
    assert np.isneginf(excess).sum() == 3
