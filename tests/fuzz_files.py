"""Files damaged and crafted at random: each must be refused with its one error, or be what it says. By hand:

    python tests/fuzz_files.py --count 20000 --seed 0

Damage (bits, bytes, blocks, two files in one) may never change what is loaded unnoticed. A crafted file has a right
digest, or is a zip of any entries: what it says may be loaded, if it can be. Neither may leave anything half set, or
take long, or more than twice the memory of the undamaged file.
"""

import argparse
import contextlib
import gzip
import hashlib
import importlib.util
import io
import json
import math
import random
import sys
import tempfile
import time
import tomllib
import tracemalloc
import warnings
import zipfile
import zlib
from collections import Counter
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np

from tinyadv import models, nn, training
from tinyadv.attacks import FGSM, PGD, AttackResult, MultiAttack
from tinyadv.attacks.combined.standing import Standing
from tinyadv.data import Dataset, DataUnavailable
from tinyadv.data.fetch import fetch
from tinyadv.data.mnist import EXPANSION, read_idx
from tinyadv.models import zoo
from tinyadv.nn.archive import HEADER, StateError, read, write
from tinyadv.training.checkpoint import State

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 2.0  # a load that takes longer counts as one that hangs
SLACK = 300_000  # bytes, which zipfile, json and tomllib take for themselves, whatever the file
ODD = [None, True, -1, 0, 1.5, 1e308, math.nan, 10**30, "", "x", "\0", [], {}, [[]], [1, "a"], {"class": "FGSM"},
       {"class": "FGSM", "parameters": {"eps": -1}}, {"class": 1, "parameters": {}}, [60_000, 60_000], 10**9]
HEADERS = ["'|V0'", "'|O'", "'<U0'", "'<f2'", "'<f8'", "'>f4'", "'<U1'", "'|b1'", "[('a', '<f4')]", "'<M8[s]'", "7"]
SHAPES = [(), (1,), (0,), (1 << 40,), (1 << 60,), (1 << 31, 1 << 31), (-1,), (-2, -3), (3, 3), (1,) * 40, (10**6,)]


