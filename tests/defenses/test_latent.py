"""Defences in the latent space: the nearest reference, and trapdoors with their detector."""

import numpy as np
import pytest
from attack_cases import on_device
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from training_cases import stripes

from tinyadv import Tensor, analysis, data, defenses, driver, evaluation, nn, training
from tinyadv.attacks import FGSM, PGD
from tinyadv.backend import to_host
from tinyadv.nn.latent import latent, unit


def network(seed=0, shape=(12, 8, 3)):
    first, second, last = shape
    return nn.Sequential(nn.Flatten(), nn.Linear(first, second, rng=seed), nn.ReLU(),
                         nn.Linear(second, last, rng=seed + 1))


# The nearest reference


@given(seed=seeds, normalize=st.booleans())
def test_the_logits_are_minus_the_smallest_squared_distances(seed, normalize):
    model, train, x = network(seed % 99), stripes(30, seed), stripes(5, seed + 1).images
    train = train[np.concatenate([[np.flatnonzero(train.labels == k)[0] for k in range(3)], np.arange(12)])]
    found = driver.logits(defenses.NearestLatent(model, train.images, train.labels, normalize), x)
    z, references = (driver.logits(nn.Latent(model), images).astype(float) for images in (x, train.images))
    if normalize:
        z, references = (unit(Tensor(each)).data for each in (z, references))
    for row, own in zip(z, found, strict=True):
        squares = ((row - references) ** 2).sum(axis=1)
        np.testing.assert_allclose(own, [-squares[train.labels == k].min() for k in range(3)], rtol=1e-4, atol=1e-5)


def test_the_layers_inside_are_seen_from_outside(capsys):
    """By `summary`, and by Grad-CAM."""
    maps = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, rng=0), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(3, 3, rng=1))
    train = stripes(30)
    defended = defenses.NearestLatent(maps, train.images, train.labels)
    defended.summary(train.images.shape[1:])
    assert "Conv2d" in capsys.readouterr().out
    assert analysis.grad_cam(defended, train.images[:2]).shape == (2, *train.images.shape[2:])


def test_a_defence_on_latent_vectors_has_none_of_its_own():
    train = stripes(30)
    with pytest.raises(ValueError, match="model must have modules inside"):
        latent(defenses.NearestLatent(network(), train.images, train.labels), Tensor(train.images[:2]))


def test_a_reference_is_its_own_nearest_and_attacks_run_through_the_distances():
    model, train = network(), stripes(60)
    training.fit(model, train, epochs=15, optimizer=nn.optim.Adam(model, lr=1e-2), method=training.Contrastive())
    few = np.concatenate([np.flatnonzero(train.labels == k)[:5] for k in range(3)])
    nearest = defenses.NearestLatent(model, train.images[few], train.labels[few])
    assert evaluation.accuracy(nearest, train[few]) == 1
    clean = evaluation.accuracy(nearest, train)
    assert clean > 0.9
    assert evaluation.robust_accuracy(nearest, PGD(0.4), train) < clean / 2
    assert len(nearest.parameters()) == len(model.parameters())


@pytest.mark.parametrize("labels", [[0, 2], [1, 2], [0], [0.0, 1.0], np.zeros(0, int)])
def test_references_must_hold_all_classes(labels):
    with pytest.raises(ValueError, match=r"labels must be .* hold all classes from 0 on"):
        defenses.NearestLatent(network(), stripes(2).images[:2 if len(labels) else 0], labels)


def defended(name, xp):
    """A network behind a defence in the latent space, with its weights on a device, made from images on the host."""
    model, train = on_device(network(), xp), stripes(30)
    if name == "NearestLatent":
        return defenses.NearestLatent(model, train.images, train.labels)
    trapdoors = defenses.Trapdoors(3, (1, 4, 3), side=1)
    return defenses.trapdoor_detector(model, trapdoors, train[:20], train[20:])


every_latent = pytest.mark.parametrize("name", ["NearestLatent", "trapdoor_detector"])


@every_latent
def test_the_model_may_be_on_a_device_and_the_images_on_the_host(xp, name):
    host, there, x = defended(name, np), defended(name, xp), stripes(9, 1)
    for images in x.images, xp.asarray(x.images):
        np.testing.assert_allclose(to_host(driver.logits(there, images)), driver.logits(host, x.images), rtol=1e-4,
                                   atol=1e-5)
        found = PGD(0.1, steps=3)(there, images, x.labels)
        assert type(found) is type(images)
    if name == "trapdoor_detector":
        np.testing.assert_array_equal(there.flagged(x.images), host.flagged(x.images))
        np.testing.assert_allclose(there.scores(x.images), host.scores(x.images), rtol=1e-5)


