import numpy as np
import pytest
from cases import CASES
from certify_cases import NETWORKS, all_kinds, corners, images, linear, logits_of
from gradcheck import check_vjp
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyadv import Tensor, certify, gradients, nn, no_grad, ops
from tinyadv.certify import Interval, Zonotope
from tinyadv.certify.rounding import FLOAT32
from tinyadv.data import Dataset

WITHOUT_RULE = {"log_softmax", "cross_entropy", "mse_loss"}
CONSTANTS = [-1024, -3, 0, 77, -0.3, -1e3, np.int8(-128), np.int16(-999), np.int64(-3), np.uint8(200),
             np.float32(-0.3), np.float64(-7.7)]
NUMBERS = {"add", "subtract", "multiply", "maximum", "minimum"}
WITH_CONSTANTS = dict.fromkeys((*NUMBERS, "linear", "matmul"), ((4, 4), (4, 4))) | {
    "conv2d": ((2, 3, 4, 4), (2, 3, 2, 2))}
FIRST_ONLY = {"linear", "conv2d", "batch_norm", "layer_norm", "power"}
seeds = st.integers(0, 2**32 - 1)
every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name, seed=0):
    make, shape = NETWORKS[name]
    return make().eval(), images(shape, seed=seed)


def assert_inside(z, slack=1e-9):
    """The value of every step is between its bounds."""
    for step in z.steps():
        room = slack * (1 + step.magnitude.data.max(initial=0))
        assert (step.low.data <= step.value.data + room).all(), step.origin
        assert (step.value.data <= step.high.data + room).all(), step.origin


@pytest.mark.parametrize("case", [case for case in CASES if case.operation not in WITHOUT_RULE], ids=lambda c: c.name)
@given(data=st.data(), share=st.sampled_from([0.0, 0.05, 0.4]), seed=seeds)
def test_no_point_leaves_the_bounds_of_an_operation(case, data, share, seed):
    arrays, options = data.draw(case.operands)
    other_axis = options.get("axis", -1) not in (-1, arrays[0].ndim - 1)
    if case.name in ("power", "power: of a number") or (other_axis and case.operation == "softmax"):
        return  # an abstract exponent, and the softmax of another axis, are errors: see below
    rng = np.random.default_rng(seed)
    abstract = 1 if case.operation in FIRST_ONLY else data.draw(st.integers(1, 2**len(arrays) - 1))
    args = []
    for i, x in enumerate(arrays):
        if abstract >> i & 1 and x.dtype.kind == "f":
            low, high = x - share * np.abs(x), x + share * np.abs(x)
            sampled = low + (high - low) * rng.choice([0, 0.3, 1], x.shape)
            args.append(Interval(low, high, value=np.clip(sampled, low, high)))
        else:
            args.append(x)
    if any(isinstance(x, Interval) for x in args):
        z = case.function(*args, **options)
        assert z.shape == z.value.shape
        assert_inside(z)


def test_an_operation_without_a_rule_is_an_error_that_names_it():
    x = Interval(np.zeros((2, 3)), np.ones((2, 3)))
    for call, message in (
            (lambda: ops.mse_loss(x, 0.0), "mse_loss has no rule for an argument of the class Interval"),
            (lambda: ops.power(2.0, x), "power: an Interval must be the base"),
            (lambda: x**-0.5, "power: an Interval to the power -0.5 must be positive"),
            (lambda: 1 / x, "divide: an Interval that holds zero cannot be a divisor"),
            (lambda: ops.softmax(x, axis=0), "softmax: an Interval needs the last axis, got 0"),
            (lambda: ops.leaky_relu(x, -1.0), "leaky_relu: an Interval needs a slope >= 0"),
            (lambda: ops.linear(np.ones((2, 3)), x), "linear: an Interval must be the first argument")):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_an_interval_has_a_low_below_its_high():
    with pytest.raises(ValueError, match=r"low must be at most high, and of the same shape; got low 1.5, high 1.0"):
        Interval(np.arange(3.0) * 1.5, np.ones(3))
    with pytest.raises(ValueError, match=r"low must be at most high, and of the same shape; got low 1.0, high nan"):
        Interval(np.ones(2), [2, np.nan])
    with pytest.raises(ValueError, match=r"low must be at most high, .*; got shapes \(2,\) and \(3,\)"):
        Interval(np.ones(2), np.zeros(3))


