"""The properties of every defence in the table of defense_cases.py."""

import numpy as np
import pytest
from defense_cases import (
    CASES,
    curved,
    every_case,
    every_chosen_gradient,
    every_exact_case,
    every_gradient,
    every_identity,
    every_random_case,
    every_shape,
    linear,
    pictures,
    steps,
)
from gradcheck import check_vjp, inner
from hypothesis import given
from strategies import seeds

from tinyadv import Tensor, defenses, driver, gradients, nn, no_grad, ops
from tinyadv.attacks import PGD, Square
from tinyadv.backend import array_module, to_host
from tinyadv.random import Streams, drawing_from


def passed(layer, x, number=0):
    """The layer's value at a Tensor (N, ...), as in one forward pass of an attack or an evaluation."""
    with drawing_from(Streams(0, range(len(x))).of_pass(number)):
        return layer(x)


def defended(layer, x):
    """The images (N, ...) behind the defence, as attacks and evaluations see them."""
    flat = driver.logits(nn.Sequential(layer, ops.flatten), x)
    return flat.reshape(x.shape)


# The value


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@every_shape
@every_case
def test_shape_dtype_memory_and_range_are_kept(xp, case, shape, dtype):
    x = pictures(3, shape, dtype)
    before = x.copy()
    value = case.make("identity")(Tensor(xp.asarray(x)))
    assert (value.shape, value.dtype) == (x.shape, x.dtype)
    assert array_module(value.data) is xp
    found = to_host(value.data)
    assert case.span[0] <= found.min() <= found.max() <= case.span[1]
    assert x.tobytes() == before.tobytes()


@every_shape
@every_exact_case
def test_the_value_is_that_of_the_plain_function(case, shape):
    x = pictures(4, shape)
    for gradient in case.gradients:
        value = case.make(gradient)(Tensor(x)).data
        assert value.tobytes() == case.plain(x).astype(x.dtype).tobytes()


@every_shape
@every_case
def test_an_image_does_not_depend_on_its_batch(case, shape):
    x, layer = pictures(5, shape), case.make("identity")
    whole = defended(layer, x)
    for batch_size in (1, 2):
        flat = driver.logits(nn.Sequential(layer, ops.flatten), x, batch_size=batch_size)
        assert flat.reshape(x.shape).tobytes() == whole.tobytes()


@every_shape
@every_identity
def test_settings_that_change_nothing_are_the_identity(case, shape):
    x = pictures(3, shape)
    assert defended(case.identity(), x).tobytes() == x.tobytes()


@pytest.mark.parametrize("x", [np.zeros((0, 1, 8, 8), np.float32), np.zeros((2, 1, 8, 8)), np.ones((1, 3, 8, 8))],
                         ids=["no image", "black", "white"])
@every_case
def test_no_image_and_flat_images(case, x):
    value = case.make("identity")(Tensor(x)).data
    assert value.shape == x.shape
    assert np.isfinite(value).all()


# The gradient


@every_gradient
def test_the_gradient_is_the_one_that_is_named(xp, case, gradient):
    x = xp.asarray(pictures(2, (1, 28, 28), np.float64))
    w, layer, point = xp.asarray(pictures(2, (1, 28, 28), np.float64, seed=1)), case.make(gradient), Tensor(x)
    with no_grad():
        value = passed(layer, Tensor(x)).data
    (found,) = gradients(inner(passed(layer, point), w), [point])
    assert array_module(found) is xp
    if gradient == "identity":
        expected = w
    elif gradient == "zero":
        expected = 0 * w
    elif layer.smooth is None:
        assert (to_host(found) != 0).any()  # the stand-in depends on what was drawn
        expected = found
    else:
        stand_in = Tensor(x)
        (expected,) = gradients(inner(layer.smooth(stand_in), w), [stand_in])
        assert (to_host(expected) != 0).any()
    np.testing.assert_array_equal(to_host(found), to_host(expected))
    np.testing.assert_array_equal(to_host(passed(layer, point).data), to_host(value))  # whatever the gradient


@given(seed=seeds)
def test_a_smooth_transform_with_itself_as_the_stand_in_passes_the_gradient_check(seed):
    x = np.random.default_rng(seed).normal(size=(2, 1, 3, 4))
    check_vjp(defenses.bpda(curved, curved), (x,))


def test_the_stand_in_may_change_the_shape_as_the_transform_does():
    def halved(x):
        return x[:, :, ::2]

    check_vjp(defenses.bpda(halved, halved), (np.ones((2, 1, 4, 3)),))
    point = Tensor(np.ones((2, 1, 4, 3)))
    (g,) = gradients(defenses.bpda(halved, gradient="zero")(point).sum(), [point])
    assert (g == np.zeros(point.shape)).all()


