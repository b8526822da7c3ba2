import pickle
import re
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from statistics import NormalDist

import hypothesis.strategies as st
import numpy as np
import pytest
from attack_cases import TinyAutoAttack
from certify_cases import images
from hypothesis import given, settings
from training_cases import fit, stripes

from tinyadv import Tensor, attacks, certify, driver, gradients, nn, ops
from tinyadv.certify import Ablation, CertifiedRadii, Smoothing, hidden
from tinyadv.certify.ablation import met
from tinyadv.certify.sampling import Sampled
from tinyadv.data import Dataset
from tinyadv.nn import StateError
from tinyadv.random import Streams

CERTIFICATES = [Smoothing(0.5, choose=20, samples=300), Ablation(4, choose=20, samples=300)]
each_certificate = pytest.mark.parametrize("certificate", CERTIFICATES, ids=repr)


def base(certificate, seed=0):
    channels = 2 if certificate.norm == "l0" else 1
    model = nn.Sequential(nn.Flatten(), nn.Linear(12 * channels, 3, rng=np.random.default_rng(seed)))
    fit(model, stripes(300), lr=0.3, epochs=6, augment=certificate.augment)
    return model


def found(certificate, model, test, **options):
    return certificate.certify(model, test, **options)


@each_certificate
def test_an_image_has_the_same_certificate_alone_and_on_any_number_of_workers(certificate):
    model, test = base(certificate), stripes(12, seed=1)
    one, two = (found(certificate, model, test, seed=3, workers=workers) for workers in (1, 2))
    first = found(certificate, model, test[:5], seed=3)
    for name in ("predictions", "radii"):
        assert (getattr(one, name) == getattr(two, name)).all()
        assert (getattr(one, name)[:5] == getattr(first, name)).all()
    if certificate.norm == "l2":  # in l0 radii are integers, and most are alike
        assert (one.radii != found(certificate, model, test, seed=4).radii).any()
    assert one.accuracy > 0.5
    assert (one.radii[one.abstained] == 0).all()


@each_certificate
def test_a_constant_model_has_the_largest_radius_that_so_many_samples_can_prove(certificate):
    test = stripes(3)

    def constant(x):
        return ops.flatten(x)[:, :3] * 0 + np.float32([0, 1, 0])

    report = found(certificate, constant, test)
    share, _ = certificate.shares(np.array([0, 300, 0]), 1)
    assert share == pytest.approx((certificate.alpha / (3 if certificate.norm == "l0" else 1)) ** (1 / 300))
    assert (report.predictions == 1).all()
    assert (report.radii == certificate.radius(share, (1, 4, 3))).all()
    assert (certificate.predict(constant, test).predictions == 1).all()


def test_a_model_of_no_opinion_abstains():
    def coin(x):  # which of two pixels is brighter, where both are as bright
        rows = ops.flatten(x)
        return ops.concatenate([rows[:, :1], rows[:, 1:2]], axis=1)

    flat = Dataset(np.full((20, 1, 4, 3), 0.5, np.float32), np.zeros(20, np.int64), classes=("a", "b"))
    certificate = Smoothing(0.5, samples=300)
    for report in (certificate.certify(coin, flat), certificate.predict(coin, flat)):
        assert report.abstained.mean() > 0.9
        assert (report.abstained == (report.predictions == -1)).all()


def test_every_version_is_drawn_anew_for_the_choice_the_bound_and_the_prediction_of_each_image():
    """Bounds from versions that have chosen the class, or that come twice, would not hold with probability 1 - alpha.
    """
    seen, flat = [], Dataset(np.full((3, 1, 4, 3), 0.5, np.float32), np.zeros(3, np.int64), classes=("a", "b", "c"))

    def watched(x):
        seen.append(x.data.reshape(len(x), -1))
        return ops.flatten(x)[:, :3]

    certificate = Smoothing(0.5, choose=200, samples=300)
    certificate.certify(watched, flat, workers=1)
    certificate.predict(watched, flat, workers=1)
    assert len(np.concatenate(seen)) == 3 * (200 + 300 + 300)
    assert len(np.unique(np.concatenate(seen), axis=0)) == 3 * (200 + 300 + 300)


