"""The files of a run: whether what is there may be replaced, and what an older file of other settings is called."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsae.config import FILE_TAGS
from jaxsae.errors import require
from jaxsae.files import remove_folder, sha256
from jaxsae.train.checkpointer import state_folder

SUFFIXES = (".png", ".json", ".pt")
"""Of the files of an SAE; it comes last, for with it the others are known to be its own."""


def made_of(file: Path) -> dict[str, Any] | None:
    """The settings that an SAE file was made with; None where it is not there, or not known what it is."""
    try:
        report = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        return report["settings"] if report["sae_sha256"] == sha256(file) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finished(settings: Mapping[Path, Mapping[str, Any]]) -> set[Path]:
    """The files that an earlier run has made with the same settings."""
    return {file for file, its in settings.items() if made_of(file) == its}


def check_replaceable(settings: Mapping[Path, Mapping[str, Any]], *, resume: bool) -> None:
    """Check that a run may write its files, before it is worked on.

    Another model or another text is another project's: an SAE of these is not replaced. A run that is resumed goes on
    with the same settings or not at all.

    Raises:
      InputError: an SAE that is there is of another model or text, or of other settings and `resume` is given; or there
        is an unfinished run and it is not.
    """
    instead = "give overwrite=True or another output"
    for file, its in settings.items():
        older = made_of(file)
        if file.exists():
            require(older is not None or not resume, f"{file} exists and what made it is not known; {instead}")
            differ = [name for name in its if older and name in older and older[name] != its[name]]
            names = {"model_sha256": "model", "dataset_sha256": "dataset"}
            if not resume:
                differ = [name for name in differ if name in names]
            named = ", ".join(names.get(name, name) for name in differ)
            require(not differ, f"{file} exists, made with another {named}; {instead}")
        state = state_folder(file)
        require(
            resume or not state.exists(),
            f"an unfinished run left its state in {state}; give resume=True to go on with it, or overwrite=True to drop "
            "it",
        )


def drop_unfinished(files: Mapping[Path, Any]) -> None:
    """Remove the states that unfinished runs have left beside these files."""
    for file in files:
        remove_folder(state_folder(file))


def keep_older(file: Path, settings: Mapping[str, Any]) -> Path | None:
    """Give an SAE that other settings made another name, which says in what it differs, with its figures and picture.

    Nothing is renamed where the same settings made it: it is replaced by the same.

    Returns: the name it has now; None where there was nothing to keep.
    """
    older = made_of(file)
    if not file.exists() or older == settings:
        return None
    differ = [] if older is None else [name for name in settings if older.get(name) != settings[name]]
    words = [
        f"{FILE_TAGS.get(name, name.replace('_', '-') + '-')}{older[name]}"
        for name in differ
        if older and older.get(name) is not None
    ]
    tag = "_".join(words)[:100] or "older"
    kept, number = file.with_name(f"{file.stem}_{tag}.pt"), 2
    while kept.exists():
        kept, number = file.with_name(f"{file.stem}_{tag}_{number}.pt"), number + 1
    for kind in SUFFIXES:
        if file.with_suffix(kind).exists():
            os.replace(file.with_suffix(kind), kept.with_suffix(kind))
    return kept
