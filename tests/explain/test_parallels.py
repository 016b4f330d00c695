"""Parallels on a planted model whose latents are the letters of the text, against a second, dense implementation."""

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from helpers import sample

from jaxsae.errors import InputError, require
from jaxsae.explain import parallel_index
from jaxsae.explain.parallel_index import open_index, write_index
from jaxsae.explain.parallels import BY, build, find
from jaxsae.explain.passages import passage_around, passages
from jaxsae.sae.autoencoder import SAE
from jaxsae.text.samples import joined
from jaxsae.text.tokenizer import CharacterTokenizer

D, WIDTH = 30, 150
IDENTITY = SAE(jnp.eye(D), jnp.zeros(D), jnp.eye(D), jnp.zeros(D))
OTHER = dataclasses.replace(IDENTITY, b_enc=jnp.full(D, 1e-3))
TEXTS = [
    "lugal kur kur ra ke e an na mu un du lugal kur kur ra ke e an na mu un du lugal kur kur ra ke e an na mu un du",
    "a na be li ia qi bi ma um ma warad ka ma a na be li ia qi bi ma um ma",
    "sum ma am u tu",
    "sum ma iz bu sar ru im qut sum ma iz bu sar ru im qut sum ma iz bu sar ru i bel",
    "sum ma iz bu sar ru im qut sum ma",
    "x",
    "",
]


class Planted:
    """A model whose residual stream is the letter: latent 0 for a, 1 for b, ...; nothing for a space or damage."""

    n_layers, d_model, max_position, dtype, hook = 2, D, WIDTH, np.float32, "resid_post"
    tokenizer = CharacterTokenizer(8000)

    def check_layer(self, layer):
        require(layer in (0, 1), f"layer must be in 0..1, got {layer}")

    def stream(self, ids, mask=None):
        letter = np.asarray(ids) - 97
        x = (letter[..., None] == np.arange(D)).astype(np.float32) * (1 + np.arange(D) / D).astype(np.float32)
        yield jnp.asarray(x)
        yield jnp.asarray(2 * x)

    def activations(self, ids, mask=None, *, layer):
        return list(self.stream(ids, mask))[layer]

    def logits(self, ids, mask=None, *, places, layer=None, x=None):
        raise NotImplementedError


MODEL = Planted()


def corpus(texts=TEXTS, damage=None):
    return joined([sample(text, damage if len(text) > 20 else None, WIDTH) for text in texts])


def built(**more):
    return build(MODEL, corpus(**more), IDENTITY, 1, about={"model_sha256": "m"})


@pytest.fixture(scope="module")
def index():
    return built()


@pytest.fixture
def folder(index, tmp_path):
    write_index(tmp_path / "index", index)
    return tmp_path / "index"


def vector(text, scale):
    """Of the latents."""
    sums = np.array([2 * (1 + i / D) * text.count(chr(97 + i)) for i in range(D)])
    out = np.log(1 + 4 * sums / scale)
    return out / np.linalg.norm(out)


def grams(text):
    return [text[i : i + n] for n in (2, 3, 4) for i in range(len(text) - n + 1)]


