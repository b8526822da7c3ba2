"""Training for votes, against its formula, and what it is for: predictions that are alike on all versions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from training_cases import fit, linear, stripes

from tinyadv import Tensor, certify, data, ops
from tinyadv.random import Streams
from tinyadv.training import Consistent, Scene, Standard, Update

SMOOTHING = certify.Smoothing(0.5)


def divergence(p, q):
    return (p * np.log(p / q)).sum(axis=1)


@given(weight=st.floats(0, 20), entropy=st.floats(0, 2), share=st.floats(0, 0.9), seed=seeds)
def test_the_loss_is_the_formula(weight, entropy, share, seed):
    train, model, rng = stripes(12, seed), linear(seed), np.random.default_rng(seed)
    versions = [Tensor(train.images + rng.normal(size=train.images.shape).astype(np.float32)) for _ in range(2)]
    method = Consistent(SMOOTHING, weight, entropy, label_smoothing=share)
    losses, logits = method.losses(model, train.labels, *versions)
    usual = np.mean([Standard(label_smoothing=share).losses(model, train.labels, x)[0].data for x in versions], axis=0)
    p, q = (ops.softmax(model(x)).data.astype(float) for x in versions)
    m = (p + q) / 2
    expected = (usual + weight * (divergence(m, p) + divergence(m, q)) / 2 - entropy * (m * np.log(m)).sum(axis=1))
    np.testing.assert_allclose(losses.data, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(logits.data, model(versions[0]).data)


@pytest.mark.parametrize("votes", [SMOOTHING, certify.Ablation(5)], ids=repr)
def test_it_trains_on_two_versions_of_each_image_that_differ(votes):
    train, given = stripes(12), []

    def update(images, labels, losses):
        given.extend(images)
        return Update(0.0, 0)

    scene = Scene(linear(), update, Streams(5, range(12)), 1.0, {})
    Consistent(votes).step(scene, train.images, train.labels)
    streams = Streams(5, range(12))
    expected = [votes.vary(train.images, streams) for _ in range(2)]
    assert len(given) == 2
    for found, version in zip(given, expected, strict=True):
        np.testing.assert_array_equal(found, version)
    assert (given[0] != given[1]).any(axis=(1, 2, 3)).all()


def test_the_predictions_on_versions_come_nearer_to_each_other():
    train, test = stripes(300), stripes(300, seed=1)

    def apart(method):
        model = linear()
        fit(model, train, lr=0.3, epochs=6, method=method)
        p, q = (ops.softmax(model(Tensor(SMOOTHING.vary(test.images, Streams(seed, range(300)))))).data.astype(float)
                for seed in range(2))
        return divergence(p, q).mean()

    assert apart(Consistent(SMOOTHING)) < 0.5 * apart(Consistent(SMOOTHING, weight=0, entropy=0))


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path):
    train, path = stripes(60), tmp_path / "run.npz"
    whole, broken = linear(), linear()
    fit(whole, train, epochs=3, method=Consistent(SMOOTHING))
    fit(broken, train, epochs=1, method=Consistent(SMOOTHING), checkpoint=path)
    fit(broken, train, epochs=3, method=Consistent(SMOOTHING), checkpoint=path, resume=True, extend=("epochs",))
    for one, other in zip(whole.state_dict().values(), broken.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="method"):
        fit(broken, train, epochs=3, method=Consistent(certify.Smoothing(0.4)), checkpoint=path, resume=True)


def test_more_samples_for_the_certificate_are_the_same_training(tmp_path):
    path, (few, many) = tmp_path / "run.npz", (certify.Smoothing(0.5, samples=n) for n in (10, 20))
    fit(linear(), stripes(60), method=Consistent(few), checkpoint=path)
    fit(linear(), stripes(60), method=Consistent(many), checkpoint=path, resume=True)
    assert Consistent(few) == Consistent(many)


def test_images_are_not_varied_twice():
    for augment in (SMOOTHING.augment, data.augment.chain(data.augment.crop(1), SMOOTHING.augment)):
        with pytest.raises(ValueError, match=r"leave out augment=votes\.augment"):
            fit(linear(), stripes(60), method=Consistent(SMOOTHING), augment=augment)
    fit(linear(), stripes(60), method=Consistent(SMOOTHING), augment=data.augment.crop(1))


@pytest.mark.parametrize(("message", "make"), [
    ("votes must be a certificate by votes", lambda: Consistent(0.5)),
    ("weight must be a number >= 0, got -1", lambda: Consistent(SMOOTHING, weight=-1)),
    ("entropy must be a number >= 0, got nan", lambda: Consistent(SMOOTHING, entropy=float("nan"))),
    ("entropy must be a number >= 0, got 'x'", lambda: Consistent(SMOOTHING, entropy="x")),
])
def test_wrong_arguments_are_named(message, make):
    with pytest.raises(ValueError, match=message):
        make()
