"""What the attacks share that see decisions alone: their start, their queries, and that no more is known to them."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from attack_cases import dense, images, predictions, rows

from tinyadv import Tensor
from tinyadv.attacks import BoundaryAttack, HopSkipJump

SHAPE = (1, 4, 5)  # for which there is noise of single pixels and of squares of two: 40 queries at most
ATTACKS = [BoundaryAttack(), HopSkipJump(initial_directions=10), HopSkipJump(initial_directions=10, norm="linf")]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{type(attack).__name__}-{attack.norm}")


def scene(count=6, dtype=np.float64, seed=0):
    """Images, their classes, and a model of three."""
    model, x = dense(SHAPE, 3, dtype, seed=seed), images(count, SHAPE, dtype, seed)
    return model, x, predictions(model, x)


def decisions(model):
    """The model's classes, one-hot, as an array: all that these attacks may need."""
    return lambda x: np.eye(3)[model(x).data.argmax(axis=1)]


@every_attack
def test_decisions_are_all_they_see(attack):
    model, x, y = scene()
    for target in (None, (y + 1) % 3):
        by_logits, by_decisions = (
            replace(attack, queries=150).run(f, x, y, target=target, seed=2) for f in (model, decisions(model)))
        assert by_logits.x_adv.tobytes() == by_decisions.x_adv.tobytes()
        np.testing.assert_array_equal(by_logits.predictions, by_decisions.predictions)
        assert not by_logits.backwards.any()


@every_attack
def test_no_example_is_shown_to_the_model_more_often_than_it_says(attack):
    """However few the queries are; and the report is exact: what counts is what the model has seen of each example."""
    model, x, y = scene(4)

    def counted(points):
        seen.append(len(points.data))
        return model(points)

    for queries in (2, 3, 11, 12, 13, 30, 31, 50, 51, 77, 120, 300):
        seen = []
        result = replace(attack, queries=queries).run(counted, x, y, seed=3)
        assert sum(seen) == result.forwards.sum()
        assert result.forwards.max() <= queries
        least = queries if isinstance(attack, BoundaryAttack) else queries - 20  # less than HopSkipJump needs to step
        assert (result.forwards[result.success] >= least).all()


@every_attack
def test_an_example_of_a_long_run_does_not_depend_on_its_batch(attack):
    model, x, y = scene(7)
    whole = replace(attack, queries=400).run(model, x, y, seed=4, batch_size=7)
    for batch_size in (1, 3):
        parts = replace(attack, queries=400).run(model, x, y, seed=4, batch_size=batch_size)
        np.testing.assert_array_equal(parts.forwards, whole.forwards)
        np.testing.assert_allclose(parts.x_adv, whole.x_adv, rtol=0, atol=1e-9)
    assert whole.success.all()


@every_attack
def test_the_result_is_the_nearest_of_the_adversarial_points_asked_for(attack):
    model, x, y = scene()
    nearest = np.full(len(x), np.inf)

    def look(step):
        wrong = predictions(model, step.points) != y[step.examples]
        far = attack_distance(attack, step.points - x[step.examples])
        nearest[step.examples[wrong]] = np.minimum(nearest[step.examples[wrong]], far[wrong])

    result = replace(attack, queries=200).run(model, x, y, seed=5, callback=look)
    assert result.success.all()
    np.testing.assert_allclose(result.distances, nearest, rtol=1e-12)


def attack_distance(attack, perturbation):
    return np.linalg.norm(rows(perturbation), axis=1, ord=np.inf if attack.norm == "linf" else 2)


@every_attack
def test_more_queries_come_nearer(attack):
    model, x, y = scene(12)
    few, more, many = (np.median(replace(attack, queries=queries).run(model, x, y, seed=6).distances)
                       for queries in (45, 200, 1000))
    assert few > more > many


@every_attack
@pytest.mark.parametrize("queries", [1, 0, 2.5, True, None])
def test_less_than_a_query_for_the_image_and_one_for_the_result_is_refused(attack, queries):
    with pytest.raises(ValueError, match=r"^queries must be an integer >= "):
        replace(attack, queries=queries)


# Starts


@every_attack
def test_noise_of_every_grain_is_tried(attack):
    """Ten blends of single pixels and, where these are all of the image's class, ten of squares of two; then both.

    That goes on, with noise alone, until a tenth of the 1000 queries is spent, the first of which was the image.
    """
    x, points = images(1, SHAPE, np.float64), []
    replace(attack, queries=1000).run(
        lambda x: Tensor(np.tile([1.0, 0.0], (len(x), 1))), x, np.zeros(1, int), callback=lambda step: points.append(
            step.points))
    assert len(points) == 99
    shares = 2 * [*np.arange(1, 11) / 10] + 79 * [1.0]
    noises = [((point - (1 - share) * x) / share)[0, 0] for point, share in zip(points, shares, strict=True)]
    for noise in noises[:10] + noises[20::2]:
        assert len(np.unique(noise.round(9))) == 20
    for noise in noises[10:20] + noises[21::2]:
        np.testing.assert_allclose(noise, np.kron(noise[::2, ::2], np.ones((2, 2)))[:, :5], rtol=0, atol=1e-9)
        assert len(np.unique(noise.round(9))) == 6
    assert 0 <= min(map(np.min, noises)) < 0.1
    assert 0.9 < max(map(np.max, noises)) <= 1


