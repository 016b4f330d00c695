"""`jaxsae compare`: two models, two SAEs or both on one text; its tables, and those of `inspect`, as CSV."""

import csv
import dataclasses
import json
import os

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sign_model
import torch
from conftest import TINY, assert_one_line_error, checkpoint_content
from helpers import narrowed, saved

from convert import load_restoration_model, load_sae, save_sae
from convert.checkpoints import read_checkpoint
from jaxsae import encode, extract, load_samples
from jaxsae.config import SAEConfig
from jaxsae.features import comparison, tables
from jaxsae.sae.architectures import init
from jaxsae.text import arrow, loading

pytestmark = pytest.mark.usefixtures("quick_compiles")
D_SAE = 40


def sae_file(path, key, layer=1, d_in=TINY.d_model, **extra):
    config = SAEConfig(d_in, D_SAE, k=5, architecture="topk")
    save_sae(path, init(jax.random.key(key), config), config, extra={"layer": layer, **extra})
    return path


def trained_on(amount, config=TINY):
    """The tiny model with its weights changed by so much."""
    content = checkpoint_content(config)
    generator = torch.Generator().manual_seed(7)
    for name, tensor in content["model_state_dict"].items():
        content["model_state_dict"][name] = tensor + amount * torch.randn(tensor.shape, generator=generator)
    return content


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_pt):
    """SAEs, the tiny model after more and less training, models that read other texts, and text."""
    folder = tmp_path_factory.mktemp("compare")
    identity = read_checkpoint(tiny_pt).identity
    sae_file(folder / "a.pt", 1, model_sha256=identity)
    sae_file(folder / "b.pt", 2, model_sha256=identity)
    sae_file(folder / "layer3.pt", 3, layer=3)
    saved(folder, trained_on(0.02), "near.pt")
    saved(folder, trained_on(1.0), "far.pt")
    saved(folder, checkpoint_content(dataclasses.replace(TINY, vocab_size=100)), "few.pt")
    saved(folder, checkpoint_content(dataclasses.replace(TINY, max_position=20)), "short.pt")
    saved(folder, sign_model.content(), "signs.pt")
    sign_model.write_vocabulary(folder / "vocab.json")
    texts = [f"a-na be-lí-ia šar-ra-ak LUGAL&{n}"[: TINY.max_position] for n in range(60)] * 2
    (folder / "fragments.json").write_text(json.dumps([{"_id": "x", "atf": t} for t in texts]))
    columns = loading.prepare_file(folder / "fragments.json", 42)
    cut = narrowed(columns, TINY.max_position)
    (folder / "dataset").mkdir()
    arrow.save_splits(folder / "dataset", cut)
    return folder


@pytest.fixture
def compare(script, files, tiny_pt, tmp_path):
    """Run it on SAEs and models by their names; gives what it did and its JSON."""

    def run(names, models, *flags):
        given = [tiny_pt if name == "tiny" else files / name for name in models]
        saes = ["--sae", *(files / name for name in names)]
        text = ["--dataset", files / "dataset", "--split", "train", "--num-samples", 80]
        ran = script("compare", *saes, "--checkpoint", *given, *text, "--json", tmp_path / "c.json", *flags)
        return ran, json.loads((tmp_path / "c.json").read_text()) if ran.status == 0 else {}

    return run


def fires(path, model, files):
    """[characters, latents]: where the latents of an SAE file are above 0."""
    file, samples = load_sae(path), load_samples(files / "dataset", "train", 80)
    layer = file.extra["layer"]
    return np.asarray(encode(file.sae, extract(load_restoration_model(model), samples, [layer]).values[layer])) > 0


def read_csv(path):
    """The rows as JSON has them."""

    def value(text):
        try:
            return {"": None, "True": True, "False": False}[text]
        except KeyError:
            try:
                return json.loads(text) if text[0] in "-0123456789" else text
            except ValueError:
                return text

    with path.open(encoding="utf-8", newline="") as file:
        return [{name: value(cell) for name, cell in row.items()} for row in csv.DictReader(file)]