@pytest.mark.parametrize(("x", "bounds", "message"), [
    (np.full((1, 2), 5.0), (0.0, 1.0), r"x must lie in bounds=\(0.0, 1.0\), got values from 5.0 to 5.0"),
    (np.full((1, 2), -0.1), (0.0, 1.0), r"x must lie in bounds=\(0.0, 1.0\), got values from -0.1"),
    (np.full((1, 2), 0.5), (1.0, 2.0), r"x must lie in bounds=\(1.0, 2.0\)"),
    (np.full((1, 2), np.nan), (0.0, 1.0), "x must be numbers"), (np.ones((1, 2), int), (0.0, 1.0), "floating-point")])
def test_images_outside_of_the_bounds_have_no_interval_around_them(x, bounds, message):
    """It would not hold them."""
    with pytest.raises(ValueError, match=message):
        Interval.around(x, 0.1, bounds)


@pytest.mark.parametrize("kind", [Interval, Zonotope])
def test_bounds_that_are_to_include_rounding_are_float64(kind):
    x = np.zeros((2, 3), np.float32)
    for low, high in ((x, x), (x.astype(float), x), (x, x.astype(float))):
        with pytest.raises(ValueError, match="low and high must be float64 where roundoff is given, got float"):
            kind(low, high, roundoff=FLOAT32)


@pytest.mark.parametrize("kind", [Interval, Zonotope])
@pytest.mark.parametrize("roundoff", [-1, -2.0**-24, np.nan, np.inf, "0", True])
def test_the_unit_roundoff_is_a_number_and_not_negative(kind, roundoff):
    with pytest.raises(ValueError, match="roundoff must be a number >= 0, got"):
        kind(np.zeros((2, 3)), np.ones((2, 3)), roundoff=roundoff)


def test_more_steps_than_a_unit_roundoff_can_bear_are_an_error():
    """gamma(n) = n u / (1 - n u) would be negative, and the bounds too small."""
    x = Interval(np.ones((1, 3000)), np.ones((1, 3000)), roundoff=2.0**-11)
    assert np.isfinite((x + x).high.data).all()
    with pytest.raises(ValueError, match="the rounding errors of 3003 steps have no bound where the unit roundoff is"):
        ops.sum(x, axis=1)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum", "matmul"])
@given(seed=seeds)
@settings(max_examples=5)
def test_rounding_counts_whichever_operand_is_to_include_it(name, seed):
    one, other = np.random.default_rng(seed).uniform(1, 2, (2, 3, 3)).astype(np.float32).astype(float)
    plain, sound = Interval(one, one), Interval(other, other, roundoff=FLOAT32)
    operation = getattr(ops, name)
    expected = operation(Interval(one, one, roundoff=FLOAT32), sound)
    for z in (operation(plain, sound), operation(Interval(one, one, roundoff=FLOAT32), Interval(other, other))):
        assert z.roundoff == FLOAT32
        assert (z.low.data == expected.low.data).all()
        assert (z.high.data == expected.high.data).all()
    assert (expected.low.data < expected.high.data).all()


@pytest.mark.parametrize("kind", [Interval, Zonotope])
def test_a_value_is_between_the_bounds(kind):
    x = np.full((2, 3), 0.5)
    for value in (x + 0.2, x - 0.2, x * np.nan, x[:1], x[:, :2], 0.5):
        with pytest.raises(ValueError, match="value must be between low and high, and of their shape"):
            kind(x - 0.1, x + 0.1, value)
    for value, message in ((np.float32([[0, 2]]), "value 2.0, low 0.0, high 1.0"),
                           (np.float32([[0, np.nan]]), "value nan, low 0.0, high 1.0"),
                           (np.float32([0, 1]), r"shapes \(2,\) and \(1, 2\)")):
        with pytest.raises(ValueError, match=f"value must be between low and high, and of their shape; got {message}"):
            kind(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32), value)
    x = images((1, 8, 8), 50)
    for eps in (0.1, 0.3, 0.7 / 3):  # which may be an ulp away, as an attack rounds otherwise than a box
        y = np.nextafter((x + np.float32(eps)).clip(0, 1), np.float32(2))
        assert (kind.around(x, eps, value=y) if kind is Interval else kind(x - eps, x + eps, y)).value is not None