class Small(nn.Sequential):
    """A network with weights, statistics and a dropout, built from plain numbers."""

    def __init__(self, seed=0, width=120):
        rng = np.random.default_rng(seed)
        super().__init__(nn.Conv2d(1, 4, 3, padding=1, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Linear(256, width, rng=rng), nn.Dropout(0.5, seed=seed), nn.Linear(width, 3, rng=rng))


def bits(state):
    return [(name, array.dtype.str, array.shape, array.tobytes()) for name, array in state.items()]


class Kind:
    """One kind of file: an honest one, how it is loaded, and what a load may do.

    errors: those that tell of a bad file. load: path -> a value to compare; `untouched`: what must be as before where
    it raises. told: of a text, the value that its words have: what differs from the honest one is then no secret.
    """

    errors, told, key = (StateError,), None, None

    def __init__(self, folder):
        self.path = folder / type(self).__name__.lower()
        self.make(folder)
        self.honest = self.path.read_bytes()
        self.fresh()
        self.value = self.load()

    def fresh(self):
        """Whatever is loaded into, anew."""

    def untouched(self):
        return True

    def claims(self):
        """How many bytes it says that it has, if it may have them."""
        return 0


class Model(Kind):
    key = "class"

    def make(self, folder):
        nn.save(Small(1), self.path)

    def fresh(self):
        self.model = Small(2)
        self.before = bits(self.model.state_dict())

    def load(self):
        return bits(nn.load(self.path, into=self.model).state_dict())

    def untouched(self):
        return bits(self.model.state_dict()) == self.before


class Built(Model):
    """The same without a model: it is built from the file."""

    def load(self):
        return bits(nn.load(self.path).state_dict())


class Checkpoint(Kind):
    key = "training"

    def make(self, folder):
        rng = np.random.default_rng(0)
        data = Dataset(rng.random((16, 1, 8, 8), np.float32), np.arange(16) % 3, "noise", ("a", "b", "c"))
        model = Small(1)
        training.fit(model, data, epochs=2, optimizer=nn.optim.Adam(model, lr=0.01), method=training.Free(0.1, 2),
                     average=0.9, batch_size=8, validation=data, validation_attack=FGSM(0.1), checkpoint=self.path)
        self.settings = read(self.path, "a checkpoint", "training")[0]["training"]

    def fresh(self):
        self.model = Small(2)
        self.optimizer = nn.optim.Adam(self.model, lr=0.01)
        self.before = self.all()

    def all(self):
        layer = self.model.layers[5]
        return bits(self.model.state_dict()), bits(self.optimizer.state_dict()), layer.p, layer.seed, layer.calls

    def load(self):
        state = State.load(self.path, self.model, self.optimizer, self.settings)
        numbers = [getattr(state, name) for name in State._NUMBERS]
        assert self.model.layers[5].p == 0.5, "the dropout's p was set"
        arrays = [bits(getattr(state, name)) for name in State._ARRAYS]
        return self.all(), numbers, [astuple(epoch) for epoch in state.history], arrays

    def untouched(self):
        return self.all() == self.before


class Result(Kind):
    key = "attack"

    def make(self, folder):
        rng = np.random.default_rng(0)
        MultiAttack((FGSM(0.1), PGD(0.1, steps=2))).run(
            Small(1).eval(), rng.random((400, 1, 8, 8), np.float32), np.arange(400) % 3).save(self.path)

    def load(self):
        result = AttackResult.load(self.path)
        result.summary()
        assert all(len(array) == len(result.x_adv) for array in (result.y, result.success, result.distances))
        return [(f, bits({f: v})) if isinstance(v, np.ndarray) else (f, repr(v)) for f, v in vars(result).items()]


class Between(Kind):
    """The state of a run of several attacks."""

    key = "run"

    def make(self, folder):
        self.run = {"attacks": "two", "x": "noise", "seed": [0, "none"], "options": {"quantize": None}}
        rng = np.random.default_rng(0)
        self.x, self.y, self.attack = rng.random((200, 1, 8, 8)), np.arange(200) % 3, MultiAttack((FGSM(0.1), PGD(0.1)))
        self.logits = rng.normal(size=(200, 3))
        self.fresh()
        self.standing.keep(self.path, self.run, self.logits)
        found = AttackResult.blank(self.attack, np.clip(self.x + 0.05, 0, 1), self.y, None, "linf", 0)
        found.success[:] = self.y == 1
        found.predictions[:] = (self.y + found.success) % 3
        found.distances[:] = abs(found.x_adv - self.x).reshape(200, -1).max(axis=1)
        self.standing.take(1, np.arange(200), found, np.zeros(200), 1.0)

    def fresh(self):
        result = AttackResult.blank(self.attack, self.x.copy(), self.y, None, "linf", 0)
        self.standing = Standing(result, self.logits, 2)
        self.before = self.all()

    def all(self):
        return bits(self.standing._arrays())

    def load(self):
        self.standing.keep(self.path, self.run, self.logits)
        assert (abs(self.standing.result.x_adv - self.x) <= 0.1).all(), "the budget is exceeded"
        return self.all()

    def untouched(self):
        return self.all() == self.before


class Data(Kind):
    """The images of a data set, as gzip, by their digest."""

    errors = (ValueError, DataUnavailable)

    def make(self, folder):
        rng, self.folder = np.random.default_rng(0), folder / "data"
        self.folder.mkdir()
        images = (rng.random((300, 28, 28)) < 0.2) * rng.integers(1, 256, (300, 28, 28))
        self.content = b"\0\0\x08\3" + np.array(images.shape, ">u4").tobytes() + images.astype(np.uint8).tobytes()
        self.path = self.folder / "images.gz"
        self.path.write_bytes(gzip.compress(self.content, mtime=0))
        self.files = {"images": (hashlib.sha256(self.content).hexdigest(), len(self.content))}

    def load(self):
        return read_idx(fetch("data", self.files, [], self.folder, download=False)["images"]).tobytes()


class Idx(Data):
    """The same, by whoever reads such a file alone: gzip has a checksum."""

    def load(self):
        return read_idx(self.path).tobytes()

    def claims(self):
        with contextlib.suppress(EOFError, OSError, zlib.error), gzip.open(self.path) as file:
            size = math.prod(np.frombuffer(file.read(16)[4:], ">u4").tolist())
            return size if size <= EXPANSION * self.path.stat().st_size else 0
        return 0


class Card(Kind):
    def make(self, folder):
        self.path = folder / "lenet.json"
        zoo.publish(models.LeNet(seed=1), "lenet", folder, **{
            name: value for name, value in asdict(zoo.card("mnist-lenet-linf")).items()
            if name not in ("name", "model", "parameters", "sha256")})

    def load(self):
        before, zoo.FOLDER = zoo.FOLDER, self.path.parent
        try:
            card = zoo.card("lenet")
            assert str(card)
            zoo.load("lenet")
            return repr(asdict(card))
        finally:
            zoo.FOLDER = before

    def told(self):
        return repr(json.loads(self.path.read_text(encoding="utf-8")))


class Weights(Card):
    """The compressed weights beside a card."""

    def make(self, folder):
        super().make(folder)
        self.path = folder / "lenet.npz"

    told = None


class Settings(Kind):
    errors = (StateError, ValueError, TypeError)  # the latter two of the classes, and the example says of what file

    def make(self, folder):
        self.path = folder / "settings.toml"
        self.path.write_bytes((EXAMPLES / "configs" / "mnist-lenet-linf.toml").read_bytes())
        found = importlib.util.spec_from_file_location("recipes", EXAMPLES / "recipes.py")
        self.example = importlib.util.module_from_spec(found)
        sys.path.insert(0, str(EXAMPLES))
        try:
            found.loader.exec_module(self.example)
        finally:
            sys.path.remove(str(EXAMPLES))

    def load(self):
        settings = zoo.settings(self.path)
        self.example.recipe(settings, settings["model"]["seed"])
        return repr(settings)

    def told(self):
        return repr(tomllib.loads(self.path.read_text(encoding="utf-8")))


KINDS = (Model, Built, Checkpoint, Result, Between, Data, Idx, Card, Weights, Settings)


def damaged(rng, content, other):
    """The bytes with something wrong; other: those of another file."""
    content, size = bytearray(content), len(content)
    at, to = sorted((rng.randrange(size), rng.randrange(size)))
    if rng.random() < 0.5:  # near an end, where the lists of an archive are
        at = rng.randrange(max(0, size - 600), size) if rng.random() < 0.7 else rng.randrange(min(size, 600))
        to = min(size, at + rng.randrange(64))
    way = rng.randrange(8)
    if way == 0:
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            content[rng.choice((at, rng.randrange(size)))] ^= 1 << rng.randrange(8)
    elif way == 1:
        content[at:to] = rng.randbytes(to - at)
    elif way == 2:
        del content[at:to]
    elif way == 3:
        content[at:at] = content[at:to] or b"\0"
    elif way == 4:
        del content[at:]
    elif way == 5:
        content[at:to] = bytes(to - at)
    elif way == 6:
        content[at:] = other[min(at, len(other)):]
    else:
        content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x2C, 0x5B, 0x7B, 0x30))
    return bytes(content)