def test_the_radius_of_a_linear_model_is_at_most_the_distance_to_its_boundary_and_comes_near_it():
    rng = np.random.default_rng(0)
    w, sigma = rng.normal(size=12).astype(np.float32), 0.5

    def model(x):
        score = ops.linear(ops.flatten(x), w[None])
        return ops.concatenate([-score, score], axis=1)

    x = rng.normal(size=(8, 1, 4, 3)).astype(np.float32) * 0.3
    scores = x.reshape(8, -1).astype(float) @ w
    exact = np.abs(scores) / np.linalg.norm(w)
    test = Dataset(x, (scores > 0).astype(np.int64), classes=("a", "b"))
    for samples, gap in ((100, 0.4), (4000, 0.07)):
        report = Smoothing(sigma, samples=samples).certify(model, test)
        ceiling = sigma * NormalDist().inv_cdf(certify.clopper_pearson(samples, samples, 0.001))
        assert (report.radii <= exact).all()
        assert (report.radii >= np.minimum(exact - gap, ceiling - gap)).all()


def test_the_probability_to_meet_a_changed_pixel_is_that_of_all_choices_of_a_small_image():
    for keep in range(1, 7):
        masks = list(combinations(range(6), keep))
        for changed in range(7):
            share = sum(any(pixel < changed for pixel in mask) for mask in masks) / len(masks)
            assert met(changed, 6, keep) == pytest.approx(share, abs=1e-15)
    assert met(1, 784, 45) == pytest.approx(45 / 784)
    expected = {(20, 0.7): 8, (20, 0.99): 25, (45, 0.8): 6, (45, 0.99): 11, (85, 0.7): 1, (85, 0.95): 5}
    for (keep, share), radius in expected.items():
        assert Ablation(keep).radius(share, (1, 28, 28)) == radius


def test_no_change_of_so_many_pixels_changes_the_vote_of_a_small_image():
    """All masks, all images of 0 and 1, of 6 pixels, and random models of three classes: by brute force."""
    keep, rng = 2, np.random.default_rng(1)
    masks = np.array([[i in mask for i in range(6)] for mask in combinations(range(6), keep)])
    grid, certified = np.array(list(product((0, 1), repeat=6)), np.float32), {1: 0, 2: 0}
    for bias in ([1.0, 0, 0], [2.0, 0, 0], [2.5, 1, 0.5]):
        weight, shares = rng.normal(size=(3, 12)) + np.array(bias)[:, None], []
        for image in grid:
            seen = hidden(np.broadcast_to(image, (len(masks), 1, 1, 6)), masks[:, None, None]).reshape(len(masks), 12)
            shares.append(((seen @ weight.T).argmax(axis=1)[:, None] == np.arange(3)).mean(axis=0))
        votes = np.argmax(shares, axis=1)
        for image, share, vote in zip(grid, shares, votes, strict=True):
            second, first = np.sort(share)[-2:]
            for number, proven in ((1, {}), (2, {"other": second})):
                if first > proven.get("other", 1 - first):
                    radius = Ablation(keep).radius(first, (1, 1, 6), **proven)
                    assert (votes[np.abs(grid - image).sum(axis=1) <= radius] == vote).all()
                    certified[number] += radius
    assert 0 < certified[1] < certified[2]  # the shares of the others prove more


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_the_bounds_of_the_shares_hold_at_once_as_often_as_promised(weights, seed):
    shares, rng = np.array(weights) / sum(weights), np.random.default_rng(seed)
    for certificate in (replace(each, alpha=0.1) for each in CERTIFICATES):
        held = 0
        for votes in rng.multinomial(certificate.samples, shares, size=100):
            least, most = certificate.shares(votes, 0)
            held += least <= shares[0] and (np.delete(shares, 0) <= most).all()
        assert held >= 100 * 0.9 - 15  # five standard deviations


