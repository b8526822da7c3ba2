"""The strategies yield what their docstrings promise."""

import numpy as np
import pytest
import strategies as some
from hypothesis import find, given
from hypothesis import strategies as st

from tinyadv.shapes import pair, window_counts


@pytest.mark.parametrize(
    "kind", [some.reals, some.positive, some.away_from_zero, some.quarters, some.between_quarters, some.spaced]
)
@given(data=st.data())
def test_arrays_are_float64_of_the_shape_asked_for(kind, data):
    shape = data.draw(some.shapes())
    x = data.draw(kind(shape))
    assert isinstance(x, np.ndarray)
    assert (x.dtype, x.shape) == (np.float64, shape)
    assert data.draw(kind()).ndim <= 3


@given(some.reals(), some.positive(), some.quarters())
def test_numbers_lie_on_their_grid_and_in_their_range(x, y, z):
    assert (x * 64 % 1 == 0).all()
    assert (np.abs(x) <= 3).all()
    assert (y * 64 % 1 == 0).all()
    assert ((y >= 0.25) & (y <= 3)).all()
    assert (z * 4 % 1 == 0).all()


@given(some.away_from_zero(), some.between_quarters(), some.spaced())
def test_numbers_keep_away_from_kinks(x, y, z):
    assert ((np.abs(x) >= 0.125) & (np.abs(x) <= 3)).all()
    assert (np.abs(y * 4 - np.round(y * 4)) >= 0.25).all()
    assert (np.diff(np.sort(z, axis=None)) >= 0.125).all()


@given(some.images((2, 3, 4, 5)))
def test_images_vary(x):
    assert x.shape == (2, 3, 4, 5)
    assert len(np.unique(x)) > 10


@given(some.broadcastable(some.reals, some.positive, some.reals))
def test_broadcastable_arrays_broadcast(arrays):
    assert len(arrays) == 3
    assert np.broadcast(*arrays).ndim <= 3


@given(some.matrix_products())
def test_matrix_products_exist(operands):
    (x, y), _ = operands
    assert np.isfinite(x @ y).all()


@given(some.conv_cases())
def test_convolutions_fit(operands):
    (x, weight, bias), options = operands
    counts = window_counts(x.shape[2:], weight.shape[2:], both(options["stride"]), both(options["padding"]), "test")
    assert min(counts) >= 1
    assert x.shape[1] == weight.shape[1]
    assert bias.shape == weight.shape[:1]


@given(some.pool_cases())
def test_pooling_windows_fit_and_hold_a_pixel(operands):
    (x,), options = operands
    size, padding = both(options["size"]), both(options["padding"])
    assert min(window_counts(x.shape[2:], size, both(options.get("stride", size)), padding, "test")) >= 1
    assert all(2 * p <= k for p, k in zip(padding, size, strict=True))


@pytest.mark.parametrize("feature", ["rest", "padding over half", "stride over kernel", "rectangle", "number"])
def test_convolutions_of_every_kind_come_up(feature):
    """`find` fails where no example has the feature."""

    def has(operands):
        (x, weight, _), options = operands
        kernel, stride, padding = weight.shape[2:], both(options["stride"]), both(options["padding"])
        return {
            "rest": (x.shape[2] + 2 * padding[0] - kernel[0]) % stride[0] > 0,
            "padding over half": 2 * padding[0] > kernel[0],
            "stride over kernel": stride[0] > kernel[0],
            "rectangle": x.shape[2] != x.shape[3] and kernel[0] != kernel[1],
            "number": isinstance(options["stride"], int),
        }[feature]

    find(some.conv_cases(), has)


def both(value):
    return pair(value, "value", least=0)