def nested(rng, value, depth=0):
    """The value with one place in it made odd, lost, doubled or renamed."""
    if isinstance(value, dict) and value and (not depth or rng.random() < 0.9) and depth < 6:
        key, value = rng.choice(list(value)), dict(value)
        way = rng.randrange(8)
        if way == 0:
            del value[key]
        elif way == 1:
            value[rng.choice(("more", key + "x", key.upper(), "class"))] = value.pop(key) if rng.random() < 0.5 else 1
        else:
            value[key] = nested(rng, value[key], depth + 1)
        return value
    if isinstance(value, list | tuple) and value and rng.random() < 0.8:
        at, value = rng.randrange(len(value)), list(value)
        value[at:at + 1] = rng.choice(([nested(rng, value[at], depth + 1)], [], [value[at]] * 2))
        return value
    if rng.random() < 0.03:
        for _ in range(rng.choice((50, 150))):  # deeper ones are written as a text
            value = rng.choice(([value], {"class": "PGD", "parameters": {"eps": value}}))
        return value
    return rng.choice(ODD)


def twisted(rng, array):
    """Another array, which may be wrong in shape, dtype or numbers."""
    words = array.dtype.kind == "U"
    return rng.choice((
        lambda: array[:len(array) // 2] if array.ndim else array[None], lambda: array[..., None],
        lambda: array.astype("U3" if words else rng.choice(("f2", "f4", "f8", "i8", "U3", "?", "c8"))),
        lambda: np.full_like(array, rng.choice((0, 1, 2, 100)), dtype=int if words else array.dtype),
        lambda: -array if array.dtype.kind in "if" else array.ravel(), lambda: np.zeros(rng.choice((0, 1, 2000))),
        lambda: array * np.nan if array.dtype.kind == "f" else array.T, lambda: np.array(["a" * rng.randrange(99)]),
        lambda: array + 100 if array.dtype.kind in "if" else array[None]))()


def crafted_archive(rng, kind):
    """Write one that was made to mislead: of a right digest, or of any entries."""
    kind.path.write_bytes(kind.honest)
    if rng.random() < 0.6:
        header, arrays = read(kind.path, "a file", kind.key, oldest=1)
        if rng.random() < 0.5:
            header = nested(rng, header)
        else:
            name = rng.choice(list(arrays))
            way = rng.randrange(6)
            if way == 0:
                del arrays[name]
            elif way == 1:
                arrays[rng.choice(("more", name + "x", f"more/{name}", ""))] = arrays[name]
            else:
                arrays[name] = twisted(rng, arrays[name])
        write(kind.path, header, arrays, compress=rng.random() < 0.3)
        return
    with zipfile.ZipFile(kind.path) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(entries))
    name, content = entries[at]
    way = rng.randrange(8)
    if way == 0:
        entries.append((name, entries[rng.randrange(len(entries))][1]))
    elif way == 1:
        del entries[at]
    elif way == 2:
        name = rng.choice((name + "x", "../" + name, name.upper(), ".npy", HEADER, name.removesuffix(".npy")))
        entries[at] = name, content
    elif way == 3:
        header = f"{{'descr': {rng.choice(HEADERS)}, 'fortran_order': False, 'shape': {rng.choice(SHAPES)}, }}"
        text = header.encode().ljust(rng.choice((117, 245)))[:9000] + b"\n"
        start = b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little")
        entries[at] = name, start + text + rng.randbytes(rng.randrange(99))
    elif way == 4:
        entries[at] = name, content[:rng.randrange(len(content))] + bytes(rng.choice((0, 1, 1 << 22)))
    elif way == 5:
        text = rng.choice(("[" * 50_000, '{"a":' * 30_000, '{"format": 2, "format": 2}', "null", '"' + "a" * 99_999))
        np.save(file := io.BytesIO(), np.array(text))
        entries = [(each, file.getvalue() if each == f"{HEADER}.npy" else old) for each, old in entries]
    elif way == 6:
        other = rng.randrange(len(entries))
        entries[at], entries[other] = (name, entries[other][1]), (entries[other][0], content)
    else:
        entries.insert(at, (f"zeros{rng.choice(('', '.npy'))}", bytes(1 << 23)))
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
                         zipfile.ZIP_LZMA)) if kind.path.stat().st_size < 1 << 21 else zipfile.ZIP_DEFLATED
    with warnings.catch_warnings(), zipfile.ZipFile(kind.path, "w", method) as archive:
        warnings.simplefilter("ignore")
        for each, old in entries:
            archive.writestr(each, old)


