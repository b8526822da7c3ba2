from hypothesis import given
from hypothesis import strategies as st

from tinyadv.nn.table import number, percent, table

words = st.text("ab1.-%", max_size=6)


@given(st.integers(1, 4).flatmap(lambda columns: st.lists(st.lists(words, min_size=columns, max_size=columns))),
       st.text("<>", min_size=1, max_size=3))
def test_each_cell_stands_in_its_column_on_its_side(rows, align):
    lines = table(rows, align)
    assert len(lines) == len(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for line, row in zip(lines, rows, strict=True):
        assert line == line.rstrip()
        start = 0
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            to_the_right = align[min(i, len(align) - 1)] == ">"
            assert line[start:start + width].ljust(width) == (cell.rjust(width) if to_the_right else cell.ljust(width))
            start += width + 2


def test_a_table_without_rows_has_no_lines():
    assert table([]) == []


def test_what_was_not_measured_is_a_dash():
    assert [percent(None), percent(0.98765), number(None), number(1 / 3)] == ["-", "98.77%", "-", "0.3333"]
