"""One random stream per example, so that a result depends on the seed and the example alone.

Example i of a call draws from the counter-based generator Philox (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3") with the key (seed, i). Batch size, order and number of threads do not change what
an example draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def check_seed(seed: int) -> int:
    """The seed as an int; ValueError unless 0 <= seed < 2**64."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be an integer in [0, 2**64), got {seed!r}")
    return int(seed)


class Streams:
    """The random streams of some examples. A draw is a NumPy array with one row per example.

    `streams[index]` are the streams of some of the examples. They are shared, not copied: a draw from them
    also advances the original ones.
    """

    def __init__(self, seed: int, examples: Iterable[int]):
        """seed: an integer in [0, 2**64); examples: the index of every example."""
        self.seed = check_seed(seed)
        self.examples = np.asarray(list(examples), dtype=np.int64)
        self._streams: dict[int, np.random.Generator] = {}  # made when first drawn from

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: slice | np.ndarray) -> Streams:
        part = Streams(self.seed, self.examples[index])
        part._streams = self._streams
        return part

    def spawn(self, number: int) -> Streams:
        """New streams for the same examples, which depend only on the seed and the number."""
        seed = np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)
        return Streams(int(seed[0]), self.examples)

    def _stream(self, example: int) -> np.random.Generator:
        if example not in self._streams:
            key = np.array([self.seed, example], dtype=np.uint64)
            self._streams[example] = np.random.Generator(np.random.Philox(key=key))
        return self._streams[example]

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """float64 (N, *shape), uniform in [low, high)."""
        return self._draw(shape, lambda stream: stream.uniform(low, high, shape))

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """float64 (N, *shape), standard normal."""
        return self._draw(shape, lambda stream: stream.standard_normal(shape))

    def _draw(self, shape: tuple[int, ...], draw: Callable[[np.random.Generator], Any]) -> np.ndarray:
        rows = np.empty((len(self), *shape))
        for row, example in enumerate(self.examples.tolist()):
            rows[row] = draw(self._stream(example))
        return rows

    def __repr__(self) -> str:
        return f"Streams(seed={self.seed}, {len(self)} examples)"
