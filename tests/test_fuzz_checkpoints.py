from fuzz_checkpoints import fuzz


def test_no_damaged_or_crafted_checkpoint_is_loaded_otherwise_than_it_says_or_run():
    """A sample of what `python tests/fuzz_checkpoints.py` runs by the thousand."""
    outcomes, failures = fuzz(240, seed=1)
    assert failures == []
    for kind in ("zip", "legacy", "safetensors"):
        assert sum(times for (name, _, outcome), times in outcomes.items() if (name, outcome) == (kind, "refused")) > 10
        assert sum(times for (name, _, outcome), times in outcomes.items() if (name, outcome) == (kind, "loaded")) > 3
