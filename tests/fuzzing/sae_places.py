"""Of which layer and place of the model a file says that it is."""

from collections.abc import Callable
from typing import Any

from fuzzing.inputs import OPEN, UNCLEAR, Input

OUTPUTS = ("blocks.{}.hook_resid_post",)
MODULES = ("layers.{}", "model.layers.{}", "transformer.h.{}", "gpt_neox.layers.{}", "blocks.{}")
NAMED = ("resid_post_layer_{}", "resid_post_{}")
OTHERS = (
    "blocks.{}.hook_resid_mid", "blocks.{}.attn.hook_z",
    "layers.{}.mlp", "layers.{}.attn.out_proj", "mlp_out_layer_{}", "attn_out_layer_{}", "ln_final.hook_normalized",
    "hook_embed", "embed", "head", "final_ln", "blocks.{}.hook_mlp_in", "blocks.{}.ln1.hook_normalized",
    "blocks.{}.hook_resid_post.hook_sae_output",
)  # fmt: skip
NOT_NAMES: tuple[Any, ...] = (["blocks.1.hook_mlp_out"], 5, {"name": "mlp"}, True, 1.5)


def places(one: Input, words: dict[str, tuple[str, ...]], put: Callable[[str, Any], None], numbers: Any) -> list[Any]:
    """Say of which layer and place it is, in none, one or several words; gives what they say.

    Args:
      words: the format's words for "layer" and "hook".
      put: writes a word.
      numbers: `number` or `json_number`.

    Returns: ("block", n), ("input", n), ("layer", n, word) or ("any",) of each statement; a bare word for none of them.
    """
    layer, agree = one.rng.randrange(4), not one.maybe(0.06)
    said: list[Any] = []
    for role in words:
        chance = {"layer": 0.5, "hook": 0.6}[role]
        for word in one.rng.sample(words[role], len(words[role])):
            if not one.maybe(chance):
                continue
            chance = 0.04
            n = layer if agree else one.rng.randrange(4)
            if one.maybe(0.02):
                put(word, None)
                one.did(f"{word} None")
                continue
            if role == "layer":
                put(word, numbers(one, n, word, 0.85))
                said.append(("layer", n, word))
                continue
            match one.rng.random():
                case x if x < 0.75:
                    put(word, one.pick(*OUTPUTS, *OUTPUTS, *MODULES, *NAMED).format(n))
                    if any(s[0] != "layer" for s in said):
                        one.did("two names of a place", OPEN)
                    said.append(("block", n))
                case x if x < 0.87:
                    if any(s[0] != "layer" for s in said):
                        one.did("two names of a place", OPEN)
                    put(word, f"blocks.{n + agree}.hook_resid_pre")
                    said.append(("input", n + agree))
                case x if x < 0.91:
                    put(word, one.pick("resid_post", "hook_resid_post", "residual"))
                    said.append(("any",))
                    one.did("a place of any layer", OPEN)
                case x if x < 0.985:
                    name = one.pick(*OTHERS)
                    put(word, name.format(n))
                    said.append("other")
                    one.did(f"{word} {name}", OPEN)
                case _:
                    put(word, one.pick(*NOT_NAMES))
                    said.append("no name")
                    one.did(f"{word} is no name", UNCLEAR)
    if "other" in said and not any(
        s[0] == "layer" for s in said
    ):  # of a layer that is said, a PyTorch module may have it
        one.did("another place, of no layer", UNCLEAR)
    return said


def settle(one: Input, said: list[Any], named: int | None, is_folder: bool) -> None:
    """What the statements, the name and the given layer come to: `one.layer`, or that it is unclear."""
    inputs = {n for kind, n, *_ in (s for s in said if len(s) > 1 and not isinstance(s, str)) if kind == "input"}
    blocks = {n for kind, n, *_ in (s for s in said if len(s) > 1 and not isinstance(s, str)) if kind == "block"}
    layers = {s[1] for s in said if s[0] == "layer"}
    meant = blocks | {n - 1 for n in inputs}
    if inputs and not blocks:
        # the number of a layer beside `hook_resid_pre` may be that of the hook, or of the block whose output it is
        agree = len(inputs) == 1 and len(layers) <= 1 and all(n in (max(inputs), max(inputs) - 1) for n in layers)
        one.did("the next block's input")
        if layers:
            one.did("with a layer", OPEN if agree else UNCLEAR)
    else:
        meant |= layers
    if len(meant) > 1 or -1 in meant:
        one.did("places that differ" if len(meant) > 1 else "before the first block", UNCLEAR)
    if one.maybe(0.3) or (not meant and named is None):
        one.given = max(meant) if meant and not one.maybe(0.1) else one.rng.randrange(4)
        one.did(f"--layer {one.given}")
    if meant:
        if named is not None and named not in meant:
            one.did("a name of another layer", OPEN)
        one.layer = max(meant)
    elif named is not None and not (is_folder and one.given is not None):
        one.layer = named
    else:
        one.layer = one.given
    if one.given is not None and one.given != one.layer:
        one.did("another layer than given", UNCLEAR)
    if one.layer is None:
        one.did("of no layer", UNCLEAR)
