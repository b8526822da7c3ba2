"""MI-FGSM against the equations of its paper."""

import numpy as np
import pytest
from attack_cases import dense, images, labels, shown, stepped
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, gradients, ops
from tinyadv.attacks import BIM, MIFGSM
from tinyadv.attacks.base.balls import ball_class

SHAPE = (1, 4, 5)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])


@every_norm
@given(seed=seeds, decay=st.sampled_from([0, 0.5, 1.0]), targeted=st.booleans())
def test_every_step_is_that_of_the_paper(norm, seed, decay, targeted):
    """Algorithm 1, for one example at a time: the gradient over its l1 norm, summed with decay mu, eps / T a step."""
    model, x, y = dense(SHAPE, 4, np.float64, seed=seed), images(4, SHAPE, np.float64, seed), labels(4, 4)
    target, eps, steps = (y + 1) % 4 if targeted else None, 0.4, 6
    points = shown(MIFGSM(eps, steps=steps, decay=decay, norm=norm), model, x, y, target=target)
    assert (points[0] == x).all()
    for i in range(4):
        ball, momentum = ball_class(norm)(x[i : i + 1], eps, (0, 1)), 0
        for now, then in zip(points[:-1, i : i + 1], points[1:, i : i + 1], strict=True):
            leaf = Tensor(now)
            classes = target if targeted else y
            (g,) = gradients(ops.cross_entropy(model(leaf), classes[i : i + 1], "sum"), [leaf])
            momentum = decay * momentum + (-g if targeted else g) / abs(g).sum()
            expected = stepped(ball, now, momentum, eps / steps)
            np.testing.assert_allclose(then, expected, rtol=0, atol=1e-9)


@every_norm
def test_without_momentum_it_is_bim(norm):
    model, x, y = dense(SHAPE, 4, np.float64), images(9, SHAPE, np.float64), labels(9, 4)
    ours, plain = MIFGSM(0.3, decay=0, norm=norm), BIM(0.3, 0.03, norm=norm)
    np.testing.assert_allclose(shown(ours, model, x, y), shown(plain, model, x, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@every_norm
def test_a_gradient_of_zero_leaves_the_direction_as_it_was(norm, dtype):
    """Past 0.53 the logits are constant: the sum of the steps before leads on, and no number is lost."""
    x, y = np.full((3, *SHAPE), 0.5, dtype), np.zeros(3, int)
    weight = Tensor(np.ones((2, 20)) * [[1], [-1]]).data.astype(dtype)

    def model(points):
        return ops.linear(ops.minimum(ops.flatten(points), dtype(0.53)) * dtype(-1), weight)

    points = shown(MIFGSM(0.1, 0.02, steps=5), model, x, y)
    assert np.isfinite(points).all()
    np.testing.assert_allclose(points[:, 0, 0, 0, 0], [0.5, 0.52, 0.54, 0.56, 0.58], rtol=2e-3)
    flat = MIFGSM(0.1, norm=norm)(lambda p: model(p) * dtype(0), x, y)
    assert flat.tobytes() == x.tobytes()


@given(scale=st.sampled_from([1e-30, 1e-6, 1.0]))
def test_every_gradient_has_the_same_weight(scale):
    """Examples that the model is sure of take the steps of those that it is not: gradients in float32 down to 1e-30."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(20, 2)).astype(np.float32), rng.random((3, 20), np.float32)
    ours = MIFGSM(0.2, loss="margin")
    plain, scaled = (ours(lambda p, s=s: (p @ Tensor(weight)) * np.float32(s), x, np.zeros(3, int)) for s in (1, scale))
    np.testing.assert_allclose(scaled, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("option", "values"), [("step_size", [0, -1, "1"]), ("decay", [-0.1, np.nan, None, True])])
def test_a_wrong_hyper_parameter_is_refused(option, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{option} must be a number .*got "):
            MIFGSM(0.3, **{option: value})
