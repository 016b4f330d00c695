"""The last lines of `jaxsae train`: figures, files, and notes on what they say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jaxsae.cli import terminal
from jaxsae.config import ARCHITECTURES

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from pathlib import Path

    from jaxsae.train.run import RunResult


def say_one(result: RunResult, scored_on: str) -> None:
    """The last lines of a run of one."""
    report = result.report
    how, rate = report["settings"], report["steps_per_second"]
    stopped = "" if report["epochs"] == how["epochs"] else f" (no new lowest loss for {how['patience']})"
    of = "" if how["recipe"] == "guide" else f" (of rows {'whitened' if how.get('whiten') else 'scaled to variance 1'})"
    print(
        f"trained  {report['epochs']} epochs{stopped}, {rate:,.0f} steps/s, final loss {report['final_loss']:.5f}{of}"
    )
    print(
        f"scored   L0 {report['l0']:.1f} of {report['d_sae']:,}, FVU {report['fvu']:.3g}, dead {report['dead']:.1%} "
        f"({scored_on})"
    )
    print(f"took     {report['seconds']:.1f} s, peak memory {report['peak_memory_bytes'] / 2**20:,.0f} MiB")
    print(f"wrote    {result.file}, .json, .png; metrics.jsonl has every epoch")
    if is_dense(report):
        print(
            "note     dense features: over a tenth of them fire on each row. Try --recipe reading, or --recipe modern "
            "--k-sparse 20."
        )
    if report["fvu"] >= 1:
        print(
            "note     a failed run: the mean row is closer to the rows than what it makes of them. More rows, or --epochs."
        )
    if report["dead"] > 0.5:
        instead = "more text, or a smaller --expansion" if how["recipe"] != "guide" else "--recipe modern as well"
        print(f"note     dead latents: {report['dead']:.1%} of them fire on none of these rows. Try {instead}.")
    say_narrow([report])
    say_unaware([report])


def is_dense(report: dict[str, Any]) -> bool:
    """Whether more than a tenth of the latents fire on a row."""
    return report["l0"] > report["d_sae"] / 10


NARROW = 1 / 32
"""Share of d_in: rows that vary in fewer directions are better read denoised or whitened, see docs/recipes.md."""


def say_narrow(reports: list[dict[str, Any]]) -> None:
    """What brings out more where an error is about few directions."""
    for report in reports:
        how, found = report["settings"], report.get("directions", 0)  # older reports do not say
        as_is = not how.get("denoise") and not how.get("whiten")
        if how["recipe"] == "reading" and as_is and 0 < found < NARROW * report["d_in"]:
            print(
                f"note     the variance of layer {report['layer']} lies in about {found:.0f} of {report['d_in']} directions: "
                "--recipe reading --whiten 0.75 may bring out more features."
            )


def say_unaware(reports: list[dict[str, Any]]) -> None:
    """Which files programs misread that know only the plain formula."""
    worst = max(reports, key=lambda report: report["l0_of_relu_alone"] / max(report["l0"], 1e-9))
    if worst["l0_of_relu_alone"] > 1.01 * worst["l0"]:
        print(
            f"note     read with relu alone, as the original's inspector does it, this file has "
            f"{worst['l0_of_relu_alone']:.1f} latents on a row, not {worst['l0']:.1f}; jaxsae applies what its config says "
            f"besides ({ARCHITECTURES[worst['architecture']].stores})."
        )


def say_all(results: list[RunResult], scored_on: str) -> None:
    """The last lines of a run of several: a table, and a picture of error over sparsity."""
    from jaxsae.files import atomic_path
    from jaxsae.train.plots import pareto_plot

    columns = ("SAE", "epochs", "final loss", "L0", "FVU", "dead")
    reports = [result.report for result in results]
    rows = []
    for result, r in zip(results, reports, strict=True):
        figures = (f"{r['final_loss']:.5f}", f"{r['l0']:.1f}", f"{r['fvu']:.5f}", f"{r['dead']:.1%}")
        rows.append((result.file.name, r["epochs"], *figures))
    terminal.print_table(f"Scored on: {scored_on}", columns, rows)
    picture = results[0].file.parent / "sae_pareto.png"
    with atomic_path(picture) as png:
        pareto_plot(png, [(r["layer"], r["l0"], r["fvu"]) for r in reports], scored_on)
    for line in consistency(results):
        print(line)
    last = next(result.report for result in reversed(results) if result.trained)
    print(f"trained  {len(results)} SAEs, {last['steps_per_second']:,.0f} steps/s")
    print(f"took     {last['seconds']:.1f} s, peak memory {last['peak_memory_bytes'] / 2**20:,.0f} MiB")
    print(f"wrote    {len(results)} x .pt, .json, .png in {picture.parent}, and {picture.name}")
    say_narrow(reports)
    say_unaware(reports)


def consistency(results: list[RunResult]) -> list[str]:
    """How alike the SAEs are that differ in their seed alone."""
    from convert import load_sae
    from jaxsae.sae.consistency import pw_mcc, pw_mcc_in_words

    alike: dict[str, list[Path]] = {}
    for result in results:
        alike.setdefault(re.sub(r"_seed\d+$", "", result.file.stem), []).append(result.file)
    return [
        f"seeds    {stem}: {pw_mcc_in_words(pw_mcc([load_sae(file).sae for file in files]), 3)} over {len(files)} seeds"
        for stem, files in alike.items()
        if len(files) > 1
    ]
