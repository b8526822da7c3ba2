from itertools import pairwise

import numpy as np
import pytest
from certify_cases import NETWORKS, SMALL, Residual, corners, images, logits_of
from gradcheck import check_vjp
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyadv import Tensor, attacks, certify, nn, no_grad, ops
from tinyadv.certify import Interval
from tinyadv.certify.accuracy import by_crown, sound_box
from tinyadv.certify.crown import RULES, crown_worst
from tinyadv.data import Dataset

flat_or_not = pytest.mark.parametrize("flat", [False, True])


def dense(seed=0, sizes=(6, 9, 8, 4)):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(n, m)) / m**0.5, rng.normal(size=n) / 3) for m, n in pairwise(sizes)]


def through(layers, x):
    for weight, bias in layers[:-1]:
        x = ops.relu(ops.linear(x, weight, bias))
    return ops.linear(x, *layers[-1])


def by_hand(layers, low, high, label, other, flat):
    """The upper bound of z_other - z_label for one image, in the notation of the paper, unit by unit."""
    ends, before = (low, high), []
    for weight, bias in layers[:-1]:
        c, r = weight @ (ends[0] + ends[1]) / 2 + bias, np.abs(weight) @ (ends[1] - ends[0]) / 2
        before.append((c - r, c + r))
        ends = np.maximum(c - r, 0), np.maximum(c + r, 0)
    a = np.eye(len(layers[-1][1]))[other] - np.eye(len(layers[-1][1]))[label]
    bound = a @ layers[-1][1]
    a = a @ layers[-1][0]
    for (weight, bias), (lows, highs) in zip(layers[-2::-1], before[::-1], strict=True):
        for i, (lo, up) in enumerate(zip(lows, highs, strict=True)):
            if up <= 0:
                a[i] = 0
            elif lo < 0:
                if a[i] > 0:
                    bound -= a[i] * up * lo / (up - lo)
                    a[i] *= up / (up - lo)
                elif flat or up <= -lo:
                    a[i] = 0
        bound += a @ bias
        a = a @ weight
    return bound + np.where(a > 0, a * high, a * low).sum()


