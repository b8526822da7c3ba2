"""Properties of executors: the same bytes as on one thread, whoever has the shards and in which order they finish."""

import hashlib
import pickle
import threading
import time
from collections import Counter
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields
from functools import cache
from multiprocessing import get_context

import numpy as np
import pytest
from attack_cases import Surrogate, TinyAutoAttack, cnn, every_attack, images, labels
from executor_cases import Failing, OfALock, OfNoNotes, OfTwo, Pickling, Raising, Tired, Told
from threadpoolctl import threadpool_info

from tinyadv import attacks, data, driver, evaluation, executors, nn
from tinyadv.attacks import FGSM, PGD, MultiAttack, Square
from tinyadv.random import Streams

X, Y = images(20), labels(20)
SHOWN = [PGD(0.1, steps=3, restarts=2), Square(0.1, queries=8), TinyAutoAttack(0.1)]
each_shown = pytest.mark.parametrize("attack", SHOWN, ids=lambda attack: type(attack).__name__)


@cache
def model():
    return nn.Sequential(nn.GaussianNoise(0.1, at_test=True), cnn())


def processes(count):
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))


@pytest.fixture(scope="module")
def pools():
    with processes(1) as one, processes(2) as two:
        yield {1: one, 2: two}


def assert_same(result, other):
    """Everything but the seconds."""
    for name in {f.name for f in fields(result)} - {"seconds", "table"}:
        np.testing.assert_array_equal(getattr(result, name), getattr(other, name), err_msg=name)
    for row, twin in zip(result.table, other.table, strict=True):
        assert row[:3] + row[4:] == twin[:3] + twin[4:]


@each_shown
def test_the_bytes_are_the_same_on_threads_and_in_processes(attack, pools):
    digests = {}
    for name, options in {"1 thread": {"workers": 1}, "2 threads": {"workers": 2}, "1 process": {"executor": pools[1]},
                          "2 processes": {"executor": pools[2]}, "shuffled": {"executor": Pickling(3)},
                          "other threads": {"executor": ThreadPoolExecutor(3)}}.items():
        x_adv = attack(model(), X, Y, seed=5, batch_size=3, **options)
        digests[name] = hashlib.sha256(x_adv.tobytes()).hexdigest()
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("options", [{}, {"skip_misclassified": True}, {"quantize": True}, {"target": 2}], ids=str)
@every_attack
def test_the_whole_result_is_the_same_whoever_runs_the_shards(attack, options):
    options |= {"seed": 3, "batch_size": 4}
    expected = attack.run(Surrogate(1), X, Y, workers=1, **options)
    assert_same(expected, attack.run(Surrogate(1), X, Y, executor=Pickling(2), **options))


def test_random_layers_and_means_over_draws_are_the_same():
    attack = PGD(0.1, steps=2, eot=3)
    assert_same(attack.run(model(), X, Y, workers=1), attack.run(model(), X, Y, executor=Pickling(2)))


def test_a_model_in_training_mode_is_evaluated_and_stays_as_it_was(pools):
    trained = cnn().train()
    before = {name: array.tobytes() for name, array in trained.state_dict().items()}
    found = driver.logits(trained, X, batch_size=5, executor=pools[2])
    np.testing.assert_array_equal(found, driver.logits(trained, X, batch_size=5))
    assert {name: array.tobytes() for name, array in trained.state_dict().items()} == before
    assert all(module.training for _, module in trained.named_modules())


def test_evaluation_is_the_same_in_processes(pools):
    subject, attack = data.Dataset(X, Y, "random"), PGD(0.1, steps=2)
    curve = [evaluation.epsilon_curve(model(), attack, subject, [0.05, 0.1], batch_size=4, **options)
             for options in ({}, {"executor": pools[2]})]
    assert curve[0] == curve[1]
    for function, arguments in [
        (evaluation.accuracy, (subject,)), (evaluation.robust_accuracy, (attack, subject)),
        (evaluation.security_curve, (attacks.DeepFool(steps=3), subject, [0.1, 1])),
    ]:
        assert function(model(), *arguments) == function(model(), *arguments, executor=pools[2])
    options = {"eps": 0.1, "steps": 2}
    assert str(evaluation.sanity_checks(model(), subject, **options, executor=Pickling(2))) == str(
        evaluation.sanity_checks(model(), subject, **options))
    assert evaluation.three_ways(cnn(), model(), attack, subject, executor=Pickling(2)) == evaluation.three_ways(
        cnn(), model(), attack, subject)


