"""Where figures go: devices, pipes, links, standard output, places that cannot be written; and what JSON holds."""

from __future__ import annotations

import functools
import json
import os
import resource
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, assert_one_line_error, without_progress

from convert import save_sae
from jaxsae import files, runtime
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError
from jaxsae.sae.autoencoder import SAE

pytestmark = pytest.mark.usefixtures("quick_compiles")


def strict(path):
    """JSON as others read it."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


def sae_file(path, d_sae=12, bias=0.0):
    rng = np.random.default_rng(0)
    shapes = [(TINY.d_model, d_sae), (d_sae,), (d_sae, TINY.d_model), (TINY.d_model,)]
    W_enc, b_enc, W_dec, b_dec = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    save_sae(path, SAE(W_enc, b_enc + bias, W_dec, b_dec), SAEConfig(TINY.d_model, d_sae), extra={"layer": 1})
    return path


@pytest.fixture
def rated(tiny_pt, tiny_dataset, tmp_path):
    """Flags of a rating of a second."""
    return ["--sae", sae_file(tmp_path / "sae.pt"), "--checkpoint", tiny_pt, "--dataset", tiny_dataset]


def test_what_is_no_file_is_written_to(script, rated, tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    assert script("evaluate", *rated, "--json", pipe).status == 0
    reader.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert json.loads(got[0])[0]["layer"] == 1
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to("real.json")
    assert script("evaluate", *rated, "--json", link).status == 0
    assert link.is_symlink()
    assert json.loads(real.read_text()) == json.loads(got[0])
    (tmp_path / "dangling").symlink_to(tmp_path / "made.json")
    assert script("evaluate", *rated, "--json", tmp_path / "dangling").status == 0
    assert (tmp_path / "made.json").exists()
    if os.geteuid() == 0:  # who may make one, and replace one
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        assert script("evaluate", *rated, "--json", tmp_path / "null").status == 0
        assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)


def test_a_hyphen_is_standard_output_and_nothing_else_goes_there(script, rated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = script("evaluate", *rated, "--json", "-")
    assert ran.status == 0
    assert json.loads(ran.out)[0]["layer"] == 1
    assert "text     " in ran.err
    assert not (tmp_path / "-").exists()
    ran = script("inspect_sae", *rated, "--html", "-")
    assert ran.out.startswith("<!DOCTYPE html>") or "<html" in ran.out[:200]


def test_names_that_the_system_gives_to_what_is_open(rated, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), *map(str, rated), "--json"]
    with (tmp_path / "out.txt").open("w") as out:
        done = subprocess.run([*command, "/dev/stdout"], stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done
    assert '"layer": 1' in (tmp_path / "out.txt").read_text()


WRONG = {
    "a folder": (lambda p: p.mkdir() or p, "must be a file, got the folder"),
    "a name that is too long": (lambda p: p.with_name("x" * 300), "File name too long"),
    "in a file": (lambda p: p.write_text("") or p / "out", "Not a directory"),
    "what is read": (lambda p: p.with_name("sae.pt"), "must not be a file that is read"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(
    ("command", "flag"), [("evaluate", "--json"), ("inspect_sae", "--html"), ("verify_activations", "--json")]
)
def test_what_cannot_be_written_is_found_before_the_work(script, rated, tmp_path, monkeypatch, name, command, flag):
    make, says = WRONG[name]
    path = make(tmp_path / "out")
    flags = rated[2:] if command == "verify_activations" else rated
    if name == "what is read" and command == "verify_activations":
        path = rated[3]
    before = (tmp_path / "sae.pt").read_bytes()
    ran = script(command, *flags, flag, path)
    assert_one_line_error(ran, flag, says)
    assert ran.out == ""  # nothing was done
    assert (tmp_path / "sae.pt").read_bytes() == before


def test_two_outputs_are_two_files(script, rated, tmp_path):
    ran = script("inspect_sae", *rated, "--html", tmp_path / "x", "--json", tmp_path / "x")
    assert_one_line_error(ran, "--html and --json must be different files")


def test_a_long_name_that_the_system_takes_is_written(tmp_path):
    path = tmp_path / ("x" * 250)
    files.write_json(path, {"a": 1})
    assert strict(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_no_word_for_what_is_not_finite(tmp_path):
    values = {
        "a": float("nan"),
        "b": [np.float32("inf"), 1.5],
        "c": {"d": -np.inf},
        "e": np.array([1.0, np.nan]),
        3: True,
    }
    files.write_json(tmp_path / "a.json", values)
    expected = {"a": None, "b": [None, 1.5], "c": {"d": None}, "e": [1.0, None], "3": True}
    assert strict(tmp_path / "a.json") == expected


def test_an_sae_that_never_fires_is_rated_and_read(script, rated, tmp_path):
    sae_file(tmp_path / "sae.pt", bias=-1e4)
    assert script("evaluate", *rated, "--json", tmp_path / "e.json").status == 0
    [figures] = strict(tmp_path / "e.json")
    assert (figures["l0"], figures["dead"]) == (0, 1)
    ran = script(
        "inspect_sae", *rated, "--ablate", 0, "--feature", 1, "--json", tmp_path / "i.json", "--html", tmp_path / "p"
    )
    assert ran.status == 0, ran
    assert "nan" not in ran.out
    assert strict(tmp_path / "i.json")["causal"][0]["where it fires"]["positions"] == 0


@pytest.mark.parametrize("d_sae", [1, 2, 3, 5])
def test_an_sae_of_few_latents_is_read(script, rated, tmp_path, d_sae):
    sae_file(tmp_path / "sae.pt", d_sae, bias=1.0)
    flags = ["--feature", d_sae - 1, "--concepts", "--html", tmp_path / "p.html", "--json", tmp_path / "i.json"]
    ran = script("inspect_sae", *rated, *flags)
    assert ran.status == 0, ran
    [feature] = strict(tmp_path / "i.json")["feature"]
    assert len(feature["nearest"]) == min(5, d_sae - 1)
    assert all(one["feature"] != d_sae - 1 for one in feature["nearest"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--clamp", "1=nan"], "--clamp: must be N=VALUE"),
        (["--clamp", "1=inf"], "--clamp: must be N=VALUE"),
        (["--clamp", "x=1"], "--clamp: must be N=VALUE"),
        (["--clamp", "1"], "--clamp: must be N=VALUE"),
        (["--text", ""], "--text must have at least one character"),
        (["--pattern", ""], "--pattern must have at least one character"),
        (["--text", "a-na \U00012000 šar"], "text must have characters of the model's vocabulary"),
        (["--text", "a" * (TINY.max_position + 1)], f"text must have at most {TINY.max_position} characters"),
        (["--feature", "12"], "feature must be in 0..11, got 12"),
        (["--text", "a", "--layer", "1,2"], "--layer must name one layer for each --sae"),
    ],
    ids=str,
)
def test_flags_that_ask_for_what_cannot_be(script, rated, flags, says):
    assert_one_line_error(script("inspect_sae", *rated, *flags), says)


def test_a_seed_below_0_prepares_nothing(script, tmp_path):
    (tmp_path / "f.json").write_text('[{"_id": "1", "atf": "a-na"}]')
    ran = script("prepare_dataset", "--fragments", tmp_path / "f.json", "--out_dir", tmp_path / "o", "--seed", -1)
    assert_one_line_error(ran, "--seed must be at least 0, got -1")


@pytest.fixture(scope="module")
def trained(tiny_pt, tiny_dataset, tmp_path_factory):
    """`trained(settings)` -> the SAE of a process with these in its environment; each is started once."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "--checkpoint", str(tiny_pt), "--dataset"]
    command += [str(tiny_dataset), "--layer", "1", "--epochs", "1", "--batch-size", "16", "--quiet", "--verify", "0"]
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

    @functools.cache
    def run(*settings):
        out, env = tmp_path_factory.mktemp("trained"), {**os.environ, **quick, **dict(settings)}
        flags = ["--recipe", "modern", "--output", out]
        done = subprocess.run([*command, *flags], env=env, capture_output=True, text=True)
        assert (done.returncode, without_progress(done.stderr)) == (0, ""), done
        return torch.load(out / "sae_layer1_optimized.pt", weights_only=True)

    return lambda settings: run(*settings.items())


