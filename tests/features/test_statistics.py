"""The pass over the text: hand-made latents that fire where it is known, and sums against the whole matrix."""

import dataclasses
import re

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
from jaxsae.cli.inspect_tables import show_pattern
from jaxsae.config import SAEConfig
from jaxsae.features import concepts, feature_summary, statistics
from jaxsae.features.contexts import AFTER, BEFORE
from jaxsae.features.firings import value_code
from jaxsae.features.histograms import BINS, Histograms, per_octave
from jaxsae.features.inspection import inspect, inspect_all
from jaxsae.features.judged_text import JudgedText
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
    return counted(reader, texts(), 1, ONE_EACH)


def counted(model, samples, layer, sae, **more):
    batches, judged = stream(model, samples, [layer]), JudgedText.of(samples)
    return collect_statistics(batches, samples, [LayerSAE(layer, sae)], judged, **more).statistics[0]


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


def test_firing_by_character_and_by_place(reader):
    inspection = inspect_all(reader, texts(), [LayerSAE(1, ONE_EACH)], compare=False)[0]
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
    judged = JudgedText.of(samples, 200)
    batches = stream(model, samples, [2], padding)
    found = collect_statistics(batches, samples, [LayerSAE(2, sae)], judged, seeds=[[sae]], rows_of=[2])
    [got] = found.statistics
    np.testing.assert_array_equal(got.fired, (latents > 0).sum(0))
    np.testing.assert_allclose(got.mean, latents.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got.peak, latents.max(0), rtol=1e-5)
    fires = (latents > 0).astype(float)
    np.testing.assert_array_equal(got.cofiring.matrix(), fires.T @ fires)
    assert got.rows == len(latents)
    assert got.by_place.sum() == fires[samples.mask[rows.sample, rows.position] != 0].sum()
    # padding is no context
    for contexts in (got.strongest, got.drawn):
        there = contexts.score > 0
        assert samples.mask[contexts.sample[there], contexts.position[there]].all()
        assert (contexts.values[there][:, BEFORE] > 0).all()  # it fires there
    # every firing on the judged characters, and the stream there
    assert 0 < len(judged) < samples.real.sum()
    number = {(i, j): n for n, (i, j) in enumerate(zip(rows.sample.tolist(), rows.position.tolist(), strict=True))}
    at = [number[place] for place in zip(judged.sample.tolist(), judged.position.tolist(), strict=True)]
    for firings in (got.firings, found.seeds[0][0]):
        column, row = np.nonzero(latents[at].T)
        np.testing.assert_array_equal((firings.column, firings.row), (column, row))
        np.testing.assert_array_equal(firings.code, value_code(latents[at].T[column, row]))
    np.testing.assert_allclose(found.rows[2], np.asarray(rows.values[2])[at], rtol=1e-3, atol=1e-3)


def test_two_saes_in_one_pass(tiny_pt):
    model = load_restoration_model(tiny_pt)
    columns = tiny_splits(seed=4)["test"]
    samples = Samples(columns["input_ids"], columns["labels"], columns["attention_mask"])
    saes = [init(jax.random.key(i), SAEConfig(TINY.d_model, n)) for i, n in enumerate((20, 26))]
    layers = [LayerSAE(0, saes[0]), LayerSAE(3, saes[1])]
    both = collect_statistics(stream(model, samples, [0, 3]), samples, layers, JudgedText.of(samples))
    latents = [np.asarray(encode(s, extract(model, samples, [n]).values[n])) for s, n in zip(saes, (0, 3), strict=True)]
    fires = [(one > 0).astype(float) for one in latents]
    np.testing.assert_array_equal(both.cofiring[0].matrix(), fires[0].T @ fires[1])
    alone = counted(model, samples, 3, saes[1])
    np.testing.assert_array_equal(alone.fired, both.statistics[1].fired)
    a, b = inspect_all(model, samples, layers, compare=False)
    np.testing.assert_array_equal(a.cofiring_with_next.matrix(), both.cofiring[0].matrix())
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
        histograms = one.histogram.counts.nbytes
        kept = [one.strongest, one.drawn]
        return histograms + one.cofiring.nbytes + one.by_character.nbytes + sum(c.values.nbytes for c in kept)

    many = texts()
    many = Samples(*(np.concatenate([getattr(many, f)] * 10) for f in ("ids", "labels", "mask")))
    once, more = counted(reader, many, 1, ONE_EACH), read
    assert size(once) == size(more)


def test_bins_hold_what_lies_between_their_edges():
    values = np.exp(np.random.default_rng(0).normal(0, 3, 5000)).astype(np.float32)
    histograms = Histograms(1)
    histograms.add(np.zeros(5000, int), values)
    edges, bins = histograms.edges(), histograms.bins_of(values)
    assert 2.0 ** (histograms.top - 1) <= values.max() < 2.0**histograms.top
    assert (np.diff(edges) > 0).all()
    inside = values >= edges[0]
    assert (values[inside] >= edges[bins[inside]]).all()
    assert (values < np.append(edges, np.inf)[bins + 1]).all()
    np.testing.assert_array_equal(histograms.counts[0], np.bincount(bins, minlength=BINS))
    assert (bins[~inside] == 0).all()