@pytest.mark.parametrize("kind", [Interval, Zonotope])
def test_a_result_has_a_value_if_all_operands_have_one(kind):
    x = kind(np.zeros((1, 4)), np.ones((1, 4)), value=np.ones((1, 4)))
    assert (x[:, :2] + x[:, 2:]).value.data.tolist() == [[2, 2]]
    if kind is Interval:  # two zonotopes of one operation are of one input
        other = kind(np.zeros((1, 4)), np.ones((1, 4)))
        assert (x + other).value is (other + x).value is None


def test_keywords_of_an_operation_may_be_abstract():
    x = Interval(np.zeros((2, 3)), np.ones((2, 3)))
    assert np.array_equal(ops.relu(x=x).high.data, np.ones((2, 3)))


@pytest.mark.parametrize("method", certify.accuracy.METHODS)
def test_operands_and_options_may_be_given_by_name(method):
    kernel, weight, bias = (np.random.default_rng(0).normal(size=size).astype(np.float32)
                            for size in ((2, 1, 3, 3), (4, 2), 4))
    statistics = {"weight": bias[:2], "bias": bias[2:], "mean": bias[1:3], "variance": bias[:2]**2}

    def named(x):
        x = ops.conv2d(x, weight=kernel, stride=2)
        x = ops.batch_norm(ops.avg_pool2d(x, stride=1, size=2), **statistics, eps=1e-3)
        return ops.linear(ops.mean(x, axis=(2, 3)), weight=weight, bias=bias)

    def placed(x):
        x = ops.conv2d(x, kernel, None, 2)
        x = ops.batch_norm(ops.avg_pool2d(x, 2, 1), *statistics.values(), 1e-3)
        return ops.linear(ops.mean(x, (2, 3)), weight, bias)

    box, labels = certify.accuracy.sound_box(images((1, 9, 9)), 0.01, (0, 1)), np.array([0, 1, 2])
    found, expected = (certify.accuracy.METHODS[method](model, box, labels) for model in (named, placed))
    assert (found == expected).all()
    with pytest.raises(TypeError, match="sum takes no dim: write axis="):
        ops.sum(box, dim=1)


@every_network
@settings(max_examples=5)
@given(eps=st.sampled_from([0.0, 0.003, 0.1]), seed=st.integers(0, 9))
def test_no_point_leaves_the_bounds_at_any_layer(name, eps, seed):
    model, x = network(name, seed)
    box = Interval.around(x, np.float32(eps))
    for point in corners(model, box.low.data, box.high.data, seed):
        with no_grad():
            assert_inside(model(Interval(box.low, box.high, value=point)), slack=1e-5)


