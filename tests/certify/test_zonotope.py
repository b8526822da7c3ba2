import numpy as np
import pytest
from certify_cases import NETWORKS, SMALL, all_kinds, corners, images, linear, logits_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyadv import Tensor, certify, no_grad, ops
from tinyadv.certify import Interval, Zonotope
from tinyadv.certify.rounding import FLOAT32

every_network = pytest.mark.parametrize("name", SMALL)


def both(model, x, eps, **options):
    low, high = (x - eps).clip(0, 1), (x + eps).clip(0, 1)
    return model(Interval(low, high, **options)), model(Zonotope(low, high, **options))


@every_network
@pytest.mark.parametrize("terms", [0, 3, 1000])
@settings(max_examples=4)
@given(eps=st.sampled_from([0.0, 0.02, 0.2]), seed=st.integers(0, 99))
def test_no_point_leaves_a_zonotope_at_any_layer_and_it_is_within_the_interval(name, terms, eps, seed):
    make, shape = SMALL[name]
    model, x = make().eval(), images(shape, seed=seed).astype(float)
    low, high = (x - eps).clip(0, 1), (x + eps).clip(0, 1)
    with no_grad():
        interval = model(Interval(low, high))
    for point in corners(model, low.astype(np.float32), high.astype(np.float32), seed):
        with no_grad():
            z = model(Zonotope(low, high, value=point.astype(float).clip(low, high), terms=terms))
        for step in z.steps():
            room = 1e-9 * (1 + step.magnitude.data.max())
            assert (step.low.data <= step.value.data + room).all()
            assert (step.value.data <= step.high.data + room).all()
        assert (z.low.data >= interval.low.data - 1e-9).all()
        assert (z.high.data <= interval.high.data + 1e-9).all()


def test_the_terms_of_two_branches_are_not_taken_for_each_other():
    """relu(a) - relu(b) - (a - b) / 2 = (|a| - |b|) / 2: what is left are the gaps of two relus."""
    def model(x):
        a, b = (ops.linear(x, np.eye(2)[[k]]) for k in (0, 1))
        return ops.relu(a) - ops.relu(ops.relu(b) * 1) - (a - b) * 0.5

    z = model(Zonotope(-np.ones((1, 2)), np.ones((1, 2)), terms=5))
    radius = (z.box + ops.abs(z.errors).sum(axis=0)).data  # that of the zonotope alone, without the interval
    for point in ([[1, 0]], [[0, 1]], [[1, 1]], [[-1, 0.5]]):
        assert (np.abs(model(Tensor(np.float64(point))).data - z.centre.data) <= radius + 1e-9).all()
    assert len(z.errors) == 4


@pytest.mark.parametrize("operation", [ops.add, ops.subtract, ops.multiply, ops.divide, ops.maximum, ops.matmul],
                         ids=lambda f: f.__name__)
def test_zonotopes_of_different_inputs_are_not_taken_for_those_of_one(operation):
    """a - b would be 0, as if their errors were the same; of parts of one input it is what it must be."""
    a, b = (Zonotope(np.full((2, 2), 1.0), np.full((2, 2), 3.0)) for _ in range(2))
    for one, other in ((a, b), (b, a), (ops.relu(a * 2), b), (a, ops.tanh(b))):
        with pytest.raises(ValueError, match=f"{operation.__name__}: all Zonotopes must be computed from the same one"):
            operation(one, other)
    with pytest.raises(ValueError, match="concatenate: all Zonotopes must be computed from the same one"):
        ops.concatenate([a, b], axis=1)
    both = Zonotope(-np.ones((1, 2)), np.ones((1, 2)))
    one, other = both[:, :1], both[:, 1:]
    assert ((one - other).low.data.item(), (one - other).high.data.item()) == (-2, 2)
    assert (one - one).high.data.item() == 0


