"""Feed mutated files to the readers: each is read, or refused by one line. Nothing else, and nothing in them is run.

    python tests/fuzzing bytes --times 20000

Runs in processes of limited memory, each input within a limit of time; the input that breaks one is written down.
"""

import io
import json
import multiprocessing
import random
import resource
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SECONDS, MEMORY = 20, 6 * 2**30
"""For one input; for a process."""
VALUES: list[Any] = [None, True, -1, 0, 2**31, 2**63, 10**40, 1.5, float("nan"), 1e308, "", "x" * 5000, "\0", "\ud800"]
VALUES += [[], {}, [[]], {"a": None}, [1, "2"], "../../etc/passwd", "layer0", -100]


def seeds(folder: Path) -> dict[str, Path]:
    """A good file or folder of each kind."""
    import jax
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from conftest import checkpoint_content, tiny_splits

    from convert import convert_sae, save_sae
    from jaxsae.config import SAEConfig
    from jaxsae.features.concepts import BUILT_IN
    from jaxsae.sae.architectures import init
    from jaxsae.text import arrow

    torch.save(checkpoint_content(), folder / "model.pt")
    config = SAEConfig(8, 16, k=3, architecture="topk")
    save_sae(folder / "sae.pt", init(jax.random.key(0), config), config, [1.0, 0.5], {"layer": 1})
    (folder / "dataset").mkdir()
    arrow.save_splits(folder / "dataset", tiny_splits())
    texts = [{"_id": str(n), "atf": f"{n}. a-na [x] šar-ri#\n$ blank\n&P12 = x"} for n in range(30)]
    (folder / "fragments.json").write_text(json.dumps(texts), encoding="utf-8")
    (folder / "fragments.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(texts), folder / "fragments.parquet")
    for name in ("saelens", "dictionary_learning", "sparsify"):
        convert_sae(folder / "sae.pt", folder / name, name)
    shutil.copy(BUILT_IN, folder / "concepts.toml")
    store = folder / "store"
    store.mkdir()
    np.save(store / "layer0.npy", np.ones((6, 4), np.float32))
    columns = {"sample": [0, 0, 1, 1, 2, 2], "position": [0, 1] * 3, "token": [65] * 6, "label": [-100] * 6}
    for name, column in (columns | {"real": [1] * 6}).items():
        np.save(store / f"{name}.npy", np.array(column, np.int32))
    about = {"format": "jaxsae-rows", "version": 1, "layers": [0], "rows": 6, "d_in": 4, "padding": "drop"}
    about |= {"positions": 2, "checkpoint_sha256": "a"}
    (store / "store.json").write_text(json.dumps(about))
    shutil.copytree(store, folder / "joined")
    for part, rows in (("part-0", 4), ("part-1", 2)):
        (folder / "joined" / part).mkdir()
        np.save(folder / "joined" / part / "layer0.npy", np.ones((rows, 4), np.float32))
        (folder / "joined" / part / "store.json").write_text(json.dumps(about | {"rows": rows}))
    (folder / "joined" / "layer0.npy").unlink()
    np.save(folder / "joined" / "runs.npy", np.array([[0, 0], [2, 1], [4, 0]]))
    (folder / "joined" / "store.json").write_text(json.dumps(about | {"parts": ["part-0", "part-1"]}))
    return {kind: folder / name for kind, name in KINDS.items()}


KINDS = {
    "checkpoint": "model.pt",
    "sae": "sae.pt",
    "arrow": "dataset",
    "dataset json": "dataset",
    "fragments": "fragments.json",
    "json lines": "fragments.jsonl",
    "parquet": "fragments.parquet",
    "saelens": "saelens",
    "dictionary_learning": "dictionary_learning",
    "sparsify": "sparsify",
    "concepts": "concepts.toml",
    "store": "store",
    "joined store": "joined",
}


def read(kind: str, path: Path) -> None:
    """As the scripts read it, to the point from which on its content is trusted."""
    from convert import layer_of, load_sae, read_checkpoint
    from jaxsae.activations import store
    from jaxsae.features import concepts
    from jaxsae.text import loading
    from jaxsae.text.samples import check_samples
    from jaxsae.text.tokenizer import CharacterTokenizer

    if kind == "checkpoint":
        read_checkpoint(path)
    elif kind in ("sae", "saelens", "dictionary_learning", "sparsify"):
        layer_of(path, load_sae(path), None)
    elif kind in ("arrow", "dataset json"):
        samples = loading.load_samples(path, "train", 5)
        check_samples(samples, CharacterTokenizer(7800), samples.ids.shape[1])
        for number in range(len(samples)):
            concepts.true_text(samples, number)
    elif kind in ("fragments", "json lines", "parquet"):
        loading.prepare_file(path, 42)
    elif kind == "concepts":
        concepts.load_concepts(path)
    else:
        found = store.open_stores([str(path)], 0)
        _ = [rows[:] for rows in found.layers.values()]
        store.text_of(found, "a")


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, pieces removed, doubled or replaced; seldom cut short."""
    out = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        if not out:
            break
        at, size = rng.randrange(len(out)), rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at : at + size] = rng.randbytes(size)
            case 2:
                out[at : at + size] = rng.choice((b"\0", b"\xff", b"\x7f")) * size
            case 3:
                del out[at : at + size]
            case 4:
                out[at:at] = out[at : at + size]
            case 5 if rng.random() < 0.3:
                del out[at:]
    return bytes(out)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """JSON with a part replaced, removed or doubled."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        out = value.copy()
        if rng.random() < 0.1:
            del out[key]
        else:
            out[key] = mutate_value(value[key], rng)
        return out
    return rng.choice(VALUES)


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Half by structure, half by bytes."""
    if rng.random() < 0.5:
        return mutate_bytes(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 3))):
        value = mutate_value(value, rng)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def mutate_zip(content: bytes, rng: random.Random) -> bytes:
    """By bytes; or an entry's content, with checksums that hold."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        entries = old.namelist()
        chosen = (
            next(name for name in entries if name.endswith("data.pkl")) if rng.random() < 0.8 else rng.choice(entries)
        )
        for name in entries:
            body = old.read(name)
            new.writestr(name, mutate_bytes(body, rng) if name == chosen else body)
    return out.getvalue()


def mutated(kind: str, good: Path, folder: Path, rng: random.Random) -> Path:
    """A broken copy of the good input of that kind."""
    target = folder / good.name
    by_end: dict[str, Callable[[bytes, random.Random], bytes]] = {".pt": mutate_zip, ".json": mutate_json}
    if not good.is_dir():
        mutate = by_end.get(good.suffix, mutate_bytes)
        target.write_bytes(mutate(good.read_bytes(), rng))
        return target
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(good, target)
    ends = {"arrow": (".arrow",), "dataset json": (".json",)}.get(kind, (".json", ".npy", ".pt", ".safetensors"))
    inside = target / "train" if kind == "arrow" else target
    chosen = rng.choice(sorted(path for path in inside.rglob("*") if path.suffix in ends))
    mutate = by_end.get(chosen.suffix, mutate_bytes)
    chosen.write_bytes(mutate(chosen.read_bytes(), rng))
    return target


class SlowError(Exception):
    """One input took too long."""


def _slow(number: int, frame: Any) -> None:
    raise SlowError


def work(good: dict[str, Path], folder: Path, first: int, times: int, told: Any) -> None:
    """Inputs number `first` and on; tells of each kind how many were read and refused, and what went wrong."""
    from jaxsae.errors import InputError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _slow)
    folder.mkdir()
    counts: dict[str, list[int]] = {kind: [0, 0] for kind in good}
    for number in range(first, first + times):
        kind = list(good)[number % len(good)]
        path = mutated(kind, good[kind], folder, random.Random(number))
        (folder / "number").write_text(str(number))
        signal.alarm(SECONDS)
        try:
            read(kind, path)
            counts[kind][0] += 1
        except InputError as error:
            counts[kind][1] += 1
            if not str(error):
                told.put(f"{number} {kind}: refused without a word")
        except BaseException as error:
            told.put(f"{number} {kind}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            signal.alarm(0)
    told.put(counts)


def fuzz(folder: Path, times: int, first: int = 0, at_once: int = 1000) -> tuple[dict[str, list[int]], list[str]]:
    """({kind: [read, refused]}, what went wrong)."""
    (folder / "good").mkdir()
    good, wrong, counts = seeds(folder / "good"), [], {kind: [0, 0] for kind in KINDS}
    spawn = multiprocessing.get_context("spawn")
    start, last = first, first + times
    while start < last:
        told, scratch = spawn.Queue(), folder / f"from {start}"
        process = spawn.Process(target=work, args=(good, scratch, start, min(at_once, last - start), told))
        process.start()
        finished = False
        while not finished and (process.is_alive() or not told.empty()):
            try:
                got = told.get(timeout=1)
            except Exception:  # nothing yet
                continue
            if isinstance(got, dict):
                finished = True
                counts = {kind: [a + b for a, b in zip(counts[kind], got[kind], strict=True)] for kind in counts}
            else:
                wrong.append(got)
        process.join(60)
        if finished:
            start += at_once
        else:
            number = int((scratch / "number").read_text())
            wrong.append(f"{number} {list(KINDS)[number % len(KINDS)]}: the process died, {process.exitcode}")
            start = number + 1
        shutil.rmtree(scratch, ignore_errors=True)
    return counts, wrong
