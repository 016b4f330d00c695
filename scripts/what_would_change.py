#!/usr/bin/env python3
"""Say what installing jaxsae into this environment would replace, before it does.

    python scripts/what_would_change.py             # as `pip install -e .` in the clone
    python scripts/what_would_change.py '.[torch]'  # or with whatever else pip is to be given

Needs pip alone: it is for an environment that has other things in it. Nothing is installed.
"""

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Change(NamedTuple):
    """A package, its version here, and the one that pip would install."""

    name: str
    before: str | None
    after: str


def changes(report: Mapping[str, Any], here: Mapping[str, str]) -> list[Change]:
    """What pip's report (`--dry-run --report`) would change of the packages that are here, by name -> version."""
    installed = [(normal(one["metadata"]["name"]), one["metadata"]["version"]) for one in report["install"]]
    return sorted(Change(name, here.get(name), version) for name, version in installed if here.get(name) != version)


def normal(name: str) -> str:
    """A package's name as all its spellings are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def in_words(found: list[Change]) -> str:
    """Lines to read."""
    new = [f"{one.name} {one.after}" for one in found if one.before is None]
    replaced = [f"  {one.name} {one.before} -> {one.after}" for one in found if one.before is not None]
    lines = ["would replace:", *replaced] if replaced else ["would replace nothing that is here"]
    return "\n".join([*lines, f"{len(new)} new: {', '.join(new)}" if new else "0 new"])


def main() -> int:
    """Ask pip, and say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="what pip is to install, and its flags; the clone if there are none")
    parser.parse_known_args()
    asked = sys.argv[1:] or ["-e", str(Path(__file__).resolve().parents[1])]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", *asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    here = {normal(one.metadata["Name"]): one.version for one in importlib.metadata.distributions()}
    print(in_words(changes(json.loads(done.stdout), here)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
