"""The command line: what was found on this machine, and attacks on a model without writing a script.

    python -m tinyadv
    python -m tinyadv zoo mnist-madry-linf
    python -m tinyadv attack PGD --model mnist-slide-natural --eps 0.3 --images 100 --out pgd.npz
    python -m tinyadv evaluate --model mypackage.networks:robust --data cifar10 --eps 8/255 --state run.npz

It only calls the library.
"""

import argparse
import importlib
import os
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from tinyadv import attacks, backend, data, evaluation, models, nn, spellings
from tinyadv.random import check_seed

DATA: dict[str, Any] = {"mnist": data.mnist, "cifar10": data.cifar10, "digits": data.digits}


def parameters(kind: type[attacks.Attack]) -> dict[str, bool]:
    """{name: whether it must be given} of the parameters of an attack."""
    return {field.name: field.default is MISSING for field in fields(kind) if field.init}


ATTACKS: dict[str, type[attacks.Attack]] = {  # those that options can describe
    name: kind for name, kind in sorted(vars(attacks).items())
    if isinstance(kind, type) and issubclass(kind, attacks.Attack) and kind not in (attacks.Attack, attacks.WhiteBox)
    and {name for name, needed in parameters(kind).items() if needed} <= {"eps"}}


def main(arguments: list[str] | None = None) -> None:
    """Run the command of these arguments, by default those of the command line."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        on = " The same command goes on from there." if getattr(options, "state", None) else ""
        sys.exit(f"\nstopped by Ctrl-C.{on}")
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        sys.exit(f"{error}")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; the namespace that it gives has the function `run`."""
    made = argparse.ArgumentParser(
        prog="python -m tinyadv", description="Print the versions of tinyadv, Python and NumPy, the BLAS kernels and "
        "threads, and the GPUs; or, with a command, attack a model.",
        epilog="To see an attack, run examples/fgsm_mnist.py in a clone; docs/index.md is the documentation.")
    made.set_defaults(run=lambda _: print(backend.describe()))
    commands = made.add_subparsers(title="commands")
    zoo = commands.add_parser("zoo", help="list the trained networks, or show the card of one")
    zoo.add_argument("name", nargs="?", help="a network")
    zoo.set_defaults(run=show)
    attack = commands.add_parser("attack", help="run one attack on test images")
    attack.add_argument("attack", help=", ".join(ATTACKS))
    attack.add_argument("--steps", type=int, help="of the attack; its own default unless given")
    evaluate = commands.add_parser("evaluate", help="run AutoAttack on test images")
    evaluate.set_defaults(attack="AutoAttack", steps=None)
    for command in (attack, evaluate):
        command.add_argument("--model", required=True, help="a network of the zoo, a file NAME.npz of nn.save, or "
                             "module:function, which returns one; the module is looked for in the working folder, too")
        command.add_argument("--data", choices=DATA, help="whose test set; that of a zoo network unless given")
        command.add_argument("--eps", type=fraction, help="the budget, in the units of the data, such as 0.3 or 8/255; "
                             "in l0, such as that of SparseRS, the number of pixels")
        command.add_argument("--norm", help="of the budget; the attack's own default unless given")
        command.add_argument("--images", type=int, default=1000, help="the first so many of the test set (1000)")
        command.add_argument("--seed", type=int, default=0, help="of all random numbers (0)")
        command.add_argument("--device", default="cpu", help="cpu or cuda")
        command.add_argument("--state", type=Path, help="file from which a stopped AutoAttack goes on")
        command.add_argument("--out", type=Path, help="file NAME.npz for the result; a figure is saved as NAME.png")
        command.set_defaults(run=run)
    return made


def fraction(text: str) -> float:
    """The number of a text such as 0.3 or 8/255."""
    above, slash, below = text.partition("/")
    divisor = float(below) if slash else 1.0
    if not divisor:
        raise ValueError("division by zero")
    return float(above) / divisor


def show(options: argparse.Namespace) -> None:
    """Print the names of the zoo, with what each network is, or a card."""
    if options.name:
        print(models.zoo.card(options.name))
    else:
        print("\n".join(f"{name}: {models.zoo.card(name).summary}" for name in models.zoo.cards()))