@every_latent
def test_an_image_depends_neither_on_its_batch_nor_on_threads(name):
    model, x = defended(name, np), stripes(9, 1)
    assert driver.logits(model, x.images).shape == (9, 3 + (name != "NearestLatent"))
    assert driver.logits(model, x.images).dtype == np.float32
    found = {PGD(0.1, steps=3)(model, x.images, x.labels, workers=n, batch_size=4).tobytes() for n in (1, 2, 2)}
    assert len(found) == 1
    singles = np.concatenate([driver.logits(model, x.images[i:i + 1]) for i in range(9)])
    np.testing.assert_allclose(driver.logits(model, x.images), singles, rtol=1e-5, atol=1e-6)


# Trapdoors


@given(seed=seeds, strength=st.floats(0, 1), side=st.integers(1, 3), squares=st.integers(0, 5))
def test_a_trapdoor_moves_a_pixel_by_its_strength_at_most_and_only_in_its_squares(seed, strength, side, squares):
    trapdoors = defenses.Trapdoors(4, (2, 6, 5), strength, squares, side, seed)
    x, classes = np.random.default_rng(seed).random((8, 2, 6, 5)), np.arange(8) % 4
    once = trapdoors.inject(x, classes)
    twice = trapdoors.inject(once, classes)
    assert abs(once - x).max() <= strength * (1 + 1e-6)
    assert abs(twice - once).max() <= strength * (1 + 1e-6)
    assert (once >= 0).all()
    assert (once <= 1).all()
    assert (once != x).any(axis=1).sum(axis=(1, 2)).max() <= squares * side**2
    assert once.tobytes() == np.concatenate([trapdoors.inject(x[i:i + 1], classes[i]) for i in range(8)]).tobytes()
    if not strength:
        assert once.tobytes() == x.tobytes()


@pytest.fixture(scope="module")
def trapped():
    """A network with trapdoors for the digits, its detector, trapdoors, and data that neither has seen."""
    train, test = data.digits(train=2000, test=500)
    trapdoors = defenses.Trapdoors(strength=0.5, seed=2)
    model = network(5, (784, 256, 10))
    training.fit(model, train[:1500], epochs=25, optimizer=nn.optim.Adam(model, lr=2e-3),
                 method=training.Trapped(trapdoors), seed=1)
    return model, defenses.trapdoor_detector(model, trapdoors, train[:200], train[1500:]), trapdoors, test


def test_trapped_images_are_flagged_and_clean_ones_at_the_given_rate(trapped):
    model, detector, trapdoors, test = trapped
    goals = (test.labels + 3) % 10
    lured = trapdoors.inject(test.images, goals)
    assert (evaluation.predict(model, lured) == goals).mean() > 0.9
    assert detector.flagged(lured).mean() > 0.6
    assert 0.01 <= detector.flagged(test.images).mean() <= 0.1


def test_the_thresholds_leave_the_given_rate_of_the_held_out_images(trapped):
    model, detector, trapdoors, _ = trapped
    train, _ = data.digits(train=2000, test=500)
    held_out = train[1500:]
    predicted, scores = evaluation.predict(model, held_out.images), detector.scores(held_out.images)
    for k in range(10):
        above = (scores > detector.thresholds[k])[predicted == k]
        assert abs(above.sum() - 0.05 * len(above)) < 1
    strict = defenses.trapdoor_detector(model, trapdoors, train[:200], held_out, fpr=0.01)
    assert (strict.thresholds > detector.thresholds).all()


def test_a_flag_is_one_more_class_by_the_cosine_and_the_threshold(trapped):
    model, detector, trapdoors, test = trapped
    x = np.concatenate([test.images[:50], trapdoors.inject(test.images[:50], 4)])
    predicted, found = evaluation.predict(model, x), evaluation.predict(detector, x)
    above = detector.scores(x) > detector.thresholds[predicted]
    np.testing.assert_array_equal(found, np.where(above, 10, predicted))
    np.testing.assert_array_equal(detector.flagged(x), above)


def test_the_scale_of_the_latent_vectors_does_not_matter(trapped):
    model, detector, _, test = trapped
    twin = defenses.TrapdoorDetector(model, 7 * detector.signatures, detector.thresholds)
    np.testing.assert_allclose(twin.scores(test.images[:20]), detector.scores(test.images[:20]), rtol=1e-5)


def test_the_adaptive_attack_is_flagged_less_than_the_one_that_ignores_the_detector(trapped):
    model, detector, _, test = trapped
    x, y = test.images[:60], test.labels[:60]
    target = (y + 1) % 10
    ignoring = FGSM(0.1, norm="linf").run(model, x, y)
    assert ignoring.success.any()
    plain, adaptive = (PGD(0.15, steps=60, loss="margin").run(each, x, y, target=target) for each in (model, detector))
    joint = [(evaluation.predict(detector, result.x_adv) == target).mean() for result in (plain, adaptive)]
    assert joint[0] < joint[1]
    assert joint[1] == adaptive.success.mean() > 0.8


