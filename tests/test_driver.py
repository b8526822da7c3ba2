"""Properties of the driver: every example once, whatever the shards and threads, and nothing left behind."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from attack_cases import on_device
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from tinyadv import Tensor, attacks, driver, executors, nn, ops
from tinyadv.backend import to_host
from tinyadv.random import Streams


def small_model(seed=0):
    """With everything that behaves differently in training mode, and flags that are neither all on nor all off."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, rng=rng), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
                          nn.Linear(27, 4, rng=rng)).train()
    model.layers[2].training = False
    return model


def images(count, seed=1):
    return np.random.default_rng(seed).random((count, 1, 5, 5), np.float32)


def snapshot(model):
    """All that evaluating a model must leave alone."""
    flags = [module.training for _, module in model.named_modules()]
    return {name: array.tobytes() for name, array in model.state_dict().items()}, flags, model.layers[4].calls


@given(count=st.integers(0, 5000), batch_size=st.none() | st.integers(1, 6000), size=st.integers(1, 200_000),
       on_host=st.booleans())
def test_the_shards_cover_every_example_once_and_in_order(count, batch_size, size, on_host):
    parts = driver.shards(count, batch_size, size, on_host)
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert all(each == sizes[0] for each in sizes[:-1])
    most = batch_size or max(driver.FEWEST, (driver.SHARD if on_host else driver.GPU_SHARD) // size)
    assert all(0 < each <= most for each in sizes)
    if batch_size is None and on_host and count > 1:
        assert len(parts) > 1  # so that there is work for two
        assert min(sizes) > max(sizes) - len(parts)


@given(count=st.integers(0, 40), batch_size=st.integers(1, 9), workers=st.integers(1, 4))
def test_all_shards_are_run_once_on_at_most_so_many_threads(count, batch_size, workers):
    seen, threads = [], set()

    def work(model, rows, doubled, nothing):
        assert nothing is None
        threads.add(threading.get_ident())
        return rows + doubled

    def put(part, rows):
        assert threading.get_ident() == caller
        seen.append((part, rows.tolist()))

    caller, x = threading.get_ident(), np.arange(count)[:, None]
    driver.run(work, lambda x: x, (x, 2 * x, None), put, batch_size=batch_size, workers=workers)
    expected = [(part, (3 * x[part]).tolist()) for part in driver.shards(count, batch_size)]
    assert sorted(seen, key=lambda each: each[0].start) == expected
    assert len(threads) <= workers
    assert workers > 1 or threads <= {threading.get_ident()}


@pytest.mark.parametrize("workers", [1, 2, None])
@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("count", [1, 2, 9, 130])
def test_the_logits_are_those_of_the_model(count, batch_size, workers):
    model, x = small_model(), images(count)
    found = driver.logits(model, x, batch_size=batch_size, workers=workers)
    with model.mode(training=False):
        np.testing.assert_allclose(found, model(Tensor(x)).data, rtol=0, atol=1e-6)
    assert found.dtype == np.float32


def test_the_bits_do_not_depend_on_the_number_of_workers():
    model, x = small_model(), images(150)
    results = {driver.logits(model, x, workers=workers).tobytes() for workers in (1, 2, 3) for _ in range(2)}
    assert len(results) == 1


@pytest.mark.parametrize("count", [0, 7])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_model_is_in_evaluation_mode_meanwhile_and_as_before_after(count, workers):
    model, x = small_model(), images(count)
    before = snapshot(model)
    modes = []

    def look(tensor):
        modes.append([module.training for _, module in model.named_modules()])
        return tensor

    setattr(model, "6", look)
    found = driver.logits(model, x, batch_size=3, workers=workers)
    assert found.shape == (count, 4)
    assert modes
    assert not np.any(modes)
    assert snapshot(model) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_blas_has_one_thread_meanwhile_and_as_many_as_before_after(workers):
    """Threads inside matrix products would get in the way of those of the shards."""
    def threads():
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before, meanwhile = threads(), []
    driver.logits(lambda x: meanwhile.extend(threads()) or ops.flatten(x), images(9), batch_size=2, workers=workers)
    assert set(meanwhile) == {1}
    assert threads() == before


def test_no_graph_is_recorded():
    recorded = []

    def model(x):
        y = ops.flatten(x) * 2.0
        with pytest.raises(RuntimeError, match="no graph"):
            y.sum().backward()
        recorded.append(x.grad)
        return y

    driver.logits(model, images(9), batch_size=2, workers=2)
    assert recorded == [None] * 5


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_in_a_shard_is_raised_once_the_running_ones_have_ended(workers):
    model, running, lock = small_model(), [0, 0], threading.Lock()
    before = snapshot(model)

    def work(model, rows):
        with lock:
            running[0] += 1
            running[1] += 1
        try:
            if rows[0, 0] == 2:
                raise ZeroDivisionError("shard 2")
            time.sleep(0.002)
        finally:
            with lock:
                running[0] -= 1

    with pytest.raises(ZeroDivisionError, match="shard 2"):
        driver.run(work, model, (np.arange(100)[:, None],), lambda *_: None, batch_size=1, workers=workers)
    assert running[0] == 0
    assert running[1] < 100  # those that had not begun never do
    assert snapshot(model) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_once_an_event_is_set_no_forward_pass_begins(workers):
    passes, event = [], threading.Event()

    def counted(x):
        passes.append(len(x))
        if len(passes) == 3:
            event.set()
        return ops.flatten(x)

    with pytest.raises(executors.Stopped), executors.stopping(event):
        driver.logits(counted, images(100), batch_size=1, workers=workers)
    assert 3 <= len(passes) <= 2 + workers
    assert driver.logits(counted, images(4), batch_size=1).shape == (4, 25)  # outside the block the event is nobody's


def test_nor_does_one_by_an_executor():
    passes, event = [], threading.Event()

    def counted(x):
        passes.append(len(x))
        event.set()
        return ops.flatten(x)

    with ThreadPoolExecutor(1) as pool, pytest.raises(executors.Stopped), executors.stopping(event):
        driver.logits(counted, images(100), batch_size=1, executor=pool)
    assert len(passes) <= 2


@pytest.mark.parametrize("run", [
    lambda x: driver.input_gradients(ops.flatten, x, np.zeros(6, int)),
    lambda x: driver.logits(ops.flatten, x, seed=Streams(0, range(2))),
])
def test_each_image_needs_its_class_and_its_stream(run):
    with pytest.raises(ValueError, match=r"images in x is 3, but .* in y is 6|Streams of 3 examples as x has"):
        run(images(3))


def test_an_error_ends_the_other_shards_before_their_next_forward_pass():
    failed, after = threading.Event(), []

    def work(model, rows):
        if rows[0, 0] == 0:
            failed.set()
            raise ZeroDivisionError
        assert failed.wait(10)
        time.sleep(0.05)  # by now the error has been seen
        driver.forward(lambda x: after.append(x) or ops.flatten(x), images(1))

    with pytest.raises(ZeroDivisionError):
        driver.run(work, lambda x: x, (np.arange(2)[:, None],), lambda *_: None, batch_size=1, workers=2)
    assert after == []


@pytest.mark.parametrize("count", [0, 5])
def test_the_model_may_lie_elsewhere(xp, count):
    """The data go where the model is, and the logits come back to where the data were."""
    x = images(count)
    expected = driver.logits(small_model(), x)
    for model, data in [(on_device(small_model(), xp), x), (small_model(), xp.asarray(x)),
                        (on_device(small_model(), xp), xp.asarray(x))]:
        found = driver.logits(model, data, batch_size=2, workers=2)
        assert type(found) is type(data)
        np.testing.assert_allclose(to_host(found), expected, rtol=0, atol=1e-6)


def test_a_shard_reaches_the_model_in_the_memory_order_of_its_library(xp):
    def model(x):
        seen.append(x.data)
        return ops.flatten(x)

    seen, x = [], xp.asarray(images(6))
    assert (to_host(driver.logits(model, x, batch_size=4)) == to_host(x).reshape(6, 25)).all()
    assert [len(shard) for shard in seen] == [4, 2]
    for shard in seen:
        assert (shard.transpose(2, 1, 3, 0) if xp is np else shard).flags.c_contiguous  # (H, C, W, N), or C order


@pytest.mark.parametrize(("model", "error", "message"), [
    (lambda x: x.data.tolist(), TypeError, "the model must return a Tensor of logits, got list"),
    (lambda x: x.data, ValueError, r"the model must return logits \(N, K\) with N = 3, got shape \(3, 1, 5, 5\)"),
    (lambda x: x, ValueError, r"the model must return logits \(N, K\) with N = 3, got shape \(3, 1, 5, 5\)"),
    (lambda x: ops.flatten(x)[:2], ValueError, r"with N = 3, got shape \(2, 25\)"),
])
def test_what_is_no_logits_is_refused(model, error, message):
    with pytest.raises(error, match=message):
        driver.logits(model, images(3), batch_size=3)


def test_where_nobody_asks_for_a_gradient_logits_may_be_an_array():
    x = images(3)
    found = driver.logits(lambda x: x.data.reshape(len(x), 25), x, batch_size=2)
    np.testing.assert_array_equal(found, x.reshape(3, 25))


def halved(x):
    if not isinstance(x, np.ndarray):
        raise ValueError("x must be an array")
    x *= 0.5
    return x.reshape(len(x), 25)


@pytest.mark.parametrize("function", [
    lambda x: np.tanh(x.astype(np.float64)).reshape(len(x), 25), lambda x: (x > 0.5).reshape(len(x), 25) * 1.0,
    lambda x: np.array([row.ravel() for row in x.copy()]), halved], ids=["tanh", "compared", "rows", "in place"])
def test_where_nobody_asks_for_a_gradient_a_function_on_arrays_will_do(function):
    x, before = images(6), images(6)
    np.testing.assert_array_equal(driver.logits(function, x, batch_size=2), function(x.copy()))
    y = function(x.copy()).argmax(axis=1)
    result = attacks.Square(0.3, queries=20).run(function, x, y, seed=1)
    assert (abs(result.x_adv.astype(np.float64) - before) <= 0.3).all()
    np.testing.assert_array_equal(function(result.x_adv.copy()).argmax(axis=1) != y, result.success)
    told = "has no attribute|not supported|does not support|must be an array"
    with pytest.raises((AttributeError, TypeError, ValueError), match=told):
        attacks.FGSM(0.3)(function, x, y)


def test_the_error_of_a_function_on_tensors_is_told_as_it_was():
    with pytest.raises(AttributeError, match=r"write ops.relu\(x\)"):
        driver.logits(lambda x: x.relu(), images(3))


@pytest.mark.parametrize(("option", "value"), [
    *(("workers", value) for value in (0, -1, 1.5, True, "2")),
    *(("batch_size", value) for value in (0, -3, 2.0, True, "8")),
])
def test_a_wrong_option_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=f"{option} must be an integer >= 1, got {value!r}"):
        driver.logits(small_model(), images(3), **{option: value})


def test_streams_that_are_given_as_a_seed_are_not_advanced():
    model, x, streams = small_model(), images(6), Streams(3, range(6))
    first, second = (attacks.PGD(0.1, steps=1)(model, x, np.zeros(6, int), seed=streams) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("batch_size", [2, 3, 20])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_example_that_is_there_twice_has_the_same_noise_in_every_shard(batch_size, workers):
    index = np.random.default_rng(1).integers(0, 6, 20)
    x, found = images(6)[index], np.empty((20, 1, 5, 5))

    def draw(model, x, streams):
        return streams.normal(x.shape[1:])

    driver.run(draw, small_model(), (x, Streams(0, index)), found.__setitem__, batch_size=batch_size, workers=workers)
    np.testing.assert_array_equal(found, Streams(0, range(6)).normal((1, 5, 5))[index])