@every_network
def test_with_eps_0_the_bounds_are_the_value(name):
    model, x = network(name)
    with no_grad():
        z = model(Interval(x, x))
    expected = logits_of(model, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(z.low.data, expected, atol=1e-5 * scale)
    np.testing.assert_allclose(z.high.data, expected, atol=1e-5 * scale)


@every_network
def test_the_bounds_of_a_smaller_box_are_within_those_of_a_larger_one(name):
    model, x = network(name)
    with no_grad():
        small, large = (model(Interval.around(x.astype(float), eps)) for eps in (0.01, 0.02))
    for inner, outer in zip(small.steps(), large.steps(), strict=True):
        room = 1e-9 * (1 + outer.magnitude.data.max())
        assert (outer.low.data <= inner.low.data + room).all()
        assert (inner.high.data <= outer.high.data + room).all()


@given(seed=seeds, eps=st.sampled_from([0.0, 0.1, 1.0]))
def test_the_bounds_of_an_affine_network_are_attained(seed, eps):
    model, (weight, bias) = linear(seed)
    x = np.random.default_rng(seed).random((2, 1, 2, 3))
    z = model(Interval.around(x, eps, bounds=(-9, 9)))
    exact = x.reshape(2, -1) @ weight.T + bias
    np.testing.assert_allclose(z.high.data, exact + eps * np.abs(weight).sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(z.low.data, exact - eps * np.abs(weight).sum(axis=1), atol=1e-12)
    labels = np.array([0, 3])
    worst = z.worst(labels).data
    for i, y in enumerate(labels):
        for j in range(len(weight)):
            row = weight[j] - weight[y]
            corner = x[i].ravel() + eps * np.sign(row)
            assert worst[i, j] == pytest.approx(corner @ row + bias[j] - bias[y], abs=1e-12)


@every_network
def test_the_worst_logits_bound_every_difference_and_are_never_looser_than_those_of_two_bounds(name):
    model, x = network(name)
    x = x.astype(np.float64)
    rows, labels = np.arange(len(x)), np.arange(len(x))
    box = Interval.around(x, 0.02)
    with no_grad():
        z = model(box)
        worst = z.worst(labels).data
        naive = z.high.data - z.low.data[rows, labels][:, None]
    room = 1e-9 * (1 + np.abs(naive).max())
    assert (worst[rows, labels] == 0).all()
    assert ((worst - naive)[labels[:, None] != np.arange(worst.shape[1])] <= room).all()
    for point in corners(model, box.low.data, box.high.data):
        logits = logits_of(model, point)
        assert (logits - logits[rows, labels][:, None] <= worst + room).all()


@every_network
@settings(max_examples=8)
@given(eps=st.sampled_from([0.0, 2.0**-20, 0.01]), seed=st.integers(0, 99))
def test_float32_rounding_does_not_leave_the_bounds_that_include_it(name, eps, seed):
    """No tolerance: the value is computed in float32, as by the network itself, the bounds in float64."""
    model, x = network(name, seed)
    low, high = (x - np.float32(eps)).clip(0, 1), (x + np.float32(eps)).clip(0, 1)
    for point in corners(model, low, high, seed):
        with no_grad():
            z = model(Interval(low.astype(float), high.astype(float), value=point, roundoff=FLOAT32))
        assert z.value.dtype == np.float32
        assert (z.value.data == logits_of(model, point)).all()
        assert_inside(z, slack=0)


SUMS = {  # an operation of absolute values, their shapes, and the number of terms of its sums
    "linear": (lambda x, w, b: ops.linear(x, w, b), [(2, 50), (3, 50), (3,)], 51),
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b, 1, 1), [(2, 4, 5, 5), (3, 4, 3, 3), (3,)], 37),
    "matmul": (lambda x, w: ops.matmul(x, w), [(2, 50), (50, 3)], 50),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, 4), [(2, 3, 8, 8)], 16),
    "sum": (lambda x: ops.sum(x, axis=1), [(2, 50)], 50),
    "mean": (lambda x: ops.mean(x, axis=(2, 3)), [(2, 3, 5, 5)], 25),
    "batch_norm": (lambda x, w, b, mean: ops.batch_norm(x, w, b, mean, np.ones(3)), [(2, 3, 4, 4), *[(3,)] * 3], 3),
}


@pytest.mark.parametrize("name", SUMS)
@given(seed=seeds)
def test_sums_of_n_products_are_rounded_by_gamma_n_times_the_sum_of_absolute_values(name, seed):
    """Higham, section 3.1. It holds for every order of the sum: what one order makes of it may be far less."""
    operation, shapes, n = SUMS[name]
    rng = np.random.default_rng(seed)
    x, *others = (rng.normal(size=shape) for shape in shapes)
    z = operation(Interval(x, x, roundoff=FLOAT32), *others)
    sizes = [abs(x), *map(abs, others)]
    if name == "batch_norm":
        sizes[3] = -sizes[3]  # which is subtracted
    least = n * FLOAT32 / (1 - n * FLOAT32) * operation(Tensor(sizes[0]), *sizes[1:]).data
    assert (z.high.data - z.centre.data >= least * (1 - 1e-6)).all()
    assert (z.centre.data - z.low.data >= least * (1 - 1e-6)).all()


@pytest.mark.parametrize("kind", [Interval, Zonotope])
@given(seed=seeds)
def test_at_a_point_the_worst_logits_have_room_for_the_rounding_of_both(kind, seed):
    rng, labels = np.random.default_rng(seed), np.array([1, 3])
    x, others = rng.normal(size=(2, 50)), labels[:, None] != np.arange(4)
    z = ops.linear(kind(x, x, roundoff=FLOAT32), rng.normal(size=(4, 50)))
    both = z.high.data - z.low.data[range(2), labels][:, None]
    np.testing.assert_allclose(z.worst(labels).data[others], both[others], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [Interval, Zonotope])
