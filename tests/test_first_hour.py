"""The first hour of somebody who knows PyTorch, torchattacks, foolbox or ART: what they write, and what comes of it.

A line of MISTAKES is a piece of code and what happens: it works (None), or an error or a warning says what to write.
"""

import inspect
import pkgutil
import re
import tempfile
import warnings
import zipfile

import numpy as np
import pytest

import tinyadv
from tinyadv import (
    Tensor,
    attacks,
    data,
    defenses,
    evaluation,
    gradients,
    models,
    nn,
    ops,
    plots,
    spellings,
    training,
)

_, TEST = data.digits(train=0, test=12)
X, Y = TEST.images, TEST.labels
RGB = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)  # (N, H, W, C)
MODEL = models.LeNet(seed=0)
FGSM, PGD = attacks.FGSM, attacks.PGD


class OfPyTorch:
    """Stands for a module of PyTorch: what its classes are called is all that is asked of it."""

    __module__ = "torch.nn.modules.container"

    def __call__(self, x):
        raise TypeError("not a Tensor of PyTorch")


def conv():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def SGD():
    return nn.optim.SGD(MODEL, lr=0.01)


def softmax(x):
    return ops.softmax(MODEL(x))


class Softmax(models.LeNet):
    def forward(self, x):
        return ops.softmax(super().forward(x))


def fit_softmax():
    model = Softmax()
    training.fit(model, TEST, epochs=1, optimizer=nn.optim.SGD(model))


class Plain(attacks.Attack):
    def __init__(self, eps):
        self.eps = eps


def load_a_file_of_ours():
    with tempfile.TemporaryDirectory() as folder:
        nn.save(MODEL, path := f"{folder}/x.npz")
        nn.load_pytorch(path)


def load_a_file_of_pytorch():
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path := f"{folder}/x.pt", "w") as file:
            file.writestr("archive/data.pkl", b"")
        nn.load(path)


