"""A few of the mutated inputs of fuzz.py, which tries many."""

import fuzz


def test_mutated_files_are_read_or_refused(tmp_path):
    counts, wrong = fuzz.fuzz(tmp_path, times=600)
    assert wrong == []
    for read, refused in counts.values():
        assert read + refused == 50
        assert refused > 5
