#!/usr/bin/env python3
"""Rate how a model fills whole gaps that are made in held-out text: found or not, how far off, how far to be believed.

Gaps of known length by beam search and greedily, the same ones of unknown length, and the calibration of probabilities
before and after the temperature that `jaxsae restore` fits.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from jaxsae import runtime
from jaxsae.cli import arguments, process, terminal
from jaxsae.config import DEMO, DEMO_TEXT
from jaxsae.errors import require

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Sequence

    import numpy as np

    from jaxsae.models.protocol import ResidualModel
    from jaxsae.restore.calibration import Made
    from jaxsae.restore.fillings import Filling

LENGTHS = range(2, 11)
TOP = 20


def main(args: argparse.Namespace) -> None:
    """Three tables; with --json, the same figures."""
    require(args.gaps >= 1 and args.beam >= 1, "--gaps and --beam must be at least 1")
    runtime.select_device(args.device)
    from convert import read_checkpoint
    from jaxsae.demo import dataset
    from jaxsae.files import write_json
    from jaxsae.restore.calibration import calibrate, make_gaps
    from jaxsae.text.loading import load_samples

    dataset.ensure_demo(args.dataset)
    model = read_checkpoint(args.checkpoint).model()
    fitted = calibrate(model, load_samples(args.dataset, "validation"))
    assert fitted is not None
    t = fitted.temperature
    print(f"temperature {t:.3f} of {fitted.places:,} places: loss {fitted.loss_before:.4f} -> {fitted.loss:.4f}")
    test = load_samples(args.dataset, "test")
    made = make_gaps(model, test, LENGTHS, args.gaps * len(LENGTHS), seed=1)
    out: dict[str, Any] = {"temperature": t, "gaps": len(made), "beam": args.beam}
    if not args.no_search:
        ways = {"greedy": 1, f"beam {args.beam}": args.beam}
        found = {way: known(model, made, beam, t) for way, beam in ways.items()}
        out["known"] = rate(model, made, found, "Gaps of known length")
        unknown_made = made[: args.unknown * len(LENGTHS)]
        if unknown_made:
            hidden = {f"beam {args.beam}": unknown(model, unknown_made, args.beam, t)}
            out["unknown"] = rate(model, unknown_made, hidden, "The same, first of each length, their length unknown")
            out["lengths"] = rate_lengths(unknown_made, hidden[f"beam {args.beam}"])
        out["fillings"] = rate_fillings(model, made, found[f"beam {args.beam}"])
    out["calibration"] = rate_places(model, made, test, t)
    if args.json:
        write_json(args.json, out)


def known(model: ResidualModel, made: Sequence[Made], beam: int, t: float) -> list[list[Filling]]:
    """The fillings of each gap, several gaps at a time."""
    from jaxsae.restore.fillings import as_fillings
    from jaxsae.restore.search import search

    out = []
    for start in range(0, len(made), 32):
        holes = [gap.hole() for gap in made[start : start + 32]]
        found = search(model, holes, beam=beam, top=TOP, temperature=t)
        out += [as_fillings(model, [(one.score, one.ids) for one in every], TOP) for every in found]
    return out


def unknown(model: ResidualModel, made: Sequence[Made], beam: int, t: float) -> list[list[Filling]]:
    """The fillings of each gap, of any length."""
    from jaxsae.restore.fillings import fill_holes
    from jaxsae.text.damaged_text import LONGEST

    every = range(1, LONGEST + 1)
    return [fill_holes(model, [g.hole(n) for n in every], beam=beam, top=TOP, temperature=t) for g in made]


def rate(
    model: ResidualModel, made: Sequence[Made], found: dict[str, list[list[Filling]]], title: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Way -> length or `all` -> exact match and character error rate, of the first filling and the best of all."""
    import numpy as np

    out: dict[str, dict[str, dict[str, float]]] = {}
    lengths = np.array([len(gap.true) for gap in made])
    for way, fillings in found.items():
        rates = []
        for gap, every in zip(made, fillings, strict=True):
            true = model.tokenizer.decode(gap.true.tolist())
            errors = [distance(one.text, true) / len(true) for one in every]
            rates.append((errors[0] == 0, min(errors) == 0, errors[0], min(errors)))
        figures = np.array(rates, float)
        groups = {str(n): lengths == n for n in LENGTHS if (lengths == n).any()} | {"all": lengths > 0}
        names = ("exact at 1", f"exact at {TOP}", "error at 1", f"error at {TOP}")
        out[way] = {
            group: {"gaps": int(of.sum()), **dict(zip(names, figures[of].mean(axis=0).tolist(), strict=True))}
            for group, of in groups.items()
        }
    columns = ("characters", "gaps", *(f"{way}: {name}" for way in out for name in names))
    rows = [
        (group, out[way][group]["gaps"], *(f"{out[way][group][name]:.1%}" for way in out for name in names))
        for group in groups
    ]
    terminal.print_table(title, columns, rows)
    return out