@each_certificate
def test_versions_whose_logits_are_nan_count_as_votes_for_no_class(certificate):
    """Else a class of half of the versions would be certified as if it were that of all."""
    def half(x):  # the others are NaN
        rows = ops.flatten(x)
        return rows[:, :3] * 0 + np.where(rows.data[:, :1] > level, np.nan, np.float32([1, 0, 0])).astype(np.float32)

    def always(x):
        return ops.flatten(x)[:, :3] * np.nan

    level = np.float32(0.25)  # of the noisy pixel, or of a pixel of 0.5 that half of the versions keep
    certificate = certificate if certificate.norm == "l2" else replace(certificate, keep=6)
    x = np.full((5, 1, 4, 3), 0.25 if certificate.norm == "l2" else 0.5, np.float32)
    flat = Dataset(x, np.zeros(5, np.int64), classes=("a", "b", "c"))
    report = certificate.certify(half, flat)
    most = certificate.radius(0.6, (1, 4, 3), 0.4 if certificate.norm == "l2" else 0.0)
    assert (report.radii <= most).all()
    for report in (certificate.certify(always, flat), certificate.predict(always, flat)):
        assert report.abstained.all()


@each_certificate
def test_a_model_of_one_logit_is_told_to_return_two(certificate):
    for call in (certificate.certify, certificate.predict):
        with pytest.raises(ValueError, match="a logit for each of two classes or more"):
            call(lambda x: ops.flatten(x)[:, :1], stripes(3))


def test_the_radius_at_the_edges():
    smoothing, ablation = Smoothing(0.5), Ablation(4)
    assert smoothing.radius(1.0, (1, 4, 3)) == np.inf
    for certificate in (smoothing, ablation):
        assert certificate.radius(0.4, (1, 4, 3)) == 0
        assert certificate.radius(0.3, (1, 4, 3), 0.3) == 0
    assert ablation.radius(1.0, (1, 4, 3)) == ablation.radius(1 - 1e-9, (1, 4, 3)) > 0
    with pytest.raises(ValueError, match="keep must be at most the 12 pixels"):
        Ablation(45).radius(1.0, (1, 4, 3))


def test_of_two_classes_one_bound_is_enough():
    certificate, votes = Ablation(4, samples=300), np.array([250, 50])
    least, most = certificate.shares(votes, 0)
    assert (least, most) == Smoothing(0.5, samples=300).shares(votes, 0)
    assert certificate.shares(np.array([250, 50, 0]), 0)[0] < least


def test_so_many_pixels_are_kept_each_as_often_as_any_other():
    x = images((3, 4, 4), 2000)
    seen = Ablation(5).vary(x, Streams(0, range(2000)))
    kept = (seen[:, :3] + seen[:, 3:]).round(3)
    assert (kept == kept[:, :1]).all()
    assert (kept[:, 0].sum(axis=(1, 2)) == 5).all()
    assert np.allclose(seen[:, :3], x * kept)
    counts = kept[:, 0].sum(axis=0)
    chi = ((counts - 2000 * 5 / 16) ** 2 / (2000 * 5 / 16 * 11 / 16)).sum()
    assert chi < 40  # 15 degrees of freedom


@cache
def attacked(certificate):
    """A model for this certificate, images, and what is certified of them."""
    model, test = base(certificate), stripes(60, seed=2)
    return model, test, certificate.certify(model, test)


@pytest.mark.parametrize("attack", [
    *(attacks.PGD(eps, norm="l2", steps=20) for eps in (0.3, 0.4, 0.5)), attacks.FGSM(0.4, norm="l2"),
    attacks.MIFGSM(0.4, norm="l2", steps=10), attacks.APGD(0.4, norm="l2", steps=10), attacks.DeepFool(steps=10),
    attacks.FAB(norm="l2", steps=5), attacks.DDN(steps=30), attacks.FMN(norm="l2", steps=30), attacks.PDGD(steps=20),
    attacks.CarliniWagner(binary_search_steps=2, steps=15, lr=0.1, initial_c=1.0), attacks.PDPGD(norm="l2", steps=20),
    attacks.BrendelBethge(queries=60, steps=12), attacks.Square(0.8, norm="l2", queries=60),
    attacks.BoundaryAttack(queries=60), attacks.HopSkipJump(queries=60, initial_directions=4),
    TinyAutoAttack(0.4, norm="l2")], ids=str)
