"""Properties of the threads: parts of a batch meet, all or none, and BLAS gets its threads back."""

import contextlib
import functools
import operator
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupts import interrupted_everywhere
from strategies import seeds
from threadpoolctl import threadpool_info

from tinyadv import no_grad, parallel, tensor
from tinyadv.nn import BatchNorm2d, Sequential
from tinyadv.parallel import Setting, all_reduce, part_index, single_threaded_blas, submit, together

PATIENCE = 60  # seconds, of which a slow machine needs a quarter
parts_counts = st.integers(1, 4)


@pytest.fixture(autouse=True)
def _nobody_waits_for_ever(monkeypatch):
    """Where parts would wait for ever, they end in an error some time, and the test in this one."""
    started = time.monotonic()
    monkeypatch.setattr(threading, "Barrier", functools.partial(threading.Barrier, timeout=PATIENCE))
    yield
    assert time.monotonic() - started < PATIENCE, "a part was left waiting"


def in_parts(work, count):
    """work(index) for all parts of a batch."""
    with ThreadPoolExecutor(count) as pool:
        return together(pool, work, range(count))


@given(st.lists(st.integers(), min_size=1, max_size=4))
def test_the_results_come_in_the_order_of_the_parts(parts):
    def work(part):
        time.sleep(0.001 * (len(parts) - part_index()))  # the last is the first to end
        return part, part_index()

    with ThreadPoolExecutor(len(parts)) as pool:
        assert together(pool, work, parts) == [(part, index) for index, part in enumerate(parts)]


def test_the_parts_run_at_the_same_time():
    barrier = threading.Barrier(4)
    assert sorted(in_parts(lambda _: barrier.wait(), 4)) == [0, 1, 2, 3]


