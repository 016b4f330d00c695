"""Which SAE files a command reads, and what goes with them: other seeds, concepts, settings of latents."""

from __future__ import annotations

import argparse
import contextlib
import glob
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxsae.cli import arguments, inputs, terminal
from jaxsae.config import DEMO_TEXT, DataConfig
from jaxsae.errors import listed, note, require
from jaxsae.models import hooks
from jaxsae.models.hooks import HOOKS, Hook

if TYPE_CHECKING:  # heavy: loaded by the functions that use them
    from collections.abc import Mapping, Sequence

    from convert.sae_files import SAEFile
    from convert.stored import AnyCheckpoint
    from jaxsae.activations.store import Store
    from jaxsae.cli.inputs import ModelOfRows
    from jaxsae.features.concepts import Concept
    from jaxsae.features.inspection import Inspection
    from jaxsae.features.statistics import LayerSAE
    from jaxsae.models.protocol import LazyModel, ResidualModel
    from jaxsae.text.samples import Samples


def add_files(parser: arguments.Parser) -> None:
    """Add the flags that say which files are read: `--sae`, `--layer`, `--output`."""
    parser.add_argument("--sae", nargs="+", metavar="FILE", help="SAE files; left out: those of --layer in --output")
    arguments.add_layers(parser)
    parser.add_argument(
        "--output", default="checkpoints/sae_results", metavar="DIR", help="where training left the SAE files"
    )


def add_corpus(parser: arguments.Parser, several: tuple[str, ...] = ()) -> None:
    """Add the flags that say which model and text latents are read on; `several`: see `add_config`."""
    parser.add_config(
        DataConfig,
        only=("checkpoint", "vocab", "dataset", "split", "max_samples", "padding"),
        names={"checkpoint": ("--checkpoint", "--model")},
        several=several,
        max_samples=100,
        split=inputs.HELD_OUT,
    )


def add_settings(parser: arguments.Parser, ablate: str, clamp: str) -> None:
    """Add `--ablate N` and `--clamp N=VALUE`, with what each is for."""
    parser.add_argument("--ablate", type=int, nargs="+", default=[], metavar="N", help=ablate)
    parser.add_argument("--clamp", type=clamped, nargs="+", default=[], metavar="N=VALUE", help=clamp)


def settings_of(args: argparse.Namespace) -> list[tuple[int, float]]:
    """(latent, value) of every `--ablate` and `--clamp`."""
    return [(latent, 0.0) for latent in args.ablate] + args.clamp


def read(args: argparse.Namespace) -> tuple[dict[str, SAEFile], dict[str, LayerSAE]]:
    """The files, and their SAEs with the layers that they are of."""
    from convert import layer_of, load_sae
    from jaxsae.features.statistics import LayerSAE

    given = find_files(args)
    files = {path: load_sae(path) for path in given}
    read = {path: LayerSAE(layer_of(path, file, given[path]), file.sae) for path, file in files.items()}
    if hasattr(args, "hook"):
        check_hook(args.hook, files, read)
    return files, read


def check_hook(hook: str, files: Mapping[str, SAEFile], saes: Mapping[str, LayerSAE]) -> None:
    """Raise `InputError` where an SAE is of another place of its block than `--hook` asks for."""
    from convert import hook_name_of

    for path, file in files.items():
        layer = saes[path].layer
        name = hook_name_of(file, layer)
        usual = hook in (*HOOKS, "hidden_states")
        point = hooks.hook_point(name)
        before = point is not None and point.hook == HOOKS[0] and hook in ("resid_pre", "hidden_states")
        if usual:
            same = before or (point is not None and point.hook == hook)
        else:  # a block is called by its place, whatever its module is called
            names = hooks.numbered(hook.split(","))
            same = name in names.values() or (point is not None and layer in names)
        require(same, f"--hook must be the place that {path} is of, {name}, got {hook}; leave it out")


def hook_of(files: dict[str, SAEFile], layers: Mapping[str, int]) -> Hook:
    """Where the model is read for these SAEs.

    Raises:
      InputError: at places of several kinds.
    """
    from convert import hook_name_of

    names: dict[int, str] = {}
    for path, file in files.items():
        layer = layers[path]
        name = hook_name_of(file, layer)
        same = names.setdefault(layer, name) == name
        require(same, f"SAEs must be of one kind of place, got {names[layer]} and {name} ({path})")
    return hooks.hook_of(names)


