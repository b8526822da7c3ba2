"""Ctrl-C in a process of its own: what runs for hours ends at once, and leaves its file."""

import pytest
from interrupts import EXPECTED, PROGRAMS, last_error, pressed


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_ends_at_the_next_forward_pass_and_leaves_the_file(program, tmp_path):
    """By hand it is 2 seconds at most, and far less on an idle machine; here, others may have its cores."""
    seconds, said = pressed(program, tmp_path, after=0.5)
    assert seconds < 20
    assert last_error(said) in EXPECTED
    assert [path.name for path in tmp_path.iterdir()] == [name for name in PROGRAMS[program][1:] if name]
