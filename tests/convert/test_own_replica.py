"""A replica of one's own, that of its page: what is wrong in it is found when it is opened or verified."""

import dataclasses
import json
import re
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_line_error

from convert import read_checkpoint
from convert.own_replica import check_same
from convert.table import Entry, to_flax_names
from jaxsae.errors import InputError
from jaxsae.models.own import Shape
from jaxsae.models.torch_model import TorchModel

PAGE = (ROOT / "examples" / "own_model.md").read_text()
FILES = {code.splitlines()[0][2:]: code for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)}
TEXTS = "\n".join(f"the {n}th house of the lord of the land, {n * 7}" for n in range(20))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """The page's files in a folder, pieces of one replaced; the reference stays as it is."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def write(name=None, *changes):
        for module in ("hooked", "their_model"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        for file in ("their_model.py", "hooked.py", "replica.py"):
            code = FILES[file]
            for old, new in changes if file == name else ():
                assert old in code, old
                code = code.replace(old, new)
            (tmp_path / file).write_text(code)
        (tmp_path / "reference.py").write_text(FILES["hooked.py"])
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / "validation.txt").write_text(TEXTS)
        return "replica.py:load"

    return write


def verify(script, *more):
    flags = ("--checkpoint", "replica.py:load", "--reference", "reference.py:load", "--texts", "texts")
    return script("verify", *flags, *more)


def test_logits_are_a_row_of_the_table(write, script, tmp_path, quick_compiles):
    write()
    ran = verify(script, "--json", "out.json")
    assert ran.status == 0, ran
    rows = json.loads((tmp_path / "out.json").read_text())["layers"]
    assert [row["layer"] for row in rows] == [0, 1, 2, "logits"]
    assert all(row["passed"] and row["positions"] == rows[0]["positions"] for row in rows)
    assert re.search(r"logits +. ok", ran.out), ran.out


@pytest.mark.parametrize(
    "change",
    [
        ("self.norm = nnx.LayerNorm(d, epsilon=1e-5", "self.norm = nnx.LayerNorm(d, epsilon=1e-2"),
        ("return self.norm, self.out", "return nnx.Dropout(0), self.out"),
    ],
    ids=["epsilon", "no norm"],
)
def test_a_wrong_head_fails(write, script, tmp_path, change, quick_compiles):
    write("replica.py", change)
    ran = verify(script, "--json", "out.json")
    assert ran.status == 1, ran
    passed = {row["layer"]: row["passed"] for row in json.loads((tmp_path / "out.json").read_text())["layers"]}
    assert passed == {0: True, 1: True, 2: True, "logits": False}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("causal=True", "causal=True, mask_id=5"), ("damaged_id (mask_id)", "got 5 of the replica and None of")),
        (("causal=True", "causal=True, frame=((1,), ())"), ("frame", "got ((1,), ()) of", "and ((), ()) of")),
        (("causal=True", "causal=True, padding_id=3"), ("padding_id", "got 3 of", "and 0 of")),
        (("causal=True", "causal=False"), ("causal", "got False of", "and True of")),
        (
            ('text.encode("ascii"', 'text.upper().encode("ascii"'),
            ("encode", "got 84 of", "and 116 of", "at token 0 of text 0"),
        ),
        (('"ignore"))', '"ignore"))[:20]'), ("encode", "got nothing of", "and 32 of", "at token 20 of text 0")),
        (("[chr(i) for", "[chr(i).upper() for"), ("pieces", "got 'A' of", "and 'a' of", "for id 97")),
    ],
    ids=["mask", "frame", "padding", "causal", "encode", "length", "pieces"],
)
def test_texts_that_are_read_otherwise_are_refused(write, script, change, parts, quick_compiles):
    write("hooked.py", change)
    ran = verify(script)
    said = "".join(line for line in ran.err.splitlines(keepends=True) if not line.startswith("note: "))
    assert_one_line_error(dataclasses.replace(ran, err=said), *parts)


def test_sizes_that_differ_are_refused(write, quick_compiles):
    ours, theirs = read_checkpoint(write()).config, read_checkpoint("reference.py:load")
    check_same(ours, theirs)
    with pytest.raises(InputError, match="max_position must be the same in both, got 32 of the replica and 64 of"):
        check_same(dataclasses.replace(ours, max_position=32), theirs)
    larger = dataclasses.replace(ours.tokenizer, vocab_size=130)
    with pytest.raises(InputError, match="vocab_size must be the same in both, got 130 of the replica and 128 of"):
        check_same(dataclasses.replace(ours, tokenizer=larger), theirs)
    with pytest.raises(InputError, match="n_layers must be the same in both, got 2 of the replica and 3 of"):
        check_same(ours.with_layers(2), theirs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("return self.norm, self.out", "return self.norm, lambda x: x"),
            "norm_and_head must be two Flax modules, got",
        ),
        (("return self.norm, self.out", "return self.norm"), "norm_and_head must be two Flax modules, got LayerNorm"),
        (("return self.norm, self.out", "return self.norm, self.nothing"), "norm_and_head must run .* AttributeError"),
        (
            ("return self.norm, self.out", "return self.norm, self.norm"),
            r"logits must be \[1, 2, 128\], got \[1, 2, 48\]",
        ),
        (("return self.norm, self.out", "return self.out, self.norm"), "logits must run on two tokens, got"),
        (("self.up(self.norm2(x))", "self.nothing(x)"), "activations must run on two tokens, got AttributeError"),
        (
            ("def hidden(self", "def mlp_out(self, x):\n        return x\n\n    def other(self"),
            "neurons must run .* NotImpl",
        ),
    ],
    ids=["function", "one", "attribute", "width", "order", "block", "neurons"],
)
def test_what_does_not_run_is_said_when_it_is_opened(write, change, said, quick_compiles):
    path = write("replica.py", change)
    with pytest.raises(InputError, match=rf"^replica.py: load\(\): {said}") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_tied_embeddings_as_the_page_says(write, quick_compiles):
    tied = """class Tied(nnx.Module):
    def __init__(self, embed):
        self.embed = embed

    def __call__(self, x):
        return matmul(x, self.embed.embedding[...].T)


