"""metrics.jsonl, and what the loggers are told; Weights & Biases in the rivals' environment, which has it."""

import importlib.util
import json
import struct

import pytest
from conftest import assert_one_line_error

from jaxsae.train.events import Epoch, EpochEnd
from jaxsae.train.metrics_log import MetricsLog


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_epoch_is_a_line(script, tiny_pt, tiny_dataset, tmp_path):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--layer", "1,2", "--epochs", 3, "--batch-size", 16]
    for _ in range(2):  # a second run appends
        assert script("train", *flags, "--verify", 0, "--output", tmp_path).status == 0
    told = lines(tmp_path)
    report = json.loads((tmp_path / "sae_layer2_optimized.json").read_text())
    of = [line for line in told if line["sae"] == "sae_layer2_optimized.pt"]
    assert len(told) == 2 * len(of) == 2 * 2 * 4
    assert [line.get("epoch") for line in of] == [1, 2, 3, None] * 2
    assert [line["loss"] for line in of[4:7]] == report["losses"]
    assert [line["l0"] for line in of[4:7]] == report["l0_of_epoch"]
    steps = report["rows"] // 16
    assert [line["step"] for line in of[:4]] == [steps, 2 * steps, 3 * steps, 3 * steps]
    assert (of[-1]["scored_fvu"], of[-1]["scored_l0"]) == (report["fvu"], report["l0"])


def test_tensorboard_is_told_the_same(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    log = MetricsLog(tmp_path, "tensorboard", {"sae.pt": {"lr": 0.5}}, steps=10)
    log.listen(EpochEnd("sae.pt", Epoch(1, 0.25, 7.0)))
    log.scored("sae.pt", {"l0": 6.0, "fvu": 0.125, "dead": 0.5, "epochs": 2})
    log.close()
    [path] = (tmp_path / "tensorboard" / "sae").iterdir()
    content, events = path.read_bytes(), []
    while content:  # length, its checksum, the event, its checksum
        (n,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + n]))
        content = content[16 + n :]
    scalars = {(v.tag, e.step): v.simple_value for e in events for v in e.summary.value if v.HasField("simple_value")}
    assert scalars == {("epoch", 10): 1, ("loss", 10): 0.25, ("l0", 10): 7, ("scored_fvu", 20): 0.125} | {
        ("scored_l0", 20): 6,
        ("scored_dead", 20): 0.5,
    }


def test_wandb_takes_several_saes_at_a_time(tmp_path, monkeypatch):
    """Offline: a run for each SAE, with its settings."""
    pytest.importorskip("wandb", reason="needs wandb; make test-rivals has it")
    monkeypatch.setenv("WANDB_MODE", "offline")
    names = [f"sae_layer{layer}.pt" for layer in (1, 2)]
    log = MetricsLog(tmp_path, "wandb", {name: {"layer": n} for n, name in enumerate(names)}, steps=1)
    for number in (1, 2):
        for name in names:
            log.listen(EpochEnd(name, Epoch(number, 1 / number, 3.0)))
    runs = [logger.run for logger in log.loggers.values()]
    assert [run.name for run in runs] == ["sae_layer1", "sae_layer2"]
    assert [run.config["layer"] for run in runs] == [0, 1]
    log.scored(names[0], {"l0": 3.0, "fvu": 0.5, "dead": 0.0, "epochs": 3})
    log.close()
    told = sorted(history(path) for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert told == [[(1, 1.0), (2, 0.5)]] * 2


def history(path):
    """(step, loss) of each entry in a run's file: after its head, records of (checksum, length, 1 = whole)."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, out = path.read_bytes()[7:], []
    while len(content) >= 7:
        _, length, whole = struct.unpack("<IHB", content[:7])
        assert whole == 1
        record = Record.FromString(content[7 : 7 + length])
        content = content[7 + length :]
        items = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
        if "loss" in items:
            out.append((record.history.step.num, items["loss"]))
    return out


def test_a_logger_that_is_not_installed_is_named(script, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None)
    ran = script("train", "--log", "wandb", "--output", tmp_path / "out")
    assert_one_line_error(ran, "--log wandb needs the package wandb, which is not installed; pip install wandb")
    assert not (tmp_path / "out").exists()
