import argparse
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cards
from tinyadv import attacks, data, models
from tinyadv.models import zoo

CONFIG = Path(__file__).parents[1] / "examples" / "configs" / "mnist-lenet-natural.toml"


def test_images_that_are_proven_count_as_right_and_the_others_draw_what_they_would_draw_beside_them():
    model, (_, test) = models.LeNet(seed=1).eval(), data.digits(train=10, test=12)
    test = data.Dataset(test.images, model(test.images).data.argmax(axis=1), test.name)
    proven, attack = np.arange(12) % 3 == 1, attacks.PGD(0.1, steps=2)
    whole = attack.run(model, test.images, test.labels, seed=5, skip_misclassified=True)
    share, result = cards.left(model, attack, test, proven, 5)
    np.testing.assert_array_equal(result.x_adv, whole.x_adv[~proven])
    assert share == (whole.robust | proven).mean()
    assert 0 < share < 1
    assert cards.left(model, attack, test, np.ones(12, bool), 5)[0] == 1


@pytest.mark.parametrize(("images", "replaced"), [(10, False), (10_000, True)])
def test_of_two_measurements_of_autoattack_the_card_lists_that_of_more_images(images, replaced, tmp_path, monkeypatch):
    found = {"images": images, "seed": 0, "accuracy": 0.125, "pgd": 0.25, "beyond": "AutoAttack(eps=0.4)",
             "accuracy_beyond": 0.0, "warnings": []}
    monkeypatch.setattr(data, "mnist", lambda: data.digits(train=1, test=10))
    monkeypatch.setattr(cards, "autoattack", lambda *_: found)
    monkeypatch.setattr(zoo, "write", lambda card, folder: cards_made.append(card))
    cards_made, before = [], zoo.card(CONFIG.stem)
    counts = dict.fromkeys(("images", "few", "autoattack", "votes"), images)
    cards.main(argparse.Namespace(config=CONFIG, weights=None, folder=tmp_path, seed=0, **counts))
    (card,) = cards_made
    assert card.autoattack == found
    rows = [row for row in card.results if row["attack"].startswith("AutoAttack")]
    assert [row["accuracy"] == 0.125 for row in rows] == [replaced]
    assert [row["attack"] for row in card.results] == [row["attack"] for row in before.results]


@pytest.mark.parametrize(("there", "missing"), [([], "net.npz"), (["net.npz"], "net.csv")])
def test_of_two_missing_files_the_one_that_was_named_is_told(there, missing, tmp_path):
    for name in there:
        (tmp_path / name).touch()
    counts = dict.fromkeys(("images", "few", "autoattack", "votes"), 1)
    with pytest.raises(SystemExit, match=f"No such file or directory: .*{missing}"):
        cards.main(argparse.Namespace(config=CONFIG, weights=tmp_path / "net.npz", folder=tmp_path, seed=0, **counts))
