import random

import numpy as np
import pytest

from jaxsae.text import preparation
from jaxsae.text.tokenizer import UNICODE


def test_ids_are_code_points():
    assert UNICODE.encode("aš-⸣").tolist() == [97, 353, 45, 11811]
    assert UNICODE.decode(UNICODE.encode("šar-ru ₓ")) == "šar-ru ₓ"


@pytest.mark.parametrize("n", [1, 2, 5, 40, 768])
def test_damage_is_a_fifth_of_the_text(n):
    for seed in range(20):
        damaged = preparation.mask_text(n, random.Random(seed))
        assert set(damaged.values()) <= {ord("#"), ord("-")}
        assert all(0 <= position < n for position in damaged)
        assert 1 <= len(damaged) <= max(1, int(0.25 * n)) + 9  # the last span may overshoot


@pytest.mark.parametrize("n", [1, 4, 50, 400])
@pytest.mark.parametrize("seed", range(8))
def test_damage_draws_in_the_original_order(seed, n):
    """Follows the rules by hand with an own generator: random, then length, start; or a single position."""
    rng = random.Random(seed)
    target, expected, draws = max(1, int(n * rng.uniform(0.15, 0.25))), {}, 0
    while len(expected) < target and draws < 3 * n:
        draws += 1
        if rng.random() < 0.3:
            length = rng.randint(2, 10)
            start = rng.randint(0, max(0, n - length))
            for p in range(start, min(n, start + length)):
                expected.setdefault(p, ord("#"))
        else:
            expected.setdefault(rng.randint(0, n - 1), ord("-"))
    assert preparation.mask_text(n, random.Random(seed)) == expected


def test_prepare_keeps_the_truth_in_the_labels():
    texts = ["a-na be-li-ia qi-bi-ma", "x", "y" * 900]
    columns = preparation.prepare(texts, seed=1)
    assert {name: (c.dtype.name, c.shape) for name, c in columns.items()} == {
        "input_ids": ("int32", (3, 768)),
        "labels": ("int32", (3, 768)),
        "attention_mask": ("int8", (3, 768)),
    }
    for row, whole in enumerate(texts):
        n = min(len(whole), 768)
        ids, labels = columns["input_ids"][row], columns["labels"][row]
        assert UNICODE.decode(np.where(labels == -100, ids, labels)[:n]) == whole[:768]
        assert (ids[n:] == 32).all()
        assert (labels[n:] == -100).all()
        assert columns["attention_mask"][row].tolist() == [1] * n + [0] * (768 - n)


def test_one_generator_damages_all_texts():
    both = preparation.prepare(["abcdefghij" * 3] * 2, seed=3)["input_ids"]
    assert (both[0] != both[1]).any()


@pytest.mark.parametrize("n", [1, 5, 10, 11, 2460])
def test_split_takes_every_sample_once(n):
    parts = preparation.split_indices(n, seed=42)
    assert list(parts) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))
    held_out = -(-n // 5)
    assert [len(p) for p in parts.values()] == [n - held_out, held_out // 2, held_out - held_out // 2]


def test_split_is_that_of_hugging_face_datasets():
    from datasets import Dataset

    whole = Dataset.from_dict({"i": list(range(103))}).shuffle(seed=42)
    first = whole.train_test_split(test_size=0.2, seed=42)
    second = first["test"].train_test_split(test_size=0.5, seed=42)
    ours = preparation.split_indices(103, seed=42)
    assert ours["train"].tolist() == first["train"]["i"]
    assert ours["validation"].tolist() == second["train"]["i"]
    assert ours["test"].tolist() == second["test"]["i"]
