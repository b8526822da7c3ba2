"""A defence attacked three ways."""

import numpy as np
import pytest
from attack_cases import dense, images, noisy

from tinyadv import data, defenses, driver, evaluation, nn
from tinyadv.attacks import BIM, FGSM, PGD, AutoAttack, DeepFool, HopSkipJump, Square, Transfer
from tinyadv.backend import array_module

SHAPE = (1, 4, 4)
QUICK = Square(0.2, queries=20)


def levels(x):
    return array_module(x).rint(3 * x) / 3


def scene(model, count=40):
    """Images, with the labels that the model gives, but for one in eight."""
    x = images(count, SHAPE)
    y = driver.logits(model, x).argmax(axis=1)
    return data.Dataset(x, np.where(np.arange(count) % 8 == 0, (y + 1) % 3, y))


def test_without_a_defence_the_first_two_ways_are_one():
    model = dense(SHAPE, 3)
    found = evaluation.three_ways(model, model, PGD(0.2, steps=5), scene(model), black_box=QUICK, seed=1)
    assert found.ignored == found.through == found.undefended[1]
    assert found.clean == found.undefended[0] == 35 / 40
    assert found.robustness == min(found.through, found.without_gradients) < found.clean


def test_each_row_is_the_attack_that_it_names():
    model = dense(SHAPE, 3)
    defended, dataset, attack = nn.Sequential(defenses.bpda(levels), model), scene(model), BIM(0.2, steps=5)
    found = evaluation.three_ways(model, defended, attack, dataset, black_box=QUICK, seed=2, batch_size=7)
    options = {"seed": 2, "batch_size": 7}
    assert found.clean == evaluation.accuracy(defended, dataset)
    assert found.undefended == (evaluation.accuracy(model, dataset),
                                evaluation.robust_accuracy(model, attack, dataset, **options))
    right = evaluation.predict(defended, dataset.images) == dataset.labels
    assert found.through == evaluation.robust_accuracy(defended, attack, dataset, **options)
    assert found.without_gradients == evaluation.robust_accuracy(defended, QUICK, dataset, **options)
    made = attack.run(model, dataset.images, dataset.labels, **options).x_adv
    assert found.ignored == (right & (evaluation.predict(defended, made) == dataset.labels)).mean()
    transferred = evaluation.robust_accuracy(defended, Transfer(model, attack), dataset, **options)
    assert found.ignored == transferred  # what the undefended model gets wrong is attacked, too
    assert found.robustness == min(found.ignored, found.through, found.without_gradients)


def test_the_attack_that_ignores_the_defence_attacks_what_only_the_defended_model_gets_right():
    model, dataset = dense(SHAPE, 3), scene(dense(SHAPE, 3))

    def wrong(x):
        return model(x) + 100 * np.eye(3, dtype=np.float32)[(dataset.labels[1] + 1) % 3]

    same = dataset[np.flatnonzero(dataset.labels == dataset.labels[1])]
    found = evaluation.three_ways(wrong, model, BIM(0.3, steps=5), same, black_box=QUICK)
    assert found.undefended == (0, 0)
    assert found.ignored < found.clean


def test_masked_gradients_are_unmasked_by_the_two_other_ways():
    model = dense(SHAPE, 3)
    masked = nn.Sequential(defenses.bpda(levels, gradient="zero"), model)
    found = evaluation.three_ways(model, masked, BIM(0.3, steps=5), scene(model), black_box=Square(0.3, queries=100))
    assert found.through == found.clean
    assert found.robustness == min(found.ignored, found.without_gradients) < found.clean - 0.3


def test_a_lucky_draw_is_no_success():
    """The images are judged by draws of their own: an attack that only waits for a draw finds nothing."""
    model = noisy(SHAPE)
    dataset = scene(model, 200)
    found = evaluation.three_ways(model, model, PGD(1e-9, steps=50), dataset, black_box=Square(1e-9, queries=2))
    waited = evaluation.robust_accuracy(model, PGD(1e-9, steps=50), dataset)
    assert waited < found.through - 0.05
    assert abs(found.through - found.ignored) < 0.02
    again = evaluation.three_ways(model, model, PGD(1e-9, steps=50), dataset, black_box=Square(1e-9, queries=2),
                                  workers=1)
    assert again == found


def test_it_prints_as_a_table():
    model = dense(SHAPE, 3)
    lines = str(evaluation.three_ways(model, model, FGSM(0.2), scene(model), black_box=QUICK)).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "FGSM(eps=0.2), 40 images", "clean", "the attack that ignores the defence", "the attack through the defence",
        "without gradients: Square(eps=0.2, queries=20)", "robustness: the least"]
    assert lines[0].split()[-2:] == ["undefended", "defended"]
    assert lines[1].split()[-2:] == ["87.50%", "87.50%"]
    assert lines[3].split()[-2] == "-"


def test_the_black_box_attack_has_the_budget_of_the_other():
    model = dense(SHAPE, 3)
    found = evaluation.three_ways(model, model, FGSM(0.5, norm="l2"), scene(model, 2))
    assert found.black_box == Square(0.5, norm="l2")


def test_of_a_minimum_norm_attack_the_points_within_eps_count():
    model = dense(SHAPE, 3)
    dataset, blind = scene(model), HopSkipJump(queries=200)
    result = blind.run(model, dataset.images, dataset.labels, seed=3, skip_misclassified=True)
    for eps in np.quantile(result.distances, [0.2, 0.5, 1]).tolist():
        found = evaluation.three_ways(model, model, PGD(eps, norm="l2"), dataset, black_box=blind, seed=3)
        clean = evaluation.predict(model, dataset.images) == dataset.labels
        assert found.without_gradients == (clean & ~(result.success & (result.distances <= eps))).mean()


@pytest.mark.parametrize("black_box", [
    Square(0.3), Square(0.1, norm="l2"), Square(0.1, bounds=(0, 2)), HopSkipJump(norm="l2")], ids=str)
def test_the_black_box_attack_must_have_no_other_budget(black_box):
    model = dense(SHAPE, 3)
    with pytest.raises(ValueError, match=r"black_box must have the budget of PGD\(eps=0.2\), in linf"):
        evaluation.three_ways(model, model, PGD(0.2), scene(model, 4), black_box=black_box)


def test_what_cannot_be_compared_is_an_error(tmp_path):
    model = dense(SHAPE, 3)
    dataset = scene(model, 4)
    with pytest.raises(ValueError, match="state must be the file of one run, and these are three: leave it out"):
        evaluation.three_ways(model, model, AutoAttack(0.1), dataset, state=tmp_path / "state.npz")
    with pytest.raises(TypeError, match=r"black_box must be an attack, such as .*got <class"):
        evaluation.three_ways(model, model, FGSM(1), dataset, black_box=Square)
    with pytest.raises(ValueError, match=r"must have a budget, got DeepFool\(\), a minimum-norm attack"):
        evaluation.three_ways(model, model, DeepFool(), dataset)
    with pytest.raises(ValueError, match=r"black_box must be given for FGSM\(eps=1, norm='l1'\)"):
        evaluation.three_ways(model, model, FGSM(1, norm="l1"), dataset)
    with pytest.raises(TypeError, match=r"dataset must be a data\.Dataset, got ndarray"):
        evaluation.three_ways(model, model, FGSM(1), dataset.images)
