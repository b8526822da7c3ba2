"""Threads: BLAS limited to one thread, work spread over a pool, and sums over the parts of one batch.

Training cuts a batch into parts and runs them with `together`. A layer that needs the whole batch, such as batch
normalisation, calls `all_reduce`:

    def work(part):
        return all_reduce(part)[0]

    together(pool, work, [1, 2, 3])      # [6, 6, 6]: each part sees the sum over all
"""

from __future__ import annotations

import functools
import operator
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

T = TypeVar("T")
Part = TypeVar("Part")


def submit(pool: ThreadPoolExecutor, work: Callable[[Part], T], parts: Sequence[Part]) -> list[Future[T]]:
    """Start work(part) for all parts, each in a copy of the caller's context, np.errstate included."""
    return [pool.submit(copy_context().run, work, part) for part in parts]


class _Place(threading.local):
    """Which part of a batch this thread computes; meeting: the barrier of all parts, and the values that each sums."""

    index = 0
    meeting: tuple[threading.Barrier, list] | None = None


_place = _Place()


def together(pool: ThreadPoolExecutor, work: Callable[[Part], T], parts: Sequence[Part]) -> list[T]:
    """[work(part) for all parts of a batch], all parts at the same time.

    The pool needs a free thread for each part: with fewer, the running parts would wait forever for the others. If a
    part raises, its exception is raised here, the first one if there are several, and no part is left waiting.
    """
    meeting = threading.Barrier(len(parts)), [None] * len(parts)

    def attend(index: int) -> T:
        _place.index, _place.meeting = index, meeting
        try:
            result = work(parts[index])
            all_reduce()  # so that a part with fewer calls than the others gives an error, and no endless wait
            return result
        except BaseException:
            meeting[0].abort()
            raise
        finally:
            _place.index, _place.meeting = 0, None

    try:
        futures = submit(pool, attend, range(len(parts)))
        errors = [error for error in [future.exception() for future in futures] if error]
    except BaseException:  # Ctrl-C, or a thread that did not start: the parts that run must not wait for the others
        meeting[0].abort()
        raise
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in futures]


def part_index() -> int:
    """The index of the part of a batch that this thread computes: 0 if the batch is not cut into parts."""
    return _place.index


def all_reduce(*values: Any) -> tuple[Any, ...]:
    """Sum each value, an array or a number, over the parts of the batch, in order: every part gets the same bits.

    Every part must call it the same number of times; a call returns when all parts have made it. A batch that is not
    cut into parts gets its values back.
    """
    if _place.meeting is None:
        return values
    barrier, brought = _place.meeting
    brought[_place.index] = values
    barrier.wait()
    if len({len(each) for each in brought}) != 1:
        raise RuntimeError("the parts of a batch must call all_reduce the same number of times, with as many values")
    totals = tuple(functools.reduce(operator.add, shares) for shares in zip(*brought, strict=True))
    barrier.wait()  # no part may bring its next values before all have read these
    return totals


class _SingleThreadedBlas:
    """Limits BLAS to one thread. The limit holds for the whole process, so the thread that sets it also lifts it."""

    def __init__(self) -> None:
        self._lock, self._owner, self._depth = threading.Lock(), 0, 0

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._owner, self._limit = threading.get_ident(), _blas().limit(limits=1, user_api="blas")
            if self._owner == threading.get_ident():
                self._depth += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._depth and self._owner == threading.get_ident():
                self._depth -= 1
                if self._depth == 0:
                    self._limit.restore_original_limits()


# Within the block BLAS uses one thread: threads of its own beside ours would mostly wait for each other.
single_threaded_blas = _SingleThreadedBlas()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
