"""What other libraries call things, and what to write here. Errors are the only place where it is shown."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any, NoReturn, ParamSpec, TypeVar

from tinyadv.backend import is_array, memory

P = ParamSpec("P")
R = TypeVar("R")

# Arguments of torchattacks, foolbox, ART, CleverHans and PyTorch: the name here, or a sentence that says what to do.
ARGUMENTS = {
    **dict.fromkeys(("alpha", "eps_step", "eps_iter", "abs_stepsize", "stepsize"), "step_size"),
    **dict.fromkeys(("max_iter", "nb_iter", "num_steps", "num_iter", "n_iter", "iterations", "iters"), "steps"),
    **dict.fromkeys(("n_queries", "max_queries", "max_eval"), "queries"),
    **dict.fromkeys(("n_restarts", "num_restarts", "num_random_init"), "restarts"),
    **dict.fromkeys(("random_init", "rand_init"), "random_start"),
    **dict.fromkeys(("clip_min", "clip_max", "clip_values"), "bounds"),
    **dict.fromkeys(("targets", "target_labels", "y_target"), "target"),
    **dict.fromkeys(("images", "inputs"), "x"),
    **dict.fromkeys(("model", "estimator", "classifier", "fmodel"),
                    "the model comes with the call, as in FGSM(eps=0.3)(model, x, y)"),
    **dict.fromkeys(("affine", "ceil_mode", "dtype", "inplace", "padding_mode", "start_dim", "track_running_stats"),
                    "leave it out: the layers here have PyTorch's default, in float32"),
    "confidence": "kappa", "data": "dataset", "dim": "axis", "eot_iter": "eot", "epsilon": "eps",
    "input_size": "input_shape", "keepdim": "keepdims", "labels": "y", "learning_rate": "lr", "mu": "decay",
    "n_epochs": "epochs", "n_jobs": "workers", "num_epochs": "epochs", "num_workers": "workers", "params": "model",
    "root": "path", "validation_data": "validation", "verbose": "progress",
    "device": 'the model says where: model.to("cuda")',
    "epsilons": "an attack has one eps; evaluation.epsilon_curve(model, attack, dataset, epsilons) takes several",
    "rel_stepsize": "write step_size, in the units of the data: rel_stepsize * eps",
    "num_classes": "it has a fixed number of classes; models.resnet18(num_classes) and its like take one. DeepFool "
                   "takes candidates",
    "pretrained": 'write weights="IMAGENET1K_V1" for resnet18 and its like, models.zoo.load(name) for ours',
    "shuffle": "seed=0 shuffles; training does so in every epoch",
    "targeted": "give the classes to reach as target=, next to the true classes y, as in attack(model, x, y, target=3)",
}

# Attributes of modules and classes: what there is instead.
ATTRIBUTES = {
    "tinyadv.optim": "nn.optim", "tinyadv.save": "nn.save(model, path)", "tinyadv.load": "nn.load(path)",
    "tinyadv.from_numpy": "Tensor(array)", "tinyadv.manual_seed": "seed=, as in models.SmallCNN(seed=0)",
    "tinyadv.cuda": 'model.to("cuda"); `python -m tinyadv` lists the GPUs',
    "nn.optim.AdamW": "nn.optim.Adam(model, weight_decay=0.01), which adds the decay to the gradient",
    "nn.optim.lr_scheduler": "training.fit(..., schedule=nn.optim.cosine())",
    "nn.functional": "tinyadv.ops", "nn.CrossEntropyLoss": "ops.cross_entropy(logits, labels)",
    "nn.Identity": "nn.Sequential()", "nn.load_safetensors": "nn.load_pytorch(path)", "nn.Dropout2d": "nn.Dropout",
    "nn.optim.RMSprop": "nn.optim.Adam(model)",
    "nn.Softmax": "ops.softmax(logits); a model returns the logits",
    "nn.Parameter": "a Tensor that is an attribute of the module", "nn.ModuleList": "a list", "nn.ModuleDict": "a dict",
    "nn.MultiheadAttention": "nn.Attention(dim, num_heads)", "models.ViT": "models.VisionTransformer",
    **{f"models.{name}": f"models.{name.lower()}(), and models.{name.lower()}(10, small_images=True) for CIFAR-10"
       for name in ("ResNet18", "ResNet50", "VGG16", "DenseNet121")},
    "data.DataLoader": "data.batches(dataset, 32, seed=0)", "data.MNIST": "data.mnist()",
    "data.load_mnist": "data.mnist()", "data.CIFAR10": "data.cifar10()",
    "defenses.GaussianNoise": "nn.GaussianNoise", "nn.BCELoss": "ops.cross_entropy of two logits",
    "training.train": "training.fit", "evaluation.evaluate": "evaluation.accuracy or evaluation.robust_accuracy",
    "plots.show": 'figure.savefig("name.png"), for a figure that a function of plots returns',
    "attacks.CW": "attacks.CarliniWagner", "attacks.APGDT": "APGD(eps=0.3, loss=\"dlr\", target_classes=9)",
    "attacks.LinfPGD": 'PGD(eps=0.3, norm="linf")', "attacks.L2PGD": 'PGD(eps=0.3, norm="l2")',
    "attacks.ProjectedGradientDescent": "attacks.PGD", "attacks.FastGradientMethod": "attacks.FGSM",
    "attacks.BasicIterativeMethod": "attacks.BIM", "attacks.CarliniL2Method": "attacks.CarliniWagner",
    "attacks.SquareAttack": "attacks.Square", "attacks.AutoPGD": "attacks.APGD",
    "attacks.Boundary": "attacks.BoundaryAttack",
    "Attack.generate": "attack(model, x, y)", "Attack.run_standard_evaluation": "attack.run(model, x, y)",
    **{f"Attack.{name}": "attack(model, x, y)" for name in ("attack", "forward")},
    **{f"Attack.set_mode_targeted_{how}": "attack(model, x, y, target=...)"
       for how in ("by_function", "by_label", "least_likely", "random")},
    "AttackResult.adv": "result.x_adv", "AttackResult.adversarial": "result.x_adv",
    "Dataset.data": "dataset.images", "Dataset.targets": "dataset.labels",
    "Module.zero_grad": "optimizer.zero_grad()", "Module.modules": "model.named_modules()",
    "Module.save": "nn.save(model, path)", "Module.predict": "evaluation.predict(model, images)",
    "AttackResult.accuracy": 'result.to_json()["accuracy"]',
    "AttackResult.robust_accuracy": "result.robust.mean()", "AttackResult.success_rate": "result.success.mean()",
    "Module.register_buffer": "nothing: an array that is an attribute is a buffer",
    "Module.register_parameter": "nothing: a Tensor that is an attribute is a parameter",
    "Module.add_module": "nothing: a module that is an attribute is a part", "Module.apply": "model.named_modules()",
    "Module.append": "nn.Sequential(*model.layers, layer)", "Module.children": "model.named_modules()",
    **{f"Module.{dtype}": "nothing: models and images are in float32" for dtype in ("bfloat16", "float", "half")},
    "Module.requires_grad_": "nothing: an attack asks for no weight's gradient",
    "Tensor.view": "x.reshape(N, -1)", "Tensor.permute": "x.transpose(0, 2, 3, 1)", "Tensor.numel": "x.size",
    "Tensor.squeeze": "x.reshape(shape)", "Tensor.float": "nothing: x is in floating point",
    "Tensor.contiguous": "nothing: operations see to it", "Tensor.to": 'model.to("cuda"); the images follow the model',
    "Tensor.device": "nothing: the images follow the model", "Tensor.norm": "ops.sqrt((x * x).sum())",
    "Tensor.sign": "np.sign(x.data), which has no gradient",
    "Tensor.cuda": 'model.to("cuda"); the images follow the model', "nn.MSELoss": "ops.mse_loss(x, y)",
    "Tensor.clone": "nothing: no operation changes a Tensor",
    "Tensor.clamp": "ops.clip(x, low, high)", "Tensor.cpu": "x.numpy()", "Tensor.unsqueeze": "x[None]",
    "Tensor.clip": "ops.clip(x, low, high)",
    **{f"Tensor.{name}": f"ops.{name}(x)" for name in ("abs", "exp", "log", "relu", "sigmoid", "softmax", "sqrt",
                                                       "tanh")},
    "Tensor.requires_grad_": "nothing: gradients(loss, [x]) takes any Tensor",
}


def check_keywords(name: str, given: Collection[str], known: Collection[str]) -> None:
    """TypeError for the first argument of a call that is not known; it says what to write instead."""
    for other in given:
        if other not in known:
            meant = ARGUMENTS.get(other, "")
            names = ", ".join(each for each in known if each != "self" and not each.startswith("_")) or "nothing"
            remedy = meant if " " in meant else f"write {meant}=" if meant in known else f"it takes {names}"
            raise TypeError(f"{name} takes no {other}: {remedy}")


def explain(error: Exception, name: str, args: Collection[Any], kwargs: Collection[str],
            known: Collection[str]) -> None:
    """Raise the error of an operation once more, with what to write instead, or with its name and shapes.

    The errors of NumPy name neither. One that begins with the name of the operation is left as it is; one of a class of
    its own gets a note.
    """
    check_keywords(name, kwargs if isinstance(error, TypeError) else (), known)
    if isinstance(error, TypeError) and str(error).startswith(f"{name}() takes"):
        raise TypeError(f"{name} takes ({', '.join(known)}): {error}") from error
    name = name.lstrip("_")
    where = " and ".join(str(x.shape) for x in args if hasattr(x, "shape"))
    where = f"{name} of shape {where}" if where else name
    if type(error) not in (IndexError, TypeError, ValueError):
        error.add_note(f"in {where}")
    elif not str(error).startswith(name):
        rule = "; from the last axis on, two lengths must be equal, or one of them 1" * ("together" in str(error))
        raise type(error)(f"{where}: {str(error).strip()}{rule}{_apart(args)}") from error


def _apart(args: Collection[Any]) -> str:
    """What to do about arguments that lie in several memories: the end of an error, empty for one memory."""
    arrays = [x if is_array(x) else getattr(x, "data", None) for x in args]
    places = list(dict.fromkeys(memory(x) for x in arrays if is_array(x)))
    if len(places) < 2:
        return ""
    gpu = max(places)
    return (f'; they lie on {" and ".join(places)}: move one, by model.to("{gpu}") or '
            f'backend.to_device(array, "{gpu}")')


def check_model(model: object) -> None:
    """TypeError unless the model is a function, and no class."""
    if isinstance(model, type):
        raise TypeError(f"the model must be built first: {model.__name__}(...), got the class")
    if not callable(model):
        raise TypeError(f"the model must be a function of images, got {type(model).__name__}: it comes first, as in "
                        "attack(model, x, y)")


def foreign(model: object) -> str:
    """What to do if this model of another framework has failed: the end of a note, empty for other models."""
    frameworks = {each.__module__.partition(".")[0] for each in type(model).__mro__ if isinstance(each.__module__, str)}
    if not (known := frameworks & {"torch", "keras", "tensorflow", "flax", "sklearn"}):
        return ""
    return (f"; the model is one of {min(known)}, which computes on arrays of its own: wrap it in an adapter, as "
            "docs/foreign-models.md shows")


def spelled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose TypeError for a foreign or a missing argument says what it takes instead."""
    signature = inspect.signature(function)
    shown = [name for name in signature.parameters if name != "self" and not name.startswith("_")]
    open_ended = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            check_keywords(function.__qualname__, () if open_ended else kwargs, signature.parameters)
            raise TypeError(f"{function.__qualname__} takes ({', '.join(shown)}): {error}") from None
        return function(*args, **kwargs)

    return checked


class NotATensor(ModuleType):
    """The module tinyadv.tensor, which is no function."""

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("tinyadv.tensor is a module: write tinyadv.Tensor(data)")


def missing(module: str, name: str) -> AttributeError:
    """The error for an attribute that a module of the library does not have."""
    return _missing(f"module {module!r}", [module.removeprefix("tinyadv.")], name)


def no_attribute(self: object, name: str) -> NoReturn:
    """The __getattr__ of a class: the error for an attribute that there is not."""
    raise _missing(f"{type(self).__name__!r} object", [owner.__name__ for owner in type(self).__mro__], name, obj=self)


def _missing(what: str, owners: list[str], name: str, **more: object) -> AttributeError:
    remedies = [f": write {ATTRIBUTES[key]}" for owner in owners if (key := f"{owner}.{name}") in ATTRIBUTES]
    return AttributeError(f"{what} has no attribute {name!r}{''.join(remedies[:1])}", name=name, **more)