def reference(query, by, around=None):
    """(score, text, start, query start) of each passage, the best first, one of each text: dense, word by word."""
    every = [(i, one) for i, text in enumerate(TEXTS) for one in passages(text)]
    strings = [TEXTS[i][one.start : one.end] for i, one in every]
    sums = [[2 * (1 + i / D) * text.count(chr(97 + i)) for i in range(D)] for text in strings]
    scale = np.median([value for row in sums for value in row if value])
    frequency = {gram: sum(gram in text for text in strings) for text in strings for gram in grams(text)}
    idf = {g: np.log((1 + len(strings)) / (1 + n)) + 1 for g, n in frequency.items() if n >= 2}

    def letters(text):
        found = {g: (1 + np.log(grams(text).count(g))) * idf[g] for g in grams(text) if g in idf}
        norm = np.sqrt(sum(value**2 for value in found.values()))
        return {g: value / norm for g, value in found.items()}

    asked = passages(query) if around is None else [passage_around(query, around)]
    scored = []
    for (number, one), string in zip(every, strings, strict=True):
        for of in asked:
            mine = query[of.start : of.end]
            a, b = letters(mine), letters(string)
            cosines = vector(mine, scale) @ vector(string, scale), sum(a[g] * b[g] for g in a.keys() & b.keys())
            scored.append((np.dot(BY[by], cosines), number, one.start, of.start))
    scored = sorted((one for one in scored if one[0] > 1e-9), key=lambda one: -one[0])
    seen = set()
    return [one for one in scored if not (one[1] in seen or seen.add(one[1]))]


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("query", [TEXTS[0][:75], "sum ma iz bu li na", "lu lu lugal kur #u## ra ke"])
@pytest.mark.parametrize("around", [None, 5])
def test_results_are_those_of_a_plain_implementation(index, query, by, around):
    found = find(index, MODEL, IDENTITY, query, position=around, by=by)
    expected = reference(query, by, around)
    assert [one.score for one in found] == pytest.approx([score for score, *_ in expected], abs=1e-5)
    scores = [score for score, *_ in expected]
    if min(map(float, np.diff(scores[::-1])), default=1) > 1e-4:  # equal ones may come in any order
        assert [(one.text_number, one.start, one.query_start) for one in found] == [one[1:] for one in expected]


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("number", range(5))
def test_a_text_finds_itself_first(index, number, by):
    (first, *others) = find(index, MODEL, IDENTITY, TEXTS[number], by=by)
    assert first.score == pytest.approx(1, abs=1e-5)
    same = [one.text_number for one in others if one.score > 1 - 1e-5]
    assert number in [first.text_number, *same]
    assert len({one.text_number for one in (first, *others)}) == 1 + len(others)
    assert all(a.score >= b.score for a, b in itertools.pairwise([first, *others]))
    assert first.passage == TEXTS[first.text_number][first.start : first.end]


def test_latents_find_what_letters_do_not(index):
    query = "mus um ut ma a"
    assert sorted(query) == sorted(TEXTS[2])
    first = find(index, MODEL, IDENTITY, query, by="latents")[0]
    assert (first.text_number, first.score) == (2, pytest.approx(1))
    assert find(index, MODEL, IDENTITY, query, by="letters", top=1)[0].score < 0.9
    assert not find(index, MODEL, IDENTITY, "v v v", by="letters")


def test_shares_add_up_and_name_what_is_in_both(index):
    for query, by in itertools.product(("sum ma", TEXTS[1]), BY):
        for one in find(index, MODEL, IDENTITY, query, by=by):
            assert one.letters + sum(shared.share for shared in one.shared) <= 1 + 1e-5
            if by != "letters" and len(set(query) - {" "}) <= 10:
                assert one.letters + sum(shared.share for shared in one.shared) == pytest.approx(1, abs=1e-5)
            here = query[one.query_start : one.query_end]
            assert all(chr(97 + shared.feature) in set(here) & set(one.passage) for shared in one.shared)
            assert all(shared.caption == index.captions[shared.feature] for shared in one.shared)
            assert bool(one.shared) == (by != "letters")


def test_a_place_is_looked_for_by_the_passage_around_it(index):
    query = f"{'x ' * 50}sum ma am u tu{' x' * 8}"
    (first, *_) = find(index, MODEL, IDENTITY, query, position=110, by="letters")
    assert first.query_start > 50
    assert first.query_start <= 110 <= first.query_end


def test_the_corpus_is_read_as_it_was_before_the_damage(index):
    damaged = built(damage={3: "#", 4: "#", 8: "-"})
    for part in ("starts", "passages", "weights"):
        np.testing.assert_array_equal(getattr(damaged.latents, part), getattr(index.latents, part))
        np.testing.assert_array_equal(getattr(damaged.letters, part), getattr(index.letters, part))
    assert damaged.texts == TEXTS


def test_the_same_is_found_in_memory_and_on_disk(index, folder):
    opened = open_index(folder, "m", IDENTITY, 1)
    for query in TEXTS[:5]:
        assert find(opened, MODEL, IDENTITY, query) == find(index, MODEL, IDENTITY, query)
    assert (opened.texts, opened.captions) == (index.texts, index.captions)


def test_large_arrays_stay_on_disk(tmp_path):
    write_index(tmp_path / "index", built(texts=[f"{text} {'abc' * n}" for text in TEXTS for n in range(12)]))
    opened = open_index(tmp_path / "index")
    assert all(isinstance(of.weights, np.memmap) for of in (opened.latents, opened.letters))


