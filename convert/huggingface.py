"""A folder of Hugging Face's `transformers` -> the model, by hooks; nothing is fetched, no code in it is run."""

import contextlib
import io
import itertools
import json
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convert.hooked import HookedCheckpoint
from jaxsae.errors import InputError, listed, require
from jaxsae.files import read_json, sha256_of
from jaxsae.models.torch_model import TorchModel
from jaxsae.text import subwords
from jaxsae.text.tokenizer import Frame

BLOCKS = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "modernbert": "layers",
    "gpt2": "h",
    "gpt_neox": "layers",
}
"""Model type -> its blocks in the model without its head; of others, the ModuleList of `num_hidden_layers`."""
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")
"""Their positions are counted from one behind the padding's id on."""
HEADS = {
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}
"""How an architecture's name ends -> the class that loads it; others are read without a head."""
UNLIMITED = 10**9
"""A longest text of at least so many tokens means that the tokenizer knows of none."""

LOOKED_AT = 20
"""Pairs of tokens, to see whether they are words."""


def read_huggingface(path: str | Path) -> HookedCheckpoint:
    """The model and the tokenizer of a folder that `save_pretrained` wrote.

    Raises:
      InputError: transformers is not installed, the folder is not whole, or needs code of its own to run.
    """
    path = Path(path)
    said = read_json(path / "config.json")
    weights = sorted(path.glob("*.safetensors"))
    require(
        bool(weights), f"{path}: must have model.safetensors, got none; save the model with safe_serialization=True"
    )
    require(
        "auto_map" not in said,
        f"{path}: must be a model that transformers knows, got one that runs code of its own; load it in a file of yours and "
        "give FILE.py:load",
    )
    transformers = _transformers()
    names = said.get("architectures") or [""]
    kind = next((loader for end, loader in HEADS.items() if str(names[0]).endswith(end)), "AutoModel")
    only = {"local_files_only": True, "trust_remote_code": False}
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            module, loading = getattr(transformers, kind).from_pretrained(
                path, **only, use_safetensors=True, output_loading_info=True, dtype="float32"
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, **only)
    except Exception as error:  # of many kinds
        first = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: must hold a model and its tokenizer, got {type(error).__name__}: {first}") from error
    missing = [name for name in sorted(loading["missing_keys"]) if "pooler." not in name]
    require(not missing, f"{path}: must have the weights of a {names[0]}, got none for {listed(missing)}")
    module.config.use_cache = False  # of what was read: nothing goes on from there
    config, causal = module.config, kind == "AutoModelForCausalLM"
    encode = encoder_of(tokenizer)
    given = TorchModel(
        module,
        encode,
        pieces_of(tokenizer),
        vocab_size=config.vocab_size,
        blocks=_blocks(module, config),
        max_position=_max_position(config, tokenizer),
        mask_id=tokenizer.mask_token_id if kind == "AutoModelForMaskedLM" else None,
        causal=causal,
        frame=frame_of(tokenizer, encode),
        padding_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
    )
    settings = json.dumps(said, sort_keys=True)
    file_sha256 = sha256_of((file.name, file) for file in weights)
    return HookedCheckpoint(given, str(path), settings=settings, file_sha256=file_sha256)


def _transformers() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers
    except ImportError as error:
        raise InputError(
            f"a folder of Hugging Face's needs the package transformers ({error}); pip install 'jaxsae[huggingface]'"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _blocks(module: Any, config: Any) -> str | None:
    """The dotted name of the blocks; None: it is not known, and the longest list is taken."""
    inner = module.base_model
    prefix = "" if inner is module else f"{module.base_model_prefix}."
    if config.model_type in BLOCKS:
        return prefix + BLOCKS[config.model_type]
    n = getattr(config, "num_hidden_layers", None)
    lists = [name for name, one in module.named_modules() if type(one).__name__ == "ModuleList" and len(one) == n]
    return next(iter(lists), None)


def _max_position(config: Any, tokenizer: Any) -> int:
    """The longest text, in tokens."""
    most = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or UNLIMITED
    if config.model_type in OFFSET_POSITIONS:
        most -= (config.pad_token_id or 0) + 1
    most = min(int(most), int(min(tokenizer.model_max_length, UNLIMITED)))
    return 512 if most >= UNLIMITED else most


def encoder_of(tokenizer: Any) -> Callable[[str], list[int]]:
    """Text -> ids without special tokens, of any length."""

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    return encode


def frame_of(tokenizer: Any, encode: Callable[[str], list[int]]) -> Frame:
    """The ids that the tokenizer puts before and behind a text.

    Raises:
      InputError: it does something else as well.
    """
    text = "a"
    inner, whole = encode(text), list(tokenizer(text, verbose=False)["input_ids"])
    for start in range(len(whole) - len(inner) + 1):
        if inner and whole[start : start + len(inner)] == inner:
            return tuple(whole[:start]), tuple(whole[start + len(inner) :])
    raise InputError(f"the tokenizer must put tokens before and behind a text alone, got {whole} for {inner}")


def pieces_of(tokenizer: Any) -> Callable[[Sequence[int]], list[str]]:
    """Ids -> pieces that joined are the text; what begins a word begins with a space."""
    vocabulary = tokenizer.get_vocab()
    spelling = subwords.spelling_of(vocabulary)
    special = {number for number in tokenizer.all_special_ids if number is not None}
    if spelling == "plain" and _are_words(tokenizer, [word for word, n in vocabulary.items() if n not in special]):
        spelling = "words"
    if spelling in ("wordpiece", "words"):
        special -= {tokenizer.mask_token_id, tokenizer.unk_token_id}  # which stand for words

    def pieces(ids: Sequence[int]) -> list[str]:
        words = [word or "" for word in tokenizer.convert_ids_to_tokens(list(ids))]
        return subwords.pieces(spelling, words, [number in special for number in ids])

    return pieces


def _are_words(tokenizer: Any, vocabulary: Sequence[str]) -> bool:
    """Whether tokens are words: two of them are decoded with a space between, and are no longer two without it."""
    pairs = list(itertools.pairwise(vocabulary))[:LOOKED_AT]
    ids = [tokenizer.convert_tokens_to_ids(list(pair)) for pair in pairs]
    spaced = [tokenizer.decode(two) == " ".join(pair) for pair, two in zip(pairs, ids, strict=True)]
    encode = encoder_of(tokenizer)
    apart = [encode("".join(pair)) != two for pair, two in zip(pairs, ids, strict=True)]
    return any(spaced) and any(apart)