def test_certified_is_at_most_attacked_under_attacks_in_l2(attack):
    """The vote is attacked through 100 versions of each image; what is found is put to a vote of new versions.

    So is the point on the way to it, or beyond, that is as far from the image as its certificate reaches.
    """
    certificate = Smoothing(0.3, choose=20, samples=300)
    model, test, report = attacked(certificate)
    clean = certificate.predict(model, test).correct
    result = attack.run(certificate.smoothed(model), test.images, test.labels, seed=0)
    assert (clean & ~certificate.predict(model, replace(test, images=result.x_adv), seed=1).correct).any()
    steps = result.x_adv.astype(float) - test.images
    lengths = np.linalg.norm(steps.reshape(60, -1), axis=1)
    within = report.correct & (lengths > 0)
    scales = np.where(within, report.radii / np.where(within, lengths, 1), 0)
    ends = (test.images + scales[:, None, None, None] * steps).astype(np.float32)
    again = certificate.predict(model, replace(test, images=ends), seed=1)
    assert (again.correct | again.abstained)[within].all()
    assert within.any()


@each_certificate
def test_no_random_change_within_the_certified_radius_changes_the_vote(certificate):
    model, test = base(certificate), stripes(10, seed=2)
    report = found(certificate, model, test)
    rng, certified = np.random.default_rng(0), (report.radii > 0).nonzero()[0]
    assert len(certified) >= 5
    for i in certified:
        x, y, radius = test.images[i], report.predictions[i], report.radii[i]
        for _ in range(3):
            step = rng.normal(size=x.shape)
            if certificate.norm == "l2":
                other = x + step * (0.95 * radius / np.linalg.norm(step))
            else:
                places = rng.permutation(x.size)[:int(radius)]
                other = x.copy()
                other.flat[places] = rng.integers(0, 2, len(places))
            moved = Dataset(other[None].astype(np.float32), np.int64([y]), classes=test.classes)
            assert certificate.predict(model, moved).predictions[0] in (y, -1)


@each_certificate
def test_the_vote_that_is_attacked_is_the_mean_over_versions_and_has_their_slope(certificate):
    model, x = base(certificate), images((1, 4, 3), 2)
    vote = certificate.smoothed(model, samples=7, seed=3)
    for image, logits in zip(x, vote(Tensor(x)).data, strict=True):
        seen = certificate.vary(np.repeat(image[None], 7, axis=0), Streams(3, range(7)))
        np.testing.assert_allclose(np.exp(logits), ops.softmax(model(Tensor(seen))).data.mean(axis=0), atol=1e-6)
    point, step = Tensor(x.astype(float)), np.random.default_rng(0).normal(size=x.shape)
    (slope,) = gradients(vote(point)[:, 1].sum(), [point])
    ahead, behind = (vote(Tensor(x + way * step)).data[:, 1].sum() for way in (1e-4, -1e-4))
    assert (slope * step).sum() == pytest.approx((ahead - behind) / 2e-4, rel=0.01)