def crafted_text(rng, kind):
    text = kind.honest.decode()
    if isinstance(kind, Card) and rng.random() < 0.6:
        kind.path.write_text(json.dumps(nested(rng, json.loads(text))), encoding="utf-8")
        return
    lines = text.splitlines()
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    way = rng.randrange(6)
    if way == 0:
        del lines[at]
    elif way == 1:
        lines.insert(to, lines[at])
    elif way == 2:
        lines[at], lines[to] = lines[to], lines[at]
    elif way == 3:
        name, sign, _ = lines[at].partition(rng.choice(("=", ":")))
        lines[at] = name + sign + rng.choice(("[]", "{}", "true", "-1", "1e999", "nan", '"x"', "", "[[1]]", "9" * 5000))
    elif way == 4:
        lines[at] = rng.choice(("[" * 9999, "a = " + "[" * 9999, "a." * 9999 + "b = 1", "[" + "a." * 3000 + "a]"))
    else:
        old, new = rng.choice("=:\"',.0123456789{}[]"), rng.choice(("", "=", '"', "9", "\0", "\ud7ff"))
        lines[at] = lines[at].replace(old, new)
    kind.path.write_text("\n".join(lines), encoding="utf-8")


def crafted_gzip(rng, kind):
    content = bytearray(kind.content)
    way = rng.randrange(5)
    if way == 0:
        content = content + bytes(rng.choice((1, 100, 1 << 23)))
    elif way == 1:
        content[4:16] = rng.choice((b"\xff" * 12, b"\0" * 12, np.array((1 << 13, 1 << 5, 1 << 5), ">u4").tobytes()))
        content = content + bytes(rng.choice((0, 1 << 23)))
    elif way == 2:
        content[rng.randrange(20)] = rng.randrange(256)
    elif way == 3:
        content = content[:rng.randrange(len(content))]
    packed = gzip.compress(bytes(content), rng.choice((0, 1, 9)), mtime=0)
    kind.path.write_bytes(packed + (gzip.compress(bytes(rng.choice((0, 1, 1 << 23)))) if way == 4 else b""))


