"""The loss on planes: at each point that of the image there."""

import re

import numpy as np
import pytest
from attack_cases import cnn, images, labels, on_device
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, analysis, driver, nn, ops


@given(seed=seeds, size=st.integers(1, 4), n=st.integers(0, 2))
def test_each_point_is_the_loss_of_the_image_there(seed, size, n):
    rng = np.random.default_rng(seed)
    model, x, y, reach = cnn(), images(n), labels(n), rng.normal(size=size)
    across, along = rng.normal(size=(2, *x.shape))
    found = analysis.landscape(model, x, y, across, along, reach)
    assert found.shape == (n, size, size)
    for k, i, j in np.ndindex(n, size, size):
        point = (x[k] + reach[j] * across[k] + reach[i] * along[k]).clip(0, 1).astype(np.float32)
        loss = ops.cross_entropy(Tensor(driver.logits(model, point[None])), y[k:k + 1])
        assert found[k, i, j] == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)


def test_it_depends_on_no_memory(xp):
    x, y = images(2), labels(2)
    found = analysis.landscape(cnn(), x, y, x, -x, [-0.5, 0.5])
    moved = analysis.landscape(on_device(cnn(), xp), xp.asarray(x), y, xp.asarray(x), xp.asarray(-x),
                               xp.asarray([-0.5, 0.5]))
    np.testing.assert_allclose(moved, found, rtol=1e-4)


def test_a_direction_of_another_shape_is_refused():
    x = images(2)
    with pytest.raises(ValueError, match=re.escape("got (1, 1, 8, 8), (2, 1, 8, 8) and (1,)")):
        analysis.landscape(cnn(), x, None, x[:1], x, [0.1])


@given(seed=seeds, size=st.integers(1, 4), batch_size=st.integers(1, 9))
def test_a_random_model_has_a_flat_plane_where_nothing_changes(seed, size, batch_size):
    """At the height of its logits, which no other image and no shard decides."""
    model = nn.Sequential(nn.GaussianNoise(0.5, at_test=True, seed=0), cnn())
    x, y, nothing = images(3), labels(3), np.zeros((3, 1, 8, 8))
    reach = np.random.default_rng(seed).normal(size=size)
    found = analysis.landscape(model, x, y, nothing, nothing, reach, batch_size=batch_size)
    expected = ops.cross_entropy(Tensor(driver.logits(model, x)), y, "none").numpy()
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None], found.shape), rtol=1e-4, atol=1e-6)
    assert not np.allclose(driver.logits(model, x), driver.logits(model.layers[1], x))


@pytest.mark.parametrize("spoilt", ["across", "along", "reach"])
def test_directions_and_reaches_that_are_no_numbers_are_refused(spoilt):
    x = images(2)
    for wrong in np.nan, np.inf:
        given = {"across": x, "along": x, "reach": np.array([0.1, 0.2])}
        given[spoilt] = np.where(np.arange(given[spoilt].size).reshape(given[spoilt].shape) == 1, wrong, given[spoilt])
        with pytest.raises(ValueError, match=f"{spoilt} must be finite, and has values that are infinite or NaN"):
            analysis.landscape(cnn(), x, None, **given)
    with pytest.raises(ValueError, match=re.escape("along must be an array, got list: give np.array(along")):
        analysis.landscape(cnn(), x, None, x, x.tolist(), [0.1])
