"""What comes from outside and is wrong: status 2, one line that says what must hold, and an output folder untouched."""

import json
import pickle
import zipfile

import jax
import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY, assert_one_line_error, checkpoint_content, tiny_splits

from convert import save_sae
from jaxsae.activations import store
from jaxsae.config import SAEConfig
from jaxsae.sae.architectures import init
from jaxsae.text import arrow

RAN = "jaxsae-was-fooled"


class Evil:
    """Unpickled by a reader that runs what it reads, it makes a file."""

    def __reduce__(self):
        return (eval, (f"open({RAN!r}, 'w')",))


# -------------------------------------------------------------------------------------------------------- checkpoints


def changed_content(**changes):
    content = checkpoint_content()
    content["config"] |= changes
    return content


def saved(path, content):
    torch.save(content, path)
    return path


def with_tensor(path, change, name="layers.1.attn.q_proj.weight"):
    content = checkpoint_content()
    tensors = content["model_state_dict"]
    name = next(key for key in tensors if key.endswith(name.split(".", 2)[-1]) and "1" in key)
    tensors[name] = change(tensors[name])
    return saved(path, content)


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """A good file, its entries as `change` has them."""
    good = saved(path.with_suffix(".good"), checkpoint_content())
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name.split("/")[-1], old.read(name)))
    return path


def written(path, content):
    path.write_bytes(content)
    return path


def bytes_of(path, change):
    return written(path, change(saved(path, checkpoint_content()).read_bytes()))


def flipped(content):
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


def nan_at(tensor, value=float("nan")):
    tensor = tensor.clone()
    tensor.view(-1)[3] = value
    return tensor