def test_a_model_beside_itself_has_every_feature_once(compare, files):
    ran, report = compare(["a.pt"], ["tiny", "tiny"])
    assert ran.status == 0, ran
    assert report["same_sae"]
    assert report["gone"] == report["new"] == []
    every = np.flatnonzero(fires(files / "a.pt", report["first"]["checkpoint"], files).any(axis=0)).tolist()
    assert sorted((one["first"], one["second"]) for one in report["matched"]) == [(i, i) for i in every]
    assert {one["jaccard"] for one in report["matched"]} == {1.0}
    assert {one["difference"] for one in report["concepts"]} == {0.0}
    assert "this is one SAE on two models: features are paired by firing alone" in ran.out
    assert f"In both ({len(every)}, the first 10)" in ran.out


def test_one_sae_on_two_models_pairs_what_fires_alike(compare, files, tiny_pt):
    on = {name: fires(files / "a.pt", path, files) for name, path in (("tiny", tiny_pt), ("near", files / "near.pt"))}
    both = on["tiny"].T.astype(float) @ on["near"]
    jaccard = both / np.maximum(on["tiny"].sum(0)[:, None] + on["near"].sum(0)[None] - both, 1)
    ran, report = compare(["a.pt"], ["tiny", "near.pt"])
    assert ran.status == 0, ran
    assert "was trained on another model" in ran.err  # which is what was asked for
    matched, gone = ({one[key] for one in report[name]} for name, key in (("matched", "first"), ("gone", "feature")))
    assert matched | gone == set(np.flatnonzero(on["tiny"].any(0)))
    assert not matched & gone
    assert len(matched) > 5
    for one in report["matched"]:
        assert one["jaccard"] == pytest.approx(jaccard[one["first"], one["second"]])
        assert one["jaccard"] >= 0.5
        assert one["first_rate"] == pytest.approx(on["tiny"][:, one["first"]].mean())
        assert one["second_rate"] == pytest.approx(on["near"][:, one["second"]].mean())
    for one in report["gone"]:
        assert one["jaccard"] == pytest.approx(jaccard[one["feature"]].max())
    far = compare(["a.pt"], ["tiny", "far.pt"])[1]
    assert far["first"]["paired"] < report["first"]["paired"]
    turned = compare(["a.pt"], ["near.pt", "tiny"], "--other-model")[1]
    assert {one["feature"] for one in turned["new"]} == gone
    assert turned["second"]["checkpoint"] == str(tiny_pt)


def test_two_saes_of_one_model_or_of_two(compare, files):
    one, report = compare(["a.pt", "layer3.pt"], ["tiny"])
    assert one.status == 0, one
    assert [report[side]["layer"] for side in ("first", "second")] == [1, 3]
    assert not report["same_sae"]
    assert report["first"]["checkpoint"] == report["second"]["checkpoint"]
    two, twice = compare(["a.pt", "layer3.pt"], ["tiny", "near.pt"])
    assert two.status == 0, two
    assert twice["first"] | {"paired": 0, "by_firing": 0, "alone": 0, "named_alone": 0} == report["first"] | {
        "paired": 0, "by_firing": 0, "alone": 0, "named_alone": 0,
    }  # fmt: skip
    assert twice["second"]["checkpoint"] == str(files / "near.pt")
    assert twice["second"]["l0"] == report["second"]["l0"] == 5
    assert [one["second_run"] for one in twice["concepts"]] != [one["second_run"] for one in report["concepts"]]


def test_the_tables_are_those_of_the_json(compare, files, tmp_path):
    ran, report = compare(["a.pt", "b.pt"], ["tiny", "far.pt"], "--csv", tmp_path / "csv", "--other-model")
    assert ran.status == 0, ran
    assert sorted(path.name for path in (tmp_path / "csv").iterdir()) == sorted(f"{n}.csv" for n in comparison.TABLES)
    for name in comparison.TABLES:
        assert read_csv(tmp_path / "csv" / f"{name}.csv") == report[name], name
    assert all(report[name] for name in ("gone", "new", "concepts"))
    again = compare(["a.pt"], ["tiny", "tiny"], "--csv", tmp_path / "csv")[
        1
    ]  # replaces such a folder, and nothing stays
    assert read_csv(tmp_path / "csv" / "gone.csv") == again["gone"] == []
    assert (tmp_path / "csv" / "gone.csv").read_text() == ",".join(comparison.Lone._fields) + "\n"
    assert not [path.name for path in tmp_path.iterdir() if "part-" in path.name]


