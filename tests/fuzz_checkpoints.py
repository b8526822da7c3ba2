"""Files of PyTorch damaged and crafted at random: each must be refused with its one error, or give the very arrays
that the pickle and JSON modules of Python find in it, in bounded time and memory. Nothing may be run. By hand:

    python tests/fuzz_checkpoints.py --count 2000 --seed 0
"""

import argparse
import json
import random
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
from fuzz_files import damaged, nested
from pytorch_files import BOMB, Code, legacy_file, reference, safetensors_file, zip_file, zipped

from tinyadv import nn
from tinyadv.nn.archive import StateError

SECONDS, SLACK = 2.0, 8_500_000  # bytes: SPARE of pickled.py, and what the parsers take for themselves
ran = []


def canary(*arguments):
    """What a file must never be able to call."""
    ran.append(arguments)


def state(rng):
    whole = np.random.default_rng(rng.randrange(99)).normal(size=(40, 30)).astype(np.float32)
    return {"conv.weight": whole[:20].reshape(10, 20, 3)[:, 3:, 1], "tied": whole, "transposed": whole.T,
            "bn.running_var": np.ones(7), "bn.num_batches_tracked": np.array(3), "mask": np.array([True, False]),
            "half": whole[0].astype(np.float16), "none": np.zeros((0, 3), np.int32)}


HOSTILE = [
    Code(b"c__main__\ncanary\n(tR"), Code(b"cfuzz_checkpoints\ncanary\n(K\x01tR"), Code(b"cos\nsystem\n(X\0\0\0\0tR"),
    Code(b"c__builtin__\neval\n(X\3\0\0\01+1tR"), Code(b"(X\3\0\0\0abcios\nsystem\n"), Code(b"r\xff\xff\xff\xff"),
    Code(b"q\1" * 3000), Code(b"(" * 5000), Code(b"]" * 9000), Code(b"]q\1" + b"(h\1h\1l" * 999),
    Code(b"\x8b\xff\xff\xff\x7f"), Code(b"X\xff\xff\xff\xff"), Code(b"I" + b"9" * 9000 + b"\n"),
    Code(b"\x8e" + b"\xff" * 8), Code(b"2" * 5000), Code(b"."), Code(b"\x85" * 4000), {"a": {"a": 1}}, [[[]]], -1,
    1 << 70, 0.5, None, True, "", "x" * 9999, (1,) * 70, Code(BOMB), {"a": Code(BOMB)}, Code(b"}" + BOMB + b"K\1s"),
    *(Code(b"(X\7\0\0\0storagectorch\nFloatStorage\n" + key + b"X\3\0\0\0cpu" + size + b"tQ")
      for key, size in ((BOMB, b"K\4"), (b"X\1\0\0\x000", BOMB))),
    Code(b"}(" + b"".join(b"\x8a\x0a" + (k * sys.hash_info.modulus).to_bytes(10, "little") + b"N"
                         for k in range(1, 12_000)) + b"u"),
    Code(b"ccollections\nOrderedDict\nq\0(K\1K\1lq\1(" + b"h\1" * 9000 + b"l\x85q\2(" + b"h\0h\2R" * 9000 + b"t"),
]


def crafted(rng, content):
    """A file whose outer form is right, and which says something else, or something hostile."""
    own = state(rng)
    way = rng.randrange(4)
    if way == 0:  # an object among the tensors, or in place of one
        own[rng.choice([*own, "more", "net", "state_dict"])] = rng.choice(HOSTILE)
    elif way == 1:
        own = rng.choice([{"net": own, "epoch": rng.choice(HOSTILE)}, {f"module.{name}": own[name] for name in own},
                          rng.choice(HOSTILE), [own]])
    if content[:2] == b"PK":
        if way < 2:
            return zip_file(own, method=rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
        entries = [(info, zipfile.ZipFile(BytesIO(content)).read(info)) for info in zipfile.ZipFile(
            BytesIO(content)).namelist()]
        at = 0 if rng.random() < 0.7 else rng.randrange(len(entries))
        if way == 2:  # damage that no checksum shows
            entries[at] = entries[at][0], damaged(rng, entries[at][1] or b"\0", entries[0][1])
        else:
            name = rng.choice((entries[at][0] + "x", "file/data/0", "data.pkl", "other/data.pkl"))
            entries[at] = name, entries[at][1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return zipped(entries)
    if content[:2] == b"\x80\x02":
        if way < 2:
            return legacy_file(own, rng.choice((None, None, [Code(BOMB)])))
        start = content.index(b"ccollections")
        return content[:start] + damaged(rng, content[start:start + 2500], content[:300]) + content[start + 2500:]
    length = int.from_bytes(content[:8], "little")
    header = nested(rng, json.loads(content[8:8 + length]))
    text = json.dumps(header).encode() if way < 3 else damaged(rng, content[8:8 + length], content)
    return len(text).to_bytes(8, "little") + text + content[8 + length:]


def fuzz(count, seed=0, say=lambda text: None):
    """(how often each came out, the failures in words)."""
    rng, outcomes, failures = random.Random(seed), Counter(), []
    honest = [make(state(rng)) for make in (zip_file, legacy_file, safetensors_file)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for number in range(count):
            kind = ("zip", "legacy", "safetensors")[number % 3]
            original = honest[number % 3]
            made = rng.choice((crafted, damaged))
            content = made(rng, original) if made is crafted else damaged(rng, original, rng.choice(honest))
            path.write_bytes(content)
            outcome, seconds, peak = outcome_of(path, content)
            if outcome[0] == "!" or seconds > SECONDS or peak > 2 * len(content) + SLACK or ran:
                failures.append(f"{number} {kind} {made.__name__}: {outcome}, {seconds:.2f} s, {peak:,} bytes of a "
                                f"file of {len(content):,}, ran: {ran}")
                say(failures[-1])
            outcomes[kind, made.__name__, outcome.partition(":")[0]] += 1
    return outcomes, failures


def outcome_of(path, content):
    tracemalloc.start()
    began = time.process_time()  # of this process alone, so that a busy machine makes no failure
    try:
        found = nn.load_pytorch(path)
        outcome = ""
    except StateError:
        outcome = "refused"
    except BaseException as error:
        outcome = f"!{type(error).__name__}: {error}"
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if not outcome:
        try:
            outcome = "loaded" if same(found, reference(content)) else "!loaded otherwise"
        except Exception as error:
            outcome = f"!loaded, while the reference has {type(error).__name__}: {error}"
    return outcome, seconds, peak


def same(ours, theirs):
    prefix = "module." if all(name.startswith("module.") for name in theirs) else ""
    theirs = {name.removeprefix(prefix): array for name, array in theirs.items()}
    added = {name for name in ours if name.endswith("num_batches_tracked")} - theirs.keys()
    return ours.keys() - added == theirs.keys() and all(
        (ours[name].dtype, ours[name].shape, ours[name].tobytes()) == (each.dtype, each.shape, each.tobytes())
        for name, each in theirs.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found, failed = fuzz(options.count, options.seed, say=print)
    for (kind, made, what), times in sorted(found.items()):
        print(f"{kind:12}{made:9}{what:20}{times:6}")
    print(f"{options.count} files, {len(failed)} failures")