@every_case
def test_attacks_need_not_know_of_a_defence(case):
    """An attack through the identity gradient finds something; through no gradient it does not move an image."""
    shape = (1, 28, 28)
    model, x = linear(shape), pictures(4, shape)
    y = driver.logits(model, x).argmax(axis=1)
    for gradient in case.gradients:
        attack = PGD(0.1, steps=3, random_start=False)
        moved = abs(attack(nn.Sequential(case.make(gradient), model), x, y) - x).max(axis=(1, 2, 3))
        if gradient != "smooth":
            assert ((moved > 0) == (gradient == "identity")).all()


def test_a_transform_that_writes_into_its_argument_changes_no_image_of_the_attack():
    def dark(x):
        x[x < 0.5] = 0
        return x

    x, model = pictures(4, (1, 8, 8)), nn.Sequential(defenses.bpda(dark), linear((1, 8, 8)))
    before = x.copy()
    y = driver.logits(model, x).argmax(axis=1)
    for attack in PGD(0.1, steps=3), Square(0.1, queries=9):
        assert abs(attack(model, x, y).astype(np.float64) - x).max() <= 0.1
    defenses.bpda(dark)(Tensor(x))
    assert x.tobytes() == before.tobytes()


@every_case
def test_the_bytes_do_not_depend_on_threads(case):
    shape = (1, 28, 28)
    model, x = nn.Sequential(case.make("identity"), linear(shape)), pictures(6, shape)
    y, attack = np.arange(6) % 5, PGD(0.1, steps=3)
    found = {attack(model, x, y, seed=3, workers=workers, batch_size=2).tobytes() for workers in (1, 2, 2)}
    assert len(found) == 1


@every_random_case
def test_what_a_random_defence_draws_comes_from_the_streams_and_the_pass(case):
    """It differs from pass to pass, from image to image and from seed to seed, and the layer is left as it was."""
    x, layer = np.repeat(pictures(1, (1, 28, 28)), 3, axis=0), case.make("identity")
    before = vars(layer).copy()
    seen = [passed(layer, Tensor(x), number).data for number in (0, 1)] + [defended(layer, x)]
    assert seen[0].tobytes() == seen[2].tobytes() != seen[1].tobytes()
    assert len({image.tobytes() for value in seen[:2] for image in value}) == 6
    other = driver.logits(nn.Sequential(layer, ops.flatten), x, seed=1)
    assert other.tobytes() != seen[0].tobytes()
    assert vars(layer) == before


@every_random_case
def test_outside_attacks_and_evaluations_the_layers_own_seed_decides(case):
    x = Tensor(pictures(3, (1, 28, 28)))
    one, two = case.make("identity"), case.make("identity")
    first, second = ([layer(x).data.tobytes() for _ in range(2)] for layer in (one, two))
    assert first == second
    assert first[0] != first[1]
    assert one.calls == 2


# Errors, and what one sees


def test_every_defence_has_a_case():
    tested = {case.name.partition(":")[0] for case in CASES}
    others = {"Defense", "NearestLatent", "TrapdoorDetector", "Trapdoors", "trapdoor_detector"}  # no layers in front
    layers = set(defenses.__all__) - others
    assert layers - tested == set()


@every_chosen_gradient
def test_a_gradient_that_there_is_not_is_an_error(case):
    for gradient in {"identity", "smooth", "zero", "identify"} - set(case.gradients):
        with pytest.raises(ValueError, match=f"gradient must be one of identity.*; got '{gradient}'"):
            case.make(gradient)


def test_what_is_no_function_of_images_is_an_error():
    with pytest.raises(TypeError, match="transform must be a function of images, got int"):
        defenses.bpda(5)
    with pytest.raises(TypeError, match="smooth must be a function of images, got str"):
        defenses.bpda(steps, "identity")
    x = Tensor(np.ones((2, 1, 4, 4)))
    with pytest.raises(TypeError, match="must return an array like the images it is given, got Tensor"):
        defenses.bpda(lambda x: Tensor(x))(x)
    with pytest.raises(ValueError, match=r"keeps the shape \(2, 1, 4, 4\), but it returned \(2, 1, 2, 4\)"):
        defenses.bpda(lambda x: x[:, :, ::2])(x)
    layer = defenses.bpda(steps, lambda x: x[:, :, ::2])
    with pytest.raises(ValueError, match=r"the shape of the transform, \(2, 1, 4, 4\), got \(2, 1, 2, 4\)"):
        gradients(layer(x).sum(), [x])
    with pytest.raises(TypeError, match="Defense defines no transform"):
        defenses.Defense()(x)


def test_a_layer_says_what_it_is():
    assert repr(defenses.bpda(steps)) == "bpda(steps, gradient='identity')"
    assert repr(defenses.bpda(steps, curved)) == "bpda(steps, gradient='smooth')"


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64])
def test_a_transform_to_grey_levels_is_refused(dtype):
    x = Tensor(np.full((2, 1, 4, 4), 0.3, np.float32))
    with pytest.raises(TypeError, match=f"must return floating-point images, got {np.dtype(dtype)}: divide grey lev"):
        defenses.bpda(lambda x: np.rint(255 * x).astype(dtype))(x)
    assert defenses.bpda(lambda x: x > 0.2)(x).dtype == np.float32
