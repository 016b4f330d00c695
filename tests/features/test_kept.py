"""What a pass found and is kept beside an SAE: read again it is the same, and of anything else it is not read."""

import dataclasses
import functools
import itertools
import json
import pickle
import re
import threading
import time

import jax
import numpy as np
import pytest
import safetensors
from conftest import TINY
from flax import nnx

from jaxsae.config import SAEConfig
from jaxsae.features import inspection, kept, kept_parts
from jaxsae.features.concepts import Concept, load_concepts, sign_concepts
from jaxsae.features.firings import FiringLog, value_of
from jaxsae.features.inspection import inspect_all
from jaxsae.features.kept import FOLDER, Kept, Stored, kept_beside
from jaxsae.features.statistics import LayerSAE
from jaxsae.models.protocol import LazyModel
from jaxsae.models.restoration import RestorationModel
from jaxsae.sae.architectures import init
from jaxsae.text.samples import Samples

MODEL = RestorationModel(TINY, rngs=nnx.Rngs(0))
D_SAE = 33


def texts(n: int = 40) -> Samples:
    rng = np.random.default_rng(0)
    width = TINY.max_position
    mask = (np.arange(width) < rng.integers(5, width + 1, n)[:, None]).astype(np.int8)
    letters = np.array([ord(c) for c in "a-na be-lí-ia LUGAL.E šar-ra-ak um-ma "])
    ids = np.stack([np.resize(np.roll(letters, -shift), width) for shift in rng.integers(0, len(letters), n)])
    labels = np.where((rng.random((n, width)) < 0.2) & (mask != 0), ids, -100).astype(np.int32)
    ids = np.where(mask == 0, 32, np.where(labels == -100, ids, 35)).astype(np.int32)
    return Samples(ids, labels, mask)


def an_sae(seed: int, architecture: str = "topk") -> object:
    config = SAEConfig(TINY.d_model, D_SAE, architecture=architecture, k=5 if architecture == "topk" else None)
    return init(jax.random.key(seed), config)


SAMPLES = texts()
TOPK, RELU, OTHERS = an_sae(1), an_sae(2, "relu"), [an_sae(1), an_sae(3)]
CONCEPTS = [*load_concepts()[:7], *sign_concepts(SAMPLES, 2)]
FLAGS = {
    "one SAE": ([LayerSAE(1, TOPK)], {"compare": False}),
    "beside baselines": ([LayerSAE(1, TOPK)], {}),
    "other seeds": ([LayerSAE(1, TOPK)], {"other_seeds": [OTHERS]}),
    "a spelling": ([LayerSAE(1, TOPK)], {"pattern": "-ak"}),
    "padding": ([LayerSAE(1, RELU)], {"padding": "keep", "compare": False}),
    "two layers": ([LayerSAE(0, TOPK), LayerSAE(2, RELU)], {"other_seeds": [OTHERS, []]}),
}


@pytest.fixture
def ask(tmp_path):
    """Inspect with what is kept in a folder; what may not be needed then is an error."""

    def run(saes=FLAGS["one SAE"][0], samples=SAMPLES, model="the model", *, warm=False, only=MODEL, **how):
        def load():
            assert not warm, "the model was loaded"
            return only

        names = [f"sae{number}.pt" for number in range(len(saes))]
        padding = how.get("padding", "drop")
        places = [
            kept_beside(tmp_path / name, sae, layer, model, samples, padding)
            for name, (layer, sae) in zip(names, saes, strict=True)
        ]
        how = {"concepts": CONCEPTS, "compare": False, **how}
        return inspect_all(LazyModel(TINY, load), samples, saes, kept=places, **how)

    return run


def everything(found: list) -> str:
    """Every figure of inspections, to the last bit."""
    out = []
    for one in found:
        statistics = one.statistics
        scores = [(s.as_json(), s.concept.source, s.run.tolist(), s.chosen.tolist()) for s in one.concept_scores]
        out += [one.as_json(), scores, one.reading_order, [s.as_json() for s in one.discoveries]]
        out += [[one.feature(latent).as_json() for latent in range(statistics.d_sae)]]
        out += [[caption.as_json() for caption in one.captions], list(map(repr, one.captions))]
        out += [
            statistics.cofiring.matrix().tolist(),
            statistics.histogram.counts.tolist(),
            [x.as_json() for x in one.left_out],
        ]
        out += [[getattr(statistics.firings, name).tolist() for name in ("row", "column", "code", "judged")]]
        out += [one.pattern_detectors().as_json() if one.pattern else None]
    out += [[a.matched_latents(b) for a, b in itertools.pairwise(found)]]
    return json.dumps(out)


