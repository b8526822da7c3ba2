from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import in_float64
from training_cases import fit, linear, stripes, weights, with_modes

from tinyadv import Tensor, nn, ops, training
from tinyadv.nn.optim import SGD
from tinyadv.parallel import part_index


@contextmanager
def parts(most):
    """A batch of the small images here is computed in up to so many parts, as one of large images would be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.update, "PARTS", most)
        patch.setattr(training.update.driver, "SHARD", 12)
        yield


@settings(max_examples=15)
@given(n=st.integers(1, 90), lr=st.floats(0.01, 2), seed=st.integers(0, 1000))
def test_a_step_subtracts_lr_times_the_gradient_of_the_mean_cross_entropy(n, lr, seed):
    train, model = stripes(n, seed), linear(seed)
    x, onehot = train.images.reshape(n, 12).astype(np.float64), np.eye(3)[train.labels]
    weight, bias = (parameter.data.astype(np.float64) for parameter in model.parameters())
    scores = np.exp(x @ weight.T + bias)
    p = scores / scores.sum(axis=1, keepdims=True)  # (n, 3)
    errors = (p - onehot) / n
    with training.updates(model, SGD(model, lr=lr)) as update:
        done = update(train.images, train.labels)
    expected = {"1.weight": weight - lr * errors.T @ x, "1.bias": bias - lr * errors.sum(axis=0)}
    for name, parameter in model.state_dict().items():
        np.testing.assert_allclose(parameter, expected[name], rtol=1e-5, atol=1e-6)
    assert done.loss == pytest.approx(-(onehot * np.log(p)).sum() / n)
    assert done.hits == (p.argmax(axis=1) == train.labels).sum()


@pytest.mark.parametrize(("n", "most", "lengths"), [
    (100, 1, [100]), (100, 2, [50, 50]), (100, 4, [25, 25, 25, 25]), (50, 4, [17, 17, 16]), (31, 4, [31]), (1, 4, [1]),
])
def test_a_batch_is_computed_in_a_few_parts_of_some_images(n, most, lengths):
    seen, model = {}, linear()
    model.layers[0].forward = lambda x: seen.update({part_index(): len(x)}) or x.flatten()
    with parts(most), training.updates(model, SGD(model, lr=0.1)) as update:
        update(stripes(n).images, stripes(n).labels)
    assert seen == dict(enumerate(lengths))


def test_a_batch_stays_whole_for_a_module_that_needs_it_so():
    seen, model = [], nn.Sequential(nn.Dropout(0.1), linear())
    model.layers[0].needs_whole_batch = True
    model.layers[1].layers[0].forward = lambda x: seen.append(len(x)) or x.flatten()
    with parts(4), training.updates(model, SGD(model, lr=0.1)) as update:
        update(stripes(100).images, stripes(100).labels)
    assert seen == [100]


@settings(max_examples=10)
@given(n=st.integers(64, 130), seed=st.integers(0, 1000))
def test_a_step_in_parts_is_that_of_the_whole_batch(n, seed):
    """Layers that couple the examples of a batch see all of it: loss, hits, weights and running statistics agree."""
    train, whole = stripes(n, seed), in_float64(with_modes(seed, p=0)).train()
    images, optimizer = train.images.astype(np.float64), SGD(whole, lr=0.1)
    logits = whole(Tensor(images))
    loss = ops.cross_entropy(logits, train.labels)
    loss.backward()
    optimizer.step()
    for most in (1, 2, 4):
        model = in_float64(with_modes(seed, p=0)).train()
        with parts(most), training.updates(model, SGD(model, lr=0.1)) as update:
            found = update(images, train.labels)
        assert found.loss == pytest.approx(loss.item(), rel=1e-12)
        assert found.hits == (logits.data.argmax(axis=1) == train.labels).sum()
        for name, expected in whole.state_dict().items():
            np.testing.assert_allclose(model.state_dict()[name], expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_in_parts_the_same_seed_gives_the_same_bytes_and_dropout_counts_batches():
    def trained():
        model = with_modes()
        with parts(4):
            history = fit(model, stripes(200), batch_size=100)
        return weights(model), [epoch.loss for epoch in history], model.layers[4].calls

    assert trained() == trained()
    assert trained()[2] == 4
