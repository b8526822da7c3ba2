"""The documentation is true: its code runs, prints what it says, and what it names and links to exists.

A page is a Markdown file: docs/*.md and the README. Its Python blocks run in order, in one namespace, in an empty
folder. A text block right after one holds what it prints, to the letter; a number written as ~0.97 comes from
training, which rounds differently from machine to machine, and may be a tenth off. Blocks of other kinds are not run.
"""

import contextlib
import importlib
import io
import re
from pathlib import Path

import pytest

import tinyadv

ROOT = Path(__file__).parents[1]
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
FILES = ["/" + file.relative_to(ROOT).as_posix() for file in ROOT.rglob("*.*")]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAME = re.compile(rf"(?:tinyadv|{'|'.join(tinyadv.__all__)})(?:\.\w+)+")
ABOUT = re.compile(r"~(\d+(?:\.\d+)?)")

each_page = pytest.mark.parametrize("page", PAGES)


def run_blocks(text, name="page"):
    """Run the Python blocks of a page; AssertionError where one prints something else than the page says."""
    namespace = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        language, code, expected = block.groups()
        assert language != "text", f"{name}: a text block must follow the Python block that prints it"
        if language == "python":
            line = text.count("\n", 0, block.start()) + 1
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile("\n" * line + code, name, "exec"), namespace)  # the page's own line numbers
            if expected is not None:
                assert_prints(printed.getvalue(), expected, f"{name}, line {line}")


def assert_prints(printed, expected, where):
    words, numbers = ABOUT.split(printed), ABOUT.split(expected)
    assert words[::2] == numbers[::2], f"{where} prints\n{printed}"
    actual, stated = ([float(number) for number in parts[1::2]] for parts in (words, numbers))
    assert actual == pytest.approx(stated, rel=0.1, abs=0.05), f"{where} prints\n{printed}"


def prose(text):
    """The page without its blocks."""
    return BLOCK.sub("", text)


def exists(name):
    """Whether a dotted name is a module, or an attribute of one, or of that."""
    first, *rest = name.removeprefix("tinyadv.").split(".")
    value = importlib.import_module(f"tinyadv.{first}") if first in tinyadv.__all__ or not rest else tinyadv
    for part in rest if value is not tinyadv else [first, *rest]:
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def anchors(text):
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose(text))}


@each_page
def test_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks(PAGES[page], page)
