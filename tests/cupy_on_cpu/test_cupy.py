"""On the real CuPy, attacks and training compute what they compute on NumPy, also on the second GPU."""

import importlib
import inspect

import numpy as np
import pytest
import strict_device
from attack_cases import check_budget, cnn, every_attack, images, stage

from tinyadv import Tensor, analysis, data, driver, evaluation, gradients, nn, ops, training
from tinyadv.attacks import FGSM, PGD, MultiAttack, Transfer, least_likely_class, paste, universal_patch
from tinyadv.backend import to_device, to_host
from tinyadv.certify import Ablation, Interval, Smoothing, Zonotope, crown_worst
from tinyadv.defenses import TrapdoorDetector, Trapdoors
from tinyadv.random import Streams

pytestmark = pytest.mark.cupy


@every_attack
def test_an_attack_on_a_model_on_the_second_gpu_finds_the_points_of_numpy(attack):
    _, x, y, target = stage("cnn", targeted=False)
    expected = attack.run(cnn(), x, y, target=target, seed=9)
    result = attack.run(cnn().to("cuda:1"), x, y, target=target, seed=9)
    check_budget(attack, x, result.x_adv)
    np.testing.assert_allclose(result.x_adv, expected.x_adv, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(result.success, expected.success)
    np.testing.assert_array_equal(result.predictions, expected.predictions)


@pytest.mark.parametrize("where", ["cuda", "cuda:1"])
def test_results_lie_where_the_images_were(where):
    _, x, y, _ = stage("cnn", targeted=False)
    for norm, eps in (("linf", 0.1), ("l2", 1.0)):
        attack = PGD(eps, steps=2, norm=norm, restarts=2)
        expected = attack(cnn(), x, y)
        for model in (cnn(), cnn().to("cuda"), cnn().to("cuda:1")):
            found = attack(model, to_device(x, where), to_device(y, where))
            assert str(found.device) == f"<CUDA Device {where == 'cuda:1':d}>"
            np.testing.assert_allclose(to_host(found), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", [
    training.Standard(), training.Adversarial(PGD(0.1, steps=2)), training.Mixed(FGSM(0.1)),
    training.TRADES(0.1, steps=2), training.Certified(0.1), training.CROWNIBP(0.1),
], ids=lambda method: type(method).__name__)
def test_training_on_the_second_gpu_ends_near_the_weights_of_numpy(method):
    train, test = data.digits(64, 16)
    states = []
    for device in ("cpu", "cuda:1"):
        model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, rng=0), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                              nn.Flatten(), nn.Linear(144, 10, rng=1)).to(device)
        training.fit(model, train, epochs=1, optimizer=nn.optim.SGD(model, 0.05, momentum=0.9), method=method,
                     batch_size=32, clip_norm=1.0, average=0.9, validation=test, eps_schedule=training.ramp(0.5))
        states.append(model.state_dict())
        assert 0 <= evaluation.accuracy(model, test) <= 1
    for name, expected in states[0].items():
        np.testing.assert_allclose(states[1][name], expected, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("rule", [nn.optim.SGD, nn.optim.Adam, lambda model: nn.optim.SGD(model, momentum=0.9)])
def test_an_optimiser_follows_a_model_from_device_to_device(rule):
    x, states = images(3), []
    for devices in ("cpu", "cpu", "cpu"), ("cpu", "cuda", "cuda:1"):
        model = cnn().eval()
        optimizer = rule(model)
        for device in devices:
            model.to(device)
            optimizer.zero_grad()
            ops.cross_entropy(model(to_device(x, device)), to_device(np.arange(3), device)).backward()
            optimizer.step()
        states.append(model.state_dict())
    for name, expected in states[0].items():
        np.testing.assert_allclose(states[1][name], expected, rtol=0, atol=1e-4, err_msg=name)
    model.load_state_dict({name: to_device(array, "cuda:1") for name, array in states[0].items()})
    np.testing.assert_equal(model.state_dict(), states[0])


def detector(device):
    trapdoors = Trapdoors(5, (1, 8, 8), side=2)
    signatures = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    return trapdoors, TrapdoorDetector(cnn().eval().to(device), signatures, np.full(5, 0.1), sharpness=1.0)


def zonotope_worst(x, y, device):
    low, high = (to_device(np.clip(x + e, 0, 1), device) for e in (-0.01, 0.01))
    weights = [to_device(np.random.default_rng(k).normal(size=s).astype(np.float32), device)
               for k, s in enumerate(((6, 64), (5, 6)))]
    z = ops.linear(ops.relu(ops.linear(ops.flatten(Zonotope(low, high, terms=2)), weights[0])), weights[1])
    return z.worst(to_device(y, device)).data


ON_ARRAYS = {  # of the images x, the labels y and the device where all of them are
    "multi": lambda x, y, d: MultiAttack([FGSM(0.1), PGD(0.1, steps=2)])(cnn().to(d), x, y),
    "transfer": lambda x, y, d: Transfer(cnn(), FGSM(0.1))(cnn().to(d), x, y),
    "transfer to the host": lambda x, y, d: Transfer(cnn().to(d), FGSM(0.1))(cnn(), x, y),
    "predict": lambda x, y, d: evaluation.predict(cnn(), x),
    "accuracy": lambda x, y, d: np.array(evaluation.accuracy(
        cnn().to(d), data.Dataset(to_host(x), to_host(y), "some"))),
    "logits of nothing": lambda x, y, d: driver.logits(cnn().to(d), x[:0]),
    "logits of nothing elsewhere": lambda x, y, d: driver.logits(cnn().to(d), to_host(x[:0])),
    "first error": lambda x, y, d: analysis.first_error(cnn(), x, "l2", cells=9),
    "first error of labels": lambda x, y, d: analysis.first_error(cnn().to(d), x, x, y, cells=9),
    "landscape": lambda x, y, d: analysis.landscape(cnn(), x, None, x, x, to_device(np.array([0.0, 0.1]), d)),
    "saliency": lambda x, y, d: analysis.saliency(cnn().to(d), x),
    "guided saliency": lambda x, y, d: analysis.guided_saliency(cnn(), x),
    "grad_cam": lambda x, y, d: analysis.grad_cam(cnn().to(d), x),
    "sensitivity": lambda x, y, d: analysis.fourier_sensitivity(cnn().to(d), x, norm=1.0),
    "universal patch": lambda x, y, d: universal_patch(cnn(), x, y, size=(2, 2), steps=2),
    "paste": lambda x, y, d: paste(x, x[0, :, :2, :2]),
    "least likely": lambda x, y, d: least_likely_class(cnn(), x),
    "inject": lambda x, y, d: detector(d)[0].inject(x, y),
    "flagged": lambda x, y, d: detector(d)[1].flagged(x),
    "interval": lambda x, y, d: Interval(x, to_device(to_host(x) + 1, d)).low.data,
    "interval worst": lambda x, y, d: Interval.around(x.reshape(len(x), -1), 0.1).worst(y).data,
    "zonotope": lambda x, y, d: zonotope_worst(to_host(x), to_host(y), d),
    "crown": lambda x, y, d: crown_worst(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 6, rng=0), nn.ReLU(), nn.Linear(6, 5, rng=1)).to(d)(
            Interval.around(x, 0.01)), y).data,
    "argmax": lambda x, y, d: Tensor(x).argmax(),
    "vary": lambda x, y, d: Smoothing(0.1).vary(x, Streams(0, range(len(x)))),
    "ablate": lambda x, y, d: Ablation(9).vary(x, Streams(0, range(len(x)))),
    "rings": lambda x, y, d: analysis.radial_mean(x[0, 0]),
    "spectrum": lambda x, y, d: analysis.noise_spectrum(x),
}


