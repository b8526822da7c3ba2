"""A result: what it says is so, and a file brings it back."""

import contextlib
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from attack_cases import cnn, dense, every_attack, images, labels, predictions, stage, targeted_or_not
from PIL import Image

from tinyadv import __version__, driver, nn
from tinyadv.attacks import FGSM, PGD, Attack, AttackResult, BoundaryAttack, MultiAttack, Transfer
from tinyadv.attacks.base.parameters import UnknownAttack, describe
from tinyadv.nn.archive import StateError, read, write


@targeted_or_not
@every_attack
def test_a_file_brings_all_of_it_back(attack, targeted, tmp_path):
    model, x, y, target = stage("cnn", targeted)
    result = attack.run(model, x, y, target=target, seed=2**64 - 1)
    result.save(tmp_path / "result.npz")
    again = AttackResult.load(tmp_path / "result.npz")
    known = not isinstance(attack, Transfer)  # a surrogate has a name, and no more
    assert (again == result) == (again.attack == attack) == (type(again.attack) is type(attack)) == known
    assert replace(again, attack=attack) == result
    if not known:
        return
    assert (again.summary(), repr(again), again.to_json()) == (result.summary(), repr(result), result.to_json())
    assert again.x_adv.dtype == x.dtype


@pytest.mark.parametrize("attack", [
    MultiAttack([FGSM(0.1), PGD(0.1, steps=1)]), FGSM(0.2, bounds=(0, 2)), FGSM(np.float32(0.3)),
], ids=lambda attack: type(attack).__name__)
@pytest.mark.parametrize("count", [0, 1, 6])
def test_a_file_brings_the_attack_back_whatever_its_parameters(attack, count, tmp_path):
    result = attack.run(cnn(), images(count), labels(count))
    result.save(tmp_path / "result.npz")
    assert AttackResult.load(tmp_path / "result.npz") == result


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_file_keeps_the_dtype(dtype, tmp_path):
    result = FGSM(0.1).run(dense((1, 3, 3), 3, dtype), images(4, (1, 3, 3), dtype), labels(4, 3))
    result.save(tmp_path / "result.npz")
    assert AttackResult.load(tmp_path / "result.npz").x_adv.tobytes() == result.x_adv.tobytes()


@pytest.mark.parametrize("change", [
    {"seed": 1}, {"norm": "l2"}, {"version": "9"}, {"seconds": 0.0}, {"attack": FGSM(0.2)},
    {"target": np.zeros(4, int)}, {"x_adv": np.zeros((4, 1, 8, 8), np.float32)}, {"success": np.zeros(4, bool)},
    {"broken_by": np.full(4, "")}, {"table": (("all", 0, 4, 0.1, 8, 4),)}, {"warnings": ("none",)},
])
def test_results_are_equal_where_everything_is(change):
    result = FGSM(0.1).run(cnn(), images(4), np.full(4, 4))
    assert result == replace(result, x_adv=result.x_adv.copy())
    assert result != replace(result, **change)
    assert replace(result, **change) != result
    assert result != "a result"


def test_an_attack_that_is_not_defined_is_told_by_name_and_parameters(tmp_path):
    @dataclass(frozen=True)
    class Passing(Attack):
        eps: float
        norm: str = "l2"

        def perturb(self, batch):
            return batch.x

    result = Passing(0.5).run(cnn(), images(4), labels(4))
    text = result.summary()
    result.save(tmp_path / "result.npz")
    header, arrays = read(tmp_path / "result.npz", "a result", "attack")
    for name, parameters in [("Nowhere", {"eps": 0.5, "words": ["a", "b"]}), ("Passing", {"eps": 0.5, "more": 1}),
                             ("Passing", {"eps": -1}), ("object", {})]:
        write(tmp_path / "other.npz", header | {"attack": {"class": name, "parameters": parameters}}, arrays)
        again = AttackResult.load(tmp_path / "other.npz")
        assert isinstance(again.attack, UnknownAttack)
        assert again.attack.name == name
        assert list(again.attack.parameters) == list(parameters)
        assert again.summary() == text.replace(str(Passing(0.5)), str(again.attack))
        again.save(tmp_path / "again.npz")
        assert AttackResult.load(tmp_path / "again.npz") == again
    assert str(UnknownAttack("Nowhere", {"eps": 0.5, "words": ("a", "b")})) == "Nowhere(eps=0.5, words=('a', 'b'))"
    described = describe(BoundaryAttack(starts=np.zeros((4, 1, 28, 28), np.float32)))
    assert described["parameters"]["starts"] == "array(float32, (4, 1, 28, 28))"  # and not what NumPy prints of it


