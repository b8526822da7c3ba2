import argparse
import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from attack_cases import on_device
from matplotlib.image import imread

from tinyadv import certify, data, models, nn, plots, training
from tinyadv.random import Streams

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ("--limit", "100", "--epochs", "1")
ZOO = ("mnist-lenet-linf", "mnist-lenet-natural")
TINY = {
    "fgsm_mnist.py": (*SMALL, "--eps", "0", "0.3"),
    "pgd_mnist.py": (*SMALL, "--steps", "2", "4", "--starts", "3"),
    "targeted_cw_mnist.py": (*SMALL, "--steps", "3"),
    "attacks_compared.py": (*SMALL, "--images", "2"),
    "boundary_mnist.py": (*SMALL, "--queries", "60", "--images", "2"),
    "adversarial_training_mnist.py": (*SMALL, "--robust-epochs", "1", "--steps", "2", "--images", "5"),
    "madry_mnist.py": (*SMALL, "--images", "2"),
    "madry_cifar10.py": (*SMALL, "--images", "2", "--config", str(EXAMPLES / "configs" / "cifar10-base-natural.toml")),
    "robust_features.py": ("--limit", "100", "--columns", "2", "--images", "4"),
    "pgd_steps_mnist.py": ("--limit", "100", "--steps", "1", "2", "--images", "4", "--first", ZOO[0],
                           "--second", ZOO[1]),
    "step_size_mnist.py": ("--limit", "100", "--steps", "2", "--images", "4", "--network", ZOO[0]),
    "losses_mnist.py": ("--limit", "100", "--steps", "1", "2", "--images", "4", "--natural", ZOO[1],
                        "--robust", ZOO[0]),
    "learning_curves.py": SMALL,
    "base_cifar10.py": (*SMALL, "--images", "2"),
    "deep_cifar10.py": (*SMALL, "--images", "2", "--width", "2"),
    "challenge_mnist.py": ("--limit", "100", "--steps", "2", "--starts", "2", "--few", "2", "--images", "4",
                           "--network", ZOO[0], "--natural", ZOO[1], "--robust", ZOO[0]),
    "budgets_mnist.py": ("--limit", "100", "--steps", "2", "--queries", "30", "--few", "2", "--images", "4",
                         "--natural", ZOO[1], "--linf", ZOO[0], "--l2", ZOO[0]),
    "loss_starts_mnist.py": ("--limit", "100", "--steps", "3", "--ways", "3", "--starts", "5",
                             "--natural", ZOO[1], "--robust", ZOO[0]),
    "fast_training_mnist.py": (*SMALL, "--seeds", "2", "--restarts", "2", "--images", "4"),
    "smoothing_mnist.py": ("--limit", "100", "--sigma", "0.25", "--samples", "100", "--versions", "2", "--steps", "2",
                           "--images", "3", "--few", "2"),
    "ablation_mnist.py": ("--limit", "100", "--samples", "100", "--versions", "2", "--steps", "2", "--queries", "3",
                          "--pixels", "8", "--images", "3", "--few", "2"),
    "ibp_mnist.py": (*SMALL, "--width", "2", "--steps", "2", "--images", "4", "--eps", "0", "0.1"),
    "diffai_mnist.py": (*SMALL, "--steps", "2", "--images", "4", "--few", "2", "--around", "0", "1"),
    "robust_cifar10.py": ("--limit", "20", "--steps", "1", "2", "--starts", "2", "--images", "4",
                          "--queries", "3", "--few", "2"),
    "capacity_mnist.py": (*SMALL, "--widths", "1", "2", "--images", "4"),
    "capacity_cifar10.py": (*SMALL, "--widths", "1", "2", "--images", "4"),
    "base_training_mnist.py": (*SMALL, "--steps", "2", "--images", "4"),
    "latent_space_mnist.py": (*SMALL, "--steps", "2", "--queries", "3", "--images", "30"),
    "trapdoors_mnist.py": (*SMALL, "--clean", "1", "--steps", "2", "--images", "3"),
    "patches_mnist.py": (*SMALL, "--steps", "2", "--queries", "3", "--images", "3"),
    "attackbench_mnist.py": ("--limit", "100", "--queries", "100", "--images", "2", "--networks", ZOO[1],
                             ZOO[0]),
    "defences_cifar10.py": ("--limit", "100", "--steps", "2", "--eot", "2", "--queries", "3", "--images", "3"),
    "jpeg_cifar10.py": ("--limit", "100", "--images", "4"),
    "jpeg_mnist.py": (*SMALL, "--steps", "2", "--few", "2", "--images", "4"),
    "spectra_mnist.py": ("--limit", "100", "--images", "4", "--cnn", ZOO[1]),
    "transfer_functions_mnist.py": SMALL,
    "first_error_cifar10.py": ("--limit", "100", "--steps", "2", "--images", "4"),
    "first_error_mnist.py": ("--limit", "100", "--steps", "2", "--images", "4"),
    "saliency_mnist.py": ("--limit", "100", "--images", "4"),
    "overfitting_mnist.py": (*SMALL, "--passes", "1", "2", "--layers", "0", "2", "--steps", "2", "--seeds", "2",
                             "--images", "4"),
    "data_sets.py": ("--rows", "2"),
    "noise_layers_mnist.py": (*SMALL, "--eot", "2", "--steps", "2", "--seeds", "2", "--images", "4"),
}
SHARED = ("checks.py", "common.py", "options.py", "recipes.py")
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name not in SHARED)


