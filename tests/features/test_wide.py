"""Wide SAEs: what is done in pieces is what is done at once, and a command on 131,072 latents stays in bounds."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, tiny_splits
from helpers import firings_of, sample
from scipy.sparse import csr_array

from convert import load_restoration_model, save_sae
from jaxsae.config import SAEConfig
from jaxsae.features import captions, inspection, kept_parts, pair_counts, relations, report, splice
from jaxsae.features import statistics as statistics_lib
from jaxsae.features.concept_scores import MarkedText
from jaxsae.features.inspection import inspect_all
from jaxsae.features.judged_text import JudgedText
from jaxsae.features.pair_counts import PairCounts
from jaxsae.features.statistics import LatentStatistics, LayerSAE
from jaxsae.sae import active, basis, consistency
from jaxsae.sae.active import ActiveLatents, active_latents
from jaxsae.sae.architectures import encode, init
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.metrics import score
from jaxsae.text.samples import Samples, joined

D_SAE = 40


def sae_of(d_sae: int = D_SAE, seed: int = 0, **more) -> SAE:
    return init(jax.random.key(seed), SAEConfig(TINY.d_model, d_sae, **more))


@pytest.fixture
def narrow(monkeypatch):
    """Only three rows of latents are held at once, and only pairs that occur are kept."""
    monkeypatch.setattr(active, "AT_ONCE", 3 * 4 * D_SAE)
    monkeypatch.setattr(pair_counts, "MOST_IN_TABLE", 0)
    monkeypatch.setattr(pair_counts, "PENDING", (10, 100))
    monkeypatch.setattr(captions, "AT_ONCE", 1)
    monkeypatch.setattr(statistics_lib, "COUNTED_AT_ONCE", 50)


def random_fires(shape: tuple[int, int], share: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < share).astype(np.float32)


@pytest.mark.parametrize("share", [0.02, 0.6])
@pytest.mark.parametrize("in_table", [0, 2**26])
@pytest.mark.parametrize("faster", [0, 2**40])
def test_pairs_are_those_of_the_product(monkeypatch, share, in_table, faster):
    """Whichever way they are counted."""
    monkeypatch.setattr(pair_counts, "MOST_IN_TABLE", in_table)
    monkeypatch.setattr(pair_counts, "DENSE_IS_FASTER", faster)
    monkeypatch.setattr(pair_counts, "PENDING", (50, 200))
    counts, expected = PairCounts(17, 23), np.zeros((17, 23))
    for batch in range(6):
        a, b = random_fires((31, 17), share, batch), random_fires((31, 23), share, 100 + batch)
        counts.add(csr_array(a), csr_array(b))
        expected += a.T @ b
    for latent in range(17):
        there, both = counts.row(latent)
        np.testing.assert_array_equal(there, np.flatnonzero(expected[latent]))
        np.testing.assert_array_equal(both, expected[latent, there])
    np.testing.assert_array_equal(counts.matrix(), expected)
    a, b, both = counts.entries()
    np.testing.assert_array_equal((a, b), np.nonzero(expected))
    np.testing.assert_array_equal(both, expected[a, b])
    assert not counts.left_out


@pytest.mark.parametrize("in_one_row", [True, False])
def test_too_many_pairs_are_left_out(monkeypatch, narrow, in_one_row):
    """Before the pairs of a row are made, or when those of all rows have become too many."""
    monkeypatch.setattr(pair_counts, "MOST_PAIRS", 300)
    counts = PairCounts(D_SAE, D_SAE)
    if in_one_row:
        monkeypatch.setattr(pair_counts, "PENDING", (2**20, 2**23))
        every = csr_array(np.ones((1, D_SAE), np.float32))
        counts.add(every, every)
    else:
        for batch in range(8):
            assert not counts.left_out or batch > 0
            fires = csr_array(random_fires((40, D_SAE), 0.1, batch))
            counts.add(fires, fires)
    assert counts.left_out
    assert not counts.matrix().any()
    assert counts.nbytes == 0


def test_neighbours_of_some_are_those_of_all(narrow):
    """A block at a time, of ties the first."""
    sae, other = sae_of(), sae_of(D_SAE + 3, seed=1)
    sae = sae.replace(W_dec=jnp.round(4 * sae.W_dec).at[7].set(sae.W_dec[3]).at[8].set(sae.W_dec[3]))
    for of in (None, other):
        rows, others = (consistency.directions_of(one) for one in (sae, of or sae))
        cosines = rows @ others.T
        if of is None:
            np.fill_diagonal(cosines, -np.inf)
        for count in (1, 5, 100):
            got, values = relations.nearest(sae, of, count)
            expected = np.argsort(-cosines, axis=1, kind="stable")[:, : min(count, len(others) - (of is None))]
            np.testing.assert_allclose(values, np.take_along_axis(cosines, expected, 1), atol=1e-6)
            some = np.array([3, 30, 7])
            np.testing.assert_array_equal(relations.nearest(sae, of, count, some)[0].shape, (3, got.shape[1]))
            np.testing.assert_allclose(relations.nearest(sae, of, count, some)[1], values[some], atol=1e-6)
    values = np.array([[1.0, 3, 3, 2, 3], [0, 0, 0, 0, 0], [5, 1, 2, 2, 2]], np.float32)
    top, largest = relations._largest(values, 3)
    assert top.tolist() == [[1, 2, 4], [0, 1, 2], [0, 2, 3]]
    assert largest.tolist() == [[3, 3, 3], [0, 0, 0], [5, 2, 2]]


def test_what_rarely_fires_comes_before_what_avoids_a_latent(narrow):
    """Five latents that never fire with one, but hardly ever fire, correlate more with it than one that seldom does."""
    fires = np.zeros((100, 7), np.float32)
    fires[:50, 0] = fires[49:, 6] = 1
    fires[50 + np.arange(5), 1 + np.arange(5)] = 1
    statistics = LatentStatistics(7, np.array([97]), JudgedText.of(sample("a")))
    statistics.rows, statistics.fired = 100, fires.sum(axis=0).astype(int)
    statistics.cofiring.add(csr_array(fires), csr_array(fires))
    assert relations.fires_with(statistics, 0) == []
    assert relations.fires_with(statistics, 0, 6) == [(6, 1 / 50, 100 / (50 * 51))]


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_partners_in_firing_are_those_among_all_latents(narrow, share):
    fires = random_fires((60, D_SAE), share)
    fires[:, :10] *= np.arange(60)[:, None] % 5 == 0
    statistics = LatentStatistics(D_SAE, np.array([97]), JudgedText.of(sample("a")))
    statistics.rows, statistics.fired = 60, fires.sum(axis=0).astype(int)
    statistics.cofiring.add(csr_array(fires), csr_array(fires))
    for latent in np.flatnonzero(fires.any(axis=0)).tolist():
        correlation = np.full(D_SAE, -1.0)
        varies = fires.std(axis=0) > 0
        correlation[varies] = np.corrcoef(fires[:, varies].T)[varies[:latent].sum()]
        correlation[latent] = -np.inf
        order = np.argsort(-np.round(correlation, 9), kind="stable")[:5]
        both = fires[:, latent] @ fires
        expected = [i for i in order.tolist() if both[i] > 0]
        found = relations.fires_with(statistics, latent)
        # ties may stand in another order
        np.testing.assert_allclose(correlation[[one[0] for one in found]], correlation[expected], atol=1e-9)
        np.testing.assert_allclose([one[1] for one in found], both[[one[0] for one in found]] / fires[:, latent].sum())


@pytest.mark.parametrize("k", [None, 4])
def test_latents_in_pieces_are_those_at_once(monkeypatch, k):
    sae = sae_of(k=k, architecture="topk" if k else "relu")
    x = np.random.default_rng(0).standard_normal((2, 10, TINY.d_model)).astype(np.float32)
    whole = score(sae, jnp.asarray(x.reshape(20, -1)))
    spliced = splice.reconstruct(sae, x)
    steered = splice.with_latents(sae, x, np.array([3, 5]), np.array([1.0, np.nan], np.float32))
    monkeypatch.setattr(active, "AT_ONCE", 3 * 4 * D_SAE)
    jax.clear_caches()
    found, latents = active_latents(sae, x), np.asarray(encode(sae, jnp.asarray(x.reshape(20, -1))))
    np.testing.assert_allclose(found.dense(), latents, atol=1e-6)
    np.testing.assert_array_equal(np.stack([found.row, found.latent]), np.nonzero(latents))
    kept = np.arange(20) % 3 > 0
    np.testing.assert_array_equal(found.of_rows(kept).dense(), found.dense()[kept])
    np.testing.assert_array_equal(found.between(4, 9).dense(), found.dense()[4:9])
    np.testing.assert_allclose(splice.reconstruct(sae, x), spliced, atol=1e-5)
    np.testing.assert_allclose(
        splice.with_latents(sae, x, np.array([3, 5]), np.array([1.0, np.nan], np.float32)), steered, atol=1e-5
    )
    np.testing.assert_allclose(splice.some_latents(sae, x, np.array([3, 5])), latents[:, [3, 5]], atol=1e-6)
    pieces = score(sae, jnp.asarray(x.reshape(20, -1)))
    np.testing.assert_allclose(pieces.fvu, whole.fvu, rtol=1e-6)
    np.testing.assert_array_equal(pieces.density, whole.density)
    jax.clear_caches()


def test_a_basis_is_folded_in_blocks_to_the_same_bits(monkeypatch):
    sae, rng = sae_of(), np.random.default_rng(0)
    rows = jnp.asarray(rng.standard_normal((200, TINY.d_model)) @ rng.standard_normal((TINY.d_model,) * 2), jnp.float32)
    found = basis.principal_basis(rows)
    whole = basis.fold_basis(sae, found)
    monkeypatch.setattr(basis, "LATENTS", 16)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(basis.fold_basis(sae, found)), strict=True):
        np.testing.assert_array_equal(one, other)


def samples_of(n: int = 40) -> Samples:
    columns = tiny_splits(seed=5, n=n)["test"]
    return Samples(columns["input_ids"] % 20 + 97, np.full_like(columns["labels"], -100), columns["attention_mask"])


def read(tiny_pt, saes=None, **more):
    model = load_restoration_model(tiny_pt)
    saes = saes or [sae_of(k=6, architecture="topk"), sae_of(k=6, architecture="topk", seed=1)]
    layers = [LayerSAE(layer, sae) for layer, sae in zip((1, 2), saes, strict=True)]
    return inspect_all(model, samples_of(), layers, other_seeds=[[sae] for sae in saes[::-1]], **more)


def figures(found) -> str:
    """What does not depend on how products are cut, to the last bit; and the neighbours."""
    out = []
    for one in found:
        features = [one.feature(latent).as_json() for latent in range(D_SAE)]
        for feature in features:
            for name in ("promotes", "suppresses", "nearest"):
                feature[name] = [row[next(iter(row))] for row in feature[name]]
            feature["mean"] = round(feature["mean"], 6)
            feature["found_again"]["cosine"] = round(feature["found_again"]["cosine"], 5)
        scores = [[s.as_json(), s.run.tolist(), s.chosen.tolist()] for s in one.concept_scores]
        out += [features, scores, [caption.as_json() for caption in one.captions], one.stability.jaccard.tolist()]
    matches = found[0].matched_latents(found[1])
    return json.dumps([out, [(one.by_firing, one.jaccard) for one in matches]])


def test_an_inspection_in_pieces_is_the_same(tiny_pt, monkeypatch, request):
    whole = figures(read(tiny_pt, pattern="a"))
    request.getfixturevalue("narrow")
    monkeypatch.setattr(inspection, "WIDE", D_SAE - 1)
    found = read(tiny_pt, pattern="a")
    assert figures(found) == whole
    several = [one.as_json() for one in found[0].features([7, 3])]
    assert [one["feature"] for one in several] == [7, 3]
    nearest = found[0].nearest[0]
    assert [[row["feature"] for row in one["nearest"]] for one in several] == [nearest[7].tolist(), nearest[3].tolist()]
    # and as it is kept
    for one, following in ((found[0], found[1]),):
        stored = kept_parts.pack_statistics(one.statistics)
        again = kept_parts.unpack_statistics(stored, D_SAE, one.statistics.judged)
        for name in ("cofiring", "by_character"):
            np.testing.assert_array_equal(getattr(again, name).matrix(), getattr(one.statistics, name).matrix())
        packed = kept_parts.pack_cofiring(one.cofiring_with_next)
        counts = kept_parts.unpack_cofiring(packed, D_SAE, following.sae.d_sae)
        np.testing.assert_array_equal(counts.matrix(), one.cofiring_with_next.matrix())


def test_captions_in_blocks_are_the_same(monkeypatch):
    text = JudgedText.of(joined([sample("a-na šar-ri " + "abc"[i % 3] * 5) for i in range(40)]))
    values = random_fires((len(text), 12), 0.1) * text.true_ids[:, None] % 7
    marked = MarkedText(text, [], np.zeros((0, len(text)), bool))
    whole = captions.captions(firings_of(text, values), marked)
    assert any(one.family for one in whole)
    monkeypatch.setattr(captions, "AT_ONCE", 1)
    assert captions.captions(firings_of(text, values), marked) == whole


def test_what_is_left_out_is_said(tiny_pt, monkeypatch, capsys, narrow):
    from jaxsae.cli import inspect_tables

    monkeypatch.setattr(pair_counts, "MOST_PAIRS", 30)
    monkeypatch.setattr(consistency, "MOST_PAIRED", D_SAE - 1)
    monkeypatch.setattr(report, "MOST_FEATURES", 10)
    found = read(tiny_pt)
    inspect_tables.show_overview("sae.pt", found[0], ["other.pt"])
    out = " ".join(capsys.readouterr().out.split())
    assert "together left out: more than 30 pairs of features fire together" in out
    assert "PW-MCC left out" in out
    assert found[0].as_json()["together"] == "left out"
    assert found[0].feature(3).fires_with == []
    page = report.page(found, ["a", "b"], "text")
    assert "40 features of layer 1 (a), of which 10 are shown" in page
    assert "From layer 1 to 2: left out" in page
    stored = kept_parts.pack_statistics(found[0].statistics)
    again: LatentStatistics = kept_parts.unpack_statistics(stored, D_SAE, found[0].statistics.judged)
    assert again.cofiring.left_out


def test_rows_of_no_latents_are_no_rows():
    nothing = np.zeros(0, np.int64)
    none = ActiveLatents(nothing, nothing, np.zeros(0, np.float32), 3, 5)
    assert none.of_rows(np.array([True, False, True])).dense().tolist() == [[0] * 5] * 2


WIDE, MOST_BYTES = 131_072, 2**30 + 2**28
RUN = """
import sys
from jaxsae import runtime
from jaxsae.cli.main import run_command
from jaxsae.features import report
report.MOST_FEATURES = 1000  # for time, not for memory
for line in sys.stdin.read().splitlines():
    sys.argv = line.split()
    try:
        run_command(sys.argv[0], prog="jaxsae")
    except SystemExit as ended:
        assert not ended.code, ended.code
