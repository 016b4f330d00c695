"""Feed the readers files whose meaning is known: each is read as it means, or refused; none is read as something else.

    python tests/fuzzing meanings --times 20000

Where `mutations` changes bytes, this changes what files say: words renamed, doubled, dropped, added, numbers of other
types, tensors in other types and layouts, other places, other forms of the same table. Whoever makes an input knows
what it means, from the definitions of the formats and not from the readers, and says how sure that is:

    clear    a legal file with one meaning; it should be read
    open     one meaning, in a form that its own program would not write; it may be refused
    unclear  it contradicts itself, or says something that might change the figures; it must be refused

The figures are computed here in float64: the residual stream of a tiny model, the latents and reconstructions of an
SAE and the layer it is of, the arrays of a dataset, the cleaned texts of fragments.
"""

import collections
import random
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.checkpoints import checkpoint, read_model
from fuzzing.datasets import dataset, read_dataset
from fuzzing.dictionaries import dictionary
from fuzzing.fragments import fragments, read_texts
from fuzzing.inputs import CLEAR, TOLERANCE, UNCLEAR, Input
from fuzzing.sae_meaning import read_sae
from fuzzing.sae_pt import sae_pt
from fuzzing.saelens import saelens
from fuzzing.sparsify import sparsify

KINDS: dict[str, tuple[Callable[[Input], None], Callable[[Input], Any]]] = {
    "checkpoint": (checkpoint, read_model),
    "SAE .pt": (sae_pt, read_sae),
    "SAELens": (saelens, read_sae),
    "dictionary_learning": (dictionary, read_sae),
    "sparsify": (sparsify, read_sae),
    "dataset": (dataset, read_dataset),
    "fragments": (fragments, read_texts),
}
OUTCOMES = ("right", "refused", "refused although clear", "wrong")


def same(found: Any, meant: Any) -> str:
    """Empty, or how it differs."""
    if isinstance(meant, list) and meant and isinstance(meant[0], str):
        return "" if found == meant else f"texts {found} instead of {meant}"
    if isinstance(meant, list):
        fits = all(a.shape == b.shape and (a == b).all() for a, b in zip(found, meant, strict=True))
        return "" if fits else f"rows {[a.tolist() for a in found]} instead of {[a.tolist() for a in meant]}"
    values, sure, largest = meant
    if found.shape != values.shape:
        return f"shape {found.shape} instead of {values.shape}"
    off = np.where(sure, np.abs(found - values), 0).max() / largest
    return "" if off <= TOLERANCE else f"figures off by {off:.2g} of the largest"


def judge(number_: int, folder: Path) -> tuple[str, str, str]:
    """(kind, outcome, what it was or why)."""
    from jaxsae.errors import InputError, InputNote, one_line

    kind = list(KINDS)[number_ % len(KINDS)]
    make, read = KINDS[kind]
    rng = random.Random(number_)
    one = Input(rng, folder, many=rng.random() < 0.3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make(one)
    except Exception as error:
        return kind, "wrong", f"{'; '.join(one.done)}: could not be made: {type(error).__name__}: {error}"
    what = "; ".join(one.done)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", InputNote)
            found = read(one)
    except InputError as error:
        line = one_line(f"error: {error}")
        if len(line) > 301 or line.count("\n") != 1:
            return kind, "wrong", f"{what}: not one short line: {line}"
        reason = str(error).replace(str(one.path), "").replace(str(folder), "").strip(" /:")
        return kind, "refused although clear" if one.sure == CLEAR else "refused", reason if one.sure == CLEAR else what
    except Exception as error:
        return kind, "wrong", f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if one.sure == UNCLEAR:
        return kind, "wrong", f"{what}: read, though unclear"
    off = same(found, one.meant)
    return (kind, "wrong", f"{what}: {off}") if off else (kind, "right", what)


def fuzz(folder: Path, times: int, first: int = 0) -> tuple[dict[str, dict[str, int]], list[str], collections.Counter]:
    """(kind -> outcome -> how many, what went wrong, why what is clear was refused -> how often)."""
    counts = {kind: dict.fromkeys(OUTCOMES, 0) for kind in KINDS}
    wrong: list[str] = []
    reasons: collections.Counter = collections.Counter()
    for number_ in range(first, first + times):
        own = folder / str(number_)
        own.mkdir()
        kind, outcome, what = judge(number_, own)
        counts[kind][outcome] += 1
        if outcome == "wrong":
            wrong.append(f"{number_} {kind}: {what}")
        elif outcome == "refused although clear":
            reasons[f"{kind}: {re.sub(r'[0-9]+', 'N', what)[:200]}"] += 1
        shutil.rmtree(own)
    return counts, wrong, reasons