@given(parts_counts, st.integers(1, 5), seeds)
def test_every_part_sees_the_sum_in_the_order_of_the_parts(count, meetings, seed):
    """Of several values at once, arrays and numbers, and bit for bit: the order of a sum decides its last bits."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((meetings, count, 3)) * 10.0 ** rng.integers(-9, 9, (meetings, count, 1))
    values = values.astype(np.float32)
    brought = values.copy()

    def work(part):
        return [all_reduce(mine[part], part + 1, float(mine[part, 0])) for mine in brought]

    for found in in_parts(work, count):
        for shares, (array, number, first) in zip(values, found, strict=True):
            assert array.tobytes() == functools.reduce(operator.add, shares).tobytes()
            assert array.dtype == np.float32
            assert number == count * (count + 1) // 2
            assert first == functools.reduce(operator.add, shares[:, 0].tolist())
    np.testing.assert_array_equal(brought, values)


def test_a_whole_batch_is_one_part():
    x = np.arange(3.0)
    for array, number, index in [(*all_reduce(x, 2), part_index()), *in_parts(lambda _: (*all_reduce(x, 2), 0), 1)]:
        assert array is x
        assert (number, index) == (2, 0)


@pytest.mark.parametrize("culprit", range(3))
@pytest.mark.parametrize("meetings", range(3))
def test_a_part_that_raises_lets_the_others_go_and_is_heard(culprit, meetings):
    """Before, between or after the meetings; what is raised is its exception, and not that the others were let go."""
    def work(part):
        for meeting in range(2):
            if (part, meeting) == (culprit, meetings):
                raise ZeroDivisionError(f"part {part}")
            all_reduce(part)
        if (part, 2) == (culprit, meetings):
            raise ZeroDivisionError(f"part {part}")

    with ThreadPoolExecutor(3) as pool:
        with pytest.raises(ZeroDivisionError, match=f"part {culprit}"):
            together(pool, work, range(3))
        assert together(pool, all_reduce, [1, 2, 3]) == [(6,)] * 3  # the next batch is as if nothing had been


def test_of_several_exceptions_the_first_parts_is_raised():
    def work(part):
        raise ZeroDivisionError(f"part {part}")

    with pytest.raises(ZeroDivisionError, match="part 0"):
        in_parts(work, 4)


@pytest.mark.parametrize("meetings", [(0, 1, 1), (1, 0, 0), (2, 2, 1), (2, 3, 2)])
def test_a_part_that_meets_less_often_is_an_error_and_no_hang(meetings):
    with pytest.raises(RuntimeError, match="parts of a batch must call all_reduce the same number of times"):
        in_parts(lambda part: [all_reduce(1.0) for _ in range(meetings[part])], 3)


def test_a_thread_is_in_no_part_once_its_part_has_ended():
    def fails(part):
        if part == 1:
            raise ZeroDivisionError

    with ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(2) as two:
        together(pool, all_reduce, [1])
        assert pool.submit(lambda: (part_index(), all_reduce(5))).result() == (0, (5,))
        with pytest.raises(ZeroDivisionError):
            together(two, fails, range(2))
        barrier = threading.Barrier(2)
        assert [each.result() for each in submit(two, lambda _: barrier.wait() * 0 + part_index(), range(2))] == [0, 0]


def test_two_batches_at_the_same_time_do_not_mix():
    def batch(weight):
        return in_parts(lambda part: [all_reduce(weight * (part + 1)) for _ in range(20)], 3)

    with ThreadPoolExecutor(2) as pool:
        assert [each.result() for each in submit(pool, batch, [1, 100])] == [[[(6,)] * 20] * 3, [[(600,)] * 20] * 3]


@pytest.mark.parametrize("start", [lambda pool, work: [future.result() for future in submit(pool, work, range(3))],
                                   lambda pool, work: together(pool, work, range(3))], ids=["submit", "together"])
def test_the_callers_context_is_carried_into_each_part_and_not_back(start):
    variable = ContextVar("variable", default=0)

    def work(part):
        variable.set(variable.get() + part)
        return np.geterr()["divide"], variable.get()

    with ThreadPoolExecutor(3) as pool, np.errstate(divide="ignore"):
        with np.errstate(divide="raise"):
            variable.set(10)
            assert start(pool, work) == [("raise", 10), ("raise", 11), ("raise", 12)]
        assert variable.get() == 10
        assert start(pool, work)[0] == ("ignore", 10)


def blas_threads():
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_blas_has_one_thread_until_the_outermost_block_is_left_also_by_an_exception():
    def inner():
        with single_threaded_blas():
            raise ZeroDivisionError

    before = blas_threads()
    with single_threaded_blas():
        with pytest.raises(ZeroDivisionError):
            inner()
        assert blas_threads() == {1}
    assert blas_threads() == before


def test_blas_gets_its_threads_back_when_blocks_of_two_threads_overlap():
    before, entered, first_left = blas_threads(), threading.Event(), threading.Event()

    def second():
        with single_threaded_blas():
            entered.set()
            first_left.wait(10)

    thread = threading.Thread(target=second)
    with single_threaded_blas():
        thread.start()
        entered.wait(10)
        assert blas_threads() == {1}
    first_left.set()
    thread.join()
    assert blas_threads() == before


def test_parts_that_have_started_end_where_no_thread_is_to_be_had_for_the_others():
    """Without that the first part would wait for a second one that never comes."""

    class Exhausted(ThreadPoolExecutor):
        def submit(self, *args, **kwargs):
            if self._threads:
                raise RuntimeError("can't start new thread")
            return super().submit(*args, **kwargs)

    with Exhausted(2) as pool, pytest.raises(RuntimeError, match="new thread"):
        together(pool, lambda part: all_reduce(part), [1, 2])


@pytest.mark.parametrize("first_leaves_first", [True, False])
def test_blas_keeps_its_limit_until_the_last_of_two_threads_is_done(first_leaves_first):
    """Whoever came first: before, the limit ended with the first, and the other went on with all threads."""
    before, entered, leave = blas_threads(), threading.Event(), threading.Event()

    def other():
        with single_threaded_blas():
            entered.set()
            leave.wait(10)
            return blas_threads()

    with ThreadPoolExecutor(1) as pool:
        with single_threaded_blas() if first_leaves_first else contextlib.nullcontext():
            second = pool.submit(other)
            entered.wait(10)
        if first_leaves_first:
            assert blas_threads() == {1}
        else:
            with single_threaded_blas():
                leave.set()
                second.result()
                assert blas_threads() == {1}
        leave.set()
        assert second.result() == {1}
    assert blas_threads() == before


def test_a_setting_holds_in_its_block_and_in_the_threads_started_there():
    setting, seen = Setting("setting", 0), []
    with ThreadPoolExecutor(1) as pool, setting.within(1):
        with setting.within(2):
            seen += [each.result() for each in submit(pool, lambda _: setting.get(), range(2))]
        seen += [setting.get(), pool.submit(setting.get).result()]
    assert [*seen, setting.get()] == [2, 2, 1, 0, 0]


model = Sequential(BatchNorm2d(1), Sequential(BatchNorm2d(1)))


@pytest.mark.parametrize("enter", [no_grad, lambda: tensor.recording(True), single_threaded_blas,
                                   lambda: model.mode(training=False)])
@pytest.mark.parametrize("nested", [False, True])
def test_an_interrupt_at_any_bytecode_of_a_block_leaves_nothing_behind(enter, nested):
    """Also at one of contextlib's, where the block is left as late as the garbage collector finds it."""
    def block():
        with enter():
            if nested:
                with no_grad(), enter(), model.layers[1].mode(training=True), single_threaded_blas():
                    pass

    def state():
        flags = [(each.training, vars(each).get("_training")) for _, each in model.named_modules()]
        users = len(parallel._users), len(parallel._leaving), parallel._before
        return [each.num_threads for each in parallel._blas_libraries()], users, tensor._recording.get(), flags

    before, runs = state(), 0
    for runs in interrupted_everywhere(block, ("tinyadv/parallel.py", "nn/module.py", "contextlib.py")):
        assert state() == before, f"interrupt number {runs}"
    assert runs > 150
