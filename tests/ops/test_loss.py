"""Losses and the softmax: extreme logits, reductions, kinds of targets, and what is refused."""

import numpy as np
import pytest
from gradcheck import check_vjp, inner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from references import mse_loss, reduced
from strategies import broadcastable, labelled_logits, reals, reductions, shapes, soft_labelled_logits

from tinyadv import ops
from tinyadv.tensor import Tensor, gradients

EXTREMES = [-1e4, -745.5, -104.0, -1.0, 0.0, 1e-3, 88.9, 709.9, 1e4]


@st.composite
def extreme_logits(draw, masked=True):
    """(logits, labels): values far beyond what exp can take, -inf for masked classes; labels are never masked."""
    n, classes = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    values = st.sampled_from([*EXTREMES, -np.inf] if masked else EXTREMES)
    logits = draw(hnp.arrays(np.float64, (n, classes), elements=values, fill=st.nothing()))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    rows = np.arange(n)
    logits[rows, labels] = np.where(np.isinf(logits[rows, labels]), 0, logits[rows, labels])
    return logits, labels


def exact_log_softmax(logits):
    """In extended precision, the largest logit taken out."""
    shifted = (logits - logits.max(axis=1, keepdims=True)).astype(np.longdouble)
    return (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))).astype(np.float64)


@given(extreme_logits())
def test_extreme_logits_give_the_exact_loss_and_gradient(case):
    logits, labels = case
    expected = exact_log_softmax(logits)
    one_hot = np.eye(logits.shape[1])[labels]
    x = Tensor(logits)
    for targets in (labels, one_hot):
        losses = ops.cross_entropy(x, targets, reduction="none")
        np.testing.assert_allclose(losses.data, -expected[np.arange(len(labels)), labels], rtol=1e-12, atol=1e-12)
        (g,) = gradients(losses.sum(), [x])
        np.testing.assert_allclose(g, np.exp(expected) - one_hot, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(ops.log_softmax(x).data, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ops.softmax(x).data, np.exp(expected), rtol=1e-12, atol=1e-300)


@given(extreme_logits(masked=False))
def test_extreme_logits_are_finite_in_float32(case):
    logits, labels = case
    x = Tensor(logits.astype(np.float32))
    for f in (
        lambda x: ops.cross_entropy(x, labels), lambda x: ops.softmax(x).max(), lambda x: ops.log_softmax(x).sum(),
        lambda x: ops.logsumexp(x, axis=1).sum(), lambda x: ops.sigmoid(x).sum(),
    ):
        value = f(x)
        assert value.dtype == np.float32
        assert np.isfinite(value.data)
        assert np.isfinite(gradients(value, [x])[0]).all()


@given(extreme_logits())
def test_softmax_sums_to_one(case):
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-6)):
        p = ops.softmax(case[0].astype(dtype)).data
        assert (p >= 0).all()
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=tolerance)


@given(labelled_logits(), st.sampled_from([-8192, -3, 8192]))
def test_a_constant_added_to_the_logits_changes_not_a_bit(case, constant):
    """Not even in float32: the differences are what counts, and they are exact here."""
    (logits,), options = case
    for dtype in (np.float32, np.float64):
        x = logits.astype(dtype)
        for f in (ops.softmax, ops.log_softmax, lambda x: ops.cross_entropy(x, **options)):
            assert np.array_equal(f(x).data, f(x + constant).data)


@given(labelled_logits())
def test_labels_are_one_hot_probabilities(case):
    (logits,), options = case
    x, one_hot = Tensor(logits), np.eye(logits.shape[1])[options["targets"]]
    by_label = ops.cross_entropy(x, **options)
    by_probability = ops.cross_entropy(x, one_hot, options["reduction"])
    np.testing.assert_allclose(by_label.data, by_probability.data, rtol=1e-14)
    upstream = np.ones(by_label.shape)
    np.testing.assert_allclose(*(gradients(inner(y, upstream), [x])[0] for y in (by_label, by_probability)), atol=1e-15)


@given(soft_labelled_logits(), st.sampled_from([0.5, 2.0]))
def test_targets_need_not_sum_to_one(case, scale):
    (logits, targets), options = case
    check_vjp(lambda x, p: ops.cross_entropy(x, p, **options), (logits, scale * targets))


