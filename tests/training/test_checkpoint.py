import contextlib
import errno
import itertools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_cases import linear, stripes, weights, with_modes

from tinyadv import Tensor, data, defenses, evaluation, models, nn, training
from tinyadv.attacks import FGSM, PGD, Transfer
from tinyadv.nn import archive
from tinyadv.nn.archive import StateError
from tinyadv.nn.optim import SGD, Adam, cosine
from tinyadv.nn.state import recipe
from tinyadv.training import TRADES, Adversarial, Fast, Free, Interrupted, Mixed, Standard, checkpoint

METHODS = [Standard(label_smoothing=0.1), Adversarial(PGD(0.1, steps=2)), Adversarial(FGSM(0.1), crafting="train"),
           Mixed(FGSM(0.1)), Fast(eps=0.05), Free(0.1, replays=2), TRADES(0.1, steps=2)]
STEPS = 3 * 4  # epochs, times batches in an epoch


def trained(method, path=None, optimizer=Adam, hook=lambda: None, model=None, **options):
    """(weights, history without the times) of three epochs with all that has a state; hook is called in every step."""
    model = model or with_modes()
    hooks = [hook]

    def augment(images, streams):
        if model.training:  # else it is for the statistics of averaged weights, after an epoch
            hooks[0]()  # a list: a function would be a part of the settings
        return data.augment.crop(1)(images, streams)

    history = training.fit(
        model, stripes(50), epochs=3, optimizer=optimizer(model, lr=0.05), method=method, batch_size=16, seed=3,
        schedule=cosine(), eps_schedule=training.ramp(0.5), augment=augment, clip_norm=1.0, average=0.9,
        validation=stripes(20, seed=1), validation_attack=PGD(0.1, steps=2), checkpoint=path, **options)
    return weights(model), [replace(epoch, seconds=0) for epoch in history]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_what_is_frozen_is_what_it_was_and_the_rest_is_trained(method, tmp_path):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)

    def frozen():
        model = with_modes()
        model.layers[0].freeze()
        model.layers[1].freeze()
        return model

    def state(model):
        return {name: array.tobytes() for name, array in model.state_dict().items()}

    model, before = frozen(), state(with_modes())
    whole = trained(method, model=model)
    assert {name for name, array in state(model).items() if array != before[name]} == {"5.weight", "5.bias"}
    with pytest.raises(Interrupted):
        trained(method, tmp_path / "run.npz", hook=stop, model=frozen())
    with pytest.raises(StateError, match=r"frozen: then \['0', '1'\], now \[\]"):
        trained(method, tmp_path / "run.npz", resume=True)
    assert trained(method, tmp_path / "run.npz", resume=True, model=frozen()) == whole


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@settings(max_examples=4, deadline=None)
@given(step=st.integers(1, STEPS))
def test_killed_at_any_step_and_resumed_the_weights_are_the_same_bytes(method, step, tmp_path_factory):
    folder, calls = tmp_path_factory.mktemp("killed"), []

    def kill():
        calls.append(1)
        if len(calls) == step:  # what a kill would leave behind, as the file is written after every step
            shutil.copy(folder / "all.npz", folder / "left.npz")

    whole = trained(method, folder / "all.npz", hook=kill, minutes=0)
    assert trained(method, folder / "left.npz", resume=True) == whole == trained(method)


@pytest.mark.parametrize(("method", "left"), [(METHODS[0], 0), (METHODS[1], 1), (METHODS[2], 0)],
                         ids=["after-the-step", "in-its-attack", "after-an-attack-in-training-mode"])
