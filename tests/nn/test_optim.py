import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv import Tensor, nn, ops
from tinyadv.nn import optim
from tinyadv.tensor import gradients as gradients_of
from tinyadv.tensor import no_grad


class Weights(nn.Module):
    """A module of one float64 parameter for each argument."""

    def __init__(self, *values):
        self.values = [Tensor(np.array([value], np.float64)) for value in values]

    def numbers(self):
        return [value.item() for value in self.values]


def descend(optimizer, gradients):
    """The value of the first parameter after each step, given its gradient at each."""
    (weight, *_), values = optimizer.parameters, []
    for gradient in gradients:
        weight.grad = np.array([gradient], np.float64)
        optimizer.step()
        values.append(weight.item())
    return values


RATES = st.floats(1e-3, 1)
GRADIENTS = st.lists(st.floats(-8, 8), min_size=1, max_size=6)
OPTIMIZERS = {
    "SGD": optim.SGD,
    "momentum": lambda model, **options: optim.SGD(model, momentum=0.9, **options),
    "Nesterov": lambda model, **options: optim.SGD(model, momentum=0.9, nesterov=True, **options),
    "Adam": optim.Adam,
}


@given(RATES, GRADIENTS)
def test_plain_sgd_subtracts_the_gradients(lr, gradients):
    values = descend(optim.SGD(Weights(1), lr), gradients)
    np.testing.assert_allclose(values, 1 - lr * np.cumsum(gradients), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("options", "expected"), [
    # gradients 1, 2, -1 and momentum 0.5: velocities 1, 2.5, 0.25
    ({"momentum": 0.5}, [10 - 1, 10 - 1 - 2.5, 10 - 1 - 2.5 - 0.25]),
    # Nesterov's steps: 1 + 0.5, 2 + 1.25, -1 + 0.125
    ({"momentum": 0.5, "nesterov": True}, [8.5, 5.25, 6.125]),
    # weight decay 0.5 adds half the weight: 1 + 5, 2 + 2, -1 + 0
    ({"weight_decay": 0.5}, [4, 0, 1]),
    # both: velocities 1 + 5, 3 + 2 + 2, 3.5 - 1 - 1.5
    ({"momentum": 0.5, "weight_decay": 0.5}, [4, -3, -4]),
])
def test_sgd_by_hand(options, expected):
    assert descend(optim.SGD(Weights(10), lr=1, **options), [1, 2, -1]) == expected


@given(RATES, st.floats(0, 0.99), st.booleans(), st.floats(-8, 8), st.integers(1, 8))
def test_under_a_constant_gradient_the_velocity_is_a_geometric_sum(lr, momentum, nesterov, gradient, steps):
    nesterov = nesterov and momentum > 0
    values = descend(optim.SGD(Weights(0), lr, momentum, nesterov), [gradient] * steps)
    powers = momentum ** np.arange(steps + 1)
    velocity = np.cumsum(powers)[1:] if nesterov else np.cumsum(powers)[:-1]
    np.testing.assert_allclose(values, -lr * gradient * np.cumsum(velocity), rtol=1e-9, atol=1e-12)


@given(RATES, st.floats(0, 1), st.integers(1, 5))
def test_weight_decay_shrinks_by_a_factor_where_there_is_no_slope(lr, decay, steps):
    values = descend(optim.SGD(Weights(3), lr, weight_decay=decay), [0.0] * steps)
    np.testing.assert_allclose(values, 3 * (1 - lr * decay) ** np.arange(1, steps + 1), rtol=1e-9, atol=1e-9)