@pytest.mark.parametrize("name", sorted(WITH_CONSTANTS))
@given(number=st.sampled_from(CONSTANTS), whole=st.booleans(), first=st.booleans(), seed=seeds)
def test_a_constant_of_any_kind_and_sign_only_widens_the_bounds_that_include_rounding(name, kind, number, whole, first,
                                                                                       seed):
    shape, size = WITH_CONSTANTS[name]
    operation, x = getattr(ops, name), np.random.default_rng(seed).uniform(-2, 2, shape).astype(np.float32)
    constant = np.full(size, number) if whole or name not in NUMBERS else number

    def through(z):
        return operation(constant, z) if first and name not in FIRST_ONLY else operation(z, constant)

    wide = x.astype(float)
    exact, sound = through(kind(wide, wide)), through(kind(wide, wide, value=x, roundoff=FLOAT32))
    assert (sound.low.data <= exact.low.data).all()
    assert (exact.high.data <= sound.high.data).all()
    assert_inside(sound, slack=0)
    if sound.ndim == 2:
        labels, z = np.arange(4), sound.value.data.astype(float)
        assert (z - z[labels, labels][:, None] <= sound.worst(labels).data).all()


def test_an_operation_whose_rounding_has_no_bound_is_an_error():
    x = Interval(np.zeros((2, 3)), np.ones((2, 3)), roundoff=FLOAT32)
    with pytest.raises(TypeError, match="gelu has no bound of its rounding error"):
        ops.gelu(x)


def test_in_training_mode_the_statistics_are_those_of_the_clean_images():
    model, x = all_kinds(), images((1, 8, 8), 16)
    model.train()
    model.layers[11].seed = 5
    z = model(Interval.around(x, 0.01, value=x))
    bounded = model.state_dict()
    other = all_kinds().train()
    other.layers[11].seed = 5
    np.testing.assert_allclose(other(Tensor(x)).data, z.value.data, atol=1e-5)
    for name, array in other.state_dict().items():
        np.testing.assert_allclose(array, bounded[name], atol=1e-5)
    assert_inside(z, 1e-5)