def run(options: argparse.Namespace) -> None:
    """Attack the model, print the summary, and save the result and a figure."""
    model, source = network(options.model)
    name = options.data or source
    if name is None:
        raise ValueError(f"--data must be given with --model {options.model}: one of {', '.join(DATA)}")
    if options.images < 1:
        raise ValueError(f"--images must be at least 1, got {options.images}")
    if options.out and options.out.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, got {options.out}")
    check_seed(options.seed)
    taken = [Path(options.model).resolve()]
    for option in ("out", "state"):
        if not (path := getattr(options, option)):
            continue
        if path.resolve() in taken:
            raise ValueError(f"--{option} must be another file than those of the other options, got {path}")
        taken.append(path.resolve())
        if path.is_dir():
            raise ValueError(f"--{option} must be a file, got the folder {path}")
        if not os.access(path.absolute().parent, os.W_OK):
            raise ValueError(f"--{option} must be in a folder that exists and can be written to, got {path}")
    attack = made(options)
    if options.state and not isinstance(attack, attacks.MultiAttack):
        raise ValueError(f"--state is for AutoAttack: {attack} is one run, which keeps no state")
    if isinstance(model, nn.Module):
        model.to(options.device)
    elif options.device != "cpu":
        raise ValueError(f"--device must be cpu where the model is a {type(model).__name__} and no nn.Module, got "
                         f"{options.device}: let {options.model} move it there itself")
    test = DATA[name]()[1][:options.images]
    shape = model.input_shape if isinstance(model, nn.Module) else None
    if shape and shape[0] != test.images.shape[1]:
        raise ValueError(f"--data must have images of shape {shape}, as the model takes, but {name} has "
                         f"{test.images.shape[1:]}")
    print(f"{test}\naccuracy without an attack: {evaluation.accuracy(model, test):.2%}")
    state = {"state": options.state} if options.state else {}
    result = attack.run(model, test.images, test.labels, seed=options.seed, skip_misclassified=True, progress=True,
                        **state)
    print(result.summary())
    if options.out:
        from tinyadv import plots  # only now: matplotlib takes longer than all of tinyadv

        result.save(options.out)
        figure = options.out.with_suffix(".png")
        plots.adversarial_triples(model, test[:5], result.x_adv[:5], title=f"{test.name}: {attack}").savefig(figure)
        print(f"result: {options.out}; figure: {figure}")


def network(name: str) -> tuple[Any, str | None]:
    """The model of that name, and the name of its data set; None if that is not known."""
    module, colon, function = name.partition(":")
    if name.endswith(".npz"):
        try:
            return nn.load(name), None
        except nn.StateError as error:
            if "into=model" not in str(error):
                raise
            raise ValueError(f"{error}\nOn the command line, give --model module:function, a function that does so"
                             ) from error
    if not colon and name not in models.zoo.cards():
        raise ValueError(f"name must be one of {', '.join(models.zoo.cards())}; got {name!r}. Or give --model a file "
                         "NAME.npz of nn.save, or module:function, such as one that loads a .pth into a model")
    if not colon:
        return models.zoo.load(name), models.zoo.card(name).settings.get("data", "mnist")
    try:
        return getattr(importlib.import_module(module), function)(), None
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        raise ValueError(f"--model must be a network of the zoo, or module:function, got {name}: {error}") from error


def made(options: argparse.Namespace) -> attacks.Attack:
    """The attack, with those of its parameters that were given."""
    name = options.attack
    if name not in ATTACKS:
        meant = spellings.ATTRIBUTES.get(f"attacks.{name}", "")
        raise ValueError(f"the attack must be one of {', '.join(ATTACKS)}; got {name}. " + (
            f"It is {meant} here" if meant else "Those that are made of other attacks are built in a script"))
    known = parameters(ATTACKS[name])
    given = {key: value for key in ("eps", "norm", "steps") if (value := getattr(options, key)) is not None}
    if unknown := [key for key in given if key not in known]:
        takes = ", ".join(f"--{key}" for key in ("eps", "norm", "steps") if key in known) or "none of the three"
        raise ValueError(f"{name} takes no --{' and no --'.join(unknown)}: it takes {takes}")
    if known.get("eps") and "eps" not in given:
        unit = "pixels" if given.get("norm", ATTACKS[name].norm) == "l0" else "the units of the data"
        raise ValueError(f"--eps must be given for {name}: the budget, in {unit}")
    return ATTACKS[name](**given)


if __name__ == "__main__":
    main()
