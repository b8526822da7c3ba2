import numpy as np
import pytest
from gradcheck import check_vjp
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from tinyadv import Tensor, models, nn


def tokens(seed, shape=(2, 5, 6)):
    return np.random.default_rng(seed).normal(size=shape)


@given(seeds, st.sampled_from([0.5, 1.0, 20.0]), st.floats(-3, 3))
def test_layer_norm_forgets_the_scale_and_the_shift_of_a_token(seed, scale, shift):
    layer, x = nn.LayerNorm(6, eps=1e-12), tokens(seed)
    y = layer(Tensor(x)).data
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-9)
    np.testing.assert_allclose(y.var(axis=-1), 1, rtol=1e-9)
    np.testing.assert_allclose(layer(Tensor(x * scale + shift)).data, y, rtol=1e-6, atol=1e-6)
    layer.weight.data[:], layer.bias.data[:] = 2, 3
    np.testing.assert_allclose(layer(Tensor(x)).data, 2 * y + 3, rtol=1e-12)


@given(seeds, st.permutations(range(5)), st.sampled_from([1, 2, 3, 6]))
def test_attention_does_not_know_the_order_of_the_tokens(seed, order, num_heads):
    layer, x = nn.Attention(6, num_heads, rng=1), tokens(seed)
    np.testing.assert_allclose(layer(Tensor(x[:, order])).data, layer(Tensor(x)).data[:, order], rtol=1e-5, atol=1e-6)
    check_vjp(layer, [x])


def test_attention_of_equal_tokens_is_their_value():
    layer, x = nn.Attention(6, 2, rng=1), np.repeat(tokens(0, (2, 1, 6)), 5, axis=1)
    value = nn.Linear(6, 6)
    value.weight.data, value.bias.data = layer.qkv.weight.data[12:], layer.qkv.bias.data[12:]
    np.testing.assert_allclose(layer(Tensor(x)).data, layer.proj(value(Tensor(x))).data, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_heads", [0, -1, 4])
def test_the_heads_must_share_the_numbers_of_a_token(num_heads):
    with pytest.raises(ValueError, match=f"num_heads must divide dim, 6; got {num_heads}"):
        nn.Attention(6, num_heads)


def test_the_patches_must_share_the_image():
    with pytest.raises(ValueError, match="patch_size must divide the image's 32 and 30 pixels; got 4"):
        models.VisionTransformer((3, 32, 30))


def test_images_of_another_size_and_patches_of_no_pixels_are_refused():
    with pytest.raises(ValueError, match="patch_size must divide the image's 32 and 32 pixels; got 0"):
        models.VisionTransformer(patch_size=0)
    for shape in ((3, 34, 34), (3, 16, 64), (3, 16, 16)):
        with pytest.raises(ValueError, match=r"images must have the shape \(3, 32, 32\), got "):
            models.VisionTransformer(dim=8, depth=1)(np.zeros((1, *shape), np.float32))


def test_the_tokens_stay_in_one_memory_order():
    """Otherwise every sum of two of them would walk through memory in two orders, at half of the speed."""
    model, strides = models.VisionTransformer((1, 8, 8), 4, 6, 2, 2, 8), []
    for block in model.blocks:
        for norm in (block.norm1, block.norm2):
            norm.forward = lambda x, forward=norm.forward: strides.append(x.data.strides) or forward(x)
    model(np.zeros((3, 1, 8, 8), np.float32))
    assert strides == [(5 * 4, 4, 15 * 4)] * 4


def test_a_layer_norm_takes_its_size_as_pytorch_writes_it():
    layer, x = nn.LayerNorm((4,)), np.arange(8, dtype=np.float32).reshape(2, 4)
    assert layer.weight.shape == (4,)
    np.testing.assert_array_equal(layer(x).data, nn.LayerNorm(4)(x).data)