@pytest.mark.parametrize("text", ["x", "- -", "#"])
def test_a_corpus_with_nothing_to_share_is_an_index(tmp_path, text):
    """One passage: no n-gram is in two; without letters no latent fires."""
    write_index(tmp_path / "index", built(texts=[text]))
    opened = open_index(tmp_path / "index", "m", IDENTITY, 1)
    assert [one.score for one in find(opened, MODEL, IDENTITY, "x")] == ([pytest.approx(0.8)] if text == "x" else [])
    assert not find(opened, MODEL, IDENTITY, "##")


def test_another_model_sae_or_layer_is_refused(folder):
    for given, word in (("n", IDENTITY, 1), "model"), (("m", OTHER, 1), "SAE"), (("m", IDENTITY, 0), "layer"):
        with pytest.raises(InputError, match=f"must be of the {word} given") as raised:
            open_index(folder, *given)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="d_in of the SAE must be 30"):
        build(MODEL, corpus(), SAE(jnp.eye(4), jnp.zeros(4), jnp.eye(4), jnp.zeros(4)), 1, about={})


@pytest.mark.parametrize(
    ("key", "value"),
    [("version", 2), ("format", "x"), ("sizes", {}), ("sizes", None), ("texts", 1), ("passages", 3), ("layer", None)],
)
def test_a_head_that_says_something_else_is_refused(folder, key, value):
    head = json.loads((folder / "index.json").read_text())
    inner = head["sizes"] if key in head["sizes"] else head
    inner.pop(key)
    inner |= {} if value is None else {key: value}
    (folder / "index.json").write_text(json.dumps(head))
    with pytest.raises(InputError, match=re.escape(str(folder))):
        open_index(folder)


@pytest.mark.parametrize("name", sorted([*parallel_index.COLUMNS, "texts.json", "captions.json", "index.json"]))
def test_a_damaged_index_is_refused(folder, name):
    """Cut short, gone, of another type, and with numbers that lead out of it."""
    path = folder / (name if name.endswith("json") else f"{name}.npy")
    whole = path.read_bytes()
    wrong = [whole[: len(whole) // 2], None]
    if path.suffix == ".npy":
        array = np.load(path)
        changed = [array[:-1], array.astype(np.float64), array.reshape(1, *array.shape)]
        if name in ("passages", "latents_starts", "latents_passages", "letters_starts", "letters_passages"):
            changed += (
                [array - 1, array + 10**6, array[::-1].copy()] if "starts" in name else [array - 1, array + 10**6]
            )
        for one in changed:
            np.save(path, one)
            wrong.append(path.read_bytes())
    for content in wrong:
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=re.escape(str(folder))):
            open_index(folder)


@pytest.mark.parametrize("saved", [0, 1, 5])
def test_what_is_interrupted_leaves_nothing(index, tmp_path, monkeypatch, saved):
    count, save = itertools.count(), np.save

    def interrupted(*given):
        if next(count) == saved:
            raise KeyboardInterrupt
        save(*given)

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_index(tmp_path / "index", index)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
import numpy as np
from jaxsae.explain.parallel_index import open_index, write_index
index, save, saved = open_index(sys.argv[1]), np.save, []
def killed(*given):
    save(*given)
    saved.append(given)
    if len(saved) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
np.save = killed
write_index(sys.argv[2], index)
"""


def test_what_is_killed_leaves_no_index_and_the_next_run_clears_up(index, folder, tmp_path):
    target = tmp_path / "elsewhere" / "index"
    done = subprocess.run([sys.executable, "-c", KILLED, folder, target], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    assert list(target.parent.iterdir())
    write_index(target, index)
    assert list(target.parent.iterdir()) == [target]
    assert open_index(target).texts == TEXTS


def test_a_folder_with_something_in_it_is_not_written_over(index, tmp_path):
    (tmp_path / "index").mkdir()
    write_index(tmp_path / "index", index)
    with pytest.raises(InputError, match="must not exist"):
        write_index(tmp_path / "index", index)
    assert open_index(tmp_path / "index").texts == TEXTS


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("", {}, "at least one character"),
        ("   ", {}, "must have a word"),
        ("a " * 100, {}, "at most 150 characters"),
        ("a b", {"position": 3}, "position must be in 0..2, got 3"),
        ("a b", {"position": -1}, "position must be in 0..2, got -1"),
        ("a b", {"top": 0}, "top must be at least 1"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(index, text, more, message):
    with pytest.raises(InputError, match=message):
        find(index, MODEL, IDENTITY, text, **more)


def test_texts_without_words_make_no_index():
    with pytest.raises(InputError):
        build(MODEL, corpus([" ", "  "]), IDENTITY, 1, about={})
