"""One random stream per example, so that a result depends on the seed and the example alone.

Example i of a call draws from the counter-based generator Philox (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3") with the key (seed, i). Batch size, order and number of threads do not change what
an example draws. A layer that draws at inference takes the streams of the examples in hand, `in_hand()`, which depend
on the number of the forward pass, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from tinyadv.parallel import Setting


def check_seed(seed: int) -> int:
    """The seed as an int; ValueError unless 0 <= seed < 2**64."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be an integer in [0, 2**64), got {seed!r}")
    return int(seed)


class Streams:
    """The random streams of some examples. A draw is a NumPy array with one row per example; an example that is there
    twice has equal rows.

    `streams[index]` are the streams of some of the examples. They are shared, not copied: a draw from them
    also advances the original ones.
    """

    def __init__(self, seed: int, examples: Iterable[int]):
        """seed: an integer in [0, 2**64); examples: the index of every example, an integer >= 0."""
        self.seed = check_seed(seed)
        indices = np.asarray(examples if isinstance(examples, np.ndarray) else list(examples))
        whole = indices.ndim == 1 and (indices.dtype.kind in "iu" or not indices.size)
        if not whole or (indices.astype(np.int64, copy=False) < 0).any():
            raise ValueError(f"examples must be the indices of examples, integers in [0, 2**63), got {indices!r}")
        self.examples = indices.astype(np.int64, copy=False)
        self._passes = np.zeros(len(self.examples), np.int64)
        self._streams: dict[tuple[int, int], np.random.Generator] = {}  # made when first drawn from

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: slice | np.ndarray) -> Streams:
        part = Streams(self.seed, self.examples[index])
        part._passes, part._streams = self._passes[index], self._streams
        return part

    def apart(self, index: slice | np.ndarray) -> Streams:
        """`self[index]`, not shared: as another process would have them."""
        return copy.deepcopy(self[index])

    def __getstate__(self) -> dict[str, Any]:
        """Another process needs the generators of its own examples only."""
        own = set(zip(self.examples.tolist(), self._passes.tolist(), strict=True))
        return vars(self) | {"_streams": {key: value for key, value in self._streams.items() if key in own}}

    def spawn(self, number: int) -> Streams:
        """New streams for the same examples, which depend only on the seed and the number."""
        seed = np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)
        return Streams(int(seed[0]), self.examples)

    def of_pass(self, numbers: int | np.ndarray) -> Streams:
        """The streams of one forward pass, its number >= 0, or one for each example (N,): apart from all others."""
        drawn = Streams(self.seed, self.examples)
        drawn._passes = drawn._passes + 1 + numbers  # 0 is what the attack itself draws from
        return drawn

    def _stream(self, example: int, number: int) -> np.random.Generator:
        """The generator; the number of the pass is the highest word of its counter, which no draw reaches."""
        if (example, number) not in self._streams:
            key = np.array([self.seed, example], dtype=np.uint64)
            generator = np.random.Philox(counter=np.array([0, 0, 0, number], np.uint64), key=key)
            self._streams[example, number] = np.random.Generator(generator)
        return self._streams[example, number]

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """float64 (N, *shape), uniform in [low, high)."""
        return self._draw(shape, lambda stream: stream.uniform(low, high, shape))

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """float64 (N, *shape), standard normal."""
        return self._draw(shape, lambda stream: stream.standard_normal(shape))

    def _draw(self, shape: tuple[int, ...], draw: Callable[[np.random.Generator], Any]) -> np.ndarray:
        rows, first = np.empty((len(self), *shape)), dict[tuple[int, int], int]()
        for row, stream in enumerate(zip(self.examples.tolist(), self._passes.tolist(), strict=True)):
            drawn = first.setdefault(stream, row)
            rows[row] = draw(self._stream(*stream)) if drawn == row else rows[drawn]
        return rows

    def __repr__(self) -> str:
        return f"Streams(seed={self.seed}, {len(self)} examples)"


_in_hand: Setting[Streams | None] = Setting("in hand", None)


def drawing_from(streams: Streams) -> AbstractContextManager[None]:
    """Within the block, random layers draw from these streams, which are those of one forward pass."""
    return _in_hand.within(streams)


def in_hand() -> Streams | None:
    """The streams of this forward pass of an attack or an evaluation, with one for each example; None outside."""
    return _in_hand.get()
