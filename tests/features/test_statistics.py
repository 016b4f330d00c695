"""The pass over the text: hand-made latents that fire where it is known, and sums against the whole matrix."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import TINY, checkpoint_content, tiny_splits
from helpers import sample

from convert import load_restoration_model
from jaxsae import extract
from jaxsae.activations.extraction import stream
from jaxsae.config import SAEConfig
from jaxsae.features import concepts, detection, feature_summary, probe, statistics
from jaxsae.features.contexts import AFTER, BEFORE
from jaxsae.features.histograms import BINS, Histograms
from jaxsae.features.inspection import Inspection, inspect, inspect_all
from jaxsae.features.statistics import LayerSAE, collect_statistics
from jaxsae.sae.architectures import encode, init
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.samples import Samples

D = 30
TEXTS = ["a-na šar-ru a-na", "b  šar na", "ašša", "na-aš na-aš na-aš na-aš na-aš na-aš na-aš"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A model whose stream says which character it sees: one-hot by code point modulo 30, times 2."""
    content = checkpoint_content(dataclasses.replace(TINY, d_model=D, n_heads=3))
    for tensor in content["model_state_dict"].values():
        tensor.zero_()
    ids = torch.arange(TINY.vocab_size)
    content["model_state_dict"]["embed.weight"][ids, ids % D] = 2.0
    path = tmp_path_factory.mktemp("reader") / "best_model.pt"
    torch.save(content, path)
    return load_restoration_model(path)


def texts(damage=None) -> Samples:
    damage = {0: {2: "#"}, 3: {0: "-", 4: "#"}} if damage is None else damage
    all_ = [sample(t, damage.get(i), TINY.max_position) for i, t in enumerate(TEXTS)]
    return Samples(*(np.concatenate([getattr(s, f) for s in all_]) for f in ("ids", "labels", "mask")))


ONE_EACH = SAE(jnp.eye(D), jnp.zeros(D), jnp.eye(D), jnp.zeros(D))
LETTER = {c: ord(c) % D for c in "ašnr-# "}


@pytest.fixture(scope="module")
def read(reader):
    return collect_statistics(stream(reader, texts(), [1]), texts(), [LayerSAE(1, ONE_EACH)]).statistics[0]


def test_latents_fire_where_their_character_stands(read):
    samples = texts()
    seen = samples.ids[samples.mask != 0]
    assert len(set(LETTER.values())) == len(LETTER)
    for character, latent in LETTER.items():
        others = [c for c in np.unique(seen) if c % D == latent and chr(c) != character]
        assert not others, (character, [chr(c) for c in others])
        count = int((seen == ord(character)).sum())
        assert read.fired[latent] == count
        np.testing.assert_allclose(read.total[latent], 2 * count)
        assert read.peak[latent] == 2
    assert read.rows == len(seen)
    np.testing.assert_allclose(read.l0, 1)


def test_every_context_is_the_text_around_its_character(read):
    samples = texts()
    for character, latent in LETTER.items():
        for context in feature_summary.contexts(samples, read, latent):
            letters, damaged = concepts.true_text(samples, context.sample)
            start = context.position - context.at
            assert context.text == letters[start : start + len(context.text)]
            assert np.flatnonzero(damaged[start : start + len(context.text)]).tolist() == context.damaged
            row = samples.ids[context.sample][start : start + len(context.text)]
            assert [v > 0 for v in context.values] == [chr(i) == character for i in row]
            assert chr(row[context.at]) == character
            assert context.cut == [start > 0, start + len(context.text) < len(letters)]
    hyphen = feature_summary.contexts(samples, read, LETTER["-"])
    # the hyphen of the last text is of damage: it fires there, and the text shown is the true one
    last = next(c for c in hyphen if c.sample == 3)
    assert last.text.startswith("na-aš")
    assert last.values[0] > 0
    assert last.damaged[:2] == [0, 4]
    assert len({c.sample for c in hyphen if c.level == "strongest"}) == 2  # one of a text at most


