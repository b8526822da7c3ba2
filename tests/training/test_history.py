import csv

from tinyadv.training import Epoch, History


def test_a_history_prints_as_a_table():
    epochs = Epoch(1, 0.48811, 0.8621, None, 0.01, 7.04), Epoch(12, 0.1, 1.0, 0.9781, 0.00125, 123.4)
    history = History(epochs)
    assert repr(history).splitlines() == [
        "epoch    loss  accuracy  validation       lr  seconds",
        "    1  0.4881    86.21%           -     0.01      7.0",
        "   12  0.1000   100.00%      97.81%   0.0013    123.4",
    ]
    assert tuple(history) == epochs
    assert history[-1] is epochs[1]


EPOCHS = [Epoch(1, 0.48811, 0.8621, None, 0.01, 7.04, None, 0.15), Epoch(2, 0.1, 1.0, 0.9781, 0.00125, 123.4, 0.9, 0.3)]


def test_under_attack_the_table_tells_the_robust_accuracy_and_the_budget():
    assert repr(History(EPOCHS)).splitlines() == [
        "epoch    loss  accuracy  validation  robust    eps       lr  seconds",
        "    1  0.4881    86.21%           -       -   0.15     0.01      7.0",
        "    2  0.1000   100.00%      97.81%  90.00%    0.3   0.0013    123.4",
    ]


def test_a_csv_file_holds_every_figure_exactly(tmp_path):
    History(EPOCHS).to_csv(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = [{name: float(text) if text else None for name, text in row.items()} for row in csv.DictReader(file)]
    assert [Epoch(**row) for row in rows] == EPOCHS
