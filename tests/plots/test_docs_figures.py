"""The script that draws the figures of the documentation still runs."""

import importlib.util
from pathlib import Path

import pytest

from tinyadv import attacks, nn, training

SCRIPT = Path(__file__).parents[2] / "docs" / "figures.py"


@pytest.fixture(scope="module")
def figures():
    spec = importlib.util.spec_from_file_location("docs_figures", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    training.fit(script.model, script.train, epochs=1, optimizer=nn.optim.Adam(script.model, lr=5e-3), seed=42)
    return script


def test_the_figure_of_autoattack_is_drawn_for_each_network_and_part(figures, monkeypatch):
    monkeypatch.setattr(attacks.AutoAttack, "_steps", 10)
    monkeypatch.setattr(attacks.AutoAttack, "_queries", 20)
    drawn = figures.autoattack(count=3)
    (axes,) = drawn.axes
    assert [line.get_label() for line in axes.lines] == ["network", "logits × 1000", "pixels of 8 levels"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["clean", "APGD-CE", "APGD-T", "FAB-T", "Square"]
    clean, after, *_ = axes.lines[2].get_ydata()
    assert clean == after > 0  # without a gradient, APGD finds nothing