def test_an_attack_on_the_vote_leaves_the_base_model_as_it_was_and_can_be_sent_to_other_processes():
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.BatchNorm1d(3)).train(), images((1, 4, 3), 4)
    before, vote = model.state_dict(), Smoothing(0.5).smoothed(model, samples=5)
    results = [attacks.PGD(0.5, steps=2)(each, x, np.int64([0, 1, 2, 0]))
               for each in (vote, pickle.loads(pickle.dumps(vote)))]
    np.testing.assert_array_equal(*results)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("attack", [
    attacks.SparseRS(3, queries=60), attacks.SparseRS(5, queries=60), attacks.SigmaZero(steps=60),
    attacks.FGSM(3, norm="l0"), attacks.MIFGSM(4, norm="l0", steps=5), attacks.PGD(4, norm="l0", steps=10),
    attacks.FMN(norm="l0", steps=30), attacks.Patch((2, 2), steps=10), attacks.Patch((4, 1), steps=10, places="all"),
], ids=repr)
def test_certified_is_at_most_attacked_is_at_most_clean_under_attacks_that_count_pixels(attack):
    """What they find is put to the vote of all sets of 4 of 12 pixels: so it is exact, and not a sample.

    So is what is left of it if only as many pixels change as are certified.
    """
    certificate = Ablation(4, choose=20, samples=2000, alpha=0.01)
    model, test, report = attacked(certificate)
    masks = np.float32([[i in kept for i in range(12)] for kept in combinations(range(12), 4)]).reshape(-1, 1, 4, 3)

    def winners(x):
        seen = certificate.show(Tensor(x.repeat(len(masks), axis=0)), np.tile(masks, (len(x), 1, 1, 1)))
        votes = model(seen).data.argmax(axis=1).reshape(len(x), -1)
        return (votes[:, :, None] == np.arange(3)).sum(axis=1).argmax(axis=1)

    result = attack.run(certificate.smoothed(model, samples=200), test.images, test.labels, seed=0)
    changed = (result.x_adv != test.images).any(axis=1, keepdims=True)
    order = changed.reshape(60, -1).cumsum(axis=1).reshape(changed.shape)
    within = np.where(order <= report.radii[:, None, None, None], result.x_adv, test.images)
    assert (within != test.images).any()
    assert (winners(within) == report.predictions)[~report.abstained].all()
    clean, broken = winners(test.images) == test.labels, 0
    for radius in range(1, 6):
        certified = report.correct & (report.radii >= radius)
        left = clean & ((winners(result.x_adv) == test.labels) | (result.distances > radius))
        assert (certified <= left).all()
        assert certified.any() or radius > 1
        broken += (clean & ~left).sum()
    assert broken > 0


@pytest.mark.parametrize(("call", "missing"), [
    (lambda each: each.draw((1, 4, 3), Streams(0, [0])), "draw(shape, streams)"),
    (lambda each: each.show(Tensor(images((1, 4, 3))), None), "show(x, drawn)"),
    (lambda each: each.radius(0.9, (1, 4, 3)), "radius(share, shape, other)"),
])
def test_a_certificate_that_lacks_a_part_says_so(call, missing):
    with pytest.raises(TypeError, match=re.escape(f"Sampled defines no {missing}")):
        call(Sampled())


def test_a_report_prints_draws_a_curve_and_survives_a_file(tmp_path):
    certificate = CERTIFICATES[0]
    report = found(certificate, base(certificate), stripes(20, seed=1))
    assert str(report).startswith("Smoothing(choose=20, samples=300, alpha=0.001, sigma=0.5)")
    assert "median radius" in str(report)
    curve = report.curve([0, 0.2, 0.4, 9])
    assert list(curve.values()) == sorted(curve.values(), reverse=True)
    assert curve[0.0] == report.accuracy
    assert curve[9.0] == 0
    report.save(tmp_path / "radii.npz")
    again = certify.CertifiedRadii.load(tmp_path / "radii.npz")
    assert repr(again) == repr(report)
    assert again == report != replace(report, radii=report.radii + 1)
    assert (again.radii == report.radii).all()
    nn.save(nn.ReLU(), tmp_path / "model.npz")
    with pytest.raises(StateError, match="certified radii"):
        certify.CertifiedRadii.load(tmp_path / "model.npz")
    for changes in ({"seed": "3"}, {"labels": report.labels[:3]}, {"radii": report.labels}):
        replace(report, **changes).save(tmp_path / "bad.npz")
        with pytest.raises(StateError, match="not certified radii"):
            certify.CertifiedRadii.load(tmp_path / "bad.npz")


@pytest.mark.parametrize(("votes", "alpha", "confirmed"), [
    ((9, 1, 0), 0.022, True), ((9, 1, 0), 0.021, False), ((0, 1, 9), 0.022, True), ((5, 5, 0), 0.9, False)])