CHECKPOINTS = {
    "a pickle that runs code": (lambda p: saved(p, {"config": Evil()}), "eval (nothing was run)"),
    "code beside good tensors": (lambda p: saved(p, checkpoint_content() | {"x": Evil()}), "eval (nothing was run)"),
    "a whole module (tl_model.pt)": (lambda p: saved(p, torch.nn.Linear(2, 2)), "must hold tensors and numbers only"),
    "a Git LFS pointer": (lambda p: written(p, b"version https://git-lfs.github.com/spec/v1\noid x"), "git lfs pull"),
    "an HTML page": (lambda p: written(p, b"<!DOCTYPE html><html>"), "an HTML page (a failed download?)"),
    "an empty file": (lambda p: written(p, b""), "got an empty file"),
    "text": (lambda p: written(p, b"weights"), "must be a zip file as torch.save writes it"),
    "a bare pickle": (lambda p: written(p, pickle.dumps({"a": 1})), "a bare pickle"),
    "half a file": (lambda p: bytes_of(p, lambda b: b[: len(b) // 2]), "truncated or damaged"),
    "a flipped bit": (lambda p: bytes_of(p, flipped), "checksums must hold"),
    "a zip bomb": (lambda p: rewritten(p, lambda n, b: b, zipfile.ZIP_DEFLATED), "stored uncompressed"),
    "a pickle that is damaged": (
        lambda p: rewritten(p, lambda n, b: b[:-9] if n == "data.pkl" else b),
        "must be a file as torch.save writes it",
    ),
    "big-endian numbers": (
        lambda p: rewritten(p, lambda n, b: b"big" if n == "byteorder" else b),
        "little-endian order, got b'big'",
    ),
    "a storage that is too short": (
        lambda p: rewritten(p, lambda n, b: b[:8] if n == "0" else b),
        "must have the length that is declared, got 8 bytes",
    ),
    "no such file": (lambda p: p, "got no such file"),
    "a folder of something else": (lambda p: p.mkdir() or p, "a folder made by convert_weights.py"),
    "a list": (lambda p: saved(p, [1, 2]), "must hold a dict, got list"),
    "no weights": (lambda p: saved(p, {"config": {}}), "must have model_state_dict and config, got config"),
    "no config": (lambda p: saved(p, {"model_state_dict": {}}), "must have model_state_dict and config"),
    "an SAE": (lambda p: sae_file(p), "give the best_model.pt of the restoration model"),
    "whole numbers as weights": (
        lambda p: with_tensor(p, lambda t: t.int()),
        "dense floating-point numbers, got int32",
    ),
    "complex weights": (lambda p: with_tensor(p, lambda t: t.to(torch.complex64)), "ComplexFloatStorage"),
    "a weight that is NaN": (lambda p: with_tensor(p, nan_at), "must be finite, got NaN or infinity"),
    "a weight that is infinite": (lambda p: with_tensor(p, lambda t: nan_at(t, float("inf"))), "must be finite"),
    "a weight that is a number": (lambda p: with_tensor(p, lambda t: 3.0), "must be a tensor, got float"),
    "a tensor of another shape": (
        lambda p: with_tensor(p, lambda t: t[:-1].clone()),
        "is [29, 30] instead of [30, 30]",
    ),
    "a tensor of another name": (
        lambda p: saved(
            p,
            checkpoint_content()
            | {"model_state_dict": {"x": torch.ones(2)} | checkpoint_content()["model_state_dict"]},
        ),
        "unknown x",
    ),
    "a tensor that is missing": (
        lambda p: saved(
            p,
            checkpoint_content()
            | {"model_state_dict": dict(list(checkpoint_content()["model_state_dict"].items())[1:])},
        ),
        "missing embed.weight",
    ),
    "a width that is a word": (
        lambda p: saved(p, changed_content(d_model="wide")),
        "d_model must be a whole number in 1..",
    ),
    "a negative width": (lambda p: saved(p, changed_content(d_model=-4)), "d_model must be a whole number in 1.."),
    "heads that do not divide": (
        lambda p: saved(p, changed_content(n_heads=7)),
        "d_model must be divisible by n_heads",
    ),
    "a thousand million layers": (
        lambda p: saved(p, changed_content(n_layers=10**9)),
        "n_layers must be a whole number in 1..",
    ),
    "another vocabulary": (lambda p: saved(p, checkpoint_content() | {"vocab_size": 5}), "vocab_size must be config's"),
}

# ----------------------------------------------------------------------------------------------------------- datasets


def dataset(path, change=lambda columns: None, **columns):
    splits = tiny_splits()
    splits["validation"] |= columns
    change(splits["validation"])
    path.mkdir()
    arrow.save_splits(path, splits)
    return path


def dataset_of(path, table):
    """A dataset whose validation split is that table."""
    dataset(path)
    file = str(path / "validation" / "data-00000-of-00001.arrow")
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def table(**columns):
    good = {name: column.tolist() for name, column in tiny_splits()["validation"].items()}
    return pa.table({name: column for name, column in (good | columns).items() if column is not None})


def with_file(path, name, content):
    (dataset(path) / name).write_bytes(content)
    return path


def ids(change):
    column = tiny_splits()["validation"]["input_ids"].copy()
    change(column)
    return column


def truncated(path):
    file = dataset(path) / "validation" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:-400])
    return path


ROWS = [[65] * n for n in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)]
GOOD = tiny_splits()["validation"]
DATASETS = {
    "nothing there": (lambda p: p, "which does not exist"),
    "a folder of something else": (lambda p: p.mkdir() or p, "must have dataset_dict.json"),
    "splits that are a word": (
        lambda p: with_file(p, "dataset_dict.json", b'"validation"'),
        'must be {"splits": [...]}',
    ),
    "splits that are not JSON": (lambda p: with_file(p, "dataset_dict.json", b"{"), "must be JSON"),
    "no such split": (
        lambda p: with_file(p, "dataset_dict.json", b'{"splits": ["test"]}'),
        "split must be one of test",
    ),
    "no state": (lambda p: (dataset(p) / "validation" / "state.json").unlink() or p, "must have state.json"),
    "a state of another type": (lambda p: with_file(p, "validation/state.json", b"[1]"), "must name its _data_files"),
    "a state that names numbers": (
        lambda p: with_file(p, "validation/state.json", b'{"_data_files": [1]}'),
        '[{"filename": ...}, ...]',
    ),
    "a state that names files elsewhere": (
        lambda p: with_file(p, "validation/state.json", b'{"_data_files": [{"filename": "../../x.arrow"}]}'),
        "files of that folder",
    ),
    "a truncated file": (truncated, "must be a whole Arrow stream"),
    "text in its place": (
        lambda p: with_file(p, "validation/data-00000-of-00001.arrow", b"rows"),
        "whole Arrow stream",
    ),
    "no labels": (lambda p: dataset_of(p, table(labels=None)), "got none named labels"),
    "rows of unlike length": (lambda p: dataset_of(p, table(input_ids=ROWS)), "rows of input_ids must have one length"),
    "columns of unlike length": (lambda p: dataset_of(p, table(input_ids=[[65]] * 12)), "must have one shape"),
    "numbers that are not whole": (lambda p: dataset_of(p, table(labels=[[0.5]] * 12)), "lists of whole numbers"),
    "strings": (lambda p: dataset_of(p, table(input_ids=["abc"] * 12)), "lists of whole numbers, got string"),
    "nulls": (lambda p: dataset_of(p, table(labels=[None, *GOOD["labels"].tolist()[1:]])), "must have no nulls"),
    "an id beyond the vocabulary": (
        lambda p: dataset(p, input_ids=ids(lambda c: c.__setitem__((1, 1), TINY.vocab_size))),
        "token ids must be in 0..",
    ),
    "an id below 0": (
        lambda p: dataset(p, input_ids=ids(lambda c: c.__setitem__((1, 1), -1))),
        "input_ids must be in 0..",
    ),
    "a label that is none": (
        lambda p: dataset(p, labels=np.where(GOOD["labels"] < 0, -7, 65)),
        "or -100 where there is",
    ),
    "a label beyond Unicode": (
        lambda p: dataset(p, labels=np.full_like(GOOD["labels"], 2**30)),
        "labels must be in -100..",
    ),
    "a mask of twos": (
        lambda p: dataset(p, attention_mask=2 * GOOD["attention_mask"]),
        "attention_mask must be in 0..1",
    ),
    "padding only": (lambda p: dataset(p, attention_mask=0 * GOOD["attention_mask"]), "got only padding"),
    "no samples": (lambda p: dataset_of(p, table().slice(0, 0)), "a split must have samples, got none"),
    "samples that are too long": (
        lambda p: (p.mkdir(), arrow.save_splits(p, tiny_splits(width=TINY.max_position + 3)))[0] or p,
        f"at most {TINY.max_position} positions",
    ),
}