def test_a_model_goes_once_to_each_worker_and_again_once_it_has_changed():
    changing, pool, before, x = cnn(), Pickling(3), 0, images(40)
    for change in (False, True, True):
        changing.layers[1].bias.data += change
        for number in range(3):
            expected = driver.logits(changing, x + number, batch_size=1, workers=1)
            np.testing.assert_array_equal(driver.logits(changing, x + number, batch_size=1, executor=pool), expected)
            if number == 0:  # some tasks bring it to a worker that has it: who gets a task is drawn
                assert 3 <= sum(pool.sent) - before <= 30
                before = sum(pool.sent)
        assert sum(pool.sent) == before
    assert all(len(memory) == executors.KEPT for memory in pool.memories)


def test_a_process_unpickles_a_model_once(pools, tmp_path):
    file = tmp_path / "seen"
    for _ in range(3):
        driver.logits(Told(file), X, batch_size=2, executor=pools[2])
    counts = Counter(file.read_text().split())
    assert len(counts) <= 2
    assert sum(counts.values()) <= 15  # of 30 tasks, so short that one process may take what the other lacks


def test_an_executor_need_not_say_how_many_workers_it_has():
    expected = driver.logits(model(), X, batch_size=2, workers=1)
    for options in ({}, {"workers": 2}):
        pool = Pickling(2, say=False)
        np.testing.assert_array_equal(driver.logits(model(), X, batch_size=2, executor=pool, **options), expected)
        assert sum(pool.sent) < 10 or not options


def test_in_the_process_of_the_caller_nothing_is_kept():
    """What a thread kept would change with the model."""
    with ThreadPoolExecutor(2) as pool:
        driver.logits(model(), X, executor=pool)
    assert executors._lent == executors._received == {}


def test_each_worker_has_one_thread_for_blas(pools):
    assert set(blas_threads(None, X)) == {threadpool_info()[0]["num_threads"]}
    found = set()
    driver.run(blas_threads, Surrogate(), (X,), lambda part, threads: found.update(threads), executor=pools[2])
    assert found == {1}


def blas_threads(model, x):
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_the_bar_counts_what_workers_report(capsys):
    FGSM(0.1).run(Surrogate(), X, Y, batch_size=5, executor=Pickling(2), progress=True)
    assert "20/20" in capsys.readouterr().err


# What goes wrong


def test_a_worker_that_dies_is_told_by_the_range_and_a_state_resumes_to_the_same_bytes(tmp_path):
    subject = cnn().eval()
    attack, file, options = TinyAutoAttack(0.1), tmp_path / "alive", {"seed": 1, "batch_size": 2}
    expected = attack.run(subject, X, Y, workers=1, **options)
    file.touch()
    tired = Tired(subject, file, 45)
    with pytest.raises(BrokenExecutor, match=r"failed with x\[\d+:\d+\].* in its hands, after") as caught, (
            processes(1)) as pool:
        attack.run(tired, X, Y, executor=pool, state=tmp_path / "state.npz", **options)
    assert any(note.startswith("in ") and "examples from x[" in note for note in caught.value.__notes__)
    with np.load(tmp_path / "state.npz") as state:
        tried = state["tried"]
    assert 0 < tried.sum() < len(SHOWN) * len(X) * 4
    with processes(1) as pool:
        again = attack.run(tired, X, Y, executor=pool, state=tmp_path / "state.npz", **options)
    assert_same(expected, again)


def test_an_error_of_the_model_is_raised_with_the_range(pools):
    with pytest.raises(ZeroDivisionError, match="of the model") as caught:
        FGSM(0.1)(Failing(), X, Y, batch_size=5, executor=pools[2])
    assert any("the model was given x[" in note for note in caught.value.__notes__)
    assert driver.logits(Surrogate(), X, executor=pools[2]).shape == (20, 5)  # the pool lives on