def test_a_model_among_the_parameters_is_told_by_its_name(tmp_path):
    result = Transfer(cnn(1), FGSM(0.1)).run(cnn(), images(4), labels(4))
    result.save(tmp_path / "result.npz")
    again = AttackResult.load(tmp_path / "result.npz")
    assert again.attack == UnknownAttack("Transfer", {"surrogate": "Sequential", "attack": FGSM(0.1)})
    assert again == replace(result, attack=again.attack)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "file.npz"
    nn.save(cnn(), path)
    with pytest.raises(StateError, match="not an attack's result of tinyadv: it has no valid header \\('attack'\\)"):
        AttackResult.load(path)
    FGSM(0.1).run(cnn(), images(2), labels(2)).save(path)
    with pytest.raises(StateError, match="not a model file of tinyadv"):
        nn.load(path)
    header, arrays = read(path, "a result", "attack")
    for wrong, message in [
        (header | {"more": 1}, "more"), (header | {"attack": {}}, "class"),
        ({name: value for name, value in header.items() if name != "seed"}, "seed"),
        *((header | {name: wrong}, name) for name, wrong in (
            ("norm", 2), ("seed", "0"), ("seconds", None), ("version", 1), ("table", "none"), ("table", [["FGSM", 1]]),
            ("warnings", [1]), ("success", [True, False]), ("attack", [1]), ("attack", {"class": 1, "parameters": {}}),
            ("table", {"class": 1, "table": 1}))),
        (header | {"attack": {"class": "FGSM", "parameters": 3}}, "not an attack's result"),
    ]:
        write(path, wrong, arrays)
        with pytest.raises(StateError, match=message):
            AttackResult.load(path)
    for name, wrong in (("x_adv", np.zeros(())), ("x_adv", np.zeros(2, np.int64)), ("y", np.zeros(3, np.int64)),
                        ("y", np.zeros(2)), ("target", np.zeros((2, 1), np.int64)), ("success", np.zeros(2, np.int64)),
                        ("distances", np.array(["a", "b"])), ("broken_by", np.zeros(2)), ("seed", np.zeros(2))):
        write(path, header, arrays | {name: wrong})
        with pytest.raises(StateError, match=f"not an attack's result of tinyadv .*: .*{name}"):
            AttackResult.load(path)
    with pytest.raises(FileNotFoundError):
        AttackResult.load(tmp_path / "nowhere.npz")


def test_attacks_that_no_class_can_be_made_of_are_told_by_name(tmp_path):
    """Whatever error the class makes of it; deep nests are refused."""
    FGSM(0.1).run(cnn(), images(2), labels(2)).save(tmp_path / "file.npz")
    header, arrays = read(tmp_path / "file.npz", "a result", "attack")
    for name, parameters in (("MultiAttack", {"attacks": 3}), ("Transfer", {"surrogate": None, "attack": 1}),
                             ("AutoAttack", {"eps": None}), ("PGD", {"eps": [1]}), ("Parameters", {"eps": 1})):
        write(tmp_path / "file.npz", header | {"attack": {"class": name, "parameters": parameters}}, arrays)
        assert AttackResult.load(tmp_path / "file.npz").attack.name == name
    deep = None
    for _ in range(400):
        deep = {"class": "PGD", "parameters": {"eps": deep}}
    write(tmp_path / "file.npz", header | {"attack": deep}, arrays)
    with contextlib.suppress(StateError):  # by the depth that is left
        assert isinstance(AttackResult.load(tmp_path / "file.npz").attack, UnknownAttack)


@targeted_or_not
@every_attack
def test_the_predictions_before_are_those_of_the_clean_images(attack, targeted):
    """And to know them is no part of what the attack has cost."""
    model, x, y, target = stage("cnn", targeted)
    cost = set()
    for options in ({}, {"skip_misclassified": True}, {"batch_size": 2}, {"quantize": True}):
        result = attack.run(model, x, y, target=target, **options)
        np.testing.assert_array_equal(result.predictions_clean, predictions(model, x))
        assert result.predictions_clean.dtype == np.int64
        np.testing.assert_array_equal(result.y, y)
        assert result.y.dtype == np.int64
        assert (result.target is None) == (target is None)
        cost.add(int(result.backwards.sum()))
    assert len(cost) <= 2  # only what is skipped is saved


def test_a_call_costs_one_pass_there_and_one_back():
    model, seen = dense((1, 8, 8), 5), []

    def counted(x):
        seen.append(len(x))
        return model(x)

    FGSM(0.1)(counted, images(6), labels(6))
    assert sum(seen) == 6
    for attack, passes in [(FGSM(0.1), 2), (PGD(0.1, steps=1), 3)]:
        seen.clear()
        result = attack.run(counted, images(6), labels(6))
        assert sum(seen) == 6 * passes  # for the gradient, to score the last point, and at x unless that was the first
        assert (result.forwards == 2).all()
        assert (result.backwards == 1).all()


