"""The defences against patches: what they darken, what they fill in, and that attacks go through them."""

import numpy as np
import pytest
from attack_cases import predictions
from defense_cases import pictures
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, defenses, driver, gradients, nn, ops
from tinyadv.attacks import Patch
from tinyadv.backend import to_host
from tinyadv.defenses.watermark import filled, guided_gradient


def noise(count, shape, seed=0):
    return np.random.default_rng(seed).random((count, *shape)).astype(np.float32)


# Local gradients smoothing


@given(seed=seeds, strengths=st.tuples(st.floats(0, 6), st.floats(0, 6)), channels=st.integers(1, 3),
       block=st.integers(1, 20), value=st.floats(0, 1))
def test_lgs_only_darkens_and_more_with_more_strength(seed, strengths, channels, block, value):
    x = noise(3, (channels, 11, 13), seed)
    x[2] = value  # flat
    weak, strong = (defenses.LGS(s, block, block // 3)(Tensor(x)).data for s in sorted(strengths))
    assert (weak <= x).all()
    assert (strong <= weak).all()
    assert weak[2].tobytes() == strong[2].tobytes() == x[2].tobytes()


def test_lgs_darkens_a_patch_of_noise_and_leaves_a_smooth_image():
    x = np.broadcast_to(np.linspace(0.2, 0.8, 28, dtype=np.float32), (1, 1, 28, 28)).copy()
    x[..., 8:13, 8:13] = noise(1, (5, 5)) > 0.5
    found = defenses.LGS(block=5, overlap=2)(Tensor(x)).data
    assert found[..., 8:13, 8:13].mean() < 0.5 * x[..., 8:13, 8:13].mean()
    np.testing.assert_array_equal(found[..., 18:], x[..., 18:])  # blocks that the patch does not touch


def test_the_smooth_gradient_of_lgs_is_the_factor():
    x, w = pictures(2, (3, 12, 12), np.float64), pictures(2, (3, 12, 12), np.float64, seed=1)
    layer, point = defenses.LGS(block=5, overlap=2, gradient="smooth"), Tensor(x)
    (g,) = gradients((layer(point) * w).sum(), [point])
    np.testing.assert_allclose(g * x, layer(point).data * w, rtol=1e-12)


# Digital watermarking


@given(seed=seeds, share=st.floats(0, 1), channels=st.integers(1, 3))
def test_what_is_filled_lies_within_the_range_of_the_rim_and_the_rest_stays(seed, share, channels):
    x = noise(3, (channels, 7, 9), seed)
    mask = np.random.default_rng(seed).random((3, 1, 7, 9)) < share
    found = filled(x, mask, 60)
    for before, after, gone in zip(x, found, mask[:, 0], strict=True):
        assert after[:, ~gone].tobytes() == before[:, ~gone].tobytes()
        rim = before[:, ~gone] if not gone.all() else before.reshape(channels, -1)
        assert (after >= rim.min(axis=1)[:, None, None]).all()
        assert (after <= rim.max(axis=1)[:, None, None]).all()
    assert filled(x, np.zeros_like(mask), 60).tobytes() == filled(x, np.ones_like(mask), 60).tobytes() == x.tobytes()


def test_a_hole_in_a_slope_is_filled_with_the_slope():
    """Diffusion ends at a harmonic function, and a slope is one."""
    x = np.broadcast_to(np.linspace(0, 1, 12), (1, 2, 12, 12))
    mask = np.zeros((1, 1, 12, 12), bool)
    mask[..., 4:8, 4:8] = True
    np.testing.assert_allclose(filled(np.where(mask, 9.0, x), mask, 300), x, atol=1e-6)


def test_the_guided_gradient_passes_positive_numbers_only(xp):
    """Through relu(W x) -> V: V+ W where W x > 0, as the last linear layer has no ReLU behind it."""
    rng, x = np.random.default_rng(0), noise(5, (1, 3, 4))
    w, v = rng.normal(size=(8, 12)).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)

    def model(x):
        return ops.linear(ops.relu(ops.linear(ops.flatten(x), xp.asarray(w))), xp.asarray(v))

    hidden = x.reshape(5, 12) @ w.T
    chosen = (np.maximum(hidden, 0) @ v.T).argmax(axis=1)
    expected = (np.maximum(v[chosen], 0) * (hidden > 0)) @ w
    np.testing.assert_allclose(to_host(guided_gradient(model, xp.asarray(x))).reshape(5, 12), expected, rtol=1e-5)


def test_an_erosion_drops_single_pixels_and_a_dilation_merges_dense_ones():
    slope = np.zeros((1, 9, 9), np.float32)
    slope[0, 1, 7] = slope[0, 4:7, 2:5] = 1
    layer = defenses.DW(lambda x: ops.flatten(x)[:, :1] * 0 + ops.sum(x * slope, axis=(1, 2, 3)).reshape(-1, 1),
                        threshold=0.5, erosion=3, dilation=5)
    expected = np.zeros((9, 9), bool)
    expected[3:8, 1:6] = True
    np.testing.assert_array_equal(layer.mask(noise(1, (1, 9, 9)))[0, 0], expected)


def test_patches_go_through_both_defences():
    """Nothing that they do keeps an attack from its gradient."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 5, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 12 * 12, 5, rng=rng))
    x = pictures(12, (1, 16, 16))
    for layer in defenses.LGS(block=5, overlap=2, gradient="smooth"), defenses.DW(model):
        defended = nn.Sequential(layer, model)
        result = Patch((7, 7), steps=20).run(defended, x, predictions(defended, x), seed=1)
        assert result.success.mean() > 0.2
        assert driver.logits(defended, result.x_adv).shape == (12, 5)


def test_training_behind_dw_updates_running_statistics_once():
    def make(norm):
        return nn.Sequential(nn.Conv2d(1, 2, 3, rng=0), norm, nn.ReLU(), nn.Flatten(), nn.Linear(72, 3, rng=1))

    x, norms = pictures(8, (1, 8, 8)), (nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    one, two = map(make, norms)
    nn.Sequential(defenses.DW(one), one).train()(Tensor(x))
    filled_in = defenses.DW(two.eval()).transform(x)
    two.train()(Tensor(filled_in))
    np.testing.assert_array_equal(*(norm.running_mean for norm in norms))


@pytest.mark.parametrize(("message", "make"), [
    ("strength must be a number >= 0, got -1", lambda: defenses.LGS(-1)),
    ("overlap must be less than block, 5, got 5", lambda: defenses.LGS(2.3, 5, 5)),
    ("erosion must be an odd number of pixels, got 2", lambda: defenses.DW(ops.flatten, erosion=2)),
    ("dilation must be an integer >= 1, got 0", lambda: defenses.DW(ops.flatten, dilation=0)),
    ("strength must be a number >= 0, got inf", lambda: defenses.LGS(np.inf)),
    ("threshold must be a number >= 0, got nan", lambda: defenses.LGS(threshold=np.nan)),
    ("threshold must be a number >= 0, got nan", lambda: defenses.DW(ops.flatten, np.nan)),
    ("sweeps must be an integer >= 0, got -1", lambda: defenses.DW(ops.flatten, sweeps=-1)),
    (r"LGS: expected images \(N, C, H, W\).* got shape \(2, 3\)", lambda: defenses.LGS()(Tensor(np.ones((2, 3))))),
])
def test_a_wrong_setting_is_refused_by_name(message, make):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_model_that_is_none_is_refused():
    with pytest.raises(TypeError, match="model must be a function of images, got int"):
        defenses.DW(3)