MISTAKES = [
    # Building an attack
    ("PGD(eps=0.1, alpha=0.01)", lambda: PGD(eps=0.1, alpha=0.01), "PGD takes no alpha: write step_size="),
    ("PGD(eps_step=)", lambda: PGD(0.1, eps_step=0.01), "write step_size="),
    ("PGD(max_iter=)", lambda: PGD(0.1, max_iter=5), "write steps="),
    ("PGD(random_init=)", lambda: PGD(0.1, random_init=True), "write random_start="),
    ("FGSM(alpha=), of one step", lambda: FGSM(0.1, alpha=0.01), "FGSM takes no alpha: it takes eps, norm, bounds"),
    ("PGD(epsilons=)", lambda: PGD(epsilons=[0.1, 0.2]), "evaluation.epsilon_curve"),
    ("PGD(targeted=True)", lambda: PGD(0.1, targeted=True), "give the classes to reach as target="),
    ("FGSM(model)", lambda: FGSM(MODEL), r"the model comes with the call, as in FGSM\(eps=0.3\)\(model, x, y\)"),
    ("PGD(model, eps=)", lambda: PGD(MODEL, eps=0.1), "the model comes with the call"),
    ("PGD(estimator=)", lambda: PGD(estimator=MODEL, eps=0.1), "the model comes with the call"),
    ("PGD(norm=np.inf)", lambda: PGD(0.1, norm=np.inf), 'norm must be "linf", "l2", "l1" or "l0"'),
    ("attacks.CW", lambda: attacks.CW, "write attacks.CarliniWagner"),
    ("attacks.ProjectedGradientDescent", lambda: attacks.ProjectedGradientDescent, "write attacks.PGD"),
    ("MultiAttack(a, b)", lambda: attacks.MultiAttack(FGSM(0.1), PGD(0.1)), "attacks must be a list of attacks"),
    ("MultiAttack(a)", lambda: attacks.MultiAttack(PGD(0.1)), "attacks must be a list of attacks"),
    ("MultiAttack(attacks=a)", lambda: attacks.MultiAttack(attacks=PGD(0.1)), "attacks must be a list of attacks"),
    ("attack.eps = 0.2", lambda: setattr(PGD(0.1), "eps", 0.2), r"dataclasses.replace\(attack, eps=0.2\)"),
    ("PGD(iters=)", lambda: PGD(0.1, iters=5), "write steps="),
    ("PGD(step_size=np.inf)", lambda: PGD(0.1, step_size=np.inf), "step_size must be a number above 0"),
    ("MIFGSM(decay=np.inf)", lambda: attacks.MIFGSM(0.1, decay=np.inf), "decay must be a number >= 0"),
    ("DeepFool(num_classes=)", lambda: attacks.DeepFool(num_classes=3), "DeepFool takes candidates"),
    # Calling it
    ("attack(module of PyTorch, x, y)", lambda: FGSM(0.1)(OfPyTorch(), X, Y), "docs/foreign-models.md"),
    ("attack(model, y, x)", lambda: FGSM(0.1)(MODEL, Y, X), r"the order is \(model, x, y\)"),
    ("attack(model, images in a list, y)", lambda: FGSM(0.1)(MODEL, X.tolist(), Y), r"list: np.array\(x, np.float32"),
    ("attack(model, images of integers, y)", lambda: FGSM(0.1)(MODEL, X.astype(int), Y),
     r": x.astype\(np.float32\)$"),
    ("labels (n, 1)", lambda: FGSM(0.1)(MODEL, X, Y[:, None]), r"take y\[:, 0\]"),
    ("attack(images, labels)", lambda: FGSM(0.1)(X, Y), r"takes \(model, x, y.*'y'"),
    ("attack(model, dataset)", lambda: FGSM(0.1)(MODEL, TEST), r"takes \(model, x, y.*'y'"),
    ("attack(images, labels, model)", lambda: FGSM(0.1)(X, X, Y), "it comes first, as in attack"),
    ("attack(LeNet, x, y), the class", lambda: FGSM(0.1)(models.LeNet, X, Y), r"must be built first: LeNet\("),
    ("attack(epsilons=)", lambda: FGSM(0.1)(MODEL, X, Y, epsilons=[0.1]), "evaluation.epsilon_curve"),
    ("attack(targeted=)", lambda: FGSM(0.1)(MODEL, X, Y, targeted=True), "give the classes to reach as target="),
    ("attack(images=, labels=)", lambda: FGSM(0.1)(MODEL, images=X, labels=Y), r"takes \(model, x, y"),
    ("attack(model, Tensor)", lambda: FGSM(0.1)(MODEL, Tensor(X), Y), r"x.numpy\(\)"),
    ("attack.generate(x, y)", lambda: FGSM(0.1).generate(X, Y), r"write attack\(model, x, y\)"),
    ("one image and its label", lambda: FGSM(0.1)(MODEL, X[0], Y[0]), r"give x\[:1\] and y\[:1\]"),
    ("labels in a list", lambda: FGSM(0.1)(MODEL, X, Y.tolist()), None),
    # Layers
    ("model.summary(1, 28, 28)", lambda: MODEL.summary(1, 28, 28), r"summary takes \(input_shape\)"),
    ("model.summary(input_size=)", lambda: MODEL.summary(input_size=(1, 28, 28)), "write input_shape="),
    ("x.argmax(dim=)", lambda: Tensor(X).argmax(dim=1), "argmax takes no dim: write axis="),
    # Data
    ("a Dataset of labels (n, 1)", lambda: data.Dataset(X, Y[:, None]), r"take labels\[:, 0\]"),
    ("one-hot labels", lambda: FGSM(0.1)(MODEL, X, np.eye(10)[Y]), r"y.argmax\(axis=1\)"),
    ("a Dataset of one-hot labels", lambda: data.Dataset(X, np.eye(10, dtype=int)[Y], "mine", TEST.classes),
     r"labels.argmax\(axis=1\)"),
    ("0..255, as bytes", lambda: FGSM(8 / 255)(MODEL, (X * 255).astype(np.uint8), Y), r"x.astype\(np.float32\) / 255"),
    ("0..255, as floats", lambda: FGSM(8 / 255)(MODEL, X * 255, Y), "give x / 255"),
    ("eps=8/255 on 0..255", lambda: FGSM(8 / 255, bounds=(0, 255))(MODEL, X * 255, Y), "give eps=8"),
    ("eps=8 on [0, 1]", lambda: FGSM(8)(MODEL, X, Y), "give eps=8/255"),
    ("images of NaN", lambda: FGSM(0.1)(MODEL, X * np.nan, Y), "12 of its 12 images contain NaN"),
    ("images (N, H, W, C)", lambda: FGSM(0.1)(conv(), RGB, Y[:4]), r"x.transpose\(0, 3, 1, 2\)"),
    ("images (N, H, W, C), normalised", lambda: nn.Normalize([0.5] * 3, [0.2] * 3)(RGB), r"x.transpose\(0, 3, 1, 2\)"),
    ("images of another shape", lambda: FGSM(0.1)(conv(), X, Y), r"x has shape \(12, 1, 28, 28\)"),
    ("x, y = dataset", lambda: next(iter(TEST)), "take dataset.images and dataset.labels"),
    ("data.Dataset(x, y)", lambda: data.Dataset(X, Y)[:3], None),
    ("data.mnist(root=)", lambda: data.mnist(root="data"), "write path="),
    ("data.DataLoader(dataset)", lambda: data.DataLoader(TEST), "write data.batches"),
    ("dataset.targets", lambda: TEST.targets, "write dataset.labels"),
    ("data.batches(shuffle=True)", lambda: data.batches(TEST, 4, shuffle=True), "seed=0 shuffles"),
    ("data.batches(images)", lambda: data.batches(X, 4), r"data.Dataset\(images, labels\)"),
    ("for x, y in data.batches(dataset)", lambda: [MODEL(x) for x, y in data.batches(TEST, 5)], None),
    # Models and training
    ("a model that ends in softmax", lambda: PGD(0.1, steps=2)(softmax, X, Y), "without the softmax"),
    ("SGD(model.parameters(), lr=)", lambda: nn.optim.SGD(MODEL.parameters(), lr=0.01, momentum=0.9), None),
    ("Adam([{'params': ...}])", lambda: nn.optim.Adam([{"params": MODEL.parameters()}]), "a model or its parameters"),
    ("optim.AdamW(model)", lambda: nn.optim.AdamW(MODEL), r"write nn.optim.Adam\(model, weight_decay"),
    ("optim.lr_scheduler", lambda: nn.optim.lr_scheduler.StepLR, "schedule=nn.optim.cosine"),
    ("model.half()", lambda: MODEL.half(), "models and images are in float32"),
    ("SmallCNN(num_classes=)", lambda: models.SmallCNN(num_classes=5), r"models.resnet18\(num_classes"),
    ("resnet18(num_classes=)", lambda: models.resnet18(num_classes=5), None),
    ("model(images of 0..255, as bytes)", lambda: MODEL((X * 255).astype(np.uint8)), r"x.astype\(np.float32\) / 255"),
    ("training a model that ends in softmax", lambda: fit_softmax(), "without the softmax"),
    ("model(images in a list)", lambda: MODEL(X.tolist()), r"give np.array\(x, np.float32\)"),
    ("a flat image", lambda: FGSM(0.1)(MODEL, X[0].ravel(), Y[:1]), r"for one image, give x\[None\]"),
    ("model(dataset)", lambda: MODEL(TEST), "give dataset.images"),
    ("nn.load(model, path)", lambda: nn.load(MODEL, "model.npz"), r"nn.load\(path, into=model\)"),
    ("Free(replays=0)", lambda: training.Free(0.1, replays=0), "replays must be an integer >= 1"),
    ("tensor + tensor of another shape", lambda: Tensor(X) + Tensor(X[:5]),
     r"add of shape \(12, 1, 28, 28\) and \(5, 1, 28, 28\)"),
    ("tensor.reshape(5)", lambda: Tensor(X).reshape(5), r"reshape of shape \(12, 1, 28, 28\)"),
    ("tensor[12]", lambda: Tensor(X)[12], r"getitem of shape \(12, 1, 28, 28\)"),
    ("ops.pad(x, -1)", lambda: ops.pad(Tensor(X), -1), r"pad of shape \(12, 1, 28, 28\)"),
    ("tensor.relu()", lambda: Tensor(X).relu(), r"write ops.relu\(x\)"),
    ("model.train(False)", lambda: MODEL.train(False), None),
    ("model.cpu()", lambda: MODEL.cpu(), None),
    ("nn.CrossEntropyLoss()", lambda: nn.CrossEntropyLoss(), r"ops.cross_entropy\(logits, labels\)"),
    ("models.ResNet18", lambda: models.ResNet18(), r"write models.resnet18\(\)"),
    ("resnet50(pretrained=True)", lambda: models.resnet50(pretrained=True), 'write weights="IMAGENET1K_V1"'),
    ("nn.MultiheadAttention", lambda: nn.MultiheadAttention(8, 2), r"write nn.Attention\(dim"),
    ("tinyadv.optim", lambda: tinyadv.optim, "write nn.optim"),
    ("fit(num_epochs=)", lambda: training.fit(MODEL, TEST, num_epochs=1, optimizer=SGD()), "write epochs="),
    ("fit(device=)", lambda: training.fit(MODEL, TEST, epochs=1, optimizer=SGD(), device="cuda"), "model.to"),
    ("fit(model, x, y)", lambda: training.fit(MODEL, X, Y), r"fit takes \(model, train, epochs"),
    ("fit(optimizer='sgd')", lambda: training.fit(MODEL, TEST, epochs=1, optimizer="sgd"), r"nn.optim.SGD\(model, lr"),
    ("fit(model, (x, y))", lambda: training.fit(MODEL, (X, Y), epochs=1, optimizer=SGD()), r"data.Dataset\(images"),
    ("fit(attack=PGD)", lambda: training.fit(MODEL, TEST, epochs=1, optimizer=SGD(), attack=PGD), r"such as PGD\(eps="),
    ("fit(method='trades')", lambda: training.fit(MODEL, TEST, epochs=1, optimizer=SGD(), method="trades"),
     r"method must be .* such as training.TRADES\(eps="),
    ("fit(schedule='cosine')", lambda: training.fit(MODEL, TEST, epochs=1, optimizer=SGD(), schedule="cosine"),
     r"such as nn.optim.cosine\(\)"),
    ("load_state_dict('x.npz')", lambda: MODEL.load_state_dict("x.npz"), r"nn.load\(path, into=model\)"),
    ("Adam(learning_rate=)", lambda: nn.optim.Adam(MODEL, learning_rate=0.1), "write lr="),
    ("nn.Sequential(nn.Flatten)", lambda: nn.Sequential(nn.Flatten, nn.ReLU()), r"write Flatten\(\)"),
    ("fit(checkpoint='none/a.npz')", lambda: training.fit(MODEL, TEST, epochs=1, optimizer=SGD(),
                                                           checkpoint="none/a.npz"), "in a folder that exists"),
    ("fit(extend='epochs')", lambda: training.fit(MODEL, TEST, epochs=1, optimizer=SGD(), extend="epochs"),
     r"such as \('epochs',\)"),
    ("sanity_checks(eps=0)", lambda: evaluation.sanity_checks(MODEL, TEST, eps=0), "eps must be above 0"),
    ("nn.Sequential([...])", lambda: nn.Sequential([nn.ReLU()]), r"Sequential\(\*layers\)"),
    ("model.zero_grad()", lambda: MODEL.zero_grad(), r"write optimizer.zero_grad\(\)"),
    ("tinyadv.tensor([1.0])", lambda: tinyadv.tensor([1.0]), r"write tinyadv.Tensor\(data\)"),
    ("Tensor(x, requires_grad=True)", lambda: Tensor(X, requires_grad=True), None),
    ("Tensor(x, requires_grad=False)", lambda: Tensor(X, requires_grad=False), "use its array"),
    ('f"{loss:.3f}"', lambda: f"{MODEL(X).sum():.3f}", None),
    ("tensor.reshape(-1, 4)", lambda: Tensor(X).reshape(-1, 4), None),
    ("tensor.transpose(0, 2, 3, 1)", lambda: Tensor(X).transpose(0, 2, 3, 1), None),
    ("abs(tensor)", lambda: abs(Tensor(X)), None),
    ("tensor.detach().numpy()", lambda: Tensor(X).detach().numpy(), None),
    ("tensor.sum(dim=1)", lambda: Tensor(X).sum(dim=1), "sum takes no dim: write axis="),
    ("tensor.mean(keepdim=True)", lambda: Tensor(X).mean(axis=1, keepdim=True), "write keepdims="),
    ("tensor.view(-1)", lambda: Tensor(X).view(-1), r"write x.reshape"),
    ("gradients(loss, [array])", lambda: gradients(MODEL(X).sum(), [X]), "wrt must be a list of Tensors"),
    ("nn.save(path, model)", lambda: nn.save("model.npz", MODEL), r"save\(model, path\)"),
    ("tensor.flatten(1)", lambda: Tensor(X).flatten(1), r"flatten takes \(x\): flatten\(\) takes 1 positional"),
    ("model.register_buffer()", lambda: MODEL.register_buffer("mean", X), "an array that is an attribute is a buffer"),
    ("nn.Identity()", lambda: nn.Identity(), r"write nn\.Sequential\(\)"),
    ("nn.Sequential(), the identity", lambda: nn.Sequential()(X), None),
    ("nn.load_safetensors(path)", lambda: nn.load_safetensors("x.safetensors"), "write nn.load_pytorch"),
    ("nn.load_pytorch('x.npz')", load_a_file_of_ours, r"a file of nn.save is read by nn.load\(path\)"),
    ("nn.load('x.pt')", load_a_file_of_pytorch, r"model.load_state_dict\(nn.load_pytorch\("),
    # Evaluation
    ("accuracy(model, x, y)", lambda: evaluation.accuracy(MODEL, X, Y), r"takes \(model, dataset"),
    ("accuracy(model, x)", lambda: evaluation.accuracy(MODEL, X), "dataset must be a data.Dataset"),
    ("robust_accuracy(model, dataset, attack)", lambda: evaluation.robust_accuracy(MODEL, TEST, FGSM(0.1)),
     "got FGSM: the attack comes before it"),
    ("robust_accuracy(model, FGSM, dataset)", lambda: evaluation.robust_accuracy(MODEL, FGSM, TEST),
     r"such as attacks.FGSM\(eps=0.3\), got <class"),
    ("sanity_checks(model, dataset)", lambda: evaluation.sanity_checks(MODEL, TEST), r"takes \(model, dataset, eps"),
    ("PGD(loss=ops.cross_entropy)", lambda: PGD(0.1, loss=ops.cross_entropy), "a loss of your own, write an attack"),
    ("an attack that is no dataclass", lambda: Plain(0.1), r"write @dataclass\(frozen=True\) above Plain, and eps in"),
    ("fit(module of PyTorch)", lambda: training.fit(OfPyTorch(), TEST, epochs=1, optimizer=SGD()),
     r"of the class torch\.nn\.modules\.container\.OfPyTorch; the model is one of torch.*docs/foreign-models.md"),
    ("optimality([result])", lambda: evaluation.optimality([FGSM(0.1).run(MODEL, X, Y)]), "results must be a dict"),
    ("plots.epsilon_curve(curve)", lambda: plots.epsilon_curve({0.1: 0.5}), r"give \{\"FGSM\": curve\}"),
    ("plots.show()", lambda: plots.show(), "write figure.savefig"),
    ("plots.lines(log='z')", lambda: plots.lines({"a": ([1], [2])}, xlabel="", ylabel="", log="z"), "log must be"),
    ("epsilon_curve(..., 0.1)", lambda: evaluation.epsilon_curve(MODEL, FGSM(0.1), TEST, 0.1), "must be a list of"),
    ("result.adv", lambda: FGSM(0.1).run(MODEL, X, Y).adv, "write result.x_adv"),
]