@every_attack
def test_a_network_that_sees_one_class_in_all_noise_of_single_pixels_is_still_attacked(attack):
    def model(x):
        """0 unless neighbours are alike."""
        smooth = abs(np.diff(x.data, axis=3)).mean(axis=(1, 2, 3))
        return np.stack([0 * smooth, 0.22 - smooth], axis=1)

    x = images(8, (1, 8, 8))
    assert (predictions(model, x) == 0).all()
    assert replace(attack, queries=200).run(model, x, np.zeros(8, int)).success.all()


@every_attack
@pytest.mark.parametrize("shape", [(1, 1, 6), (1, 4, 5), (12,)], ids=str)
def test_a_start_is_found_where_eight_percent_of_the_noise_will_do(attack, shape):
    """In no blend with the image, which is dark, but in noise alone, if its first pixel is above 0.92."""
    def model(x):
        return np.stack([0 * x.data.reshape(len(x), -1)[:, 0], x.data.reshape(len(x), -1)[:, 0] - 0.92], axis=1)

    x = images(20, shape) * 0.2
    result = replace(attack, queries=1500).run(model, x, np.zeros(20, int), seed=2)
    assert result.success.all()


@every_attack
def test_a_failed_start_is_a_failure_of_that_example_alone(attack):
    """A class that no noise and no blend is taken for: 20 tries, the image and the result."""
    def model(x):
        bright = x.data.reshape(len(x), -1)[:, 0]
        return np.stack([0 * bright, 1 - 2 * bright, 0 * bright - 9], axis=1)

    x = images(4, SHAPE) * 0.2 + 0.1
    result = replace(attack, queries=100).run(model, x, predictions(model, x), target=np.array([2, 0, 2, 0]))
    np.testing.assert_array_equal(result.success, [False, True, False, True])
    assert result.x_adv[::2].tobytes() == x[::2].tobytes()
    assert (result.forwards[::2] == 22).all()


@every_attack
def test_a_targeted_attack_begins_at_the_nearest_start_of_its_class(attack):
    model, x, y = scene(8)
    starts = images(40, SHAPE, np.float64, seed=9)
    classes, target = predictions(model, starts), (y + 1) % 3
    attack = replace(attack, queries=60, starts=starts)
    result = attack.run(model, x, y, target=target, seed=1)
    distances = attack_distance(attack, (x[:, None] - starts).reshape(-1, *SHAPE)).reshape(8, 40)
    distances[classes != target[:, None]] = np.inf
    reachable = np.isfinite(distances.min(axis=1))
    assert reachable.any()
    np.testing.assert_array_equal(result.success, reachable)
    assert (result.distances < distances.min(axis=1))[reachable].all()
    again = attack.run(model, x[:1], y[:1], target=target[:1], seed=1)
    np.testing.assert_allclose(again.x_adv, result.x_adv[:1], rtol=0, atol=1e-9)


@every_attack
def test_starts_of_no_use_are_a_failure(attack):
    model, x, y = scene()
    result = replace(attack, queries=50, starts=x[:1]).run(model, x[:1], y[:1])
    assert not result.success.any()
    assert result.distances.tolist() == [0]


@every_attack
@pytest.mark.parametrize(("starts", "message"), [
    (images(3, (1, 5, 4)), r"starts must be images of shape \(1, 4, 5\), like x; got \(1, 5, 4\)"),
    (np.zeros((2, *SHAPE), int), "starts must be a floating-point array .* got int64 of shape"),
    (images(0, SHAPE), "starts must be images to start from, or None for noise; got none"),
    (images(2, SHAPE).tolist(), "starts must be a floating-point array .* got list"),
    (Tensor(images(2, SHAPE)), r"starts must be a floating-point array .* got Tensor: starts.numpy\(\)"),
    (255 * images(2, SHAPE), r"starts must lie in bounds=\(0.0, 1.0\), got .* give starts / 255"),
    (np.nan * images(2, SHAPE), "starts must be numbers, but 2 of its 2 images contain NaN"),
    ("images", "starts must be a floating-point array .* got str"),
])
def test_starts_that_are_no_images_like_x_are_refused(attack, starts, message):
    model, x, y = scene()
    with pytest.raises(ValueError, match=message):
        replace(attack, starts=starts)(model, x, y)


@pytest.mark.parametrize("kind", [BoundaryAttack, HopSkipJump])
def test_an_attack_with_starts_is_a_value_too(kind):
    attack = kind(queries=7, starts=images(2, SHAPE))
    again = pickle.loads(pickle.dumps(attack))
    assert again == attack
    assert hash(again) == hash(attack)
    assert again.starts.tobytes() == attack.starts.tobytes()
    assert str(attack) == f"{kind.__name__}(queries=7)"
