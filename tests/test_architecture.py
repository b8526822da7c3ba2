"""The house: which floor a file is on, what it may import, and how long it may be."""

import ast
import io
import re
import sys
import tokenize
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tinyadv.attacks import PGD
from tinyadv.models import MadryCNN

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "tinyadv"

FLOORS = {
    "backend": 0, "columns": 0, "executors": 0, "parallel": 0, "ranks": 0, "random": 0, "shapes": 0, "spellings": 0,
    "fused": 0, "rows": 0, "window": 0, "graph": 1, "tensor": 1,
    "ops": 2,
    "nn": 3, "data": 3,
    "driver": 4, "models": 4,
    "attacks": 5, "defenses": 5, "certify": 5,
    "training": 6, "evaluation": 6, "analysis": 6,
    "plots": 7,
    "__init__": 8, "__main__": 8,
}
APART = ("attacks", "defenses", "certify")  # in these folders no file imports another, but for what they all share:
SHARED = {"attacks.base", "attacks.minimum_norm.hyperplane", "attacks.minimum_norm.penalty",
          "attacks.black_box.decision", "attacks.combined.composite", "attacks.combined.standing", "defenses.bpda",
          "certify.abstract", "certify.rounding", "certify.interval", "certify.report", "certify.hiding",
          "certify.sampling", "certify.binomial", "certify.zonotope", "certify.rules", "certify.crown"}
MADE_OF = {"attacks.combined.autoattack": {"attacks.gradient.apgd", "attacks.minimum_norm.fab",
                                           "attacks.combined.multi", "attacks.black_box.square"}}  # and for these
LONGEST_FILE, LONGEST_ATTACK, LARGEST_CORE = 250, 150, 800  # lines, of a file and of a single attack's; lines of code
SINGLE = tuple(f"tinyadv.attacks.{folder}." for folder in ("gradient", "minimum_norm", "black_box", "localized"))

FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(LIBRARY.rglob("*.py"))}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}

PACKAGES = {name.removesuffix(".__init__") for name in FILES if name.endswith(".__init__")}

each_module = pytest.mark.parametrize("module", MODULES)


def imports(module):
    """The modules, of the library and others, that a module of the library imports anywhere in its code."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = [*above, node.module] if node.module else above
            for alias in node.names:
                submodule = ".".join([*base, alias.name])
                yield submodule if submodule in MODULES else ".".join(base)


def part(module):
    """backend, ops, attacks ...: the name below tinyadv, which stands in FLOORS."""
    return [*module.split("."), "__init__"][1]


def code_lines(text):
    """The number of lines that hold code: not blank, no comment, no docstring."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


@each_module
def test_every_module_has_its_floor(module):
    assert part(module) in FLOORS, "put it into the table of the design, and of this test"


@each_module
def test_nothing_is_imported_from_a_higher_floor(module):
    above = [name for name in imports(module) if name in MODULES and FLOORS[part(name)] > FLOORS[part(module)]]
    assert above == []


@each_module
def test_attacks_do_not_import_each_other(module):
    name = module.removeprefix("tinyadv.")
    if part(module) in APART and module not in PACKAGES:
        others = {other.removeprefix("tinyadv.") for other in imports(module) if part(other) == part(module)}
        allowed = SHARED | MADE_OF.get(name, set())
        assert {other for other in others if other not in allowed and other.rpartition(".")[0] not in allowed} == set()


def test_no_imports_go_round_in_a_circle():
    graph = {module: {name for name in imports(module) if name in MODULES} - {module} for module in MODULES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {error.args[1]}")
    assert set(order) == set(MODULES)


@each_module
def test_cupy_is_named_in_the_backend_alone(module):
    named = re.search(r"\bcupy\b", MODULES[module].read_text(encoding="utf-8")) is not None
    assert named == (module == "tinyadv.backend")


@each_module
def test_matplotlib_is_imported_by_plots_alone(module):
    roots = {name.partition(".")[0] for name in imports(module)}
    assert "matplotlib" not in roots or part(module) == "plots"
    assert not roots & {"torch", "scipy", "sklearn", "jax", "tensorflow", "autograd", "mpi4py", "dask", "distributed",
                        "torchattacks", "foolbox", "art"}


@each_module
def test_no_file_is_too_long(module):
    longest = LONGEST_ATTACK if module.startswith(SINGLE) else LONGEST_FILE
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= longest


def test_the_core_can_be_read_in_one_sitting():
    core = [LIBRARY / "graph.py", LIBRARY / "tensor.py", *(LIBRARY / "ops").glob("*.py")]
    assert sum(code_lines(path.read_text(encoding="utf-8")) for path in core) <= LARGEST_CORE


def test_an_image_climbs_twice_at_most_on_its_way_to_the_convolution_and_back():
    """In any chain of calls below PGD.run: from the driver up to the attack, and from a Tensor up to its operation."""
    chains = set()

    def follow(frame, event, argument):
        chain = []
        while event == "call" and frame is not None:
            if (name := frame.f_code.co_filename).startswith(f"{LIBRARY}/"):
                chain.append(".".join(Path(name).relative_to(ROOT).with_suffix("").parts))
            frame = frame.f_back
        chains.add(tuple(chain[::-1]))

    x, model = np.full((1, 1, 28, 28), 0.5, np.float32), MadryCNN(seed=0)
    sys.setprofile(follow)
    try:
        PGD(0.3, steps=1).run(model, x, np.zeros(1, int), workers=1)
    finally:
        sys.setprofile(None)
    ways = [chain[chain.index("tinyadv.attacks.base.attack"):] for chain in chains if "tinyadv.ops.conv" in chain]
    climbs = {chain: sum(FLOORS[part(a)] < FLOORS[part(b)] for a, b in pairwise(chain)) for chain in ways}
    assert {chain for chain in ways if "tinyadv.attacks.gradient.pgd" in chain}
    assert set(climbs.values()) == {2}


# The tools above


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ('"""Text."""\n', 0),
        ("# a comment\n\nx = 1  # and another\n", 1),
        ('def f():\n    """Text\n\n    of some lines."""\n    return 1\n', 2),
        ('class C:\n    """Text."""\n\n    x = """code\n    of three\n    lines"""\n', 4),
        ("x = [\n    1,\n\n    # a comment\n    2,\n]\n", 4),
    ],
)
def test_lines_of_code_are_counted(text, count):
    assert code_lines(text) == count


def test_imports_of_every_form_are_seen(tmp_path, monkeypatch):
    (tmp_path / "probe.py").write_text(
        "import os.path, tinyadv.shapes\nfrom tinyadv import tensor, Tensor\nfrom . import backend\n"
        "from .ops import add, reduce\n\ndef f():\n    from tinyadv.backend import to_host\n"
    )
    monkeypatch.setitem(MODULES, "tinyadv.probe", tmp_path / "probe.py")
    assert list(imports("tinyadv.probe")) == [
        "os.path", "tinyadv.shapes", "tinyadv.tensor", "tinyadv", "tinyadv.backend", "tinyadv.ops",
        "tinyadv.ops.reduce", "tinyadv.backend",
    ]