def find_files(args: argparse.Namespace) -> dict[str, int | None]:
    """SAE file -> the layer that was given for it."""
    text = getattr(args, "layer", None)
    found = [arguments.layer_number(part) for part in text.split(",")] if text else []
    given = [layer for layer in found if layer is not None and layer >= 0]
    require(len(given) == len(found), f"--layer must be numbers separated by commas, got {text}")
    if args.sae:
        require(
            len(given) in (0, 1, len(args.sae)), f"--layer must name one layer for each --sae, got {len(given)} layers"
        )
        require(len(set(args.sae)) == len(args.sae), "--sae must name different files, got one twice")
        layers: list[int | None] = [*given] if len(given) == len(args.sae) else [*given, *[None] * len(args.sae)]
        return dict(zip(args.sae, layers, strict=False))
    points, hook = arguments.points_of(args, [])
    files = {layer: Path(args.output) / f"{hooks.file_stem(layer, hook)}.pt" for layer in points}
    for layer, file in files.items():
        require(file.exists(), f"no SAE of layer {layer} is at {file}; {_instead(file, layer)}")
    return {str(file): layer for layer, file in files.items()}


def _instead(missing: Path, layer: int) -> str:
    """What to do where there is no SAE of a layer."""
    there = sorted(file.name for file in missing.parent.glob("sae_layer*.pt"))
    has = f"--sae may name one of {listed(there)} there" if there else "--sae names one elsewhere"
    return f"{has}, train.py --layer {layer} --output DIR trains one"


def check_files(
    files: dict[str, SAEFile], saes: dict[str, LayerSAE], checkpoint: AnyCheckpoint | ModelOfRows, *, other_model: bool
) -> None:
    """See before the model is run that SAEs fit it.

    Raises:
      InputError: one does not; the file is named.
    """
    from convert import check_model

    layers = {path: at.layer for path, at in saes.items()}
    shape = inputs.read_at(checkpoint, hook_of(files, layers), list(layers.values()))[0].config
    for path, file in files.items():
        shape.check_layer(saes[path].layer)
        width, d_in = shape.d_model, file.config.d_in
        require(d_in == width, f"{path}: d_in must be {width} (the model's d_model), got {d_in}")
        if checkpoint.identity is not None:
            check_model(path, file, checkpoint.identity, checkpoint.sha256, other_model)


def check_places(files: dict[str, SAEFile], saes: dict[str, LayerSAE], rows: Store) -> None:
    """Raise `InputError` where an SAE is of another place of its layer than the rows are."""
    from convert import hook_name_of

    for path, file in files.items():
        layer = saes[path].layer
        of_rows, of_sae = rows.hook_names([layer])[layer], hook_name_of(file, layer)
        require(of_rows == of_sae, f"{path} must be of the place that the rows are of, {of_rows}, got one of {of_sae}")


def other_seeds(path: str) -> list[Path]:
    """The files beside an SAE file that differ from it in the seed alone, as training names them."""
    stem, mark, seed = Path(path).stem.rpartition("_seed")
    if not mark or not seed.isdigit():
        return []
    named = Path(path).parent.glob(f"{glob.escape(stem)}_seed*{Path(path).suffix}")
    beside = {other: other.stem.rpartition("_seed")[2] for other in named if other != Path(path)}
    return sorted((other for other, seed in beside.items() if seed.isdigit()), key=lambda other: int(beside[other]))


def alike(path: str, file: SAEFile, checkpoint: AnyCheckpoint | ModelOfRows, other_model: bool) -> dict[Path, SAEFile]:
    """The SAEs of other seeds beside a file: of the same model, and trained with the same settings."""
    from convert import check_model, load_sae

    found = {other: load_sae(other) for other in other_seeds(path)}
    for other, its in found.items():
        if checkpoint.identity is not None:
            check_model(other, its, checkpoint.identity, checkpoint.sha256, other_model)
    return {other: its for other, its in found.items() if its.config == file.config}


def check_latents(latents: Sequence[int], path: str, at: LayerSAE) -> None:
    """Raise `InputError` unless the SAE of a file has such latents."""
    last = at.sae.d_sae - 1
    for latent in latents:
        require(
            0 <= latent <= last,
            f"feature must be in 0..{last}, got {latent}; {path}, of layer {at.layer}, has {last + 1} features",
        )


def concepts_of(file: str | None, data: DataConfig, samples: Samples) -> Sequence[Concept]:
    """The concepts that latents are compared with: those of a file, or the built-in ones and those of the dataset's own
    columns; and what is known of the demo's characters.

    Args:
      file: of the user's own concepts; empty or None: none.
    """
    from jaxsae.demo import dataset
    from jaxsae.features import concepts
    from jaxsae.text.pieces import of_tablets

    chosen: list[Concept] = []
    if file or of_tablets(samples.tokenizer):  # the built-in spellings are those of transliterations
        chosen += concepts.load_concepts(file or concepts.BUILT_IN)
    if not file:
        chosen += concepts.sign_concepts(samples) if of_tablets(samples.tokenizer) else ()
        chosen += concepts.column_concepts(samples)
    if inputs.is_demo(data.dataset, "dataset"):
        properties = dataset.load_truth(DEMO_TEXT, data.split).properties()
        n = int(samples.real.sum())
        chosen += concepts.concepts_from_truth(properties, dataset.properties_about(properties), n)
    return chosen


