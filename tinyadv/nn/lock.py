"""A lock on a file, so that no two runs write to it at a time."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO
from weakref import WeakSet

from tinyadv.nn.archive import StateError

with suppress(ImportError):  # Windows has none; there files are not locked
    import fcntl

_opened: WeakSet[TextIO] = WeakSet()  # the files with which this process locks others
if hasattr(os, "register_at_fork"):  # a process made by fork shares them, and may outlive the one that has the lock
    os.register_at_fork(after_in_child=lambda: [file.close() for file in _opened])


@contextmanager
def owned(path: str | Path) -> Iterator[None]:
    """Within the block, only this run may write the file; temporary files that a killed run has left are removed.

    The operating system locks a second file, PATH.lock. The lock ends with the process, even if it is killed.
    Raises StateError, with the process that has the lock, if there is one.
    """
    path = Path(path).resolve()  # as it will be written
    if "fcntl" not in globals():
        yield
        return
    lock = path.with_name(f"{path.name}.lock")
    while True:
        file = lock.open("a+", encoding="utf-8")
        _opened.add(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                raise StateError(f"{path}: another run writes to this file, {file.read() or 'just begun'}: wait for "
                                 "it, stop it, or name another file for this one") from None
        except OSError:  # a file system without locks: go on without one
            break
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                break
        file.close()  # the last owner has just removed it: try again
    with file:
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            file.flush()
            for other in path.parent.iterdir():
                if re.fullmatch(re.escape(path.name) + r"\.[0-9a-f]{32}", other.name):
                    other.unlink(missing_ok=True)
            yield
        finally:
            lock.unlink(missing_ok=True)
