"""What goes into a source distribution, and what its page on an index says."""

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import smoke

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "docs", "examples", "notebooks", "tests", "tinyadv")
LINK = re.compile(r"\]\(([^)]+)\)")


def metadata(folder, **environment):
    """(files, metadata) of the package as setuptools writes them."""
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder], cwd=ROOT, check=True,
                   env=os.environ | environment, capture_output=True)
    egg = folder / "tinyadv.egg-info"
    text = (egg / "PKG-INFO").read_text(encoding="utf-8")
    files = (egg / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
    return {Path(file).as_posix() for file in files}, message_from_string(text)


def test_a_source_distribution_holds_what_its_tests_need(tmp_path):
    files, _ = metadata(tmp_path)
    needed = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")
              if path.is_file() and path.suffix != ".pyc"]
    needed += [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
                                        "mkdocs.yml", "pyproject.toml", "setup.py")]
    assert {path.relative_to(ROOT).as_posix() for path in needed} - files == set()


def test_the_changelog_and_the_citation_name_this_version_and_its_date():
    version, changes, cited = ((ROOT / name).read_text("utf-8") for name in (
        "tinyadv/VERSION", "CHANGELOG.md", "CITATION.cff"))
    number, date = re.search(r"^## \[(\d.*)\] - (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE).groups()
    assert version == f"{number}\n"
    assert f"\nversion: {number}\ndate-released: {date}\n" in cited


def test_what_a_fresh_installation_must_do_is_done_here():
    smoke.works()


def test_an_editable_install_is_found_from_the_folder_around_the_clone(tmp_path):
    """There `tinyadv` is the clone, a folder without __init__.py, which hides what only an import hook finds."""
    subprocess.run([sys.executable, "setup.py", "-q", "editable_wheel", "--dist-dir", tmp_path], cwd=ROOT, check=True,
                   capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert archive.read(path).decode().split() == [str(ROOT)]


@pytest.mark.parametrize("address", ["", "https://example.org/tinyadv/blob/main"])
def test_on_the_page_of_an_index_no_link_is_broken(address, tmp_path):
    _, told = metadata(tmp_path, TINYADV_FILES=address)
    found, own = LINK.findall(told.get_payload()), LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    pages = [url.partition(", ")[2] for url in told.get_all("Project-URL", [])]
    assert len(found) == (len(own) if address else 0)
    assert "\n!" not in told.get_payload()  # a figure is a link, too
    assert len(pages) == (3 if address else 0)
    for link in [*found, *pages]:
        assert link.startswith(f"{address}/")
        assert (ROOT / link.removeprefix(f"{address}/").partition("#")[0]).is_file()
