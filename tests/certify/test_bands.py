from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from training_cases import CLASSES, fit, stripes

from tinyadv import attacks, certify, nn, ops
from tinyadv.certify import Bands
from tinyadv.certify.hiding import hide
from tinyadv.data import Dataset
from tinyadv.random import Streams


def wide_stripes(n, seed=0):
    """Stripes, repeated four times, so that many bands show them: (n, 1, 4, 12)."""
    small = stripes(n, seed)
    return Dataset(np.tile(small.images, (1, 1, 1, 4)), small.labels, "wide", CLASSES)


@pytest.fixture(scope="module")
def trained():
    model = nn.Sequential(nn.Flatten(), nn.Linear(96, 3, rng=0))
    fit(model, wide_stripes(400), lr=0.3, epochs=8, augment=Bands(4).augment)
    return model


def test_a_band_begins_at_each_column_and_goes_round():
    kept = Bands(3).kept(5)[:, 0, 0]
    assert kept.shape == (5, 5)
    assert (kept.sum(axis=0) == 3).all()
    assert (kept.sum(axis=1) == 3).all()
    assert kept[4].tolist() == [True, True, False, False, True]
    seen = Bands(3).augment(np.ones((7, 1, 2, 5), np.float32), Streams(0, range(7)))
    assert (seen[:, 0].sum(axis=(1, 2)) == 6).all()
    assert (seen[:, 1] == 0).all()


@pytest.mark.parametrize("patch", [1, 2])
def test_no_patch_changes_a_certified_image(trained, patch):
    """Every place, with patches of noise and of each grey level; the vote of all bands is the defended model."""
    test, bands = wide_stripes(25, seed=1), Bands(4)
    report = bands.certify(trained, test, patch)
    assert report.consistent
    assert 0 < float(report) <= report.accuracy
    rng, images = np.random.default_rng(0), []
    chosen = test[report.certified][:3]
    for x in chosen.images:
        for top in range(4 - patch + 1):
            for left in range(12 - patch + 1):
                for fill in (0.0, 1.0, rng.random((1, patch, patch))):
                    changed = x.copy()
                    changed[:, top:top + patch, left:left + patch] = fill
                    images.append(changed)
    labels = np.repeat(chosen.labels, len(images) // len(chosen))
    attacked = bands.certify(trained, Dataset(np.array(images, np.float32), labels, "attacked", CLASSES), patch)
    assert attacked.clean.all()


@pytest.mark.parametrize("attack", [
    attacks.Patch((2, 2), steps=10, restarts=3), attacks.Patch((2, 2), steps=10, places="all"),
    attacks.Patch((2, 2), steps=10, loss="lavan"), attacks.Patch((1, 2), steps=10, places="all"),
    attacks.Patch((3, 3), steps=10, places="all", loss="cross_entropy")], ids=str)
def test_certified_is_at_most_attacked_is_at_most_clean_under_patches(attack, trained):
    """The mean over all bands is attacked, which has gradients; what is found is put to their vote.

    Each image is half of another one, so that some have little room.
    """
    bands, (test, other) = Bands(4), (wide_stripes(60, seed=seed) for seed in (1, 2))
    test = replace(test, images=(test.images + other.images) / 2)

    def mean(x):
        parts = (ops.softmax(trained(hide(x, kept.astype(x.dtype)))) for kept in bands.kept(12))
        return ops.log(reduce(ops.add, parts))

    report = bands.certify(trained, test, max(attack.size))
    result = attack.run(mean, test.images, test.labels, seed=0)
    left = bands.certify(trained, replace(test, images=result.x_adv), max(attack.size)).clean
    assert (report.certified <= left).all()
    assert report.certified.any()
    assert (report.clean & ~left).any()


def test_a_larger_patch_certifies_less_and_a_tie_goes_to_the_lower_class(trained, monkeypatch):
    test = wide_stripes(30, seed=2)
    found = [Bands(4).certify(trained, test, patch).certified for patch in (1, 2, 3)]
    assert (found[1] <= found[0]).all()
    assert (found[2] <= found[1]).all()

    class Votes(Bands):
        def votes(self, model, images):
            return np.tile([[6, 6, 0]], (len(images), 1))

    assert Votes(1).certify(trained, Dataset(test.images[:2], np.int64([0, 1]), classes=CLASSES), 1).clean.tolist() == [
        True, False]
    # A lead of 2 votes is lost to a class of a lower number.
    for votes, certified in (([5, 3, 0], [True, False]), ([3, 5, 0], [False, False]), ([3, 6, 0], [False, True])):
        monkeypatch.setattr(Votes, "votes", lambda self, model, images, votes=votes: np.tile([votes], (len(images), 1)))
        pair = Dataset(test.images[:2], np.int64([0, 1]), classes=CLASSES)
        assert Votes(1).certify(trained, pair, 1).certified.tolist() == certified


def test_a_forward_pass_has_all_bands_of_one_image(trained):
    """The last bits of a product of matrices may depend on its size: so do no votes."""
    test, seen = wide_stripes(7, seed=3), []

    def watched(x):
        seen.append(x.shape)
        return trained(x)

    votes = Bands(4).votes(watched, test.images)
    assert seen == [(12, 2, 4, 12)] * 7
    assert votes.shape == (7, 3)
    assert (votes.sum(axis=1) == 12).all()
    assert (votes[3] == Bands(4).votes(trained, test.images[3:4])[0]).all()
    none = Bands(4).votes(trained, test.images[:0])
    assert (none.shape, none.dtype) == ((0, 3), votes.dtype)


def test_a_model_of_one_logit_is_told_to_return_two(trained):
    with pytest.raises(ValueError, match="a logit for each of two classes or more"):
        Bands(2).certify(lambda x: trained(x)[:, :1], wide_stripes(2), 1)


def test_arguments_are_checked(trained):
    for wrong in (0, True, 1.0):
        with pytest.raises(ValueError, match="width must be an integer >= 1"):
            Bands(wrong)
        with pytest.raises(ValueError, match="patch must be an integer >= 1"):
            Bands(2).certify(trained, wide_stripes(2), wrong)
    with pytest.raises(ValueError, match="dataset must hold at least one image, but wide is empty"):
        Bands(2).certify(trained, wide_stripes(2)[:0], 1)
    labels = Dataset(wide_stripes(3).images, np.int64([0, 3, 1]), classes=(*CLASSES, "other"))
    with pytest.raises(ValueError, match=r"Bands: labels must lie in \[0, 3\), .* got labels from 3 to 3"):
        Bands(2).certify(trained, labels, 1)
    assert repr(Bands(np.int64(4))) == "Bands(width=4)"
    assert certify.Bands is Bands


def test_an_image_without_votes_is_not_right():
    test = Dataset(np.zeros((2, 1, 4, 4), np.float32), np.array([0, 1]), "none", CLASSES)
    report = Bands(1).certify(lambda x: x.reshape(len(x), -1)[:, :len(CLASSES)] * np.nan, test, patch=1)
    assert not report.clean.any()
    assert not report.certified.any()
