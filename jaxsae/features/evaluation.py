"""How good SAEs are on held-out text: how sparse, how faithful, and what the model restores with them in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsae.activations.extraction import extract
from jaxsae.errors import require
from jaxsae.features import splice
from jaxsae.features.statistics import LayerSAE
from jaxsae.models.protocol import ResidualModel
from jaxsae.sae.autoencoder import SAE
from jaxsae.sae.metrics import Score, score
from jaxsae.sae.row_types import AnyRows
from jaxsae.text.samples import Samples
from jaxsae.train.densities import DECADES, density_counts


class Restoration(NamedTuple):
    """What the model restores at damaged positions, with the SAE's reconstruction in place of the layer's stream.

    `clean` is the unchanged model; `zero` and `mean` are the model with the stream set to zero, and to its mean.
    """

    ce_clean: float
    """Cross-entropy of the true character, in nats."""
    ce_sae: float
    ce_zero: float
    ce_mean: float
    ce_recovered_zero: float
    """Share of the cross-entropy that setting the stream to zero loses and the SAE keeps, see `splice.recovered`."""
    ce_recovered_mean: float
    kl: float
    """KL divergence from the unchanged model's distribution, in nats."""
    top1_clean: float
    """Share of positions whose most probable character is the true one."""
    top1_sae: float
    top5_clean: float
    top5_sae: float
    positions: int


@dataclass(frozen=True)
class Evaluation:
    """The figures of one SAE."""

    layer: int
    architecture: str
    d_sae: int
    score: Score
    """Sparsity and faithfulness on the rows."""
    restoration: Restoration | None = None
    """None where the rows' model or text is not known, or the text has no damage."""

    def as_json(self) -> dict[str, Any]:
        """All figures in one flat dict, as `jaxsae evaluate --json` writes them."""
        figures = {
            "layer": self.layer,
            "architecture": self.architecture,
            "d_sae": self.d_sae,
            "l0": self.score.l0,
            "fvu": self.score.fvu,
            "explained_variance": self.score.explained_variance,
            "cosine": self.score.cosine,
            "norm_ratio": self.score.norm_ratio,
            "relative_reconstruction_bias": self.score.relative_reconstruction_bias,
            "dead": self.score.dead,
            "dense": self.score.dense,
            # the latents that fire on at most 1e-6, 1e-5, ... of the rows; those that never fire are left out
            "density_histogram": density_counts(self.score.density, np.array(DECADES)).tolist(),
            "density_edges": DECADES,
            "rows": self.score.rows,
        }
        return figures | (self.restoration._asdict() if self.restoration else {})


def evaluate(
    model: ResidualModel | None,
    samples: Samples | None,
    sae: SAE,
    layer: int,
    *,
    rows: AnyRows | None = None,
) -> Evaluation:
    """Evaluate one SAE; see `evaluate_all`.

    Args:
      model: the model whose residual stream after block `layer` the SAE reconstructs.
      samples: the text, held out from the SAE's training.
      rows: the layer's activations on this text, where they were extracted before.

    Raises:
      InputError: the SAE, the model and the text do not fit together.
    """
    return evaluate_all(model, samples, [LayerSAE(layer, sae)], rows=None if rows is None else {layer: rows})[0]


def evaluate_all(
    model: ResidualModel | None,
    samples: Samples | None,
    saes: Sequence[LayerSAE],
    *,
    rows: Mapping[int, AnyRows] | None = None,
) -> list[Evaluation]:
    """Evaluate SAEs of one or more layers; activations of one layer at a time are held in memory.

    Args:
      model: None: only sparsity and faithfulness on `rows` are measured.
      samples: None as well, where the text of `rows` is not known.
      rows: layer -> its activations, where they were extracted before.

    Returns:
      An evaluation for each SAE, in their order.

    Raises:
      InputError: the SAEs, the model and the text do not fit together; or neither rows nor a model with text are given.
    """
    require(
        rows is not None or (model is not None and samples is not None),
        "either rows, or a model and samples, must be given to evaluate an SAE, got neither",
    )
    found: dict[int, Evaluation] = {}
    for layer in sorted({layer for layer, _ in saes}):
        here = {number: sae for number, (at, sae) in enumerate(saes) if at == layer}
        of_layer = _rows_of_layer(model, samples, layer, rows)
        for sae in here.values():
            width, d_in = of_layer.shape[1], sae.d_in
            require(d_in == width, f"d_in of the SAE must be {width} (the width of layer {layer}), got {d_in}")
        scores = {number: score(sae, of_layer) for number, sae in here.items()}
        restorations: Mapping[int, Restoration] = {}
        if model is not None and samples is not None and samples.scored.any():
            restorations = restorations_with(model, samples, layer, here, of_layer)
        for number, sae in here.items():
            spliced = restorations.get(number)
            found[number] = Evaluation(layer, sae.architecture, sae.d_sae, scores[number], spliced)
    return [found[number] for number in range(len(saes))]


def _rows_of_layer(
    model: ResidualModel | None, samples: Samples | None, layer: int, rows: Mapping[int, AnyRows] | None
) -> AnyRows:
    if rows is not None:
        require(layer in rows, f"rows must have layer {layer}, got {', '.join(map(str, rows))}")
        return jnp.asarray(rows[layer][:])
    assert model is not None
    assert samples is not None
    return extract(model, samples, [layer]).values[layer]


def restorations_with(
    model: ResidualModel, samples: Samples, layer: int, saes: Mapping[int, SAE], rows: AnyRows
) -> dict[int, Restoration]:
    """What the model restores with each SAE in place of the layer's stream; the keys are those of `saes`."""
    mean = jnp.asarray(np.asarray(rows, np.float64).mean(axis=0), rows.dtype)
    changes: dict[str, splice.Change] = {"zero": jnp.zeros_like, "mean": lambda x: jnp.broadcast_to(mean, x.shape)}
    for number, sae in saes.items():
        changes[str(number)] = lambda x, sae=sae: splice.reconstruct(sae, x)  # type: ignore[misc]
    effects = splice.effects(model, samples, layer, changes)
    clean, to_zero, to_mean = effects["clean"], effects["zero"], effects["mean"]
    out = {}
    for number in saes:
        spliced = effects[str(number)]
        out[number] = Restoration(
            ce_clean=clean.ce,
            ce_sae=spliced.ce,
            ce_zero=to_zero.ce,
            ce_mean=to_mean.ce,
            ce_recovered_zero=splice.recovered(clean, spliced, to_zero),
            ce_recovered_mean=splice.recovered(clean, spliced, to_mean),
            kl=spliced.kl,
            top1_clean=clean.top1,
            top1_sae=spliced.top1,
            top5_clean=clean.top5,
            top5_sae=spliced.top5,
            positions=clean.positions,
        )
    return out
