"""Inputs for the operations, built valid and away from kinks rather than filtered.

Numbers are multiples of 1/64: round ones, zeros and repetitions come up often, nothing is so small that a
difference quotient drowns in rounding, and what fails shrinks to something readable.
"""

import math

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

seeds = st.integers(0, 2**32 - 1)


def shapes(min_dims=0, max_dims=3, min_side=1, max_side=4):
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def reals(shape=None, low=-3.0, high=3.0, step=1 / 64):
    """float64 arrays of multiples of `step` in [low, high]."""
    return _arrays(shape, st.integers(math.ceil(low / step), math.floor(high / step)).map(lambda k: k * step))


def positive(shape=None):
    return reals(shape, low=0.25)


def away_from_zero(shape=None):
    """float64 arrays with 1/8 <= |x| <= 3."""
    sizes = st.integers(8, 3 * 64).map(lambda k: k / 64)
    return _arrays(shape, st.builds(lambda size, sign: sign * size, sizes, st.sampled_from([1, -1])))


def quarters(shape=None):
    """float64 arrays of multiples of 1/4: where `between_quarters` has its kinks."""
    return reals(shape, step=0.25)


def between_quarters(shape=None):
    """float64 arrays at least 1/16 away from any multiple of 1/4."""
    parts = st.sampled_from([0.25, 0.5, 0.75])
    return _arrays(shape, st.builds(lambda k, part: (k + part) / 4, st.integers(-12, 11), parts))


