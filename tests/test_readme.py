"""Every command and snippet of the README runs as it stands there, on a tiny model under the names it uses."""

import dataclasses
import json
import re
import shlex

import pytest
import torch
from conftest import ROOT, TINY, checkpoint_content
from test_scripts import USER_FILE

from jaxsae import data

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: a checkpoint with 16 layers, raw and prepared text, their own model file."""
    folder = tmp_path_factory.mktemp("readme")
    torch.save(checkpoint_content(dataclasses.replace(TINY, n_layers=16, max_position=768)), folder / "best_model.pt")
    fragments = [{"_id": str(n), "atf": f"{n}. a-na be-lí-ia qí-bí-ma " * (n % 9 + 1)} for n in range(1, 61)]
    (folder / "fragments.json").write_text(json.dumps(fragments))
    (folder / "restoration_dataset").mkdir()
    splits = data.prepare_fragments(data.read_fragments(folder / "fragments.json"), 42)
    data.save_splits(folder / "restoration_dataset", splits)
    (folder / "my_model.py").write_text(USER_FILE.replace("SCALE *", ""))
    return folder


def test_commands_and_snippets_in_their_order(folder, script, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    ran = []
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), {})
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            if words[0] == "python":
                result = script(words[1].removeprefix("scripts/").removesuffix(".py"), *words[2:])
                assert result.status == 0, (line, result)
                ran.append(line)
    assert len(ran) >= 8
    assert (folder / "checkpoints" / "mine" / "sae_layer8_optimized.pt").is_file()
    assert capsys.readouterr().out.strip().isdigit()


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {line.split()[1] for line in COMMANDS if line.startswith("make ")}
    assert named <= targets
    assert all(line.split()[0] in ("make", "python") for line in COMMANDS)


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
