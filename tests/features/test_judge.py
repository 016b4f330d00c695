"""The judge against a second one, which is slow and written from the definitions: loops over characters, in float64."""

import struct

import numpy as np
import pytest
from helpers import firings_of, sample

from jaxsae.features import baselines, judge, probe
from jaxsae.features.detection import detection_score, interval
from jaxsae.features.judge import FEWEST_FIRINGS, THRESHOLDS, dense_halves, halves, sparse_halves
from jaxsae.features.judged_text import JudgedText, MarkedRows
from jaxsae.text.samples import joined

WORDS = ["a-na", "šar-ru", "um", "b", "LUGAL", "i-din", "šè-šè", "DUMU-šu"]


def random_text(texts=24, seed=0, words=WORDS) -> JudgedText:
    rng = np.random.default_rng(seed)
    return JudgedText.of(joined([sample(" ".join(rng.choice(words, rng.integers(1, 7)))) for _ in range(texts)]))


def planted(text: JudgedText, seed=1) -> tuple[np.ndarray, np.ndarray]:
    """Properties [p, n], and latents [n, columns] of which some find them and some are noise."""
    rng = np.random.default_rng(seed)
    letters = np.array([chr(i) for i in text.true_ids])
    n = len(text)
    ending = np.append(letters[:-1] == "š", False) & np.append(np.isin(letters[1:], ["u", "è"]), False)
    ending |= np.append(False, ending[:-1])
    has = np.stack([ending, np.isin(letters, list("aui")), rng.random(n) < 0.1, np.zeros(n, bool)])
    values = np.where(rng.random((n, 12)) < 0.1, rng.exponential(size=(n, 12)), 0)
    values[:, 0] = np.where(has[0] & (letters == "š"), rng.uniform(2, 3, n), values[:, 0])
    values[:, 1] = np.where(has[1], rng.uniform(0.5, 2, n), np.where(rng.random(n) < 0.3, rng.uniform(0, 1, n), 0))
    values[:, 2] = np.where(has[2], 5 * rng.random(n), 0)
    values[:, 3] = 0  # never fires
    values[:, 4] = np.where(np.arange(n) == 7, 1, 0)  # too rarely
    values[:, 5] = rng.exponential(size=n)  # always
    values[:, 6] = np.round(values[:, 1], 1)  # ties
    return has, values.astype(np.float32)


# ---- the second implementation


def code(value: float) -> int:
    """Sixteen bits of a float32: sign, exponent and the first seven of the fraction."""
    return int.from_bytes(struct.pack(">f", value)[:2], "big")


def words_of(text: JudgedText) -> list[int]:
    out, number, last = [], -1, None
    for sample_, letter in zip(text.sample, text.true_ids, strict=True):
        if last is None or last[0] != sample_ or " " in (chr(letter), last[1]):
            number += 1
        last = sample_, chr(letter)
        out.append(number)
    return out


def instances_of(has: np.ndarray, words: list[int]) -> list[list[int]]:
    out = []
    for i, mine in enumerate(has):
        if mine and out and out[-1][-1] == i - 1 and words[i] == words[i - 1]:
            out[-1].append(i)
        elif mine:
            out.append([i])
    return out


def harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def plain_counts(fires: np.ndarray, has: np.ndarray, words: list[int]) -> dict[str, float]:
    """Precision, recall and the three scores of one column that is on or off, for one property."""
    on, members = {i for i, v in enumerate(fires) if v}, {i for i, v in enumerate(has) if v}
    of_words, on_words = {words[i] for i in members}, {words[i] for i in on}
    instances = instances_of(has, words)
    precision = len(on & members) / len(on) if on else 0.0
    recall = sum(bool(on & set(one)) for one in instances) / len(instances) if instances else 0.0
    in_words = len(of_words & on_words)
    return {
        "precision": precision,
        "recall": recall,
        "run": harmonic(precision, recall),
        "character": harmonic(precision, len(on & members) / max(len(members), 1)),
        "words": harmonic(in_words / max(len(on_words), 1), in_words / max(len(of_words), 1)),
    }