@flat_or_not
@given(seed=st.integers(0, 999), eps=st.sampled_from([0.01, 0.1, 0.4]))
@settings(max_examples=25)
def test_it_is_the_bound_of_the_paper_on_dense_networks(flat, seed, eps):
    layers, x = dense(seed), np.random.default_rng(seed).random((2, 6))
    labels = np.array([seed % 4, 1])
    found = crown_worst(through(layers, Interval(x - eps, x + eps)), labels, flat).data
    expected = [[0 if j == y else by_hand(layers, row - eps, row + eps, y, j, flat) for j in range(4)]
                for row, y in zip(x, labels, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@flat_or_not
@pytest.mark.parametrize("name", [*SMALL, "IntervalCNN", "LeNet", "DenseNet", "MadryCNN", "MnistResNet"])
@settings(max_examples=3)
@given(eps=st.sampled_from([0.0, 0.02, 0.2]), seed=st.integers(0, 99))
def test_no_point_of_the_box_has_a_larger_difference(name, flat, eps, seed):
    make, shape = {**NETWORKS, "MnistResNet": NETWORKS["residual"], **SMALL}[name]
    model, x = make().eval(), images(shape, seed=seed)
    labels, rows = logits_of(model, x).argmax(axis=1), np.arange(3)
    box = sound_box(x, eps, (0.0, 1.0))
    with no_grad():
        z = model(box)
        bound, interval = crown_worst(z, labels, flat).data, z.worst(labels).data
        best = by_crown(model, box, labels)
    assert (best <= interval).all()
    assert (bound[rows, labels] == 0).all()
    low, high = box.low.data.astype(np.float32), box.high.data.astype(np.float32)
    points = [*corners(model, low, high, seed), attacks.PGD(max(eps, 1e-6), steps=5)(model, x, labels)]
    for point in points:
        inside = ((point >= box.low.data) & (point <= box.high.data)).reshape(3, -1).all(axis=1)
        logits = logits_of(model, point).astype(float)
        assert ((logits - logits[rows, labels][:, None] <= bound) | ~inside[:, None]).all()


def test_it_is_tighter_than_intervals_for_networks_that_were_not_trained_with_them():
    for name in SMALL:
        model, x = SMALL[name][0]().eval(), images(SMALL[name][1])
        z, labels = model(Interval.around(x.astype(float), 0.01)), np.arange(3)
        crown, interval = crown_worst(z, labels).data, z.worst(labels).data
        assert (crown <= interval + 1e-7).all()
        assert name == "all kinds" or (crown < interval - 1e-3).any()


@flat_or_not
def test_affine_networks_are_exact_and_eps_0_gives_the_differences(flat):
    (first, b), (second, c) = dense(1, (6, 5, 4))
    x, labels = np.random.default_rng(0).random((3, 6)), np.array([0, 1, 3])
    z = ops.linear(ops.linear(Interval(x - 0.1, x + 0.1), first, b), second, c)
    rows, whole = z.centre.data, second @ first
    expected = rows - rows[range(3), labels][:, None] + 0.1 * np.abs(whole - whole[labels][:, None]).sum(axis=2)
    np.testing.assert_allclose(crown_worst(z, labels, flat).data, expected, atol=1e-12)
    model, x = Residual().eval(), images((1, 6, 6)).astype(float)
    found, logits = crown_worst(model(Interval(x, x)), labels, flat).data, model(Tensor(x)).data
    np.testing.assert_allclose(found, logits - logits[range(3), labels][:, None], atol=1e-6)


@flat_or_not
@pytest.mark.parametrize(("pool", "width"), [
    (ops.global_avg_pool2d, 3), (lambda x: ops.sum(x, axis=(-2, -1)), 3), (lambda x: ops.mean(x, axis=1), 16),
    (lambda x: ops.mean(x, axis=2, keepdims=True), 12), (lambda x: ops.sum(x, axis=3), 12),
])
def test_means_and_sums_between_affine_layers_are_exact(pool, width, flat):
    rng = np.random.default_rng(0)
    x, first, last = rng.random((2, 1, 4, 4)), rng.normal(size=(3, 1, 3, 3)), rng.normal(size=(4, width))

    def affine(x):
        return ops.linear(ops.flatten(pool(ops.conv2d(x, first, None, 1, 1))), last)

    labels, zero = np.array([3, 1]), affine(Tensor(np.zeros((1, 1, 4, 4)))).data
    matrix = affine(Tensor(np.eye(16).reshape(16, 1, 4, 4))).data - zero  # (16, 4): a column for each logit
    z = affine(Tensor(x)).data
    reach = 0.1 * np.abs(matrix[:, None] - matrix[:, labels, None]).sum(axis=0)  # (2, 4): of z_j - z_y
    bound = crown_worst(affine(Interval(x - 0.1, x + 0.1)), labels, flat).data
    np.testing.assert_allclose(bound, z - z[range(2), labels][:, None] + reach, atol=1e-9)
    check_vjp(lambda w: crown_worst(ops.linear(ops.flatten(pool(ops.conv2d(Interval(x - 0.1, x + 0.1), w, None, 1, 1))),
                                               last), labels, flat), [first], tolerance=1e-5)


def test_a_value_that_is_used_twice_goes_back_both_ways():
    x, labels = np.array([[0.4, -0.2]]), np.array([0])
    y = ops.relu(ops.linear(Interval(x - 0.1, x + 0.3), np.eye(2)))
    once, twice = (crown_worst(ops.linear(each, np.eye(2)), labels).data for each in (y, y + y))
    np.testing.assert_allclose(twice, 2 * once)


@pytest.mark.parametrize("options", [(1, 0, 1, 1), ((2, 1), (1, 0), 1, 1), (1, 1, 2, 1), (2, 1, 1, 2)])
def test_the_bound_has_the_gradients_of_finite_differences(options):
    rng = np.random.default_rng(3)
    groups = options[3]
    x = rng.random((2, 2, 5, 5))
    weight, bias = rng.normal(size=(4, 2 // groups, 3, 3)), rng.normal(size=4)
    last = rng.normal(size=(3, np.prod(ops.conv2d(x, weight, None, *options).shape[1:]))) / 4

    def loss(weight, bias, last):
        h = ops.relu(ops.conv2d(Interval(x - 0.05, x + 0.05), weight, bias, *options))
        return crown_worst(ops.linear(ops.flatten(h), last), np.array([0, 2]))

    check_vjp(loss, [weight, bias, last], tolerance=1e-5)


def test_batch_norm_in_training_goes_back_through_the_statistics_of_the_clean_images():
    rng = np.random.default_rng(0)
    x, weight, last = rng.random((6, 5)), rng.normal(size=(4, 5)), rng.normal(size=(3, 4))
    norm = nn.BatchNorm1d(4)

    def bounds(weight, scale, last):
        norm.weight = scale
        h = ops.relu(norm(ops.linear(Interval(x - 0.05, x + 0.05, value=x), weight)))
        return ops.linear(h, last)

    labels = np.array([0, 1, 2, 0, 1, 2])
    arguments = [weight, rng.normal(size=4), last]
    check_vjp(lambda *each: crown_worst(bounds(*each), labels), arguments, tolerance=1e-5)
    z = bounds(*map(Tensor, arguments))
    value = z.value.data - z.value.data[range(6), labels][:, None]
    assert (value <= crown_worst(z, labels).data + 1e-9).all()


def test_it_certifies_more_of_an_ordinary_network_and_no_near_tie():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 30, rng=0), nn.ReLU(), nn.Linear(30, 30, rng=1), nn.ReLU(),
                          nn.Linear(30, 3, rng=2))
    x = rng.random((60, 1, 6, 6)).astype(np.float32)
    data = Dataset(x, logits_of(model, x).argmax(axis=1), classes=("a", "b", "c"))
    box, crown = (certify.certified_accuracy(model, data, 0.03, method=each, attack=attacks.PGD(0.03, steps=9))
                  for each in ("ibp", "crown-ibp"))
    assert (box.certified <= crown.certified).all()
    assert float(crown) > float(box) + 0.1
    assert crown.consistent
    last = model.layers[-1]
    last.weight.data, last.bias.data = np.repeat(last.weight.data[:1], 3, axis=0), np.zeros(3, np.float32)
    assert float(certify.certified_accuracy(model, data, 0.0, method="crown-ibp")) == 0


def test_what_has_no_rule_is_bounded_by_its_interval():
    x = np.random.default_rng(0).random((2, 5))
    assert ops.tanh not in RULES
    z = ops.tanh(ops.linear(Interval(x - 0.1, x + 0.1), np.eye(5)))
    labels = np.array([0, 1])
    np.testing.assert_allclose(crown_worst(z, labels).data, z.worst(labels).data)


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "zonotope"])
def test_a_scale_that_has_lost_digits_is_covered(method):
    """weight / sqrt(variance) is below 2**-126 in float32, and 1% off; the numbers before it are large."""
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(1, 2))
    state = {name: np.zeros_like(array) for name, array in model.state_dict().items()}
    for name, value in (("0.weight", 1e22), ("1.weight", 9.9e-29), ("1.running_var", 1e30), ("2.weight", 1e22)):
        state[name][...] = value
    state["4.weight"][0] = 1
    model.load_state_dict(state)
    model.eval()
    x = np.full((1, 1, 1, 1), 0.5, np.float32)
    state["4.bias"][1] = logits_of(model, x + np.float32(0.0005))[0, 0]
    model.load_state_dict(state)
    assert logits_of(model, x + np.float32(0.0009)).argmax() == 0
    test = Dataset(x, np.array([1]), "one", ("0", "1"))
    assert not certify.certified_accuracy(model, test, 0.001, method=method).certified.any()


@flat_or_not
def test_it_runs_where_the_box_is(flat, xp):
    layers, x = dense(), np.random.default_rng(0).random((2, 6))
    labels = np.array([0, 3])
    expected = crown_worst(through(layers, Interval(x - 0.1, x + 0.1)), labels, flat)
    there = [tuple(map(xp.asarray, layer)) for layer in layers]
    box = Interval(xp.asarray(x - 0.1), xp.asarray(x + 0.1))
    found = crown_worst(through(there, box), xp.asarray(labels), flat)
    assert isinstance(found.data, xp.ndarray)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-9)