def test_adam_by_hand():
    # Algorithm 1 with betas (0.5, 0.75), lr 1, eps 0 and gradients 2, -2, 4. First moments: 1, -0.5, 1.75, over 1/2,
    # 3/4, 7/8: 2, -2/3, 2. Second: 1, 1.75, 5.3125, over 1/4, 7/16, 37/64: 4, 4, 340/37.
    steps = [2 / 2, -2 / 3 / 2, 2 / math.sqrt(340 / 37)]
    values = descend(optim.Adam(Weights(1), lr=1, betas=(0.5, 0.75), eps=0), [2, -2, 4])
    np.testing.assert_allclose(values, 1 - np.cumsum(steps), rtol=1e-12)
    # eps stands beside the root: a step of 2 / (2 + 2)
    assert descend(optim.Adam(Weights(1), lr=1, eps=2.0), [2]) == pytest.approx([0.5], rel=1e-12)
    # weight decay 0.5 on a weight of 8 turns the gradient -2 into +2
    assert descend(optim.Adam(Weights(8), lr=1, weight_decay=0.5), [-2]) == pytest.approx([7], rel=1e-7)


@given(RATES, st.floats(0.01, 100), st.booleans(), st.integers(1, 8))
def test_adam_walks_at_its_rate_under_a_constant_gradient_of_any_size(lr, size, negative, steps):
    sign = -1 if negative else 1
    values = descend(optim.Adam(Weights(0), lr), [sign * size] * steps)
    np.testing.assert_allclose(values, -sign * lr * np.arange(1, steps + 1), rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_without_a_gradient_stays_and_the_others_do_not_notice(name):
    model, alone = Weights(1, 2), Weights(1)
    optimizer = OPTIMIZERS[name](model, lr=0.1, weight_decay=0.1)
    values = descend(optimizer, [1.0, -3.0, 2.0])
    assert values == descend(OPTIMIZERS[name](alone, lr=0.1, weight_decay=0.1), [1.0, -3.0, 2.0])
    assert model.numbers() == [values[-1], 2]
    assert all(not array.any() for array in optimizer.state[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_keeps_gradients_and_dtypes_and_old_arrays_and_zero_grad_forgets(name):
    model = nn.Linear(3, 2, rng=0)
    optimizer = OPTIMIZERS[name](model, lr=np.float64(0.1), weight_decay=0.1)
    arrays = [parameter.data for parameter in model.parameters()]
    for _ in range(3):
        ops.sum(model(np.ones((1, 3), np.float32))).backward()
        gradients = [parameter.grad.copy() for parameter in model.parameters()]
        optimizer.step()
        assert all(np.array_equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(p.data is not array for p, array in zip(model.parameters(), arrays, strict=True))
    assert all(p.dtype == np.float32 for p in model.parameters())
    assert all(array.dtype == np.float32 for state in optimizer.state for array in state)
    assert optimizer.steps == 3
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_rule_finds_the_minimum_of_a_parabola(name):
    model = Weights(3, -2)
    optimizer = OPTIMIZERS[name](model, lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (model.values[0] * model.values[0] + 4 * model.values[1] * model.values[1]).sum().backward()
        optimizer.step()
    assert np.abs(model.numbers()).max() < 1e-3


def test_the_rate_may_be_set_at_any_time():
    optimizer = optim.SGD(Weights(0), lr=1)
    descend(optimizer, [1])
    optimizer.lr = 0.5
    assert descend(optimizer, [1]) == [-1.5]


def test_repr_says_what_is_trained_and_how():
    made = repr(optim.SGD(nn.Linear(999, 2), 0.1))
    assert made == "SGD(2,000 parameters, momentum=0.0, nesterov=False, lr=0.1, weight_decay=0.0)"
    assert "betas=(0.9, 0.999), eps=1e-08, lr=0.001" in repr(optim.Adam(nn.Linear(999, 2)))


@pytest.mark.parametrize(("make", "message"), [
    (lambda m: optim.SGD(m, lr=-0.1), "lr must be a number >= 0, got -0.1"),
    (lambda m: optim.Adam(m, lr=math.nan), "lr must be a number >= 0, got nan"),
    (lambda m: optim.SGD(m, lr=math.inf), "lr must be a number >= 0, got inf"),
    (lambda m: optim.SGD(m, lr="a"), "lr must be a number >= 0, got 'a'"),
    (lambda m: optim.SGD(m, momentum="a"), r"momentum must be in \[0, 1\), got 'a'"),
    (lambda m: optim.SGD(m, weight_decay=-1), "weight_decay must be a number >= 0, got -1"),
    (lambda m: optim.SGD(m, momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
    (lambda m: optim.SGD(m, momentum=-0.1), r"momentum must be in \[0, 1\), got -0.1"),
    (lambda m: optim.SGD(m, nesterov=True), "nesterov needs a momentum above 0"),
    (lambda m: optim.Adam(m, betas=(0.9, 1.0)), r"betas must be in \[0, 1\), got \(0.9, 1.0\)"),
    (lambda m: optim.Adam(m, betas=(-0.1, 0.9)), r"betas must be in \[0, 1\), got \(-0.1, 0.9\)"),
    (lambda m: optim.Adam(m, betas=0.9), r"betas must be in \[0, 1\), got 0.9"),
    (lambda m: optim.step(0.5), r"milestones must be fractions of training, .* got 0.5"),
    (lambda m: optim.step(("a",)), r"milestones must be fractions of training, .* got \('a',\)"),
    (lambda m: optim.Adam(m, eps=-1), "eps must be a number >= 0, got -1"),
    (lambda m: optim.SGD([*m.parameters(), *m.parameters()]), "takes each parameter once"),
    (lambda m: optim.step((100, 150)), r"milestones must be fractions of training, .* got \(100, 150\)"),
    (lambda m: optim.one_cycle(peak=30), "peak must be a fraction of training, such as 0.3, got 30"),
])
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(Weights(1))


def test_the_base_has_no_rule():
    optimizer = optim.Optimizer(Weights(1), lr=0.1)
    with pytest.raises(TypeError, match=r"Optimizer has no rule: use SGD or Adam, or define direction\(\)"):
        descend(optimizer, [1])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=10).map(sorted))
def test_step_and_cosine_fall_from_one(progress):
    for schedule, end in ((optim.step(), 0.01), (optim.cosine(), 0.0), (optim.step((0.2,), 0.5), 0.5)):
        factors = [schedule(p) for p in progress]
        assert factors == sorted(factors, reverse=True)
        assert schedule(0.0) == 1
        assert schedule(1.0) == pytest.approx(end)


def test_step_multiplies_at_each_milestone_and_cosine_is_half_way_at_half():
    assert [optim.step((0.5, 0.75), 0.5)(p) for p in (0.49, 0.5, 0.74, 0.75)] == [1, 0.5, 0.5, 0.25]
    assert optim.step(())(1.0) == 1
    assert optim.cosine()(0.5) == pytest.approx(0.5)


@given(st.floats(0.05, 0.95), st.floats(0, 0.9), st.floats(0, 0.9), st.lists(st.floats(0, 1), min_size=3).map(sorted))
def test_one_cycle_rises_to_one_at_its_peak_and_falls(peak, start, end, progress):
    schedule = optim.one_cycle(peak, start, end)
    assert (schedule(0.0), schedule(peak), schedule(1.0)) == (start, 1, end)
    up, down = [schedule(p) for p in progress if p <= peak], [schedule(p) for p in progress if p >= peak]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)


@pytest.mark.parametrize("make", [optim.SGD, lambda m: optim.SGD(m, momentum=0.9), optim.Adam])
def test_an_optimiser_goes_on_from_its_state_dict(make, xp, monkeypatch):
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))

    def stepped(model, optimizer, numbers):
        for seed in numbers:
            for parameter in model.parameters():
                rng = np.random.default_rng((seed, parameter.size))
                parameter.grad = xp.asarray(rng.normal(size=parameter.shape).astype(np.float32))
            optimizer.step()
        return model.state_dict()

    models = [nn.Linear(3, 2, rng=0).to("the device of xp") for _ in range(2)]
    one, other = map(make, models)
    stepped(models[0], one, range(3))
    state = one.state_dict()
    models[1].load_state_dict(models[0].state_dict())
    other.load_state_dict(state)
    kept = {name: array.copy() for name, array in state.items()}
    found = [stepped(model, optimizer, range(3, 6)) for model, optimizer in zip(models, (one, other), strict=True)]
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])
    assert all(np.array_equal(state[name], kept[name]) for name in kept)  # copies
    assert state["steps"] == 3


