"""Properties of locks: one run at a time writes to a file, and one that was killed stands in nobody's way."""

import os
import signal
import subprocess
import sys

import pytest

from tinyadv.nn.archive import StateError
from tinyadv.nn.lock import owned


def test_a_file_has_one_owner_who_is_named(tmp_path):
    path = tmp_path / "run.npz"
    for _ in range(2):
        with owned(path):
            message = rf"run\.npz: another run writes to this file, process {os.getpid()} on .*: wait"
            with pytest.raises(StateError, match=message), owned(path):
                pytest.fail("two owners")
            with owned(tmp_path / "other.npz"):
                pass
        assert os.listdir(tmp_path) == []


def test_a_killed_owner_locks_nobody_out_and_its_leftovers_go(tmp_path):
    path = tmp_path / "run [1].npz"
    script = f"""
import os
from tinyadv.nn import archive, lock
with lock.owned({str(path)!r}):
    archive.os.replace = lambda *names: os.kill(os.getpid(), {signal.SIGKILL:d})
    archive.write({str(path)!r}, {{}}, {{}})
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    left, others = os.listdir(tmp_path), {"run [1].npz.bak", "run 1.npz." + 32 * "a", "run [1].npz." + 31 * "a"}
    assert len(left) == 2
    for name in others:
        (tmp_path / name).touch()
    with owned(path):
        assert set(os.listdir(tmp_path)) == others | {"run [1].npz.lock"}
    assert set(os.listdir(tmp_path)) == others


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_that_outlives_a_killed_owner_locks_nobody_out(tmp_path):
    """As a worker of a pool does; while the owner lives, it is the owner still."""
    path = tmp_path / "run.npz"
    script = f"""
import os, signal
from tinyadv.nn.lock import StateError, owned
with owned({str(path)!r}):
    began, begun = os.pipe()
    if not (child := os.fork()):
        try:
            with owned({str(path)!r}):
                os.write(begun, b"owned")
        except StateError:
            os.write(begun, b"fine")
        signal.pause()
    print(child, os.read(began, 5).decode(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as killed:
        child, told = killed.stdout.readline().split()
        try:
            assert killed.wait() == -signal.SIGKILL
            assert told == "fine"
            with owned(path):
                pass
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_a_link_and_the_file_that_it_names_have_one_owner(tmp_path):
    link, real = tmp_path / "link.npz", tmp_path / "real.npz"
    real.touch()
    link.symlink_to(real)
    with owned(link), pytest.raises(StateError, match="another run writes to this file"), owned(real):
        pass