class TrainingText(NamedTuple):
    """What an SAE file says of the text that it was trained on."""

    split: str | None
    """None: it does not say."""
    same: bool
    """Whether that is the text which is read now."""

    def __str__(self) -> str:
        """In words."""
        if self.split is None:
            return "it does not say what text it was trained on"
        return f"trained on the {self.split} split" + (", this text" if self.same else "")


def training_texts(
    files: Mapping[str, SAEFile], data: DataConfig, model: AnyCheckpoint | ModelOfRows, rows: Store | None = None
) -> dict[str, TrainingText]:
    """What each file was trained on, by its path, beside what is read now: the text of `data`, or of stored rows."""
    now: set[str] | None = None
    found = {}
    for path, file in files.items():
        split, dataset = (file.extra.get(key) for key in ("split", "dataset_sha256"))
        split = split if isinstance(split, str) else None
        same = split is not None and split == (rows.about.get("split") if rows else data.split)
        if same and now is None:  # for its fingerprint a dataset is read, so not for nothing
            now = set(str(rows.about.get("dataset_sha256")).split(",")) if rows else _fingerprints(data, model)
        found[path] = TrainingText(split, bool(same and now and not now.isdisjoint(str(dataset).split(","))))
    return found


def _fingerprints(data: DataConfig, model: AnyCheckpoint | ModelOfRows) -> set[str]:
    """Of the datasets that are read."""
    if isinstance(model, inputs.ModelOfRows):
        return set()
    return {model.config.datasets.fingerprint(path) for path in inputs.paths_of(data.dataset)}


def warn_of_training_text(seen: Mapping[str, TrainingText]) -> None:
    """Say of which files, by their paths, figures on this text are not those of held-out text."""
    if same := [path for path, one in seen.items() if one.same]:
        split = seen[same[0]].split
        note(
            f"{', '.join(same)} {'was' if len(same) == 1 else 'were'} trained on this text, the {split} split: figures on "
            f"text that is new may be worse; --split {inputs.HELD_OUT} is held out"
        )


def said_of(text: str, seen: Mapping[str, TrainingText]) -> str:
    """A text in words, with what the SAEs that read it were trained on."""
    return f"{text} ({'; '.join(dict.fromkeys(map(str, seen.values())))})"


def kept_by(checkpoint: AnyCheckpoint | ModelOfRows) -> str:
    """What figures of a model are kept by: its identity, and the user's own code that makes it, if there is any."""
    code = getattr(checkpoint, "code", "")
    return f"{checkpoint.identity or ''}{f' {code}' if code else ''}"


def read_text(
    model: ResidualModel | LazyModel,
    samples: Samples,
    data: DataConfig,
    saes: Mapping[str, LayerSAE],
    identity: str,
    hook: Hook = HOOKS[0],
    **how: Any,
) -> list[Inspection]:
    """`inspect_all` with its progress shown, and what it finds kept beside each SAE's file.

    Args:
      saes: by their files.
      identity: of the model, and `hook`, where it is read.
      how: the other arguments of `inspect_all`; stored rows are not known well enough for anything to be kept of them.
    """
    from jaxsae.features.inspection import inspect_all
    from jaxsae.features.kept import FOLDER, kept_beside
    from jaxsae.text.samples import kept_positions

    kept = None
    if how.get("rows") is None:
        model_read = identity if hook == HOOKS[0] else f"{identity} {hook}"
        kept = [kept_beside(path, at.sae, at.layer, model_read, samples, data.padding) for path, at in saes.items()]
    n = int(kept_positions(samples, data.padding).sum())
    with contextlib.ExitStack() as stage:
        progress = stage.enter_context(
            terminal.Progress("read    ", n, f"{samples.tokenizer.unit}s", quiet=False).shown()
        )

        def on_stage(what: str) -> None:
            stage.close()
            stage.enter_context(terminal.working(what))

        how |= {"on_rows": progress.advance, "on_stage": on_stage}
        found = inspect_all(model, samples, list(saes.values()), padding=data.padding, kept=kept, **how)
    since = [one.read_from for one in kept or () if one.read_from]
    if since:
        print(f"kept     figures of {min(since)} are read from {FOLDER} beside the SAE")
    return found


def clamped(text: str) -> tuple[int, float]:
    """`N=VALUE`."""
    latent, _, value = text.partition("=")
    try:
        number, setting = int(latent), float(value)
    except ValueError:
        setting = math.nan
    if not math.isfinite(setting):
        raise argparse.ArgumentTypeError(f"must be N=VALUE, a feature's number and a finite value, got {text}")
    return number, setting