def test_a_long_text_is_cut_around_the_place(read):
    samples = texts()
    [context] = [c for c in feature_summary.contexts(samples, read, LETTER["#"]) if c.sample == 3][:1]
    assert context.at == min(context.position, BEFORE)
    assert len(context.text) == min(len(TEXTS[3]), context.position + AFTER + 1)


def test_firing_by_character_and_by_place(reader, read):
    samples = texts()
    inspection = Inspection(reader, samples, 1, ONE_EACH, read)
    assert inspection.feature(LETTER["a"]).by_character == [("a", 1.0, 1.0)]
    [damaged] = inspection.feature(LETTER["#"]).by_character
    assert (damaged.name, damaged.of_firings) == ("damaged", 1.0)
    np.testing.assert_allclose(damaged.rate, 2 / 3)
    [place] = inspection.feature(LETTER[" "]).by_place
    assert (place.name, place.of_firings) == ("between words", 1.0)


def test_places():
    letters = "a  na šar-ri x"
    named = [statistics.WORD_POSITIONS[i] for i in statistics.word_positions(letters)]
    assert named[0] == named[-1] == "only character"
    assert named[1:3] == ["between words"] * 2
    assert named[3:5] == ["first", "last"]
    assert named[6:12] == ["first", "second", "inner", "inner", "inner", "last"]


@pytest.mark.parametrize("padding", ["drop", "keep"])
@pytest.mark.parametrize("k", [None, 4])
def test_sums_are_those_of_the_whole_matrix(tiny_pt, padding, k):
    model = load_restoration_model(tiny_pt)
    columns = tiny_splits(seed=4)["test"]
    samples = Samples(columns["input_ids"], columns["labels"], columns["attention_mask"])
    config = SAEConfig(TINY.d_model, 50, k=k, architecture="topk" if k else "relu")
    sae = init(jax.random.key(1), config)
    rows = extract(model, samples, [2], padding)
    latents = np.asarray(encode(sae, rows.values[2]))
    half_letters = [concepts.Concept("low", "writing", "", concepts.re.compile("[\\x00-\\u0fa0]"))]
    marks = concepts.concept_masks(half_letters, samples)
    got = collect_statistics(stream(model, samples, [2], padding), samples, [LayerSAE(2, sae)], marks).statistics[0]
    np.testing.assert_array_equal(got.fired, (latents > 0).sum(0))
    np.testing.assert_allclose(got.mean, latents.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got.peak, latents.max(0), rtol=1e-5)
    fires = (latents > 0).astype(float)
    np.testing.assert_array_equal(got.cofiring, fires.T @ fires)
    assert got.rows == len(latents)
    assert got.by_place.sum() == fires[samples.mask[rows.sample, rows.position] != 0].sum()
    # padding is no context
    for contexts in (got.strongest, got.drawn):
        there = contexts.score > 0
        assert samples.mask[contexts.sample[there], contexts.position[there]].all()
        assert (contexts.values[there][:, BEFORE] > 0).all()  # it fires there
    # what a concept's counts say is what ranking the whole matrix says, up to the width of the bins
    has = np.zeros(len(latents), bool)
    for i in range(len(samples)):
        mine = (rows.sample == i) & (samples.mask[rows.sample, rows.position] != 0)
        has[mine] = marks(i)[0]
    for half in (0, 1):
        part = rows.sample % 2 == half
        binned = detection.binned_counts(got.histograms, got.group_rows, half, 1)
        exact = [probe.auroc(column[part], has[part]) for column in latents.T]
        np.testing.assert_allclose(binned.aurocs(), exact, atol=0.03)
        assert got.group_rows[half].tolist() == [part.sum(), (part & has).sum()]


