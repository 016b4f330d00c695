"""inspect_sae.py: what it prints and writes, on a tiny model, the demo, and the original's own file."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, assert_one_line_error
from helpers import narrowed
from scipy.optimize import linear_sum_assignment

from convert import load_restoration_model, load_sae, save_sae
from jaxsae import encode, extract, load_samples
from jaxsae.cli.saes import other_seeds
from jaxsae.config import SAEConfig
from jaxsae.sae.architectures import init
from jaxsae.text import arrow, loading

SPELLED = [f"{n}. a-na be-lí-ia qí-bí-ma šar-ra-ak LUGAL.E um-ma " * (n % 3 + 1) for n in range(1, 121)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_pt):
    """SAEs of three layers in an output folder, and text that fits the tiny model."""
    folder = tmp_path_factory.mktemp("inspect")
    for layer in (0, 1, 3):
        config = SAEConfig(TINY.d_model, 60, k=5, architecture="topk")
        sae = init(jax.random.key(layer), config)
        save_sae(folder / f"sae_layer{layer}_optimized.pt", sae, config, extra={"layer": layer})
    texts = [f"a-na be-lí-ia šar-ra-ak <b>&{n}"[: TINY.max_position] for n in range(60)] * 2
    (folder / "fragments.json").write_text(json.dumps([{"_id": "x", "atf": t} for t in texts]))
    columns = loading.prepare_file(folder / "fragments.json", 42)
    cut = narrowed(columns, TINY.max_position)
    (folder / "dataset").mkdir()
    arrow.save_splits(folder / "dataset", cut)
    return folder


@pytest.fixture
def inspect(script, folder, tiny_pt):
    """Run it on those."""

    def run(*args, layer=1):
        flags = ["--model", tiny_pt, "--dataset", folder / "dataset", "--output", folder]
        return script("inspect_sae", "--layer", layer, *flags, *args)

    return run


def test_the_overview_counts_what_fires(inspect, folder, tiny_pt, tmp_path):
    ran = inspect("--json", tmp_path / "o.json")
    assert ran.status == 0, ran
    report = json.loads((tmp_path / "o.json").read_text())
    samples = load_samples(folder / "dataset", "test", 100)
    file = load_sae(folder / "sae_layer1_optimized.pt")
    latents = np.asarray(encode(file.sae, extract(load_restoration_model(tiny_pt), samples, [1]).values[1]))
    assert report["layer"] == 1
    assert report["characters"] == len(latents)
    np.testing.assert_allclose(report["features"]["firing_rate"], (latents > 0).mean(0), rtol=1e-6)
    np.testing.assert_allclose(report["features"]["mean"], latents.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(report["features"]["max"], latents.max(0), rtol=1e-5)
    np.testing.assert_allclose(report["l0"], (latents > 0).sum(1).mean(), rtol=1e-6)
    assert sum(report["density_histogram"]) == pytest.approx(60 * (1 - report["dead"]))
    assert "fire on a character" in ran.out
    assert "Best predicted by their captions" in ran.out
    figures = report["features"]
    assert len(figures["caption"]) == len(figures["caption_f1"]) == 60
    named = sum("% of firings, " in one for one in figures["caption"])
    assert report["captioned"] == named / ((latents > 0).any(0).sum())
    shown = re.findall(r"^│ +(\d+) │", ran.out.split("Best predicted by their captions")[1], re.MULTILINE)
    words = [one.split(" (")[0] for one in figures["caption"]]
    assert len({words[int(latent)] for latent in shown}) == len(shown) == min(10, len(set(words)))
    assert f"captions {named} features have one that predicts where they fire" in ran.out
    assert report["stability"] is None
    assert "in other seeds" not in ran.out


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_stored_rows_are_inspected_as_their_text_is(inspect, script, folder, tiny_pt, tmp_path, padding):
    made = ["--checkpoint", tiny_pt, "--dataset", folder / "dataset", "--padding", padding, "--layer", "0,1"]
    assert script("extract_activations", *made, "--output", tmp_path / "rows").status == 0
    what = ["--feature", 1, 2, "--pattern", "-ak", "--padding", padding, "--num-samples", 9]
    assert inspect(*what, "--split", "validation", "--json", tmp_path / "text.json").status == 0
    ran = inspect(*what, "--dataset", tmp_path / "rows", "--json", tmp_path / "rows.json")
    assert ran.status == 0, ran
    assert (tmp_path / "rows.json").read_text() == (tmp_path / "text.json").read_text()


def test_a_feature_a_text_and_a_causal_check(inspect, tmp_path):
    inspect("--json", tmp_path / "o.json")
    rates = json.loads((tmp_path / "o.json").read_text())["features"]["firing_rate"]
    most, least = int(np.argmax(rates)), int(np.argmin(rates))
    assert rates[most] > 0 == rates[least]
    what = ["--feature", most, least, "--text", "-ak šar", "--ablate", most, "--clamp", f"{least}=2.5"]
    ran = inspect(*what, "--json", tmp_path / "f.json")
    assert ran.status == 0, ran
    report = json.loads((tmp_path / "f.json").read_text())
    assert [one["feature"] for one in report["feature"]] == [most, least]
    assert [row["character"] for row in report["text"]] == list("-ak šar")
    assert all(len(row["features"]) <= 5 >= row["l0"] for row in report["text"])
    assert [(row["feature"], row["value"]) for row in report["causal"]] == [(most, 0), (least, 2.5)]
    assert report["causal"][1]["where it fires"]["positions"] == 0
    assert report["causal"][1]["elsewhere"]["kl"] > 0
    assert "it never fires on this text" in ran.out
    for one in report["feature"]:
        assert len(one["nearest"]) == 5
        for context in one["contexts"]:
            assert len(context["text"]) == len(context["values"])
    assert "promotes" in ran.out


def test_a_pattern_that_begins_with_a_hyphen(inspect, tmp_path):
    ran = inspect("--pattern", "-ak", "--json", tmp_path / "p.json")
    assert ran.status == 0, ran
    pattern = json.loads((tmp_path / "p.json").read_text())["pattern"]
    assert pattern["pattern"] == "-ak"
    assert pattern["occurrences"] > 5
    assert len({row["feature"] for row in pattern["features"]}) == len(pattern["features"])
    for row in pattern["features"]:
        assert 0 <= row["low"] <= row["run"] <= row["high"] <= 1
        assert {"instances", "random", "windows", "precision", "recall", "auroc", "caption"} <= row.keys()
    assert "caption" in ran.out
    assert pattern["features"][0]["on"] in ("every character", "[-]ak", "-[a]k", "-a[k]")
    absent = inspect("--pattern", "zzz")
    assert absent.status == 0
    assert "'zzz': in none of these 12 texts" in absent.out


def test_other_seeds_beside_the_file_are_found_and_shown(script, folder, tiny_pt, tmp_path):
    """Of an SAE file that names its seed, those that differ in it alone are its other seeds."""
    for name, key in (("a_seed0", 1), ("a_seed7", 1), ("a_seed10", 2), ("b_seed1", 1), ("a_seedx", 1), ("a", 1)):
        config = SAEConfig(TINY.d_model, 60, k=5, architecture="topk")
        save_sae(tmp_path / f"{name}.pt", init(jax.random.key(key), config), config, extra={"layer": 1})
    assert [path.name for path in other_seeds(str(tmp_path / "a_seed0.pt"))] == ["a_seed7.pt", "a_seed10.pt"]
    assert other_seeds(str(tmp_path / "a.pt")) == other_seeds(str(tmp_path / "a_seedx.pt")) == []
    flags = ["--model", tiny_pt, "--dataset", folder / "dataset", "--num-samples", 40]
    ran = script("inspect_sae", "--sae", tmp_path / "a_seed0.pt", *flags, "--feature", 3, "--json", tmp_path / "s.json")
    assert ran.status == 0, ran
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["stability"]["other_seeds"] == 2
    assert {0.5, 1.0} >= set(report["stability"]["found"])  # one is the same SAE
    assert "other seeds" in ran.out
    assert f"(PW-MCC {report['stability']['pw_mcc']:.2f})" in " ".join(ran.out.split())
    again = report["feature"][0]["found_again"]
    assert again["share"] == report["stability"]["found"][3]
    assert f"found again in {round(2 * again['share'])} of 2 other seeds" in ran.out


def test_a_run_of_two_seeds_says_how_alike_they_are(script, tmp_path):
    made = ["--layer", 2, "--seed", "0,1", "--max-samples", 30, "--epochs", 1, "--verify", 0, "--quiet"]
    ran = script("train", *made, "--output", tmp_path)
    assert ran.status == 0, ran
    files = sorted(tmp_path.glob("*_seed?.pt"))
    assert [path.stem[-5:] for path in files] == ["seed0", "seed1"]
    one, other = (np.asarray(load_sae(path).sae.W_dec, np.float64) for path in files)
    cosines = np.abs((one / np.linalg.norm(one, axis=1)[:, None]) @ (other / np.linalg.norm(other, axis=1)[:, None]).T)
    expected = cosines[linear_sum_assignment(-cosines)].mean()
    assert f"seeds    {files[0].stem[:-6]}: PW-MCC {expected:.3f} over 2 seeds\n" in ran.out
    assert [path.name for path in other_seeds(str(files[0]))] == [files[1].name]
    alone = script("train", *made[:2], *made[4:], "--output", tmp_path / "alone")
    assert "PW-MCC" not in alone.out


def test_concepts_and_the_picture(inspect, folder, tmp_path):
    ran = inspect("--concepts", "--histogram", "--json", tmp_path / "c.json")
    assert ran.status == 0, ran
    rows = json.loads((tmp_path / "c.json").read_text())["concepts"]
    damaged = next(row for row in rows if row["name"] == "damaged")
    assert damaged["source"] == "label"
    assert {"run", "low", "high", "precision", "recall", "character", "word", "auroc"} <= damaged["best"][0].keys()
    assert all(0 <= damaged[name] <= 1 for name in ("random", "windows", "neurons"))
    best = [row["best"][0] for row in rows]
    assert all(one["low"] <= one["run"] <= one["high"] for one in best)
    assert any(row["name"].startswith("sign ") for row in rows)  # the commonest signs of the text itself
    picture = folder / "sae_layer1_optimized_histogram.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    own = tmp_path / "own.toml"
    own.write_text('["own"]\nabout = "writing"\npattern = "a"\n')
    ran = inspect("--concepts", own, "--json", tmp_path / "c.json")
    report = json.loads((tmp_path / "c.json").read_text())
    assert [row["name"] for row in report["concepts"]] == ["own"]
    assert all(row["best"][0]["feature"] >= 0 for row in report["discoveries"])


def test_a_concept_that_cannot_be_scored_is_named_with_the_reason(inspect, tmp_path):
    own = tmp_path / "own.toml"
    patterns = {"[/]": "a", "rare [x]": "zzz", "all": "(?s)."}
    own.write_text("".join(f'["{name}"]\nabout = "writing"\npattern = "{p}"\n' for name, p in patterns.items()))
    ran = inspect("--concepts", own, "--json", tmp_path / "c.json")
    assert ran.status == 0, ran
    report = json.loads((tmp_path / "c.json").read_text())
    assert [row["name"] for row in report["concepts"]] == ["[/]"]
    reasons = {row["name"]: row["reason"] for row in report["concepts_left_out"]}
    assert reasons["rare [x]"] == "0 characters (0 and 0), at least 10 in each half of the texts are needed"
    assert list(reasons) == ["rare [x]", "all"]
    assert "│ [/] " in ran.out
    for name, reason in reasons.items():
        assert f"left out  {name}: {reason}\n" in ran.out


def test_what_is_wrong_is_one_line(inspect, script, folder, tiny_pt, tmp_path):
    assert_one_line_error(inspect("--feature", 60), "feature must be in 0..59, got 60")
    assert_one_line_error(inspect(layer=2), "no SAE of layer 2 is at", "train.py --layer 2 --output")
    assert_one_line_error(inspect("--feature", 1, layer="0,1"), "--feature takes one SAE, got 2")
    assert_one_line_error(inspect("--concepts", tmp_path / "no.toml"), "must be a TOML file of concepts")
    assert_one_line_error(inspect("--clamp", "x"), "--clamp")
    assert_one_line_error(inspect(layer="x"), "--layer must be numbers separated by commas, got x")
    unnamed = tmp_path / "unnamed.pt"
    file = load_sae(folder / "sae_layer1_optimized.pt")
    save_sae(unnamed, file.sae, file.config)
    flags = ["--sae", unnamed, "--model", tiny_pt, "--dataset", folder / "dataset"]
    assert_one_line_error(script("inspect_sae", *flags), "must say its layer", "give the layer")
    assert script("inspect_sae", *flags, "--layer", 0).status == 0
    by_file = ["--sae", folder / "sae_layer3_optimized.pt", *flags[2:], "--json", tmp_path / "l.json"]
    assert script("inspect_sae", *by_file).status == 0
    assert json.loads((tmp_path / "l.json").read_text())["layer"] == 3


QUICK = """
import sys, jax
compiled = []
jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
from jaxsae.cli.main import main
sys.argv[0] = "jaxsae"
try: main()
except SystemExit as e: assert not e.code
heavy = {"scipy.special", "scipy.optimize", "scipy.sparse", "pandas", "pyarrow.compute", "orbax", "torch"} & set(sys.modules)
assert not heavy, heavy
assert not [name for name in compiled if "backend_compile" in name], compiled
"""


def test_a_second_question_reads_what_the_first_has_found(script, folder, tiny_pt, tmp_path, monkeypatch):
    """All that is printed and written is the same; what is asked often compiles nothing and loads nothing heavy."""
    for name, key in (("sae_layer1_seed0", 1), ("sae_layer1_seed1", 2)):
        config = SAEConfig(TINY.d_model, 24, k=5, architecture="topk")
        save_sae(tmp_path / f"{name}.pt", init(jax.random.key(key), config), config, extra={"layer": 1})
    (own := tmp_path / "own.toml").write_text('["own"]\nabout = "writing"\npattern = "a"\n')
    text = ["--model", tiny_pt, "--dataset", folder / "dataset", "--num-samples", 24]
    asked = ["inspect", "--sae", tmp_path / "sae_layer1_seed0.pt", *text]
    page = tmp_path / "page.html"

    def ask(*flags):
        ran = script(*asked, *flags, "--json", tmp_path / "o.json")
        assert ran.status == 0, ran
        said = [line for line in ran.out.splitlines() if not line.startswith("kept ")]
        kept = "kept     figures of 20" in ran.out
        return (said, (tmp_path / "o.json").read_text(), page.exists() and page.read_text()), kept

    often = ["--feature", 3, "--text", "-ak", "--ablate", 1]
    monkeypatch.setenv("JAXSAE_CACHE", "off")
    plain = ask(*often)
    monkeypatch.delenv("JAXSAE_CACHE")
    first, again = ask(*often), ask(*often)
    assert plain[0] == first[0] == again[0]
    assert (plain[1], first[1], again[1]) == (False, False, True)
    once, again = (ask("--concepts", own, "--pattern", "-ak", "--html", page) for _ in range(2))
    assert once == again
    assert once[1]  # the pass is that of the first question
    assert [path.name for path in other_seeds(str(tmp_path / "sae_layer1_seed0.pt"))] == ["sae_layer1_seed1.pt"]
    why = script("explain", *asked[1:], "--sample", 0)
    assert why.status == 0, why
    assert "kept     figures of 20" in why.out
    command = [sys.executable, "-c", QUICK, *map(str, [*asked, "--feature", 3, 5])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kept     figures of 20" in done.stdout


def test_a_file_that_is_trained_anew_is_read_anew(script, folder, tiny_pt, tmp_path):
    config, path = SAEConfig(TINY.d_model, 60, k=5, architecture="topk"), tmp_path / "sae_layer1.pt"
    reports = []
    for key in (1, 2, 1):
        save_sae(path, init(jax.random.key(key), config), config, extra={"layer": 1})
        ran = script(
            "inspect", "--sae", path, "--model", tiny_pt, "--dataset", folder / "dataset", "--json", tmp_path / "o.json"
        )
        assert "kept " not in ran.out
        reports.append((tmp_path / "o.json").read_text())
    assert reports[0] == reports[2] != reports[1]


def test_the_originals_own_dense_file(script, real, tmp_path, monkeypatch):
    """The same rates, means and maxima as PyTorch has them, with every position kept."""
    monkeypatch.setenv("JAXSAE_CACHE", "off")  # nothing is written beside the real files
    checkpoint, dataset = real / "checkpoints/restoration_16x384/best_model.pt", real / "data/restoration_dataset"
    sae = real / "checkpoints/sae_layer8_optimized.pt"
    flags = ["--checkpoint", checkpoint, "--dataset", dataset, "--num-samples", 3, "--padding", "keep"]
    flags += ["--split", "validation"]
    ran = script("inspect_sae", "--sae", sae, *flags, "--feature", 5, "--json", tmp_path / "i.json")
    assert ran.status == 0, ran
    report = json.loads((tmp_path / "i.json").read_text())["features"]
    rows = np.array(
        extract(load_restoration_model(checkpoint), load_samples(dataset, "validation", 3), [8], "keep").values[8]
    )
    original = torch.load(sae, weights_only=False)
    latents = torch.relu(torch.from_numpy(rows) @ original["W_enc"].detach() + original["b_enc"].detach())
    np.testing.assert_allclose(report["firing_rate"], (latents > 0).float().mean(0), atol=1e-4)
    np.testing.assert_allclose(report["mean"], latents.mean(0), atol=1e-5)
    np.testing.assert_allclose(report["max"], latents.amax(0), atol=1e-4)


def test_the_demos_planted_properties_are_found(script, tmp_path):
    """A TopK trained for half a minute on the demo: its best latents tell what is known of the characters."""
    train = script(
        "train", "--layer", 8, "--recipe", "modern", "--k-sparse", 16, "--epochs", 2, "--max-samples", 400, "--verify", 0,
        "--quiet", "--output", tmp_path,
    )  # fmt: skip
    assert train.status == 0, train
    ran = script(
        "inspect_sae", "--layer", 8, "--output", tmp_path, "--split", "test", "--num-samples", 100, "--concepts",
        "--json", tmp_path / "d.json",
    )  # fmt: skip
    assert ran.status == 0, ran
    rows = {row["name"]: row for row in json.loads((tmp_path / "d.json").read_text())["concepts"]}
    assert rows["=logogram"]["source"] == "known of the demo"
    least = {"damaged": 0.5, "=logogram": 0.7, "word-boundary": 0.7, "=numeral": 0.35}
    found = {name: rows[name]["best"][0]["run"] for name in least}
    assert all(found[name] > score for name, score in least.items()), found
    # a pattern's share is what the generator knows
    np.testing.assert_allclose(rows["logogram"]["share"], rows["=logogram"]["share"], rtol=0.1)
    assert (ROOT / "checkpoints/demo/truth").is_dir()


def test_the_demo_by_another_path_keeps_what_is_known_of_it(script, tmp_path, monkeypatch):
    from jaxsae.config import DEMO
    from jaxsae.demo import dataset

    dataset.ensure_demo(DEMO / "dataset")
    (tmp_path / "linked").symlink_to(DEMO / "dataset")
    monkeypatch.chdir(DEMO)
    flags = ["--layer", 8, "--max-samples", 60, "--epochs", 1, "--quiet", "--output", tmp_path / "out"]
    assert script("train", *flags).status == 0
    sae = tmp_path / "out" / "sae_layer8_optimized.pt"
    for path in ("dataset", "../demo/dataset", tmp_path / "linked"):
        ran = script("inspect_sae", "--sae", sae, "--dataset", path, "--num-samples", 40, "--concepts")
        assert ran.status == 0, ran
        assert "=logogram" in ran.out
