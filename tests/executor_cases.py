"""Models and executors for the tests of executors; workers in other processes import this file."""

import os
import pickle
import random
import threading
from concurrent.futures import Executor, Future

from tinyadv import executors, nn, ops


class Pickling(Executor):
    """Workers with memories of their own, that get and return pickles, and take tasks in a random order.

    Each task goes to a worker that is drawn. `sent`: how often each worker was sent a model.
    """

    def __init__(self, workers, seed=0, say=True):
        if say:
            self._max_workers = workers
        self.memories, self.sent = [{} for _ in range(workers)], [0] * workers
        self._draw, self._tasks, self._some = random.Random(seed), [], threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def submit(self, function, /, *args):
        future = Future()
        self._tasks.append((future, pickle.dumps((function, args))))
        self._some.release()
        return future

    def _serve(self):
        while True:
            self._some.acquire()
            future, task = self._tasks.pop(self._draw.randrange(len(self._tasks)))
            if not future.set_running_or_notify_cancel():
                continue
            worker = self._draw.randrange(len(self.memories))
            function, args = pickle.loads(task)
            self.sent[worker] += args[2] is not None
            own, executors._lent, shared, executors._received = (
                executors._lent, {}, executors._received, self.memories[worker])
            try:
                outcome, found = future.set_result, function(*args)
            except BaseException as error:
                outcome, found = future.set_exception, error
            executors._lent, executors._received = own, shared
            outcome(pickle.loads(pickle.dumps(found)))


class Tired:
    """The model, in a process that dies at a forward pass, once, if this file is there; `after`: the passes before."""

    def __init__(self, model, file, after):
        self.model, self.file, self.left = model, str(file), after

    def __call__(self, x):
        self.left -= 1
        if self.left < 0 and os.path.exists(self.file):
            os.remove(self.file)
            os._exit(1)
        return self.model(x)


class Failing:
    """A model with an error of its own."""

    def __call__(self, x):
        raise ZeroDivisionError("of the model")


class OfTwo(Exception):
    """An error that cannot be unpickled, as it is made from two arguments and keeps one."""

    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


class OfALock(Exception):
    """An error that cannot be pickled."""

    def __init__(self):
        super().__init__("a lock")
        self.lock = threading.Lock()


class OfNoNotes(Exception):
    """An error that loses its notes, as json.JSONDecodeError does."""

    def __reduce__(self):
        return type(self), self.args


class Raising:
    """A model that raises an error of such a class."""

    def __init__(self, kind, *arguments):
        self.kind, self.arguments = kind, arguments

    def __call__(self, x):
        raise self.kind(*self.arguments)


class Told(nn.Module):
    """A model that says in which process it was unpickled, by a line in a file."""

    def __init__(self, file):
        self.file = str(file)

    def forward(self, x):
        return ops.flatten(x)[:, :3] * 1.0

    def __setstate__(self, state):
        vars(self).update(state)
        with open(self.file, "a") as file:
            file.write(f"{os.getpid()}\n")
