"""The contrastive loss against its formula, and training on trapped images."""

import itertools

import numpy as np
import pytest
from gradcheck import check_vjp
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from training_cases import linear, stripes

from tinyadv import Tensor, defenses, gradients, nn, ops, training
from tinyadv.nn.latent import latent
from tinyadv.random import Streams
from tinyadv.training.contrastive import contrast


def by_pairs(z, labels, margin):
    """The loss, written out for one pair at a time."""
    like, unlike = [], []
    for (a, one), (b, other) in itertools.combinations(zip(z, labels, strict=True), 2):
        d = np.linalg.norm(a - b)
        (like if one == other else unlike).append(d**2 if one == other else max(0, margin - d) ** 2)
    return sum(np.mean(each) for each in (like, unlike) if each)


@given(seed=seeds, n=st.integers(1, 7), margin=st.floats(0, 4), normalize=st.booleans())
def test_the_loss_is_the_formula(seed, n, margin, normalize):
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(size=(n, 3)), rng.integers(0, 3, n)
    scaled = z / np.linalg.norm(z, axis=1, keepdims=True) if normalize else z
    found = contrast(Tensor(z), labels, margin, normalize).item()
    assert found == pytest.approx(by_pairs(scaled, labels, margin), abs=1e-5)


@given(seed=seeds)
def test_it_does_not_change_with_the_order_or_under_isometries(seed):
    rng = np.random.default_rng(seed)
    z, labels, order = rng.normal(size=(6, 3)), rng.integers(0, 2, 6), rng.permutation(6)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    expected = contrast(Tensor(z), labels, 2.0).item()
    for other, classes in (z[order], labels[order]), (z @ turn + rng.normal(size=3), labels):
        assert contrast(Tensor(other), classes, 2.0).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("normalize", [False, True])
def test_its_gradient_is_that_of_differences_inside_and_beyond_the_margin(normalize):
    z = np.random.default_rng(0).normal(size=(5, 3))
    for margin in (0.5, 1.5, 9.0):
        check_vjp(lambda z, margin=margin: contrast(z, np.array([0, 1, 0, 2, 1]), margin, normalize), (z,))


@pytest.mark.parametrize("labels", [[0, 0], [0, 1]])
def test_vectors_that_coincide_have_a_gradient_that_is_a_number(labels):
    z = Tensor(np.ones((2, 3), np.float32))
    value = contrast(z, np.array(labels), 2.0)
    (g,) = gradients(value, [z])
    assert np.isfinite(g).all()
    assert value.item() == pytest.approx(4 * (labels == [0, 1]), abs=1e-4)


def test_the_latent_vectors_are_those_before_the_last_layer():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(12, 7, rng=0), nn.ReLU()), nn.Linear(7, 3, rng=1))
    x = Tensor(stripes(4).images)
    z, logits = latent(model, x)
    np.testing.assert_array_equal(z.data, model.layers[1](model.layers[0](x)).data)
    np.testing.assert_array_equal(logits.data, model(x).data)
    np.testing.assert_array_equal(nn.Latent(model)(x).data, z.data)
    with pytest.raises(TypeError, match=r"model must be an nn\.Module"):
        latent(ops.flatten, x)
    with pytest.raises(ValueError, match="model must have modules inside"):
        latent(nn.Flatten(), x)


def test_training_draws_classes_together_and_apart():
    train = stripes(160)

    def spread(method):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8, rng=0), nn.ReLU(), nn.Linear(8, 3, rng=1))
        training.fit(model, train, epochs=15, optimizer=nn.optim.Adam(model, lr=1e-2), method=method, batch_size=32)
        return contrast(nn.Latent(model)(Tensor(train.images)), train.labels, 2.0).item()

    assert spread(training.Contrastive()) < 0.7 * spread(training.Standard())


def test_a_share_of_the_images_is_trapped():
    trapdoors = defenses.Trapdoors(3, (1, 4, 3), side=2, strength=0.5, seed=1)
    train, given_to = stripes(4000), []
    scene = training.Scene(linear(), lambda *arguments: given_to.append(arguments), Streams(5, range(4000)), 1.0, {})
    training.Trapped(trapdoors, share=0.25).step(scene, train.images, train.labels)
    images, labels, _ = given_to[0]
    changed = (images != train.images).any(axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(labels[~changed], train.labels[~changed])
    expected = trapdoors.inject(train.images[changed], labels[changed])
    np.testing.assert_array_equal(images[changed], expected)
    assert np.bincount(labels[changed]).min() > 200


def test_a_trapped_image_gets_each_class_as_often():
    train, given_to = stripes(3000), []
    scene = training.Scene(linear(), lambda *arguments: given_to.append(arguments), Streams(5, range(3000)), 1.0, {})
    for share in 0.2, 1.0:
        training.Trapped(defenses.Trapdoors(3, (1, 4, 3), side=2, strength=0.5, seed=1), share).step(
            scene, train.images, train.labels)
        images, labels, _ = given_to.pop()
        counts = np.bincount(labels[(images != train.images).any(axis=(1, 2, 3))], minlength=3)
        np.testing.assert_allclose(counts, counts.mean(), rtol=0.2)


@pytest.mark.parametrize(("message", "make"), [
    ("weight must be a number >= 0, got -1", lambda: training.Contrastive(weight=-1)),
    ("weight must be a number >= 0, got 'a'", lambda: training.Contrastive(weight="a")),
    ("margin must be a number >= 0, got -2", lambda: training.Contrastive(margin=-2)),
    ("trapdoors must be Trapdoors.*, got 'x'", lambda: training.Trapped("x")),
    (r"share must be in \[0, 1\], got 1.5", lambda: training.Trapped(defenses.Trapdoors(), share=1.5)),
])
def test_a_wrong_parameter_is_refused_by_name(message, make):
    with pytest.raises(ValueError, match=message):
        make()