@settings(max_examples=4, deadline=None)
@given(step=st.integers(1, STEPS), optimizer=st.sampled_from([SGD, Adam]))
def test_ctrl_c_ends_with_a_checkpoint_of_whole_steps(method, left, step, optimizer, tmp_path_factory):
    """`left`: 1 where the step in which it is pressed ends in its attack, which has changed nothing."""
    path, calls, handler = tmp_path_factory.mktemp("stopped") / "run.npz", [], signal.getsignal(signal.SIGINT)

    def press():
        calls.append(1)
        if len(calls) == step:
            signal.raise_signal(signal.SIGINT)

    left = left and step > 1  # the budget of the first step is 0
    epochs, steps = divmod(step - left, 4)
    reached = (epochs, steps) if steps or left else (epochs - 1, 4)  # an epoch's last step is saved before it is judged
    with pytest.raises(Interrupted, match="stopped after {} epochs and {} steps".format(*reached)):
        trained(method, path, optimizer, press)
    assert len(calls) == step
    assert signal.getsignal(signal.SIGINT) is handler
    assert trained(method, path, optimizer, resume=True) == trained(method, optimizer=optimizer)


class Endless(PGD):
    """PGD, which the first time is interrupted and would go on for ever."""

    first, presses = True, itertools.count()

    def perturb(self, batch):
        if Endless.first:
            if not next(Endless.presses):  # a second one would end the program at once
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # as the terminal does
            while True:
                batch.gradient(batch.x)
        return super().perturb(batch)


def test_ctrl_c_in_a_validation_attack_ends_before_its_next_forward_pass(tmp_path, monkeypatch):
    def fit(**options):
        model = with_modes()
        training.fit(model, stripes(50), epochs=2, optimizer=SGD(model, lr=0.05), batch_size=16, **options,
                     validation=stripes(20, seed=1), validation_attack=Endless(0.1, steps=2))
        return weights(model)

    monkeypatch.setattr(Endless, "first", True)
    with pytest.raises(Interrupted, match="stopped after 0 epochs and 4 steps"):
        fit(checkpoint=tmp_path / "run.npz")
    monkeypatch.setattr(Endless, "first", False)
    assert fit(checkpoint=tmp_path / "run.npz", resume=True) == fit()