def distance(a: str, b: str) -> int:
    """Edits of one character that make one text the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (one != other))
    return row[-1]


def rate_lengths(made: Sequence[Made], fillings: list[list[Filling]]) -> dict[str, float]:
    """How often the first filling has the true length."""
    right = [len(gap.true) == every[0].length for gap, every in zip(made, fillings, strict=True)]
    share = sum(right) / len(right)
    print(f"length of the first filling right: {share:.1%} of {len(right)}")
    return {"right": share, "gaps": len(right)}


def rate_fillings(model: ResidualModel, made: Sequence[Made], fillings: list[list[Filling]]) -> dict[str, float]:
    """Calibration of whole fillings of gaps of known length."""
    import numpy as np

    from jaxsae.restore.calibration import calibration_error

    true = [model.tokenizer.decode(gap.true.tolist()) for gap in made]
    first = np.array([every[0].probability for every in fillings])
    right = np.array([every[0].text == what for every, what in zip(fillings, true, strict=True)])
    all_p = np.array([one.probability for every in fillings for one in every])
    all_right = np.array([one.text == what for every, what in zip(fillings, true, strict=True) for one in every])
    found = {
        "first": calibration_error(first, right),
        "all": calibration_error(all_p, all_right),
        "mean probability": float(first.mean()),
        "right": float(right.mean()),
    }
    print(
        f"whole fillings of known length: calibration error {found['first']:.3f} of the first ones (mean probability "
        f"{first.mean():.3f}, right {right.mean():.3f}), {found['all']:.4f} of all"
    )
    return found


def rate_places(model: ResidualModel, made: Sequence[Made], samples: Any, t: float) -> dict[str, dict[str, float]]:
    """Calibration of the characters of single places, of gaps and of the dataset's own damage."""
    import numpy as np

    from jaxsae.restore.places import Asked, logits_of

    holes = [gap.hole() for gap in made]
    gaps = [Asked(hole.ids, np.arange(hole.start, hole.end)) for hole in holes]
    some = samples[:100]
    own = [
        Asked(ids[:n], np.flatnonzero(damaged[:n]))
        for ids, n, damaged in zip(some.ids, some.lengths, some.damaged, strict=True)
        if damaged.any()
    ]
    own_true = np.concatenate([labels[damaged] for labels, damaged in zip(some.labels, some.damaged, strict=True)])
    out = {}
    for what, asked, true in (
        ("gaps", gaps, np.concatenate([gap.true for gap in made])),
        ("the dataset's damage", own, own_true),
    ):
        logits = logits_of(model, asked)
        for name, temperature in (("temperature 1", 1.0), (f"temperature {t:.3f}", t)):
            out[f"{what}, {name}"] = place_errors(logits / np.float32(temperature), true)
    rows = [(name, *(f"{v:,}" if isinstance(v, int) else f"{v:.4f}" for v in of.values())) for name, of in out.items()]
    terminal.print_table("Expected calibration error, 15 bins", ("places", *next(iter(out.values()))), rows)
    return out


def place_errors(logits: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Calibration errors of the first character of each place, and of all that are listed."""
    import numpy as np

    from jaxsae.restore.calibration import calibration_error, log_softmax

    best = np.argsort(-logits, axis=1)[:, :TOP]
    p = np.exp(np.take_along_axis(log_softmax(logits), best, axis=1)).astype(float)
    right = best == true[:, None]
    rng = np.random.default_rng(0)  # what as many places would show if their probabilities were right
    chance = [calibration_error(p[:, 0], rng.random(len(p)) < p[:, 0]) for _ in range(20)]
    return {
        "number": len(true),
        "first right": float(right[:, 0].mean()),
        "first": calibration_error(p[:, 0], right[:, 0]),
        "first, by chance": float(np.mean(chance)),
        "first, equal widths": calibration_error(p[:, 0], right[:, 0], equal_width=True),
        f"all {TOP}": calibration_error(p.reshape(-1), right.reshape(-1)),
        f"all {TOP}, equal widths": calibration_error(p.reshape(-1), right.reshape(-1), equal_width=True),
    }


if __name__ == "__main__":
    parser = arguments.Parser(__doc__ or "")
    parser.add_argument("--checkpoint", default=str(DEMO / "best_model.pt"), help="the model to rate")
    parser.add_argument("--dataset", default=str(DEMO_TEXT / "dataset"), help="its text")
    parser.add_argument("--gaps", type=int, default=50, metavar="N", help="of each length from 2 to 10")
    parser.add_argument("--unknown", type=int, default=10, metavar="N", help="of these, filled with length unknown too")
    parser.add_argument("--beam", type=int, default=16, metavar="N", help="partial fillings carried along")
    parser.add_argument("--no-search", action="store_true", help="calibration of single places alone")
    parser.add_output("--json", "also write the figures as JSON; - is standard output")
    arguments.add_device(parser)
    process.run(main, parser)
