"""An explanation as an attribution graph, in the JSON that Neuronpedia and circuit-tracer read.

Such a graph has four parts: `metadata`, `qParams` (what a viewer has open), `nodes` and `links`. Published graphs are
of transcoders in all layers, and their links are linear attributions between any two nodes. Ours has the same fields
and says less, which its metadata repeats:

- The prompt's tokens are words, though the model's are characters: a viewer has a column for each.
- Embedding nodes are these words. A word's link goes straight to the logit; its weight is its total effect, on all
  paths: how far the logit difference falls when the word is damaged.
- Feature nodes are the latents of sparse autoencoders of the residual stream after a layer, one for each latent and
  character; their type is `cross layer transcoder`, the name that viewers know. The weight of a latent's link is its
  effect by ablation: how far the logit difference falls when it is taken away there. Nothing links words to latents, or
  latents to each other: that is not measured.
- An error node for each layer stands for what its autoencoder does not reconstruct.
- Effects of words, of latents, and of latents of different layers overlap; they do not add up to the logit difference.

Sources: Ameisen et al. 2025, "Circuit Tracing"; graph-schema.json of hijohnnylin/neuronpedia; the graph models of
safety-research/circuit-tracer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxsae.errors import require

ABOUT = (
    "Words and latents of sparse autoencoders of the residual stream. A word's link is its total effect on the logit "
    "difference when it is damaged, a latent's the effect of taking it away at its place; an error node is what the "
    "layer's autoencoder leaves out. Links between words and latents, or between latents, are not measured; effects overlap "
    "and do not add up to the logit difference."
)
FEATURE, ERROR, WORD, LOGIT = "cross layer transcoder", "mlp reconstruction error", "embedding", "logit"
SCHEMA_VERSION = 1


def to_graph(
    explanation: Mapping[str, Any],
    *,
    scan: str,
    slug: str = "explanation",
    n_layers: int | None = None,
    node_threshold: float = 0.8,
) -> dict[str, Any]:
    """The graph of one explanation.

    Args:
      explanation: what `jaxsae explain --json` writes: text, position, candidate, words, layers with latents.
      scan: what the model is called.
      slug: what the graph is called: letters, digits and hyphens.
      n_layers: of the model, to put the logit above all of them; None: it stands above the highest layer explained.
      node_threshold: share of the summed influence that a viewer shows at first, in 0..1.

    Returns:
      `metadata`, `qParams`, `nodes`, `links`; for `jaxsae.files.write_json`.

    Raises:
      InputError: the explanation has no word, or a threshold outside 0..1.
    """
    require(0 <= node_threshold <= 1, f"node_threshold must be in 0..1, got {node_threshold}")
    words = sorted(explanation["words"], key=lambda word: word["start"])
    require(bool(words), "an explanation must have words to make a graph of, got none")
    layers = explanation["layers"]
    top = max([layer["layer"] for layer in layers], default=-1) + 1 if n_layers is None else n_layers
    place = int(explanation["position"])
    logit = _logit(explanation, top + 1, _word_at(words, place))
    nodes, links = [], []
    for number, word in enumerate(words):
        name = f"E_{number}_{number}"
        nodes.append(_node(name, number, "E", number, WORD, f"E_{number}-{number}", word["word"], word["effect"]))
        links.append(_link(name, logit, word["effect"]))
    for layer in layers:
        index = int(layer["layer"])
        for latent in layer["latents"]:
            feature, position = int(latent["feature"]), int(latent["position"])
            at, character = _word_at(words, position), latent["character"]
            label = f"{latent['caption']} (on {character!r} at {position})"
            # the third number is the character's, not the word's: a latent may fire on several of its characters
            name = f"{index}_{feature}_{position}"
            node = _node(name, paired(index, feature), str(index), at, FEATURE, f"{index}_{feature}-{position}", label)
            nodes.append(node | {"influence": latent["effect"], "activation": latent["value"]})
            links.append(_link(name, logit, latent["effect"]))
        at, effect = _word_at(words, place), layer["error_effect"]
        label = f"what the SAE of layer {index} leaves out"
        name = f"{index}_-1_{place}"
        nodes.append(_node(name, -1, str(index), at, ERROR, f"{index}_-1-{place}", label, effect))
        links.append(_link(name, logit, effect))
    _accumulate(nodes)
    return {
        "metadata": _metadata(explanation, words, scan, slug, node_threshold),
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": [*nodes, logit],
        "links": links,
    }


def paired(layer: int, feature: int) -> int:
    """One number for a layer and a feature of it, by Cantor's pairing, as circuit-tracer numbers features."""
    total = layer + feature
    return total * (total + 1) // 2 + feature


def _metadata(
    explanation: Mapping[str, Any], words: Sequence[Mapping[str, Any]], scan: str, slug: str, threshold: float
) -> dict[str, Any]:
    layers = explanation["layers"]
    difference = f"{explanation['candidate']} against {explanation['against']} at {explanation['unit']} {explanation['position']}"
    return {
        "slug": slug,
        "scan": scan,
        "transcoder_list": [str(layer["sae"]) for layer in layers],
        "prompt_tokens": [word["word"] for word in words],
        "prompt": explanation["cleaned"],
        "node_threshold": threshold,
        "schema_version": SCHEMA_VERSION,
        "info": {
            "description": f"{ABOUT} The logit difference explained is that of {difference}: "
            f"{float(explanation['logit_difference']):.4f}.",
            "generator": {"name": "jaxsae explain"},
        },
    }


def _logit(explanation: Mapping[str, Any], layer: int, at: int) -> dict[str, Any]:
    """The node that all links lead to: the logit of the candidate, less that of the other character."""
    candidate, probability = explanation["candidate"], float(explanation["probability"])
    number = int(explanation["candidate_id"])
    label = f'Output "{candidate}" (p={probability:.3f}) against "{explanation["against"]}"'
    node = _node(f"{layer}_{number}_{at}", number, str(layer), at, LOGIT, f"L_{number}-{at}", label)
    return node | {"token_prob": probability, "is_target_logit": True}


def _node(
    name: str, feature: int, layer: str, at: int, kind: str, js_name: str, label: str, influence: float | None = None
) -> dict[str, Any]:
    return {
        "node_id": name,
        "feature": feature,
        "layer": layer,
        "ctx_idx": at,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": js_name,
        "clerp": label,
        "influence": influence,
        "activation": None,
    }


def _link(source: str, logit: Mapping[str, Any], weight: float) -> dict[str, Any]:
    return {"source": source, "target": logit["node_id"], "weight": float(weight)}


def _word_at(words: Sequence[Mapping[str, Any]], position: int) -> int:
    """Number of the word that a character is in; of a space, that of the word before it, if there is one."""
    return max([number for number, word in enumerate(words) if word["start"] <= position], default=0)


def _accumulate(nodes: Sequence[dict[str, Any]]) -> None:
    """Influence as viewers prune by it: the share of all absolute effects that a node and the stronger ones have."""
    order = sorted(nodes, key=lambda node: -abs(node["influence"]))
    total = sum(abs(node["influence"]) for node in nodes) or 1.0
    so_far = 0.0
    for node in order:
        so_far += abs(node["influence"]) / total
        node["influence"] = min(so_far, 1.0)