def test_without_a_checkpoint_ctrl_c_stops_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts jobs with Ctrl-C ignored
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            trained(METHODS[0], hook=lambda: signal.raise_signal(signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not isinstance(caught.value, Interrupted)


def test_resume_without_a_file_begins_and_of_a_finished_run_returns_it(tmp_path):
    first = trained(METHODS[1], tmp_path / "run.npz", resume=True)
    calls = []
    assert trained(METHODS[1], tmp_path / "run.npz", resume=True, hook=lambda: calls.append(1)) == first
    assert not calls


def test_a_checkpoint_that_is_there_is_not_overwritten(tmp_path):
    path = tmp_path / "run.npz"
    path.write_bytes(b"an hour of work")
    with pytest.raises(ValueError, match=re.escape("run.npz exists already: go on with resume=True, or remove it")):
        trained(METHODS[0], path)
    with pytest.raises(StateError, match="not a readable"):
        trained(METHODS[0], path, resume=True)
    nn.save(linear(), tmp_path / "model.npz")
    with pytest.raises(StateError, match="not a training checkpoint of tinyadv"):
        trained(METHODS[0], tmp_path / "model.npz", resume=True)
    assert path.read_bytes() == b"an hour of work"


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path):
    trained(METHODS[0], tmp_path / "run.npz")
    with pytest.raises(StateError, match=r"another run(.|\n)*optimizer: then 'Adam(.|\n)*method: then 'Standard"):
        trained(METHODS[1], tmp_path / "run.npz", SGD, resume=True)


def brighter(images, streams, by):
    return images + by


def twice(change):
    """A function made of a function, and one that knows itself."""
    def again(images, streams, count=2):
        return again(change(images, streams), streams, count - 1) if count else images

    return again


@dataclass(frozen=True)
class Brighter:
    by: float

    def __call__(self, images, streams):
        return images + self.by


@dataclass(frozen=True)
class Repeated:
    change: object

    def __call__(self, images, streams):
        return self.change(self.change(images, streams), streams)


def enclosed(by):
    xp, several = np, [by]
    return lambda images, streams: xp.add(images, by) if several else images


@pytest.mark.parametrize("make", [
    Brighter, lambda by: Brighter(by).__call__, lambda by: Repeated(partial(brighter, by=by)), enclosed,
    lambda by: lambda images, streams, by=by: by * images, lambda by: lambda images, streams, *, by=by: by * images,
    lambda by: partial(brighter, by=np.float32(by)), lambda by: partial(brighter, by=np.full(3, by)),
    lambda by: eval("lambda images, streams, by=by: images + by", {"by": by, "__name__": None}),
])
def test_augmentations_with_other_numbers_are_others(make):
    """And one of the same numbers, made anew, is the same."""
    assert recipe(make(0.1)) != recipe(make(0.5))
    assert recipe(make(0.1)) == recipe(make(0.1))
    assert " at 0x" not in recipe(make(0.1))


@pytest.mark.parametrize("make", [
    lambda seed: training.Trapped(defenses.Trapdoors(3, (1, 4, 3), side=2, seed=seed)),
    lambda seed: Adversarial(Transfer(linear(seed), FGSM(0.1))),
], ids=["trapdoors", "surrogate"])
def test_a_method_with_other_arrays_is_another(make, tmp_path):
    def run(seed, epochs, **options):
        training.fit(model := linear(), stripes(8), epochs=epochs, optimizer=SGD(model, 0.1), method=make(seed),
                     checkpoint=tmp_path / "run.npz", **options)

    run(1, 1)
    with pytest.raises(StateError, match="method holds: then"):
        run(2, 2, resume=True, extend=("epochs",))
    run(1, 2, resume=True, extend=("epochs",))


class Surrogate:
    """A callable whose repr has its address, as that of a function has."""

    def __call__(self, x):
        return linear()(x)


@pytest.mark.parametrize("make", [Surrogate, lambda: lambda x: linear()(x)], ids=["object", "function"])
@pytest.mark.parametrize("where", ["method", "validation_attack"])
def test_a_run_with_an_object_goes_on_with_another_that_is_like_it(where, make, tmp_path):
    """As in another process, where it has another address. Older checkpoints have the address."""
    def run(epochs, **options):
        attack = Transfer(make(), FGSM(0.1))
        used = {"method": Adversarial(attack)} if where == "method" else {"validation_attack": attack}
        alive.append(attack)
        training.fit(model := linear(), stripes(8), epochs=epochs, optimizer=SGD(model, 0.1), **used, **options,
                     validation=stripes(4, seed=1), checkpoint=tmp_path / "run.npz")

    alive = []
    run(1)
    run(2, resume=True, extend=("epochs",))
    header, arrays = archive.read(tmp_path / "run.npz", "a checkpoint", "training")
    assert " at 0x" not in str(header["training"])
    header["training"][where] = header["training"][where].replace(">", " at 0x7f4eA5>")
    archive.write(tmp_path / "run.npz", header, arrays)
    run(3, resume=True, extend=("epochs",))


def test_a_model_that_is_its_own_surrogate_is_resumed_from_any_weights(tmp_path):
    def run(model, epochs, **options):
        training.fit(model, stripes(8), epochs=epochs, optimizer=SGD(model, 0.1), checkpoint=tmp_path / "run.npz",
                     method=Adversarial(Transfer(model, FGSM(0.1))), **options)

    run(model := linear(), 1)
    run(model, 2, resume=True, extend=("epochs",))


@pytest.mark.parametrize("epochs", [2, 4])
def test_a_run_that_collapsed_is_not_extended(epochs, tmp_path, monkeypatch):
    """It would go on from the weights that have collapsed."""
    def run(epochs, **options):
        measured = iter([0.5, 0.1])
        monkeypatch.setattr(evaluation, "robust_accuracy", lambda *args, **options: next(measured))
        return training.fit(model, stripes(8), epochs=epochs, optimizer=SGD(model, 0.1), method=Fast(eps=0.1),
                            checkpoint=tmp_path / "run.npz", **options)

    model = linear()
    with pytest.warns(training.CatastrophicOverfitting):
        run(epochs)
    before = weights(model)
    with pytest.raises(StateError, match=r"it stopped after epoch 2, .* and cannot be extended: train anew"):
        run(6, resume=True, extend=("epochs",))
    assert weights(model) == before
    assert len(run(epochs, resume=True)) == 2
    assert weights(model) == before


@pytest.mark.parametrize("make", [twice, lambda change: partial(brighter, by=change)])
def test_augmentations_made_of_other_functions_are_others(make):
    assert recipe(make(data.augment.crop(2))) != recipe(make(data.augment.crop(4)))
    assert recipe(make(data.augment.crop(2))) == recipe(make(data.augment.crop(2)))


@pytest.mark.parametrize(("change", "differs"), [
    ({"optimizer": lambda m: SGD(m, 0.1, momentum=0.5)}, "optimizer: then"),
    ({"schedule": training.ramp(0.6)}, "schedule: then"),
    ({"eps_schedule": training.ramp(0.6)}, "schedule: then"),
    ({"train": stripes(8, seed=1)}, "data: then"),
    ({"augment": data.augment.crop(2)}, r"augment: then .*apply\(.*=1\)\"?'?, now .*apply\(.*=2\)"),
    ({"augment": data.augment.flip()}, r"augment: then .* now 'flip\.apply\(\)'"), ({"augment": None}, "now None"),
    ({"augment": partial(brighter, by=0.1)}, r"augment: then .* now .*brighter.*'by', 0\.1"),
    ({"augment": twice(data.augment.crop(2))}, r"augment: then .* now .twice\.again\(change=_shifts"),
    ({"augment": data.augment.chain(data.augment.crop(1))}, r"now .chain.*\(augmentations=\(.*=1\)\)\)"),
    ({"model": nn.Sequential(nn.Flatten(), nn.Dropout(0.4, seed=0), nn.Linear(12, 3, rng=0))},
     r"layer 1: then {'p': '0.3'}, now .*0\.4"),
    ({"model": nn.Sequential(nn.Flatten(), nn.GaussianNoise(0.3, seed=0), nn.Linear(12, 3, rng=0))},
     "class of layer 1: then 'Dropout', now 'GaussianNoise'"),
    ({"optimizer": lambda m: SGD(m, 0.2, momentum=0.9)}, r"lr: then 0\.1, now 0\.2\nextend=\('lr',\) goes on"),
    ({"epochs": 2}, r"epochs: then '1', now '2'\nextend=\('epochs',\) goes on"),
    ({"epochs": 2, "average": 0.9}, r"epochs: then '1', now '2'\n  average: then 'None', now '0\.9'$"),
])
def test_whatever_decides_the_weights_must_be_the_same(change, differs, tmp_path):
    def run(model, train=None, optimizer=lambda m: SGD(m, 0.1, momentum=0.9), **options):
        options = {"epochs": 1, "augment": data.augment.crop(1), **options}
        return training.fit(model, train or stripes(8), optimizer=optimizer(model), attack=FGSM(0.1),
                            checkpoint=tmp_path / "run.npz", **options)

    def network():
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.3, seed=0), nn.Linear(12, 3, rng=0))

    run(network())
    other = change.get("model", network())
    before = weights(other)
    with pytest.raises(StateError, match=differs):
        run(other, resume=True, **{name: value for name, value in change.items() if name != "model"})
    assert weights(other) == before
    run(network(), resume=True)


