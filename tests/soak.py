#!/usr/bin/env python3
"""Train and inspect in a loop, in one process, and watch its memory: anonymous memory must not grow.

python tests/soak.py --minutes 60
"""

import argparse
import contextlib
import io
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROWTH = 0.05
"""Of the median of the last quarter over that of the second: above it, memory is said to grow."""


def anonymous() -> float:
    """This process's anonymous memory that is in RAM, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def run(script: str, *flags: object) -> None:
    """A script in this process."""
    sys.argv = [f"{script}.py", *map(str, flags)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(said.getvalue()[-500:]) from None


def soak(minutes: float) -> list[float]:
    """MiB after each round, of which there are at least four: quarters are compared."""
    found, end, number = [], time.monotonic() + 60 * minutes, 0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end or len(found) < 4:
            sparse = ["--architecture", "batchtopk", "--target-l0", 8 + number % 9]
            flags = ["--seed", number, "--max-samples", 60, "--epochs", 3, "--overwrite", "--quiet"]
            run("train", *sparse, *flags, "--output", folder)
            run(
                "inspect_sae",
                "--output",
                folder,
                "--num-samples",
                40,
                "--feature",
                number % 256,
                "--html",
                f"{folder}/a.html",
            )
            number += 1
            found.append(anonymous())
            if number % 10 == 1:
                print(f"{number:5} rounds  {found[-1]:8.0f} MiB", flush=True)
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # else tests/convert/ would pass for convert/
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    found = soak(parser.parse_args().minutes)
    quarter = len(found) // 4
    second, last = statistics.median(found[quarter : 2 * quarter]), statistics.median(found[-quarter:])
    print(f"{len(found)} rounds; median of the second quarter {second:.0f} MiB, of the last {last:.0f} MiB")
    sys.exit(last > (1 + GROWTH) * second)
