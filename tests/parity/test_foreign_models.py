"""The adapters of docs/foreign-models.md: a foreign model is attacked as its twin in tinyadv is."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

from tinyadv import attacks, data, driver, nn, ops, training
from tinyadv.attacks import FGSM, PGD, DeepFool, Square

with contextlib.suppress(ImportError):
    import jax  # noqa: F401  it draws from NumPy's global generator as it is imported, which no test may do

pytestmark = pytest.mark.parity
PAGE = (Path(__file__).parents[2] / "docs" / "foreign-models.md").read_text("utf-8")
X, Y = (each[:12] for each in (lambda test: (test.images, test.labels))(data.digits(0, 100, seed=1)[1]))


def blocks(heading):
    """What the blocks below a heading of the page define, but not those that use names of the reader's."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL).group(1)
    namespace = {"__name__": "page"}
    for code in re.findall(r"^```py\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        if "class " in code or "def " in code:
            exec(code, namespace)
    return namespace


@pytest.fixture(scope="module")
def ours():
    """A network that gets most digits right, with all that lies between two convolutions."""
    train = data.digits(600, 1, seed=1)[0]
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, rng=0), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(4),
                          nn.Flatten(), nn.Linear(392, 10, rng=1))
    training.fit(model, train, epochs=2, optimizer=nn.optim.Adam(model, lr=5e-3), seed=0)
    return model.eval()


def assert_attacked_alike(foreign, ours, closest=0.98):
    """Logits and gradients agree up to rounding; so do the images, but where a gradient's sign hangs on rounding."""
    np.testing.assert_allclose(driver.logits(foreign, X), driver.logits(ours, X), rtol=1e-4, atol=1e-4)
    slopes = [driver.input_gradients(model, X, Y) for model in (foreign, ours)]
    np.testing.assert_allclose(*slopes, rtol=1e-3, atol=1e-4 * abs(slopes[1]).max())
    for attack in (FGSM(0.1), PGD(0.1, steps=4), PGD(1.0, norm="l2", steps=4), attacks.APGD(0.1, steps=5),
                   DeepFool(steps=3), Square(0.1, queries=20)):
        found, twin = (attack.run(model, X, Y, seed=2) for model in (foreign, ours))
        assert np.isclose(found.x_adv, twin.x_adv, atol=1e-3).mean() > closest, attack
        assert (found.success == twin.success).mean() > 0.9
        assert getattr(attack, "eps", np.inf) >= found.distances.max()


def torch_twin(ours, torch):
    layers = (torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.MaxPool2d(4),
              torch.nn.Flatten(), torch.nn.Linear(392, 10))
    module = torch.nn.Sequential(*layers)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    return module


def test_pytorch(ours):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    page, module = blocks("PyTorch"), torch_twin(ours, torch)
    with pytest.raises(ValueError, match="training mode"):
        page["FromTorch"](module)
    module[2].eval()
    module.eval()
    before = {name: array.clone() for name, array in module.state_dict().items()}
    foreign = page["FromTorch"](module)
    assert_attacked_alike(foreign, ours)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(array, before[name]) for name, array in module.state_dict().items())
    assert not any(part.training for part in module.modules())
    options = {"skip_misclassified": True, "seed": 1}
    found, twin = (attacks.AutoAttack(0.05).run(model, X[:6], Y[:6], **options) for model in (foreign, ours))
    assert (found.robust == twin.robust).all()
    assert not found.warnings


def test_a_pytorch_model_in_float64_gives_what_the_images_are(ours):
    torch = pytest.importorskip("torch")
    foreign = blocks("PyTorch")["FromTorch"](torch_twin(ours, torch).eval().double())
    assert driver.logits(foreign, X).dtype == np.float32
    assert driver.input_gradients(foreign, X, Y).dtype == np.float32


def test_jax(ours):
    jax = pytest.importorskip("jax", reason="JAX is not installed: pip install -e '.[parity]' brings it")
    weights = ours.state_dict()

    def network(x):
        x = jax.lax.conv_general_dilated(x, weights["0.weight"], (1, 1), "SAME") + weights["0.bias"][:, None, None]
        mean, variance = (weights[f"1.running_{name}"][:, None, None] for name in ("mean", "var"))
        scale, shift = (weights[f"1.{name}"][:, None, None] for name in ("weight", "bias"))
        x = (x - mean) / (variance + 1e-5) ** 0.5 * scale + shift
        x = jax.lax.reduce_window(jax.nn.relu(x), -np.inf, jax.lax.max, (1, 1, 4, 4), (1, 1, 4, 4), "VALID")
        return x.reshape(len(x), -1) @ weights["5.weight"].T + weights["5.bias"]

    assert_attacked_alike(blocks("JAX")["FromJax"](network), ours)


