import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinyadv import certify, data, evaluation, models, nn
from tinyadv.models import zoo
from tinyadv.nn import StateError

FACTS = {"summary": "For the tests.", "training": "python train.py", "settings": {"seed": 1}, "seconds": 12.3,
         "machine": "none", "data": "digits", "version": "0", "results": [
             {"attack": "none", "images": 100, "accuracy": 0.5, "seed": 0}],
         "autoattack": {"images": 50, "seed": 3, "accuracy": 0.25, "pgd": 0.275, "beyond": "AutoAttack(eps=0.4)",
                        "accuracy_beyond": 0.0125, "warnings": ["the gradients are likely masked"]},
         "checks": [{"name": "gradients", "passed": True, "figure": 0.0, "explanation": "none"},
                    {"name": "random starts agree", "passed": False, "figure": 0.3, "explanation": "they do not"}],
         "certificates": [{"method": "ibp", "norm": "linf", "radius": 0.1, "images": 70, "accuracy": 0.2, "seed": 5}]}
every_network = pytest.mark.parametrize("name", zoo.names())


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A zoo of its own, with one network in it."""
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    model = models.LeNet(seed=1)
    return model, zoo.publish(model, "lenet", tmp_path, **FACTS)


def test_what_is_published_loads_rounded_and_in_evaluation_mode(published):
    model, card = published
    loaded = zoo.load("lenet")
    assert isinstance(loaded, models.LeNet)
    assert not any(module.training for _, module in loaded.named_modules())
    for name, array in loaded.state_dict().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, zoo.rounded(model.state_dict()[name]))
    assert zoo.card("lenet") == card
    assert zoo.names() == ["lenet"]


@pytest.mark.parametrize("model", [
    models.LeNet(seed=1, extra=2), models.resnet18(10, small_images=True, width=4, seed=1),
    models.VisionTransformer((1, 28, 28), patch_size=7, dim=8, depth=1, num_heads=2, mlp_dim=8, seed=1),
], ids=lambda model: type(model).__name__)
def test_a_network_is_built_with_the_arguments_that_it_was_trained_with(model, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    zoo.publish(model, "other", tmp_path, **FACTS)
    assert {name: array.shape for name, array in zoo.load("other").state_dict().items()} == {
        name: array.shape for name, array in model.state_dict().items()}


@given(arrays(np.float32, 5, elements=st.floats(-60000, 60000, width=32)))
def test_rounding_keeps_nine_bits_and_leaves_what_has_no_more(weights):
    rounded = zoo.rounded(weights)
    np.testing.assert_allclose(rounded, weights, rtol=2.0**-9 + 2.0**-11, atol=2.0**-22)
    np.testing.assert_array_equal(zoo.rounded(rounded), rounded)
    assert not (rounded.view(np.uint16) & 3).any()


def test_a_card_prints_what_a_reader_has_to_know(published):
    text = str(published[1])
    for part in ("lenet: For the tests.", "LeNet, 61,706 parameters", "python train.py", "12 s on none", "50.00%",
                 "of 100 images, seed 0", published[1].sha256, "1 of 2 passed, failed: random starts agree",
                 "AutoAttack leaves 25.00% of the first 50 images, with seed 3.",
                 "PGD with 100 steps leaves 27.50% of them, and so overstates it by 2.50 points.",
                 "Just beyond the budget, AutoAttack(eps=0.4) leaves 1.25% of them.",
                 "AutoAttack warns: the gradients are likely masked.",
                 "ibp certifies 20.00% of the first 70 images within linf 0.1, with seed 5.",
                 "Certified images count as right under attack: the attacks ran on the others."):
        assert part in text
    quiet = replace(published[1], autoattack=published[1].autoattack | {"warnings": []})
    assert "AutoAttack gives no warning." in str(quiet)
    assert "warns" not in str(quiet)
    votes = str(replace(published[1], autoattack={}, checks=[]))
    assert "ibp certifies 20.00%" in votes
    assert "under attack" not in votes
    assert "AutoAttack" not in votes
    assert "sanity" not in votes


def test_a_damaged_file_and_an_unknown_name_are_refused(published, tmp_path):
    path = tmp_path / "lenet.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StateError, match=re.escape(f"its SHA-256 is {hashlib.sha256(path.read_bytes()).hexdigest()}")):
        zoo.load("lenet")
    with pytest.raises(ValueError, match="name must be one of lenet; got 'alexnet'"):
        zoo.load("alexnet")


def test_weights_that_would_not_load_again_get_no_card(published, tmp_path):
    model = models.LeNet(seed=1)
    for parameter in model.parameters():
        parameter.data[...] = 0
    with pytest.raises(StateError, match="more than 4 times its own"):
        zoo.publish(model, "zeros", tmp_path, **FACTS)
    assert zoo.cards() == ["lenet"]


def test_a_card_without_weights_says_how_to_train_them(published, tmp_path):
    (tmp_path / "lenet.npz").unlink()
    assert (zoo.names(), zoo.cards()) == ([], ["lenet"])
    assert zoo.card("lenet") == published[1]
    with pytest.raises(ValueError, match=re.escape(f"train it with `{published[1].training}`")):
        zoo.load("lenet")


@pytest.mark.parametrize(("change", "message"), [
    (lambda card: card.pop("sha256"), "sha256 is missing"), (lambda card: card.update(extra=1), "extra"),
    (lambda card: card.update(model=3), "model must be str, and is 3"),
    (lambda card: card.update(model="Module"), "its model, Module, is not in tinyadv.models"),
    (lambda card: card.update(parameters=True), "parameters must be int, and is True"),
    (lambda card: card.update(results={}), "results must be a list, and is {}"),
    (lambda card: card.update(results=[1]), r"results\.0 must be a table, and is 1"),
    (lambda card: card["results"][0].update(images="all"), r"results\.0\.images must be int, and is 'all'"),
    (lambda card: card["checks"][1].pop("passed"), r"checks\.1\.passed is missing"),
    (lambda card: card.pop("autoattack"), "autoattack is missing"),
    (lambda card: card["autoattack"].pop("pgd"), r"autoattack\.pgd is missing"),
    (lambda card: card["autoattack"].update(warnings=[1]), r"autoattack\.warnings\.0 must be str, and is 1"),
    (lambda card: card.update(autoattack=[]), r"autoattack must be a table, and is \[\]"),
    (lambda card: card["certificates"][0].pop("radius"), r"certificates\.0\.radius is missing"),
])
def test_a_damaged_card_is_told_by_its_file_and_key(published, tmp_path, change, message):
    path = tmp_path / "lenet.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    change(card)
    path.write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(nn.StateError, match=rf"lenet\.json cannot be used: .*{message}"):
        zoo.load("lenet")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"name": "a", "name": "b"}',
                                  b" " * 2_000_000, b"a." * 9999 + b"b = 1"],
                         ids=lambda text: str(text[:9]))
@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_a_text_that_is_no_table_is_one_error(published, tmp_path, text, suffix):
    (tmp_path / f"lenet.{suffix}").write_bytes(text)
    with pytest.raises(nn.StateError, match=rf"lenet\.{suffix} cannot be used: "):
        zoo.card("lenet") if suffix == "json" else zoo.settings(tmp_path / "lenet.toml")


@pytest.mark.parametrize(("old", "new", "message"), [
    ("[model]", "[models]", "model is missing"), ("held_out = 1000", "held_out = 1e3", "held_out must be int"),
    ("epochs = 20", "epochs = 20\nepochz = 3", "epochz is unknown"),
    ('norm = "linf"', "norm = 1", r"evaluation\.norm must be str"), ("[ramp]", "[rump]", "rump is unknown"),
    ("[ramp]", "[model]", "declare"), ('class = "Adam"', "klass = 1", r"optimizer\.class is missing"),
    ("epochs = 20", "epochs = 0", r"in \[training\], epochs must be an integer >= 1, got 0"),
    ("batch_size = 64", "batch_size = -5", "batch_size must be an integer >= 1"),
    ("epochs = 20", "epochs = 20\nclip_norm = -1", "clip_norm must be a number above 0"),
    ("average = 0.999", "average = 2.0", r"average must be a number in \(0, 1\)"),
    ("[method]", '[augment]\nclass = "flip"\n\n[method]', r"augment must be tables, each headed \[\[augment\]\]"),
    ("held_out = 1000", "held_out = 1000\naugment = 3", "augment must be tables"),
    ("epochs = 20", "", r"training\.epochs is missing"), ("seed = 42", "seed = true", r"model\.seed must be int"),
])
def test_settings_that_cannot_be_are_told_by_their_file_and_key(tmp_path, old, new, message):
    text = (Path(__file__).parents[2] / "examples/configs/mnist-madry-linf.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "a.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(nn.StateError, match=rf"a\.toml cannot be used: .*{message}"):
        zoo.settings(tmp_path / "a.toml")


def test_every_network_has_its_settings_and_every_default_of_an_example_is_there():
    examples = Path(__file__).parents[2] / "examples"
    settings = {path.stem for path in (examples / "configs").glob("*.toml")}
    assert settings >= set(zoo.cards())
    sources = [path.read_text(encoding="utf-8") for path in examples.glob("*.py")]
    named = {name for source in sources for name in re.findall(r"\"(mnist-\w+-\w+)\"", source)}
    assert named <= settings
    assert len(named) > 4
    for name in zoo.cards():
        assert zoo.settings(examples / "configs" / f"{name}.toml") == zoo.card(name).settings | {
            key: value for key, value in zoo.settings(examples / "configs" / f"{name}.toml").items()
            if key in ("summary", "evaluation")}


def test_the_package_stays_small():
    files = list(zoo.FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files) < 40e6
    assert {path.stem for path in files if path.suffix == ".npz"} <= set(zoo.cards())


@every_network
def test_every_network_loads_and_knows_digits(name):
    card, model = zoo.card(name), zoo.load(name)
    assert type(model).__name__ == card.model
    assert all(np.isfinite(array).all() for array in model.state_dict().values())
    digits, _ = data.digits(100, 1)  # other ones than it was trained on
    if settings := card.settings.get("certificate"):
        votes = getattr(certify, settings["class"])(**{key: settings[key] for key in settings if key != "class"} | {
            "samples": 50})
        assert votes.predict(model, digits).accuracy > 0.1
    elif name.startswith("mnist"):
        assert evaluation.accuracy(model, digits) > 0.1


@pytest.mark.parametrize("name", zoo.cards())
def test_every_card_is_complete(name):
    card = zoo.card(name)
    assert card.summary.endswith(".")
    assert next(row["attack"] for row in card.results) == "none"
    assert all(0 <= row["accuracy"] <= 1 and row["images"] > 0 for row in card.results + card.certificates)
    assert all(sentence in str(card) for sentence in card.limits)
    assert card.settings.get("data", "mnist") == name.split("-")[0]
    if "certificate" in card.settings:
        assert not card.autoattack
        assert card.certificates
        return
    found, (row,) = card.autoattack, [row for row in card.results if row["attack"].startswith("AutoAttack")]
    assert 200 <= found["images"] <= row["images"]
    assert 0 <= found["accuracy_beyond"] <= found["accuracy"] <= found["pgd"] <= 1
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.04)  # of fewer images
    eps, beyond = (float(re.search(r"eps=([\d.]+)", attack)[1]) for attack in (row["attack"], found["beyond"]))
    assert beyond == pytest.approx(4 / 3 * eps, rel=0.01)
    assert all(certified["accuracy"] <= found["accuracy"] + 0.03 for certified in card.certificates  # of more images
               if certified["radius"] >= eps)
    assert all(isinstance(warning, str) for warning in found["warnings"])
    assert len(card.checks) > 6
    assert all(check["passed"] for check in card.checks), card
