"""PyTorch's files; tests/parity/test_checkpoints.py has those that PyTorch itself writes."""

import builtins
import json
import re
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pytorch_files import BOMB, CLASSES, Code, legacy_file, pickled, reference, safetensors_file, zip_file, zipped

from tinyadv import models, nn

MAKERS = {"zip": zip_file, "legacy": legacy_file, "safetensors": safetensors_file}
every_format = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
pickles = pytest.mark.parametrize("make", [zip_file, legacy_file], ids=["zip", "legacy"])
DTYPES = st.sampled_from(["<f4", "<f8", "<f2", "<i8", "<i4", "<i2", "|i1", "|u1", "|b1"])
ARRAYS = {"weight": np.arange(12, dtype=np.float32).reshape(3, 4), "bias": np.ones(4)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints") / "file"


def load(path, content):
    path.write_bytes(content)
    return nn.load_pytorch(path)


def refused(path, content, message="."):
    with pytest.raises(nn.StateError, match=message) as caught:
        load(path, content)
    assert str(caught.value).startswith(f"{path}: not a readable checkpoint, in .pth or .safetensors: ")


def bits(state):
    return {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in state.items()}


@every_format
@given(state=st.dictionaries(st.text(max_size=9), arrays(DTYPES, array_shapes(min_dims=0, max_dims=4, min_side=0)),
                             min_size=1, max_size=4))
def test_the_arrays_come_back_as_they_were(path, make, state):
    state = {name: array for name, array in state.items() if not name.startswith(("module.", "_orig_mod."))} or ARRAYS
    found = load(path, make(state))
    assert {name: each for name, each in bits(found).items() if name in state} == bits(state)
    assert list(found) == list(state) or any(name.endswith("running_var") for name in state)
    assert not any(array.flags.writeable for array in found.values())


@pickles
def test_tensors_are_views_of_their_storage(path, make):
    whole = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    state = {"whole": whole, "part": whole[1:, ::2, 3], "turned": whole.transpose(2, 0, 1), "again": whole}
    assert bits(load(path, make(state))) == bits(state) == bits(reference(make(state)))


@every_format
def test_a_leading_module_is_removed_where_every_name_has_it(path, make):
    wrapped = {f"module.{name}": array for name, array in ARRAYS.items()}
    assert list(load(path, make(wrapped))) == list(ARRAYS)
    assert list(load(path, make({"n_averaged": np.array(3)} | wrapped))) == list(ARRAYS)
    for prefix in "_orig_mod.", "module._orig_mod.", "_orig_mod.module.":
        compiled = {f"{prefix}{name}": array for name, array in ARRAYS.items()}
        assert list(load(path, make(compiled))) == list(ARRAYS)
    averaged = {"_orig_mod.n_averaged": np.array(3)} | {f"_orig_mod.module.{name}": ARRAYS[name] for name in ARRAYS}
    assert list(load(path, make(averaged))) == list(ARRAYS)
    mixed = {"module.weight": ARRAYS["weight"], "bias": ARRAYS["bias"]}
    assert list(load(path, make(mixed))) == list(mixed)


@pickles
def test_what_python_2_has_written_is_read(path, make):
    """Old files have words in bytes, long numbers, and an OrderedDict made from a list of pairs."""
    storage = b"(U\7storagectorch\nDoubleStorage\nU\x010U\3cpu\x8a\1\4" + b"N" * (make is legacy_file) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"\x8a\0(\x8a\1\4t(\x8a\1\1ttR"
    state = Code(b"ccollections\nOrderedDict\n(((U\4bias" + tensor + b"lltR")
    content = make({"state_dict": state, "other": ARRAYS["bias"]})  # the one storage, which both share
    assert bits(load(path, content)) == bits({"bias": ARRAYS["bias"]})
    for pairs in (b"(K\1l", b"((K\1ll", b"((U\1aK\1K\2ll", b"K\1"):
        refused(path, make({"state_dict": Code(b"ccollections\nOrderedDict\n(" + pairs + b"tR")}))


@pickles
@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model", "net", "last"])
def test_the_weights_are_found_beside_other_things(path, make, name):
    checkpoint = {"epoch": 3, "lr": [0.1, None, True], name: ARRAYS, "optimizer": {"state": {0: ARRAYS["bias"] * 2}}}
    assert bits(load(path, make(checkpoint))) == bits(ARRAYS)


@every_format
def test_the_old_names_of_densenet_and_its_lack_of_counters(path, make):
    model = models.DenseNet((2, 1), 10, True, 2, seed=1)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): array
           for name, array in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer2.norm.1.weight" in old
    found = load(path, make(old))
    assert list(found) == list(model.state_dict())
    other = models.DenseNet((2, 1), 10, True, 2, seed=2)
    other.load_state_dict(found)
    assert bits(other.state_dict()) == bits(model.state_dict())