def test_a_prediction_is_confirmed_by_the_two_sided_test_at_alpha(votes, alpha, confirmed, monkeypatch):
    """Of 10 votes for two classes, 9 or more for one of them have a probability of 2 * 11 / 2**10 = 0.0215."""
    monkeypatch.setattr(Smoothing, "_votes", lambda *_: np.array(votes))
    report = Smoothing(0.5, alpha=alpha).predict(lambda x: ops.flatten(x)[:, :3], stripes(1))
    assert report.predictions.tolist() == [int(np.argmax(votes)) if confirmed else -1]


def test_a_radius_counts_where_it_is_reached_and_that_of_a_wrong_class_is_none():
    report = certify.CertifiedRadii("by hand", "l2", 0, "three", np.array([0, 0, 0, 0]), np.array([0, 1, -1, 0]),
                                    np.array([3.0, 9.0, 0.0, 1.0]))
    assert report.curve([0, 1, 2, 3, 4]) == {0: 0.5, 1: 0.5, 2: 0.25, 3: 0.25, 4: 0}
    assert report.median_radius == 0  # of -1, -1, 1 and 3
    assert report.accuracy == 0.5


@pytest.mark.parametrize(("norm", "largest", "rows"), [
    ("l2", 0, ["0"]), ("l0", 0, ["0"]), ("l0", 1, ["0", "1"]), ("l0", 3, ["0", "1", "2", "3"]),
    ("l0", 10, ["0", "2", "4", "6", "8", "10"]), ("l2", 0.5, ["0", "0.1", "0.2", "0.3", "0.4", "0.5"])])
def test_the_radii_of_the_table_are_those_that_there_can_be(norm, largest, rows):
    report = certify.CertifiedRadii("by hand", norm, 0, "two", np.zeros(2, int), np.zeros(2, int),
                                    np.array([0.0, largest]))
    head, *printed = str(report).splitlines()[2:]
    assert head.split()[0] == "radius"
    assert [line.split()[0] for line in printed] == rows


def test_a_prediction_certifies_nothing_and_is_equal_to_itself(tmp_path):
    certificate = CERTIFICATES[0]
    report = certificate.predict(base(certificate), stripes(20, seed=1))
    assert report.accuracy > 0.5
    assert report.certified_accuracy(0.0) == 0
    assert np.isnan(report.median_radius)
    assert str(report).splitlines()[1].endswith("abstained 0.00%, predicted, not certified")
    assert len(str(report).splitlines()) == 2
    assert report == report
    report.save(tmp_path / "predicted.npz")
    assert CertifiedRadii.load(tmp_path / "predicted.npz") == report
    assert report != replace(report, radii=np.zeros(20))


def test_the_base_model_is_trained_on_what_it_will_see(tmp_path):
    certificate = CERTIFICATES[1]
    model, train = base(certificate), stripes(32)
    options = {"augment": certificate.augment, "checkpoint": tmp_path / "run.npz", "resume": True}
    fit(model, train, **options)
    with pytest.raises(StateError, match="augment"):
        fit(model, train, **options | {"augment": Ablation(3).augment})
    assert attacks.FGSM(0.1)(lambda x: model(ops.concatenate([x, 1 - x], axis=1)), train.images, train.labels).shape


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Smoothing(0), "sigma must be a number above 0"),
    (lambda: Smoothing(np.inf), "sigma must be a number above 0, got inf"),
    (lambda: Smoothing(0.5, samples=0), "samples must be an integer >= 1, got 0"),
    (lambda: Smoothing(0.5, choose=True), "choose must be an integer >= 1, got True"),
    (lambda: Smoothing(0.5).smoothed(nn.Flatten(), samples=0), "samples must be an integer >= 1, got 0"),
    (lambda: Smoothing(0.5).smoothed(nn.Flatten(), seed=-1), r"seed must be an integer in \[0, 2\*\*64\), got -1"),
    (lambda: Smoothing(0.5).certify(nn.Flatten(), stripes(3)[:0]), "dataset must hold at least one image"),
    (lambda: Smoothing(0.5).predict(nn.Flatten(), stripes(3)[:0]), "dataset must hold at least one image"),
    (lambda: Ablation(True), "keep must be an integer >= 1, got True"),
    *((lambda alpha=alpha: Smoothing(0.5, alpha=alpha), rf"alpha must be a number in \(0, 1\), got {alpha!r}")
      for alpha in (1, 0, True, "0.001", None, np.nan)),
    (lambda: Ablation(0), "keep must be an integer >= 1"),
    (lambda: Ablation(17).vary(images((1, 4, 4)), Streams(0, range(3))), "keep must be at most the 16 pixels"),
])
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("share", [-0.1, 1.5, 60])
def test_a_share_is_a_fraction(share):
    for certificate in CERTIFICATES:
        with pytest.raises(ValueError, match=rf"share must be a number in \[0, 1\], got {share}"):
            certificate.radius(share, (1, 4, 3))


