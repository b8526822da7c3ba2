"""docs/foreign-models.md: the variables of the code of Madry et al. become the weights of models.MadryResNet."""

import re
from pathlib import Path

import numpy as np

from tinyadv import models

PAGE = (Path(__file__).parents[2] / "docs" / "foreign-models.md").read_text("utf-8")


def variables(width):
    """The names and shapes that model.py of github.com/MadryLab/cifar10_challenge makes, in its order."""
    def norm(scope, filters):
        names = ("beta", "gamma", "moving_mean", "moving_variance")
        return [(f"{scope}/BatchNorm/{name}", (filters,)) for name in names]

    yield "input/init_conv/DW", (3, 3, 3, 16)
    channels = 16
    for stage, filters in enumerate((16 * width, 32 * width, 64 * width), start=1):
        for unit in range(5):
            scope = f"unit_{stage}_{unit}"
            before = "shared_activation" if (stage, unit) == (1, 0) else "residual_only_activation"
            yield from norm(f"{scope}/{before}", channels)
            yield f"{scope}/sub1/conv1/DW", (3, 3, channels, filters)
            yield from norm(f"{scope}/sub2", filters)
            yield f"{scope}/sub2/conv2/DW", (3, 3, filters, filters)
            channels = filters
    yield from norm("unit_last", channels)
    yield "logit/DW", (channels, 10)
    yield "logit/biases", (10,)


def test_each_variable_of_the_authors_has_its_place():
    (code,) = (block for block in re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
               if "def madry_weights" in block)
    exec(code, page := {})
    rng, model = np.random.default_rng(0), models.MadryResNet(width=2)
    theirs = {name: rng.random(shape, np.float32) for name, shape in variables(2)}
    read = []
    model.load_state_dict(page["madry_weights"](model, lambda name: theirs[read.append(name) or name]))
    assert sorted(read) == sorted(theirs)

    ours = (array for name, array in model.state_dict().items() if not name.endswith("num_batches_tracked"))
    for name, array in theirs.items():  # the layers have one order, but gamma comes before beta here
        if name.endswith("beta"):
            np.testing.assert_array_equal(next(ours), theirs[name.replace("beta", "gamma")])
        if not name.endswith("gamma"):
            np.testing.assert_array_equal(next(ours), np.einsum("hwcf->fchw", array) if array.ndim == 4 else array.T)
    assert not list(ours)