def test_the_tables_of_an_inspection_are_those_of_its_json(script, files, tiny_pt, tmp_path):
    for seed in (0, 1):
        sae_file(tmp_path / f"s_seed{seed}.pt", seed)
    flags = ["--checkpoint", tiny_pt, "--dataset", files / "dataset", "--split", "train"]
    flags += ["--csv", tmp_path / "csv", "--json", tmp_path / "i.json", "--concepts"]
    ran = script("inspect", "--sae", tmp_path / "s_seed0.pt", files / "b.pt", *flags)
    assert ran.status == 0, ran
    reports = json.loads((tmp_path / "i.json").read_text())
    features, concepts, discoveries = (read_csv(tmp_path / "csv" / f"{name}.csv") for name in tables.TABLES)
    of = {report["sae"]: report for report in reports}
    assert [(row["sae"], row["feature"]) for row in features] == [(path, i) for path in of for i in range(D_SAE)]
    for row in features:
        figures, stability = of[row["sae"]]["features"], of[row["sae"]]["stability"]
        names = {"caption": "caption", "f1": "caption_f1", "firing_rate": "firing_rate", "mean": "mean", "max": "max"}
        assert {name: row[name] for name in names} == {
            name: figures[key][row["feature"]] for name, key in names.items()
        }
        seeds = [stability[key][row["feature"]] for key in ("found", "cosine", "jaccard")] if stability else [None] * 3
        assert [row["in_other_seeds"], row["seeds_cosine"], row["seeds_jaccard"]] == seeds
        assert (row["concept"] is None) == (row["run"] is None)
    assert {row["seeds_cosine"] is None for row in features} == {True, False}
    assert any(row["concept"] for row in features)
    for name, rows in (("concepts", concepts), ("discoveries", discoveries)):
        expected = [one | {"sae": path, "layer": 1} | one["best"][0] for path in of for one in of[path][name]]
        assert [{key: row[key] for key in row if key != "caption"} for row in rows] == [
            {key: one[key] for key in row if key != "caption"} for row, one in zip(rows, expected, strict=True)
        ]
        for row in rows:
            assert row["caption"] == of[row["sae"]]["features"]["caption"][row["feature"]]
    assert concepts
    alone = script("inspect", "--sae", files / "b.pt", *flags[:-1])
    assert alone.status == 0, alone
    assert [row for row in concepts if row["sae"] == str(files / "b.pt")] == read_csv(tmp_path / "csv" / "concepts.csv")


def test_a_folder_of_tables_is_its_own(compare, files, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    ask = (["a.pt"], ["tiny", "tiny"], "--csv")
    assert_one_line_error(
        compare(*ask, folder)[0], "--csv must be a new folder, or one of such tables alone", "notes.txt"
    )
    (folder / "gone.csv").mkdir()
    (folder / "notes.txt").rename(folder / "gone.csv" / "notes.txt")
    assert_one_line_error(compare(*ask, folder)[0], "of such tables alone", "with gone.csv")
    assert_one_line_error(compare(*ask, files / "a.pt")[0], "--csv must be a folder, got")
    assert_one_line_error(compare(*ask, files / "a.pt" / "x")[0], "--csv must be where one may write")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    assert compare(*ask, tmp_path / "link")[0].status == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "matched.csv").is_file()
    if os.geteuid() != 0:  # who may write anywhere
        (tmp_path / "closed" / "in").mkdir(parents=True)
        (tmp_path / "closed").chmod(0o500)
        assert_one_line_error(compare(*ask, tmp_path / "closed" / "in")[0], "--csv must be where one may write")