MIXING = {
    "a part": lambda z: z[:2] - z[2:4], "another order": lambda z: z[[1, 0, 2, 4, 3]] - z,
    "one image": lambda z: z[1] - z[0], "broadcast": lambda z: z[:1] - z,
    "a sum": lambda z: ops.sum(z * np.array([[1.0], [-1], [1], [-1], [0]]), axis=0),
    "all of it": lambda z: ops.sum(z * np.array([[1.0], [-1], [1], [-1], [0]])),
    "a matrix": lambda z: ops.matmul(np.eye(5) - np.eye(5)[[1, 2, 3, 4, 0]], z),
    "transposed": lambda z: ops.transpose(z)[:3] - z[:3, [0, 1, 2, 0, 1]][:, :5],
    "reshaped": lambda z: ops.reshape(z, (3, 5))[:, 1:4] - z[:3],
    "twice": lambda z: ops.concatenate([z[:2], z[:2]], axis=0) - z[:4],
}


@pytest.mark.parametrize("mix", MIXING.values(), ids=MIXING)
def test_the_images_of_a_batch_do_not_share_their_errors(mix):
    """In each of these, other images would cancel out; the corners of the box show whether they do."""
    rng = np.random.default_rng(0)
    z = mix(Zonotope(-np.ones((5, 3)), np.ones((5, 3))))
    for _ in range(100):
        exact = mix(Tensor(rng.choice([-1.0, 1.0], (5, 3)))).data
        assert (z.low.data <= exact + 1e-9).all()
        assert (exact <= z.high.data + 1e-9).all()


def test_what_treats_each_image_by_itself_keeps_the_terms_of_a_batch():
    z = Zonotope(-np.ones((5, 6)), np.ones((5, 6)))
    for step in (lambda z: z[:, ::2] - z[:, 1::2], lambda z: ops.sum(ops.reshape(z, (5, 2, 3)), axis=2),
                 lambda z: ops.transpose(ops.reshape(z, (5, 2, 3)), (0, 2, 1)), lambda z: z[:3] * 2,
                 lambda z: ops.concatenate([z, -z], axis=1), lambda z: ops.pad(z, ((0, 0), (1, 1))),
                 lambda z: ops.matmul(z, np.ones((6, 2))), lambda z: z[:0] + 1):
        assert len(step(z).errors) == 6


@every_network
@pytest.mark.parametrize("terms", [0, 3])
def test_a_batch_of_no_images_has_bounds_of_none(name, terms):
    make, shape = SMALL[name]
    x, model = images(shape, 0), make().eval()
    for z in model(Interval(x, x)), model(Zonotope(x, x, terms=terms)):
        assert z.low.shape == z.high.shape == z.worst(np.zeros(0, int)).shape == (0, z.shape[1])


def test_more_terms_are_tighter_after_the_second_relu():
    x = images((1, 4, 4)).astype(float)
    widths = [float((z.high - z.low).data.sum()) for z in (
        SMALL["dense"][0]()(Zonotope(x - 0.1, x + 0.1, terms=terms)) for terms in (0, 3, 100))]
    assert widths[2] < widths[1] < widths[0]


@every_network
def test_its_worst_logits_bound_every_difference_and_are_within_those_of_intervals(name):
    make, shape = SMALL[name]
    model, x = make().eval(), images(shape).astype(float)
    labels, rows = np.arange(3), np.arange(3)
    tighter = 0
    for eps in (0.0, 0.05, 0.2):
        with no_grad():
            interval, zonotope = (z.worst(labels).data for z in both(model, x, eps))
        assert (zonotope <= interval + 1e-9).all()
        assert (zonotope[rows, labels] == 0).all()
        tighter += (zonotope < interval - 1e-3).any()
        low, high = (x - eps).clip(0, 1).astype(np.float32), (x + eps).clip(0, 1).astype(np.float32)
        for point in corners(model, low, high):
            logits = logits_of(model, point)
            assert (logits - logits[rows, labels][:, None] <= zonotope + 1e-4).all()
    assert tighter or name == "all kinds"


@given(seed=st.integers(0, 2**32 - 1))
def test_two_affine_layers_are_exact(seed):
    """Intervals are exact for one; zonotopes for any number of them."""
    rng = np.random.default_rng(seed)
    second, (model, (first, _)) = rng.normal(size=(3, 4)), linear(seed)
    x = rng.random((2, 1, 2, 3))
    z = ops.linear(model(Zonotope(x - 0.1, x + 0.1)), second)
    np.testing.assert_allclose((z.high - z.low).data, np.tile(0.2 * np.abs(second @ first).sum(axis=1), (2, 1)))


