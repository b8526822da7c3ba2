from fuzz_files import KINDS, fuzz


def test_no_damaged_or_crafted_file_is_loaded_otherwise_than_it_says_or_half():
    """A sample of what `python tests/fuzz_files.py` runs by the thousand."""
    outcomes, failures, *_ = fuzz(300, seed=1)
    assert failures == []
    for kind in KINDS:
        assert sum(times for (name, _, outcome), times in outcomes.items()
                   if name == kind.__name__ and outcome == "refused") > 10
