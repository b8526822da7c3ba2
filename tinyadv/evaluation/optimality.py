"""How near to the best attack an attack comes, over all distances: the measure of AttackBench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np

from tinyadv.attacks import AtBudget, Attack, AttackResult
from tinyadv.evaluation.adversarial import check_alike


def at_budget(queries: int) -> Callable[[Attack], AtBudget]:
    """Make attacks comparable: at_budget(2000)(attack) keeps the nearest success within 2,000 passes of each example.

    See attacks.AtBudget.
    """
    return partial(AtBudget, queries=queries)


def optimality(results: Mapping[str, AttackResult] | Mapping[str, Mapping[str, AttackResult]]) -> dict[str, float]:
    """{name: optimality} of attacks, from {name: result} on one model, or {model: {name: result}}, all of one norm.

    Cinà et al. 2024, arXiv:2404.19460, section 2.3. Of one model, the local optimality: with A the area under the
    robust accuracy by distance of an attack, A* that of the nearest success of all attacks for each example, and eps
    the largest distance of those,

        1 - (A - A*) / (clean accuracy * eps - A*)

    where the robust accuracy is a step function and A its exact area. (AttackBench joins the steps by trapezoids, which
    for many images is the same.) An attack that is nowhere beaten has 1, one that breaks nothing within eps has 0. For
    several models the result is the global optimality, the mean of the local ones. Raises ValueError for results of
    other labels, clean predictions or norms, or of no image, TypeError unless the results have names.
    """
    if not isinstance(results, Mapping):
        raise TypeError(f'results must be a dict, such as {{"FGSM": result}}, got {type(results).__name__}')
    if not results:
        raise ValueError("results must hold at least one result, got none")
    if all(isinstance(each, Mapping) for each in results.values()):
        models = [optimality(cast(Any, each)) for each in results.values()]
        if any(each.keys() != models[0].keys() for each in models):
            raise ValueError("results must hold the same attacks for each model")
        return {name: float(np.mean([each[name] for each in models])) for name in models[0]}
    if any(isinstance(each, Mapping) for each in results.values()):
        raise TypeError("results must be all of one model, {name: result}, or all of several, {model: {name: result}}")
    alike = cast("Mapping[str, AttackResult]", results)
    check_alike(list(alike.values()))
    distances = {name: _distances(result) for name, result in alike.items()}
    best = np.minimum.reduce(list(distances.values()))
    if not len(best):
        raise ValueError("results must be of at least one image, got none")
    first = next(iter(alike.values()))
    nothing = np.where(first.reached(first.predictions_clean), 0, np.inf)  # of an attack that breaks none
    farthest = best[best < np.inf].max(initial=0)

    def area(found: np.ndarray) -> float:
        """That under the share of images whose distance is larger, from 0 to the farthest, as a step function."""
        return float(np.minimum(found, farthest).mean())

    worst, least = area(nothing), area(best)
    return {name: float(1 - (area(found) - least) / (worst - least)) if worst > least else 1.0
            for name, found in distances.items()}


def _distances(result: AttackResult) -> np.ndarray:
    """(N,): how far the nearest success is; 0 where the model is wrong from the start, and infinite without success."""
    found = np.where(result.success, result.distances, np.inf)
    return np.where(result.reached(result.predictions_clean), 0, found)