@pytest.mark.parametrize(("code", "happens"), [pytest.param(*rest, id=name) for name, *rest in MISTAKES])
def test_what_a_newcomer_writes_works_or_says_what_to_write(code, happens):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if happens is None:
            code()
        else:
            with pytest.raises((AttributeError, LookupError, OSError, TypeError, ValueError, Warning), match=happens):
                code()


def test_every_remedy_is_there():
    """What the tables say to write exists: an argument that something takes, or a name."""
    takes = {"dataset", "input_shape", "path", "model", "x", "y", "target", "workers", "progress", "lr"}  # of functions
    for kind in vars(attacks).values():
        takes |= set(getattr(kind, "__dataclass_fields__", ()))
    takes |= set(inspect.signature(training.fit).parameters) | set(inspect.signature(ops.sum).parameters)
    assert {name for name in spellings.ARGUMENTS.values() if " " not in name} <= takes
    rooms = "attacks|backend|data|evaluation|models|nn|ops|tinyadv|training"
    for remedy in spellings.ATTRIBUTES.values():
        for name in re.findall(rf"\b(?:{rooms})(?:\.\w+)+", remedy):
            pkgutil.resolve_name(name if name.startswith("tinyadv.") else f"tinyadv.{name}")


def test_no_word_of_the_tables_is_one_of_ours():
    """A name that came to exist would never be looked up."""
    known = {"Attack": attacks.Attack, "AttackResult": attacks.AttackResult, "Dataset": data.Dataset,
             "Module": nn.Module, "Tensor": Tensor, "attacks": attacks, "data": data, "defenses": defenses,
             "evaluation": evaluation, "models": models, "nn": nn, "nn.optim": nn.optim, "plots": plots,
             "tinyadv": tinyadv, "training": training}
    for key in spellings.ATTRIBUTES:
        owner, name = key.rsplit(".", 1)
        assert name not in dir(known[owner]), f"{key} has come to be: take it out of spellings.py"


@pytest.mark.parametrize("call", [lambda attack: attack(MODEL, X, Y), lambda attack: attack.run(MODEL, X, Y)])
def test_a_warning_shows_the_line_of_the_user(call):
    with pytest.warns(UserWarning, match="give eps=8/255") as caught:
        call(FGSM(8))
    assert caught[0].filename == __file__