def test_without_clean_images_the_statistics_are_those_of_the_centres():
    x = images((1, 8, 8), 16).astype(float)
    box, norm, weight = Interval.around(x, 0.1), nn.BatchNorm2d(3, momentum=1.0), np.ones((3, 1, 2, 2))
    trained = norm.train()(ops.relu(ops.conv2d(box, weight)))
    centre = ops.relu(ops.conv2d(box, weight)).centre.data
    np.testing.assert_allclose(norm.running_mean, centre.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(trained.centre.data.mean(axis=(0, 2, 3)), 0, atol=1e-6)
    norm.running_mean, norm.running_var = centre.mean(axis=(0, 2, 3)), centre.var(axis=(0, 2, 3))
    evaluated = norm.eval()(ops.relu(ops.conv2d(box, weight)))
    for end in ("low", "high"):
        np.testing.assert_allclose(getattr(trained, end).data, getattr(evaluated, end).data, atol=1e-6)


@pytest.mark.parametrize("end", ["low", "high", "centre", "radius"])
def test_bounds_that_were_looked_at_under_no_grad_have_the_same_gradients(end):
    found, x = [], images((1, 3, 3), 2)
    for looked in (False, True):
        weight = Tensor(np.float32([[1, 2, 3, -4, 5, 6, 7, 8, -9], [1] * 9]))
        z = ops.relu(ops.linear(ops.flatten(Interval.around(x, 0.1)), weight))
        z = ops.linear(z, np.eye(2, dtype=np.float32))
        with no_grad():
            _ = looked and [getattr(each, name) for each in z.steps() for name in ("low", "high", "centre", "radius")]
        found += gradients(getattr(z, end).sum(), [weight])
    assert found[0].any()
    np.testing.assert_array_equal(*found)


def test_what_a_model_computes_from_one_array_is_not_certified():
    test = Dataset(images((1, 4, 4), 8), np.zeros(8, np.int64), classes=("a", "b"))
    for method in ("ibp", "crown-ibp", "zonotope"):
        with pytest.raises(ValueError, match="compute with x itself"):
            certify.certified_accuracy(lambda x: ops.flatten(x * np.round(x.data)), test, eps=0.6, method=method)


@pytest.mark.parametrize("training", [False, True])
def test_the_gradients_of_the_worst_logits_are_right(training):
    rng = np.random.default_rng(3)
    x, labels = rng.random((6, 2, 4, 4)), rng.integers(0, 3, 6)
    weights = [rng.normal(size=shape) for shape in ((3, 2, 3, 3), (3,), (3,), (3, 12))]
    moments = rng.normal(size=3), rng.uniform(0.5, 2, 3)

    def loss(kernel, scale, shift, last):
        y = ops.conv2d(Interval.around(x, 0.1, value=x), kernel)
        mean, variance = (y.data.mean(axis=(0, 2, 3)), y.data.var(axis=(0, 2, 3))) if training else moments
        y = ops.relu(ops.batch_norm(y, scale, shift, mean, variance, of_batch=training))
        return ops.cross_entropy(ops.linear(ops.flatten(y), last).worst(labels), labels, "none")

    check_vjp(loss, weights, tolerance=1e-5)


def test_it_runs_on_any_array_library(xp):
    model = nn.Sequential(nn.Conv2d(1, 3, 3, rng=0), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
                          nn.Linear(12, 4, rng=1))
    x = images((1, 4, 4))
    labels, expected = np.array([0, 1, 2]), None
    for library in (np, xp):
        for _, module in model.named_modules():
            for name, value in list(vars(module).items()):
                if isinstance(value, Tensor):
                    value.data = library.asarray(value.numpy())
                elif isinstance(value, np.ndarray):
                    setattr(module, name, library.asarray(value))
        model.train()
        z = model(Interval.around(library.asarray(x), 0.1, value=library.asarray(x)))
        found = z.worst(library.asarray(labels)).numpy()
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_vision_transformer_has_bounds():
    from tinyadv.models import VisionTransformer
    model = VisionTransformer((1, 8, 8), patch_size=4, dim=8, depth=1, num_heads=2, mlp_dim=8).eval()
    x = images((1, 8, 8))
    box = Interval.around(x, 0.001)
    for point in corners(model, box.low.data, box.high.data):
        with no_grad():
            assert_inside(model(Interval(box.low, box.high, value=point)), slack=1e-5)


def test_the_least_value_of_gelu_is_known_to_the_last_bits():
    points = np.linspace(-0.7517915246, -0.7517915248, 2001)
    bound = ops.gelu(Interval(np.array([-1.0]), np.array([0.0]))).low.data[0]
    assert bound <= ops.gelu(Tensor(points)).data.min() + 1e-16


def test_constants_in_lists_are_those_of_the_network():
    x = np.full((1, 2), 0.5, np.float32)

    def model(x):
        return ops.linear(ops.add(x, [0.1, 0.2]), weight=[[1, 2], [3, 4]], bias=[0, 1])

    y = model(Interval.around(x, 0.1, value=x))
    np.testing.assert_array_equal(y.value.data, model(x).data)
    assert (y.low.data < model(x).data).all()
    assert (model(x).data < y.high.data).all()


def test_numbers_of_numpy_leave_the_dtype_of_the_images():
    x = np.full((1, 2), 0.5, np.float32)
    expected = Interval.around(x, 0.1, (0.0, 0.55))
    for eps, bounds in (np.float64(0.1), (0.0, 0.55)), (0.1, (np.float64(0), np.float64(0.55))):
        box = Interval.around(x, eps, bounds)
        assert box.low.dtype == box.high.dtype == np.float32
        np.testing.assert_array_equal(box.high.data, expected.high.data)
    for two in 2.0, np.int64(2), np.float32(2), np.float64(2):
        power = expected**two
        assert power.low.dtype == np.float32
        np.testing.assert_array_equal(power.high.data, (expected**2).high.data)


def test_each_pixel_may_have_a_budget_of_its_own():
    x, eps = np.full((2, 3), 0.5, np.float32), np.float32([0, 0.1, 0.7])
    np.testing.assert_array_equal(Interval.around(x, eps).high.data, (x + eps).clip(0, 1))
