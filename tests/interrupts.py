"""Interrupts: one at each bytecode of a block, and Ctrl-C in programs that would run for hours. By hand:

    python tests/interrupts.py --count 100 --seed 0
"""

import argparse
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

SCENE = """
import numpy as np
from tinyadv import attacks, data, evaluation, models, nn, training
test = data.digits(0, 400, seed=1)[1]
model, endless = models.MadryCNN(seed=0), attacks.PGD(1e-6, steps=10**7)
print("begun", flush=True)
"""
PROGRAMS = {  # what is interrupted, and the file that it must leave
    "an attack on one thread": ("endless(model, test.images, test.labels, workers=1)", None),
    "an attack on two threads": ("endless(model, test.images, test.labels, workers=2)", None),
    "an attack in two processes": ("""
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
    endless(model, test.images, test.labels, executor=pool)""", None),
    "an evaluation": ("evaluation.robust_accuracy(model, endless, test)", None),
    "attacks with a state": ("attacks.MultiAttack((attacks.FGSM(1e-6), endless)).run(model, test.images[:20], "
                             "evaluation.predict(model, test.images[:20]), state='left.npz')", "left.npz"),
    "training in an attack": ("training.fit(model, test, epochs=9, method=training.Adversarial(endless), "
                              "optimizer=nn.optim.SGD(model), checkpoint='left.npz')", "left.npz"),
    "training in a validation": ("training.fit(model, test[:20], epochs=9, validation_attack=endless, validation=test, "
                                 "optimizer=nn.optim.SGD(model), checkpoint='left.npz')", "left.npz"),
}
EXPECTED = ("KeyboardInterrupt", "Interrupted", "Stopped")


def pressed(program, folder, after):
    """(seconds, standard error): how long the program took to end after Ctrl-C, `after` seconds from its first file."""
    code, file = PROGRAMS[program]
    process = subprocess.Popen([sys.executable, "-c", SCENE + code], cwd=folder, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    with process:
        assert process.stdout.readline() == "begun\n"
        while file and not (Path(folder) / file).exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        try:
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
        return time.monotonic() - start, said


def last_error(said):
    """The name of the exception that a program ended with."""
    return said.splitlines()[-1].partition(":")[0].rpartition(".")[2] if said else ""


def interrupted_everywhere(block, files):
    """Run block() again and again, each time with a KeyboardInterrupt at a later bytecode of functions in these files.

    Yields after each run, as long as there was a bytecode left.
    """
    at = 0
    while True:
        count = -1

        def trace(frame, event, argument):
            nonlocal count
            if not frame.f_code.co_filename.endswith(files):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "opcode":
                count += 1
                if count == at:  # noqa: B023  the run of this value
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            block()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        if count < at:
            return
        at += 1
        yield at


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, slowest, wrong = random.Random(options.seed), Counter(), 0
    for number in range(options.count):
        program = list(PROGRAMS)[number % len(PROGRAMS)]
        with TemporaryDirectory() as folder:
            seconds, said = pressed(program, folder, draw.uniform(0, 3))
            left = [path.name for path in Path(folder).iterdir()]
        slowest[program] = max(slowest[program], seconds)
        if last_error(said) not in EXPECTED or left != [file for file in PROGRAMS[program][1:] if file]:
            wrong += 1
            print(f"{program} left {left}: {said[-500:]}")
    for program, seconds in slowest.items():
        print(f"{program:26}  {seconds:.2f} s at most")
    print(f"{options.count} interrupts, {wrong} that ended otherwise than they must")


if __name__ == "__main__":
    main()