@pytest.mark.parametrize("other", [["2.bias", "3.bias"], ["3.weight"], ["3.weight", "2.weight"]], ids=str)
@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_the_optimiser_must_hold_the_same_parameters_in_the_same_order(optimizer, other, tmp_path):
    """Two layers with as many parameters; older checkpoints do not tell which parameters they were."""
    def run(held, epochs):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, rng=0), nn.Linear(3, 3, rng=1), nn.Linear(3, 3, rng=2))
        named = dict(model.named_parameters())
        training.fit(model, stripes(8), epochs=epochs, optimizer=optimizer([named[name] for name in held], lr=0.1),
                     checkpoint=tmp_path / "run.npz", resume=True, extend=("epochs",))

    own = [name.translate({ord("2"): "3", ord("3"): "2"}) for name in other]
    run(own, 1)
    with pytest.raises(StateError, match=r"optimizer holds: then \['\d.\w+'.*\], now"):
        run(other, 2)
    run(own, 2)
    header, arrays = archive.read(tmp_path / "run.npz", "a checkpoint", "training")
    header["training"].pop("optimizer holds")
    archive.write(tmp_path / "run.npz", header, arrays)
    run(own, 3)


def test_a_finished_run_goes_on_where_it_is_asked_by_name(tmp_path):
    """To the weights of the longer run from the start, where the schedule is the same at each step."""
    def run(epochs, lr=0.1, name="run", **options):
        model = with_modes()
        history = training.fit(model, stripes(20), epochs=epochs, optimizer=Adam(model, lr=lr), average=0.9,
                               checkpoint=tmp_path / f"{name}.npz", **options)
        return weights(model), [epoch.lr for epoch in history]

    run(2)
    assert run(4, resume=True, extend=("epochs",)) == run(4, name="whole")
    assert run(4, resume=True) == run(4, name="whole", resume=True)
    assert run(6, 0.01, resume=True, extend=["epochs", "lr"])[1] == [0.1] * 4 + [0.01] * 2
    assert run(6, 0.5, resume=True, extend=["lr"]) == run(6, 0.5, resume=True)  # there is nothing left to do
    with pytest.raises(ValueError, match="extend may hold 'epochs' and 'lr', got 'method'"):
        run(4, resume=True, extend=("method",))


