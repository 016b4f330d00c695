"""Every command and snippet of the README, of the site (docs/) and of examples/ runs as it stands there.

Those of the README and docs/ on a tiny model under the names they use, in the order of the site, one after another in a
user's folder; a command that was run before is not run again. Pages whose commands name no model run in a folder that
has a model and text in the places where these are looked for.
"""

import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, TINY, checkpoint_content
from helpers import USER_FILE

from convert import read_checkpoint
from jaxsae.features.concepts import load_concepts
from jaxsae.text import arrow, loading

SITE = [
    ROOT / "docs" / name for name in re.findall(r"^ .*?([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M)
]
"""The pages of the site, in its order; what it takes from outside docs/ is not there."""
PAGES = [ROOT / "README.md", *(page for page in SITE if page.exists())]
OF_NO_MODEL = [ROOT / "docs" / "guide.md", ROOT / "docs" / "tutorial.md"]
"""Pages whose commands name neither model nor text; the second looks at an SAE that the first trains."""
OWN_MODEL = ROOT / "examples" / "own_model.md"
ANY_MODULE = ROOT / "examples" / "any_module.md"


def blocks(page):
    """(language, content) of each piece of code in it."""
    return re.findall(r"```(sh|python|toml)\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands(page):
    return [line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: a checkpoint with 16 layers, raw and prepared text, their own model file."""
    folder = tmp_path_factory.mktemp("readme")
    full = dataclasses.replace(TINY, n_layers=16, max_position=768)
    for seed, name in enumerate(("best_model.pt", "after.pt")):
        torch.save(checkpoint_content(full, seed), folder / name)
    fragments = [{"_id": str(n), "atf": f"{n}. a-na be-lí-ia qí-bí-ma " * 4} for n in range(1, 61)]
    (folder / "fragments.json").write_text(json.dumps(fragments))
    renamed = [{"transliteration": fragment["atf"]} for fragment in fragments]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, renamed)))
    pq.write_table(pa.Table.from_pylist(renamed), folder / "texts.parquet")
    (folder / "restoration_dataset").mkdir()
    splits = loading.prepare_file(folder / "fragments.json", 42)
    arrow.save_splits(folder / "restoration_dataset", splits)
    (folder / "tablets.atf").write_text("&P1 = one\n@tablet\n1. a-na be-[x]-ia# ##\n$ rest broken\n")
    (folder / "my_model.py").write_text(USER_FILE.replace("SCALE *", ""))
    return folder


def serves(flags):
    """A server runs as it stands there but for its port, gives page and answer, and ends as it is told."""
    flags[flags.index("--port") + 1] = "0"  # that of the page may be taken here
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        said = []
        for line in server.stdout:
            said.append(line)
            if line.startswith("open "):
                break
        try:
            address = said[-1].split()[1]
            assert b'id="restore"' in urllib.request.urlopen(address, timeout=60).read()
            root, token = address.split("?token=")
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            question = urllib.request.Request(f"{root}api/restore", b'{"text": "a-na be-l#-ia"}', headers)
            assert json.loads(urllib.request.urlopen(question, timeout=120).read())["gaps"]
        finally:
            server.send_signal(signal.SIGINT)
            said.append(server.stderr.read())
    assert (server.returncode, said[-1].splitlines()[-1:]) == (130, ["interrupted"]), said


def run_block(kind, text, script, ran):
    if kind == "python":
        exec(compile(text, "a page", "exec"), {})
    for line in text.splitlines() if kind == "sh" else []:
        words = shlex.split(line)
        if words[:2] == ["python", "scripts/serve.py"]:
            serves(words[2:])
            ran.append(line)
        elif words[0] in ("python", "jaxsae") and line not in ran:
            words = words[2:] if words[1:3] == ["-m", "jaxsae"] else words
            if "--processes" in words:  # it starts itself anew, as it was started
                command = [sys.executable, str(ROOT / words[1]), *words[2:]]
                assert subprocess.run(command, capture_output=True).returncode == 0, line
                ran.append(line)
                continue
            result = script(words[1].removeprefix("scripts/").removesuffix(".py"), *words[2:])
            assert result.status == 0, (line, result)
            ran.append(line)


def test_commands_and_snippets_in_their_order(folder, script, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    ran = []
    for page in PAGES:
        for kind, text in blocks(page) if page not in OF_NO_MODEL else []:
            run_block(kind, text, script, ran)
    assert len(ran) >= 25
    assert (folder / "checkpoints" / "mine" / "sae_layer8_optimized.pt").is_file()
    assert capsys.readouterr().out.strip().isdigit()


def test_commands_that_name_no_model_find_the_one_of_the_folder(script, tmp_path, monkeypatch):
    """The tutorial's and the guide's, on a model as wide as the demo's, whose features have the same numbers."""
    wide = dataclasses.replace(TINY, n_layers=16, max_position=768, d_model=64, n_heads=2)
    model, text = tmp_path / "models" / "torso_restoration", tmp_path / "data" / "restoration_dataset"
    model.mkdir(parents=True)
    text.mkdir(parents=True)
    torch.save(checkpoint_content(wide, 0), model / "best_model.pt")
    texts = [f"{n}. nam-ti-la-ni-šè a mu-na-ru ENLIL-{'ak ' * (n % 3)} lugal" for n in range(60)]
    arrow.save_splits(text, loading.prepare_splits(texts, 42))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ran = []
    for page in OF_NO_MODEL:
        for kind, text in blocks(page):
            run_block(kind, text, script, ran)
    assert len(ran) >= 12


def test_concepts_of_the_page_are_read(tmp_path):
    for kind, text in blocks(ROOT / "docs" / "inspecting.md"):
        if kind == "toml":
            (tmp_path / "own.toml").write_text(text)
            assert [concept.name for concept in load_concepts(tmp_path / "own.toml")] == ["-tum"]
            return
    raise AssertionError


def test_another_model_is_brought_as_its_page_says(script, tmp_path, monkeypatch):
    """Its pieces of code are files, in one folder; then its commands."""
    monkeypatch.chdir(tmp_path)
    for kind, text in blocks(OWN_MODEL):
        if kind == "python":
            name = text.splitlines()[0].removeprefix("# ")
            (tmp_path / name).write_text(text)
    (tmp_path / "texts.txt").write_text(
        "\n".join(f"the {n}th house of the lord of the land, {n * 7}" for n in range(40))
    )
    ran = []
    for kind, text in blocks(OWN_MODEL):
        if kind == "sh":
            run_block(kind, text, script, ran)
    assert len(ran) == 8
    done = subprocess.run(
        [sys.executable, "parity.py"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("in float64") == 4


@pytest.mark.filterwarnings("ignore::jaxsae.errors.InputNote")  # the page's letters are not all of the texts'
def test_any_module_is_read_as_its_page_says(script, tmp_path, monkeypatch):
    """Its file, a folder of Hugging Face's, and texts; then its commands."""
    pytest.importorskip("transformers")
    from tiny_transformers import TEXTS, save

    monkeypatch.chdir(tmp_path)
    save("bert", tmp_path / "my_bert")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    ran = []
    for kind, text in blocks(ANY_MODULE):
        if kind == "python":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
        else:
            run_block(kind, text, script, ran)
    assert len(ran) == 9
    masked = read_checkpoint("my_masked.py:load").config
    assert (masked.tokenizer.damaged_id, masked.tokenizer.frame) == (33, ((31,), (32,)))
    assert masked.datasets.load_several(["texts.txt"], "test").damaged.any()


def test_the_notebook(monkeypatch, capsys):
    """Its cells one after another, as a kernel runs them: the last expression of a cell is shown."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 9
    names = {}
    for cell in cells:
        exec(compile(cell, "a cell", "exec"), names)
    out = capsys.readouterr().out
    assert "DIFFERS" not in out
    assert out.count("agrees") == 3
    assert len(re.findall(r"^feature \d+$", out, flags=re.MULTILINE)) == 5
    assert names["held_out"].fvu < 0.2


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {line.split()[1] for page in PAGES for line in commands(page) if line.startswith("make ")}
    named |= {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert named <= targets
    assert all(line.split()[0] in ("make", "python") for page in PAGES for line in commands(page))


def test_the_site_has_every_page_and_the_readme_stays_short():
    assert {*(ROOT / "docs").rglob("*.md")} == {page for page in SITE if page.exists()}
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", [*PAGES, OWN_MODEL, ANY_MODULE], ids=lambda page: page.stem)
def test_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
