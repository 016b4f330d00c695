"""What the scripts share, where no script's own test reaches it."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from jaxsae import runtime
from jaxsae.cli import arguments
from jaxsae.cli.main import COMMANDS, main
from jaxsae.config import DEMO, flag
from jaxsae.errors import InputError

CODE = """
import sys
sys.path.insert(0, {root!r})
from jaxsae import runtime
from jaxsae.cli.process import quiet_libraries
quiet_libraries()
runtime.select_device("cpu")
import jax, jax.numpy as jnp
compiled = []
jax.monitoring.register_event_listener(lambda name, **_: compiled.append(name))
def takes_long_to_compile(x):
    for i in range(40):
        x = jnp.sort(jnp.linalg.qr(x @ x.T + i)[0] * i, axis=i % 2)
    return x.sum()
jax.jit(takes_long_to_compile)(jnp.ones((50, 50))).block_until_ready()
print(jax.config.jax_compilation_cache_dir, sum(name.endswith("cache_hits") for name in compiled))
"""


def start(cache, home=None) -> list[str]:
    """A fresh process with this cache: (the folder JAX uses, how often it found something there)."""
    env = {**os.environ, "JAXSAE_CACHE": str(cache)} | (
        {"HOME": str(home), "XDG_CACHE_HOME": str(home)} if home else {}
    )
    code = CODE.format(root=str(ROOT))
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.split()


def test_the_second_start_compiles_nothing_again(tmp_path):
    folder, hits = start(tmp_path / "cache")
    assert folder.startswith(str(tmp_path / "cache"))
    assert hits == "0"
    assert os.stat(folder).st_mode & 0o777 == 0o700
    again, hits = start(tmp_path / "cache")
    assert again == folder
    assert int(hits) > 0
    for entry in os.scandir(folder):  # a killed process, a bad disk
        with open(entry.path, "r+b") as file:
            file.truncate(entry.stat().st_size // 2)
    assert start(tmp_path / "cache") == [folder, "0"]
    assert int(start(tmp_path / "cache")[1]) > 0, "what is damaged is written anew"


def test_what_was_compiled_is_loaded_without_a_word(tmp_path):
    """XLA for AVX-512 would print that the machine that compiled it is another."""
    assert start(tmp_path)[1] == "0"
    env = {**os.environ, "JAXSAE_CACHE": str(tmp_path)}
    again = subprocess.run(
        [sys.executable, "-c", CODE.format(root=str(ROOT))], env=env, capture_output=True, text=True, check=True
    )
    assert again.stdout.split()[1] != "0"
    assert again.stderr == ""


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "CACHE_BYTES", 1000)
    (tmp_path / "compiled-1").mkdir()
    (tmp_path / "compiled-2" / "autotuned").mkdir(parents=True)  # as JAX makes one on a GPU
    for number in range(10):
        path = tmp_path / f"compiled-{1 + number % 2}" / f"{number}-cache"
        path.write_bytes(bytes(150))
        os.utime(path, (number, number))
    runtime._prune(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*/*-cache")) == ["7-cache", "8-cache", "9-cache"]
    runtime._prune(tmp_path)
    assert len(list(tmp_path.glob("*/*-cache"))) == 3


def test_other_flags_for_xla_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(runtime, "_processor", lambda: "flags : fpu avx2 avx512f")
    for given, expected in (
        ("", "--xla_cpu_max_isa=AVX2"),
        ("--xla_dump_to=x", "--xla_dump_to=x --xla_cpu_max_isa=AVX2"),
        ("--xla_cpu_max_isa=AVX512", "--xla_cpu_max_isa=AVX512"),
        ("flags.txt", "flags.txt"),
    ):
        monkeypatch.setenv("XLA_FLAGS", given)
        runtime.compile_portably()
        assert os.environ["XLA_FLAGS"] == expected
    monkeypatch.setattr(runtime, "_processor", lambda: "flags : fpu avx2")
    monkeypatch.setenv("XLA_FLAGS", "")
    runtime.compile_portably()
    assert os.environ["XLA_FLAGS"] == ""


def test_the_cache_is_switchable_and_must_be_the_users_own(tmp_path):
    assert start("off")[0] == "None"
    assert start("", tmp_path / "home")[0].startswith(str(tmp_path / "home"))
    assert start("on", tmp_path / "home")[0].startswith(str(tmp_path / "home"))
    folder, _ = start(tmp_path)
    os.chmod(folder, 0o777)  # anybody could put code there
    assert start(tmp_path)[0] == "None"
    (tmp_path / "file").write_text("")
    assert start(tmp_path / "file")[0] == "None"


def test_a_text_flag_takes_what_begins_with_a_hyphen():
    parser = arguments.Parser("")
    parser.add_text("--pattern")
    parser.add_argument("--other")
    for words in (["--pattern", "-ak"], ["--pattern=-ak"], ["--pattern", "-ak", "--other", "x"]):
        assert parser.parse_args(words).pattern == "-ak"
    assert parser.parse_args(["--pattern", "--other", "--other", "x"]).pattern == "--other"
    with pytest.raises(SystemExit):
        parser.parse_args(["--pattern"])


def test_a_description_keeps_its_paragraphs_and_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "36")
    parser = arguments.Parser(
        "A first sentence, broken\nwhere its author broke it, with --max-samples at a line's end.\n\n"
        "Then:\n  one      a column, and more than the terminal is wide\n  two      another\n"
    )
    parser.add_argument("--most", default=3, help="how many")
    parser.add_output("--json", "a file")
    said = parser.format_help()
    assert (
        "\nA first sentence, broken where its\nauthor broke it, with\n--max-samples at a line's end.\n\n"
        "Then:\n  one      a column, and more than the terminal is wide\n  two      another\n\n"
    ) in said
    assert "how many (default: 3)" in " ".join(said.split())
    assert said.count("default") == 1


@dataclasses.dataclass(frozen=True)
class Settings:
    share: float = flag(1 / 3, "of all")


def test_a_default_is_said_in_few_digits():
    parser = arguments.Parser("")
    parser.add_config(Settings)
    assert "of all (default: 0.333)" in parser.format_help()


def test_defaults_are_said_as_they_would_be_typed():
    parser = arguments.Parser("")
    for name, default in {
        "--some": ["a", "b"],
        "--s": 10.0,
        "--port": 0,
        "--off": False,
        "--model": str(DEMO / "m.pt"),
    }.items():
        parser.add_argument(name, default=default, help=f"of {name}")
    parser.add_argument("--said", default=12, help="default: a dozen")
    said = " ".join(parser.format_help().split())
    for words in ("--some (default: a,b)", "--s (default: 10)", "--port (default: 0)", "--model (default: the demo's)"):
        assert f"of {words}" in said
    assert "of --off " in said
    assert "default: a dozen (" not in said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_says_defaults_that_a_person_would_write(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["jaxsae", name, "--help"])
    with pytest.raises(SystemExit):
        main()
    said = " ".join(capsys.readouterr().out.split())
    defaults = re.findall(r"\(default: ([^()]*)\)", said)
    assert not [one for one in defaults if re.search(r"/(work|home|usr|tmp)/|[\[\]']{2}|^\[|\d{7}|\.0$", one)]
    assert not re.search(r"default: ((?!--)[^()])*\(default:", said)


def test_the_command_lists_its_commands_and_refuses_others(monkeypatch, capsys):
    def jaxsae(*words):
        monkeypatch.setattr(sys, "argv", ["jaxsae", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    status, said, _ = jaxsae()
    assert status == 0
    for name, what in COMMANDS.items():
        assert [line for line in said.splitlines() if line.split() == [name, *what.split()]], name
    assert max(map(len, said.splitlines())) <= 80
    known = ", ".join(COMMANDS)
    assert jaxsae("trian") == (2, "", f"error: the command must be one of {known}, got trian\n")
    assert jaxsae("--layer", "8") == (2, "", f"error: the command must be one of {known}, got --layer\n")


def test_the_command_is_the_script(monkeypatch, capsys, script):
    for words in (["--help"], ["--layer", "x"], ["--layr", "8"], ["--epochs", "0"]):
        monkeypatch.setattr(sys, "argv", ["jaxsae", "train", *words])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        ran = script("train", *words)
        usage = [text.replace("jaxsae train", "train.py").split() for text in (out, err)]  # filled to other widths
        assert (end.value.code, *usage) == (ran.status, ran.out.split(), ran.err.split())


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("8", [8]),
        ("blocks.8.hook_resid_post", [8]),
        ("14, blocks.2.hook_resid_post,0", [14, 2, 0]),
        ("all", [0, 1, 2]),
    ],
)
def test_a_layer_is_named_by_its_number_or_its_hook(text, layers):
    assert arguments.layers_of(text, range(3)) == layers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "blocks.8.hook_resid_mid",
            "must be a number, several separated by commas, or all, got blocks.8.hook_resid_mid",
        ),
        ("8,", "must be a number"),
        ("²", "must be a number"),
        ("1,-2", "must be at least 0, got -2"),
        ("8,blocks.8.hook_resid_post", "must differ"),
    ],
)
def test_another_word_for_a_layer_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        arguments.layers_of(text, range(3))


def test_a_flag_of_one_layer_takes_its_hook_too(capsys):
    parser = arguments.Parser("")
    parser.add_argument("--layer", type=arguments.one_layer)
    assert parser.parse_args(["--layer", "blocks.3.hook_resid_post"]).layer == 3
    assert parser.parse_args(["--layer", "3"]).layer == 3
    with pytest.raises(SystemExit):
        parser.parse_args(["--layer", "first"])
    assert "must be a number or a hook such as blocks.8.hook_resid_post, got first" in capsys.readouterr().err


def test_settings_that_the_library_names_become_flags():
    parser = arguments.Parser("")
    for name in ("--k-sparse", "--resume", "--device", "--layer"):
        parser.add_argument(name)
    said = (
        "k_sparse must be 3, layer 4 of a/k_sparse.pt, config.k_sparse; give resume=True or device=cpu, no k_sparse_2"
    )
    assert parser.with_flags(said) == (
        "--k-sparse must be 3, layer 4 of a/k_sparse.pt, config.k_sparse; give --resume or --device cpu, no k_sparse_2"
    )