@pytest.mark.parametrize(("stop", "fewest", "reached"), [
    (3, 1, "0 epochs and 3 steps"), (7, 2, "1 epochs and 3 steps"), (math.inf, 4, "4 epochs and 0 steps")])
def test_a_run_is_not_resumed_for_fewer_epochs_than_it_has_done(stop, fewest, reached, tmp_path):
    """Its weights would be those of more, or of a part of an epoch."""
    calls, path = [], tmp_path / "run.npz"

    def press(images, streams):
        calls.append(1)
        if len(calls) == stop:
            signal.raise_signal(signal.SIGINT)
        return images

    presses = [press]  # a list: a function would be a part of the settings

    def fit(epochs):
        training.fit(model := linear(), stripes(16), epochs=epochs, optimizer=SGD(model, lr=0.1), batch_size=4,
                     checkpoint=path, augment=lambda *given: presses[0](*given), resume=True, extend=("epochs",))

    with contextlib.suppress(Interrupted):
        fit(4)
    before = path.read_bytes()
    with pytest.raises(StateError, match=rf"{reached}, further than epochs={fewest - 1}: ask for {fewest} or more"):
        fit(fewest - 1)
    assert path.read_bytes() == before
    fit(fewest)
    assert archive.read(path, "a checkpoint", "training")[0]["epoch"] == fewest


def test_one_run_at_a_time_writes_to_a_checkpoint(tmp_path):
    calls = []

    def second():
        if not calls:
            calls.append(1)
            (tmp_path / f"run.npz.{'0' * 32}").touch()  # as of a killed run
            with pytest.raises(StateError, match=r"run\.npz: another run writes to this file, process \d+ on .*: wait"):
                trained(METHODS[0], tmp_path / "run.npz", resume=True)

    whole = trained(METHODS[0], tmp_path / "run.npz", hook=second)
    assert calls
    assert trained(METHODS[0], tmp_path / "run.npz", resume=True) == whole
    assert os.listdir(tmp_path) == ["run.npz"]


