"""Threads: BLAS limited to one of its own, work spread over a pool, and parts of one batch that meet.

A layer that needs the whole batch, such as batch normalisation, calls `all_reduce`; whoever computes a batch in parts
runs them with `together`:

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
    """Which part of which batch this thread computes; meeting: the barrier of its parts, and what each brought."""

    index = 0
    meeting: tuple[threading.Barrier, list] | None = None


_place = _Place()


def together(pool: ThreadPoolExecutor, work: Callable[[Part], T], parts: Sequence[Part]) -> list[T]:
    """[work(part) for all parts of a batch], at the same time.

    The pool needs a free thread for each: with fewer, those that run would wait for the others for ever. Where some
    parts raise, the first exception is raised here, and the others are not left waiting.
    """
    meeting = threading.Barrier(len(parts)), [None] * len(parts)

    def attend(index: int) -> T:
        _place.index, _place.meeting = index, meeting
        try:
            result = work(parts[index])
            all_reduce()  # a part that met less often than others ends here, in an error, not in waiting
            return result
        except BaseException:
            meeting[0].abort()
            raise
        finally:
            _place.index, _place.meeting = 0, None

    try:
        futures = submit(pool, attend, range(len(parts)))
        errors = [error for error in [future.exception() for future in futures] if error]
    except BaseException:  # no thread to be had, or Ctrl-C: the parts that have started must not wait for the others
        meeting[0].abort()
        raise
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in futures]


def part_index() -> int:
    """Which part of its batch this thread computes: 0 where the batch is whole."""
    return _place.index


def all_reduce(*values: Any) -> tuple[Any, ...]:
    """Each value, an array or a number, summed over the parts of the batch in their order: the same bits in every part.

    Every part must call it equally often; it returns when all have. A whole batch has one part.
    """
    if _place.meeting is None:
        return values
    barrier, brought = _place.meeting
    brought[_place.index] = values
    barrier.wait()
    if len({len(each) for each in brought}) != 1:
        raise RuntimeError("the parts of a batch must call all_reduce equally often, and with equally many values")
    totals = tuple(functools.reduce(operator.add, shares) for shares in zip(*brought, strict=True))
    barrier.wait()  # nobody brings the next values before all have read these
    return totals


class _SingleThreadedBlas:
    """The setting is the whole process's: the thread that makes it undoes it, and others leave it alone meanwhile."""

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


# BLAS on one thread within the block: several that take turns with ours would mostly wait for each other.
single_threaded_blas = _SingleThreadedBlas()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
