"""Threads: settings of each, BLAS limited to one thread, work spread over a pool, sums over the parts of a batch.

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
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from threadpoolctl import ThreadpoolController

from tinyadv.ranks import Ranks, ranks, sharing

T = TypeVar("T")
Part = TypeVar("Part")


class Setting(Generic[T]):
    """A value that holds within a block, in the thread that entered the block and in those that `submit` starts there.

    Wherever a KeyboardInterrupt strikes while a block is entered or left, the value afterwards is the one before.
    """

    def __init__(self, name: str, default: T):
        self._layer: ContextVar[tuple[T, Any]] = ContextVar(name, default=(default, None))  # (value, the layer around)

    def get(self) -> T:
        """The value here and now."""
        return self._layer.get()[0]

    @contextmanager
    def within(self, value: T) -> Iterator[None]:
        """The value in this block."""
        layer = value, self._layer.get()
        try:
            try:
                self._layer.set(layer)
                yield
            finally:
                self._leave(layer)
        finally:
            self._leave(layer)  # again, in case that the first was interrupted

    def _leave(self, layer: tuple[T, Any]) -> None:
        """Go to the layer around this one; do nothing where a block around has been left already."""
        each = self._layer.get()
        while each is not None and each is not layer:
            each = each[1]
        if each is layer:
            self._layer.set(layer[1])


def submit(pool: ThreadPoolExecutor, work: Callable[[Part], T], parts: Sequence[Part]) -> list[Future[T]]:
    """Start work(part) for all parts, each in a copy of the caller's context, np.errstate included."""
    return [pool.submit(copy_context().run, work, part) for part in parts]


class _Meeting:
    """Where the parts of a batch bring their values, and find the totals.

    here: the indices of the parts that this process computes; the others' values come from the other ranks.
    """

    def __init__(self, count: int, here: Sequence[int], others: Ranks | None):
        self.here, self.others = here, others
        self.brought: list[tuple] = [()] * count
        self.totals: tuple = ()
        self.barrier = threading.Barrier(len(here), self._add)

    def _add(self) -> None:
        """What the last part here does that comes to the barrier, before any part may go on."""
        if self.others:
            self.brought = self.others.exchange([self.brought[index] for index in self.here])
        if len({len(each) for each in self.brought}) != 1:
            raise RuntimeError("the parts of a batch must call all_reduce the same number of times, with as many "
                               "values")
        self.totals = tuple(functools.reduce(operator.add, shares) for shares in zip(*self.brought, strict=True))


class _Place(threading.local):
    """Which part of a batch this thread computes, and where it meets the others."""

    index = 0
    meeting: _Meeting | None = None


_place = _Place()


def together(pool: ThreadPoolExecutor, work: Callable[[Part], T], parts: Sequence[Part]) -> list[T]:
    """[work(part) for all parts of a batch], all parts at the same time; other ranks may compute some of them.

    The pool needs a free thread for each part: with fewer, the running parts would wait forever for the others. If a
    part raises, its exception is raised here, the first one if there are several, and no part is left waiting.
    """
    shared, here = ranks(), range(len(parts))
    others = shared if shared.size > 1 and len(parts) % shared.size == 0 else None
    if others:
        share = len(parts) // others.size
        here = range(share * others.number, share * (others.number + 1))
    meeting = _Meeting(len(parts), here, others)

    def attend(index: int) -> T:
        _place.index, _place.meeting = index, meeting
        try:
            with sharing(None):
                result = work(parts[index])
            all_reduce()  # so that a part with fewer calls than the others gives an error, and no endless wait
            return result
        except BaseException:
            meeting.barrier.abort()
            raise
        finally:
            _place.index, _place.meeting = 0, None

    if others is None:
        return _results(pool, attend, meeting)
    with others.telling():
        results = _results(pool, attend, meeting)
    return others.exchange(results)


def _results(pool: ThreadPoolExecutor, attend: Callable[[int], T], meeting: _Meeting) -> list[T]:
    """Those of the parts that this process computes."""
    try:
        futures = submit(pool, attend, meeting.here)
        errors = [error for error in [future.exception() for future in futures] if error]
    except BaseException:  # Ctrl-C, or a thread that did not start: the parts that run must not wait for the others
        meeting.barrier.abort()
        raise
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in futures]


def part_index() -> int:
    """The index of the part of a batch that this thread computes: 0 if the batch is not cut into parts."""
    return _place.index


def first_part() -> bool:
    """Whether this thread computes the first part in this process, which alone may change what the model keeps."""
    return _place.meeting is None or _place.index == _place.meeting.here[0]


def all_reduce(*values: Any) -> tuple[Any, ...]:
    """Sum each value, an array or a number, over the parts of the batch, in order: every part gets the same bits.

    Every part must call it the same number of times; a call returns when all parts have made it. A batch that is not
    cut into parts gets its values back.
    """
    if _place.meeting is None:
        return values
    meeting = _place.meeting
    meeting.brought[_place.index] = values
    meeting.barrier.wait()
    return meeting.totals  # they stay until all parts have read them, and come with new values


class _User:
    """A block of `single_threaded_blas`."""


# No lock: a KeyboardInterrupt at the wrong bytecode would leave it locked. What is done to a set or dict is atomic.
_users: WeakSet[_User] = WeakSet()
_leaving: WeakSet[_User] = WeakSet()  # users that are about to see whether they are the last
_before: dict[str, list[int]] = {}  # "threads": of each library, before the first user came


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """BLAS on one thread within the block: threads of its own beside ours would mostly wait for each other.

    The limit is the whole process's: of the blocks in all threads the first sets it, and the last lifts it.
    """
    user = _User()
    try:
        try:
            _users.add(user)
            while _leaving:  # they may have seen no user, and lift the limit first
                time.sleep(0)
            _before.setdefault("threads", [library.num_threads for library in _blas_libraries()])
            _limit_blas([1] * len(_blas_libraries()))
            yield
        finally:
            _leave_blas(user)
    finally:
        _leave_blas(user)  # again, in case that the first was interrupted


def _leave_blas(user: _User) -> None:
    _leaving.add(user)
    _users.discard(user)
    if not _users and (threads := _before.get("threads")):
        _limit_blas(threads)
        _before.pop("threads", None)
    _leaving.discard(user)


def _limit_blas(threads: list[int]) -> None:
    for library, number in zip(_blas_libraries(), threads, strict=True):
        library.set_num_threads(number)
        getattr(library, "clear_controlling_thread", int)()  # else threadpoolctl 3.8 lets no other thread set it


@cache
def _blas_libraries() -> list[Any]:
    return ThreadpoolController().select(user_api="blas").lib_controllers