@st.composite
def spaced(draw, shape=None):
    """float64 arrays, shuffled, with elements at least 1/8 apart: no maximum is near a tie."""
    shape = draw(shape if isinstance(shape, st.SearchStrategy) else shapes() if shape is None else st.just(shape))
    order = np.random.default_rng(draw(seeds)).permutation(math.prod(shape))
    return ((order - order.size // 2) / 8).reshape(shape)


@st.composite
def images(draw, shape):
    """float64 arrays with many elements, all drawn from one seed, for hypothesis is slow at that."""
    return np.random.default_rng(draw(seeds)).integers(-192, 193, shape) / 64


def _arrays(shape, elements):
    return hnp.arrays(np.float64, shapes() if shape is None else shape, elements=elements, fill=st.nothing())


@st.composite
def broadcastable(draw, *kinds):
    """One array of each kind (a strategy of this file), of shapes that broadcast against each other."""
    found = draw(hnp.mutually_broadcastable_shapes(num_shapes=len(kinds), max_dims=3, max_side=4))
    return tuple(draw(kind(shape)) for kind, shape in zip(kinds, found.input_shapes, strict=True))


# From here on: operands of operations, as (arrays, options).


def alone(kind):
    """One array and no options."""
    return st.tuples(st.tuples(kind), st.just({}))


def together(*kinds, **options):
    """Arrays of these kinds that broadcast, and options, each drawn from a strategy of its own."""
    return st.tuples(broadcastable(*kinds), st.fixed_dictionaries(options))


@st.composite
def along_axes(draw, kind):
    """((x,), {axis, keepdims}): axis is None, an axis or a tuple of axes, negative ones included."""
    x = draw(kind())
    axis = st.none()
    if x.ndim:
        one = st.integers(-x.ndim, x.ndim - 1)
        axis |= one | st.lists(one, min_size=1, max_size=x.ndim, unique_by=lambda a: a % x.ndim).map(tuple)
    return (x,), {"axis": draw(axis), "keepdims": draw(st.booleans())}


@st.composite
def along_axis(draw, kind):
    """((x,), {axis}) with one axis."""
    x = draw(kind(shapes(min_dims=1)))
    return (x,), {"axis": draw(st.integers(-x.ndim, x.ndim - 1))}


@st.composite
def reshapings(draw):
    x = draw(reals())
    n = draw(st.sampled_from([n for n in range(1, x.size + 1) if x.size % n == 0]))
    return (x,), {"shape": draw(st.sampled_from([(n, x.size // n), (n, -1), x.size, -1, (1, *x.shape)]))}


@st.composite
def transpositions(draw):
    x = draw(reals())
    order = [a - draw(st.sampled_from([0, x.ndim])) for a in draw(st.permutations(range(x.ndim)))]
    return (x,), {"axes": draw(st.sampled_from([None, *3 * [tuple(order)]]))}


@st.composite
def paddings(draw):
    x = draw(reals(shapes(min_dims=1)))
    width = tuple(draw(sizes(0, 2)) for _ in range(x.ndim))
    return (x,), {"width": width, "value": draw(st.sampled_from([0.0, -1.5]))}


@st.composite
def broadcasts(draw):
    shape, side = draw(shapes(max_dims=2)), draw(st.integers(1, 3))
    to = draw(shapes(max_dims=2, max_side=3)) + tuple(side if n == 1 else n for n in shape)
    return (draw(reals(shape)),), {"shape": to}


@st.composite
def indexings(draw):
    """Every kind of index that NumPy knows, repeated rows included."""
    x = draw(reals(shapes(min_dims=2)))
    row, column = (st.integers(-n, n - 1) for n in x.shape[:2])
    rows, columns = (st.lists(i, min_size=1, max_size=5).map(np.array) for i in (row, column))
    some = st.slices(x.shape[0])
    basic = row | some | st.just(...) | st.just((None, ..., 0)) | st.tuples(row, column) | st.tuples(some, column)
    mask = reals(x.shape).map(lambda values: values > 0)
    advanced = rows | rows.map(np.ndarray.tolist) | mask | st.tuples(some, columns) | st.tuples(rows, column)
    return (x,), {"index": draw(basic | advanced)}


@st.composite
def concatenations(draw):
    shape = draw(shapes(min_dims=1))
    axis = draw(st.integers(0, len(shape) - 1))
    lengths = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = tuple(draw(reals((*shape[:axis], n, *shape[axis + 1 :]))) for n in lengths)
    return parts, {"axis": axis - draw(st.sampled_from([0, len(shape)]))}


@st.composite
def matrix_products(draw):
    """((x, y), {}) whose product exists: vectors, matrices and stacks that broadcast."""
    n, k, m = (draw(st.integers(1, 4)) for _ in range(3))
    stacks = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    x_shape = draw(st.sampled_from([(k,), (n, k), (*stacks[0], n, k)]))
    y_shape = draw(st.sampled_from([(k,), (k, m), (*stacks[1], k, m)]))
    return (draw(reals(x_shape)), draw(reals(y_shape))), {}


@st.composite
def linear_layers(draw):
    """((x, weight, bias) or (x, weight), {})."""
    n, features, outputs = (draw(st.integers(1, 4)) for _ in range(3))
    batch = (n,) if draw(st.booleans()) else (n, draw(st.integers(1, 3)))
    arrays = draw(reals((*batch, features))), draw(reals((outputs, features))), draw(reals((outputs,)))
    return arrays[: draw(st.sampled_from([2, 3]))], {}


@st.composite
def labelled_logits(draw):
    """((logits,), {targets, reduction}) with class indices as targets."""
    n, classes = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    targets = draw(hnp.arrays(draw(st.sampled_from([np.int64, np.uint8])), n, elements=st.integers(0, classes - 1)))
    return (draw(reals((n, classes))),), {"targets": targets, "reduction": draw(reductions)}


@st.composite
def soft_labelled_logits(draw):
    """((logits, targets), {reduction}) with probabilities as targets, none of them 0."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5)))
    weights = draw(positive(shape))
    return (draw(reals(shape)), weights / weights.sum(axis=1, keepdims=True)), {"reduction": draw(reductions)}


@st.composite
def normalizations(draw, statistics=True):
    """((x, weight, bias), {mean, variance}) of batch_norm, or without the options."""
    c = draw(st.integers(1, 3))
    x = draw(images((draw(st.integers(2, 3)), c, draw(st.integers(1, 3)), draw(st.integers(2, 3)))))
    options = {"mean": draw(reals((c,))), "variance": draw(positive((c,)))} if statistics else {}
    return (x, draw(reals((c,))), draw(reals((c,)))), options


@st.composite
def layer_normalizations(draw):
    """((x, weight, bias), {}) of layer_norm; no row of x is flat, where it bends too fast for finite differences.

    Of two values it makes -1 and 1, whatever they are: its slope is almost 0, and differences of rounding alone.
    """
    d = draw(st.integers(3, 5))
    return (draw(images((*draw(shapes(max_dims=2)), d))) + 8 * np.arange(d), draw(reals((d,))), draw(reals((d,)))), {}


reductions = st.sampled_from(["mean", "sum", "none"])


def sizes(low, high):
    """A (height, width) pair."""
    return st.tuples(st.integers(low, high), st.integers(low, high))


def _or_number(draw, pair):
    """A pair of equal numbers may be given as one."""
    return pair[0] if pair[0] == pair[1] and draw(st.booleans()) else pair


@st.composite
def _fitting(draw, kernel, padding):
    """An image size in which the window fits, with any number of rows and columns left over."""
    return tuple(max(1, k - 2 * p) + draw(st.integers(0, 5)) for k, p in zip(kernel, padding, strict=True))


@st.composite
def conv_cases(draw):
    """((x, weight, bias), {stride, padding}) that conv2d accepts: any kernel, stride and padding, any rest."""
    kernel, stride, padding = draw(sizes(1, 3)), draw(sizes(1, 3)), draw(sizes(0, 3))
    channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    x = draw(images((draw(st.integers(1, 3)), channels, *draw(_fitting(kernel, padding)))))
    arrays = x, draw(images((filters, channels, *kernel))), draw(images((filters,)))
    return arrays, {"stride": _or_number(draw, stride), "padding": _or_number(draw, padding)}


@st.composite
def grouped_conv_cases(draw):
    """((x, weight, bias), {stride, padding, dilation, groups}): kernels with gaps, and channels in groups."""
    kernel, stride, padding, dilation = draw(sizes(1, 3)), draw(sizes(1, 2)), draw(sizes(0, 2)), draw(sizes(1, 3))
    groups, channels, filters = (draw(st.integers(1, 3)) for _ in range(3))
    size = draw(_fitting(tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)), padding))
    x = draw(images((draw(st.integers(1, 3)), groups * channels, *size)))
    weight, bias = draw(images((groups * filters, channels, *kernel))), draw(images((groups * filters,)))
    return (x, weight, bias), {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


@st.composite
def pool_cases(draw, values=images):
    """((x,), {size, stride, padding}) that the pooling operations accept."""
    size = draw(sizes(1, 3))
    padding = tuple(draw(st.integers(0, k // 2)) for k in size)
    x = draw(values((draw(st.integers(1, 3)), draw(st.integers(1, 3)), *draw(_fitting(size, padding)))))
    stride = draw(st.none() | sizes(1, 3))
    options = {"size": _or_number(draw, size), "padding": _or_number(draw, padding)}
    return (x,), options | ({} if stride is None else {"stride": _or_number(draw, stride)})