def fragments(content):
    return lambda p: written(p, content if isinstance(content, bytes) else json.dumps(content).encode())


FRAGMENTS = {
    "a table": (fragments(b"id,atf\n1,a-na"), "must be JSON in UTF-8"),
    "another encoding": (fragments('[{"_id": "1", "atf": "šar"}]'.encode("latin2")), "must be JSON in UTF-8"),
    "cut short": (fragments(b'[{"_id": "1", "atf": "a-na'), "must be JSON in UTF-8"),
    "too deep": (fragments(b"[" * 100_000), "must be JSON in UTF-8"),
    "one fragment": (fragments({"_id": "1", "atf": "a"}), "must be a JSON list of fragments"),
    "strings alone": (fragments(["a-na"]), "must be a JSON list of fragments"),
    "a number as text": (fragments([{"_id": "1", "atf": 7}]), "another type in fragment 0"),
    "no text in any": (fragments([{"_id": "1", "atf": None}, {"_id": "2"}]), "at least one fragment with text"),
    "none": (fragments([]), "at least one fragment with text, got none of 0"),
    "a key twice": (fragments(b'[{"_id": "1", "atf": "a", "atf": "b"}]'), "must differ, got 'atf' twice"),
}

# -------------------------------------------------------------------------------------------------------------- flags

