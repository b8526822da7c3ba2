import copy
import itertools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv import Tensor
from tinyadv.nn import BatchNorm2d, Linear, Module, ReLU, Sequential, module


class Branches(Module):
    """Something of every kind that a module may hold."""

    def __init__(self):
        self.stem = Linear(3, 4, rng=0)
        self.blocks = [Sequential(Linear(4, 4, rng=1), ReLU(), Linear(4, 4, bias=False, rng=2)), Linear(4, 4, rng=3)]
        self.pair = (Linear(4, 2, rng=4), Tensor([0, 0]))
        self.heads = {"left": Linear(2, 1, rng=5), "right": [Linear(2, 1, rng=6)]}
        self.offset = np.ones(1, np.float32)
        self.note, self.width, self.nothing = "not a part", 7, None

    def forward(self, x):
        x = self.blocks[1](self.blocks[0](self.stem(x)))
        x = self.pair[0](x) + self.pair[1]
        return self.heads["left"](x) - self.heads["right"][0](x) + self.offset


class Node(Module):
    """A module of the given attributes."""

    def __init__(self, **parts):
        vars(self).update(parts)


LAYERS = st.builds(Linear, st.integers(1, 3), st.integers(1, 3), st.booleans(), rng=st.integers(0, 9))
TENSORS = st.builds(lambda n: Tensor(np.arange(n, dtype=np.float64)), st.integers(0, 3))
BUFFERS = st.builds(lambda n: np.full((n, 2), n, np.int64), st.integers(0, 3))
NAMES = st.text("abcxyz", min_size=1, max_size=3)
OTHERS = st.sampled_from([None, 3, "word", (1, 2)])
MODULES = st.builds(lambda parts: Node(**parts), st.dictionaries(NAMES, st.recursive(
    LAYERS | TENSORS | OTHERS | st.builds(BatchNorm2d, st.integers(1, 3)),
    lambda parts: (
        st.lists(parts | BUFFERS, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(NAMES, parts | BUFFERS, max_size=3)
        | st.dictionaries(NAMES, parts | BUFFERS, max_size=3).map(lambda found: Node(**found))
    ),
    max_leaves=8,
), max_size=4))


def at(owner, path):
    """What the attributes, keys and positions of a path lead to."""
    for key in path.split("."):
        owner = vars(owner) if isinstance(owner, Module) else owner
        owner = owner[key] if isinstance(owner, dict) else owner[int(key)]
    return owner


def changed(state):
    """The state with other values: the bits of every one inverted, so that NaN comes up too."""
    return {name: np.asarray(~array.view(f"u{array.itemsize}")).view(array.dtype) for name, array in state.items()}


def same(one, other):
    return list(one) == list(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def test_names_are_the_paths_to_the_parts_in_the_order_in_which_they_were_set():
    assert list(Branches().state_dict()) == [
        "stem.weight", "stem.bias", "blocks.0.0.weight", "blocks.0.0.bias", "blocks.0.2.weight", "blocks.1.weight",
        "blocks.1.bias", "pair.0.weight", "pair.0.bias", "pair.1", "heads.left.weight", "heads.left.bias",
        "heads.right.0.weight", "heads.right.0.bias", "offset",
    ]
    assert [name for name, _ in Branches().named_modules()] == [
        "", "stem", "blocks.0", "blocks.0.0", "blocks.0.1", "blocks.0.2", "blocks.1", "pair.0", "heads.left",
        "heads.right.0",
    ]


@given(MODULES)
def test_every_name_leads_to_its_part_and_parameters_are_the_tensors(model):
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(module.array_of(at(model, name)), array)
    parameters = dict(model.named_parameters())
    assert all(at(model, name) is parameter for name, parameter in parameters.items())
    assert list(parameters.values()) == model.parameters()
    assert list(parameters) == [name for name in model.state_dict() if isinstance(at(model, name), Tensor)]
    assert all(at(model, name) is part for name, part in model.named_modules() if name)


def test_a_shared_parameter_comes_once_and_stays_shared():
    model = Sequential(Linear(3, 3, rng=0), Linear(3, 3, rng=1))
    first, second = model.layers
    second.weight = first.weight
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    model.load_state_dict(changed(model.state_dict()))
    assert second.weight is first.weight
    assert copy.deepcopy(model).layers[1].weight is not first.weight
    assert len(copy.deepcopy(model).parameters()) == 3


def test_a_shared_module_comes_once(capsys):
    shared = Linear(3, 3)
    model = Sequential(shared, ReLU(), shared)
    assert [name for name, _ in model.named_modules()] == ["", "0", "1"]
    model.summary((3,))
    assert "Total parameters: 12" in capsys.readouterr().out
    assert "forward" not in vars(shared)


def test_a_buffer_in_a_tuple_is_refused_by_name():
    with pytest.raises(ValueError, match=r"buffer parts\.1 is in a tuple.*use a list"):
        Node(parts=(Tensor(1.0), np.zeros(1))).state_dict()


@given(MODULES)
def test_loading_a_state_gives_it_back_and_shares_no_memory(model):
    before = model.state_dict()
    other = changed(before)
    model.load_state_dict(other)
    taken = model.state_dict()
    assert same(taken, other)
    for array in (*other.values(), *taken.values()):
        array[...] = 3
    model.load_state_dict(changed(model.state_dict()))
    assert same(model.state_dict(), before)


@given(st.data())
def test_a_state_that_does_not_fit_is_refused_whole_with_every_reason(data):
    model = Branches()
    before = model.state_dict()
    state = changed(before)
    kinds = st.sampled_from(["right", "missing", "shape", "dtype"])
    faults = {name: data.draw(kinds, label=name) for name in state}
    faults |= dict.fromkeys(data.draw(st.lists(NAMES, max_size=2), label="unexpected"), "unexpected")
    expected = set()
    for name, fault in faults.items():
        if fault == "missing":
            expected.add(f"missing: {name} {state.pop(name).shape}")
        elif fault == "unexpected":
            state[name] = np.zeros((2, 5))
            expected.add(f"unexpected: {name} (2, 5)")
        elif fault == "shape":
            shape = state[name].shape
            state[name] = state[name][None]
            expected.add(f"shape of {name}: the state has {(1, *shape)}, the model {shape}")
        elif fault == "dtype":
            state[name] = state[name] + 0j
            expected.add(f"dtype of {name}: the state has complex64, the model float32")
    if expected:
        with pytest.raises(ValueError, match="the state does not fit Branches") as caught:
            model.load_state_dict(state)
        assert {line.strip() for line in str(caught.value).splitlines()[1:]} == expected
        assert same(model.state_dict(), before)
    else:
        model.load_state_dict(state)
        assert same(model.state_dict(), state)


@pytest.mark.parametrize(("given_dtype", "accepted"), [
    (np.float64, True), (np.float16, True), (np.int64, True), (np.complex64, False), ("U3", False), (object, False),
])
def test_a_state_is_cast_to_the_models_dtypes_where_that_is_harmless(given_dtype, accepted):
    model = Linear(2, 1, bias=False)
    state = {"weight": np.array([[1, 2]], given_dtype)}
    if accepted:
        model.load_state_dict(state)
        assert model.weight.dtype == np.float32
        assert model.weight.data.tolist() == [[1, 2]]
    else:
        with pytest.raises(ValueError, match="dtype of weight"):
            model.load_state_dict(state)


def test_an_integer_buffer_takes_no_fractions():
    model = BatchNorm2d(2)
    with pytest.raises(ValueError, match="dtype of num_batches_tracked: the state has float64, the model int64"):
        model.load_state_dict(model.state_dict() | {"num_batches_tracked": np.array(1.5)})


@given(MODULES, st.booleans(), st.booleans(), st.data())
def test_mode_restores_every_modules_own_flag(model, training, fail, data):
    modules = [part for _, part in model.named_modules()]
    for part in modules:
        part.training = data.draw(st.booleans())
    before = [part.training for part in modules]
    try:
        with model.mode(training) as inside:
            assert inside is model
            assert {part.training for part in modules} == {training}
            if fail:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fail
    assert [part.training for part in modules] == before


def test_train_and_eval_set_every_flag_and_return_the_module():
    model = Branches()
    assert model.training
    for call, flag in ((model.eval, False), (model.train, True)):
        assert call() is model
        assert {part.training for _, part in model.named_modules()} == {flag}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_duplicate_is_equal_and_independent(duplicate):
    model = Branches()
    model.stem.eval()
    x = np.random.default_rng(0).random((2, 3), np.float32)
    twin = duplicate(model)
    assert repr(twin) == repr(model)
    assert twin._arguments == model._arguments
    assert twin(x).data.tobytes() == model(x).data.tobytes()
    pairs = itertools.zip_longest(twin.named_modules(), model.named_modules())
    assert all(a[0] == b[0] and a[1].training == b[1].training for a, b in pairs)
    before = model.state_dict()
    for parameter in twin.parameters():
        parameter.data += 1
    assert same(model.state_dict(), before)
    assert not same(twin.state_dict(), before)


def test_the_mode_of_a_block_is_this_threads_own():
    model, entered, leave = Branches(), threading.Event(), threading.Event()

    def other():
        with model.mode(training=False):
            entered.set()
            return leave.wait(10) and model.stem.training

    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(other)
        assert entered.wait(10)
        with model.mode(training=True):
            assert model.stem.training
            leave.set()
            assert not seen.result()
            assert model.stem.training


def test_a_flag_set_within_a_block_of_mode_holds_as_long_as_the_block():
    """As of a layer that is to draw in evaluation too, and says so in `forward`."""
    model = Branches()
    with model.mode(training=False):
        model.stem.train()
        assert (model.stem.training, model.blocks[1].training) == (True, False)
        with model.mode(training=False):
            assert not model.stem.training
        assert model.stem.training
        model.stem.training = False
    assert model.stem.training


def test_what_is_frozen_stays_in_evaluation_mode_and_is_trained_again_when_unfrozen():
    model = Branches()
    assert model.stem.freeze() is model.stem
    assert model.frozen_parameters() == set(model.stem.parameters())
    with model.train().mode(training=True):
        assert [name for name, module in model.named_modules() if not module.training] == ["stem"]
    model.unfreeze()
    assert model.training
    assert model.stem.training
    assert model.frozen_parameters() == set()


def test_a_watcher_sees_every_output_within_its_block_in_its_thread():
    model, seen = Branches(), []
    x = Tensor(np.ones((2, 3)))
    with module.watching(lambda part, y: seen.append((part, y))), ThreadPoolExecutor(1) as pool:
        pool.submit(model, x).result()
        assert seen == []
        y = model(x)
    model(x)
    first, second = model.blocks
    assert [part for part, _ in seen] == [model.stem, *first.layers, first, second, model.pair[0], model.heads["left"],
                                          model.heads["right"][0], model]
    assert seen[-1][1] is y
    order, inner = [], module.watching(lambda part, y: order.append("inner"))
    with module.watching(lambda part, y: order.append("outer")), inner:
        model.stem(x)
    assert order == ["outer", "inner"]


def test_a_layer_may_take_several_tensors():
    class Sum(Module):
        def forward(self, several):
            return several[0] + several[1]

    for several in ((Tensor([1.0]), Tensor([2.0])), [Tensor([1.0]), Tensor([2.0])]):
        assert Sum()(several).item() == 3