@functools.cache
def plain(flags: str) -> str:
    """Every figure where nothing is kept."""
    saes, how = FLAGS[flags]
    return everything(inspect_all(MODEL, SAMPLES, saes, concepts=CONCEPTS, **how))


@pytest.mark.parametrize("flags", FLAGS)
def test_what_is_read_again_is_the_same_to_the_last_bit(ask, flags):
    saes, how = FLAGS[flags]
    how = {"compare": True, **how}
    first = ask(saes, **how)
    assert everything(first) == plain(flags)
    assert all(one.kept.read_from is None for one in first)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("stream", "collect_statistics", "stability_of"):
            patched.setattr(inspection, name, None)
        patched.setattr(inspection.captions, "captions", None)
        patched.setattr(inspection.concept_scores, "concept_scores", None)
        patched.setattr(inspection.relations, "direct_logits", None)
        again = ask(saes, warm=True, **how)
        assert all(one.kept.read_from for one in again)
        if len(saes) == 1:
            assert everything(again) == plain(flags)
    assert everything(again) == plain(flags)  # how layers match is computed each time


def test_the_text_is_read_only_for_what_is_not_kept(ask, monkeypatch):
    """A comparison after a pass needs the stream alone; what comes with other concepts needs no stream."""
    saes, how = FLAGS["other seeds"]
    ask(saes, **how)
    read = []
    collect = inspection.collect_statistics
    monkeypatch.setattr(inspection, "collect_statistics", lambda *a, **k: read.append(a[2]) or collect(*a, **k))
    assert everything(ask(saes, compare=True, **how)) == plain("other seeds")
    assert read == [[]]  # no SAE
    few = everything(ask(saes, warm=True, concepts=CONCEPTS[:5], **how))
    assert few == everything(inspect_all(MODEL, SAMPLES, saes, concepts=CONCEPTS[:5], compare=False, **how))


def test_what_is_restored_without_latents_is_kept_for_these_settings(ask):
    settings = [(1, 0.0), (D_SAE - 1, 2.5), (2, 0)]
    expected = inspect_all(MODEL, SAMPLES, FLAGS["one SAE"][0], compare=False)[0].causal_effects(settings)
    first, again = ask()[0].causal_effects(settings), ask(warm=True)[0].causal_effects(settings)
    assert repr(expected) == repr(first) == repr(again)
    assert expected[0].elsewhere.positions > 0
    for other in ([(1, 0.5)],), (settings, 2):
        with pytest.raises(AssertionError, match="the model was loaded"):
            ask(warm=True)[0].causal_effects(*other)


def test_what_is_asked_often_stays_beside_a_spelling(ask, monkeypatch):
    for how in ({}, {"pattern": "-ak"}):
        everything(ask(**how))
    monkeypatch.setattr(inspection.captions, "captions", None)
    monkeypatch.setattr(inspection.concept_scores, "concept_scores", None)
    for how in ({}, {"pattern": "-ak"}):
        everything(ask(warm=True, **how))


def test_the_key_of_concepts_is_that_of_all_that_is_said_of_them():
    plain = Concept("a", "letter", "A", re.compile("x"), re.compile("y"), "damage", np.array([True, False]))
    fields = {
        "name": "b", "about": "sign", "title": "B", "pattern": re.compile("x", re.IGNORECASE), "unless": None,
        "labels": None, "truth": np.array([True, True]), "column": "genre",
    }  # fmt: skip
    others = [dataclasses.replace(plain, **{name: value}) for name, value in fields.items()]
    others += [dataclasses.replace(plain, pattern=re.compile("z")), dataclasses.replace(plain, truth=None)]
    assert list(fields) == [one.name for one in dataclasses.fields(Concept)]
    keys = [kept_parts.key_of_concepts(of) for of in ([], [plain], [plain, plain], *([one] for one in others))]
    assert len(set(keys)) == len(keys)