class Replica("""
    given = ("import attention\n", "import attention, matmul\n"), ("class Replica(", tied)
    model = read_checkpoint(
        write("replica.py", *given, ("self.norm, self.out\n", "self.norm, Tied(self.embed)\n"))
    ).model()
    x = np.asarray(model.norm(model.resid_post(np.arange(4)[None], layer=2)))
    np.testing.assert_allclose(model(np.arange(4)[None]), x @ np.asarray(model.embed.embedding[...]).T, atol=1e-5)


def test_a_comment_makes_no_other_model(write, tmp_path, quick_compiles):
    first = read_checkpoint(write())
    (tmp_path / "replica.py").write_text(FILES["replica.py"] + "# a comment\n")
    second = read_checkpoint("replica.py:load")
    assert second.identity == first.identity
    assert second.code != first.code
    other = read_checkpoint(write("replica.py", ("class Replica(", "class Other("), ("Replica.", "Other.")))
    assert other.identity != first.identity


def test_the_shape_is_what_is_said_of_the_texts():
    about = {"mask_id": 3, "frame": ((1,), (2,)), "padding_id": 4, "max_position": 20}
    given = TorchModel(torch.nn.Embedding(9, 2), lambda text: [5] * len(text), lambda ids: ["ab" for _ in ids], **about)
    shape = Shape.of(given, n_layers=2, d_model=6)
    read = shape.tokenizer
    assert (shape.n_layers, shape.d_model, shape.max_position, shape.causal) == (2, 6, 20, False)
    assert (read.vocab_size, read.damaged_id, read.frame, read.padding_id) == (9, 3, ((1,), (2,)), 4)
    assert read.encode("abc").tolist() == [5, 5, 5]
    assert Shape.of(given, n_layers=2, d_model=6, vocab_size=11).tokenizer.vocab_size == 11
    with pytest.raises(InputError, match=r"Shape.of must know vocab_size.*got None; give vocab_size="):
        Shape.of(dataclasses.replace(given, module=torch.nn.Linear(2, 2)), n_layers=2, d_model=6)


def test_a_table_that_is_not_the_replicas_is_an_error_of_the_user():
    shapes = {"embed": (4, 2), "a_name_that_is_longer_than_sixty_characters.in_a_replica.by_itself.kernel": (2, 3)}
    long = list(shapes)[1]
    rows = [Entry("tokens", "embed", "same"), Entry("some.weight", long, "transpose")]
    tensors = {"tokens": np.zeros((4, 2)), "some.weight": np.zeros((3, 2))}
    assert to_flax_names(tensors, rows, shapes, "mine")[long].shape == (2, 3)
    with pytest.raises(InputError, match=f"mine: the table must name each parameter .* once, got no row for {long}$"):
        to_flax_names(tensors, rows[:1], shapes, "mine")
    with pytest.raises(InputError, match=r"got other is not there$"):
        to_flax_names(tensors, [*rows, Entry("x", "other", "same")], shapes, "mine")
    with pytest.raises(InputError, match=r"got embed twice$"):
        to_flax_names(tensors, [*rows, rows[0]], shapes, "mine")
    with pytest.raises(InputError, match=r"tokens is \[2, 4\] instead of \[4, 2\] \(transposed\?\)$"):
        to_flax_names(tensors | {"tokens": np.zeros((2, 4))}, rows, shapes, "mine")
    named = [Entry(f"{i}.{long}", f"{i}", "same") for i in range(5)]
    with pytest.raises(InputError, match=rf"5 differences: missing 0.{long}; missing 1.{long} and 3 more$"):
        to_flax_names({}, named, {f"{i}": (1,) for i in range(5)}, "mine")