@targeted_or_not
def test_the_numbers_for_a_table(targeted):
    model, x, y, target = stage("cnn", targeted)
    result = PGD(0.05, steps=3).run(model, x, y, target=target, seed=4)
    row = json.loads(json.dumps(result.to_json()))
    before, after = result.predictions_clean == y, result.predictions == y
    expected = {
        "norm": "linf", "targeted": targeted, "examples": 9, "succeeded": result.success.sum(), "seed": 4,
        "accuracy": before.mean(), "robust_accuracy": (before & after).mean(), "version": __version__,
        "median_distance": np.median(result.distances[result.success]), "seconds": result.seconds,
        "largest_distance": result.distances[result.success].max(), "forwards": result.forwards.mean(), "backwards": 3,
    }
    assert row.pop("attack")["parameters"]["eps"] == 0.05
    assert row == pytest.approx(expected)
    rate = f"{result.success.mean():.1%}"
    assert f"{result.success.sum()} of 9 succeeded ({rate}); accuracy {before.mean():.4g}" in str(result)


def test_where_nothing_succeeds_there_is_no_distance():
    x = images(3)
    for chosen in (slice(0, 3), slice(0, 0)):
        result = FGSM(0.0).run(cnn(), x[chosen], predictions(cnn(), x)[chosen])
        assert result.to_json()["median_distance"] is None
        assert "distance where it did: median -, largest -" in result.summary()
        json.dumps(result.to_json(), allow_nan=False)


# Images of 8 bits in files


def read_pngs(folder):
    """The levels (N, C, H, W) in the files of a folder, and the classes in their names: (N,) and (N,)."""
    files = sorted(folder.iterdir())
    levels = np.stack([np.atleast_3d(np.asarray(Image.open(file))).transpose(2, 0, 1) for file in files])
    y, found = np.array([file.stem.split("-")[1::2] for file in files]).astype(int).T
    return levels, y, found


@targeted_or_not
@pytest.mark.parametrize(("channels", "bounds"), [(1, (0.0, 1.0)), (3, (0, 255)), (3, (-1.0, 1.0))])
def test_images_in_files_succeed_just_where_it_is_said(channels, bounds, targeted, tmp_path):
    (low, high), shape = bounds, (channels, 6, 5)
    model, x = dense(shape, 5, scale=6 / (high - low)), (images(60, shape) * (high - low) + low).astype(np.float32)
    y = predictions(model, x)
    attack = PGD(0.01 * (high - low), steps=4, bounds=bounds)
    result = attack.run(model, x, y, target=(y + 1) % 5 if targeted else None)
    survived = result.save_images(tmp_path / "new" / "folder", model)
    levels, classes, found = read_pngs(tmp_path / "new" / "folder")
    again = driver.logits(model, (low + levels.astype(float) * (high - low) / 255).astype(np.float32)).argmax(axis=1)
    np.testing.assert_array_equal(classes, y)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(survived, result.reached(again))
    assert 0 < survived.sum() < 60


def test_images_of_8_bits_need_no_model_and_come_back_as_they_were(tmp_path):
    x = np.rint(images(9) * 255).astype(np.float32) / 255
    y = predictions(cnn(), x)
    result = PGD(8.01 / 255, steps=3).run(cnn(), x, y, quantize=True)
    np.testing.assert_array_equal(result.save_images(tmp_path), result.success)
    levels, _, found = read_pngs(tmp_path)
    np.testing.assert_array_equal(levels.astype(np.float32) / 255, result.x_adv)
    np.testing.assert_array_equal(found, result.predictions)


def test_images_that_cannot_be_saved_are_refused_and_nothing_is_written(tmp_path):
    result = FGSM(0.01).run(cnn(), images(3), labels(3))
    with pytest.raises(ValueError, match=r"3 of 3 images are not on the 256 levels.*give the model.*quantize=True"):
        result.save_images(tmp_path / "new")
    vectors = FGSM(0.01).run(dense((6,), 3), images(3, (6,)), labels(3, 3))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), C = 1 or 3.* \(3, 6\)"):
        vectors.save_images(tmp_path / "new", dense((6,), 3))
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine.png").touch()
    with pytest.raises(ValueError, match="folder must be new or empty"):
        result.save_images(tmp_path, cnn())
    assert [file.name for file in tmp_path.iterdir()] == ["mine.png"]