CHANGES = {
    "SAE": {"saes": [LayerSAE(1, TOPK.replace(b_dec=TOPK.b_dec + 1e-7))]},
    "threshold of the architecture": {"saes": [LayerSAE(1, TOPK.replace(k=4))]},
    "layer": {"saes": [LayerSAE(2, TOPK)]},
    "model": {"model": "another"},
    "padding": {"padding": "keep"},
    "samples": {"samples": SAMPLES[:39]},
    "text": {
        "samples": Samples(np.where(SAMPLES.ids == ord("u"), ord("a"), SAMPLES.ids), SAMPLES.labels, SAMPLES.mask)
    },
    "damage": {"samples": Samples(SAMPLES.ids, np.full_like(SAMPLES.labels, -100), SAMPLES.mask)},
    "seeds": {"other_seeds": [OTHERS[:1]]},
    "concepts": {"concepts": CONCEPTS[1:]},
    "code": {},
    "libraries": {},
}


@pytest.mark.parametrize("change", CHANGES)
def test_of_anything_else_nothing_is_read(ask, monkeypatch, change):
    ask(other_seeds=[OTHERS])
    same = ask(warm=True, other_seeds=[OTHERS])
    if change == "code":
        monkeypatch.setattr(kept, "sources", lambda: "changed")
    if change == "libraries":
        monkeypatch.setattr(jax, "__version__", "0")
    how = {"other_seeds": [OTHERS], **CHANGES[change]}
    if change == "concepts":
        assert ask(warm=True, **how)[0].captions != same[0].captions
        return
    with pytest.raises(AssertionError, match="the model was loaded"):
        ask(warm=True, **how)


def test_the_key_of_the_code_is_that_of_every_source_file(tmp_path):
    for name in ("a.py", "room/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1")
    seen = {kept.sources.__wrapped__(tmp_path)}
    (tmp_path / "room/b.py").write_text("x = 2")
    seen.add(kept.sources.__wrapped__(tmp_path))
    (tmp_path / "room/b.py").rename(tmp_path / "room/c.py")
    seen.add(kept.sources.__wrapped__(tmp_path))
    assert len(seen) == 3
    assert kept.sources.__wrapped__(tmp_path / "nowhere") is None
    assert kept.sources() == kept.sources.__wrapped__()