@pytest.mark.parametrize("change", [{"steps": np.array(-1)}, {"steps": np.array(1.0)}, {"0.0": np.zeros(2)}, {"9.0": 1},
                                    {"0.0": None}])
def test_a_state_that_does_not_fit_an_optimiser_changes_nothing(change):
    optimizer = optim.Adam(nn.Linear(3, 2, rng=0))
    state = {name: array for name, array in (optimizer.state_dict() | change).items() if array is not None}
    state["1.1"] = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=rf"does not fit Adam\(8 parameters(.|\n)*{re.escape(next(iter(change)))}"):
        optimizer.load_state_dict(state)
    assert optimizer.steps == 0
    assert not any(array.any() for own in optimizer.state for array in own)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("gradient", [0, 1e-4, 300, -6e4])
def test_float16_weights_are_updated_as_float32_ones(make, gradient):
    """Adam's eps and the squares of gradients are outside of what float16 holds."""
    found = []
    for dtype in (np.float16, np.float32):
        layer = nn.Linear(2, 2, rng=0)
        for parameter in layer.parameters():
            parameter.data = parameter.data.astype(np.float16).astype(dtype)
        optimizer = make(layer, lr=1e-5)
        for _ in range(3):
            for parameter in layer.parameters():
                parameter.grad = np.full_like(parameter.data, gradient)
            optimizer.step()
        found.append(layer.state_dict())
        assert {array.dtype for array in found[-1].values()} == {np.dtype(dtype)}
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], rtol=3e-3)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_step_between_forward_and_backward_changes_no_gradient(make):
    """The graph keeps the weights that it was computed with: d(w² x)/dx = w², at the old w."""
    model = Weights(3)
    (weight,), x = model.values, Tensor(np.array([2.0]))
    y = (weight * weight * x).sum()
    weight.grad = np.array([5.0])
    make(model, lr=1).step()
    assert weight.item() != 3
    np.testing.assert_array_equal(gradients_of(y, [x, weight]), [[9], [12]])


