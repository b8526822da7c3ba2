import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from references import in_float64

from tinyadv import Tensor, gradients, models, nn, ops
from tinyadv.backend import array_module

NETWORKS = {name: getattr(models, name) for name in (
    "SmallCNN", "LeNet", "MadryCNN", "ThresholdCNN", "IntervalCNN", "VoterCNN", "MnistResNet", "CifarCNN", "BaseCNN",
    "AirbenchCNN", "ResNet20", "MadryResNet")}
NARROW = {  # the large ones, with few filters
    "PreActResNet18": partial(models.PreActResNet18, width=8),
    "VisionTransformer": partial(models.VisionTransformer, (3, 16, 12), 4, 8, 2, 2, 12),
    "ResNet": partial(models.ResNet, "bottleneck", (1, 2, 1), 10, True, 8),
    "resnet18": partial(models.resnet18, 10, small_images=True, width=8),
    "resnet50": partial(models.resnet50, 10, small_images=True, width=8),
    "VGG": partial(models.VGG, True, 10, False, 4),
    "vgg16": partial(models.vgg16, 10, small_images=True, width=8),
    "vgg16_bn": partial(models.vgg16_bn, 10, small_images=True, width=8),
    "DenseNet": partial(models.DenseNet, (2, 1), 10, False, 4),
    "densenet121": partial(models.densenet121, 10, small_images=True, growth=4),
}
COUNTS = [  # as the sources print them, or as they follow from PyTorch's networks
    (models.SmallCNN, 824_362), (models.LeNet, 61_706), (models.MadryCNN, 3_274_634), (models.ThresholdCNN, 349_630),
    (models.IntervalCNN, 839_722), (partial(models.IntervalCNN, image_shape=(3, 32, 32)), 1_086_506),
    (models.VoterCNN, 436_426),
    (partial(models.VoterCNN, channels=2, width=64), 1_742_218),
    *((partial(models.LeNet, extra=k), count) for k, count in (
        (1, 85_186), (2, 150_978), (4, 282_562), (6, 414_146), (10, 677_314), (11, 743_106), (20, 1_335_234))),
    (partial(models.LeNet, image_shape=(3, 32, 32)), 83_126),
    (models.MnistResNet, 152_202), (models.CifarCNN, 551_466), (models.BaseCNN, 814_570),
    (models.AirbenchCNN, 1_971_640),
    (models.ResNet20, 269_722),
    (models.MadryResNet, 464_154), (partial(models.MadryResNet, width=10), 45_901_914),
    (models.PreActResNet18, 11_172_170), (models.VisionTransformer, 811_146),
    (partial(models.VisionTransformer, (1, 28, 28), 7, 64, 4, 4, 128), 139_018),
    (partial(models.VisionTransformer, (3, 224, 224), 16, 192, 12, 3, 768, 1000), 5_717_416),
    *((partial(network, **options), count) for network, counts in (
        (models.resnet18, (11_689_512, 11_181_642, 11_173_962)),
        (models.resnet50, (25_557_032, 23_528_522, 23_520_842)),
        (models.vgg16, (138_357_544, 134_301_514, 14_719_818)),
        (models.vgg16_bn, (138_365_992, 134_309_962, 14_728_266)),
        (models.densenet121, (7_978_856, 6_964_106, 6_956_298)),
    ) for options, count in zip(({}, {"num_classes": 10}, {"num_classes": 10, "small_images": True}), counts,
                                strict=True)),
]
WITH_DROPOUT = {"LeNet", "CifarCNN", "BaseCNN", "VGG"}

every_model = pytest.mark.parametrize("model", (NETWORKS | NARROW).values(), ids=(NETWORKS | NARROW).keys())


def images(model):
    shape = min(model.input_shape, (3, 32, 32))  # those made for 224x224 pixels see fewer here
    return np.random.default_rng(0).random((3, *shape), np.float32)


def size(model):
    return sum(parameter.size for parameter in model.parameters())


def test_every_network_is_tested():
    assert (NETWORKS | NARROW).keys() == set(models.__all__) - {"zoo"}


def shapes(model):
    return {name: parameter.shape for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("make", "count"), COUNTS)
def test_the_parameters_are_as_many_as_the_sources_print(make, count, monkeypatch):
    def undrawn(shape, rng):
        return np.zeros(shape, np.float32), np.zeros(shape[0], np.float32)

    monkeypatch.setattr(nn.init, "INITIALIZERS", dict.fromkeys(nn.init.INITIALIZERS, undrawn))
    assert size(make()) == count


@every_model
def test_the_summary_lists_the_layers_and_counts_the_parameters(model, capsys):
    made = model(seed=1)
    made.summary(images(made).shape[1:])
    *rows, _, total = capsys.readouterr().out.splitlines()[2:]
    assert total == f"Total parameters: {size(made):,}"
    names, outputs, counts = zip(*(re.split("  +", row) for row in rows), strict=True)
    leaves = [(name, module) for name, module in made.named_modules() if len(list(module.named_modules())) == 1]
    assert list(names) == [f"{name} ({type(module).__name__})" for name, module in leaves]
    assert outputs[-1] == "(N, 10)"
    assert [int(count.replace(",", "")) for count in counts] == [size(module) for _, module in leaves]