def plain_thresholds(values: np.ndarray) -> list[int]:
    """Codes: from that of the smallest firing to that of the fifth largest, in equal ratios of what is above."""
    codes = sorted(code(v) for v in values if v > 0)
    n = len(codes)
    if n < FEWEST_FIRINGS:
        return []
    above = [n * (FEWEST_FIRINGS / n) ** (k / (THRESHOLDS - 1)) for k in range(THRESHOLDS)]
    return [0, *(codes[min(int((1 - of / n) * n), n - 1)] for of in above[1:])]


def plain_judge(text: JudgedText, has: np.ndarray, column: np.ndarray, cuts, by: str) -> dict[str, float]:
    """One column and property: the best cut on even texts, and the figures there on odd ones.

    Args:
      cuts: functions of the column's values that say where it is on.
    """
    words = words_of(text)
    part = [[i for i, s in enumerate(text.sample) if s % 2 == half] for half in (0, 1)]

    def scored(cut, half):
        return plain_counts(cut(column[part[half]]), has[part[half]], [words[i] for i in part[half]])

    # the numbers of characters have gaps at the borders of texts alone, where a word ends anyway
    chosen = [scored(cut, 0)[by] for cut in cuts]
    at = max(range(len(cuts)), key=lambda i: chosen[i], default=None) if cuts else None
    if at is None:
        return {"chosen": 0, "at": 0, "precision": 0, "recall": 0, "run": 0, "character": 0, "words": 0}
    return {"chosen": chosen[at], "at": at, **scored(cuts[at], 1)}


def sparse_cuts(text: JudgedText, column: np.ndarray):
    first = column[text.sample % 2 == 0]
    return [
        lambda values, edge=edge: np.array([v > 0 and code(v) >= edge for v in values])
        for edge in plain_thresholds(first)
    ]


def sparse(text: JudgedText, has: np.ndarray, values: np.ndarray):
    """(columns of the two halves, their thresholds, the marked halves)."""
    used = np.ones(len(text), bool)
    marked = halves(text, has, used)
    choose, score, edges = sparse_halves(firings_of(text, values), text, marked, used)
    return (choose, score), edges, marked


def judged(text: JudgedText, has: np.ndarray, values: np.ndarray, by="run"):
    (choose, score), edges, marked = sparse(text, has, values)
    return judge.judge(choose, score, marked, by), score, edges


# ---- the judge against it


@pytest.mark.parametrize("by", judge.BY)
def test_every_figure_of_sparse_columns_is_that_of_the_definitions(by):
    text = random_text()
    has, values = planted(text)
    found, score, edges = judged(text, has, values, by)
    for p in range(len(has)):
        for column in range(values.shape[1]):
            expected = plain_judge(text, has[p], values[:, column], sparse_cuts(text, values[:, column]), by)
            for name, figure in expected.items():
                got = getattr(found, name)[p, column]
                np.testing.assert_allclose(got, figure, atol=1e-6, err_msg=f"{name} of {column} for {p}")
    assert found.run[0, 0] > 0.8
    assert found.run[1, 1] > 0.7
    assert edges.shape == (12, THRESHOLDS)
    assert score.said[3].sum() == 0