CRAFTED = {
    "epoch": lambda h, a: h.update(epoch=-1), "step": lambda h, a: h.update(step=1.5),
    "hits": lambda h, a: h.update(hits=True), "rate": lambda h, a: h.update(rate="fast"),
    "no seconds": lambda h, a: h.pop("seconds"), "no history": lambda h, a: h.pop("history"),
    "an epoch": lambda h, a: h["history"][0].pop("lr"), "epochs": lambda h, a: h.update(history=[1]),
    "a loss": lambda h, a: h["history"][0].update(loss="low"), "training": lambda h, a: h.update(training=[]),
    "dropouts": lambda h, a: h.update(dropouts=[]), "no dropouts": lambda h, a: h.update(dropouts={}),
    "another attribute": lambda h, a: h["dropouts"]["4"].update(p=0.9),
    "another module": lambda h, a: h["dropouts"].update({"1": {"calls": 0, "seed": 0}}),
    "another module in its place": lambda h, a: h["dropouts"].update({"5x": h["dropouts"].pop("4")}),
    "calls": lambda h, a: h["dropouts"]["4"].update(calls=-1), "seed": lambda h, a: h["dropouts"]["4"].update(seed="1"),
    "steps": lambda h, a: a.update({"optimizer/steps": np.array(-1)}),
    "float steps": lambda h, a: a.update({"optimizer/steps": np.array(1.0)}),
    "a moment": lambda h, a: a.update({"optimizer/0.0": np.zeros(3, np.float32)}),
    "a wide moment": lambda h, a: a.update({"optimizer/0.0": a["optimizer/0.0"].astype(float)}),
    "no moment": lambda h, a: a.pop("optimizer/0.0"), "a weight": lambda h, a: a.update({"model/0.weight": np.ones(3)}),
    "no weight": lambda h, a: a.pop("model/5.bias"), "no best": lambda h, a: a.pop("best/5.bias"),
    "best": lambda h, a: a.update({"best/5.bias": np.ones(4, np.float32)}),
    "average": lambda h, a: a.update({"average/5.bias": np.ones(4, np.float32)}),
    "no average": lambda h, a: a.pop("average/5.bias"), "a group": lambda h, a: a.update({"more/5.bias": np.ones(3)}),
    "no group": lambda h, a: a.update(weights=np.ones(3)),
}


@pytest.mark.parametrize("craft", CRAFTED.values(), ids=CRAFTED)
def test_a_file_that_does_not_fit_changes_neither_model_nor_optimiser(craft, tmp_path):
    """Such a file is whole: its digest is right, and only what it says is wrong."""
    path = tmp_path / "run.npz"
    trained(METHODS[1], path)
    header, arrays = archive.read(path, "a checkpoint", "training")
    model = with_modes(seed=7)
    optimizer, settings = Adam(model, lr=0.05), header["training"]
    optimizer.steps, model.layers[4].calls = 5, 6
    kept = weights(model), optimizer.state_dict()
    craft(header, arrays)
    archive.write(path, header, arrays)
    with pytest.raises(StateError, match=r"run\.npz: (a|not a training) checkpoint"):
        checkpoint.State.load(path, model, optimizer, settings)
    assert weights(model) == kept[0]
    assert {name: array.tobytes() for name, array in optimizer.state_dict().items()} == {
        name: array.tobytes() for name, array in kept[1].items()}
    assert (model.layers[4].calls, model.layers[4].p, model.layers[4].seed) == (6, 0.3, 7)


def test_numbers_of_numpy_are_numbers(tmp_path):
    for seed, resume in ((np.int64(3), False), (3, True)):
        model = linear()
        history = training.fit(
            model, stripes(20), epochs=np.int64(1), optimizer=SGD(model), schedule=np.float32, seed=seed,
            attack=FGSM(np.float32(0.25)), checkpoint=tmp_path / "run.npz", resume=resume)
        assert [(epoch.epoch, epoch.eps) for epoch in history] == [(1, 0.25)]


def test_a_model_of_other_arguments_is_another_run(tmp_path):
    for seed, refused in ((0, False), (1, True)):
        model = models.LeNet(seed=seed)
        with pytest.raises(StateError, match="model: then") if refused else contextlib.nullcontext():
            training.fit(model, data.digits(4, 1)[0], epochs=1, optimizer=SGD(model), checkpoint=tmp_path / "run.npz",
                         resume=True)


