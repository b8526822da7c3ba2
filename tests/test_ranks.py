"""Properties of ranks: each ends with the bits of a single process, and none waits for one that has failed."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from attack_cases import TinyAutoAttack, cnn, images, labels
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_cases import PATIENCE, expected, on_ranks, trained
from training_cases import with_modes

from tinyadv import data, driver, evaluation, training
from tinyadv.attacks import FGSM, PGD, MultiAttack
from tinyadv.nn import archive
from tinyadv.nn.archive import StateError
from tinyadv.nn.optim import SGD
from tinyadv.parallel import all_reduce, part_index, together
from tinyadv.ranks import RankFailed, ranks, sharing
from tinyadv.training import TRADES, Adversarial, Free, Standard

METHODS = [Standard(), Adversarial(PGD(0.1, steps=2)), Adversarial(FGSM(0.1), crafting="train"), TRADES(0.1, steps=2),
           Free(0.1, replays=2)]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)


@pytest.fixture(autouse=True)
def _small_parts_and_no_waiting(monkeypatch):
    """A batch of the small images here is computed in up to four parts, as one of large images would be."""
    monkeypatch.setattr(training.update.driver, "SHARD", 12 * 16)
    started = time.monotonic()
    yield
    assert time.monotonic() - started < PATIENCE, "a rank was left waiting"


@settings(max_examples=25, deadline=None)
@given(parts=st.integers(1, 6), size=st.integers(1, 4), meetings=st.integers(0, 3), seed=st.integers(0, 99))
def test_parts_on_ranks_meet_and_end_as_on_threads(parts, size, meetings, seed):
    values = np.random.default_rng(seed).normal(size=(parts, 3)).astype(np.float32)

    def work(part):
        sums = [all_reduce(values[part] * 3**meeting, part) for meeting in range(meetings)]
        return part_index(), [(total.tobytes(), count) for total, count in sums]

    def program(number):
        with ThreadPoolExecutor(parts) as pool:
            return together(pool, work, range(parts))

    alone = program(0)
    assert on_ranks(size, program) == [alone] * size


@pytest.mark.parametrize("culprit", range(4))
def test_a_part_that_fails_ends_the_parts_of_all_ranks(culprit):
    def work(part):
        assert ranks().size == 1  # an evaluation within a part is its own
        all_reduce(1)
        if part == culprit:
            raise ZeroDivisionError
        return all_reduce(1)

    def program(number):
        with ThreadPoolExecutor(2) as pool:
            return together(pool, work, range(4))

    found = on_ranks(2, program)
    assert [type(each) for each in found] == [ZeroDivisionError, RankFailed][::1 if culprit < 2 else -1]


@pytest.mark.parametrize("size", [2, 3, 4])
@each_method
def test_training_ends_with_the_same_bytes_on_every_rank(method, size):
    assert on_ranks(size, lambda _: trained(method)) == [expected(method)] * size


def test_the_parts_are_shared():
    seen = {0: set(), 1: set()}

    def program(number):
        model = with_modes()
        forward = model.layers[0].forward
        model.layers[0].forward = lambda x: (seen[number].add((part_index(), len(x))), forward(x))[1]
        training.fit(model, data.Dataset(np.zeros((64, 1, 4, 3), np.float32), np.zeros(64, int), "zeros"), epochs=1,
                     optimizer=SGD(model, lr=0.1), batch_size=64)

    assert on_ranks(2, program) == [None, None]
    assert seen == {0: {(0, 16), (1, 16)}, 1: {(2, 16), (3, 16)}}


@pytest.mark.parametrize(("size", "then"), [(2, 2), (2, 1), (1, 4)])
def test_a_killed_run_goes_on_from_the_file_of_the_first_rank(size, then, tmp_path, monkeypatch):
    written, write = [], archive.write
    monkeypatch.setattr(archive, "write", lambda path, *args: (written.append(ranks().number), write(path, *args)))

    def killed(number):
        calls = []

        def hook():
            calls.append(1)
            if len(calls) == 5:
                raise MemoryError("killed")

        return trained(hook=hook, checkpoint=tmp_path / "run.npz", minutes=0)

    assert [str(each) for each in on_ranks(size, killed)] == ["killed"] * size
    found = on_ranks(then, lambda _: trained(checkpoint=tmp_path / "run.npz", resume=True))
    assert found == [expected()] * then
    assert set(written) == {0}


@pytest.mark.parametrize("size", [2, 3])
def test_attacks_and_evaluation_are_shared_and_the_same(size):
    x, y, model = images(20), labels(20), cnn()
    subject = data.Dataset(x, y, "random")

    def program(number):
        x_adv = TinyAutoAttack(0.1)(model, x, y, seed=5, batch_size=3)
        return x_adv.tobytes(), evaluation.accuracy(model, subject), evaluation.robust_accuracy(
            model, PGD(0.1, steps=2, restarts=2), subject)

    assert on_ranks(size, program) == [program(0)] * size


def test_each_shard_is_attacked_by_one_rank():
    def program(number):
        seen, model = [], cnn()
        forward = model.forward
        model.forward = lambda x: (seen.append(len(x)), forward(x))[1]
        driver.logits(model, images(20), batch_size=3)
        return seen

    assert on_ranks(2, program) == [[3, 3, 3, 2], [3, 3, 3]]


@pytest.mark.parametrize("culprit", [0, 1])
@pytest.mark.parametrize("when", ["in a part", "between", "in an attack", "at the beginning"])
def test_where_one_rank_fails_all_end(culprit, when, tmp_path):
    def program(number):
        model, calls = with_modes(), []
        forward = model.layers[3].forward

        def fails(x):
            calls.append(len(x))
            if number == culprit and len(calls) == 6:
                raise ZeroDivisionError
            return forward(x)

        def hook():
            if number == culprit:
                raise ZeroDivisionError

        if when == "in an attack":
            model.eval()
            model.layers[3].forward = fails
            return FGSM(0.1)(model, images(40, (1, 4, 3)), labels(40, 3), batch_size=2)
        if when == "at the beginning":
            path = tmp_path / f"{number == culprit}.npz"
            if number == culprit:
                path.write_bytes(b"no checkpoint")
            return trained(model=model, checkpoint=path, resume=True)
        if when == "between":
            return trained(model=model, hook=hook)
        model.layers[3].forward = fails
        return trained(model=model)

    found = on_ranks(2, program)
    assert isinstance(found[culprit], StateError if when == "at the beginning" else ZeroDivisionError)
    assert isinstance(found[1 - culprit], RankFailed)
    assert f"rank {culprit} of 2 has failed" in str(found[1 - culprit])


@pytest.mark.parametrize("culprit", [0, 1])
@pytest.mark.parametrize("wrong", ["images", "checkpoint", "spelling", "x", "x of several", "y"])
def test_where_one_rank_has_wrong_arguments_all_end(culprit, wrong, tmp_path):
    (tmp_path / "there.npz").touch()

    def program(number):
        guilty, model, attack = number == culprit, with_modes(), FGSM(0.1)
        x, y, train = images(8, (1, 4, 3)), labels(8, 3), data.Dataset(images(8, (1, 4, 3)), labels(8, 3), "random")
        options = {"checkpoint": tmp_path / ("there.npz" if guilty else "other.npz")} if wrong == "checkpoint" else {}
        if wrong == "spelling":
            options = {"lr" if guilty else "seed": 0}
        if wrong.startswith("x") and guilty:
            x[0] = np.nan
        if wrong == "x of several":
            return MultiAttack([attack, attack])(model, x, y)
        if wrong in ("x", "y"):
            return attack(model, x, y[1:] if wrong == "y" and guilty else y)
        return training.fit(model, train[:0] if wrong == "images" and guilty else train, epochs=1,
                            optimizer=SGD(model, lr=0.1), **options)

    found = on_ranks(2, program)
    assert isinstance(found[culprit], TypeError if wrong == "spelling" else ValueError)
    assert isinstance(found[1 - culprit], RankFailed)


def test_ranks_that_differ_are_refused():
    for error in on_ranks(2, lambda number: trained(model=with_modes(seed=number))):
        assert isinstance(error, ValueError)
        assert "differs from rank" in str(error)
        assert "weights" in str(error)


def test_outside_and_for_oneself_there_is_one_rank():
    assert (ranks().number, ranks().size) == (0, 1)
    assert ranks().exchange([1, 2]) == [1, 2]

    def program(number):
        with sharing(None):
            alone = ranks().size
        return alone, ranks().number, ranks().size

    assert on_ranks(3, program) == [(1, 0, 3), (1, 1, 3), (1, 2, 3)]
    assert ranks().size == 1


def test_a_state_file_is_refused_by_every_rank(tmp_path):
    x, y = images(4), labels(4)

    def program(number):
        with pytest.raises(ValueError, match="state must be None while ranks share the work"):
            TinyAutoAttack(0.1).run(cnn(), x, y, state=tmp_path / "state.npz")
        return number

    assert on_ranks(2, program) == [0, 1]
