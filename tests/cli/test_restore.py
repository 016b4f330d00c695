import dataclasses
import json

import pytest
import torch
from conftest import TINY, assert_one_line_error, checkpoint_content, tiny_splits, without_progress

from jaxsae.text.arrow import save_splits

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A tiny model and a dataset of its own whose texts have room for gaps."""
    folder = tmp_path_factory.mktemp("wide")
    config = dataclasses.replace(TINY, n_layers=2, max_position=64)
    torch.save(checkpoint_content(config), folder / "best_model.pt")
    (folder / "dataset").mkdir()
    save_splits(folder / "dataset", tiny_splits(width=64))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxsae.restore.kept.cache_folder", lambda: tmp_path / "cache")


def test_the_line_comes_back_with_its_gaps_filled(script, wide, tmp_path):
    line = "1. a-na [##] {d}be₂ # [x]"
    model = ["--model", wide / "best_model.pt"]
    ran = script("restore", "--text", line, *model, "--top", 3, "--beam", 2, "--json", tmp_path / "out.json")
    assert (ran.status, without_progress(ran.err)) == (0, "")
    got = json.loads((tmp_path / "out.json").read_text())
    assert got["text"] == line
    assert got["restored"].startswith("1. a-na [")
    assert got["restored"] in ran.out
    assert "temperature 1, not calibrated" in ran.out
    assert got["temperature"] == 1
    assert [len(gap["fillings"]) for gap in got["gaps"]] == [3, 3, 3]
    assert [gap["lengths"] for gap in got["gaps"]] == [[2, 2], [1, 1], [1, 4]]
    for gap in got["gaps"]:
        assert all(len(place["candidates"]) == 3 for place in gap["places"])
        assert gap["fillings"][0]["text"].replace(" ", "␣") in ran.out
    assert "⟨1:##⟩" in ran.out


def test_the_temperature_of_a_models_own_text_is_kept(script, wide):
    flags = ["--text", "a#b", "--model", wide / "best_model.pt", "--dataset", wide / "dataset"]
    first, second = script("restore", *flags), script("restore", *flags)
    assert "first use of this model and dataset" in first.out
    assert "fitted on" in first.out
    assert second.out == first.out.split("\n", 1)[1]


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("lines.txt", "a # b\n\nc\n[x]\r\n", ["line 1", "line 4"]),
        ("a.atf", "&P1 = one\n@tablet\n1. a-#\n&P2\n1. a#\n&P3\n#note: x\n1. [x]\n", ["P1", "P3"]),
        ("b.atf", "1. a ##\n2. b\n", ["text 1"]),
        (
            "c.json",
            '[{"_id": "K.1", "atf": "a #"}, {"_id": "2", "atf": null}, {"_id": "3", "atf": "1. [x]"}]',
            ["K.1", "3"],
        ),
        ("d.jsonl", '{"atf": "a #"}\n{"atf": ""}\n{"atf": "1. [x]"}', None),
    ],
)
def test_files_of_texts(script, wide, tmp_path, name, content, names):
    (tmp_path / name).write_bytes(content.encode())
    flags = ["--file", tmp_path / name, "--model", wide / "best_model.pt", "--top", 1, "--beam", 1]
    ran = script("restore", *flags, "--json", "-")
    assert ran.status == 0, ran.err
    answers = json.loads(ran.out)
    assert [answer["name"] for answer in answers] == (names or ["fragment 0", "fragment 2"])
    for answer in answers:
        assert answer["text"] in content
        assert "\n" not in answer["text"] or name.endswith("atf")
        for one in answer["predictions"]:
            start = answer["gaps"][0]["start"]
            assert one["text"][:start] == answer["text"][:start]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--text", "a-na"], ["--text must have a damaged place"]),
        (["--text", "a {#} b"], ["the 1 within () or {}"]),
        (["--text", "  "], ["--text must have at least one character"]),
        ([], ["--text or --file"]),
        (["--text", "#", "--file", "x"], ["--text or --file"]),
        (["--file", "nowhere.txt"], ["--file must be a file, got nowhere.txt"]),
        (["--text", "#", "--top", "0"], ["--top must be at least 1, got 0"]),
        (["--text", "#", "--beam", "0"], ["--beam must be at least 1, got 0"]),
        (["--text", "1. [a] ⸢#"], ["model's vocabulary", "'⸢' at 7"]),
        (["--text", "#" * 65], ["at most 64 characters"]),
        (["--text", "#", "--dataset", "nowhere"], ["nowhere"]),
    ],
)
def test_what_cannot_be_restored(script, wide, flags, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line_error(script("restore", *flags, "--model", wide / "best_model.pt"), *says)


def test_files_that_cannot_be_restored(script, wide, tmp_path):
    for name, content, says in (
        ("empty.txt", b"\n \n", "must have at least one text"),
        ("whole.txt", b"a-na\n", "must have a damaged place"),
        ("latin.txt", b"\xff\xfe\xfa", "must be text in UTF-8"),
        ("a.json", b"{", "must be JSON"),
        ("b.json", b'[{"text": "a"}]', "must have a column atf, got text"),
    ):
        (tmp_path / name).write_bytes(content)
        ran = script("restore", "--file", tmp_path / name, "--model", wide / "best_model.pt")
        assert_one_line_error(ran, says)
