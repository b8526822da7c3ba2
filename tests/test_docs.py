"""The documentation is true: its code runs, prints what it says, and what it links to and names exists.

A page is a Markdown file: those in docs/ and the README. Its Python blocks run in order, in one namespace, in an
empty folder. A text block right after one is what it prints, to the letter; a number written as ~0.97 comes
from training, which rounds differently on every machine, and may be a tenth off. No other blocks are run.
"""

import contextlib
import io
import pkgutil
import re
import runpy
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

import tinyadv

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
PAGES["README.md"] = ROOT / "README.md"
FOLDERS = ("tinyadv", "tests", "examples", "notebooks", "docs")
FILES = [*ROOT.glob("*.*"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*"))]
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(rf"(?<![\w.])(?:tinyadv|{'|'.join(tinyadv.__all__)})(?:\.(?!py\b)\w+)+")
FILE = re.compile(r"[\w/.][\w/.-]*\.(?:py|md|toml)\b")
TARGET = re.compile(r"\bmake ([a-z]+)")
ABOUT = re.compile(r"~(\d+(?:\.\d+)?)")

each_page = pytest.mark.parametrize("page", PAGES)


def read(page):
    return PAGES[page].read_text("utf-8")


def prose(text):
    """The page without its blocks."""
    return BLOCK.sub("", text)


def run_blocks(text, name="page"):
    """Run the Python blocks of a page; AssertionError where one prints something else than the page says."""
    namespace = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        language, code, expected = block.groups()
        line = text.count("\n", 0, block.start()) + 1
        assert language != "text", f"{name}, line {line}: which Python block prints this?"
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile("\n" * line + code, name, "exec"), namespace)  # with the page's line numbers
            if expected is not None:
                assert_same(printed.getvalue(), expected, f"{name}, line {line} prints\n{printed.getvalue()}")


def assert_same(printed, expected, message):
    """The texts agree, up to a tenth (or 0.05) in the numbers that follow a ~."""
    words, stated_words = (ABOUT.split(text)[::2] for text in (printed, expected))
    numbers, stated = ([float(n) for n in ABOUT.findall(text)] for text in (printed, expected))
    assert words == stated_words, message
    assert numbers == pytest.approx(stated, rel=0.1, abs=0.05), message


def missing_names(text):
    """The names tinyadv.x, or x.y of a public x, and the files, in code quotes, that are not there."""
    quoted = CODE.findall(prose(text))
    for name in (name for code in quoted for name in NAME.findall(code)):
        try:
            pkgutil.resolve_name(name if name.startswith("tinyadv.") else f"tinyadv.{name}")
        except (ImportError, AttributeError):
            yield name
    for file in (file for code in quoted for file in FILE.findall(code)):
        if not any(path.as_posix().endswith(f"/{file}") for path in FILES):
            yield file


def broken_links(text, folder):
    """The relative links to files that are not there, or to headings that their page does not have."""
    for link in LINK.findall(prose(text)):
        target, _, anchor = link.partition("#")
        if "://" not in link:
            path = folder / target
            page = text if not target else path.read_text("utf-8") if anchor and path.exists() else ""
            if not path.exists() or (anchor and anchor not in anchors(page)):
                yield link


def anchors(text):
    """The headings of a page as links spell them."""
    titles = HEADING.findall(prose(text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def missing_targets(text):
    """What follows `make` in shell blocks and in code quotes, and is no target of the Makefile."""
    shell = [code for language, code, _ in BLOCK.findall(text) if language == "sh"]
    found = TARGET.findall("\n".join([*shell, *CODE.findall(prose(text))]))
    return [target for target in found if target not in TARGETS]


@each_page
def test_the_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with threadpool_limits(1, "blas"):  # its threads wait for each other, and crawl beside other tests
        run_blocks(read(page), page)


@each_page
def test_what_the_page_names_exists(page):
    text = read(page)
    assert list(missing_names(text)) == []
    assert list(broken_links(text, PAGES[page].parent)) == []
    assert missing_targets(text) == []


def test_every_page_and_every_file_is_on_the_map():
    text = read("index.md")
    assert set(PAGES) - {"index.md", "README.md"} <= set(LINK.findall(text))
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert [page for page, path in PAGES.items() if f": {path.relative_to(ROOT).as_posix()}\n" not in site] == []
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tinyadv").rglob("*.py") if path.name[:2] != "__"}
    assert files - set(CODE.findall(text)) == set()


def test_an_afternoons_reading_is_as_long_as_the_readme_says():
    claim = re.search(r"afternoon's reading, about ([\d,]+) lines(.+?)\n\n", read("README.md"), re.DOTALL)
    lines, files = claim.groups()
    paths = [path for name in CODE.findall(files) for path in (sorted((ROOT / name).glob("*.py")) or [ROOT / name])]
    found = sum(len(path.read_text("utf-8").splitlines()) for path in paths)
    assert found == pytest.approx(int(lines.replace(",", "")), rel=0.05)


def test_each_figure_is_drawn_and_shown_and_small():
    figures = {path.stem: path for path in DOCS.rglob("*.png")}
    shown = [Path(link).stem for page in PAGES for link in LINK.findall(read(page)) if link.endswith(".png")]
    drawn = re.findall(r"^@figure\ndef (\w+)", (DOCS / "figures.py").read_text("utf-8"), re.MULTILINE)
    measured = [path.stem for path in (DOCS / "results").glob("*.json")]
    assert sorted(figures) == sorted(shown) == sorted([*drawn, *measured, "fgsm_mnist"])  # the last is the demo's
    assert max(path.stat().st_size for path in figures.values()) < 60_000


def test_the_pages_made_of_numbers_are_those_that_the_files_give():
    pages = runpy.run_path(DOCS / "pages.py")
    assert read("results.md") == pages["results"]()
    assert read("zoo.md") == pages["the_zoo"]()


@pytest.mark.parametrize("untrue", [
    "```python\nprint(1)\n```\n\n```text\n2\n```\n",
    "```python\nprint('~0.5')\n```\n```text\n~0.7\n```\n",
    "```text\n1\n```\n",
])
def test_an_untrue_page_is_caught(untrue):
    with pytest.raises(AssertionError, match="page, line 1"):
        run_blocks(untrue)


def test_what_does_not_exist_is_caught():
    assert list(missing_names("`ops.none`, `tinyadv.no.more`, `ops.relu`")) == ["ops.none", "tinyadv.no.more"]
    assert list(missing_names("`nothing.py`, `loop.py`")) == ["nothing.py"]
    assert list(broken_links("[a](nothing.md) [b](#b) [c](#c)\n# C\n", ROOT)) == ["nothing.md", "#b"]
    assert missing_targets("`make nothing` and\n```sh\nmake test\n```\n") == ["nothing"]
