#!/usr/bin/env python3
"""Kill the scripts at random moments (SIGKILL), run them again with --resume, and compare with runs that were let be.

    python tests/kill_anywhere.py --times 60

After every kill: nothing under a final name but what the unkilled run writes, byte for byte. After the run that
follows: all of it, and no trace of the kill.
"""

import argparse
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = ["--max-samples", "30", "--quiet"]
TRAIN = ["train", *DATA, "--verify", "0", "--save-every", "0", "--resume"]
KINDS = {
    "train": [*TRAIN, "--layer", "8", "--epochs", "40"],
    "train, several": [*TRAIN, "--layer", "0,3", "--target-l0", "5,9", "--architecture", "batchtopk", "--epochs", "8"],
    "train, from disk": [*TRAIN, "--layer", "2", "--epochs", "8", "--memory-limit", "1MB"],
    "extract": ["extract_activations", *DATA, "--layer", "0,4,8"],
}
KINDS["model"] = ["train_model", "--quiet", "--resume", "--d-model", "8", "--n-heads", "2", "--d-ff", "8"]
KINDS["model"] += ["--n-layers", "1", "--epochs", "6", "--dataset", "{fragments}"]


def start(kind: str, output: Path) -> subprocess.Popen:
    """The script in a process of its own."""
    name, *flags = KINDS[kind]
    fragments = output.parent / "fragments.json"
    if kind == "model" and not fragments.exists():
        texts = [{"_id": str(n), "atf": f"{n}. a-na be-li2-ia qi2-bi2-ma " * (n % 7 + 1)} for n in range(40)]
        fragments.write_text(json.dumps(texts))
    flags = [flag.format(fragments=fragments) for flag in flags]
    line = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *flags, "--output", str(output)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def written(output: Path) -> dict[str, bytes]:
    """What is the same in every run: the SAEs, the rows, the models. Path -> content."""
    found = sorted(path for end in ("pt", "npy") for path in output.rglob(f"*.{end}"))
    kept = [path for path in found if not any(part.startswith(".") for part in path.relative_to(output).parts)]
    return {str(path.relative_to(output)): path.read_bytes() for path in kept}


def trials(folder: Path, kinds: list[str], times: int, seed: int) -> list[str]:
    """What went wrong; one line for each kill."""
    rng, expected, seconds, wrong = random.Random(seed), {}, {}, []
    for number, kind in zip(range(times), itertools.cycle(kinds), strict=False):
        if kind not in expected:
            began, out = time.monotonic(), folder / kind / "out"
            out.parent.mkdir()
            running = start(kind, out)
            _, err = running.communicate()
            if running.returncode:
                raise SystemExit(f"{kind}: {err}")
            expected[kind], seconds[kind] = written(out), time.monotonic() - began
        base = folder / f"killed {number}"
        out, after = base / "out", rng.uniform(0.05, 1) * seconds[kind]
        base.mkdir()
        running = start(kind, out)
        try:
            running.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.communicate()
        said = f"{number:3} {kind:18} killed after {after:5.2f} s"
        early = written(out) if out.exists() else {}
        # last_model.pt and best_model.pt are those of the epochs so far
        half = [name for name, content in early.items() if kind != "model" and expected[kind].get(name) != content]
        if half:
            wrong.append(f"{said}: {half} are not what the unkilled run writes")
        if kind == "extract" and out.exists():
            shutil.rmtree(out)  # it was through: there is no --resume, a folder that exists is refused
        running = start(kind, out)
        _, err = running.communicate()
        traces = [path.name for path in base.rglob("*") if ".part-" in path.name or path.name.endswith(".state")]
        if running.returncode:
            wrong.append(f"{said}: then status {running.returncode}: {err.strip()[-300:]}")
        elif written(out) != expected[kind]:
            wrong.append(f"{said}: then other bytes")
        elif traces:
            wrong.append(f"{said}: left {traces}")
        else:
            print(f"{said}: as if it had not been", flush=True)
        shutil.rmtree(base, ignore_errors=True)
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        problems = trials(Path(folder), list(KINDS), args.times, args.seed)
    print(*problems, sep="\n")
    print(f"{args.times - len(problems)} of {args.times} as if they had not been killed")
    sys.exit(bool(problems))