def test_keras(ours):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install tensorflow-cpu")
    weights = ours.state_dict()
    model = tf.keras.Sequential([
        tf.keras.layers.Input((28, 28, 1)), tf.keras.layers.Conv2D(8, 3, padding="same"),
        tf.keras.layers.BatchNormalization(epsilon=1e-5), tf.keras.layers.ReLU(), tf.keras.layers.MaxPool2D(4),
        tf.keras.layers.Permute((3, 1, 2)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)])
    model.layers[0].set_weights([weights["0.weight"].transpose(2, 3, 1, 0), weights["0.bias"]])
    model.layers[1].set_weights([weights[f"1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")])
    model.layers[-1].set_weights([weights["5.weight"].T, weights["5.bias"]])
    assert_attacked_alike(blocks("TensorFlow and Keras")["FromKeras"](model), ours)


def test_scikit_learn():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install -e '.[parity]' brings it")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    train, page = data.digits(200, 1, seed=1)[0], blocks("scikit-learn")
    rows, images = train.images.reshape(len(train), -1), X.reshape(len(X), -1)
    several = [MLPClassifier((20, 20), activation, learning_rate_init=0.01, max_iter=1000, random_state=0)
               for activation in ("relu", "tanh", "logistic")]
    for classifier in (LogisticRegression(max_iter=1000), *several):
        adapter = "FromMLP" if classifier in several else "FromLinear"
        foreign = page[adapter](classifier.fit(rows, train.labels))
        np.testing.assert_allclose(ops.softmax(driver.logits(foreign, X)).data, classifier.predict_proba(images),
                                   atol=1e-4)
        result = PGD(0.2, steps=10).run(foreign, X, Y)
        np.testing.assert_array_equal(result.predictions, classifier.predict(result.x_adv.reshape(len(X), -1)))
        assert result.success.mean() > 0.5
    two = LogisticRegression().fit(rows, train.labels > 4)
    scores = driver.logits(page["FromLinear"](two), X)
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], two.decision_function(images), rtol=1e-3, atol=1e-4)
    forest = page["FromProbabilities"](RandomForestClassifier(20, random_state=0).fit(rows, train.labels))
    assert Square(0.2, queries=100).run(forest, X, Y).success.mean() > 0.2


def test_onnx_runtime(ours):
    onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is missing: pip install -e '.[parity]'")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[parity]' brings it")
    node, weights = onnx.helper.make_node, ours.state_dict()
    nodes = [node("Conv", ["x", "0.weight", "0.bias"], ["a"], pads=[1, 1, 1, 1]),
             node("BatchNormalization", ["a", "1.weight", "1.bias", "1.running_mean", "1.running_var"], ["b"]),
             node("Relu", ["b"], ["c"]), node("MaxPool", ["c"], ["d"], kernel_shape=[4, 4], strides=[4, 4]),
             node("Flatten", ["d"], ["e"]), node("Gemm", ["e", "5.weight", "5.bias"], ["z"], transB=1)]
    float32 = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes, "net", [onnx.helper.make_tensor_value_info("x", float32, ["n", 1, 28, 28])],
        [onnx.helper.make_tensor_value_info("z", float32, ["n", 10])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items() if array.ndim])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    foreign = blocks("ONNX Runtime")["FromOnnx"](onnxruntime.InferenceSession(model.SerializeToString()))
    np.testing.assert_allclose(driver.logits(foreign, X), driver.logits(ours, X), rtol=1e-4, atol=1e-4)
    found, twin = (Square(0.1, queries=50).run(model, X, Y) for model in (foreign, ours))
    assert (found.success == twin.success).mean() > 0.9
    with pytest.raises(TypeError, match="array, which has no gradient"):
        FGSM(0.1)(foreign, X, Y)


def test_the_check_of_an_adapter_finds_what_is_wrong(ours):
    check = blocks("Is the adapter right?")["check_adapter"]

    def said(model):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            check(model, X, Y)
        return printed.getvalue()

    right = said(ours)
    assert "equal calls agree: True" in right
    assert float(right.split()[-1]) == pytest.approx(1, abs=0.05)
    assert "equal calls agree: False" in said(Shaken(ours))
    assert float(said(lambda x: 0.5 * ours(x) + 0.5 * ours(x.data).data).split()[-1]) == pytest.approx(2, abs=0.1)


class Shaken:
    """A model with noise of nobody's seed."""

    def __init__(self, model):
        self.model, self.rng = model, np.random.default_rng(0)

    def __call__(self, x):
        return self.model(x) + self.rng.normal(size=10).astype(np.float32)