@pytest.mark.parametrize("by", judge.BY)
def test_every_figure_of_dense_columns_is_that_of_the_definitions(by):
    text = random_text(12)
    has, _ = planted(text)
    rng = np.random.default_rng(2)
    values = rng.standard_normal((len(text), 3))
    values[:, 1] -= 3 * has[1]
    values[:5, 2] = 40  # far from all others
    values = values.astype(np.float32)
    marked = halves(text, has, np.ones(len(text), bool))
    parts = [values[text.half == half] for half in (0, 1)]
    found = judge.judge(*dense_halves((parts[0], parts[1]), marked), marked, by)
    assert found.run.shape == (len(has), 6)
    first = parts[0].astype(np.float64)
    for column in range(6):
        k, other_way = column % 3, column >= 3
        n, ordered = len(first), sorted(first[:, k])
        beyond = [int(0.5 * n * (FEWEST_FIRINGS / (0.5 * n)) ** (i / (THRESHOLDS - 1))) for i in range(THRESHOLDS)]
        edges = sorted([ordered[n - 1 - m] for m in beyond] + [ordered[m] for m in beyond[1:]])
        if other_way:  # on below an edge
            cuts = [lambda v, edge=edge: v < edge for edge in reversed(edges)]
        else:
            cuts = [lambda v, edge=edge: v >= edge for edge in edges]
        for p in range(len(has)):
            expected = plain_judge(text, has[p], values[:, k].astype(np.float64), cuts, by)
            for name, figure in expected.items():
                got = getattr(found, name)[p, column]
                np.testing.assert_allclose(got, figure, atol=1e-6, err_msg=f"{name} of {column} for {p}")
    assert found.run[1, 4] > 0.8 > found.run[1, 1]  # found by being small


def test_columns_are_judged_alike_alone_and_together():
    text = random_text()
    has, values = planted(text)
    together, score, edges = judged(text, has, values)
    for chunk in baselines.in_chunks(values.shape[1], 5):
        part, part_score, part_edges = judged(text, has[1:2], values[:, chunk])
        for name, figures in part._asdict().items():
            np.testing.assert_array_equal(figures, getattr(together, name)[1:2, chunk], err_msg=name)
        np.testing.assert_array_equal(part_edges, edges[chunk])
        one = detection_score(part, 0, 0, part_score, part_edges)
        assert one._replace(latent=chunk.start) == detection_score(together, 1, chunk.start, score, edges)
    assert [c.stop - c.start for c in baselines.in_chunks(12, 5)] == [5, 5, 2]


@pytest.mark.parametrize("dense", [True, False])
def test_the_best_column_is_the_one_that_judging_all_would_choose(dense):
    text = random_text()
    has, values = planted(text)
    columns, _, marked = sparse(text, has, values)
    if dense:
        columns = dense_halves((values[text.half == 0], values[text.half == 1]), marked)
    found = judge.judge(*columns, marked)
    for p in range(len(has)):
        for among in (slice(None), slice(2, None, 3)):
            best = judge.best_column(*columns, marked, p, among)
            column = np.arange(found.run.shape[1])[among][found.chosen[p, among].argmax()]
            assert best.column == column
            got = best.chosen, best.run
            np.testing.assert_allclose(got, (found.chosen[p, column], found.run[p, column]), atol=1e-6)


def test_an_instance_ends_where_its_word_ends():
    text = JudgedText.of(joined([sample("šu šu-šu"), sample("šu")]))
    letters = "".join(chr(i) for i in text.true_ids)
    assert letters == "šu šu-šušu"
    everywhere = MarkedRows(text.word, text.sample, np.array([[c in "šu" for c in letters], [True] * len(letters)]))
    assert everywhere.members[0][everywhere.starts[0]].tolist() == [0, 3, 6, 8]
    assert everywhere.starts[1].tolist() == [0, 2, 3, 8]  # the space is a word by itself
    assert everywhere.instance(0).tolist() == [0, 0, -1, 1, 1, -1, 2, 2, 3, 3]
    assert everywhere.words_with.tolist() == [[True, False, True, True], [True] * 4]


def test_one_character_of_each_instance_is_all_of_the_recall():
    text = random_text()
    has, _ = planted(text)
    words, values = words_of(text), np.zeros((len(text), 1), np.float32)
    rng = np.random.default_rng(3)
    for instance in instances_of(has[0], words):
        values[rng.choice(instance), 0] = rng.uniform(1, 2)
    found, score, edges = judged(text, has[:1], values)
    assert (found.precision[0, 0], found.recall[0, 0], found.run[0, 0]) == (1, 1, 1)
    assert found.character_recall[0, 0] == pytest.approx(0.5)  # of two characters each
    assert detection_score(found, 0, 0, score, edges)[1:4] == (1, 1, 1)


