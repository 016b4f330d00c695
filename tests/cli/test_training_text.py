"""Wherever figures are shown it is said which split an SAE was trained on, and warned of where that is what is read."""

import json
import shlex

import pytest
from conftest import TINY, assert_one_line_error
from helpers import narrowed

from convert import load_sae
from jaxsae.text import arrow, loading

pytestmark = pytest.mark.usefixtures("quick_compiles")
WARNED = "trained on this text, the validation split"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A dataset of three splits that fits the tiny model."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [{"_id": f"K.{n}", "atf": f"a-na be-lí-ia {n % 7}"[: TINY.max_position]} for n in range(60)]
    (folder / "fragments.json").write_text(json.dumps(rows))
    columns = loading.prepare_file(folder / "fragments.json", 42)
    cut = narrowed(columns, TINY.max_position)
    (folder / "dataset").mkdir()
    arrow.save_splits(folder / "dataset", cut)
    return folder / "dataset", {"validation": cut["validation"], "train": cut["train"]}


@pytest.fixture
def trained(script, tiny_pt, texts, tmp_path):
    """Flags of the model and text, and an SAE trained on the validation split."""
    flags = ["--checkpoint", tiny_pt, "--dataset", texts[0]]
    how = ["--layer", 1, "--epochs", 1, "--batch-size", 32, "--expansion", 2, "--verify", 0]
    assert script("train", *flags, *how, "--output", tmp_path / "out").status == 0
    return flags, tmp_path / "out" / "sae_layer1_optimized.pt"


def test_the_file_says_what_it_was_trained_on(trained, texts):
    said = load_sae(trained[1]).extra
    assert (said["split"], said["dataset_sha256"]) == ("validation", loading.fingerprint(texts[0]))


@pytest.mark.parametrize("name", ["inspect_sae", "evaluate", "compare"])
def test_it_is_said_and_warned_of(script, trained, tmp_path, name):
    flags, file = trained
    other = tmp_path / "other.pt"
    other.write_bytes(file.read_bytes())
    flags = [*flags, "--sae", file, *([other] if name == "compare" else [])]
    held_out = script(name, *flags)
    assert held_out.status == 0, held_out
    assert "trained on this text" not in held_out.err
    assert name == "compare" or "trained on the validation split" in held_out.out
    same = script(name, *flags, "--split", "validation")
    assert same.status == 0, same
    assert WARNED in same.err
    assert "--split test is held out" in same.err


def test_rows_and_the_page_say_it_too(script, trained, tmp_path):
    flags, file = trained
    for split in ("validation", "test"):
        rows = tmp_path / split
        assert script("extract_activations", *flags, "--layer", 1, "--split", split, "--output", rows).status == 0
        for name in ("inspect_sae", "evaluate"):
            ran = script(name, *flags[:2], "--dataset", rows, "--sae", file)
            assert ran.status == 0, ran
            assert (WARNED in ran.err) == (split == "validation")
    page = tmp_path / "page.html"
    assert script("inspect_sae", *flags, "--sae", file, "--html", page, "--json", tmp_path / "i.json").status == 0
    assert "(trained on the validation split)" in page.read_text()
    assert json.loads((tmp_path / "i.json").read_text())["trained_on"] == {"split": "validation", "same": False}


def test_text_of_another_dataset_is_not_that_of_training(script, trained, texts, tmp_path):
    """The split alone does not tell."""
    other = {split: {name: column[::-1].copy() for name, column in of.items()} for split, of in texts[1].items()}
    (tmp_path / "other").mkdir()
    arrow.save_splits(tmp_path / "other", other)
    flags, file = trained
    ran = script("evaluate", *flags[:2], "--dataset", tmp_path / "other", "--sae", file, "--split", "validation")
    assert ran.status == 0, ran
    assert "trained on the validation split" in ran.out
    assert WARNED not in ran.err
    ran = script("evaluate", *flags[:2], "--dataset", tmp_path / "other", "--sae", file)
    assert ran.status == 0, ran
    assert "has no test split: validation is read" in ran.out
    ran = script("evaluate", *flags[:2], "--dataset", tmp_path / "other", "--sae", file, "--split", "test")
    assert_one_line_error(ran, "split must be one of")


def test_a_file_that_does_not_say_it(script, tiny_pt, texts, tmp_path):
    """As the original scripts write it."""
    import jax

    from convert import save_sae
    from jaxsae.config import SAEConfig
    from jaxsae.sae.architectures import init

    config = SAEConfig(TINY.d_model, 60)
    save_sae(tmp_path / "sae_layer1_optimized.pt", init(jax.random.key(0), config), config)
    flags = ["--checkpoint", tiny_pt, "--dataset", texts[0], "--sae", tmp_path / "sae_layer1_optimized.pt"]
    for name in ("inspect_sae", "evaluate"):
        ran = script(name, *flags)
        assert ran.status == 0, ran
        assert "does not say what text it was trained on" in ran.out


def test_the_next_command_is_one_that_runs(script, trained, tmp_path, monkeypatch):
    """After training that which shows the features, after that the one that shows the best of them."""
    monkeypatch.chdir(tmp_path)
    flags, _ = trained
    how = ["--layer", 1, "--epochs", 1, "--batch-size", 32, "--k-sparse", 2, "--verify", 0, "--output", "out"]
    assert not [
        line for line in script("train", *flags, *how[:6], "--output", "dense").out.splitlines() if "next  " in line
    ]
    ran = script("train", *flags, *how)
    for expected in ("--sae", "--feature"):
        (line,) = [line for line in ran.out.splitlines() if line.startswith("next ")]
        words = shlex.split(line)[1:]
        assert expected in words
        name = words[words.index("inspect") :] if "inspect" in words else words[1:]
        ran = script("inspect_sae", *name[1:], "--json", tmp_path / "n.json")
        assert ran.status == 0, ran
    assert "fires on" in ran.out
    assert {path.name for path in tmp_path.glob("*.html")} == set()  # pages stand beside their SAE