def test_density_does_not_jump_where_an_octave_begins():
    """Values that are spread evenly over their logarithm: as many in each octave, and as dense in each bin."""
    values = np.exp2(np.linspace(-6, 4, 400_001)[:-1]).astype(np.float32)
    histograms = Histograms(1)
    histograms.add(np.zeros(len(values), int), values)
    filled = np.flatnonzero(histograms.counts[0])
    density = per_octave(histograms.counts, histograms.bounds())[0, filled]
    np.testing.assert_allclose(density, len(values) / 10, rtol=1e-3)
    counts = histograms.counts[0, filled].reshape(10, 8)
    assert (counts[1:, 0] > 1.7 * counts[:-1, -1]).all()  # which counts do


@pytest.mark.parametrize("first", [0.0, 1e-30, 1e-3, 1e4])
def test_bins_do_not_depend_on_what_comes_first(first):
    """Where nothing fires in the first batch, or little, later values were once all counted as the largest."""
    rng = np.random.default_rng(0)
    values = np.append(np.exp(rng.normal(0, 2, 3000)), np.full(3, first)).astype(np.float32)
    values = values[values != 0]
    column = rng.integers(0, 4, len(values))

    def counted_by(parts):
        histograms = Histograms(4)
        for part in parts:
            histograms.add(column[part], values[part])
        return histograms

    at_once, order = counted_by([np.arange(len(values))]), np.argsort(values)
    for parts in (np.array_split(order, 7), np.array_split(order[::-1], 5), [order[:0], order]):
        again = counted_by(parts)
        assert again.top == at_once.top
        np.testing.assert_array_equal(again.counts, at_once.counts)


def test_a_spelling_is_detected_by_the_latent_of_its_character(reader, capsys):
    many = Samples(*(np.concatenate([getattr(texts({}), f)] * 6) for f in ("ids", "labels", "mask")))
    inspection = inspect(reader, many, ONE_EACH, 1, pattern="š")
    [scores] = inspection.concept_scores
    best = scores.best[0]
    assert best.latent == LETTER["š"]
    assert (best.auroc, best.precision, best.recall, best.run, best.character, best.word) == (1, 1, 1, 1, 1, 1)
    assert (best.low, best.high) == (1, 1)
    assert (scores.windows, scores.window) == (1, "š")  # as the text itself does
    assert not scores.enough  # 12 of the 24 texts, with 33 characters
    assert scores.instances == sum(len(re.findall("š+", t)) for t in TEXTS[1::2]) * 6
    assert scores.run.argmax() == LETTER["š"]
    assert scores.share == (many.ids[many.mask != 0] == ord("š")).mean()
    found = inspection.pattern_detectors()
    assert (found.occurrences, found.texts) == (66, 24)
    first = found.detectors[0]
    assert (first.score, first.on, first.instances) == (best, "every character", scores.instances)
    assert (first.random, first.windows) == (scores.random, scores.windows)
    assert str(first.caption) == "š (100% of firings, 100% of places)"
    # in the order of the half on which they were chosen: the best of each reading, then the second ones
    chosen = list(dict.fromkeys(one.best[0].latent for one in found.readings))
    assert [one.score.latent for one in found.detectors][: len(chosen)] == chosen
    # nor is the verdict of the feature that happens to score best on the other half
    reading = scores._replace(
        best=[best._replace(latent=7, run=0.2, low=0.1, high=0.3)], chosen=np.eye(len(scores.run))[7] * 2
    )
    show_pattern(found._replace(readings=[scores, reading]), inspection)
    assert "verdict  no feature is clearly better than what is none" in capsys.readouterr().out
    show_pattern(found, inspection)
    assert "verdict  no feature is clearly better than what is none (1.00)" in capsys.readouterr().out
    show_pattern(found._replace(readings=[scores._replace(windows=0.5)]), inspection)
    said = capsys.readouterr().out
    assert f"verdict  feature {best.latent} finds it (1.00, 1.00 to 1.00), better than" in said
    assert f"; {scores.instances} held-out occurrences are few" in said
    assert first.as_json()["feature"] == LETTER["š"]


def test_the_best_named_are_read_first(reader):
    """By their captions, and by the share of other seeds that have them."""
    many = Samples(*(np.concatenate([getattr(texts({}), f)] * 6) for f in ("ids", "labels", "mask")))
    half = ONE_EACH.replace(W_enc=jnp.where(jnp.arange(D) % 2 == 0, jnp.eye(D), 0), W_dec=jnp.ones((D, D)) / D**0.5)
    [alone] = inspect_all(reader, many, [LayerSAE(1, ONE_EACH)], compare=False)
    [beside] = inspect_all(reader, many, [LayerSAE(1, ONE_EACH)], compare=False, other_seeds=[[half, half]])
    clear = {i for i, one in enumerate(alone.captions) if one.clear}
    assert set(alone.reading_order[: len(clear)]) == clear >= {LETTER["š"], LETTER["a"], LETTER["n"]}
    assert sorted(alone.reading_order) == list(range(D))
    assert alone.stability is None
    assert beside.stability.seeds == 2
    again = {i for i in clear if i % 2 == 0}
    assert LETTER["n"] in again
    assert {i for i in clear if beside.stability.found[i] == 1} == set(beside.reading_order[: len(again)]) == again
    assert beside.feature(LETTER["n"]).found_again.share == 1
    assert alone.feature(LETTER["n"]).found_again is None
    # without a comparison concepts are scored beside nothing, and nothing is a discovery
    assert alone.discoveries == []