def test_the_parameters_are_those_of_the_described_networks():
    assert shapes(models.SmallCNN()) == {
        "0.weight": (32, 1, 3, 3), "3.weight": (64, 32, 3, 3), "7.weight": (256, 3136), "7.bias": (256,),
        "9.weight": (10, 256), "9.bias": (10,),
    }
    assert shapes(models.LeNet()) == {
        "0.weight": (6, 1, 5, 5), "0.bias": (6,), "3.weight": (16, 6, 5, 5), "3.bias": (16,), "7.weight": (120, 400),
        "7.bias": (120,), "10.weight": (84, 120), "10.bias": (84,), "12.weight": (10, 84), "12.bias": (10,),
    }
    assert shapes(models.MadryCNN()) == {
        "0.weight": (32, 1, 5, 5), "0.bias": (32,), "3.weight": (64, 32, 5, 5), "3.bias": (64,),
        "7.weight": (1024, 3136), "7.bias": (1024,), "9.weight": (10, 1024), "9.bias": (10,),
    }


@given(x=st.sampled_from([0.0, 1.0]), change=st.floats(-0.3, 0.3))
def test_the_first_thresholds_differ_by_the_same_within_03_of_black_and_white(x, change):
    pixel = np.full((1, 1, 1, 1), x, np.float32)
    moved = np.clip(pixel + np.float32(change), 0, 1)
    first = nn.Sequential(*models.ThresholdCNN().layers[:2])
    low, high, below_low, below_high = (first(moved) - first(pixel)).numpy().ravel()
    assert (low - high, below_high - below_low) == pytest.approx((0, 0), abs=1e-5)


@every_model
def test_the_seed_draws_the_weights(model):
    weights = [b"".join(array.tobytes() for array in model(**seed).state_dict().values())
               for seed in ({}, {"seed": 0}, {"seed": 1})]
    assert weights[0] == weights[1] != weights[2]
    ends = [parameter.data.ravel()[-1] for parameter in model(seed=3).parameters() if parameter.ndim > 1]
    drawn = [end for end in ends if end]  # some start as the identity
    assert len(set(drawn)) == len(drawn) > 1  # one stream, not the same for each


@every_model
def test_logits_are_float32_and_do_not_depend_on_the_batch(model):
    made = model(seed=1).eval()
    x = images(made)
    logits = made(x)
    assert (logits.shape, logits.dtype) == ((3, 10), np.float32)
    alone = np.concatenate([made(image[None]).data for image in x])
    np.testing.assert_allclose(logits.data, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    assert made(x[:0]).shape == (0, 10)


@every_model
def test_the_loss_depends_on_every_parameter_and_on_the_pixels(model):
    made = model(seed=1)
    x = Tensor(images(made))
    loss = ops.cross_entropy(made(x), np.array([1, 2, 3]), reduction="sum")
    for tensor, gradient in zip([x, *made.parameters()], gradients(loss, [x, *made.parameters()]), strict=True):
        assert (gradient.shape, gradient.dtype) == (tensor.shape, np.float32)
        assert np.isfinite(gradient).all()
        assert gradient.any()


@every_model
def test_those_with_dropout_draw_in_training_and_only_then(model, request):
    made = model(seed=1)
    x = images(made)
    one, other = made(x).data, made(x).data
    assert np.array_equal(one, other) == (request.node.callspec.id not in WITH_DROPOUT)
    made.eval()
    np.testing.assert_array_equal(made(x).data, made(x).data)


@every_model
def test_it_runs_where_its_arrays_are(model, xp, monkeypatch):
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))  # the stand-in is no device
    made, twin = in_float64(model(seed=1).eval()), in_float64(model(seed=1).eval())
    results = []
    for network, library in ((made.to("the device of xp"), xp), (twin, np)):
        x = Tensor(library.asarray(images(made).astype(np.float64)))
        logits = network(x)
        results.append((logits, *map(Tensor, gradients((logits * logits).sum(), [x]))))
    for here, on_host in zip(*results, strict=True):
        assert array_module(here.data) is xp
        np.testing.assert_allclose(here.numpy(), on_host.data, rtol=1e-9, atol=1e-9 * np.abs(on_host.data).max())


@every_model
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, model):
    saved = model(seed=3)
    saved.parameters()[-1].data.flat[:3] = [np.nan, -0.0, 1e-45]
    nn.save(saved, tmp_path / "model.npz")
    loaded = nn.load(str(tmp_path / "model.npz"))
    assert type(loaded) is type(saved)
    assert loaded.input_shape == saved.input_shape
    state, expected = loaded.state_dict(), saved.state_dict()
    assert list(state) == list(expected)
    assert all(state[name].tobytes() == array.tobytes() for name, array in expected.items())


def test_the_whitening_filters_are_orthogonal_and_each_comes_with_both_signs():
    first = models.AirbenchCNN().layers[1]
    filters = first.weight.data.astype(float).reshape(24, 12)
    np.testing.assert_array_equal(filters[12:], -filters[:12])
    unit = filters[:12] / np.linalg.norm(filters[:12], axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, np.eye(12), atol=1e-6)
    assert len(models.AirbenchCNN().frozen_parameters()) == 2


def test_its_convolutions_first_pass_on_what_they_get():
    model, x = models.AirbenchCNN(seed=1), np.random.default_rng(0).random((2, 64, 5, 5), np.float32)
    middle = model.layers[10]  # from 64 to 256 channels
    np.testing.assert_array_equal(middle(Tensor(x)).data[:, :64], x)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: models.VisionTransformer(depth=-1), "depth must be an integer >= 0, got -1"),
    (lambda: models.VisionTransformer(depth=1.5), "depth must be an integer >= 0, got 1.5"),
    (lambda: models.VisionTransformer(patch_size=4.0), "patch_size must divide the image's 32 and 32 pixels; got 4.0"),
    (lambda: models.VisionTransformer((32, 32)), r"image_shape must be \(channels, height, width\), got \(32, 32\)"),
    (lambda: models.ResNet("basic", (1, -1, 1, 1)), "the number of blocks of a stage must be an integer >= 0, got -1"),
])
def test_a_size_that_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
