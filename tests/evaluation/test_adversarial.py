"""Adversarial images that are there already: the validator of saved sets, and the worst case over attacks."""

from dataclasses import replace

import numpy as np
import pytest
from attack_cases import NORMS, cnn, every_attack_with_eps, images, labels, lengths, rows, stage
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import evaluation, nn
from tinyadv.attacks import FGSM, PGD, DeepFool, MultiAttack


def failed(report):
    return {check.name for check in report.checks if not check.passed}


@every_attack_with_eps
def test_what_an_attack_returns_is_valid(attack, xp):
    model, x, y, _ = stage("cnn", False)
    x_adv = attack(model, x, y)
    report = evaluation.validate(xp.asarray(x_adv), x, eps=attack.eps, norm=attack.norm)
    assert report.passed
    assert [check.name for check in report.checks] == ["shape", "dtype", "finite", "range", "budget"]
    report.require()
    distance = lengths(attack.norm, x_adv.astype(np.float64) - x).max()
    assert not evaluation.validate(x_adv, x, eps=distance * (1 - 1e-9), norm=attack.norm).passed


@pytest.mark.parametrize(("change", "names", "figure"), [
    (lambda x: x[:3], {"shape"}, 3), (lambda x: x[:, 0], {"shape"}, 4), (lambda x: x.astype(np.float64), {"dtype"}, 8),
    (lambda x: (x * 255).astype(np.uint8), {"dtype", "range", "budget"}, None),
    (lambda x: np.where(np.arange(8) < 1, np.nan, x), {"finite", "budget"}, None),
    (lambda x: np.where(np.arange(8) < 1, np.inf, x), {"finite", "range", "budget"}, None),
    (lambda x: x + np.float32(0.2), {"budget"}, 4), (lambda x: x - np.float32(0.6), {"range", "budget"}, None),
])
def test_each_rule_has_its_check_and_nothing_is_raised_unless_asked(change, names, figure):
    x = 0.3 + 0.4 * images(4)
    report = evaluation.validate(change(x), x, eps=0.1)
    assert failed(report) == names
    if figure is not None:
        assert report[min(names)].figure == figure
    with pytest.raises(ValueError, match=f"FAILED  {min(names)}"):
        report.require()


@given(seed=seeds, eps=st.sampled_from([0.0, 0.05, 0.3]), norm=st.sampled_from(sorted(NORMS)))
def test_images_outside_the_budget_are_counted(seed, eps, norm):
    rng = np.random.default_rng(seed)
    x = images(6)
    x_adv = np.clip(x + rng.normal(size=x.shape) * rng.choice([0, 1e-3, 0.05, 1], (6, 1, 1, 1)), 0, 1).astype(x.dtype)
    distances = NORMS[norm](rows(x_adv.astype(np.float64) - x))
    report = evaluation.validate(x_adv, x, eps=eps, norm=norm)
    assert report["budget"].figure == (distances > eps).sum()
    assert f"{distances.max():.6g} away" in report["budget"].explanation


def test_no_images_are_valid():
    assert evaluation.validate(images(0), images(0), eps=0.1).passed


def test_a_report_prints_a_line_for_each_check():
    text = str(evaluation.validate(images(2) + np.float32(0.5), images(2), eps=0.1))
    first, *lines = text.splitlines()
    assert first == "adversarial images: 3 of 5 passed"
    assert [line.split()[:2] for line in lines] == [
        ["passed", "shape"], ["passed", "dtype"], ["passed", "finite"], ["FAILED", "range"], ["FAILED", "budget"]]
    assert "0.5 away, +4.0e-01" in lines[-1]


def results(attacks, **options):
    x, y = images(40), labels(40)
    return [attack.run(cnn(), x, y, **options) for attack in attacks]


def test_the_worst_case_is_what_no_attack_has_broken():
    attacks = [FGSM(0.02), PGD(0.02, steps=3), PGD(0.02, steps=3, loss="margin")]
    found = results(attacks)
    table = evaluation.worst_case(found)
    assert table == evaluation.worst_case(found) != replace(table, robust=~table.robust)
    right = np.array([(each.predictions == each.y) & (each.predictions_clean == each.y) for each in found])
    np.testing.assert_array_equal(table.robust, right.all(axis=0))
    assert table.robust_accuracy == right.all(axis=0).mean()
    assert table.accuracy == (found[0].predictions_clean == found[0].y).mean()
    assert [name for name, _, _ in table.rows] == [str(attack) for attack in attacks]
    for k, (_, alone, together) in enumerate(table.rows):
        assert alone == right[k].mean()
        assert together == right[: k + 1].all(axis=0).mean()
    for line, row in zip(str(table).splitlines()[2:], table.rows, strict=True):
        assert line.split("  ")[0].strip() == row[0]
        assert line.endswith(f"{row[1]:6.4f}  {row[2]:6.4f}")


def test_the_worst_case_over_results_is_that_of_a_multi_attack():
    attacks = [FGSM(0.02), PGD(0.02, steps=3, random_start=False)]
    (multi,) = results([MultiAttack(attacks)], skip_misclassified=True)
    table = evaluation.worst_case(results(attacks, skip_misclassified=True))
    assert table.robust_accuracy == multi.to_json()["robust_accuracy"]


@pytest.mark.parametrize(("change", "name"), [
    ({"y": labels(40, seed=9)}, "y"), ({"target": labels(40)}, "target"), ({"norm": "l2"}, "norm"),
    ({"predictions_clean": labels(40, seed=8)}, "predictions_clean"),
])
def test_results_of_different_things_have_no_worst_case(change, name):
    (result,) = results([FGSM(0.02)])
    with pytest.raises(ValueError, match=f"but their {name} differ"):
        evaluation.worst_case([result, replace(result, **change)])


def test_no_results_have_no_worst_case():
    for nothing in ([], [DeepFool(steps=1).run(cnn(), images(0), labels(0))]):
        with pytest.raises(ValueError, match="results must hold"):
            evaluation.worst_case(nothing)


def test_what_is_no_image_or_no_result_is_told():
    x = np.full((3, 1, 2, 2), 0.5, np.float32)
    result = FGSM(0.1).run(nn.Sequential(nn.Flatten(), nn.Linear(4, 2, rng=0)), x, np.zeros(3, int))
    for wrong, message in ((lambda: evaluation.validate(result, x, eps=0.1), "give result.x_adv"),
                           (lambda: evaluation.worst_case({"FGSM": result}), r"got str: of a dict, give its values"),
                           (lambda: evaluation.worst_case([x]), "results must be AttackResults, got ndarray")):
        with pytest.raises(TypeError, match=message):
            wrong()
    for wrong, message in ((lambda: evaluation.validate(x, x, eps="8/255"), "eps must be a number >= 0, got '8/255'"),
                           (lambda: evaluation.validate(x, x, eps=np.nan), "eps must be a number >= 0, got nan"),
                           (lambda: evaluation.worst_case(result), "at least one AttackResult")):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_bounds_in_the_wrong_order_are_told():
    with pytest.raises(ValueError, match="bounds must be a tuple"):
        evaluation.validate(images(2), images(2), eps=0.1, bounds=(1, 0))
