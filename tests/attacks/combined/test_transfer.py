"""Examples crafted on one model, and scored on another."""

import numpy as np
import pytest
from attack_cases import (
    check_budget,
    cnn,
    dense,
    images,
    labels,
    on_device,
    predictions,
    reached,
    stage,
    targeted_or_not,
)

from tinyadv.attacks import FGSM, PGD, AttackResult, DeepFool, MultiAttack, Transfer
from tinyadv.backend import to_host

each = pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.5, steps=3, norm="l2"), DeepFool(steps=5)],
                               ids=lambda attack: type(attack).__name__)


@targeted_or_not
@each
def test_the_points_are_the_surrogates_and_the_verdict_is_the_models(attack, targeted):
    model, x, y, target = stage("cnn", targeted)
    surrogate = cnn(seed=5)
    transfer = Transfer(surrogate, attack)
    result = transfer.run(model, x, y, target=target, seed=4)
    made = attack.run(surrogate, x, y, target=target, seed=4)
    assert result.x_adv.tobytes() == made.x_adv.tobytes()
    assert result.x_adv.tobytes() == transfer(model, x, y, target=target, seed=4).tobytes()
    check_budget(attack, x, result.x_adv)
    np.testing.assert_array_equal(result.predictions, predictions(model, result.x_adv))
    np.testing.assert_array_equal(result.predictions_clean, predictions(model, x))
    np.testing.assert_array_equal(result.success, reached(result.predictions, y, target))
    np.testing.assert_array_equal(result.distances, made.distances)
    assert (result.attack, result.norm, result.seed) == (transfer, attack.norm, 4)
    assert (result.success != made.success).any()


@each
def test_on_the_surrogate_itself_it_is_the_attack(attack):
    model, x, y, _ = stage("cnn", False)
    result, alone = (each.run(model, x, y) for each in (Transfer(model, attack), attack))
    assert result.x_adv.tobytes() == alone.x_adv.tobytes()
    np.testing.assert_array_equal(result.success, alone.success)


@each
def test_what_is_skipped_is_what_the_model_gets_wrong(attack):
    model, x, y, _ = stage("cnn", False)
    surrogate, wrong = cnn(seed=5), predictions(model, x) != y
    assert ((predictions(surrogate, x) != y) != wrong).any()
    result = Transfer(surrogate, attack).run(model, x, y, skip_misclassified=True)
    assert result.x_adv[wrong].tobytes() == x[wrong].tobytes()
    np.testing.assert_allclose(result.x_adv[~wrong], attack(surrogate, x, y)[~wrong], rtol=0, atol=1e-5)


def test_the_model_is_asked_for_nothing_but_the_verdict():
    """No gradients: its logits may be an array as well."""
    asked, (model, x, y, _) = [], stage("cnn", False)

    def black_box(points):
        asked.append(len(points))
        return model(points).data

    result = Transfer(cnn(seed=5), FGSM(0.1)).run(black_box, x, y)
    assert sum(asked) == 2 * len(x)
    assert (result.forwards == 1).all()
    assert (result.backwards == 0).all()


def test_it_may_be_one_of_several_attacks():
    model, x, y, _ = stage("cnn", False)
    attack = MultiAttack([Transfer(cnn(seed=5), FGSM(0.05)), FGSM(0.05)])
    result = attack.run(model, x, y, quantize=False)
    assert (result.success >= FGSM(0.05).run(model, x, y).success).all()


def test_model_surrogate_and_data_may_lie_in_different_memories(xp):
    _, x, y, _ = stage("cnn", False)
    expected = Transfer(cnn(5), FGSM(0.1)).run(cnn(), x, y)
    for model, surrogate, data in [(on_device(cnn(), xp), cnn(5), x), (cnn(), on_device(cnn(5), xp), xp.asarray(x))]:
        result = Transfer(surrogate, FGSM(0.1)).run(model, data, y, skip_misclassified=False)
        assert type(result.x_adv) is type(data)
        np.testing.assert_allclose(to_host(result.x_adv), expected.x_adv, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(result.success, expected.success)


@pytest.mark.parametrize(("surrogate", "attack", "message"), [
    ("a model", FGSM(0.1), "surrogate must be a model, got 'a model'"),
    (FGSM(0.1), cnn(), r"surrogate must be a model, got FGSM\("),
    (cnn(), "FGSM", "Transfer is made of attacks, got .*FGSM"),
])
def test_what_is_no_model_or_no_attack_is_refused(surrogate, attack, message):
    with pytest.raises(ValueError, match=message):
        Transfer(surrogate, attack)


def test_no_images_are_no_problem():
    assert Transfer(cnn(5), FGSM(0.1)).run(cnn(), images(0), labels(0), skip_misclassified=True).x_adv.shape[0] == 0


def test_a_loaded_result_saves_its_images_within_the_bounds_of_the_attack(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4)).astype(np.float32)
    attack = Transfer(dense((1, 4, 4), 3), PGD(20.0, 5.0, 3, bounds=(0.0, 255.0)))
    result = attack.run(dense((1, 4, 4), 3), x, labels(3, 3), quantize=True)
    result.save(tmp_path / "result.npz")
    again = AttackResult.load(tmp_path / "result.npz")
    np.testing.assert_array_equal(again.save_images(tmp_path / "images"), result.success)
