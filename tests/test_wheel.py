"""The wheel holds the two packages and nothing else, and works where it is unpacked."""

import os
import subprocess
import sys
import zipfile

from conftest import ROOT

USE = """
import jaxsae, convert
from convert import dictionary_learning, formats, pt, restoration, saelens, sparsify
from jaxsae.features.concepts import load_concepts
from jaxsae.features.report import PAGE
assert load_concepts() and PAGE.is_dir(), PAGE
print(jaxsae.__file__, convert.__file__)
"""


def test_the_wheel(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    for name in listed.stdout.splitlines():
        if name.endswith((".py", ".toml", ".md")) or name.startswith(("jaxsae/", "checkpoints/", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        archive.extractall(tmp_path / "site")
    assert {top for top in tops if not top.endswith(".dist-info")} == {"jaxsae", "convert"}
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path / "site")) == 2