def test_a_dropout_without_a_seed_goes_on_with_the_one_it_had(tmp_path):
    def run(seed=None, stop=None):
        calls, stops = [], [stop]

        def augment(images, streams):
            calls.append(1)
            if len(calls) == stops[0]:
                signal.raise_signal(signal.SIGINT)
            return images

        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5, seed=seed), nn.Linear(12, 3, rng=0))
        training.fit(model, stripes(8), epochs=4, optimizer=SGD(model, lr=0.1), augment=augment, resume=True,
                     checkpoint=tmp_path / f"{seed}.npz")
        return model

    with pytest.raises(Interrupted):
        run(stop=2)
    resumed = run()
    assert weights(resumed) == weights(run(seed=resumed.layers[1].seed))


def test_a_checkpoint_is_loaded_as_the_model_that_it_holds(tmp_path):
    model, path = models.SmallCNN(seed=1), tmp_path / "run.npz"
    training.fit(model, data.digits(20, 1)[0], epochs=1, optimizer=SGD(model, lr=0.1), checkpoint=path)
    for loaded in nn.load(path), nn.load(path, into=models.SmallCNN(seed=2)):
        assert weights(loaded) == weights(model)
    with pytest.raises(StateError, match="a saved SmallCNN: the state does not fit"):
        nn.load(path, into=linear())
    model, path = models.LeNet(seed=1), tmp_path / "changed.npz"
    setattr(model, "1", nn.Tanh())
    training.fit(model, data.digits(20, 1)[0], epochs=1, optimizer=SGD(model, lr=0.1), checkpoint=path)
    with pytest.raises(StateError, match=r"LeNet was changed after it was built: 1 was {'class': 'Tanh'}, not"):
        nn.load(path)


class Drawing(nn.Module):
    """A random layer of one's own, that draws as those of tinyadv do."""

    needs_whole_batch = True

    def __init__(self, seed):
        self.seed, self.calls = seed, 0

    def forward(self, x):
        self.calls += self.training
        return x * Tensor(np.random.default_rng((self.seed, self.calls)).random(x.shape))


def test_a_random_layer_of_ones_own_goes_on_where_it_was(tmp_path):
    def run(path, epochs, seed=3):
        model = nn.Sequential(nn.Flatten(), Drawing(seed), nn.Linear(12, 3, rng=0))
        training.fit(model, stripes(20), epochs=epochs, optimizer=SGD(model, lr=0.1), checkpoint=path, resume=True,
                     extend=("epochs",))
        return weights(model)

    run(tmp_path / "broken.npz", 1)
    whole = run(tmp_path / "whole.npz", 2)
    assert run(tmp_path / "broken.npz", 2, seed=4) == whole


@pytest.mark.parametrize("step", [3, 5, 6])
def test_noise_at_test_goes_on_where_it_was_whenever_averages_are_measured(step, tmp_path):
    """Also where it is interrupted in an epoch's measurements, which are made again."""
    def run(path, stop=0):
        calls = []

        class Watched(Standard):
            def certified(self, model, validation):
                kept.append(weights(model))
                press()

        def press():
            calls.append(1)
            if len(calls) == stop:
                signal.raise_signal(signal.SIGINT)

        presses = [press]

        def augment(images, streams):
            if model.training:
                presses[0]()
            return images

        model = nn.Sequential(nn.GaussianNoise(0.2, at_test=True, seed=7), nn.Flatten(), nn.BatchNorm1d(12),
                              nn.Linear(12, 3, rng=0))
        training.fit(model, stripes(8), epochs=3, optimizer=SGD(model, lr=0.1), batch_size=4, average=0.9,
                     method=Watched(), augment=augment, validation=stripes(4, seed=1), checkpoint=path, resume=True)
        assert weights(model) == kept[-1]
        return weights(model)

    kept = []
    with pytest.raises(Interrupted):
        run(tmp_path / "broken.npz", stop=step)
    assert run(tmp_path / "broken.npz") == run(tmp_path / "whole.npz")


