"""Running a model over many examples: in shards, on threads, in evaluation mode, where the model's memory is.

A shard goes through the network, there and back, on one thread, with BLAS limited to one thread too: that is faster
than threads inside each operation, and the same examples in the same shards give the same bits on any number of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from tinyadv.backend import Array, array_module, device_of, is_array, move, on_its_device, usable_cores
from tinyadv.executors import Lost, check_executor, gather, run_elsewhere, stop_if_told, stopping_also
from tinyadv.nn import Module
from tinyadv.ops.loss import check_labels, cross_entropy
from tinyadv.ops.movement import arranged
from tinyadv.parallel import single_threaded_blas, submit
from tinyadv.random import Streams, drawing_from
from tinyadv.ranks import ranks
from tinyadv.shapes import check_equal, check_floating, check_input, check_several, to_count
from tinyadv.spellings import check_model, foreign
from tinyadv.tensor import Tensor, depends, gradients, no_grad, recording

# A shard has as many examples as make up this many numbers, 100 MNIST or 25 CIFAR-10 images, and at least a few: fewer
# are many turns of the interpreter and thin matrices, more do not fit in the caches. A GPU needs a lot at once.
SHARD, GPU_SHARD, FEWEST = 100 * 28 * 28, 1 << 22, 4


def shards(count: int, batch_size: int | None, size: int = 28 * 28, on_host: bool = True) -> list[slice]:
    """How `count` examples of `size` numbers are split: by batch_size, or evenly, whatever the number of workers."""
    if batch_size is None:
        most = max(FEWEST, (SHARD if on_host else GPU_SHARD) // max(1, size))
        parts = 2 * -(-count // (2 * most)) if on_host else -(-count // most)
        batch_size = max(1, -(-count // max(1, parts)))
    batch_size = to_count("batch_size", batch_size)
    return [slice(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def run(work: Callable, model: Callable, values: tuple, put: Callable[[slice, Any], None], *,
        batch_size: int | None = None, workers: int | None = None, executor: Executor | None = None) -> None:
    """Call put(shard, work(model, images, ...)) for all shards, with the model in evaluation mode.

    values: the images x (N, ...), and what else `work` takes: sequences of N, of which it gets the same rows, or None.
    `work` is called on `workers` threads or by the executor, `put` by the thread that called `run`, in any order. The
    first exception is raised here, also that of Ctrl-C: shards that run on this machine then end before their next
    forward pass, those on other machines run on, the others never begin.
    """
    check_model(model)
    to_count("workers", 1 if workers is None else workers)
    check_executor(executor)
    x = values[0]
    on_host = isinstance(memory_of(model, x), np.ndarray)
    parts = shards(len(x), batch_size, math.prod(x.shape[1:]), on_host)
    threads = (workers or usable_cores()) if on_host else 1

    def arguments(part: slice) -> tuple:
        return work, [None if value is None else value.apart(part) if isinstance(value, Streams) else value[part]
                      for value in values], part, x.shape

    shared, found = ranks(), list[tuple[slice, Any]]()
    with evaluation_mode(model), single_threaded_blas():
        if shared.size == 1:
            _run(model, arguments, parts, put, threads, executor, workers)
            return
        with shared.telling():
            _run(model, arguments, parts[shared.number::shared.size], lambda part, result: found.append((part, result)),
                 threads, executor, workers)
        for part, result in shared.exchange(found):
            put(part, result)


def _run(model: Callable, arguments: Callable[[slice], tuple], parts: list[slice], put: Callable[[slice, Any], None],
         threads: int, executor: Executor | None, workers: int | None) -> None:
    """What this process does of `run`."""
    if executor is not None and parts:
        run_elsewhere(executor, partial(_elsewhere, dict(np.geterr())), model, arguments, parts, put, workers)
    elif min(threads, len(parts)) <= 1:
        for part in parts:
            put(part, _work(model, *arguments(part)))
    else:
        stop = threading.Event()
        with stopping_also(stop), ThreadPoolExecutor(min(threads, len(parts))) as pool:
            try:
                gather(lambda part: submit(pool, lambda part: _work(model, *arguments(part)), [part])[0], parts,
                       len(parts), put)
            except Lost as lost:  # no thread could be started, say
                raise lost.__cause__ or lost from None
            finally:
                stop.set()


def _work(model: Callable, work: Callable, rows: list, part: slice, shape: tuple[int, ...]) -> Any:
    """The result for one shard; the notes of an exception say which."""
    try:
        with np.errstate(under="ignore"), device_of(memory_of(model, rows[0])):  # what is too small becomes 0
            return work(model, *rows)
    except Exception as error:
        error.add_note(f"x has shape {shape}; the model was given x[{part.start}:{part.stop}]{foreign(model)}")
        raise


def _elsewhere(errors: dict[str, Any], model: Callable, *arguments: Any) -> Any:
    """As `_work`, in another process: in evaluation mode and on one thread, as they are in `run`."""
    with evaluation_mode(model), single_threaded_blas(), np.errstate(**errors):
        return _work(model, *arguments)


def sharding(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options of `Attack.run` that say how shards are made and who runs them."""
    return {name: options[name] for name in ("workers", "executor", "batch_size") if name in options}


def streams_of(x: Array, seed: int | Streams) -> Streams:
    """The random streams of the images x (N, ...): those given, or those of a seed; ValueError if they are not N."""
    streams = seed if isinstance(seed, Streams) else Streams(seed, range(len(x)))
    if len(streams) != len(x):
        raise ValueError(f"seed must be an integer, or Streams of {len(x)} examples as x has; got {streams!r}")
    return streams