@pytest.mark.parametrize(("kind", "arguments", "message"), [
    (OfTwo, ("one", "other"), "OfTwo: one and other"), (OfALock, (), "OfALock: a lock"),
    (OfNoNotes, ("none",), "OfNoNotes: none"),
])
def test_an_error_that_cannot_be_sent_is_told_in_another(kind, arguments, message, pools):
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as fresh:  # it forks when the first shard is sent
        for pool in pools[1], Pickling(1), fresh:
            with pytest.raises(RuntimeError, match=f"^{message}") as caught:
                FGSM(0.1)(Raising(kind, *arguments), X, Y, batch_size=5, executor=pool)
            assert any("the model was given x[" in note for note in caught.value.__notes__)
    assert driver.logits(Surrogate(), X, executor=pools[1]).shape == (20, 5)  # the pool lives on
    with pytest.raises(kind), ThreadPoolExecutor(1) as pool:
        FGSM(0.1)(Raising(kind, *arguments), X, Y, batch_size=5, executor=pool)


def test_a_model_that_cannot_be_sent_is_named(pools):
    weights = Surrogate()
    with pytest.raises(TypeError, match=r"the model, .*<lambda>, cannot be sent .* at the top of a module"):
        FGSM(0.1)(lambda x: weights(x), X, Y, executor=pools[1])
    assert driver.logits(weights, X, executor=pools[1]).shape == (20, 5)


def test_a_callback_stays_at_home():
    for attack in (FGSM(0.1), MultiAttack([FGSM(0.1), FGSM(0.1)])):
        with pytest.raises(ValueError, match="callback must be None with an executor"):
            attack.run(Surrogate(), X, Y, callback=print, executor=Pickling(1))


@pytest.mark.parametrize("wrong", [2, "processes", threading, get_context])
def test_what_is_no_executor_is_refused(wrong):
    with pytest.raises(TypeError, match=r"executor must be a concurrent\.futures\.Executor, got"):
        FGSM(0.1)(Surrogate(), X, Y, executor=wrong)


def test_ctrl_c_cancels_what_has_not_begun_and_stops_what_has():
    def put(part, rows):
        raise KeyboardInterrupt

    futures = []
    with ThreadPoolExecutor(2) as pool:
        submit = pool.submit
        pool.submit = lambda *args: futures.append(submit(*args)) or futures[-1]
        with pytest.raises(KeyboardInterrupt):
            driver.run(slow_but_for_the_first, Surrogate(), (X, np.arange(20)), put, batch_size=1, executor=pool)
    first, running, next_, last = ("cancelled" if each.cancelled() else each.result() for each in futures)
    assert (first, running, last) == (("done",), (None,), "cancelled")
    assert next_ in ((None,), "cancelled")  # the free thread may be quicker


def slow_but_for_the_first(model, x, number):
    if number[0]:
        for _ in range(10**5):
            driver.logits(model, x, workers=1)
    time.sleep(0.2)  # until the second has begun
    return "done"


def test_a_run_has_ended_once_its_file_is_gone_from_its_folder(tmp_path):
    file = tmp_path / "folder" / "run"
    run = pickle.loads(pickle.dumps(executors._Run(str(file))))
    assert not run.is_set()  # on a machine with other files
    file.parent.mkdir()
    file.touch()
    assert not run.is_set()
    file.unlink()
    assert run.is_set()


def test_streams_travel_with_their_own_past_alone():
    streams = Streams(7, range(4))
    streams[1:3].uniform((2,))
    part = pickle.loads(pickle.dumps(streams[2:]))
    assert [*part._streams] == [(2, 0)]
    np.testing.assert_array_equal(part.uniform((3,)), streams[2:].uniform((3,)))


def test_that_no_thread_could_be_started_is_told_as_it_is(monkeypatch):
    def refuse(self, *_, **__):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        FGSM(0.1)(cnn(), X, Y, batch_size=5, workers=2)