@given(seed=st.integers(0, 99), eps=st.sampled_from([0.0, 2.0**-20, 0.01]))
@settings(max_examples=5)
def test_float32_rounding_does_not_leave_the_bounds_that_include_it(seed, eps):
    model, x = all_kinds().eval(), images((1, 8, 8), seed=seed)
    low, high = (x - np.float32(eps)).clip(0, 1), (x + np.float32(eps)).clip(0, 1)
    for point in corners(model, low, high, seed):
        with no_grad():
            z = model(Zonotope(low.astype(float), high.astype(float), value=point, roundoff=FLOAT32))
        for step in z.steps():
            assert (step.low.data <= step.value.data).all()
            assert (step.value.data <= step.high.data).all()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "all kinds"])
def test_float32_rounding_does_not_leave_the_bounds_of_whole_networks(name):
    """One image, whose error terms take as long as so many images, a random point and a corner where a logit is steep.
    """
    make, shape = NETWORKS[name]
    model, x = make().eval(), images(shape, 1)
    low, high = (x - np.float32(0.002)).clip(0, 1), (x + np.float32(0.002)).clip(0, 1)
    for point in [*corners(model, low, high)][::3]:
        with no_grad():
            z = model(Zonotope(low.astype(float), high.astype(float), value=point, roundoff=FLOAT32))
        assert (z.value.data == logits_of(model, point)).all()
        for step in z.steps():
            assert (step.low.data <= step.value.data).all()
            assert (step.value.data <= step.high.data).all()
        logits = z.value.data.astype(float)
        assert (logits - logits[:, :1] <= z.worst(np.array([0])).data).all()


def test_arguments_are_checked():
    x = np.zeros((1, 2))
    for terms in (-3, 1.5, True):
        with pytest.raises(ValueError, match=f"terms must be an integer >= 0, got {terms}"):
            Zonotope(x, x, terms=terms)
    for one, other in ((Interval, Zonotope), (Zonotope, Interval)):
        with pytest.raises(TypeError, match=f"arguments must be of one class, got {one.__name__} and"):
            one(x, x) + other(x, x)
    with pytest.raises(TypeError, match=r"crown_worst takes an Interval of logits.*got Zonotope"):
        certify.crown_worst(Zonotope(x, x), np.array([0]))


@pytest.mark.parametrize("worst", [Interval.worst, Zonotope.worst, certify.crown_worst], ids=lambda f: f.__qualname__)
def test_labels_are_classes(worst):
    x = np.random.default_rng(0).random((2, 3))
    kind = Zonotope if worst is Zonotope.worst else Interval
    z = ops.linear(kind(x, x + 0.1), np.eye(3))
    assert (worst(z, [0, 2]).data == worst(z, np.array([0, 2])).data).all()
    for labels in (Tensor([0, 2]), [0.0, 2.0], [0], 1, [[0, 2]], np.eye(2)):
        with pytest.raises(ValueError, match=r"labels must be integer classes of shape \(2,\)"):
            worst(z, labels)
    for labels in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="worst: labels must lie in"):
            worst(z, labels)
    with pytest.raises(ValueError, match=r"worst: expected logits \(N, K\)"):
        worst(kind(x[None], x[None]), [0])


def test_without_error_terms_relu_is_that_of_an_interval():
    low, high = np.array([[-1.0, -2.0, 1.0]]), np.array([[2.0, -1.0, 3.0]])
    z = Zonotope(low, high)
    assert repr(z) == "Zonotope(shape=(1, 3), float64, 3 error terms)"
    y = ops.relu(z)
    assert y.low.data.tolist() == [[0, 0, 1]]
    assert y.high.data.tolist() == [[2, 0, 3]]
    assert y.centre.data[0, 0] == pytest.approx(2 / 3 * 0.5 + 1 / 3)
    assert y.box.data.tolist() == [[pytest.approx(1 / 3), 0, 0]]
    flat = ops.relu(ops.tanh(z))
    assert len(flat.errors) == 0
    assert flat.high.data[0, 0] == pytest.approx(np.tanh(2))