@every_format
def test_a_file_without_tensors_or_that_is_none_is_told(tmp_path, make):
    with pytest.raises(FileNotFoundError):
        nn.load_pytorch(tmp_path / "none.pth")
    refused(tmp_path / "cut.pth", make(ARRAYS)[:-1])
    refused(tmp_path / "empty.pth", b"", "its header should have 0 bytes|does not begin as one")


@pickles
@pytest.mark.parametrize(("value", "message"), [
    ({}, "it holds dict, and not a state_dict, a table of tensors"),
    ([ARRAYS["bias"]], "it holds list, and not"),
    ({"bias": ARRAYS["bias"], "epoch": 3}, "it holds 'epoch', int, where a state_dict has tensors only"),
    ({"net": {"a": {"b": ARRAYS["bias"]}}}, "it holds 'a', dict, where"),
    ({"a": ARRAYS["bias"], "b": Code(b"cos\nsystem\n(X\4\0\0\0truetR")}, "asks for 'os system', .*state_dict alone"),
    ({"a": Code(b"(X\4\0\0\0trueios\nsystem\n")}, "an instruction INST"),
    ({"a": Code(b"ctorch._utils\n_rebuild_tensor_v2\n(tR")}, "calls torch._utils _rebuild_tensor_v2 with 0 arguments"),
    ({"a": Code(b"X\x07\0\0\0storageQ")}, "that is not a whole storage"),
    ({"a": Code(b"]" * 300_000)}, "asks for more memory than a checkpoint of its size"),
    ({"a": Code(b"(" * 300_000)}, "asks for more memory than a checkpoint of its size"),
    ({"a": Code(b"q\1" * 300_000)}, "."),
])
def test_other_objects_are_refused_and_never_made(path, make, value, message, monkeypatch):
    def imported(name, *rest):
        assert name not in ("os", "nt", "posix"), "a file has made Python import a module"
        return original(name, *rest)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", imported)
    refused(path, make(value), message)


