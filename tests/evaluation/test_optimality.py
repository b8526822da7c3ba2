"""AttackBench's optimality where it can be computed by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyadv import evaluation
from tinyadv.attacks import FMN, PGD, AtBudget, AttackResult


def found(*distances, norm="l2", labels=None):
    """A result with these distances; None is no success, and 0 an image that is wrong from the start."""
    n = len(distances)
    result = AttackResult.blank(FMN(norm=norm), np.zeros((n, 1, 1, 1)), np.zeros(n, int), None, norm, 0)
    result.predictions_clean[:] = [each == 0 for each in distances]
    result.success[:] = [each is not None for each in distances]
    result.distances[:] = [each or 0 for each in distances]
    return result if labels is None else replace(result, y=np.array(labels))


def test_the_area_between_the_attack_and_the_best_of_all():
    """The best finds (0, 1, 2, 4): its area is 7/4 up to 4; that of the other min(., 4) = (0, 2, 4, 4), 10/4."""
    results = {"best": found(0, 1, 2, 4), "other": found(0, 2, 6, None), "none": found(0, None, None, None)}
    value = evaluation.optimality(results)
    assert value["best"] == 1
    assert value["other"] == pytest.approx(1 - (10 - 7) / (3 * 4 - 7))
    assert value["none"] == 0


def test_two_attacks_that_win_on_different_images_share_the_glory():
    """The best finds (1, 1, 3), an area of 5/3 up to 3, and each of them (1, 3, 3), 7/3."""
    value = evaluation.optimality({"a": found(1, 4, 3), "b": found(4, 1, 3)})
    assert value["a"] == value["b"] == pytest.approx(1 - (7 - 5) / (9 - 5))


def test_of_several_models_it_is_the_mean():
    one, two = {"a": found(1, 3), "b": found(2, 3)}, {"a": found(2, 2), "b": found(1, 2)}
    mean = evaluation.optimality({"one": one, "two": two})
    for name in "ab":
        assert mean[name] == pytest.approx((evaluation.optimality(one)[name] + evaluation.optimality(two)[name]) / 2)


@given(st.lists(st.lists(st.one_of(st.none(), st.floats(0.1, 9)), min_size=3, max_size=3), min_size=1, max_size=4))
def test_it_is_between_0_and_1_and_the_nearest_of_all_has_1(several):
    results = {str(k): found(*distances) for k, distances in enumerate(several)}
    nearest = [min((d for d in each if d is not None), default=None) for each in zip(*several, strict=True)]
    results |= {"all": found(*nearest), "none": found(None, None, None)}
    value = evaluation.optimality(results)
    assert all(0 <= each <= 1 for each in value.values())
    assert value["all"] == 1
    assert value["none"] in (0, 1)  # 1 where nothing is nearer than the farthest


@pytest.mark.parametrize(("results", "message"), [
    ({}, "results must hold at least one result, got none"),
    ({"a": found(1), "b": found(1, norm="l1")}, "but their norm differ"),
    ({"a": found(1), "b": found(1, labels=[3])}, "but their y differ"),
    ({"a": found()}, "results must be of at least one image, got none"),
    ({"m": {"a": found(), "b": found()}}, "results must be of at least one image, got none"),
    ({"m": {"a": found(1)}, "n": {"b": found(1)}}, "results must hold the same attacks for each model"),
])
def test_results_that_do_not_fit_are_told(results, message):
    with pytest.raises(ValueError, match=message):
        evaluation.optimality(results)


def test_at_budget_makes_attacks():
    assert evaluation.at_budget(70)(PGD(0.1)) == AtBudget(PGD(0.1), 70)


def test_the_two_forms_are_not_mixed():
    with pytest.raises(TypeError, match="results must be all of one model"):
        evaluation.optimality({"model": {"a": found(1)}, "a": found(1)})
