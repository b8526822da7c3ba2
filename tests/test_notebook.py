"""The tour runs from top to bottom, and notebooks/tour.ipynb is what it gives: `make notebook` writes it."""

import ast
import base64
import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from threadpoolctl import threadpool_limits

from tinyadv import data

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
TINY = {"TRAIN": 100, "TEST": 40, "FEW": 4, "FEWER": 1, "EPOCHS": 1, "STEPS": 2}


def cells(text):
    """(kind, source) of each cell of a script in the percent format."""
    for head, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n)*)", text, re.MULTILINE):
        lines = body.strip("\n").splitlines()
        if "[markdown]" in head:
            yield "markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)
        else:
            yield "code", "\n".join(line.removeprefix("# ") if line.startswith("# %") else line for line in lines)


def run(source, namespace):
    """What a cell prints, and the value of its last line, which a notebook shows."""
    body = ast.parse(re.sub("^%", "#", source, flags=re.MULTILINE)).body
    last = body.pop().value if isinstance(body[-1], ast.Expr) else ast.parse("None", mode="eval").body
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), "tour.py", "exec"), namespace)
        value = eval(compile(ast.Expression(last), "tour.py", "eval"), namespace)
    return printed.getvalue(), value


def said(outputs):
    """The text that a cell of the notebook has printed."""
    return "".join("".join(each["text"]) for each in outputs if each["output_type"] == "stream")


def drawn(outputs):
    """The figures of a cell of the notebook, as PNG files."""
    return [base64.b64decode(each["data"]["image/png"]) for each in outputs if "image/png" in each.get("data", ())]


SOURCE = list(cells((NOTEBOOKS / "tour.py").read_text(encoding="utf-8")))
KEPT = json.loads((NOTEBOOKS / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
OUTPUTS = [cell["outputs"] for cell in KEPT if cell["cell_type"] == "code"]


def test_the_notebook_has_the_cells_of_the_script_run_in_order():
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in KEPT] == SOURCE
    assert [cell["id"] for cell in KEPT] == [f"cell-{number}" for number in range(len(KEPT))]
    counts = [cell["execution_count"] for cell in KEPT if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_the_tour_runs_from_top_to_bottom_and_each_cell_shows_what_it_shows_in_the_notebook(monkeypatch):
    def unavailable():
        raise data.DataUnavailable("this test goes on with the digits")

    monkeypatch.setattr(data, "mnist", unavailable)
    namespace = {"__name__": "__main__"}
    with threadpool_limits(1, "blas"):
        for source, outputs in zip((source for kind, source in SOURCE if kind == "code"), OUTPUTS, strict=True):
            printed, value = run(source, namespace)
            if "SEED =" in source:
                namespace.update(TINY)
            assert bool(printed) == bool(said(outputs)), source
            assert isinstance(value, Figure) == bool(drawn(outputs)), source
            if isinstance(value, Figure):
                value.savefig(io.BytesIO())  # a layout that does not fit is a warning, which is an error
    assert (namespace["train"].name, len(namespace["train"])) == ("digits-train", TINY["TRAIN"])


def test_the_notebook_keeps_no_error_no_warning_and_nothing_of_the_machine_that_ran_it():
    outputs = [each for several in OUTPUTS for each in several]
    assert {each["output_type"] for each in outputs} == {"stream", "execute_result"}
    assert {each["name"] for each in outputs if each["output_type"] == "stream"} == {"stdout"}
    text = "".join(map(said, OUTPUTS))
    assert not re.search(r"/(home|root|tmp|work|usr)/|seconds|\d s\b", text)
    assert "mnist-test: 1,000 images" in text


def test_its_figures_are_small_and_as_wide_as_a_page():
    figures = [figure for outputs in OUTPUTS for figure in drawn(outputs)]
    assert 6 <= len(figures) <= 12
    for figure in figures:
        assert 500 < imread(io.BytesIO(figure)).shape[1] < 1200
    assert (NOTEBOOKS / "tour.ipynb").stat().st_size < 600_000


def test_what_the_text_says_about_the_numbers_is_so():
    def percents(line):
        (found,) = re.findall(rf"^{line}.*%.*$", text, re.MULTILINE)
        return [float(number) for number in re.findall(r"([\d.]+)%", found)]

    text = "".join(map(said, OUTPUTS))
    (clean,), (random,), (fgsm,) = map(percents, ("clean  ", "random signs", "FGSM   "))
    assert clean - random < 5 < 50 < random - fgsm
    natural, robust = (percents(f"{name} +[0-9]") for name in ("natural", "robust"))
    assert natural[0] - robust[0] < 3
    assert natural[2] < 5 < 50 < robust[2]
    assert percents("natural +cert") == percents("robust +cert") == [0]
    clean, attacked, certified = percents(r"clean \d")
    assert 40 < certified <= attacked <= clean < robust[0]
    assert attacked > robust[2]
    assert "PGD has broken no certified image: True" in text
    alone, together = percents("PGD alone")
    assert together <= alone


def test_cells_are_read_as_jupytext_reads_them():
    script = '# %% [markdown]\n# # Title\n#\n# Text\n# %% tags=["a"]\nx = 1\n\n\n# a comment\n# %matplotlib inline\n\n'
    code = "x = 1\n\n\n# a comment\n%matplotlib inline"
    assert list(cells(script)) == [("markdown", "# Title\n\nText"), ("code", code)]


def test_a_cell_shows_what_it_prints_and_the_value_of_its_last_line():
    namespace = {}
    assert run("%matplotlib inline\nx = 1\nprint(x)\nx + 1", namespace) == ("1\n", 2)
    assert run("y = x", namespace) == ("", None)
    with pytest.raises(ZeroDivisionError):
        run("y / 0", namespace)