def test_a_checkpoint_of_a_model_of_its_own_is_loaded_into_it(tmp_path):
    model, path = with_modes(), tmp_path / "run.npz"
    training.fit(model, stripes(20), epochs=1, optimizer=SGD(model, lr=0.1), checkpoint=path)
    with pytest.raises(StateError, match=r"was not built from plain numbers and words: .* load\(path, into=model\)"):
        nn.load(path)
    assert weights(nn.load(path, into=with_modes(seed=3))) == weights(model)
    header, arrays = archive.read(path, "a checkpoint", "training")
    for model in None, 3, {}, {"class": 3}, "SmallCNN":
        archive.write(path, header | {"training": header["training"] | {"model": model}}, arrays)
        with pytest.raises(StateError):
            nn.load(path)


def test_on_a_device_a_checkpoint_holds_averages_and_memory_too(xp, tmp_path, monkeypatch):
    monkeypatch.setattr(nn.module, "to_device", lambda array, device: xp.asarray(array))

    def run(hook=lambda: None, **options):
        model = linear().to("the device of xp")
        hooks = [hook]

        def augment(images, streams):
            hooks[0]()  # a list: a function would be a part of the settings
            return images

        training.fit(model, stripes(12), epochs=2, optimizer=Adam(model), average=0.9, augment=augment, batch_size=4,
                     method=Free(0.1, replays=2), **options)
        return weights(model)

    calls = []

    def press():
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run(press, checkpoint=tmp_path / "run.npz")
    assert run(checkpoint=tmp_path / "run.npz", resume=True) == run()


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    path, kept = tmp_path / "run.npz", []

    def burst(progress):
        if progress > 0.5:
            kept[:] = [path.read_bytes() if path.exists() else b""]
            return 1e38
        return 1.0

    model = linear()
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=r"weight|loss"):
        training.fit(model, stripes(8), epochs=4, batch_size=8, optimizer=SGD(model, lr=10.0), schedule=burst,
                     checkpoint=path, minutes=0)
    assert path.read_bytes() == kept[0]


def test_a_path_that_cannot_be_written_is_reported_before_the_first_step(tmp_path, monkeypatch):
    calls = []
    with pytest.raises(FileNotFoundError, match="checkpoint must be in a folder that exists"):
        trained(METHODS[0], tmp_path / "nowhere" / "run.npz", hook=lambda: calls.append(1))

    def full(path, header, arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.archive, "write", full)
    with pytest.raises(OSError, match="No space left"):
        trained(METHODS[0], tmp_path / "run.npz", hook=lambda: calls.append(1))
    assert not calls


def test_resume_needs_a_checkpoint_and_a_validation_attack_images():
    model = linear()
    for options, message in (({"resume": True}, "pass checkpoint=, too"),
                             ({"validation_attack": FGSM(0.1)}, "pass validation=, too"),
                             ({"average": 1.0}, "average must be a decay in"), ({"clip_norm": 0}, "clip_norm must be"),
                             ({"average": "a"}, "average must be a decay"), ({"clip_norm": "a"}, "clip_norm must be")):
        with pytest.raises(ValueError, match=message):
            training.fit(model, stripes(4), epochs=1, optimizer=SGD(model, lr=0.1), **options)


def test_a_process_that_is_killed_leaves_a_checkpoint_to_go_on_from(tmp_path):
    """As above, but with a real process and a real signal, which nothing can catch."""
    script = """
import os, signal, sys
import test_checkpoint as t
calls = []
def kill():
    calls.append(1)
    if len(calls) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
t.trained(t.METHODS[1], t.Path(sys.argv[1]), hook=kill, minutes=0)
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run.npz")], capture_output=True, timeout=100,
                          env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert trained(METHODS[1], tmp_path / "run.npz", resume=True) == trained(METHODS[1])
