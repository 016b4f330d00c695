"""A few of the inputs of `python tests/fuzzing`, which tries many."""

from fuzzing import meanings, mutations


def test_mutated_files_are_read_or_refused(tmp_path):
    counts, wrong = mutations.fuzz(tmp_path, times=650)
    assert wrong == []
    for read, refused in counts.values():
        assert read + refused == 50
        assert refused > 5


def test_files_are_read_as_they_mean_or_refused(tmp_path):
    counts, wrong, _ = meanings.fuzz(tmp_path, times=210)
    assert wrong == []
    for of in counts.values():
        assert sum(of.values()) == 30
        assert of["right"] > 8
        assert of["refused"] > 2