def test_a_step_keeps_the_order_in_memory():
    """A gradient may lie in another order; products with the weights would round otherwise."""
    layer = nn.Linear(3, 2, rng=0)
    layer.weight.grad = np.ones((3, 2), np.float32).T
    optim.SGD(layer, lr=1).step()
    assert layer.weight.data.flags.c_contiguous


def test_adam_starts_with_the_first_step_of_each_parameter():
    """One that joins late, as after unfreeze(), takes a step of the rate, as in PyTorch, and not a longer one."""
    model = Weights(1, 2)
    optimizer = optim.Adam(model, lr=0.1)
    descend(optimizer, [1.0] * 30)
    late = optimizer.parameters[1]
    late.grad = np.array([-5.0])
    other = optim.Adam(model, lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert late.item() == pytest.approx(2.1)
    assert (optimizer.steps, optimizer.updates) == (31, [31, 1])
    other.step()
    assert late.item() == pytest.approx(2.2)


def test_one_tensor_is_not_taken_for_its_rows():
    with pytest.raises(TypeError, match=r"takes a model or a list of Tensors: write SGD\(\[x\]\)"):
        optim.SGD(Tensor(np.ones((3, 2))))


@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize("factor", [-1.0, math.nan, "a"])
def test_one_cycle_has_no_negative_factors(name, factor):
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0"):
        optim.one_cycle(**{name: factor})


def test_the_result_of_an_operation_is_no_parameter():
    layer = nn.Linear(2, 1, rng=0)
    layer.weight = layer.weight * 0.5
    with pytest.raises(ValueError, match=r"an optimiser takes no results of operations.* from multiply.*no_grad"):
        optim.SGD(layer)
    with no_grad():
        layer.weight = layer.weight * 0.5
    optimizer, before = optim.SGD(layer, lr=1.0), layer.weight.data
    layer(np.ones((1, 2), np.float32)).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(layer.weight.data, before - 1)
