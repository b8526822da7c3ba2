"""What a GPU shows: the tests, two examples and the speed beside PyTorch, in one JSON file. `make gpu` runs it.

    python -m benchmarks.gpu

PGD and training by tinyadv on CuPy and by PyTorch take turns on the same weights, images and GPU. All of it is float32:
TF32, which rounds the factors of a product to 10 bits and which CuPy does not use unless told to, is off in PyTorch,
too. PyTorch may time its convolutions and keep the fastest (`cudnn.benchmark`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.__main__ import UNITS, compare, machine
from benchmarks.contenders import plain_attackers, task
from benchmarks.networks import build
from tinyadv import backend

NETWORKS, BATCHES, STEPS = ("MadryCNN", "ResNet20"), (100, 500), 10
MADRY = ("--config", "examples/configs/cifar10-madry-linf.toml", "--epochs", "1", "--limit", "2000", "--images", "100")


def told(*command: str) -> dict[str, object]:
    """Run Python with these arguments, show what it prints, and return {"command", "exit", "says": its last line}."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    last = ""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        last = line.strip() or last
    return {"command": " ".join(["python", *command]), "exit": process.wait(), "says": last}


def speeds(rounds: int) -> dict[str, dict[str, dict[str, list[float]]]]:
    """{"attack" or "training": {"network/batch": {who: images a second by round}}}, printed with the ratios."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    found: dict[str, dict[str, dict[str, list[float]]]] = {kind: {} for kind in UNITS}
    for name in NETWORKS:
        for batch in BATCHES:
            t = task(build(name), batch, STEPS, "cuda")
            each = compare(t, name, plain_attackers(t), rounds, wait=torch.cuda.synchronize)  # for CuPy's work, too
            for kind, values in each.items():
                found[kind][f"{name}/{batch}"] = values
    return found


def main() -> None:
    """Run all, keep in the file what is known after each, and end with status 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    args = parser.parse_args()
    try:
        backend.to_device(torch.zeros(1).numpy(), "cuda")
    except RuntimeError as error:
        sys.exit(str(error))
    result: dict[str, object] = {"machine": machine() | {"tf32": False, "tinyadv on": backend.describe().splitlines()}}
    print(json.dumps(result["machine"], indent=1))

    def keep(**part: object) -> None:
        result.update(part)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    keep(tests=(tests := told("-m", "pytest", "-m", "gpu")))
    with tempfile.TemporaryDirectory() as folder:
        out = ("--device", "cuda", "--out", str(Path(folder) / "figure.png"))
        keep(flagship=(flagship := told("examples/fgsm_mnist.py", *out)))
        keep(madry=(madry := told("examples/madry_cifar10.py", *MADRY, *out)))
    failed = bool(tests["exit"] or flagship["exit"] or madry["exit"])
    if not torch.cuda.is_available():
        keep(speed="not measured: this build of PyTorch finds no GPU")
        sys.exit(f"{args.out}: this build of PyTorch finds no GPU; install one that is made for your version of CUDA")
    try:
        keep(**speeds(args.rounds), gpu=torch.cuda.get_device_name(), cuda=torch.version.cuda)
    except Exception as error:
        keep(speed=f"not measured: {error!r}")
        raise
    print(args.out)
    sys.exit(failed)


if __name__ == "__main__":
    main()