@pytest.mark.parametrize(
    "settings",
    [{"JAX_NUMPY_DTYPE_PROMOTION": "strict"}, {"JAX_ENABLE_X64": "1"}, {"PYTHONWARNINGS": "error"}],
    ids=str,
)
def test_what_an_environment_asks_of_jax_for_other_programs(trained, settings):
    usual, other = trained({}), trained(settings)
    assert all(torch.equal(usual[name], other[name]) for name in ("W_enc", "b_enc", "W_dec", "b_dec"))


def test_a_containers_limit_is_what_there_is(tmp_path):
    machine = runtime.memory_of_machine(tmp_path)
    assert machine <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def group(lines, **limits):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(lines)
        for name, value in limits.items():
            file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_of_v", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(value)
        return runtime.memory_of_machine(root)

    two = {"memory_of_vmax": "1000000\n"}
    assert group("0::/\n", **two) == 10**6  # in a container, whose own group is the root
    assert group("0::/a/b\n", a__b__memory_of_vmax="max\n", a__memory_of_vmax="2000\n") == 2000  # of the group it is in
    assert group("0::/a\n", a__memory_of_vmax="max\n") == machine
    first = {"memory__job__memory_of_vlimit_in_bytes": "3000\n"}
    assert group("5:cpu:/x\n4:memory:/job\n", **first) == 3000
    assert group("4:memory:/job\n", memory__memory_of_vlimit_in_bytes="9223372036854771712\n") == machine
    assert resource.getrlimit(resource.RLIMIT_AS)[0] in (-1, resource.RLIM_INFINITY) or machine > 0


def test_what_is_checked_of_an_output(tmp_path):
    files.check_output(tmp_path / "a" / "b" / "new.json", "--json")
    with pytest.raises(InputError, match="--json must be a file that can be written"):
        files.check_output(tmp_path / "a\0b", "--json")
