"""Training from a file of settings: what madry_mnist.py and madry_cifar10.py share."""

import sys
from pathlib import Path
from textwrap import indent

from common import cifar10_or_digits, mnist_or_digits
from options import recipe_options as recipe_options

from tinyadv import attacks, certify, data, evaluation, models, nn, plots, training

DATA = {"mnist": mnist_or_digits, "cifar10": cifar10_or_digits}


def made(module, settings, **more):
    """What the class or function that a table of settings names makes; the rest of the table are the arguments."""
    values = {name: made(attacks, value) if isinstance(value, dict) else value for name, value in settings.items()}
    kind = getattr(module, str(name := values.pop("class", None)), None)
    if not callable(kind):
        raise ValueError(f"class must be a class of {module.__name__}, got {name!r}")
    return kind(**values, **more)


def recipe(settings, seed, steps=40, device="cpu"):
    """From the tables of settings: the model, an attack or a certificate to judge it, and how to train it."""
    model = made(models, settings["model"] | {"seed": seed}).to(device)
    votes = made(certify, settings["certificate"]) if "certificate" in settings else None
    if (twice := settings["method"].get("class") == "Consistent") and not votes:  # it varies the images itself
        raise ValueError("training by Consistent needs a table [certificate]")
    method = made(training, settings["method"], **({"votes": votes} if twice else {}))
    changes = [made(data.augment, each) for each in settings.get("augment", ())]
    changes += [votes.augment] if votes and not twice else []
    return model, votes or attacks.PGD(**settings["evaluation"], steps=steps), {
        "optimizer": made(nn.optim, settings["optimizer"], model=model),
        "method": method, "schedule": made(nn.optim, settings["schedule"]),
        "eps_schedule": training.ramp(**settings["ramp"]) if "ramp" in settings else None,
        "augment": data.augment.chain(*changes) if len(changes) > 1 else changes[0] if changes else None,
    }


def split(train, settings):
    """The training images, and those held out to watch the accuracy on: None for a network for votes."""
    count = max(1, min(settings["held_out"], len(train) // 5))
    return train[:-count], None if "certificate" in settings else train[-count:]


def run(options, steps, least):
    """Train, save and judge the network of the settings: PGD must leave, or votes certify, more than `least` of it."""
    try:
        settings = models.zoo.settings(options.config)
        given = {name: value for name in ("epochs", "seed") if (value := getattr(options, name)) is not None}
        numbers, seed = settings["training"] | given, given.get("seed", settings["model"]["seed"])
        model, judge, how = recipe(settings, seed, steps, options.device)
        if (name := settings.get("data", "mnist")) not in DATA:
            raise ValueError(f"data must be {' or '.join(sorted(DATA))}, got {name!r}")
        out, method = options.out or Path(f"{options.config.stem}.png"), how["method"]
        attacked = method.budget is not None and not isinstance(method, training.Certified)  # which has certificates
    except (AttributeError, OSError, TypeError, ValueError) as error:
        sys.exit(f"{error}" if str(options.config) in str(error) else f"{options.config}: {error}")
    train, test = DATA[name](options.limit)
    train, held_out = split(train, settings)
    weights, table = out.with_suffix(".npz"), out.with_suffix(".csv")
    history = training.fit(model, train, **numbers, **how, validation=held_out, progress=True, resume=True,
                           validation_attack=judge if attacked else None, checkpoint=out.with_suffix(".checkpoint.npz"))
    nn.save(model, weights)
    history.to_csv(table)
    plots.history(history, title=train.name).savefig(out)
    print(indent(repr(history), f"{train.name}  "))
    print(f"\n{test.name}  figure: {out}; weights: {weights}; history: {table}")
    subset, told = test[:options.images], str(judge)
    if held_out is None:
        found, radius = judge.certify(model, subset, seed=seed, progress=True), settings["evaluation"]["eps"]
        clean, robust, test, told = found.accuracy, found.certified_accuracy(radius), subset, f"{judge} at {radius:g}"
    else:
        clean = evaluation.accuracy(model, test)
        robust = evaluation.robust_accuracy(model, judge, subset, seed=seed, progress=True)
    print(f"{test.name}  accuracy on {len(test):,} images: {clean:.2%}")
    why = "it was trained on clean images" if held_out and not method.budget else "train longer"
    verdict = "holds" if robust > least else f"does not hold: {why}"
    print(f"{test.name}  under {told} {robust:.2%} of {len(subset):,} images are right: the claim {verdict}")