def docstring(script):
    return ast.get_docstring(ast.parse((EXAMPLES / script).read_text(encoding="utf-8")))


def run(script, folder, *options):
    """Run an example in an empty folder, with no data set on the machine, no network and no GPU."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    environment |= {"TINYADV_DATA": str(folder), "XDG_CACHE_HOME": str(folder), "HOME": str(folder)}
    environment |= {"MPLCONFIGDIR": matplotlib.get_cachedir(), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", EXAMPLES / script, *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module", params=SCRIPTS)
def offline(request, tmp_path_factory):
    """What became of an example with tiny settings, the figure that it drew, and its name."""
    folder = tmp_path_factory.mktemp("example")
    done = run(request.param, folder, *TINY[request.param], "--out", "figure.png")
    assert done.returncode == 0, done.stderr
    return done, folder / "figure.png", request.param


@pytest.mark.parametrize("script", [*SCRIPTS, *SHARED])
def test_an_example_fits_on_a_screen_tells_its_idea_and_has_its_place_in_the_readme(script):
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert docstring(script).splitlines()[0].endswith(".")
    assert f"[{script}]({script})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_an_example_runs_offline_and_draws_its_figure(offline):
    height, width, _ = imread(offline[1]).shape
    assert 400 < height < 2000
    assert 400 < width < 2000


def test_without_its_data_it_says_so_and_labels_every_result_as_one_on_the_digits(offline):
    done, _, script = offline
    data = "CIFAR-10" if "cifar10" in script else "MNIST"
    tried, _, said = done.stdout.partition(f"\n{data} was not found: going on with the built-in digits instead.\n")
    assert "TINYADV_DATA" in tried
    for name in (*models.zoo.names(), "CifarCNN", "MnistResNet"):  # the networks' own data, and not that of the results
        said = said.replace(name, "")
    assert not re.search("mnist|cifar", said.lower())
    results = [line for line in said.splitlines() if re.search("%|loss|accuracy|images|figure", line)]
    assert len(results) > 5
    assert [line for line in results if not re.match("(Dataset )?digits-(train|test)", line)] == []
    if "--epochs" in TINY[script]:
        assert "digits-train, epoch 1/1: 100%" in done.stderr


def test_the_last_line_judges_the_claim_of_the_first_if_the_docstring_says_so(offline):
    done, _, script = offline
    verdict = re.match("digits-test  .*: the claim (holds|does not hold: .+)$", done.stdout.splitlines()[-1])
    assert bool(verdict) == ("The last line says whether" in " ".join(docstring(script).split()))


def test_fgsm_mnist_starts_its_table_from_the_clean_accuracy_and_judges_its_claim(tmp_path):
    said = run("fgsm_mnist.py", tmp_path, *TINY["fgsm_mnist.py"]).stdout
    clean = re.search("accuracy on 100 images: (.*)\n", said)[1]
    table = dict(re.findall(r"^digits-test +([0-9.]+)  (.*%)$", said, re.MULTILINE))
    assert list(table) == ["0", "0.3"]
    assert table["0"] == clean
    verdict = said.splitlines()[-1]
    assert verdict.startswith(f"digits-test  accuracy {clean}, with eps 0.3 {table['0.3']}: the claim ")
    assert (tmp_path / "fgsm_mnist.png").exists()


def test_fgsm_mnist_without_a_gpu_refuses_cuda_with_a_remedy_and_no_traceback(tmp_path):
    done = run("fgsm_mnist.py", tmp_path, "--device", "cuda")
    assert done.returncode == 2
    assert "error: argument --device: CUDA was asked for, but " in done.stderr.splitlines()[-1]
    assert 'pip install "cupy-cuda12x[ctk]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("options", "message"), [
    (("--limit", "0"), "argument --limit: must be a number >= 2, got 0"),
    (("--eps", "0.1", "nan"), "argument --eps: must be a number >= 0, got nan"),
    (("--seed", "-1"), "argument --seed: must be a number >= 0, got -1"),
    (("--out", "no/folder.png"), "argument --out: must be a file in a folder that can be written to, got no/folder"),
    (("--out", "figure"), "argument --out: must end in .pdf, .png or .svg, got figure"),
])
def test_fgsm_mnist_refuses_a_senseless_option_by_name(options, message, tmp_path):
    done = run("fgsm_mnist.py", tmp_path, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout  # nothing has been loaded


@pytest.mark.parametrize(("script", "options", "message"), [
    ("overfitting_mnist.py", ("--passes", "2", "2"), "--passes needs two different numbers or more, to compare"),
    ("patches_mnist.py", ("--sides", "29"), "argument --sides: invalid choice: 29"),
    ("defences_cifar10.py", ("--side", "33"), "argument --side: invalid choice: 33"),
    ("pgd_mnist.py", ("--step-size", "0"), "argument --step-size: must be a number >= 1e-09, got 0"),
    ("spectra_mnist.py", ("--eps", "0"), "argument --eps: must be a number >= 1e-09, got 0"),
    ("base_training_mnist.py", ("--eps", "0.001"), "argument --eps: must be a number >= 0.002, got 0.001"),
    ("first_error_mnist.py", ("--natural", "cifar10-lenet-natural"), "--natural: invalid choice: 'cifar10-lenet-natur"),
    ("pgd_steps_mnist.py", ("--first", "mnist-ablation-l0"), "argument --first: invalid choice: 'mnist-ablation-l0'"),
    ("jpeg_cifar10.py", ("--models", "mnist-lenet-natural"), "--models: invalid choice: 'mnist-lenet-natural'"),
    ("attackbench_mnist.py", ("--networks", "cifar10-cnn-natural"), "--networks: invalid choice: 'cifar10-cnn-nat"),
])
def test_what_would_fail_after_the_work_is_refused_before_it(script, options, message, tmp_path):
    done = run(script, tmp_path, *options)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not done.stdout


@pytest.mark.parametrize(("script", "options", "message"), [
    ("madry_mnist.py", ("--config", "none.toml"), "[Errno 2] No such file or directory: 'none.toml'\n"),
    ("madry_mnist.py", ("--config", "bad.toml"), "bad.toml"),
    ("madry_mnist.py", ("--config", "none_held.toml"), "none_held.toml cannot be used: held_out must be at least 1"),
    ("madry_cifar10.py", ("--config", "ramp.toml"), "ramp.toml: "),
    ("madry_cifar10.py", ("--config", "strange.toml"), "strange.toml: data must be cifar10 or mnist, got 'stl10'"),
    ("attacks_compared.py", ("--limit", "100", "--image", "100"), "--image must be below 100, the number of"),
    ("latent_space_mnist.py", ("--limit", "2"), "among 2: raise --limit or --images\n"),
    ("latent_space_mnist.py", ("--images", "5"), "among 5: raise --limit or --images\n"),
    ("data_sets.py", ("--limit", "2"), "digits-train: no image of class "),
])
def test_a_wrong_file_or_index_is_told_before_the_training(script, options, message, tmp_path):
    (tmp_path / "bad.toml").write_text("x = ")
    settings = (EXAMPLES / "configs" / "cifar10-base-natural.toml").read_text(encoding="utf-8")
    (tmp_path / "strange.toml").write_text(settings.replace("cifar10", "stl10"))
    (tmp_path / "ramp.toml").write_text(settings.replace('class = "Standard"', 'class = "ramp"\nuntil = 0.5'))
    (tmp_path / "none_held.toml").write_text(settings.replace("held_out = 1000", "held_out = 0"))
    done = run(script, tmp_path, *options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "epoch" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("config", sorted((EXAMPLES / "configs").iterdir()), ids=lambda path: path.stem)
def test_every_file_of_settings_gives_its_network_and_how_to_train_it(config, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    recipe = importlib.import_module("recipes").recipe
    settings = models.zoo.settings(config)
    model, judge, how = recipe(settings, seed=3)
    assert config.stem.startswith(f"{settings.get('data', 'mnist')}-")
    shape = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[settings.get("data", "mnist")]
    assert model.input_shape == ((2, *shape[1:]) if judge.__class__ is certify.Ablation else shape)
    assert judge.norm == settings["evaluation"]["norm"]
    if "certificate" in settings:
        twice = isinstance(how["method"], training.Consistent)  # else the augmentation makes the versions
        vary = how["method"].votes.vary if twice else how["augment"]
        assert vary(np.zeros((1, *shape), np.float32), Streams(0, [0])).shape == (1, *model.input_shape)
    else:
        assert judge.eps == settings["evaluation"]["eps"]
    assert (how["method"].budget is None) == (config.stem.endswith("natural") or "certificate" in settings)
    assert how["schedule"](1.0) <= how["schedule"](0.5)


@pytest.mark.parametrize("name", ["mnist-smoothing25-l2", "mnist-smoothing50-l2", "mnist-ablation-l0"])
def test_a_network_for_votes_is_trained_and_certified(name, tmp_path):
    text = (EXAMPLES / "configs" / f"{name}.toml").read_text(encoding="utf-8")
    text = re.sub(r"(samples|width|choose) = .*", r"\1 = 8", text)
    (tmp_path / "few.toml").write_text(text, encoding="utf-8")
    done = run("madry_mnist.py", tmp_path, *SMALL, "--images", "2", "--config", "few.toml")
    assert done.returncode == 0, done.stderr
    assert re.search(r"samples=8.* at (0.5|1|8) .*% of 2 images are right: the claim ", done.stdout)
    assert (tmp_path / "few.npz").is_file()


@pytest.mark.parametrize(("error", "line"), [
    ("KeyboardInterrupt", "stopped by Ctrl-C"),
    ("training.Interrupted('after 2 steps; the same call with resume=True goes on from there')",
     "after 2 steps; the same command goes on from there"),
])
def test_ctrl_c_ends_an_example_with_one_line(error, line):
    done = subprocess.run([sys.executable, "-c", f"from common import *; raise {error}"], cwd=EXAMPLES, text=True,
                          capture_output=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.stderr.strip().splitlines() == [line]
    assert done.returncode == 130


@pytest.mark.parametrize(("error", "lines"), [
    ("the checkpoint is of another run", ["the checkpoint is of another run; or choose another --out"]),
    (r"it differs:\n  epochs: then 3, now 4\nextend=('epochs',) goes on from it",
     ["it differs:", "  epochs: then 3, now 4", "give the options of that run, or choose another --out"]),
])
def test_a_checkpoint_of_another_run_ends_an_example_with_what_a_command_can_do(error, lines):
    code = f'from options import *; raise nn.StateError("{error}")'
    done = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, text=True, capture_output=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert done.stderr.strip().splitlines() == lines
    assert done.returncode == 1


def example(name, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module(name)


def test_what_seemed_to_be_on_the_device_is_there(xp, monkeypatch, tmp_path):
    script, moved, layer = example("transfer_functions_mnist", monkeypatch), [], nn.Conv2d(1, 6, 5, rng=0)
    answers = script.with_grey(layer)
    np.testing.assert_allclose(script.with_grey(on_device(layer, xp)), answers, rtol=1e-5)
    monkeypatch.setattr(nn.Module, "to", lambda self, device: moved.append(device) or self)
    monkeypatch.setattr(training, "fit", lambda *_, **__: None)
    monkeypatch.setattr(script, "mnist_or_digits", lambda limit: data.digits(train=limit, test=limit))
    monkeypatch.setattr(script, "draw", lambda *_: None)
    monkeypatch.setattr(script, "QUALITIES", np.arange(1, 41, 39).repeat(20))
    script.main(argparse.Namespace(limit=50, epochs=1, seed=1, device="there", out=tmp_path / "figure.png"))
    assert moved == ["there"] * 2


@pytest.mark.parametrize("script", ["boundary_mnist.py", "trapdoors_mnist.py"])
def test_without_any_right_image_an_example_says_so(script, tmp_path):
    lines = ["import runpy, sys", "from tinyadv import evaluation", f"sys.path.insert(0, {str(EXAMPLES)!r})",
             "evaluation.predict = lambda model, images: -1 - (images[:, 0, 0, 0] > 9)",
             f"runpy.run_path({str(EXAMPLES / script)!r}, run_name='__main__')"]
    (tmp_path / "wrong.py").write_text("\n".join(lines), encoding="utf-8")
    done = run(tmp_path / "wrong.py", tmp_path, "--limit", "10", "--epochs", "1")
    assert done.stderr.splitlines()[-1] == "no test image is right: train longer, or raise --limit"
    assert done.returncode == 1


def test_a_figure_that_cannot_be_overwritten_is_refused(tmp_path, monkeypatch):
    checks, there = example("checks", monkeypatch), tmp_path / "there.png"
    there.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: path != there)
    assert checks.figure(tmp_path / "new.png") == tmp_path / "new.png"
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be a file that can be written to, got .*there\.png"):
        checks.figure(there)
    monkeypatch.setattr(os, "access", lambda path, mode: path == there)  # the other files of an example go beside it
    with pytest.raises(argparse.ArgumentTypeError, match="must be a file in a folder that can be written to"):
        checks.figure(there)


@pytest.mark.parametrize("network", ["mnist-lenet-natural", "cifar10-base-natural"])
def test_the_networks_to_choose_from_take_the_images_of_the_default(network, monkeypatch):
    offered = example("options", monkeypatch).fitting(network)
    assert len(offered) >= 5
    assert {models.zoo.load(name).input_shape for name in offered} == {models.zoo.load(network).input_shape}


def test_a_recipe_says_where_its_defaults_come_from(tmp_path):
    said = " ".join(run("madry_mnist.py", tmp_path, "--help").stdout.split())
    assert "(default: None)" not in said
    assert said.count("(default: that of the settings)") == 2
    assert "file of the figure (default: the name of --config, with .png, in this folder)" in said


def test_one_epoch_is_no_plural(monkeypatch, tmp_path):
    script, named = example("overfitting_mnist", monkeypatch), []
    cases = [("epochs", 1), ("epochs", 2), ("more layers", 1), ("more layers", 2)]
    monkeypatch.setattr(script, "networks", lambda *_: ((case, models.LeNet(seed=1)) for case in cases))
    monkeypatch.setattr(script, "mnist_or_digits", lambda limit: data.digits(train=limit, test=limit))
    monkeypatch.setattr(plots, "epsilon_curve", lambda curves, **_: named.extend(curves))
    script.main(argparse.Namespace(limit=20, seed=1, seeds=1, images=3, steps=1, out=tmp_path / "figure.png"))
    assert named == ["1 epoch", "2 epochs", "1 more layer", "2 more layers"]