FLAGS = {
    "--layer 99": "layer must be in 0..",
    "--layer -1": "layer must be at least 0",
    "--layer x": "layer must be a number",
    "--layer 1,1": "layers must differ",
    "--epochs 0": "epochs",
    "--epochs x": "invalid int value",
    "--patience 0": "patience",
    "--batch-size 0": "batch-size",
    "--batch-size 99999": "rows must be at least a batch",
    "--lr 0": "lr",
    "--lr nan": "lr",
    "--lr -1": "lr",
    "--expansion 0": "expansion",
    "--l1-coef -1": "l1-coef",
    "--l1-coef nan": "l1-coef",
    "--k-sparse 0": "k",
    "--k-sparse 9999": "k must be in",
    "--target-l0 0": "target",
    "--target-l0 9999": "target",
    "--decay 2 --recipe modern": "decay",
    "--seed -1": "seed must be in",
    "--seed 99999999999999999999": "seed must be in",
    "--max-samples 0": "max-samples must be at least 1",
    "--max-samples few": "max-samples",
    "--verify -1": "verify must be at least 0",
    "--save-every -1": "save-every must be at least 0",
    "--save-every nan": "save-every must be at least 0",
    "--memory-limit much": "must be like 2GB",
    "--device mps": "use --device cpu",
    "--device abacus": "invalid choice",
    "--padding some": "invalid choice",
    "--precision int4": "invalid choice",
    "--architecture gated": "invalid choice",
    "--architecture jumprelu": "target-l0",
    "--k-sparse 3 --l1-coef 1": "got both",
    "--k-sparse 3 --target-l0 3": "give either",
    "--split dev": "split must be one of",
    "--nonsense": "unrecognized arguments",
}

# ---------------------------------------------------------------------------------------------------- SAEs and stores


def sae_file(path, d_in=TINY.d_model, config=None, **changes):
    """An SAE file, with parts of it changed; None takes a part away."""
    shape = SAEConfig(d_in, 60)
    save_sae(path, init(jax.random.key(0), shape), shape, extra={"layer": 1})
    content = torch.load(path, weights_only=True) | changes
    content["config"] |= config or {}
    for name in [key for key, value in content["config"].items() if value is None]:
        del content["config"][name]
    return saved(path, {name: value for name, value in content.items() if value is not None})


SAES = {
    "another width": (lambda p: sae_file(p, TINY.d_model + 2), f"d_in must be {TINY.d_model} (the model's d_model)"),
    "no decoder": (lambda p: sae_file(p, W_dec=None), "got none of W_dec"),
    "a decoder the wrong way round": (
        lambda p: sae_file(p, W_dec=torch.ones(TINY.d_model, 60)),
        "shapes must be W_enc",
    ),
    "NaN": (lambda p: sae_file(p, b_enc=torch.full((60,), float("nan"))), "b_enc must be finite"),
    "whole numbers": (lambda p: sae_file(p, b_enc=torch.ones(60, dtype=torch.long)), "got int64"),
    "no width said": (lambda p: sae_file(p, config={"d_in": None}), "config must have whole d_in and d_sae"),
    "an architecture not known here": (
        lambda p: sae_file(p, config={"architecture": "gated"}),
        "got architecture 'gated'",
    ),
    "a k that is not applied": (lambda p: sae_file(p, config={"k": 3}), "config must describe relu, topk with k"),
    "a k that is not whole": (
        lambda p: sae_file(p, config={"k": 2.5, "architecture": "topk"}),
        "must be a whole number",
    ),
    "too few thresholds": (
        lambda p: sae_file(p, config={"architecture": "jumprelu", "threshold": [0.1, 0.2]}),
        "config.threshold must be a number",
    ),
    "a word that is not known": (lambda p: sae_file(p, config={"gain": 2.0}), "got 'gain'"),
    "a layer that the model has not": (lambda p: sae_file(p, config={"layer": 77}), "layer must be in 0.."),
    "another model's": (
        lambda p: sae_file(p, config={"checkpoint_sha256": "0" * 64}),
        "was trained on another model (000000000000...)",
    ),
    "a checkpoint": (lambda p: saved(p, checkpoint_content()), "give an sae_layer*_optimized.pt"),
    "a pickle that runs code": (lambda p: saved(p, {"config": Evil()}), "eval (nothing was run)"),
}