def test_two_saes_in_one_pass(tiny_pt):
    model = load_restoration_model(tiny_pt)
    columns = tiny_splits(seed=4)["test"]
    samples = Samples(columns["input_ids"], columns["labels"], columns["attention_mask"])
    saes = [init(jax.random.key(i), SAEConfig(TINY.d_model, n)) for i, n in enumerate((20, 26))]
    both = collect_statistics(stream(model, samples, [0, 3]), samples, [LayerSAE(0, saes[0]), LayerSAE(3, saes[1])])
    latents = [np.asarray(encode(s, extract(model, samples, [n]).values[n])) for s, n in zip(saes, (0, 3), strict=True)]
    fires = [(one > 0).astype(float) for one in latents]
    np.testing.assert_array_equal(both.cofiring[0], fires[0].T @ fires[1])
    alone = collect_statistics(stream(model, samples, [3]), samples, [LayerSAE(3, saes[1])]).statistics[0]
    np.testing.assert_array_equal(alone.fired, both.statistics[1].fired)
    a, b = inspect_all(model, samples, [LayerSAE(0, saes[0]), LayerSAE(3, saes[1])])
    np.testing.assert_array_equal(a.cofiring_with_next, both.cofiring[0])
    assert b.cofiring_with_next is None
    matched = a.matched_latents(b)
    jaccard = [
        [(f & g).sum() / max((f | g).sum(), 1) for g in fires[1].T.astype(bool)] for f in fires[0].T.astype(bool)
    ]
    np.testing.assert_allclose([m.jaccard for m in matched], np.max(jaccard, axis=1))
    assert [m.by_firing for m in matched] == np.argmax(jaccard, axis=1).tolist()
    cosines = np.asarray(saes[0].W_dec) @ np.asarray(saes[1].W_dec).T
    assert [m.by_decoder for m in matched] == cosines.argmax(1).tolist()


def test_memory_does_not_grow_with_the_text(read, reader):
    """What is kept of one text and of forty is as large."""

    def size(one):
        histograms = one.histograms.counts.nbytes
        kept = [one.strongest, one.drawn]
        return histograms + one.cofiring.nbytes + one.by_character.nbytes + sum(c.values.nbytes for c in kept)

    many = texts()
    many = Samples(*(np.concatenate([getattr(many, f)] * 10) for f in ("ids", "labels", "mask")))
    assert size(collect_statistics(stream(reader, many, [1]), many, [LayerSAE(1, ONE_EACH)]).statistics[0]) == size(
        read
    )


@pytest.mark.parametrize("signed", [False, True])
def test_bins_hold_what_lies_between_their_edges(signed):
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(0, 3, 5000)).astype(np.float32) * (
        np.where(rng.random(5000) < 0.5, -1, 1) if signed else 1
    )
    values = values.astype(np.float32)
    histograms = Histograms(1, 1, signed)
    histograms.add(*np.zeros((2, 5000), int), values, np.zeros(1, int), np.ones((1, 1), bool))
    edges, bins = histograms.edges(), histograms.bins_of(values)
    assert 2.0 ** (histograms.top - 1) <= np.abs(values).max() < 2.0**histograms.top
    assert (np.diff(edges) > 0).all()
    inside = np.abs(values) >= edges[-BINS]
    up = inside & (values > 0)
    assert (values[up] >= edges[bins[up]]).all()
    assert (bins[up] == histograms.bins - 1).sum() + (
        values[up] < edges[np.minimum(bins[up] + 1, histograms.bins - 1)]
    ).sum() >= up.sum()
    order = np.argsort(values)
    assert (np.diff(bins[order]) >= 0).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("first", [0.0, 1e-30, 1e-3, 1e4])
