"""Processes that share the work of one program: each runs all of it, and computes some of the parts.

    from mpi4py import MPI
    from tinyadv.ranks import sharing

    with sharing(MPI.COMM_WORLD):        # in each of the processes that mpiexec has started
        training.fit(model, train, epochs=3, optimizer=optimizer, seed=0)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class RankFailed(RuntimeError):
    """Another of the processes that share the work has failed; it says why."""


class Ranks:
    """The processes that share the work: `size` of them, of which this is number `number`, counted from 0."""

    def __init__(self, comm: Any = None):
        self._comm = comm
        self.number: int = 0 if comm is None else comm.Get_rank()
        self.size: int = 1 if comm is None else comm.Get_size()

    def exchange(self, values: list | None) -> list:
        """The values of all ranks, one list after the other; RankFailed on each if one has failed and brings None.

        Every rank must call it, and the same number of times.
        """
        brought: list[Any] = [values] if self._comm is None else self._comm.allgather(values)
        if failed := [str(number) for number, each in enumerate(brought) if each is None]:
            raise RankFailed(f"rank {', '.join(failed)} of {self.size} has failed, and says why")
        return [value for each in brought for value in each]

    @contextmanager
    def telling(self) -> Iterator[None]:
        """If the block fails, the other ranks, which wait for an exchange, fail with RankFailed."""
        try:
            yield
        except Exception as error:
            if self.size > 1 and not (isinstance(error, RankFailed) or vars(error).get("told")):
                vars(error)["told"] = True  # once only: they no longer wait
                with suppress(RankFailed):
                    self.exchange(None)
            raise


_ranks: ContextVar[Ranks] = ContextVar("ranks", default=Ranks())  # noqa: B039  it never changes


def ranks() -> Ranks:
    """Those that share the work here: one, outside `sharing`."""
    return _ranks.get()


def told(function: Callable[P, T]) -> Callable[P, T]:
    """The function; if it fails on one rank, the others are told, which fail with RankFailed and do not wait."""

    @functools.wraps(function)
    def tells(*args: P.args, **kwargs: P.kwargs) -> T:
        with ranks().telling():
            return function(*args, **kwargs)

    return tells


@contextmanager
def sharing(comm: Any) -> Iterator[None]:
    """Within the block, training, attacks and evaluations are shared with the other processes of the communicator.

    comm: a communicator of mpi4py, or any object with `Get_rank()`, `Get_size()` and `allgather(value)`, which one
    thread at a time calls. None: within the block, this process does everything by itself.
    Each process must run the same program, with the same models, data and seeds. Each ends with the same bits as a
    single process. But a callback sees the examples of its own rank alone: look at the result. The parts of a batch in
    training are shared if their number can be divided by that of the ranks; else every rank computes them all.
    """
    token = _ranks.set(Ranks(comm))
    try:
        yield
    finally:
        _ranks.reset(token)
