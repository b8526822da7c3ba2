import io
import json
import os
import stat
import zipfile
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyadv import models, nn
from tinyadv.nn.archive import FORMAT, HEADER, StateError, read, write


class Tiny(nn.Module):
    """Parameters, running statistics and an argument of every kind that JSON knows."""

    def __init__(self, seed=0, window=(1, 1), *, bias=True):
        self.layers = [nn.Conv2d(1, 2, window, bias=bias, rng=seed), nn.BatchNorm2d(2)]

    def forward(self, x):
        return self.layers[1](self.layers[0](x))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def content(folder):
    """The bytes of a good file."""
    nn.save(Tiny(seed=1), folder / "good.npz")
    return (folder / "good.npz").read_bytes()


def identical(one, other):
    """Whether two modules hold the same names and bits."""
    one, other = one.state_dict(), other.state_dict()
    return list(one) == list(other) and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def packed(arrays, header):
    """The bytes of an .npz file of those arrays under that header (None: without one)."""
    file = io.BytesIO()
    text = {} if header is None else {HEADER: np.array(header if isinstance(header, str) else json.dumps(header))}
    np.savez(file, **text, **arrays)
    return file.getvalue()


def header(**changes):
    return {"format": 1, "class": "Tiny", "args": [], "kwargs": {}} | changes


def refused(path, content, message):
    """Assert that the file is refused by that message, whole: a given model stays as it is."""
    path.write_bytes(content)
    model = Tiny(seed=5)
    for load in (lambda: nn.load(path), lambda: nn.load(path, into=model)):
        with pytest.raises(StateError, match=message) as caught:
            load()
        assert str(caught.value).startswith(f"{path}: ")
    assert identical(model, Tiny(seed=5))


@given(st.integers(0, 99), st.sampled_from([1, (2, 3)]), st.booleans(), st.integers(0, 3))
def test_load_after_save_is_the_identity(folder, seed, window, bias, steps):
    model = Tiny(seed, window, bias=bias)
    for _ in range(steps):
        model(np.random.default_rng(seed).random((2, 1, 4, 4), np.float32))
    nn.save(model, folder / "any.npz")
    loaded = nn.load(folder / "any.npz")
    assert type(loaded) is Tiny
    assert identical(loaded, model)
    assert loaded.state_dict()["layers.1.num_batches_tracked"] == steps
    other = Tiny(seed + 1, window, bias=bias)
    assert nn.load(folder / "any.npz", into=other) is other
    assert identical(other, model)


@given(st.data())
def test_a_truncated_file_is_refused(folder, content, data):
    kept = data.draw(st.integers(0, len(content) - 1))
    refused(folder / "truncated.npz", content[:kept], "not a readable .npz file")