def test_bins_do_not_depend_on_what_comes_first(signed, first):
    """Where nothing fires in the first batch, or little, later values were once all counted as the largest."""
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(0, 2, 3000)).astype(np.float32)
    values = np.append(values * (rng.choice([-1, 1], 3000) if signed else 1), np.full(3, first)).astype(np.float32)
    values = values[values != 0]
    column, half = rng.integers(0, 4, len(values)), np.arange(len(values)) % 2
    groups = np.stack([np.ones(len(values), bool), rng.random(len(values)) < 0.3])

    def counted(parts):
        histograms = Histograms(2, 4, signed)
        for part in parts:
            histograms.add(np.arange(len(part)), column[part], values[part], half[part], groups[:, part])
        return histograms

    at_once, order = counted([np.arange(len(values))]), np.argsort(np.abs(values))
    for parts in (np.array_split(order, 7), np.array_split(order[::-1], 5), [order[:0], order]):
        again = counted(parts)
        assert again.top == at_once.top
        np.testing.assert_array_equal(again.counts, at_once.counts)


def test_a_planted_detector_is_found_and_scored_on_the_other_half():
    """Column 3 fires on nine of ten of the concept's rows, and on one of a hundred others; column 0 on many."""
    rng = np.random.default_rng(1)
    n = 4000
    has, half = rng.random(n) < 0.1, np.arange(n) % 2
    latents = np.where(rng.random((n, 6)) < 0.2, rng.random((n, 6)), 0).astype(np.float32)
    latents[:, 3] = np.where(has, rng.random(n) < 0.9, rng.random(n) < 0.01) * rng.uniform(1, 3, n)
    latents[:, 0] += 0.5
    histograms = Histograms(2, 6)
    flat = np.flatnonzero(latents)
    row, column = np.divmod(flat, 6)
    groups = np.stack([np.ones(n, bool), has])
    histograms.add(row, column, latents.reshape(-1)[flat], half, groups)
    group_rows = np.stack([groups[:, half == h].sum(1) for h in (0, 1)])
    for by in ("auroc", "f1"):
        best = detection.best_detectors(histograms, group_rows, 0, 2, by)[0]
        assert best.columns == (3,)
        scored = half == 1
        expected = detection.detection_score(latents[scored, 3], has[scored], best.threshold)
        np.testing.assert_allclose((best.precision, best.recall, best.f1), expected[1:4])
        np.testing.assert_allclose(best.auroc, expected.auroc, atol=0.005)
        assert best.f1 > 0.85


def test_random_directions_may_detect_by_being_small():
    rng = np.random.default_rng(2)
    n = 2000
    has, half = rng.random(n) < 0.3, np.arange(n) % 2
    values = rng.standard_normal((n, 3)).astype(np.float32)
    values[has, 1] -= 3
    histograms = Histograms(2, 3, signed=True)
    row, column = np.divmod(np.arange(values.size), 3)
    groups = np.stack([np.ones(n, bool), has])
    histograms.add(row, column, values.reshape(-1), half, groups)
    group_rows = np.stack([groups[:, half == h].sum(1) for h in (0, 1)])
    [best] = detection.best_detectors(histograms, group_rows, 0, 1)
    assert best.columns == (1,)
    scored = half == 1
    np.testing.assert_allclose(best.auroc, probe.auroc(-values[scored, 1], has[scored]), atol=0.01)
    assert best.f1 > 0.85


def test_a_spelling_is_detected_by_the_latent_of_its_character(reader):
    many = Samples(*(np.concatenate([getattr(texts({}), f)] * 6) for f in ("ids", "labels", "mask")))
    inspection = inspect(reader, many, ONE_EACH, 1, pattern="š")
    [scores] = inspection.concept_scores
    best = scores.best[0]
    assert best.latent == LETTER["š"]
    assert (best.auroc, best.precision, best.recall, best.f1) == (1, 1, 1, 1)
    assert scores.clear
    assert scores.aurocs.argmax() == LETTER["š"]
    assert scores.share == (many.ids[many.mask != 0] == ord("š")).mean()
    found = inspection.pattern_detectors()
    assert (found.occurrences, found.texts) == (66, 24)
    assert (found.detectors[0].score, found.detectors[0].on) == (best, "every character")