class Ruin:
    """Runs something where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def damaged(content: bytes, ran) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    out = {"empty": b"", "cut": content[: len(content) // 2], "one byte less": content[:-1], "more": content + b"0"}
    for at in [0, 7, 8, 9, *rng.integers(0, len(content), 25).tolist()]:
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        out[f"flipped at {at}"] = bytes(flipped)
    out["a pickle"] = pickle.dumps(Ruin(ran))
    out["a long header"] = (2**63).to_bytes(8, "little") + content[8:]
    return out


def test_a_damaged_file_is_as_good_as_none_and_is_replaced(ask, tmp_path):
    how = {"compare": True, "other_seeds": [OTHERS]}
    fresh = everything(ask(**how))
    files = sorted((tmp_path / FOLDER).rglob("*.safetensors"))
    names = ["captions", "compared", "relations", "stability", "statistics"]
    assert [file.stem for file in files] == names
    for file in files:
        content = file.read_bytes()
        with safetensors.safe_open(file, "numpy") as opened:
            key = opened.metadata()["key"]
        kept._read(file, key)
        for bad in damaged(content, tmp_path / "ran").values():
            file.write_bytes(bad)
            with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind
                kept._read(file, key)
    assert everything(ask(**how)) == fresh
    assert everything(ask(warm=True, **how)) == fresh
    assert not (tmp_path / "ran").exists()


def test_texts_that_were_given_up_stay_so(ask):
    """Of dense latents the firings on some texts alone are known."""
    statistics = ask()[0].statistics
    every = statistics.firings
    statistics.log = FiringLog(statistics.judged, D_SAE, most=len(every.row) // 3)
    statistics.log.add(every.row, every.column, value_of(every.code))
    del statistics.__dict__["firings"]
    few = statistics.firings
    assert 0 < few.judged.sum() < len(few.judged)
    again = kept_parts.unpack_statistics(kept_parts.pack_statistics(statistics), D_SAE, statistics.judged).firings
    for name in ("row", "column", "code", "judged"):
        np.testing.assert_array_equal(getattr(again, name), getattr(few, name))


def test_numbers_that_lead_nowhere_are_not_taken(ask, tmp_path):
    """Of a file with the right key and checksum that this code has not written."""
    saes = FLAGS["one SAE"][0]
    (first,) = ask(saes)
    first.feature(0)
    fresh = everything([first])
    place = first.kept
    statistics = kept_parts.pack_statistics(first.statistics)
    for name, value in (("row", 10**6), ("column", D_SAE), ("cofiring_at", D_SAE**2), ("drawn_sample", 40)):
        arrays = {**statistics.arrays, name: statistics.arrays[name].copy()}
        arrays[name].reshape(-1)[0] = value
        place.write("statistics", "", Stored(arrays, statistics.rest), lambda stored: stored)
        assert place.read("statistics", "", lambda stored: stored)  # it is whole
        assert everything(ask(saes)) == fresh
        assert everything(ask(saes, warm=True)) == fresh
    for name, array in (("peak", statistics.arrays["peak"][:-1]), ("fired", statistics.arrays["peak"])):
        place.write(
            "statistics", "", Stored({**statistics.arrays, name: array}, statistics.rest), lambda stored: stored
        )
        assert everything(ask(saes)) == fresh
    place.write("captions", first.marks.key, Stored({}, [{"text": "x"}] * D_SAE), lambda stored: stored)
    place.write("relations", "", Stored({"nearest": np.zeros((1, 1))}), lambda stored: stored)
    assert everything(ask(saes, warm=False)) == fresh


@pytest.mark.parametrize("why", ["a file in its place", "a link", "off", "no sources", "too large"])
def test_where_nothing_can_be_kept_the_answers_are_the_same(ask, tmp_path, monkeypatch, why):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if why == "a file in its place":
        (tmp_path / FOLDER).write_text("mine")
    if why == "a link":
        (tmp_path / FOLDER).symlink_to(elsewhere)
    if why == "off":
        monkeypatch.setenv("JAXSAE_CACHE", "off")
    if why == "no sources":
        monkeypatch.setattr(kept, "sources", lambda: None)
    if why == "too large":
        monkeypatch.setattr(kept, "MOST_BYTES", 100)
    for _ in range(2):
        assert everything(ask()) == plain("one SAE")
    assert not list(elsewhere.iterdir())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_is_kept_is_switched_off_where_it_is_there(ask, monkeypatch):
    ask()
    monkeypatch.setenv("JAXSAE_CACHE", "off")
    with pytest.raises(AssertionError, match="the model was loaded"):
        ask(warm=True)
    monkeypatch.setenv("JAXSAE_CACHE", "on")
    ask(warm=True)


def test_git_does_not_see_it_and_nothing_else_is_written(ask, tmp_path):
    ask()
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    assert (tmp_path / FOLDER / ".gitignore").read_text() == "*\n"
    assert [path.name for path in (tmp_path / FOLDER).iterdir() if path.is_dir()] == ["sae0.pt.kept"]


def test_several_may_write_at_once(tmp_path):
    """Whoever reads gets one of what was written, whole."""
    sizes, seen = (10, 50_000), set()

    def place():
        return Kept(tmp_path / FOLDER / "sae.pt.kept", "key")

    def write(n, times=20):
        for _ in range(times):
            place().write("part", "", n, lambda n: Stored({"a": np.full(n, n)}, n))

    write(10, 1)
    writers = [threading.Thread(target=write, args=(n,)) for n in sizes]
    for one in writers:
        one.start()
    while any(one.is_alive() for one in writers):
        time.sleep(0.001)  # the writers are to get on
        got = place().read("part", "", lambda stored: stored)
        assert got is not None
        assert got.arrays["a"].shape == (got.rest,)
        assert (got.arrays["a"] == got.rest).all()
        seen.add(got.rest)
    assert seen <= set(sizes)
    assert [path.name for path in (tmp_path / FOLDER / "sae.pt.kept").iterdir()] == ["part.safetensors"]
