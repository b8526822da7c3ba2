import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from attack_cases import TinyAutoAttack
from certify_cases import all_kinds, images, logits_of
from training_cases import fit, stripes

from tinyadv import Tensor, attacks, certify, defenses, nn, no_grad, ops
from tinyadv.certify.accuracy import METHODS, sound_box
from tinyadv.data import Dataset
from tinyadv.nn import StateError
from tinyadv.random import in_hand

every_method = pytest.mark.parametrize("method", METHODS)
EPS = 0.12


@pytest.fixture(scope="module")
def trained():
    """A network, and images of which some can be certified and some attacked."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, init="ibp", rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Linear(48, 8, init="ibp", rng=rng), nn.ReLU(), nn.Linear(8, 3, rng=rng))
    fit(model, stripes(300), lr=0.1, epochs=4)
    return model.eval(), stripes(120, seed=1)


@every_method
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
def test_what_overflows_in_the_network_is_not_certified(method):
    """Its bounds are in float64, where it does not: there class 0 wins."""
    first, last = nn.Linear(4, 2), nn.Linear(2, 2)
    first.weight.data = np.float32([[2e30] * 4, [1e30] * 4])
    last.weight.data = np.float32([[1e30, -1e30], [0, 0]])
    for layer in first, last:
        layer.bias.data = np.zeros(2, np.float32)
    data = Dataset(np.full((1, 1, 2, 2), 0.9, np.float32), np.zeros(1, np.int64), classes=("0", "1"))
    report = certify.certified_accuracy(nn.Sequential(nn.Flatten(), first, last), data, 0.0, method=method)
    assert (report.certified.sum(), report.clean.sum()) == (0, 0)


@dataclass(frozen=True)
class Brighter(attacks.Attack):
    """A quarter brighter, exactly, whatever the model."""

    norm = "linf"
    minimum_norm = True

    def perturb(self, batch):
        return batch.x + np.float32(0.25)


def test_a_success_at_a_distance_of_exactly_eps_counts():
    def brightness(x):  # two classes, on both sides of 5/8
        mean = ops.mean(ops.flatten(x), axis=1, keepdims=True) - 0.625
        return ops.concatenate([-mean, mean], axis=1)

    data = Dataset(np.full((1, 1, 2, 2), 0.5, np.float32), np.zeros(1, np.int64), classes=("dark", "bright"))
    for eps, attacked in (0.25, False), (0.125, True):
        report = certify.certified_accuracy(brightness, data, eps, attack=Brighter())
        assert (report.attacked.tolist(), report.clean.tolist()) == ([attacked], [True])


@every_method
@pytest.mark.parametrize("attack", [
    attacks.PGD(EPS, steps=20), attacks.FGSM(EPS), attacks.APGD(EPS, steps=20, loss="dlr"),
    attacks.MIFGSM(EPS, steps=5), attacks.Square(EPS, queries=100), attacks.FAB(norm="linf", steps=10, eps=EPS),
    attacks.FAB(norm="linf", steps=10), attacks.FMN(norm="linf", steps=40), attacks.DeepFool(norm="linf"),
    attacks.BIM(EPS, steps=10), attacks.PDPGD(steps=30), attacks.BrendelBethge(norm="linf", queries=60, steps=12),
    attacks.HopSkipJump(norm="linf", queries=100, initial_directions=4), TinyAutoAttack(EPS),
    attacks.MultiAttack([attacks.FGSM(EPS), attacks.PGD(EPS, steps=5)]),
], ids=str)
def test_certified_is_at_most_attacked_is_at_most_clean_for_each_image(method, attack, trained):
    report = certify.certified_accuracy(*trained, EPS, method=method, attack=attack)
    assert report.consistent
    assert (report.certified <= report.attacked).all()
    assert (report.attacked <= report.clean).all()
    assert 0 < float(report) <= report.robust_accuracy < report.accuracy


@every_method
def test_a_larger_budget_certifies_less_and_eps_0_what_is_right(method, trained):
    found = [certify.certified_accuracy(*trained, eps, method=method).certified for eps in (0.0, 0.05, EPS, 0.5)]
    for less, more in zip(found[1:], found, strict=False):
        assert (less <= more).all()
    assert (found[0] == certify.certified_accuracy(*trained, 0.0).clean).mean() > 0.98  # but for near ties
    assert not found[-1].all()


def test_the_same_images_are_certified_in_any_shards_on_any_number_of_workers(trained):
    model, test = trained
    found = [certify.certified_accuracy(model, test, EPS, batch_size=size, workers=workers).certified
             for size, workers in ((None, None), (7, 1), (50, 2))]
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()


def test_the_box_holds_every_float32_image_within_eps():
    x = images((1, 4, 4))
    for eps in (0.0, 0.1, 1 / 3, 8 / 255):
        box = sound_box(x, eps, (0.0, 1.0))
        for direction in (-1, 1):
            y = np.clip(x + direction * np.float32(eps), 0, 1)
            for _ in range(3):  # the float32 numbers around the end of the ball
                y = np.nextafter(y, np.float32(direction * 9))
            for _ in range(9):
                inside = (np.abs(y.astype(float) - x) <= eps) & (y >= 0) & (y <= 1)
                assert ((box.low.data <= y) & (y <= box.high.data))[inside].all()
                y = np.nextafter(y, np.float32(-direction * 9))
        assert (box.low.data >= 0).all()
        assert (box.high.data <= 1).all()


def test_a_margin_within_the_rounding_error_is_not_certified():
    """The two logits are equal in exact arithmetic, and float32 decides by the order of summation."""
    weight = np.repeat(np.random.default_rng(0).normal(size=(1, 400)).astype(np.float32), 2, axis=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(400, 2, bias=False))
    model.layers[1].weight.data = weight
    for gap, expected in ((0.0, False), (1e-7, False), (0.1, True)):
        model.layers[1].weight.data = weight + np.float32([[gap], [0]])
        data = Dataset(np.ones((1, 1, 20, 20), np.float32), np.zeros(1, np.int64), classes=("a", "b"))
        assert certify.certified_accuracy(model, data, 0.0).certified[0] == expected


@every_method
@pytest.mark.parametrize("constant", [-1024, np.int64(-1024), np.float32(-1024), np.int16([-1024] * 16)], ids=type)
def test_what_float32_rounds_away_is_not_certified(method, constant):
    x = np.float32(0.5) + images((1, 4, 4), 60) * np.float32(1e-5)
    for model in (lambda x: ops.add(ops.flatten(x), constant), lambda x: constant + ops.flatten(x),
                  lambda x: ops.flatten(x) - (-constant)):
        labels = logits_of(model, x.astype(float)).argmax(axis=1)
        report = certify.certified_accuracy(model, Dataset(x, labels), 0.0, method=method)
        assert report.consistent
        assert report.accuracy < 1


@every_method
@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_model_that_draws_at_inference_is_not_certified(method, at, trained):
    """The bounds are those of one draw, and the next image is seen through another."""
    model, test = trained
    layers = [*model.layers[:at], nn.GaussianNoise(0.5, at_test=True), *model.layers[at:]]
    for drawing in (nn.Sequential(*layers), lambda x: nn.Sequential(*layers)(x)):
        with pytest.raises(ValueError, match="GaussianNoise draws random numbers at inference"):
            certify.certified_accuracy(drawing, test, 0.1, method=method)
    with pytest.raises(ValueError, match="SHIELD draws random numbers at inference"):
        certify.certified_accuracy(nn.Sequential(defenses.SHIELD(), model), test, 0.1, method=method)
    layers[at] = nn.GaussianNoise(0.5)
    found = certify.certified_accuracy(nn.Sequential(*layers), test, 0.1, method=method)
    assert (found.certified == certify.certified_accuracy(model, test, 0.1, method=method).certified).all()


class Draws(nn.Module):
    """Asks the streams in hand for numbers in one of several ways."""

    def __init__(self, way):
        self.way = way

    def forward(self, x):
        return x + self.way(in_hand(), x.shape[1:])


@pytest.mark.parametrize("layer", [
    nn.Dropout(0.5), nn.GaussianNoise(0.5), Draws(lambda streams, shape: streams.normal(shape)),
    Draws(lambda streams, shape: streams.spawn(1).normal(shape)), Draws(lambda streams, shape: streams[:1].seed),
    Draws(lambda streams, shape: streams.of_pass(0).uniform(shape)),
], ids=lambda layer: type(layer).__name__)
def test_a_layer_that_draws_is_named_however_it_draws_and_in_training_mode_too(layer, trained):
    """The layers of a function stay in the mode that they are in."""
    message = f"^{type(layer).__name__} draws random numbers at inference"
    with pytest.raises(ValueError, match=message):
        certify.certified_accuracy(lambda x: trained[0](layer.train()(x)), trained[1], 0.1)
    if isinstance(layer, Draws):
        with pytest.raises(ValueError, match=message):
            certify.certified_accuracy(nn.Sequential(layer, trained[0]), trained[1], 0.1)
        with pytest.raises(ValueError, match=r"^the model draws random numbers at inference"):
            certify.certified_accuracy(lambda x: x + layer.way(in_hand(), x.shape[1:]), trained[1], 0.1)
    else:
        assert layer.calls == 0
        certify.certified_accuracy(nn.Sequential(layer, trained[0]), trained[1], 0.1)  # in evaluation mode


@pytest.mark.parametrize(("factor", "bounds", "message"), [
    (255, (0.0, 1.0), r"x must lie in bounds=\(0.0, 1.0\), got .*for grey levels of 0 to 255, give x / 255"),
    (1, (0.2, 0.7), r"x must lie in bounds=\(0.2, 0.7\)"),
    (1, (1, 0), r"bounds must be a tuple \(low, high\) of numbers with low < high, got \(1, 0\)"),
    (np.nan, (0.0, 1.0), "x must be numbers"),
])
def test_images_outside_of_the_bounds_are_not_certified(factor, bounds, message, trained):
    """The box of such an image would be empty, or without the image."""
    model, test = trained
    other = Dataset(test.images * np.float32(factor), test.labels, classes=test.classes)
    with pytest.raises(ValueError, match=message):
        certify.certified_accuracy(model, other, 0.1, bounds=bounds)


@every_method
def test_a_model_of_one_logit_is_told_to_return_two(method, trained):
    """It is above no other one, so every image would be certified."""
    for model in (lambda x: trained[0](x)[:, :1], lambda x: ops.linear(ops.flatten(x), np.ones((1, 12), np.float32))):
        with pytest.raises(ValueError, match="a logit for each of two classes or more"):
            certify.certified_accuracy(model, trained[1], 0.1, method=method)


def test_arguments_are_checked(trained):
    with pytest.raises(ValueError, match=r"method must be one of ibp.*; got 'magic'"):
        certify.certified_accuracy(*trained, 0.1, method="magic")
    for eps in (-1, "0.1", None, np.zeros(2), np.inf, np.nan, True):
        message = re.escape(f"eps must be a number >= 0, in the units of the data; got {eps!r}")
        with pytest.raises(ValueError, match=message):
            certify.certified_accuracy(*trained, eps)
    with pytest.raises(ValueError, match="dataset must hold at least one image, but stripes-train is empty"):
        certify.certified_accuracy(trained[0], trained[1][:0], 0.1)
    pair = trained[1].images, trained[1].labels
    for call in (lambda: certify.certified_accuracy(trained[0], pair, 0.1),
                 lambda: certify.Bands(2).certify(trained[0], pair, 1),
                 lambda: certify.Smoothing(0.5).certify(trained[0], pair),
                 lambda: certify.Ablation(4).predict(trained[0], pair)):
        with pytest.raises(TypeError, match=r"dataset must be a data.Dataset, got tuple: make one by data.Dataset\(im"):
            call()
    with pytest.raises(TypeError, match=r"attack must be an attack, such as .*got 0.1"):
        certify.certified_accuracy(*trained, 0.1, attack=0.1)
    for attack in (attacks.PGD(0.3), attacks.PGD(EPS, norm="l2"), attacks.PGD(EPS, bounds=(-1, 1)), attacks.DDN(),
                   attacks.SparseRS(3, queries=5)):
        with pytest.raises(ValueError, match="attack must have the budget of the certificate, linf eps="):
            certify.certified_accuracy(*trained, EPS, attack=attack)
    with pytest.raises(TypeError, match="gelu has no bound of its rounding"):
        certify.certified_accuracy(lambda x: trained[0](ops.gelu(x)), trained[1], 0.1)


def test_nothing_is_left_behind(trained):
    model = all_kinds().train()
    before, test = model.state_dict(), Dataset(images((1, 8, 8)), np.arange(3), classes=tuple("abcd"))
    certify.certified_accuracy(model, test, 0.1)
    assert model.training
    assert all((before[name] == array).all() for name, array in model.state_dict().items())
    with no_grad():
        model.eval()(Tensor(test.images))


def test_a_report_prints_as_a_table_and_survives_a_file(trained, tmp_path):
    report = certify.certified_accuracy(*trained, EPS, attack=attacks.FGSM(EPS))
    lines = str(report).splitlines()
    assert lines[0].startswith("stripes-train, linf eps=0.12")
    assert [line.split()[0] for line in lines[1:]] == ["clean", "FGSM(eps=0.12)", "certified"]
    for one in (report, certify.certified_accuracy(*trained, EPS)):
        one.save(tmp_path / "report.npz")
        again = certify.CertifiedReport.load(tmp_path / "report.npz")
        assert repr(again) == repr(one)
        assert again == one != replace(one, clean=~one.clean)
        assert all(np.array_equal(getattr(again, name), getattr(one, name))
                   for name in ("certified", "clean", "attacked"))
    trained[0].eval()
    nn.save(nn.ReLU(), tmp_path / "model.npz")
    with pytest.raises(StateError, match="certified report"):
        certify.CertifiedReport.load(tmp_path / "model.npz")
    bad = certify.CertifiedReport("ibp", 0.1, "linf", "data", np.zeros(3, bool), np.zeros(2, bool))
    bad.save(tmp_path / "bad.npz")
    with pytest.raises(StateError, match="not a certified report"):
        certify.CertifiedReport.load(tmp_path / "bad.npz")
    for changes in ({"eps": "0.1"}, {"clean": report.clean.astype(float)}, {"clean": None}, {"method": 3},
                    {"attacked": report.attacked[:, None]}):
        replace(report, **changes).save(tmp_path / "bad.npz")
        with pytest.raises(StateError, match="not a certified report"):
            certify.CertifiedReport.load(tmp_path / "bad.npz")


def test_a_model_that_bounds_cannot_flow_through_is_told():
    test = stripes(3)
    for method in METHODS:
        with pytest.raises(TypeError, match=r"operations of tinyadv, .* but it returned ndarray: certify"):
            certify.certified_accuracy(lambda x: np.zeros((len(x), 3)), test, eps=0.1, method=method)