@on_its_device
def logits(model: Callable, x: Array, *, seed: int | Streams = 0, batch_size: int | None = None,
           workers: int | None = None, executor: Executor | None = None) -> Array:
    """The logits (N, K) of the images x (N, C, H, W), without a graph, as an array where x is.

    seed: of what random layers draw, or the streams of the images.
    """
    check_input(x)
    streams = streams_of(x, seed)
    if not len(x):
        with evaluation_mode(model), device_of(memory_of(model, x)):
            return _logits(model, x, streams)
    found: dict[int, Array] = {}
    run(_logits, model, (x, streams), lambda part, rows: found.update({part.start: rows}), batch_size=batch_size,
        workers=workers, executor=executor)
    return array_module(x).concatenate([found[start] for start in sorted(found)])


def _logits(model: Callable, x: Array, streams: Streams) -> Array:
    return move(forward(model, arranged(move(x, memory_of(model, x))), streams).data, like=x)


def own_logits(logits: Tensor, y: Array) -> Tensor:
    """The sum of the logits (N, K) of the classes y (N,)."""
    check_labels(y, logits.shape[1], "own_logits")
    return logits[array_module(y).arange(len(y)), y].sum()


SUMMED = partial(cross_entropy, reduction="sum")  # so that the gradient of an image is its own


@on_its_device
def input_gradients(model: Callable, x: Array, y: Array, *, seed: int | Streams = 0, batch_size: int | None = None,
                    workers: int | None = None, executor: Executor | None = None,
                    loss: Callable[[Tensor, Array], Tensor] = SUMMED) -> Array:
    """The gradients of loss(logits, y) at the images x (N, ...), as an array like x; y (N,) are classes."""
    check_floating(x)
    check_equal(len(x), len(y), "input_gradients", "the number of images in x", "that of classes in y")
    found = array_module(x).empty_like(x)
    run(partial(_input_gradients, loss), model, (x, y, streams_of(x, seed)), found.__setitem__,
        batch_size=batch_size, workers=workers, executor=executor)
    return found


def _input_gradients(loss: Callable[[Tensor, Array], Tensor], model: Callable, x: Array, y: Array,
                     streams: Streams) -> Array:
    points = Tensor(arranged(move(x, like := memory_of(model, x))))
    with recording(True):  # whatever the caller's no_grad()
        logits = call(model, points, streams.of_pass(0), gradient=True)
        check_graph(logits, points)
        return move(gradients(loss(logits, move(y, like)), [points])[0], like=x)


def call(model: Callable, x: Tensor, streams: Streams, gradient: bool = False) -> Tensor:
    """The model's logits at x (N, ...), checked: everything that attacks or evaluates a model calls it here.

    streams: those of this pass, for random layers. gradient: whether one is to follow; if not, a function that fails on
    a Tensor gets the array. Raises Stopped if told to end.
    """
    stop_if_told()
    points = x.data
    if not isinstance(model, Module):
        x.data = points.copy("K")  # into which it may write
    with drawing_from(streams):
        try:
            output = model(x)
        except (AttributeError, TypeError, ValueError) as error:
            if gradient or isinstance(model, Module):
                raise
            try:
                output = model(points.copy())
            except Exception as second:
                error.add_note(f"nor is it a function on arrays: {second}")
                raise error from None
        return check_logits(output, points, gradient)


def check_graph(logits: Tensor, x: Tensor) -> None:
    """ValueError if the logits were computed by operations, but not from x: their gradient would be zero everywhere."""
    if not depends(logits, x):
        raise ValueError("the operations that lead to the logits do not begin at x, as where a model works on x.data: "
                         "there is no gradient, so take Square, BoundaryAttack or HopSkipJump")


def forward(model: Callable, x: Array, seed: int | Streams = 0) -> Tensor:
    """The logits of one batch, without a graph, as in its first pass; ValueError unless they are (N, K)."""
    with no_grad():
        return call(model, Tensor(x), streams_of(x, seed).of_pass(0))


@on_its_device
def classes(logits: Array) -> Array:
    """The classes (N,) of the highest logits (N, K), K >= 2, else ValueError; -1, which is none, where one is NaN."""
    check_several(logits)
    return array_module(logits).where((logits != logits).any(axis=1), -1, logits.argmax(axis=1))


def predict(model: Callable, x: Array, seed: int | Streams = 0) -> Array:
    """The `classes` (N,) of one batch, as an array where x is."""
    return classes(forward(model, x, seed).data)


def check_logits(output: Any, x: Array, gradient: bool = False) -> Tensor:
    """The model's output, a Tensor (N, K), or an array if no gradient is to follow; else ValueError or TypeError."""
    output = Tensor(output) if is_array(output) and not gradient else output
    if not isinstance(output, Tensor):
        raise TypeError(f"the model must return a Tensor of logits, got {type(output).__name__}"
                        + ", which has no gradient" * is_array(output))
    if output.ndim != 2 or len(output) != len(x):
        raise ValueError(f"the model must return logits (N, K) with N = {len(x)}, got shape {output.shape}")
    return output


def memory_of(model: Callable, x: Array) -> Array:
    """An array that lies where the model runs: its first parameter, or x if it has none."""
    parameters = model.parameters() if isinstance(model, Module) else []
    return parameters[0].data if parameters else x


def evaluation_mode(model: Callable | None) -> AbstractContextManager[Any]:
    """Evaluation mode within the block for a Module; any other callable is left as it is."""
    return model.mode(training=False) if isinstance(model, Module) else nullcontext()
