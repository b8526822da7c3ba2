"""Ranks for the tests: threads that send each other pickles. And a training that every kind of rank can run."""

import functools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from training_cases import stripes, weights, with_modes

from tinyadv import data, training
from tinyadv.attacks import PGD
from tinyadv.nn.optim import Adam, cosine
from tinyadv.ranks import sharing

PATIENCE = 60


class Comm:
    """A communicator as mpi4py has it, of one of some threads."""

    def __init__(self, number, slots, barrier):
        self.number, self.slots, self.barrier = number, slots, barrier

    def Get_rank(self):
        return self.number

    def Get_size(self):
        return len(self.slots)

    def allgather(self, value):
        self.slots[self.number] = pickle.dumps(value)
        self.barrier.wait()
        found = [pickle.loads(each) for each in self.slots]
        self.barrier.wait()
        return found


def on_ranks(size, program):
    """[program(number), or its exception, for every rank], all at the same time."""
    slots, barrier = [None] * size, threading.Barrier(size, timeout=PATIENCE)

    def run(number):
        try:
            with sharing(Comm(number, slots, barrier)):
                return program(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))


def trained(method=None, model=None, hook=lambda: None, **options):
    """(weights, history without the times) of two epochs with all that has a state, in batches of 4, 4 and 2 parts."""
    model = model or with_modes()
    hooks = [hook]

    def augment(images, streams):
        hooks[0]()  # a list: a function would be a part of the settings
        return data.augment.crop(1)(images, streams)

    history = training.fit(
        model, stripes(160), epochs=2, optimizer=Adam(model, lr=0.05), method=method, batch_size=64, seed=3,
        schedule=cosine(), eps_schedule=training.ramp(0.5), augment=augment, clip_norm=1.0, average=0.9,
        validation=stripes(30, seed=1), validation_attack=PGD(0.1, steps=2), **options)
    return weights(model), [replace(epoch, seconds=0) for epoch in history]


@functools.cache
def expected(method=None):
    """The same on threads of one process."""
    return trained(method)