def tensor(size=4, offset=0, shape=(4,), strides=(1,), kind="Float", key="0"):
    """The instructions for a tensor that may be none."""
    storage = pickled(("storage", Code(f"ctorch\n{kind}Storage\n".encode()), key, "cpu", size), []) + b"Q"
    arguments = pickled((Code(storage), offset, tuple(shape), tuple(strides), False, {}), [])
    return Code(b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R")


@pytest.mark.parametrize("options", [
    {"shape": (5,)}, {"offset": 1}, {"offset": -1}, {"shape": (-4,)}, {"strides": (2,)}, {"strides": (-1,)},
    {"shape": (2, 2)}, {"shape": (1 << 30, 1 << 30), "strides": (0, 0)}, {"shape": (5,), "strides": (0,)},
    {"size": -4}, {"size": 5}, {"size": 3}, {"kind": "Double"}, {"kind": "ComplexFloat"}, {"key": "1"},
    {"shape": (1,) * 65, "strides": (1,) * 65}, {"shape": (0, 1 << 30, 1 << 30, 1 << 30), "strides": (1,) * 4},
])
def test_a_tensor_that_does_not_fit_its_storage_is_refused(path, options):
    entries = [("file/data/0", np.arange(4, dtype=np.float32).tobytes())]
    assert load(path, zip_file({"a": tensor()}, entries))["a"].tolist() == [0, 1, 2, 3]
    refused(path, zip_file({"a": tensor(**options)}, entries))


def test_archives_of_another_form_are_refused(path):
    content = zip_file(ARRAYS)
    with zipfile.ZipFile(path, "w"):
        pass
    refused(path, path.read_bytes(), "0 entries data.pkl")
    refused(path, zip_file(ARRAYS, [("other/data.pkl", b"")]), "2 entries data.pkl")
    refused(path, zip_file(ARRAYS, method=zipfile.ZIP_DEFLATED), "are compressed")
    refused(path, zipped([("file/data.pkl", b"\x80\x02}."), ("file/byteorder", b"big")]), "not in little-endian order")
    damaged = content.replace(np.float32(11).tobytes(), np.float32(12).tobytes())
    assert len(damaged) == len(content)
    refused(path, damaged, "Bad CRC-32")


def test_a_legacy_file_must_be_whole(path):
    content = legacy_file(ARRAYS)
    refused(path, content + b"\0", "its tensors need")
    refused(path, content[:-8], "its tensors need")
    refused(path, content.replace(b"\x88", b"\x89", 1), "another version of the legacy format")


@pickles
@pytest.mark.parametrize(("options", "message"), [
    ({"key": Code(BOMB)}, "it has a storage tuple of 4 numbers, 'torch FloatStorage'$"),
    ({"size": Code(BOMB)}, "it has a storage '0' of tuple numbers, 'torch FloatStorage'$"),
])
def test_a_tuple_of_many_words_in_few_bytes_is_never_written_out(path, make, options, message):
    refused(path, make({"a": tensor(**options)}), message)
    refused(path, legacy_file(ARRAYS, [Code(BOMB)]), "it has a storage tuple twice, or one that no tensor is in$")


@pickles
def test_the_time_grows_with_the_file_and_not_with_its_square(path, make):
    keys = b"".join(b"\x8a\x0a" + (k * sys.hash_info.modulus).to_bytes(10, "little") + b"N" for k in range(1, 9))
    refused(path, make({"net": Code(b"}(" + keys + b"u")}), "table with the key 2305843009213693951, and no checkpoint")
    code = b"ccollections\nOrderedDict\nq\0(K\1K\1lq\1(" + b"h\1" * 2000 + b"l\x85q\2(" + b"h\0h\2R" * 2000 + b"t"
    refused(path, make({"a": Code(code)}), "asks for more memory than a checkpoint of its size")


def st_file(header, data=b"\0" * 16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(("content", "message"), [
    (st_file({"a": entry(0, 8), "b": entry(8, 12)}), "has 4 bytes, which is wrong for F32"),
    (st_file({"a": entry(0, 8)}), "leave a hole, lie on one another, or do not fill the file"),
    (st_file({"a": entry(0, 8), "b": entry(4, 12)}), "leave a hole, lie on one another, or do not fill the file"),
    (st_file({"a": entry(8, 16)}), "leave a hole, lie on one another, or do not fill the file"),
    (st_file({"a": entry(0, 8), "b": entry(8, 24, (4,))}), "leave a hole, lie on one another, or do not fill"),
    (st_file({"a": entry(0, 16, (2,), "C64")}), "a is of 'C64', and this library reads F32"),
    (st_file({"a": entry(0, 16, (-2, -2))}), "not made of at most 64 whole numbers"),
    (st_file({"a": entry(0, 16, (True, 4))}), "not made of at most 64 whole numbers"),
    (st_file({"a": entry(0, 16, (4.0,))}), "not made of at most 64 whole numbers"),
    (st_file({"a": entry(0, 16, (1 << 62, 0))}), "not made of at most 64 whole numbers"),
    (st_file({"a": entry(0, 4, (1,) * 65)}), "not made of at most 64 whole numbers"),
    (st_file({"a": entry(0, 16, (4,)) | {"more": 1}}), "is not described by its dtype, shape and data_offsets"),
    (st_file(b'{"a": 1, "a": 2}'), "a name comes twice"),
    (st_file(b'[1, 2]'), "does not begin as one"),
    (st_file(b' {}', b""), "does not begin as one"),
    (st_file(b'{"a": ' + b"[" * 99_999), "too deep|Expecting"),
    ((1 << 40).to_bytes(8, "little") + b"{}", "its header should have 1,099,511,627,776 bytes, and the file has 10"),
    (b"<!DOCTYPE html>", "its header should have"),
])
def test_a_safetensors_file_is_as_its_specification_has_it(path, content, message):
    refused(path, content, message)


def test_bfloat16_becomes_float32(path):
    numbers = np.array([1, -2.5, 0, np.inf, 3e38], np.float32)
    halves = (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
    (found,) = load(path, st_file({"__metadata__": {"format": "pt"}, "a": entry(0, 10, (5,), "BF16")}, halves)).values()
    np.testing.assert_allclose(found, numbers, rtol=1 / 128)
    code = tensor(5, 0, (5,), (1,), "BFloat16")
    assert bits(load(path, zip_file({"a": code}, [("file/data/0", halves)]))) == {"a": bits({"a": found})["a"]}
    halves = np.random.default_rng(0).integers(0, 1 << 16, 100_000, np.uint16)  # more than one block
    content = st_file({"a": entry(0, 200_000, (2, 50_000), "BF16")}, halves.tobytes())
    assert load(path, content)["a"].tobytes() == (halves.astype("<u4") << 16).tobytes()


@every_format
@pytest.mark.parametrize("bfloat16", [False, True])
def test_no_more_memory_is_taken_than_the_arrays_have(path, make, bfloat16, monkeypatch):
    if bfloat16:
        monkeypatch.setitem(CLASSES, "<i2", "BFloat16")
    content = make({str(k): np.random.default_rng(k).integers(0, 1 << 15, 1_000_000, np.int16) for k in range(4)})
    path.write_bytes(content.replace(b' "I16"', b'"BF16"') if bfloat16 else content)
    tracemalloc.start()
    try:
        nn.load_pytorch(path)
        assert tracemalloc.get_traced_memory()[1] < (2.1 if bfloat16 else 1.1) * path.stat().st_size
    finally:
        tracemalloc.stop()


# What is written


@given(state=st.dictionaries(st.text(max_size=9), arrays(
    DTYPES | st.sampled_from([">f4", "<u2"]), array_shapes(min_dims=0, max_dims=3, min_side=0)), max_size=5))
def test_safetensors_are_written_as_the_specification_has_it(path, state):
    state = {name: np.asfortranarray(array) for name, array in state.items()
             if not name.startswith(("module.", "_orig_mod."))}
    nn.save_safetensors(state, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert content[8:9] == b"{"
    for name, array in state.items():
        begin, end = header[name]["data_offsets"]
        assert begin % array.itemsize == 0  # aligned, as the header's length is
        assert content[8 + length :][begin:end] == array.astype(array.dtype.newbyteorder("<")).tobytes()
    found = nn.load_pytorch(path)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_model_travels_through_safetensors(path):
    model, other = models.resnet18(10, small_images=True, width=4, seed=1), models.resnet18(
        10, small_images=True, width=4, seed=2)
    nn.save_safetensors(model, path)
    other.load_state_dict(nn.load_pytorch(path))
    assert bits(other.state_dict()) == bits(model.state_dict())


def test_words_are_not_written_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match=r"safetensors holds float32, .*; got a: <U1"):
        nn.save_safetensors({"a": np.array(["b"])}, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_the_one_name_that_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"state has an array __metadata__, .*: rename it"):
        nn.save_safetensors({"__metadata__": ARRAYS["bias"]}, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_no_words_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the names of a state must be words, got 0"):
        nn.save_safetensors({0: np.ones(2)}, tmp_path / "file.safetensors")


@pytest.mark.parametrize("metadata", [{"a": 1}, [1], "words"])
def test_metadata_that_is_no_table_of_words_is_refused(path, metadata):
    with pytest.raises(nn.StateError, match="__metadata__ is no table of words"):
        load(path, st_file({"__metadata__": metadata, "a": entry(0, 4, (1,), "F32")}, bytes(4)))


def test_a_path_in_the_place_of_the_state_is_told(tmp_path):
    with pytest.raises(TypeError, match=r"save_safetensors takes \(state, path\)"):
        nn.save_safetensors(tmp_path / "file.safetensors", ARRAYS)