def fuzz(count, seed=0, say=lambda text: None):
    """(how often each came out, the failures in words, the longest load in seconds, the largest share of memory)."""
    rng, outcomes, failures, longest, largest = random.Random(seed), Counter(), [], 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy, of odd numbers in crafted files
        kinds = []
        for number, kind in enumerate(KINDS):
            (own := Path(folder) / str(number)).mkdir()
            kinds.append(kind(own))
        for kind in kinds:
            kind.size = max(measured(kind)[2] for _ in range(2))
        for number in range(count):
            kind = kinds[number % len(kinds)]
            crafting = crafted_gzip if isinstance(kind, Data) else crafted_text if kind.told else (
                crafted_archive if kind.key else None)
            if crafting and rng.random() < 0.5:
                crafting(rng, kind)
                crafted = True
            else:
                kind.path.write_bytes(damaged(rng, kind.honest, rng.choice(kinds).honest))
                crafted = False
            outcome, seconds, peak = measured(kind, crafted)
            size = max(kind.size, kind.path.stat().st_size, outcome == "told" and unpacked(kind.path),
                       kind.claims())
            kind_name, made = type(kind).__name__, "crafted" if crafted else "damaged"
            share = (peak - SLACK) / size
            longest, largest = max(longest, seconds), max(largest, share)
            if seconds > SECONDS or share > 2 or outcome.startswith("!"):
                failures.append(f"{number} {kind_name} {made}: {outcome}, {seconds:.2f} s, {peak:,} bytes, "
                                f"honestly {size:,}")
                say(failures[-1])
            outcomes[kind_name, made, outcome.partition(":")[0]] += 1
            kind.path.write_bytes(kind.honest)
    return outcomes, failures, longest, largest


def unpacked(path):
    """The bytes of a file that was loaded, unpacked: those that it openly holds."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist())
    content = path.read_bytes()
    return len(gzip.decompress(content)) if content[:2] == b"\x1f\x8b" else len(content)


def measured(kind, crafted=False):
    """(outcome, seconds, bytes at most) of one load; an outcome that is a failure begins with "!"."""
    kind.fresh()
    tracemalloc.start()
    began = time.process_time()  # of this process alone, so that a busy machine makes no failure
    try:
        value = kind.load()
        outcome = "same" if value == kind.value else "told" if crafted or (kind.told and value == kind.told()) else (
            "!changed in silence")
    except kind.errors:
        outcome = "refused" if kind.untouched() else "!half loaded"
    except Exception as error:
        outcome = f"!{type(error).__name__}: {error}"
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return outcome, seconds, peak


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found, failed, slowest, most = fuzz(options.count, options.seed, say=print)
    for (kind_name, made, what), times in sorted(found.items()):
        print(f"{kind_name:11}{made:9}{what:12}{times:7}")
    print(f"{options.count} files, {len(failed)} failures; the longest load took {slowest:.2f} s, the largest "
          f"{most:.2f} times the honest memory, beyond {SLACK:,} bytes")