@pytest.mark.parametrize("run", ON_ARRAYS.values(), ids=ON_ARRAYS)
def test_a_function_of_arrays_on_the_second_gpu_finds_what_it_finds_on_the_host(run):
    x, y = images(6), np.arange(6) % 5
    expected = run(x, y, "cpu")
    found = to_host(run(to_device(x, "cuda:1"), to_device(y, "cuda:1"), "cuda:1"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("one", "other"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda:1", "cuda"), ("cuda", "cuda:1")])
def test_arrays_in_two_memories_are_an_error_that_says_where_they_lie(one, other):
    x, y = to_device(images(2), one), to_device(np.arange(2), other)
    first, second = (device.replace("cuda", "cuda:0") if device == "cuda" else device for device in (one, other))
    model, there = nn.Sequential(nn.Flatten(), nn.Linear(64, 5, rng=0)).to(other), to_device(images(2), other)
    calls = [lambda: model(x), lambda: Tensor(x) + there, lambda: ops.concatenate([x, there], axis=0)]
    if one == "cpu":  # a GPU takes indices from elsewhere
        calls.append(lambda: ops.cross_entropy(x.reshape(2, -1), y))
    for run in calls:
        with pytest.raises((TypeError, ValueError), match=f"; they lie on {first} and {second}.*: move one, by model"):
            run()


def test_layers_and_gradients_by_hand_run_on_the_second_gpu():
    x = images(3)
    found, expected = (
        gradients(ops.cross_entropy(cnn().eval().to(device)(there), to_device(np.arange(3), device)), [there])[0]
        for device in ("cuda:1", "cpu") for there in [Tensor(to_device(x, device))])
    np.testing.assert_allclose(to_host(found), expected, rtol=1e-4, atol=1e-6)


def test_a_label_that_is_no_class_costs_infinitely_much():
    """No error: the GPU would have to be waited for."""
    logits, labels = to_device(np.zeros((2, 3), np.float32), "cuda"), to_device(np.array([1, 3]), "cuda")
    np.testing.assert_allclose(to_host(ops.cross_entropy(logits, labels, "none").data), [np.log(3), np.inf], rtol=1e-6)
    _, x, _, _ = stage("cnn", targeted=False)
    with pytest.raises(ValueError, match=r"y: labels must lie in \[0, 5\)"):
        FGSM(0.1)(cnn().to("cuda"), x, np.full(len(x), 5))


def test_the_strict_stand_in_refuses_what_no_signature_of_cupy_has():
    cupy = importlib.import_module("cupy")
    functions = [getattr(cupy, name) for name in strict_device.FUNCTIONS]
    keywords = [set(inspect.signature(each).parameters) for each in functions if not isinstance(each, cupy.ufunc)]
    assert len(keywords) > 50
    assert not strict_device.LACKING & set().union(*keywords)
    x = cupy.ones(3)
    for call in (lambda: cupy.exp(x, where=x > 0), lambda: x.sum(where=x > 0), lambda: x.max(initial=0)):
        with pytest.raises(TypeError):  # these have no signature, and are asked
            call()


def test_the_stand_in_computes_what_numpy_computes():
    cupy, rng = importlib.import_module("cupy"), np.random.default_rng(0)
    x = rng.standard_normal((3, 700)).astype(np.float32)
    there = cupy.asarray(x)
    np.testing.assert_allclose(there.sum(axis=1).get(), x.sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(there.cumsum(axis=1).get(), x.cumsum(axis=1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose((there @ there.T).get(), x @ x.T, rtol=1e-4)
    np.testing.assert_array_equal(cupy.flatnonzero(there > 0).get(), np.flatnonzero(x > 0))
    for name in ("argmax", "argmin", "argsort"):
        np.testing.assert_array_equal(getattr(there, name)(axis=1).get(), getattr(x, name)(axis=1))
    np.testing.assert_array_equal(cupy.sort(there, axis=0).get(), np.sort(x, axis=0))
    assert (cupy.asarray(np.float32([1e-39])) * 1).get() == 0  # denormal: CuPy's kernels flush them
    with pytest.raises(ValueError, match=r"device where the array resides \(1\) is different from the current"):
        cupy.abs(to_device(x, "cuda:1"))