@given(st.data(), st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_changes_nothing(folder, content, data, mask):
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = bytearray(content)
    damaged[place] ^= mask
    path = folder / "damaged.npz"
    path.write_bytes(damaged)
    model = Tiny(seed=5)
    try:
        nn.load(path, into=model)
    except StateError:
        assert identical(model, Tiny(seed=5))
    else:  # in a date, say, or in another field that nobody reads
        assert identical(model, Tiny(seed=1))


def test_a_large_array_of_a_damaged_type_is_not_half_read(tmp_path):
    path, model = tmp_path / "model.npz", nn.Linear(100, 100, bias=False, rng=1)
    nn.save(model, path)
    path.write_bytes(path.read_bytes().replace(b"'<f4'", b"'<f2'"))
    with pytest.raises(StateError, match=r"its entry weight\.npy is damaged"):
        nn.load(path)


@given(st.binary(max_size=100))
@example(b"PK\x03\x04")
@example(b"PK\x05\x06" + bytes(18))  # a zip without entries
@example(b"\x93NUMPY\x01\x00")
@example(b"\x80\x04N.")  # a pickle
def test_bytes_from_elsewhere_are_refused(folder, foreign):
    refused(folder / "foreign.npz", foreign, "not a readable .npz file|not a model file of tinyadv")


def foreign_files():
    np.save(file := io.BytesIO(), np.zeros(3))
    array = file.getvalue()
    yield "an array", array, "not a readable .npz file"
    yield "a text", b"weights, biases\n1, 2\n", "not a readable .npz file"
    yield "another npz", packed({"a": np.zeros(3)}, None), "not a model file of tinyadv: it has no valid header"
    for name in ("notes.txt", HEADER + ".npy"):
        with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
            archive.writestr(name, "no array")
        yield f"a zip of {name}", file.getvalue(), "not a model file of tinyadv: it has no valid header"
    yield "an array before a zip", array + packed({}, header()), "not a readable .npz file"
    for text in ("", "[1]", "{", '"words"', "null", "{}", '{"format": 1}'):
        yield f"header {text}", packed({}, text), "not a model file of tinyadv: it has no valid header"


@pytest.mark.parametrize(("content", "message"), [c[1:] for c in foreign_files()], ids=[c[0] for c in foreign_files()])
def test_files_of_other_kinds_are_refused(tmp_path, content, message):
    refused(tmp_path / "file.npz", content, message)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    state = Tiny().state_dict() | {"layers.0.weight": np.array([Trap()], object)}
    refused(tmp_path / "trap.npz", packed(state, header()),
            r"not a readable .npz file: .*weight\.npy is damaged: it must contain numbers or text, and contains object")
    assert not (tmp_path / "sprung").exists()


def test_what_does_not_fit_is_listed(tmp_path):
    state = Tiny().state_dict()
    state["layers.0.weight"] = np.zeros((2, 1, 3, 3))
    state["extra"] = state.pop("layers.1.bias")
    lines = [r"missing: layers\.1\.bias \(2,\)", r"shape of layers\.0\.weight: .*", r"unexpected: extra \(2,\)"]
    message = r"\n\s*".join([r"a saved Tiny: the state does not fit Tiny:", *lines])
    refused(tmp_path / "other.npz", packed(state, header()), message)


def test_a_newer_format_asks_for_an_update(tmp_path):
    refused(tmp_path / "new.npz", packed({}, header(format=FORMAT + 1)), f"has format {FORMAT + 1}.*update tinyadv")


@pytest.mark.parametrize(("header", "message"), [
    (header(**{"class": "Unheard"}), "the class Unheard is not defined here"),
    (header(**{"class": ["Tiny"]}), r"the class \['Tiny'\] is not defined here"),
    (header(**{"class": "Module"}), "the class Module is not defined here"),
    ({"format": 1, "class": "Tiny"}, "the class Tiny was not built from plain numbers and words"),
    ({"format": 1, "class": "Tiny", "args": []}, "the class Tiny was not built from plain numbers and words"),
])
def test_a_class_that_cannot_be_built_is_loaded_into_a_model(tmp_path, header, message):
    path, saved = tmp_path / "model.npz", Tiny(seed=1)
    path.write_bytes(packed(saved.state_dict(), header))
    with pytest.raises(StateError, match=rf"{message}: build the model and call load\(path, into=model\)"):
        nn.load(path)
    assert identical(nn.load(path, into=Tiny(seed=2)), saved)


@pytest.mark.parametrize("changes", [
    {"args": [1, 2, 3, 4]}, {"kwargs": {"colour": "red"}}, {"args": ["seed"]}, {"args": [1, [0, 0]]}, {"args": 3},
    {"kwargs": [1]},
])
def test_arguments_that_do_not_build_the_class_are_refused(tmp_path, changes):
    (tmp_path / "model.npz").write_bytes(packed(Tiny().state_dict(), header(**changes)))
    with pytest.raises(StateError, match="Tiny cannot be built from this file: "):
        nn.load(tmp_path / "model.npz")


def test_two_classes_of_one_name_are_not_guessed_between(tmp_path):
    class LeNet(nn.Sequential):
        pass

    nn.save(models.LeNet(seed=1), tmp_path / "model.npz")
    with pytest.raises(StateError, match=r"LeNet is defined more than once, as .*models\.mnist\.LeNet.*into=model"):
        nn.load(tmp_path / "model.npz")
    assert identical(nn.load(tmp_path / "model.npz", into=models.LeNet()), models.LeNet(seed=1))
    LeNet.__name__ = "Another"  # the class may live on; its name must not


def test_a_model_of_other_modules_is_loaded_into_its_like(tmp_path):
    def network(seed):
        return nn.Sequential(nn.Linear(3, 2, rng=seed), nn.ReLU())

    nn.save(network(1), tmp_path / "model.npz")
    with pytest.raises(StateError, match=r"Sequential was not built from plain .*load\(path, into=model\)"):
        nn.load(tmp_path / "model.npz")
    assert identical(nn.load(tmp_path / "model.npz", into=network(2)), network(1))


def test_a_missing_file_is_just_that(tmp_path):
    for load in (nn.load, lambda path: read(path, "a file", "class")):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load(tmp_path / "nowhere.npz")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(StateError, match="not a readable"):
        nn.load(tmp_path)


@pytest.mark.parametrize("step", ["numpy.lib.format.write_array", "os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step, error):
    path = tmp_path / "model.npz"
    nn.save(Tiny(seed=1), path)

    def interrupted(*args, **kwargs):
        if step == "numpy.lib.format.write_array":
            args[0].write(b"half of the file")
        raise error

    monkeypatch.setattr(step, interrupted)
    with pytest.raises(type(error)):
        nn.save(Tiny(seed=2), path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["model.npz"]
    assert identical(nn.load(path), Tiny(seed=1))


def test_a_saved_file_has_the_given_name_and_the_permissions_of_any_new_file(tmp_path):
    nn.save(Tiny(), tmp_path / "weights")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


class Keeper(nn.Module):
    """Keeps whatever it is given."""

    def __init__(self, *values, **named):
        self.values = values, named

    def forward(self, x):
        return x


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(
                        st.text() | st.integers(), inner), max_leaves=8))
@example({"tuple": [1]})
@example({0: 10.0})
def test_a_module_is_built_again_from_the_same_arguments_or_not_at_all(folder, value):
    path = folder / "kept.npz"
    nn.save(Keeper(value, tuple=value), path)
    if "args" in read(path, "a model file", "class")[0]:
        assert repr(nn.load(path).values) == repr(((value,), {"tuple": value}))
    else:  # JSON's tables have words as keys only, and one of them is ours
        assert "{" in repr(value)
        with pytest.raises(StateError, match="was not built from plain numbers and words"):
            nn.load(path)


def test_a_tuple_with_names_is_not_saved_as_one_without(folder):
    nn.save(Keeper(namedtuple("Size", "height width")(2, 3)), folder / "kept.npz")
    with pytest.raises(StateError, match="was not built from plain numbers and words"):
        nn.load(folder / "kept.npz")


def dull(model):
    setattr(model, "1", nn.Tanh())


def strange(model):
    model.layers[5].p = 0.9


def soft(model):
    model.layers[4].negative_slope = 0.3


def wide(model):
    model.layers[6].padding = 1


def turned(model):
    first, second = model.layers[1], model.layers[3]
    setattr(model, "1", second)
    setattr(model, "3", first)


class Changed(nn.Sequential):
    def __init__(self, seed=0):
        super().__init__(nn.Flatten(), nn.ReLU(), nn.Linear(4, 4, rng=seed), nn.Tanh(), nn.LeakyReLU(0.1),
                         nn.Dropout(0.5, seed=0), nn.MaxPool2d(2))


@pytest.mark.parametrize("change", [dull, strange, soft, wide, turned])
def test_a_model_that_was_changed_after_it_was_built_is_not_built_again_as_another(tmp_path, change):
    model = Changed(seed=1)
    nn.save(model, tmp_path / "built.npz")
    assert identical(nn.load(tmp_path / "built.npz"), model)
    change(model)
    nn.save(model, tmp_path / "changed.npz")
    with pytest.raises(StateError, match=r"the saved Changed was changed after it was built: .*into=model"):
        nn.load(tmp_path / "changed.npz")
    change(other := Changed(seed=2))
    assert identical(nn.load(tmp_path / "changed.npz", into=other), model)


@dataclass(slots=True)
class Slotted:
    """A note that holds itself."""

    other: object = None


def test_what_a_model_counts_and_notes_does_not_change_it(tmp_path):
    class Counter(nn.Module):
        def __init__(self):
            self.layer, self.queries, self.noise = nn.Linear(2, 2, rng=0), 0, nn.Dropout(0.5)
            self.seen, self.hits, self.note = 0.0, np.int64(0), Slotted()
            self.note.other = self.note

        def forward(self, x):
            self.queries, self.seen, self.hits = self.queries + len(x), self.seen + 0.5, self.hits + 1
            self.size = x.shape
            return self.noise(self.layer(x))

    model = Counter()
    model(np.ones((3, 2), np.float32))
    model.layer.accuracy = 0.93  # as a note
    nn.save(model, tmp_path / "a.npz")
    assert identical(nn.load(tmp_path / "a.npz"), model)


def test_a_file_that_tells_no_layers_is_read_as_ever(tmp_path):
    nn.save(model := Tiny(seed=3), tmp_path / "a.npz")
    header, arrays = read(tmp_path / "a.npz", "a model file", "class")
    del header["layers"]
    write(tmp_path / "old.npz", header, arrays)
    assert identical(nn.load(tmp_path / "old.npz"), model)


@pytest.mark.parametrize("make", [
    lambda: nn.LeakyReLU(np.float64(0.1)), lambda: nn.MaxPool2d(np.int64(2)),
    lambda: nn.Conv2d(1, 1, 2, stride=np.int64(2)), lambda: nn.BatchNorm2d(np.int64(2)),
    lambda: nn.Dropout(np.float32(0.5)),
])
def test_layers_of_numbers_of_numpy_are_loaded(tmp_path, make):
    nn.save(model := make(), tmp_path / "a.npz")
    assert identical(nn.load(tmp_path / "a.npz"), model)


def test_arguments_may_be_numbers_of_numpy(tmp_path):
    nn.save(model := Tiny(seed=np.int64(3)), tmp_path / "a.npz")
    assert identical(nn.load(tmp_path / "a.npz"), model)
