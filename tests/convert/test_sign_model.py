"""The model of signs: read, converted and back, and PyTorch's numbers at every layer."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import sign_model
import torch
from conftest import assert_one_line_error, checkpoint_content
from helpers import saved
from sign_model import CONFIG, SIGNS

from convert import checkpoints, families, read_checkpoint, signs
from convert.reference import activations, build, hooked
from convert.reference_process import ReferenceProcess
from convert.signs_reference import Model
from convert.verify import cross_check
from jaxsae.activations import store
from jaxsae.errors import InputError, InputNote
from jaxsae.models.signs_config import SignConfig
from jaxsae.models.transformer import params_of, run_block
from jaxsae.text.sign_texts import SignTexts

LAYERS = range(CONFIG.num_layers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with its vocabulary beside it."""
    path = tmp_path_factory.mktemp("signs")
    saved(path, sign_model.content(), "best_model.pt")
    sign_model.write_vocabulary(path / "vocab.json")
    return path


@pytest.fixture(scope="module")
def checkpoint(folder):
    return read_checkpoint(folder / "best_model.pt")


@pytest.fixture(scope="module")
def samples(tmp_path_factory, checkpoint):
    path = tmp_path_factory.mktemp("words") / "val.parquet"
    ids = np.random.default_rng(0).integers(5, CONFIG.vocab_size, (6, 20))
    texts = [" ".join(SIGNS[i] for i in row[: 3 + 3 * n]) for n, row in enumerate(ids)]
    sign_model.write_texts(path, texts)
    return checkpoint.config.datasets.load_several([path])


def test_the_table_covers_the_model_exactly():
    expected = {name: tuple(tensor.shape) for name, tensor in sign_model.tensors().items()}
    assert families.torch_shapes(CONFIG) == expected
    assert list(expected) == list(families.torch_shapes(CONFIG))
    assert len({e.torch_name for e in signs.TABLE}) == len({e.path for e in signs.TABLE}) == len(signs.TABLE)


def test_of_full_size_it_has_the_original_s_tensors():
    shapes = families.torch_shapes(SignConfig(14797))
    buffers = [name for name in shapes if name.endswith("attn.rope.inv_freq")]
    assert (len(shapes), len(buffers)) == (150, 16)
    assert sum(np.prod(shape) for name, shape in shapes.items() if name not in buffers) == 36_705_229


def test_it_is_read_with_what_lies_beside_it(checkpoint, folder):
    assert checkpoint.config == dataclasses.replace(CONFIG, signs=SIGNS)
    assert checkpoint.family.name == "signs"
    assert checkpoint.vocabulary == folder / "vocab.json"
    assert checkpoint.config.tokenizer.decode([5, 6]) == "a ab"
    for name, tensor in sign_model.tensors().items():
        np.testing.assert_array_equal(checkpoint.tensors[name], tensor)


@pytest.mark.parametrize("chain", ["module.", "_orig_mod."])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_wrapped_names_and_halves_are_read(tmp_path, chain, dtype):
    content = sign_model.content()
    state = {name: t.to(dtype) for name, t in content["model_state_dict"].items()}
    content["model_state_dict"] = {chain + name: torch.nn.Parameter(t) for name, t in state.items()}
    with pytest.warns(InputNote, match=f"begin with {chain}"):
        read = read_checkpoint(saved(tmp_path, content))
    back = families.to_torch({path: np.asarray(p) for path, p in params_of(read.model()).items()}, CONFIG)
    for name, tensor in state.items():
        np.testing.assert_array_equal(back[name], tensor.float(), err_msg=name)


def test_a_family_is_known_by_tensors_where_the_config_says_little(tmp_path):
    config = SignConfig(vocab_size=19, num_layers=16)
    content = {"model_state_dict": {name: torch.zeros(shape) for name, shape in families.torch_shapes(config).items()}}
    assert read_checkpoint(saved(tmp_path, content | {"config": {"vocab_size": 19}})).config == config


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({"rope_scaling": 2}, {}, "config has fields this replica does not know: rope_scaling"),
        ({"signs": ("a",)}, {}, "config has fields this replica does not know: signs"),
        ({"d_kv": 5}, {}, "d_kv must be even"),
        ({"layer_norm_eps": 0}, {}, "layer_norm_eps must be between 0 and 1, got 0"),
        ({"num_layers": 4}, {}, "missing torso.layers.3.norm1.weight"),
        ({}, {"torso.layers.0.attn.q_proj.bias": torch.ones(18)}, "unknown torso.layers.0.attn.q_proj.bias"),
    ],
)
def test_what_the_replica_lacks_is_refused(tmp_path, config, tensors, says):
    content = sign_model.content()
    content["config"] |= config
    content["model_state_dict"] |= tensors
    with pytest.raises(InputError, match=says):
        read_checkpoint(saved(tmp_path, content))