def test_what_cannot_be_compared_is_one_line(compare, script, files, tmp_path):
    def refused(names, models, *parts, flags=()):
        assert_one_line_error(compare(names, models, *flags)[0], *parts)

    refused(["a.pt"], ["tiny"], "--sae or --checkpoint must name two files to compare", "give a second")
    refused(["a.pt", "b.pt", "layer3.pt"], ["tiny"], "--sae takes one file or two, got 3")
    refused(["a.pt"], ["tiny", "near.pt", "far.pt"], "--checkpoint takes one file or two, got 3")
    refused(["a.pt", "a.pt"], ["tiny"], "--sae must name different files")
    refused(["a.pt", "b.pt"], ["tiny", "near.pt"], "b.pt was trained on another model")
    refused(["a.pt"], ["near.pt", "tiny"], "a.pt was trained on another model")
    refused(["layer3.pt"], ["tiny", "few.pt"], "few.pt must read the text of", "(the model's vocabulary)")
    refused(["layer3.pt"], ["tiny", "short.pt"], "short.pt must read the text of", "at most 20 positions")
    narrow = sae_file(files / "narrow.pt", 4, d_in=sign_model.CONFIG.d_model)
    refused(["layer3.pt", narrow], ["tiny", "signs.pt"], "signs.pt must read the text of", "unit of tokens")
    refused(["layer3.pt", narrow], ["tiny"], f"narrow.pt: d_in must be {TINY.d_model}")
    rows = script("extract_activations", "--layer", 1, "--output", tmp_path / "rows", "--dataset", files / "dataset",
                  "--checkpoint", files / "near.pt")  # fmt: skip
    assert rows.status == 0, rows
    refused(["a.pt"], ["tiny", "near.pt"], "--dataset must be text here, got stored rows", flags=("--dataset", tmp_path / "rows"))  # fmt: skip


WORDS, FRAGMENTS = 6, 80


def signs_table(path):
    """Fragments of a genre each, whose words are of a kind each: a Parquet with a row for each word."""
    signs, rows = sign_model.SIGNS[5:], []
    for fragment in range(FRAGMENTS):
        for word in range(WORDS):
            rng = np.random.default_rng((fragment, word))
            rows.append(
                {
                    "fragment_id": f"{fragment:03}",
                    "line_num": 0,
                    "word_idx": word,
                    "value_signs": " ".join(rng.choice(signs, 2)),
                    "genre": ("letter", "letter", "list", "omen")[fragment // 2 % 4],
                    "kind": rng.choice(["noun", "verb", "name"]),
                    "certainty": "sure",
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_of_signs_the_columns_of_the_dataset_are_compared(script, files, tmp_path):
    """A model of signs before and after training: concepts are those of the table's own columns."""
    config = sign_model.CONFIG
    saved(tmp_path, sign_model.content(seed=1), "later.pt")
    sae = sae_file(tmp_path / "s.pt", 4, d_in=config.d_model)
    table = signs_table(tmp_path / "words.parquet")
    ask = ["--sae", sae, "--checkpoint", files / "signs.pt", tmp_path / "later.pt", "--dataset", table]
    ask += ["--json", tmp_path / "c.json"]
    differ = "ids that differ: 5 is 'a' and '5', 6 is 'ab' and '6' and 12 more; give that of both (--vocab FILE)"
    assert_one_line_error(script("compare", *ask), "later.pt must read the text of", differ)
    ran = script("compare", *ask, "--vocab", files / "vocab.json")
    assert ran.status == 0, ran
    concepts = {one["name"]: one for one in json.loads((tmp_path / "c.json").read_text())["concepts"]}
    values = {f"genre={genre}" for genre in ("letter", "list", "omen")}
    assert values | {f"kind={kind}" for kind in ("noun", "verb", "name")} <= set(concepts)
    assert not any(name.startswith("certainty") for name in concepts)  # it has one value
    assert concepts["genre=letter"]["title"] == "text with genre letter"
    assert concepts["kind=verb"]["title"] == "sign with kind verb"
    assert concepts["kind=verb"]["source"] == "column kind"
    assert concepts["genre=list"]["characters"] == FRAGMENTS // 4 * WORDS * 2
    assert "kind=verb" in ran.out
