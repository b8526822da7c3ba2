"""One stream per example: what an example draws depends on the seed and on the example alone."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds, shapes

from tinyadv.random import Streams, check_seed, drawing_from, in_hand

examples = st.lists(st.integers(0, 10**6), min_size=1, max_size=8, unique=True)
draws = pytest.mark.parametrize("draw", [Streams.uniform, Streams.normal], ids=["uniform", "normal"])


@draws
@given(seed=seeds, indices=examples, shape=shapes(), data=st.data())
def test_batching_and_order_do_not_matter(draw, seed, indices, shape, data):
    """Together, one by one, and in any order: the same numbers."""
    together = draw(Streams(seed, indices), shape)
    assert together.shape == (len(indices), *shape)
    assert together.dtype == np.float64
    for row, i in zip(together, indices, strict=True):
        assert np.array_equal(draw(Streams(seed, [i]), shape)[0], row)
    order = data.draw(st.permutations(range(len(indices))))
    shuffled = draw(Streams(seed, [indices[k] for k in order]), shape)
    assert np.array_equal(shuffled, together[order])


@draws
@given(seed=seeds, indices=examples, data=st.data())
def test_an_example_that_is_there_twice_draws_once(draw, seed, indices, data):
    rows = np.array(data.draw(st.lists(st.integers(0, len(indices) - 1), min_size=1, max_size=9)))
    once, several = Streams(seed, indices), Streams(seed, indices)[rows]
    for _ in range(2):
        assert np.array_equal(draw(several, (2,)), draw(once, (2,))[rows])


@draws
@given(seed=seeds, indices=examples, data=st.data())
def test_a_part_shares_its_streams_with_the_whole(draw, seed, indices, data):
    """What the part draws, the whole goes on from, wherever the part comes from."""
    whole, split = Streams(seed, indices), Streams(seed, indices)
    first, second = draw(whole, (2,)), draw(whole, (2,))
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(indices), max_size=len(indices))), bool)
    assert np.array_equal(draw(split[chosen], (2,)), first[chosen])
    rest = draw(split, (2,))
    assert np.array_equal(rest[chosen], second[chosen])
    assert np.array_equal(rest[~chosen], first[~chosen])


@given(seeds, examples)
def test_parts_by_slice_mask_and_index_are_the_same(seed, indices):
    streams = Streams(seed, indices)
    mask = np.arange(len(indices)) < 2
    for index in (slice(0, 2), mask, np.flatnonzero(mask)):
        part = streams[index]
        assert len(part) == mask.sum()
        assert part.examples.tolist() == indices[:2]


def test_threads_may_share_streams():
    alone, shared = Streams(7, range(64)), Streams(7, range(64))
    found = {}
    workers = [
        threading.Thread(target=lambda part=part: found.update({part.start: shared[part].normal((50,))}))
        for part in (slice(k, k + 8) for k in range(0, 64, 8))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert np.array_equal(np.concatenate([found[k] for k in sorted(found)]), alone.normal((50,)))


@draws
def test_seeds_examples_and_draws_differ(draw):
    first = {seed: Streams(seed, range(5)) for seed in (0, 1, 2**32, 2**64 - 1)}
    values = np.concatenate([draw(streams, (3,)).ravel() for streams in first.values() for _ in range(2)])
    assert len(np.unique(values)) == values.size


def test_uniform_and_normal_are_what_they_say():
    streams = Streams(0, range(100))
    u = streams.uniform((1000,), -1, 3)
    assert ((u >= -1) & (u < 3)).all()
    assert abs(u.mean() - 1) < 0.02
    assert abs(u.var() - 16 / 12) < 0.02
    z = streams.normal((1000,))
    assert abs(z.mean()) < 0.02
    assert abs(z.var() - 1) < 0.02
    assert abs(np.corrcoef(u[0], u[1])[0, 1]) < 0.1  # neighbours are no echoes
    assert streams.uniform(()).shape == (100,)


@draws
def test_spawned_streams_are_others_and_depend_on_seed_and_number_alone(draw):
    used = Streams(7, [3, 4, 5])
    draw(used, (2,))
    values = np.array([draw(used.spawn(number), (3,)) for number in (2, 3, 2**40)] + [draw(used, (3,))])
    assert len(np.unique(values)) == values.size
    assert np.array_equal(draw(Streams(7, [5, 3]).spawn(2), (3,)), values[0][[2, 0]])
    assert not np.array_equal(draw(Streams(8, [3, 4, 5]).spawn(2), (3,)), values[0])
    assert not np.array_equal(draw(used.spawn(2).spawn(2), (3,)), draw(used.spawn(2), (3,)))


def test_no_examples_draw_nothing():
    assert Streams(0, []).uniform((2, 3)).shape == (0, 2, 3)


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002  that is the question
    Streams(0, range(3)).normal((4,))
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, None, "1", True, np.float64(1)])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(ValueError, match=r"seed must be an integer in \[0, 2\*\*64\), got"):
        Streams(seed, [0])


@pytest.mark.parametrize("seed", [0, 42, 2**64 - 1, np.int64(5), np.uint64(2**63)])
def test_a_seed_may_be_any_unsigned_integer_of_64_bits(seed):
    assert check_seed(seed) == seed
    assert type(check_seed(seed)) is int
    assert Streams(seed, [0]).uniform(()).shape == (1,)


def test_its_repr():
    assert repr(Streams(3, range(10))) == "Streams(seed=3, 10 examples)"


@draws
@given(seed=seeds, indices=examples, data=st.data())
def test_a_pass_has_streams_of_its_own(draw, seed, indices, data):
    """They depend on the seed, the example and the number of the pass, which may differ between examples."""
    numbers = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(indices), max_size=len(indices))))
    streams = Streams(seed, indices)
    drawn = draw(streams.of_pass(numbers), (3,))
    for row, i, number in zip(drawn, indices, numbers, strict=True):
        assert np.array_equal(draw(Streams(seed, [i]).of_pass(number), (3,))[0], row)
    together = [draw(streams.of_pass(number), (3,)) for number in range(4)] + [draw(streams, (3,))]
    assert len(np.unique(together)) == np.size(together)
    assert np.array_equal(draw(streams.of_pass(numbers)[1:], (3,)), drawn[1:])


def test_streams_are_in_hand_within_a_block_alone():
    streams = Streams(0, range(2))
    assert in_hand() is None
    with drawing_from(streams):
        assert in_hand() is streams
    assert in_hand() is None


@pytest.mark.parametrize("examples", [[0.5, 0.7], [-1], [[1, 2]], ["a"], np.array([2**64 - 1], np.uint64)])
def test_examples_are_numbered_from_0(examples):
    with pytest.raises(ValueError, match=r"examples must be the indices .*, integers in \[0, 2\*\*63\), got array"):
        Streams(0, examples)


def test_there_may_be_no_examples():
    assert Streams(0, []).uniform((2,)).shape == (0, 2)