print("peak", runtime.peak_memory())
"""


def test_a_wide_sae_is_read_in_bounded_memory(tmp_path):
    """The whole process; a table of all pairs of latents would have 64 GiB, a batch of the text's latents 0.4."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((WIDE, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    arrays = rows.T.copy(), np.zeros(WIDE, np.float32), rows, np.zeros(64, np.float32)
    sae = SAE(*map(jnp.asarray, arrays), architecture="topk", k=16)
    save_sae(tmp_path / "sae.pt", sae, SAEConfig(64, WIDE, 0.0, 16, "topk"), extra={"layer": 3})
    flags = f"--sae {tmp_path}/sae.pt --split validation"
    wanted = f"--pattern na --feature 5 --html {tmp_path}/page.html --json {tmp_path}/inspected.json"
    lines = [f"evaluate {flags} --max-samples 2 --json {tmp_path}/evaluated.json"]
    lines += [f"inspect {flags} --num-samples 4 {wanted}"]
    ran = subprocess.run(
        [sys.executable, "-c", RUN], input="\n".join(lines), capture_output=True, text=True, env=dict(os.environ)
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[-1]) < MOST_BYTES
    figures, evaluated = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("inspected", "evaluated"))
    assert figures["d_sae"] == WIDE
    assert len(figures["features"]["firing_rate"]) == WIDE
    assert 0 < figures["l0"] <= 16
    assert "left out" not in figures.get("together", "")
    assert 0 < evaluated[0]["l0"] <= 16
    assert (tmp_path / "page.html").stat().st_size < 2**25