@pytest.mark.parametrize("where", [[], [0], [1]])
def test_a_property_that_nobody_has_scores_0(where):
    """In either half, or only in one of them."""
    text = random_text()
    has = np.isin(text.half, where)[None] & planted(text)[0][:1]
    found, score, edges = judged(text, has, planted(text)[1])
    for name, figures in found._asdict().items():
        assert np.isfinite(figures).all(), name
    if 1 not in where:
        assert not found.run.any()
        assert detection_score(found, 0, 0, score, edges)[1:4] == (0, 0, 0)


def test_the_score_of_a_latent_is_that_of_its_threshold():
    text = random_text()
    has, values = planted(text)
    found, score, edges = judged(text, has, values)
    held_out = text.half == 1
    for latent in (0, 1, 2, 5):
        one = detection_score(found, 1, latent, score, edges)
        column = values[held_out, latent]
        expected = plain_counts(
            (column > 0) & (column >= one.threshold),
            has[1, held_out],
            [w for w, h in zip(words_of(text), held_out, strict=True) if h],
        )
        got = (one.precision, one.recall, one.run, one.character, one.word)
        np.testing.assert_allclose(got, list(expected.values()), atol=1e-6)
        np.testing.assert_allclose(one.auroc, probe.auroc(column, has[1, held_out]), atol=0.02)  # ties within a bin
        assert one.low <= one.run <= one.high


def test_random_columns_look_better_where_they_are_chosen():
    text = random_text(60)
    rng = np.random.default_rng(4)
    has = rng.random((1, len(text))) < 0.05
    values = np.where(rng.random((len(text), 400)) < 0.02, rng.exponential(size=(len(text), 400)), 0)
    found, *_ = judged(text, has, values.astype(np.float32))
    best = found.best(0)[0]
    assert found.chosen[0, best] == found.chosen.max() > 0.15
    assert found.run[0, found.best(0, 20)].mean() < found.chosen[0, found.best(0, 20)].mean() / 2


# ---- the interval


def column_of(texts: list[tuple[int, int, int]]) -> tuple[MarkedRows, int, np.ndarray]:
    """A property and a column on texts of ten one-letter words: (found instances, missed ones, firings elsewhere)."""
    has, fired = np.zeros((len(texts), 10), bool), np.zeros((len(texts), 10), bool)
    for i, (found, missed, elsewhere) in enumerate(texts):
        has[i, : found + missed] = fired[i, :found] = fired[i, 10 - elsewhere :] = True
    n = has.size
    marked = MarkedRows(np.arange(n), np.repeat(np.arange(len(texts)), 10), has.reshape(1, n))
    return marked, 0, np.flatnonzero(fired)


def test_the_interval_of_identical_texts_is_their_score():
    low, high = interval(*column_of([(3, 1, 2)] * 30))
    np.testing.assert_allclose((low, high), harmonic(3 / 5, 3 / 4))


def test_the_interval_holds_the_score_and_shrinks_with_more_texts():
    kinds, widths = [(3, 1, 0), (0, 4, 3), (2, 2, 1)], []
    precision, recall = 5 / 9, 5 / 12
    for many in (3, 12, 48):
        low, high = interval(*column_of(kinds * many))
        assert low < harmonic(precision, recall) < high
        widths.append(high - low)
    assert widths[0] > 1.6 * widths[1] > 1.6**2 * widths[2]  # about the root of four


def test_the_interval_is_the_bootstrap_over_texts():
    rng = np.random.default_rng(5)
    texts = [(int(f), int(4 - f), int(e)) for f, e in zip(rng.integers(0, 5, 40), rng.integers(0, 4, 40), strict=True)]
    draws = []
    for _ in range(1500):
        drawn = [texts[i] for i in rng.integers(0, len(texts), len(texts))]
        found, missed, elsewhere = (sum(column) for column in zip(*drawn, strict=True))
        draws.append(harmonic(found / (found + elsewhere), found / (found + missed)))
    np.testing.assert_allclose(interval(*column_of(texts)), np.quantile(draws, [0.025, 0.975]), atol=0.015)