def rows(path, array, **about):
    path.mkdir()
    np.save(path / "layer1.npy", array, allow_pickle=True)
    head = {"format": store.FORMAT, "version": store.VERSION, "layers": [1], "rows": len(array), "d_in": 4} | about
    (path / "store.json").write_text(json.dumps(head))
    return path


def bare(array):
    def make(path):
        np.save(path.with_suffix(".npy"), array, allow_pickle=True)
        return path.with_suffix(".npy")

    return make


MANY = np.ones((300, 4), np.float32)
STORES = {
    "of another version": (lambda p: rows(p, MANY, version=9), "must be of version 1 of jaxsae-rows, got 9"),
    "of other layers": (lambda p: rows(p, MANY, layers=[3]), "whole .npy file"),
    "of another number of rows": (lambda p: rows(p, MANY, rows=7), "layer1.npy must have shape (7, 4)"),
    "objects": (bare(np.array([[Evil()]], object)), "must be a whole .npy file"),
    "a line of numbers": (bare(np.ones(300, np.float32)), "must hold rows [n, d_in] of floating numbers"),
    "whole numbers": (bare(np.ones((300, 4), int)), "must hold rows [n, d_in] of floating numbers, got int64"),
    "text": (lambda p: written(p.with_suffix(".npy"), b"rows"), "must be a whole .npy file"),
    "NaN": (bare(np.where(np.arange(1200).reshape(300, 4) == 900, np.nan, MANY)), "must stay finite"),
    "fewer than a batch": (bare(MANY[:5]), "rows must be at least a batch, got 5 rows"),
}


def cases(**kinds):
    return [pytest.param(kind, *case, id=f"{kind}: {name}") for kind, of in kinds.items() for name, case in of.items()]


@pytest.mark.parametrize(
    ("kind", "make", "says"),
    cases(checkpoint=CHECKPOINTS, dataset=DATASETS, fragments=FRAGMENTS, sae=SAES, store=STORES),
)
def test_files(script, tiny_pt, tiny_dataset, tmp_path, monkeypatch, kind, make, says):
    monkeypatch.chdir(tmp_path)
    path, out = make(tmp_path / ("bad.json" if kind == "fragments" else "bad")), tmp_path / "out"
    inputs = {"--checkpoint": tiny_pt, "--dataset": tiny_dataset, "--layer": 1}
    if kind == "checkpoint":
        ran = script("train", *sum((inputs | {"--checkpoint": path}).items(), ()), "--output", out)
    elif kind == "sae":
        ran = script("evaluate", "--sae", path, "--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--json", out)
    else:
        ran = script("train", *sum((inputs | {"--dataset": path}).items(), ()), "--batch-size", 8, "--output", out)
    assert_one_line_error(ran, says)
    assert not out.exists()
    assert not (tmp_path / RAN).exists()


@pytest.mark.parametrize(("flags", "says"), FLAGS.items(), ids=FLAGS)
def test_flags(script, tiny_pt, tiny_dataset, tmp_path, flags, says):
    out = tmp_path / "out"
    inputs = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", 1, "--batch-size", 32]
    assert_one_line_error(script("train", *inputs, "--output", out, *flags.split()), says)
    assert not out.exists()


def test_there_are_enough_of_them():
    assert sum(map(len, (CHECKPOINTS, DATASETS, FRAGMENTS, FLAGS, SAES, STORES))) >= 80


def test_an_sae_of_another_model_may_be_meant(script, tiny_pt, tiny_dataset, tmp_path):
    path = sae_file(tmp_path / "sae.pt", config={"checkpoint_sha256": "0" * 64})
    for name in ("evaluate", "inspect_sae"):
        flags = ["--sae", path, "--checkpoint", tiny_pt, "--dataset", tiny_dataset]
        assert_one_line_error(script(name, *flags), "was trained on another model", "--other-model if that is meant")
        ran = script(name, *flags, "--other-model")
        assert ran.status == 0
        assert ran.err.startswith("note: ")
        assert "was trained on another model" in ran.err
