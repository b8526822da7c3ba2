"""`python -m tinyadv` says what was found on this machine, and attacks a model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinyadv import attacks, models, nn
from tinyadv.__main__ import made, main, parser
from tinyadv.backend import describe

DIGITS = ("--data", "digits", "--images", "6")


def command(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([sys.executable, "-m", "tinyadv", *arguments], cwd=folder, env=environment, text=True,
                          capture_output=True, timeout=120)


def test_it_prints_the_description(tmp_path):
    ran = command(tmp_path)
    assert ran.stderr == ""
    assert without_the_setting(ran.stdout) == without_the_setting(describe())


def without_the_setting(text):
    """The kernels may have been chosen in one process and inherited in the other, and pytest loads more BLAS users."""
    return [line for line in text.splitlines() if not line.startswith(("BLAS", "OPENBLAS_CORETYPE"))]


def test_it_lists_the_zoo_and_shows_a_card(capsys):
    main(["zoo"])
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == models.zoo.cards()
    main(["zoo", "mnist-lenet-linf"])
    assert capsys.readouterr().out == f"{models.zoo.card('mnist-lenet-linf')}\n"


def test_it_attacks_a_network_of_the_zoo_and_saves_what_the_library_finds(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["attack", "PGD", "--model", "mnist-lenet-natural", *DIGITS, "--eps", "0.2", "--steps", "3", "--seed", "7",
          "--out", "pgd.npz"])
    said, result = capsys.readouterr().out, attacks.AttackResult.load("pgd.npz")
    assert result.summary() in said
    assert "accuracy without an attack" in said
    assert (str(result.attack), result.seed) == (str(attacks.PGD(0.2, steps=3)), 7)
    assert len(result.x_adv) == 6
    assert Path("pgd.png").stat().st_size > 1000


def test_it_runs_autoattack_on_a_model_of_ones_own_and_goes_on_from_its_state(tmp_path):
    (tmp_path / "mine.py").write_text("from tinyadv import models\ndef net():\n    return models.LeNet(seed=1)\n")
    run = ("evaluate", "--model", "mine:net", *DIGITS, "--eps", "0.01", "--state", "state.npz")
    first, again = command(tmp_path, *run), command(tmp_path, *run)
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "state.npz").exists()
    assert without_times(again.stdout) == without_times(first.stdout)


def test_it_attacks_a_saved_model_within_a_fraction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nn.save(models.LeNet(seed=1), "mine.npz")
    main(["attack", "FGSM", "--model", "mine.npz", *DIGITS, "--eps", "8/255", "--out", "fgsm.npz"])
    assert attacks.AttackResult.load("fgsm.npz").attack == attacks.FGSM(8 / 255)


@pytest.mark.parametrize("eps", ["8/0", "8/", "/8", "eight", "1/2/3"])
def test_what_is_no_number_is_no_budget(eps, capsys):
    with pytest.raises(SystemExit):
        main(["attack", "FGSM", "--model", "mnist-lenet-linf", "--eps", eps])
    assert f"argument --eps: invalid fraction value: '{eps}'" in capsys.readouterr().err


def decides():
    """A model that is no Module."""
    return lambda x: x.flatten()


def without_times(text):
    return [re.sub(r"[\d.]+ s;", "", line) for line in text.splitlines() if "second" not in line]


@pytest.mark.parametrize(("arguments", "message"), [
    (("attack", "PGD", "--model", "mnist-none", "--eps", "0.1"), "name must be one of cifar10-airbench-natural, "),
    (("attack", "PGD", "--model", "none:net", *DIGITS, "--eps", "0.1"), "--model must be a network of the zoo, or mod"),
    (("attack", "PGD", "--model", "tinyadv.models:LeNet", "--eps", "0.1"), "--data must be given with --model tinyadv"),
    (("attack", "PGD", "--model", "net.pth", *DIGITS, "--eps", "0.1"), "got 'net.pth'. Or give --model a file"),
    (("attack", "PGD", "--model", "own.npz", *DIGITS, "--eps", "0.1"), "into=model)\nOn the command line, give"),
    (("attack", "CW", "--model", "mnist-lenet-linf", *DIGITS), "got CW. It is attacks.CarliniWagner here"),
    (("attack", "PDG", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1"), "Square; got PDG"),
    (("attack", "FGSM", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--steps", "3"),
     "FGSM takes no --steps: it takes --eps, --norm"),
    (("attack", "HopSkipJump", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--steps", "3"),
     "HopSkipJump takes no --eps and no --steps: it takes --norm"),
    (("attack", "BoundaryAttack", "--model", "mnist-lenet-linf", *DIGITS, "--norm", "l2"),
     "BoundaryAttack takes no --norm: it takes none of"),
    (("attack", "PGD", "--model", "mnist-lenet-linf", *DIGITS), "--eps must be given for PGD"),
    (("attack", "PGD", "--model", "mnist-lenet-linf", *DIGITS, "--norm", "l0"), "PGD: the budget, in pixels"),
    (("attack", "SparseRS", "--model", "mnist-lenet-linf", *DIGITS), "SparseRS: the budget, in pixels"),
    (("evaluate", "--model", "mnist-lenet-linf", *DIGITS), "AutoAttack: the budget, in the units of the data"),
    (("evaluate", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--seed", "-1"), "seed must be an integer"),
    (("evaluate", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--out", "none/a.npz"), "--out must be in a"),
    (("evaluate", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--out", "a.npz"), "--out must be a file"),
    (("evaluate", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--state", "no/s.npz"), "--state must be in"),
    (("attack", "PGD", "--model", ":LeNet", *DIGITS, "--eps", "0.1"), "--model must be a network of the zoo, or mod"),
    (("attack", "PGD", "--model", "tinyadv:__version__", *DIGITS, "--eps", "0.1"), "'str' object is not callable"),
    (("attack", "PGD", "--model", "tinyadv.backend:usable_cores", *DIGITS, "--eps", "1"), "images, got int"),
    (("attack", "PGD", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "-1"), "eps must be"),
    (("evaluate", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--out", "a.txt"), "must end in .npz"),
    (("evaluate", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--out", "b.npz", "--state", "b.npz"),
     "--state must be another file than those of the other options, got b.npz"),
    (("evaluate", "--model", "mnist-lenet-linf", "--data", "digits", "--images", "0"), "--images must be at least 1"),
    (("attack", "PGD", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--state", "s.npz"),
     "--state is for AutoAttack"),
    (("attack", "PGD", "--model", "cifar10-base-natural", *DIGITS, "--eps", "0.1"),
     "--data must have images of shape (3, 32, 32), as the model takes, but digits has (1, 28, 28)"),
    (("attack", "FGSM", "--model", "test_main:decides", *DIGITS, "--eps", "0.1", "--device", "cuda"),
     "--device must be cpu where the model is a function and no nn.Module"),
])
def test_what_cannot_be_is_one_line_before_any_work(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.npz").mkdir()
    nn.save(nn.Sequential(nn.Flatten(), nn.Linear(784, 10, rng=0)), "own.npz")
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert message in str(stopped.value)
    assert "accuracy" not in capsys.readouterr().out


def test_every_name_in_tinyadv_attacks_makes_an_attack_or_one_line():
    said = {}
    for name in dir(attacks):
        for given in ([], ["--eps", "0.1"], ["--norm", "linf"], ["--steps", "3"]):
            try:
                said[name, *given] = str(made(parser().parse_args(["attack", name, "--model", "none", *given])))
            except ValueError as error:
                said[name, *given] = str(error)
    for (name, *given), line in said.items():
        assert re.search(rf"^{name}\(|; got {name}\. |^{name} takes no --|^--eps must be given for {name}: |"
                         rf"^norm must be .* for {name}, got", line), (given, line)
    made_of_options = {name for (name, *_), line in said.items() if line.startswith(f"{name}(")}
    assert made_of_options >= {"AutoAttack", "BoundaryAttack", "FAB", "PGD", "Patch"}
    assert made_of_options.isdisjoint({"Attack", "AtBudget", "MultiAttack", "Transfer", "WhiteBox"})


def test_ctrl_c_says_how_to_go_on(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(attacks.AutoAttack, "run", interrupted)
    with pytest.raises(SystemExit, match=r"stopped by Ctrl-C\. The same command goes on"):
        main(["evaluate", "--model", "mnist-lenet-linf", *DIGITS, "--eps", "0.1", "--state", "s.npz"])


def test_the_model_is_not_overwritten_by_the_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nn.save(models.SmallCNN(), "model.npz")
    before = Path("model.npz").read_bytes()
    out = f"../{tmp_path.name}/model.npz"
    with pytest.raises(SystemExit, match="--out must be another file than"):
        main(["attack", "FGSM", "--model", "model.npz", *DIGITS, "--eps", "0.1", "--out", out])
    assert Path("model.npz").read_bytes() == before
