import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tinyadv import nn
from tinyadv.nn import init
from tinyadv.nn.archive import EXPANSION, HEADER, StateError, parse, read, write

KINDS = st.sampled_from(["<f4", ">f8", "<f2", "|i1", "<i8", "|b1", "<U3", "<c8"])
ARRAYS = {"weight": np.arange(12, dtype=np.float32).reshape(3, 4), "bias": np.ones(4), "file": np.array(["a", "bc"])}
TOLD = {"class": "A", "more": [1, None, {"nested": 0.1}], "last": float("inf")}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("archive") / "file.npz"


def entries(path):
    """{name: bytes} of the entries of a file."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def pack(path, pairs, method=zipfile.ZIP_STORED):
    """Write entries, whatever they are, and even if two have one name."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in pairs:
            archive.writestr(name, content)


def npy(header, data=b""):
    """An array's file with any text for a header."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def refused(path, message):
    with pytest.raises(StateError, match=message) as caught:
        read(path, "a file", "class")
    assert str(caught.value).startswith(f"{path}: ")


@given(kept=arrays(KINDS, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), fortran=st.booleans(),
       compress=st.booleans())
def test_reading_inverts_writing(path, kept, fortran, compress):
    kept = np.asfortranarray(kept) if fortran else kept
    write(path, TOLD, {"kept": kept, **ARRAYS}, compress)
    header, found = read(path, "a file", "class")
    assert {name: header[name] for name in TOLD} == TOLD
    assert list(found) == ["kept", *ARRAYS]
    for name, array in {"kept": kept, **ARRAYS}.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].flags.f_contiguous == array.flags.f_contiguous
        assert found[name].tobytes() == array.tobytes()
    with np.load(path) as others:  # a file like any other
        assert others["kept"].tobytes() == kept.tobytes()


def test_nothing_is_lost_added_renamed_or_swapped_unnoticed(path):
    write(path, TOLD, ARRAYS | {"other": np.zeros(4)})
    whole = entries(path)
    for name in whole:
        pack(path, [pair for pair in whole.items() if pair[0] != name])
        refused(path, r"it should hold weight, bias, file, other, and holds|no valid header \('__tinyadv__'\)")
    pack(path, [*whole.items(), ("one_more.npy", whole["bias.npy"])])
    refused(path, "it should hold")
    pack(path, [(name.replace("bias", "Bias"), content) for name, content in whole.items()])
    refused(path, "it should hold")
    swapped = whole | {"bias.npy": whole["other.npy"], "other.npy": whole["bias.npy"]}
    pack(path, swapped.items())
    refused(path, "its SHA-256 is")
    pack(path, (whole | {"bias.npy": whole["bias.npy"].replace(b"<f8", b"<i8")}).items())
    refused(path, r"bias\.npy is damaged: it is <i8 \(4,\), and should be \['<f8', \[4\]\]")


def test_what_comes_twice_is_refused(path):
    write(path, TOLD, ARRAYS)
    whole = list(entries(path).items())
    for pair in whole:
        with pytest.warns(UserWarning, match="Duplicate name"):
            pack(path, [*whole, pair])
        refused(path, "two of its entries have one name")
    with pytest.raises(ValueError, match="a name comes twice, of b, c, b"):
        parse('{"a": {"b": 1, "c": 2, "b": 3}}')


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "[]", "1" * 10_000, "\ud800", "", "{"],
                         ids=["lists", "tables", "a list", "digits", "half a letter", "nothing", "half"])
def test_a_header_that_is_none_is_one_error(path, text):
    with pytest.raises(ValueError, match=r"[a-z]"):
        parse(text)
    pack(path, [(f"{HEADER}.npy", npy(f"{{'descr': '<U{len(text)}', 'fortran_order': False, 'shape': ()}}",
                                      text.encode("utf-32-le", "surrogatepass")))], zipfile.ZIP_DEFLATED)
    refused(path, "it has no valid header|it claims to hold")


@pytest.mark.parametrize(("descr", "shape", "data"), [
    ("'|V0'", (1 << 60,), b""), ("'<U0'", (1 << 60,), b""), ("'|O'", (1,), bytes(8)), ("'|V8'", (1,), bytes(8)),
    ("[('a', '<f4')]", (1,), bytes(4)), ("'<f4'", (1 << 40, 1 << 40), bytes(4)), ("'<f4'", (1 << 40,), bytes(4)),
    ("'<f4'", (-2, -3), bytes(24)), ("'<M8[s]'", (1,), bytes(8)), ("'<f4'", (2,), bytes(4)), ("'<f4'", (2,), bytes(12)),
    ("'<U100000000'", (), bytes(4)), ("'<f4'", (1,) * 70, bytes(4)), ("(" * 90, (), b""),
], ids=str)
@pytest.mark.parametrize("key", ["weight", HEADER])
def test_no_array_is_made_of_a_dtype_or_size_that_is_not_there(path, descr, shape, data, key):
    write(path, TOLD, ARRAYS)
    crafted = npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"[:110 + 3 * len(shape)], data)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pack(path, (entries(path) | {f"{key}.npy": crafted}).items(), method)
        tracemalloc.start()
        try:
            refused(path, "is damaged")
            assert tracemalloc.get_traced_memory()[1] < 200_000
        finally:
            tracemalloc.stop()
        write(path, TOLD, ARRAYS)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_to_far_more_than_the_file_is_refused_first(path, method):
    zeros = np.zeros(8_000_000, np.float32)
    write(path, TOLD, {"zeros": zeros})
    whole = entries(path)
    pack(path, whole.items(), method)
    assert EXPANSION * path.stat().st_size < zeros.nbytes
    tracemalloc.start()
    try:
        refused(path, r"it claims to hold 32,\d+,\d+ bytes, more than 4 times its own|compressed in another way")
        less, true = 4 * path.stat().st_size - 1000, len(whole["zeros.npy"])
        path.write_bytes(path.read_bytes().replace(true.to_bytes(4, "little"), less.to_bytes(4, "little")))
        refused(path, r"zeros\.npy is damaged|compressed in another way")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("of", [HEADER, "weight"])
def test_an_entry_that_is_said_to_be_larger_than_the_file_is_refused_first(path, of):
    write(path, TOLD, ARRAYS)
    content = bytearray(path.read_bytes())
    packed = content.rindex(f"{of}.npy".encode()) - 46 + 20  # in the list at the end: the size before unpacking
    content[packed : packed + 4] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    try:
        refused(path, "it claims to hold")
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_no_more_memory_is_taken_than_the_arrays_have(path):
    write(path, TOLD, {str(i): np.random.default_rng(i).random(500_000) for i in range(4)})
    tracemalloc.start()
    try:
        read(path, "a file", "class")
        assert tracemalloc.get_traced_memory()[1] < 1.1 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_a_model_is_not_built_larger_than_its_file(path):
    for model, args in ((nn.Linear(2, 3, rng=0), [60_000, 60_000]), (nn.BatchNorm2d(3), [10**9]),
                        (nn.Conv2d(1, 2, 3, rng=0), [1, 2, [30_000, 30_000]])):
        nn.save(model, path)
        header, kept = read(path, "a model", "class")
        write(path, header | {"args": args}, kept)
        tracemalloc.start()
        try:
            with pytest.raises(StateError, match="cannot be built from this file: it asks for an array"):
                nn.load(path)
            assert tracemalloc.get_traced_memory()[1] < 200_000
        finally:
            tracemalloc.stop()
    init.reserve((10**9,))  # only there


def test_a_header_says_what_numpy_reads(path):
    write(path, TOLD, ARRAYS)
    with np.load(io.BytesIO(path.read_bytes())) as found:
        header = json.loads(str(found[HEADER]))
        assert header["arrays"] == {name: [array.dtype.str, list(array.shape)] for name, array in ARRAYS.items()}
        assert set(found.files) == {HEADER, *ARRAYS}


def test_what_a_link_names_is_written_and_not_the_link(tmp_path):
    (tmp_path / "large").mkdir()
    link, real = tmp_path / "link.npz", tmp_path / "large" / "real.npz"
    write(real, TOLD, ARRAYS)
    link.symlink_to(real)
    write(link, TOLD | {"class": "B"}, ARRAYS)
    assert link.is_symlink()
    assert read(real, "a file", "class")[0]["class"] == "B"
    assert [path.name for path in real.parent.iterdir()] == ["real.npz"]