def test_a_radius_has_the_digits_of_float64_whatever_the_parameters():
    one, other = (Smoothing(kind(0.1), alpha=kind(0.001)) for kind in (np.float32, lambda x: float(np.float32(x))))
    assert one == other
    assert repr(one) == repr(other)
    assert all(type(one.radius(p, (1, 4, 3))) is float and one.radius(p, (1, 4, 3)) == other.radius(p, (1, 4, 3))
               for p in (0.6, 0.9, 0.99))


@each_certificate
@pytest.mark.parametrize("of", ["certify", "predict"])
def test_labels_are_classes_of_the_model(certificate, of):
    wrong = replace(stripes(6), labels=np.full(6, 3), classes=tuple("abcd"))
    with pytest.raises(ValueError, match=rf"{type(certificate).__name__}: labels must lie in \[0, 3\)"):
        getattr(certificate, of)(base(certificate), wrong)


def test_8_bit_images_are_not_hidden():
    with pytest.raises(ValueError, match="images must be a floating-point array, got uint8"):
        hidden(np.ones((1, 1, 2, 2), np.uint8), np.ones((1, 1, 2, 2), bool))


def test_counts_may_be_integers_of_numpy():
    expected = Ablation(4, choose=20, samples=300)
    assert Ablation(np.int64(4), choose=np.int32(20), samples=np.uint16(300)) == expected == CERTIFICATES[1]
    assert repr(Ablation(np.int64(4))) == repr(Ablation(4))


def test_a_result_with_a_seed_of_numpy_is_saved(tmp_path):
    result = Smoothing(0.5, choose=5, samples=20).certify(base(CERTIFICATES[0]), stripes(2), seed=np.int64(3))
    result.save(tmp_path / "radii.npz")
    assert certify.CertifiedRadii.load(tmp_path / "radii.npz").seed == 3


def test_the_vote_of_a_random_base_model_is_attacked_and_depends_on_no_other_image():
    """Each version of each image has its own noise in the base model, the same in every pass."""
    model = nn.Sequential(nn.GaussianNoise(0.3, at_test=True, seed=0), base(CERTIFICATES[0])).eval()
    vote, test = Smoothing(0.5).smoothed(model, samples=6), stripes(5)
    attack = attacks.PGD(0.3, steps=3)
    whole = attack(vote, test.images, test.labels, seed=0, batch_size=2)
    again = attack(vote, test.images, test.labels, seed=0, workers=2, batch_size=2)
    assert np.array_equal(whole, again)
    assert (whole != test.images).any()
    logits = driver.logits(vote, test.images, batch_size=1)
    np.testing.assert_allclose(driver.logits(vote, test.images, batch_size=5), logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(driver.logits(vote, test.images, batch_size=1), logits)


@pytest.mark.parametrize("certificate", [Smoothing(0.2), Ablation(5)], ids=repr)
def test_images_on_a_device_are_varied_there_as_on_the_host(certificate, xp):
    x = np.random.default_rng(0).random((3, 1, 5, 4), np.float32)
    found = certificate.vary(xp.asarray(x), Streams(1, range(3)))
    assert isinstance(found, xp.ndarray)
    np.testing.assert_array_equal(Tensor(found).numpy(), certificate.vary(x, Streams(1, range(3))))
