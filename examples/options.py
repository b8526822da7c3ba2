"""The command-line options of the examples, checked before the work begins; and how an example stops before its end."""

import argparse
import sys
from pathlib import Path

from checks import at_least, device, figure

from tinyadv import models, nn, training

CONFIGS = Path(__file__).parent / "configs"


def _report(kind, error, traceback):
    """Ctrl-C, or a checkpoint of another run, ends an example with one line, which says how to go on."""
    if issubclass(kind, training.Interrupted):
        error = str(error).partition("; the same call")[0] + "; the same command goes on from there"
    if issubclass(kind, KeyboardInterrupt):
        print(f"\n{str(error) or 'stopped by Ctrl-C'}", file=sys.stderr)
        sys.exit(130)  # what a shell makes of Ctrl-C
    if issubclass(kind, nn.StateError):
        told, extend, _ = str(error).partition("\nextend=")  # which is for who calls the library
        sys.exit(f"{told}\ngive the options of that run, or choose another --out" if extend else
                 f"{error}; or choose another --out")
    sys.__excepthook__(kind, error, traceback)


sys.excepthook = _report


def arguments(description, out, trains=True, **networks):
    """A parser with the options of all examples.

    networks: {option: default} for networks of the zoo; the default is a name, or a list for an option that takes
    several. Without any, the example trains, and has the option --epochs, unless `trains` is False.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for name, default in networks.items():
        several = isinstance(default, list)
        parser.add_argument(f"--{name}", nargs="+" if several else None, default=default, help="of models.zoo",
                            choices=fitting(default[0] if several else default))
    if trains and not networks:
        parser.add_argument("--epochs", type=at_least(1, int), default=3, help="passes over the training images")
    parser.add_argument("--limit", type=at_least(2, int), default=60_000, help="images of each set, at most")
    parser.add_argument("--device", type=device, default="cpu", help="where to compute: cpu or cuda")
    parser.add_argument("--seed", type=at_least(0, int), default=42, help="of weights and all other random numbers")
    parser.add_argument("--out", type=figure, default=out, help="file of the figure")
    return parser


def fitting(network):
    """The networks of models.zoo that can be loaded and take the images that this one takes."""
    of_two_channels = {"mnist-ablation-l0"}  # see certify.Ablation
    return [name for name in models.zoo.names() if name.split("-")[0] == network.split("-")[0]
            and name not in of_two_channels]


class OfSettings(argparse.ArgumentDefaultsHelpFormatter):
    """Help that says where a default of None comes from."""

    def _get_help_string(self, action):
        default = "the name of --config, with .png, in this folder" if action.dest == "out" else "that of the settings"
        return super()._get_help_string(action) if action.default else f"{action.help} (default: {default})"


def recipe_options(description, config):
    """The options of a script that trains from the settings in configs/, from `config` unless told otherwise."""
    parser = arguments(description, out=None)
    parser.formatter_class = OfSettings
    parser.set_defaults(epochs=None, seed=None)  # those of the settings, unless given
    parser.add_argument("--config", type=Path, default=CONFIGS / config, help="file of settings")
    parser.add_argument("--images", type=at_least(1, int), default=1000, help="test images to attack, at most")
    return parser.parse_args()
