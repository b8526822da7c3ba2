"""Shards in other hands: those of threads, or of any concurrent.futures.Executor, on this machine or on many.

A task for an executor holds the images of one shard, what to do with them, and the digest of the model. The model
itself goes along with as many tasks as there are workers. A worker keeps it, and asks for one that it lacks.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import pickle
import shutil
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from tinyadv.parallel import Setting

KEPT = 2  # models in each worker, such as one with a defence and one without


class Stopped(KeyboardInterrupt):
    """A model was not called, because an event of `stopping` is set."""


_stops: Setting[tuple[Any, ...]] = Setting("stops", ())  # each is looked at before every forward pass


def stopping(*events: threading.Event) -> AbstractContextManager[None]:
    """Within the block, attacks and evaluations raise Stopped before the next forward pass if an event is set."""
    return _stops.within(events)


def stopping_also(event: Any) -> AbstractContextManager[None]:
    """As `stopping`, with the events of the block around."""
    return _stops.within((*_stops.get(), event))


def stop_if_told() -> None:
    """Raise Stopped if an event is set."""
    if any(event.is_set() for event in _stops.get()):
        raise Stopped("stopped before a forward pass")


def check_executor(executor: Any) -> None:
    """TypeError unless it is an executor, or None."""
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(f"executor must be a concurrent.futures.Executor, got {type(executor).__name__}: for processes "
                        "take ProcessPoolExecutor, for a Client of Dask client.get_executor(), for MPI "
                        "MPIPoolExecutor")


def width(workers: int | None, executor: Executor | None) -> int | None:
    """How many shards run at a time: `workers`, or else what the executor says; None if it does not say."""
    return workers or getattr(executor, "_max_workers", None)


def gather(start: Callable[[slice], Future], parts: Iterable[slice], window: int,
           take: Callable[[slice, Any], bool | None]) -> None:
    """Start all parts, `window` at a time, and call take(part, result) as they finish: True starts the part again.

    Raises the first exception; parts that have not begun never do. One without a note was not raised by a part.
    """
    waiting, running = deque(parts), dict[Future, slice]()
    try:
        while waiting or running:
            try:
                while waiting and len(running) < window:
                    running[start(waiting[0])] = waiting[0]
                    waiting.popleft()
                done = {future: future.result() for future in wait(running, return_when=FIRST_COMPLETED).done}
            except Exception as error:
                if not getattr(error, "__notes__", None):
                    raise Lost(_ranges(running.values())) from error
                raise
            for future, result in done.items():
                if take(running[future], result):
                    waiting.append(running[future])
                del running[future]
    finally:
        for future in running:
            future.cancel()


class Lost(Exception):
    """An executor failed with these ranges of examples in its hands; the cause says how."""


def _ranges(parts: Iterable[slice]) -> str:
    """The parts as x[0:100], where neighbours have become one."""
    joined: list[slice] = []
    for part in sorted(parts, key=lambda part: part.start):
        if joined and joined[-1].stop == part.start:
            joined[-1] = slice(joined[-1].start, part.stop)
        else:
            joined.append(part)
    return ", ".join(f"x[{part.start}:{part.stop}]" for part in joined) or "no examples"


def run_elsewhere(executor: Executor, job: Callable, model: Callable, arguments: Callable[[slice], tuple],
                  parts: list[slice], put: Callable[[slice, Any], None], workers: int | None = None) -> None:
    """Call put(part, job(model, *arguments(part))) for all parts; the executor's workers do the job.

    Raises what a job raises, which must have a note, or a RuntimeError with its text if pickling changes it. Raises
    BrokenExecutor, with the range of the examples, if the executor fails, as when a worker dies; TypeError if it is the
    model that cannot be sent. If it ends so or by Ctrl-C, jobs in processes of this machine end before their next
    forward pass.
    """
    try:
        digest, unsent = hashlib.sha256(pickle.dumps(model)).hexdigest(), None
    except Exception as error:  # a class of the user's may raise anything; the executor may know another way
        digest, unsent = uuid.uuid4().hex, error
    count = width(workers, executor) or len(parts)
    sent = _sent.setdefault(executor, deque(maxlen=KEPT))
    copies = 0 if digest in sent else count  # of the model, that the next jobs take along
    done = 0
    if digest not in sent:
        sent.append(digest)

    def start(part: slice) -> Future:
        nonlocal copies
        stop_if_told()
        future = executor.submit(_attend, run, digest, model if copies else None, job, arguments(part))
        copies = max(copies - 1, 0)
        return future

    def take(part: slice, answer: tuple | None) -> bool:
        nonlocal copies, done
        stop_if_told()
        if answer is None:
            copies += 1
            return True
        put(part, *answer)
        os.utime(run.file)  # lest it be taken for a file that nobody needs any more
        done += part.stop - part.start
        return False

    with tempfile.NamedTemporaryFile(dir=_folder()) as file:
        run = _Run(file.name)
        _lent[run] = model
        try:
            gather(start, parts, 2 * count, take)  # twice as many as can run, so that no worker waits for the next one
        except Lost as lost:
            if unsent is not None:
                raise TypeError(
                    f"the model, {getattr(model, '__qualname__', type(model).__qualname__)}, cannot be sent to another "
                    f"process: {unsent}. Define it, and what it is made of, at the top of a module, not as a lambda or "
                    "inside a function; or use Dask, which sends those too, by cloudpickle") from lost.__cause__
            raise BrokenExecutor(
                f"the executor failed with {lost} in its hands, after {done} of {parts[-1].stop} examples: "
                f"{str(lost.__cause__).rstrip('.')}. If a worker died, its pool can do no more: make a new one. A run "
                "of AutoAttack or MultiAttack with state= then goes on where it was") from lost.__cause__
        finally:
            _lent.pop(run, None)


def _attend(run: _Run, digest: str, model: Callable | None, job: Callable, arguments: tuple) -> tuple | None:
    """In a worker: (the result of the job,), or None where the model is still to be sent."""
    if run in _lent:  # a thread of the process that began it
        model = _lent[run]
    elif model is None:
        model = _received.get(digest)
    else:
        _received[digest] = model
        for oldest in list(_received)[:-KEPT]:
            _received.pop(oldest, None)
    if model is None:
        return None
    try:
        with stopping_also(run):
            return (job(model, *arguments),)
    except Stopped:  # nobody waits for a result; some executors would end the worker
        return (None,)
    except Exception as error:
        if run in _lent or _travels(error):
            raise
        told = RuntimeError(f"{type(error).__name__}: {error}")
        told.__notes__ = getattr(error, "__notes__", [])
        raise told from error


def _travels(error: Exception) -> bool:
    """Whether an error is the same, with its notes, once it has been pickled: one that fails would end the pool."""
    try:
        found = pickle.loads(pickle.dumps(error))
    except Exception:  # an error's class may raise anything, too
        return False
    return type(found) is type(error) and getattr(found, "__notes__", []) == getattr(error, "__notes__", [])


@dataclass(frozen=True)
class _Run:
    """A run, as an event that is set once it has ended: its file is no longer in its folder."""

    file: str

    def is_set(self) -> bool:
        """Whether the run is known to have ended; never on another machine, where there is no such folder."""
        return not os.path.exists(self.file) and os.path.exists(os.path.dirname(self.file))


@cache
def _folder() -> str:
    """The folder for the files of the runs of this process; it lives as long as the process does."""
    folder = tempfile.mkdtemp(prefix="tinyadv-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


_sent: WeakKeyDictionary[Executor, deque[str]] = WeakKeyDictionary()  # the digests of what its workers should have
_received: dict[str, Any] = {}  # the models that this process was sent, by their digests
_lent: dict[_Run, Any] = {}  # those of the runs that were begun in this process
if hasattr(os, "register_at_fork"):  # a process made by fork has begun none
    os.register_at_fork(after_in_child=lambda: _lent.clear())