@given(soft_labelled_logits())
def test_a_class_of_probability_zero_may_be_masked(case):
    """0 * -inf counts as 0, in the loss and in the gradient."""
    (logits, targets), _ = case
    logits = np.concatenate([logits, np.full((len(logits), 1), -np.inf)], axis=1)
    targets = np.concatenate([targets, np.zeros((len(targets), 1))], axis=1)
    x = Tensor(logits)
    masked = ops.cross_entropy(x, targets)
    np.testing.assert_allclose(masked.data, ops.cross_entropy(logits[:, :-1], targets[:, :-1]).data, rtol=1e-12)
    (g,) = gradients(masked, [x])
    assert np.isfinite(g).all()
    assert (g[:, -1] == 0).all()


def test_a_masked_label_costs_infinitely_much():
    assert ops.cross_entropy(np.array([[0.0, -np.inf]]), np.array([1])).item() == np.inf


@given(labelled_logits())
def test_reductions_of_the_cross_entropy(case):
    (logits,), options = case
    losses = ops.cross_entropy(logits, options["targets"], "none").data
    assert losses.shape == (len(logits),)
    for reduction in ("mean", "sum", "none"):
        value = ops.cross_entropy(logits, options["targets"], reduction).data
        np.testing.assert_allclose(value, reduced(losses, reduction), rtol=1e-14)
    np.testing.assert_allclose(ops.cross_entropy(logits, options["targets"]).data, losses.mean(), rtol=1e-14)


@given(broadcastable(reals, reals), reductions)
def test_reductions_of_the_squared_error(arrays, reduction):
    np.testing.assert_allclose(ops.mse_loss(*arrays, reduction).data, mse_loss(*arrays, reduction), rtol=1e-14)


def test_the_loss_of_no_examples_is_zero():
    x = Tensor(np.zeros((0, 3)))
    for reduction in ("mean", "sum"):
        loss = ops.cross_entropy(x, np.zeros(0, int), reduction)
        assert loss.item() == 0
        assert gradients(loss, [x])[0].shape == (0, 3)


@given(reals(shapes(min_dims=2, max_dims=2)), st.data())
def test_an_example_owes_its_gradient_to_itself_alone(logits, data):
    """Summed, not averaged: a gradient does not depend on the batch."""
    labels = data.draw(hnp.arrays(np.int64, len(logits), elements=st.integers(0, logits.shape[1] - 1)))
    x = Tensor(logits)
    (together,) = gradients(ops.cross_entropy(x, labels, reduction="sum"), [x])
    for i in range(len(logits)):
        alone = Tensor(logits[i : i + 1])
        (g,) = gradients(ops.cross_entropy(alone, labels[i : i + 1], reduction="sum"), [alone])
        np.testing.assert_allclose(g[0], together[i], atol=1e-15)


@given(reals(shapes(min_dims=1)))
def test_where_every_element_is_minus_infinity(x):
    """logsumexp of nothing at all is -inf, with gradient zero."""
    t = Tensor(np.full(x.shape, -np.inf))
    value = ops.logsumexp(t)
    assert value.item() == -np.inf
    assert not gradients(value, [t])[0].any()


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.zeros(3), np.zeros(3, int), r"cross_entropy: expected logits of shape \(N, K\), .* got shape \(3,\)"),
        (np.zeros((2, 3)), np.zeros(3, int), r"labels of shape \(2,\) or probabilities .* got int64 of shape \(3,\)"),
        (np.zeros((2, 3)), np.zeros(2), r"integer labels of shape \(2,\).* got float64 of shape \(2,\)"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), r"got int64 of shape \(2, 3\)"),
        (np.zeros((2, 3)), np.zeros((2, 4)), r"probabilities of shape \(2, 3\).* got float64 of shape \(2, 4\)"),
        (np.zeros((2, 3)), np.array([0, 3]), r"labels must lie in \[0, 3\), .* got labels from 0 to 3"),
        (np.zeros((2, 3)), np.array([-1, 1]), r"labels must lie in \[0, 3\), .* got labels from -1 to 1"),
    ],
)
def test_wrong_targets_are_refused(logits, targets, message):
    with pytest.raises(ValueError, match=message):
        ops.cross_entropy(logits, targets)


@pytest.mark.parametrize("operation", [ops.cross_entropy, ops.mse_loss])
def test_an_unknown_reduction_is_refused(operation):
    with pytest.raises(ValueError, match=f'^{operation.__name__}: reduction must be "mean", "sum" or "none", got'):
        operation(np.zeros((2, 3)), np.zeros((2, 3)), reduction="average")


def test_targets_below_zero_count_in_the_value_as_in_the_gradient():
    logits, targets = Tensor(np.array([[1.0, 2.0]])), np.array([[1.5, -0.5]])
    loss = ops.cross_entropy(logits, targets)
    np.testing.assert_allclose(loss.item(), -(targets * ops.log_softmax(logits).data).sum())
