#!/usr/bin/env python3
"""Many inputs for the readers: `python tests/fuzzing bytes` or `python tests/fuzzing meanings`."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# this folder is no place for imports, and the tests' convert/ must not pass for convert/
sys.path[0:1] = [str(TESTS.parent), str(TESTS)]


def of_bytes(folder: Path, times: int, first: int) -> list[str]:
    """Print what became of inputs whose bytes were changed; what went wrong."""
    from fuzzing import mutations

    counts, wrong = mutations.fuzz(folder, times, first)
    for kind, (fine, refused) in counts.items():
        print(f"{kind:14} {fine + refused:6} inputs: {refused} refused, {fine} read")
    return wrong


def of_meanings(folder: Path, times: int, first: int) -> list[str]:
    """Print what became of inputs of known meaning; what went wrong."""
    import torch

    from fuzzing import meanings

    torch.set_num_threads(1)
    counts, wrong, reasons = meanings.fuzz(folder, times, first)
    for reason, often in reasons.most_common(10):
        print(f"{often:6} refused although clear: {reason}")
    for kind, of in counts.items():
        print(f"{kind:20} {sum(of.values()):6} inputs: " + ", ".join(f"{n} {outcome}" for outcome, n in of.items()))
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("bytes", "meanings"))
    parser.add_argument("--times", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        wrong = {"bytes": of_bytes, "meanings": of_meanings}[args.what](Path(scratch), args.times, args.first)
    print(*wrong, sep="\n")
    print(f"{len(wrong)} of {args.times} went wrong, in {time.monotonic() - began:.0f} s")
    sys.exit(bool(wrong))