TRAPDOORS = defenses.Trapdoors(3, (1, 4, 3), side=1)


@pytest.mark.parametrize(("message", "make"), [
    (r"strength must be in \[0, 1\], got 2", lambda: defenses.Trapdoors(strength=2)),
    ("side must be at most that of the image, 4, got 5", lambda: defenses.Trapdoors(shape=(1, 4, 6), side=5)),
    ("squares must be an integer >= 0, got -1", lambda: defenses.Trapdoors(squares=-1)),
    ("side must be an integer >= 1, got 0", lambda: defenses.Trapdoors(side=0)),
    *((message, lambda shape=shape: defenses.Trapdoors(shape=shape)) for message, shape in (
        (r"shape must be \(C, H, W\), got \(28, 28\): for grey images, \(1, H, W\)", (28, 28)),
        (r"shape must be \(C, H, W\), got 28", 28),
        ("each number of shape must be an integer >= 1, got 8.0", (1, 8.0, 8)),
        ("each number of shape must be an integer >= 1, got 0", (0, 8, 8)))),
    (r"seed must be an integer in \[0, 2\*\*64\), got -1", lambda: defenses.Trapdoors(seed=-1)),
    *((r"classes must be integer classes of shape \(6,\), .*" + got,
       lambda classes=classes: defenses.Trapdoors().inject(np.zeros((6, 1, 28, 28)), classes)) for got, classes in (
        (r"got int64 of shape \(2,\)", [0, 1]), (r"got int64 of shape \(1,\)", [1]), ("got float64", 1.0),
        (r"got int64 of shape \(6, 1\): take classes\[:, 0\]", np.ones((6, 1), int)),
        ("got bool", np.ones(6, bool)))),
    *((r"images must be .* with \(C, H, W\) = \(1, 28, 28\), as that of the trapdoors, got shape \(" + got,
       lambda shape=shape: defenses.Trapdoors().inject(np.zeros(shape), 1)) for got, shape in (
        (r"6, 3, 28, 28\)", (6, 3, 28, 28)), (r"6, 784\)", (6, 784)), (r"1, 28, 28\)", (1, 28, 28)))),
    (r"classes: labels must lie in \[0, 10\)", lambda: defenses.Trapdoors().inject(np.zeros((1, 1, 28, 28)), -1)),
    ("the number of signatures is 3, but of thresholds is 2",
     lambda: defenses.TrapdoorDetector(network(), np.ones((3, 8)), np.ones(2))),
    ("the model's number of classes is 3, but that of the trapdoors is 4",
     lambda: defenses.trapdoor_detector(network(), defenses.Trapdoors(4, (1, 4, 3), side=1), stripes(9), stripes(9))),
    ("dataset must hold at least one image, but stripes-train is empty",
     lambda: defenses.trapdoor_detector(network(), TRAPDOORS, stripes(9)[:0], stripes(9))),
    ("dataset must hold at least one image, but stripes-train is empty",
     lambda: defenses.trapdoor_detector(network(), TRAPDOORS, stripes(9), stripes(9)[:0])),
    ("the model's number of classes is 3, but that of the signatures is 4",
     lambda: defenses.TrapdoorDetector(network(), np.ones((4, 8)), np.ones(4))(Tensor(np.zeros((1, 1, 4, 3))))),
    ("the length of the latent vectors is 8, but that of the signatures is 5",
     lambda: defenses.TrapdoorDetector(network(), np.ones((3, 5)), np.ones(3))(Tensor(np.zeros((1, 1, 4, 3))))),
    (r"TrapdoorDetector: expected signatures \(K, D\)",
     lambda: defenses.TrapdoorDetector(network(), np.ones(3), np.ones(3))),
    *((f"sharpness must be a number above 0, got {wrong!r}",
       lambda wrong=wrong: defenses.TrapdoorDetector(network(), np.ones((3, 8)), np.ones(3), wrong))
      for wrong in (-5, np.nan, "a")),
    (r"fpr must be a rate in \(0, 1\), got 1", lambda: defenses.trapdoor_detector(None, None, None, None, fpr=1)),
])
def test_a_wrong_setting_is_refused_by_name(message, make):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_trapdoor_in_grey_levels_is_refused():
    with pytest.raises(ValueError, match="images must be a floating-point array, got uint8"):
        defenses.Trapdoors(3, (1, 4, 3), side=2).inject(np.ones((2, 1, 4, 3), np.uint8), 1)
