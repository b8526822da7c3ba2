"""What an attack of minimum norm calls a success is one however the logits are rounded: it ends beside the boundary."""

import numpy as np
import pytest
from attack_cases import name

from tinyadv import attacks, driver, ops

SEARCHES = [
    attacks.FAB(norm="l2", steps=20), attacks.FAB(norm="linf", steps=20), attacks.FAB(norm="l1", steps=20),
    attacks.FAB(norm="l2", steps=5, eps=0.3), attacks.DeepFool(), attacks.DeepFool(norm="linf", overshoot=0),
    attacks.CarliniWagner(binary_search_steps=3, steps=100, initial_c=1.0), attacks.BoundaryAttack(queries=300),
    attacks.HopSkipJump(queries=300), attacks.HopSkipJump(queries=300, norm="linf"),
    attacks.MultiAttack([attacks.DeepFool(), attacks.FAB(norm="l2", steps=5)]),
]


@pytest.mark.parametrize("offset", [0, 100], ids=["small logits", "large logits"])
@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("attack", SEARCHES, ids=name)
def test_a_success_is_one_alone_in_a_batch_and_summed_up_in_another_order(attack, targeted, offset):
    """The logits are means over the channels, plus an offset, which makes their rounding coarser and no more."""
    def model(t):
        return ops.mean(t, (2, 3)) + np.float32(offset)

    for seed in range(2):
        x = np.random.default_rng(seed).random((16, 3, 8, 8), np.float32)
        y = driver.logits(model, x).argmax(axis=1)
        target = (y + 1) % 3 if targeted else None
        result = attack.run(model, x, y, target=target, seed=seed)
        assert result.success.mean() >= (0.5 if targeted or not attack.minimum_norm else 0.7 if offset else 1)
        found = result.x_adv[result.success]
        reversed_means = found[:, :, ::-1, ::-1].transpose(2, 3, 0, 1).reshape(64, -1, 3).cumsum(axis=0)[-1] / 64
        for logits in (
            driver.logits(model, found, batch_size=1), driver.logits(model, found, batch_size=5),
            reversed_means.astype(np.float32) + np.float32(offset), found.astype(np.float64).mean(axis=(2, 3)) + offset,
        ):
            classes = logits.argmax(axis=1)
            hit = classes == target[result.success] if targeted else classes != y[result.success]
            assert hit.all()
