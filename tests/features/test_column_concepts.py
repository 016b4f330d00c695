"""The columns of a table of signs as concepts: a latent that follows a value of one is found with it."""

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sign_model
from planted import IDENTITY, MODEL, D

from jaxsae.activations.extraction import StreamBatch
from jaxsae.features import inspection
from jaxsae.features.comparison import compare
from jaxsae.features.concepts import column_concepts
from jaxsae.text.sign_texts import SignTexts
from jaxsae.text.signs import SignTokenizer

FRAGMENTS, WORDS = 120, 5
GENRES, KINDS = ("letter", "list", "omen"), ("noun", "verb", "name")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Fragments of a genre each, words of a kind each with one to three signs; and columns that tell nothing."""
    rng, rows = np.random.default_rng(0), []
    for fragment in range(FRAGMENTS):
        genre = str(rng.choice(GENRES))
        for word in range(WORDS):
            rows.append(
                {
                    "fragment_id": f"{fragment:03}",
                    "line_num": 0,
                    "word_idx": word,
                    "value_signs": " ".join(rng.choice(sign_model.SIGNS[5:], rng.integers(1, 4))),
                    "genre": genre,
                    "kind": str(rng.choice(KINDS)),
                    "museum": f"BM {fragment}",
                    "certainty": "sure",
                }
            )
    path = tmp_path_factory.mktemp("columns") / "words.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return SignTexts(SignTokenizer(sign_model.SIGNS), 64).load_several([path])


def inspected(samples, latents):
    """What an identity SAE's latents do whose number -> where they fire [sample, position]; some others at random."""
    x = np.full((*samples.ids.shape, D), -10, np.float32)
    x[np.random.default_rng(1).random(x.shape) < 0.05] = 1
    for number, where in latents.items():
        x[:, :, number] = np.where(where, 1, -10)
    sample, position = np.indices(samples.ids.shape)
    batch = StreamBatch(sample, position, samples.real, {1: jnp.asarray(x)})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inspection, "stream", lambda *_: [batch])
        saes = [inspection.LayerSAE(1, IDENTITY)]
        concepts = column_concepts(samples)
        return inspection.inspect_all(MODEL, samples, saes, concepts=concepts, compare=False)[0]


def follows(samples, column, value):
    """Where a latent fires that follows a value: on most of its signs, and a few others."""
    of = samples.columns[column]
    has = (of if of.ndim == 2 else of[:, None]) == value
    draws = np.random.default_rng(2).random(samples.ids.shape)
    return samples.real & np.where(has, draws < 0.9, draws < 0.02)


def test_the_values_that_tell_something_are_concepts(samples):
    found = {one.name: one for one in column_concepts(samples)}
    assert set(found) == {f"genre={one}" for one in GENRES} | {f"kind={one}" for one in KINDS}
    assert found["genre=omen"].title == "text with genre omen"
    assert found["kind=verb"].title == "sign with kind verb"
    assert {one.about for one in found.values()} == {"dataset"}
    signs = int(samples.real.sum())
    for values, column in ((GENRES, "genre"), (KINDS, "kind")):  # each sign has one value of each
        every = np.stack([found[f"{column}={value}"].truth for value in values])
        assert every.shape == (len(values), signs)
        assert (every.sum(axis=0) == 1).all()


@pytest.mark.parametrize(("column", "value"), [("genre", "omen"), ("kind", "verb")])
def test_a_latent_that_follows_a_value_is_found_with_it_on_top(samples, column, value):
    """The value of a fragment, and that of a sign."""
    one = inspected(samples, {7: follows(samples, column, value), 9: follows(samples, "genre", "letter")})
    name = f"{column}={value}"
    scores = one.scores_of(name)
    assert scores.best[0].latent == 7
    assert scores.best[0].run > 0.8 > scores.best[1].run
    assert one.feature(7).concepts[0].name == name
    assert f"with {column} {value}" in str(one.captions[7])
    assert one.captions[7].clear
    (has,) = one.marked.has[[concept.name == name for concept in one.marks.concepts]]
    of = samples.columns[column]
    every = of if of.ndim == 2 else np.repeat(of[:, None], samples.ids.shape[1], axis=1)
    np.testing.assert_array_equal(has, every[samples.real] == value)


def test_what_is_learned_of_a_column_shows_beside_what_was_known(samples):
    """Before, a latent follows the genre; after, another follows the kind of a word as well."""
    before = inspected(samples, {7: follows(samples, "genre", "omen")})
    after = inspected(samples, {4: follows(samples, "genre", "omen"), 8: follows(samples, "kind", "verb")})
    found = compare(before, after)
    top = found.concepts[0]
    assert (top.name, top.second, top.clear) == ("kind=verb", 8, True)
    assert top.second_caption.startswith("sign with kind verb")
    same = next(one for one in found.concepts if one.name == "genre=omen")
    assert (same.first, same.second, same.difference) == (7, 4, 0.0)
    assert (7, 4) in {(pair.first, pair.second) for pair in found.matched}
    assert {8} <= {one.feature for one in found.new}


def test_of_fewer_samples_the_columns_are_cut_with_them(samples):
    few = samples[:50]
    one = inspected(few, {7: follows(few, "kind", "verb")})
    assert one.scores_of("kind=verb").best[0].latent == 7
