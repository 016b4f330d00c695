"""A few of the inputs of fuzz.py and fuzz_meanings.py, which try many."""

import fuzz
import fuzz_meanings


def test_mutated_files_are_read_or_refused(tmp_path):
    counts, wrong = fuzz.fuzz(tmp_path, times=600)
    assert wrong == []
    for read, refused in counts.values():
        assert read + refused == 50
        assert refused > 5


def test_files_are_read_as_they_mean_or_refused(tmp_path):
    counts, wrong, _ = fuzz_meanings.fuzz(tmp_path, times=210)
    assert wrong == []
    for of in counts.values():
        assert sum(of.values()) == 30
        assert of["right"] > 8
        assert of["refused"] > 2