def test_a_model_of_no_known_family_is_refused_by_what_is_known(script, tmp_path):
    content = {"model_state_dict": {"bert.embeddings.word": torch.ones(2)}, "config": {"vocab_size": 2, "hidden": 3}}
    ran = script("verify", "--checkpoint", saved(tmp_path, content))
    assert_one_line_error(
        ran,
        "must be a model of a known family",
        "restoration (tensors such as embed.weight) or signs (tensors such as torso.embed.weight)",
        "got tensors bert.embeddings.word",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back_is_bitwise_and_loads_strictly(tmp_path, dtype):
    content = sign_model.content()
    content["model_state_dict"] = {name: t.to(dtype) for name, t in content["model_state_dict"].items()}
    source = saved(tmp_path, content)
    sign_model.write_vocabulary(tmp_path / "vocab.json")
    checkpoints.to_folder(source, tmp_path / "folder")
    with pytest.warns(InputNote, match=r"put a copy of it beside the \.pt"):
        checkpoints.to_pt(tmp_path / "folder", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["config"] == content["config"]
    assert list(back["model_state_dict"]) == list(content["model_state_dict"])
    for name, tensor in content["model_state_dict"].items():
        got = back["model_state_dict"][name]
        assert got.dtype == dtype
        assert torch.equal(got.view(torch.uint8), tensor.view(torch.uint8)), name
    Model(SignConfig(**back["config"])).load_state_dict(back["model_state_dict"], strict=True)
    of_folder, of_file = read_checkpoint(tmp_path / "folder"), read_checkpoint(source)
    assert of_folder.config.signs == SIGNS
    assert (of_folder.sha256, of_folder.identity) == (of_file.sha256, of_file.identity)


def test_a_model_is_the_same_whatever_its_vocabulary(tmp_path, checkpoint):
    alone = read_checkpoint(saved(tmp_path, sign_model.content()))
    assert alone.config.signs == ()
    assert alone.identity == checkpoint.identity
    content = sign_model.content()
    content["config"]["layer_norm_eps"] = 1e-5
    assert read_checkpoint(saved(tmp_path, content, "other.pt")).identity != checkpoint.identity


def test_folders_say_their_family_and_older_ones_are_of_the_first(tmp_path, tiny_pt):
    checkpoints.to_folder(tiny_pt, tmp_path / "first")
    file = tmp_path / "first" / "config.json"
    meta = json.loads(file.read_text())
    assert meta.pop("family") == "restoration"
    file.write_text(json.dumps(meta))
    assert read_checkpoint(tmp_path / "first").family.name == "restoration"
    file.write_text(json.dumps(meta | {"family": "birds"}))
    with pytest.raises(InputError, match="its family must be one of restoration, signs, got 'birds'"):
        read_checkpoint(tmp_path / "first")


def test_a_vocabulary_is_for_models_that_need_one(tmp_path, tiny_pt, folder):
    with pytest.raises(InputError, match="a vocabulary is for models of words or signs"):
        read_checkpoint(tiny_pt, folder / "vocab.json")
    other = sign_model.write_vocabulary(tmp_path / "other.json", (*SIGNS[:-1], "zu"))
    assert read_checkpoint(folder / "best_model.pt", other).config.signs[-1] == "zu"


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_every_layer_agrees_in_float32(checkpoint, samples, padding):
    checks = cross_check(checkpoint.model(), checkpoint, samples, LAYERS, padding)
    assert [check.layer for check in checks if not check.passed] == []
    assert checks[0].positions == samples.real.sum()


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_every_layer_and_the_head_agree_in_float64(checkpoint, samples, padding):
    mask = samples.mask if padding == "drop" else None
    _, exact = activations(checkpoint, samples.ids, mask, list(LAYERS))
    with torch.no_grad():
        given = [torch.from_numpy(a).long() for a in (samples.ids, *([] if mask is None else [mask]))]
        logits = build(checkpoint).double()(*given).numpy()
    with jax.enable_x64(True):
        model = checkpoint.model(np.float64)
        for layer, x in enumerate(model.stream(samples.ids, mask)):
            np.testing.assert_allclose(np.asarray(x)[samples.real], exact[layer][samples.real], rtol=0, atol=1e-10)
        np.testing.assert_allclose(
            np.asarray(model(samples.ids, mask))[samples.real], logits[samples.real], rtol=0, atol=1e-10
        )


def differences(checkpoint, samples, monkeypatch, name, value):
    """Of the last layer and of the logits from PyTorch's in float64, with a part of the replica changed."""
    last = CONFIG.num_layers - 1
    _, exact = activations(checkpoint, samples.ids, samples.mask, [last])
    with torch.no_grad():
        logits = build(checkpoint).double()(*(torch.from_numpy(a).long() for a in (samples.ids, samples.mask)))
    monkeypatch.setattr(f"jaxsae.models.{name}", value)
    jax.clear_caches()
    try:
        with jax.enable_x64(True):
            model = checkpoint.model(np.float64)
            x = model.resid_post(samples.ids, samples.mask, layer=last)
            ours = np.asarray(x) - exact[last], np.asarray(model.unembed(x)) - logits.numpy()
            return [np.abs(one[samples.real]).max() for one in ours]
    finally:
        jax.clear_caches()


def norm(x, scale, epsilon=CONFIG.layer_norm_eps):
    return x / jax.numpy.sqrt(jax.numpy.square(x).mean(axis=-1, keepdims=True) + epsilon) * scale


MUTATIONS = {
    "another epsilon": ("signs.RMSNorm.__call__", lambda self, x: norm(x, self.scale[None, None], 1e-5)),
    "no scale": ("signs.RMSNorm.__call__", lambda self, x: norm(x, 1)),
    "a mean that is taken out": (
        "signs.RMSNorm.__call__",
        lambda self, x: norm(x - x.mean(axis=-1, keepdims=True), self.scale[None, None]),
    ),
    "a norm behind attention": (
        "signs.SignBlock.attn_out",
        lambda self, x, position, bias: self.norm1(self.attn(x, *self.attn.angles(position), bias)),
    ),
    "no norm": ("signs.SignBlock.hidden", lambda self, x: self.mlp.hidden(x)),
    "tanh's GELU": (
        "transformer.FeedForward.hidden",
        lambda self, x: jax.nn.gelu(self.up(x), approximate=True),
    ),
    "angles of float32": (
        "signs.SignAttention.angles",
        lambda self, position: tuple(
            f(jax.numpy.concatenate([angle, angle], axis=-1))
            for angle in [(position[:, None, :, None] * self.inv_freq[None, None, None]).astype(np.float32)]
            for f in (jax.numpy.cos, jax.numpy.sin)
        ),
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_part_that_is_wrong_is_found(checkpoint, samples, monkeypatch, name):
    assert differences(checkpoint, samples, monkeypatch, *MUTATIONS[name])[0] > 1e-9


def test_a_head_that_norms_last_is_found(checkpoint, samples, monkeypatch):
    def late(norm, head, x):
        return head.down(norm(head.hidden(x)))

    stream, logits = differences(checkpoint, samples, monkeypatch, "transformer.run_head", late)
    assert stream < 1e-10 < 1e-9 < logits


def test_a_wrong_replica_fails_the_cross_check(checkpoint, samples):
    model = checkpoint.model()
    for block in model.layers:
        block.norm1.epsilon = block.norm2.epsilon = 1e-3
    run_block.clear_cache()
    assert not any(check.passed for check in cross_check(model, checkpoint, samples, LAYERS, "drop"))


USER_FILE = """
from dataclasses import dataclass
import torch
from torch import nn
from convert import signs_reference

@dataclass
class AeneasConfig:
    vocab_size: int
    d_model: int
    d_ff: int
    d_kv: int
    num_heads: int
    num_layers: int
    max_seq_len: int
    dropout: float
    layer_norm_eps: float
    rotary_base: float

class Kept(signs_reference.Rotary):
    def forward(self, x):
        if not hasattr(self, "kept"):
            self.register_buffer("kept", torch.stack(super().forward(x)), persistent=False)
        return self.kept

class AeneasForMLM(signs_reference.Model):
    def __init__(self, config):
        config.n_layers, config.d_inner = config.num_layers, config.num_heads * config.d_kv
        super().__init__(config)
        for layer in self.torso.layers:
            layer.attn.rope = Kept(config)

    def forward(self, input_ids, attention_mask=None, labels=None):
        return {"logits": super().forward(input_ids, attention_mask)}
"""


def test_the_users_own_file_is_hooked_and_may_keep_its_angles(checkpoint, samples, tmp_path):
    """As the authors' does: computed once, in the type of the first run."""
    (tmp_path / "model.py").write_text(USER_FILE)
    arrays = samples.ids, samples.mask, list(LAYERS)
    for ours, theirs in zip(
        hooked(checkpoint, tmp_path / "model.py", *arrays), activations(checkpoint, *arrays), strict=True
    ):
        limit = 1e-5 if ours[0].dtype == np.float32 else 1e-12
        for layer in LAYERS:
            np.testing.assert_allclose(ours[layer][samples.real], theirs[layer][samples.real], rtol=0, atol=limit)


def test_the_process_answers_for_this_family_too(checkpoint, samples):
    with ReferenceProcess() as process:
        asked = process.ask(checkpoint, samples, [0, 2], "drop")
        checks = cross_check(checkpoint.model(), checkpoint, samples, [0, 2], "drop", asked=asked)
    assert all(check.passed for check in checks)


def test_verify_and_convert_weights_read_it(script, tmp_path, folder):
    words = sign_model.write_words(tmp_path / "val.parquet", value_signs=["lu gal"] * 10)
    ran = script("verify", "--checkpoint", folder / "best_model.pt", "--dataset", words, "--samples", 3)
    assert ran.status == 0, ran
    assert f"vocab    {folder / 'vocab.json'}" in ran.out
    assert "passed" in ran.out
    assert script("convert_weights", folder / "best_model.pt", tmp_path / "folder").status == 0
    ran = script("verify", "--checkpoint", tmp_path / "folder", "--dataset", tmp_path, "--samples", 3, "--layer", 1)
    assert f"vocab    {tmp_path / 'folder' / 'vocab.json'}" in ran.out, ran


def test_a_vocabulary_that_is_nowhere_is_said(script, tmp_path, tiny_pt):
    path, words = saved(tmp_path, sign_model.content()), sign_model.write_words(tmp_path / "val.parquet")
    ran = script("verify", "--checkpoint", path, "--dataset", words)
    assert_one_line_error(ran, "signs must be known by a vocabulary, got none", "give the model's vocab.json")
    assert "vocab    none found" in ran.out
    given = sign_model.write_vocabulary(tmp_path / "mine.json")
    assert script("verify", "--checkpoint", path, "--vocab", given, "--dataset", words).status == 0
    beside = tmp_path / "data"
    beside.mkdir()
    sign_model.write_words(beside / "val.parquet")
    sign_model.write_vocabulary(beside / "vocab.json")
    assert f"vocab    {beside / 'vocab.json'}" in script("verify", "--checkpoint", path, "--dataset", beside).out
    assert_one_line_error(script("verify", "--checkpoint", tiny_pt, "--vocab", given), "a vocabulary is for models of")


def test_an_sae_is_trained_on_signs(script, tmp_path, folder):
    words = sign_model.write_words(
        tmp_path / "train.parquet",
        **{name: column * 40 for name, column in sign_model.WORDS.items()}
        | {"fragment_id": [f"f{i // 20}" for i in range(400)]},
    )
    small = "--recipe", "guide", "--epochs", 2, "--batch-size", 16, "--expansion", 2, "--layer", 1
    ran = script(
        "train", "--checkpoint", folder / "best_model.pt", "--dataset", words, "--output", tmp_path / "out", *small
    )
    assert ran.status == 0, ran
    assert "check    layer 1" in ran.out
    assert (tmp_path / "out" / "sae_layer1_optimized.pt").exists()
    ran = script(
        "evaluate",
        "--sae",
        tmp_path / "out" / "sae_layer1_optimized.pt",
        "--checkpoint",
        folder / "best_model.pt",
        "--dataset",
        words,
    )
    assert ran.status == 0, ran


def test_the_first_family_is_what_it_was(tmp_path):
    """Its checkpoints are not taken for the other's, whatever their config leaves out."""
    content = checkpoint_content()
    content["config"] = {name: value for name, value in content["config"].items() if name != "n_heads"}
    with pytest.raises(InputError, match="d_model must be divisible by n_heads"):
        read_checkpoint(saved(tmp_path, content))
    assert not isinstance(read_checkpoint(saved(tmp_path, checkpoint_content())).config.datasets, SignTexts)


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_stored_rows_know_their_text_with_its_frame(tmp_path, checkpoint, samples, padding):
    store.write(tmp_path / "rows", checkpoint.model(), samples, [1], padding, {"model_sha256": checkpoint.identity})
    read = store.open_stores([str(tmp_path / "rows")], 1)
    text = store.text_of(read, checkpoint.identity, tokenizer=checkpoint.config.tokenizer)
    for name in ("ids", "labels", "mask", "special"):
        np.testing.assert_array_equal(getattr(text, name), getattr(samples, name), err_msg=name)
    assert text.text_of(2) == samples.text_of(2)
