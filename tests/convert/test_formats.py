"""SAEs in the formats of other libraries, by their formulas; their own loaders are asked in test_rivals.py."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import assert_one_line_error
from helpers import THRESHOLDED
from safetensors.numpy import load_file, save_file

from convert import convert_sae, load_sae, save_sae
from jaxsae import encode
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError
from jaxsae.sae.autoencoder import SAE

D_IN, D_SAE, K = 5, 11, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, D_IN)).astype(np.float32)


def weights(seed=0, **more):
    rng = np.random.default_rng(seed)
    shapes = {"W_enc": (D_IN, D_SAE), "b_enc": D_SAE, "W_dec": (D_SAE, D_IN), "b_dec": D_IN}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} | more


def ours(folder, architecture):
    """A `.pt`."""
    l1, k = 0.25 if architecture == "relu" else 0.0, K if architecture == "topk" else None
    sae = SAE(*map(jnp.asarray, weights().values()), architecture=architecture, k=k)
    if architecture in THRESHOLDED:
        limits = np.linspace(0, 1, D_SAE) if architecture == "jumprelu" else np.full(D_SAE, 0.3)
        sae = sae.replace(threshold=jnp.asarray(limits, jnp.float32))
    config = SAEConfig(D_IN, D_SAE, l1, k, architecture, K if architecture in THRESHOLDED else None)
    path = folder / f"{architecture}.pt"
    save_sae(path, sae, config, [2.0, 1.0], {"layer": 8, "checkpoint_sha256": "ab"})
    return path


@pytest.mark.parametrize("to", ["pt", "saelens", "dictionary_learning", "sparsify"])
@pytest.mark.parametrize("architecture", ["relu", "topk", *THRESHOLDED])
def test_there_and_back(tmp_path, architecture, to):
    path = ours(tmp_path, architecture)
    if to == "sparsify" and architecture in THRESHOLDED:
        with pytest.raises(InputError, match="must be topk or relu"):
            convert_sae(path, tmp_path / "out", to)
        return
    convert_sae(path, tmp_path / "out", to)
    convert_sae(tmp_path / "out", tmp_path / "again.pt", "pt")
    before, after = load_sae(path), load_sae(tmp_path / "again.pt")
    assert (before.config, before.losses) == (after.config, after.losses)
    assert after.extra["layer"] == 8
    assert after.extra["checkpoint_sha256"] == "ab"
    assert to == "pt" or after.extra["hook_name"] == "blocks.8.hook_resid_post"
    assert after.extra["source"]["format"] == to
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
        a, b = getattr(before.sae, name), getattr(after.sae, name)
        if to == "dictionary_learning" and architecture == "topk" and name == "b_enc":
            np.testing.assert_allclose(a, b, atol=1e-6)
        elif a is not None:
            np.testing.assert_array_equal(a, b)


def saelens(folder, tensors, **config):
    folder.mkdir()
    config = {
        "architecture": "standard",
        "dtype": "float32",
        "metadata": {"hook_name": "blocks.3.hook_resid_post"},
    } | config
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


def latents(folder):
    file = load_sae(folder)
    return np.asarray(encode(file.sae, jnp.asarray(X)))


def relu(x):
    return np.maximum(x, 0)


def test_saelens_subtracts_the_bias_unless_told_not_to(tmp_path):
    w = weights()
    plain = saelens(tmp_path / "plain", w, apply_b_dec_to_input=False)
    np.testing.assert_allclose(latents(plain), relu(X @ w["W_enc"] + w["b_enc"]), atol=1e-6)
    default = saelens(tmp_path / "default", w)
    np.testing.assert_allclose(latents(default), relu((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]), atol=1e-6)
    assert load_sae(default).extra == {"layer": 3, "hook_name": "blocks.3.hook_resid_post"}


def test_saelens_topk_in_units_of_decoder_norms(tmp_path):
    w = weights()
    folder = saelens(tmp_path / "sae", w, architecture="topk", k=K, rescale_acts_by_decoder_norm=True)
    norm = np.linalg.norm(w["W_dec"], axis=1)
    pre_acts = ((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norm
    kept = pre_acts >= np.sort(pre_acts, axis=1)[:, [-K]]
    np.testing.assert_allclose(latents(folder), np.where(kept, relu(pre_acts), 0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(load_sae(folder).sae.W_dec, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("subtracts", [False, True])
def test_a_gate_is_a_threshold(tmp_path, subtracts):
    w = weights()
    w |= {name: RNG.normal(size=D_SAE).astype(np.float32) for name in ("b_gate", "b_mag", "r_mag")}
    del w["b_enc"]
    folder = saelens(tmp_path / "sae", w, architecture="gated", apply_b_dec_to_input=subtracts)
    u = (X - w["b_dec"] * subtracts) @ w["W_enc"]
    expected = np.where(u + w["b_gate"] > 0, relu(u * np.exp(w["r_mag"]) + w["b_mag"]), 0)
    assert 0 < (expected > 0).mean() < (relu(u * np.exp(w["r_mag"]) + w["b_mag"]) > 0).mean()
    np.testing.assert_allclose(latents(folder), expected, atol=1e-5)


def dictionary(folder, kind, tensors, **trainer):
    folder.mkdir()
    torch.save({name: torch.as_tensor(tensor) for name, tensor in tensors.items()}, folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "layer": 2, **trainer}}))
    return folder


def linear(w, **more):
    out = {"encoder.weight": w["W_enc"].T.copy(), "encoder.bias": w["b_enc"], "decoder.weight": w["W_dec"].T.copy()}
    return out | more


def test_dictionary_learning_s_classes(tmp_path):
    w = weights()
    p = (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    norm = np.linalg.norm(w["W_dec"], axis=1)
    first = dictionary(tmp_path / "a", "AutoEncoder", linear(w, bias=w["b_dec"]))
    np.testing.assert_allclose(latents(first), relu(p) * norm, atol=1e-5)
    scalars = {"k": np.int32(K), "threshold": np.float32(0.4)}
    batch = dictionary(tmp_path / "b", "BatchTopKSAE", linear(w, b_dec=w["b_dec"], **scalars), k=K)
    np.testing.assert_allclose(latents(batch), np.where(p > 0.4, p, 0), atol=1e-5)
    unset = dictionary(
        tmp_path / "c", "BatchTopKSAE", linear(w, b_dec=w["b_dec"], **scalars | {"threshold": -1.0}), k=K
    )
    np.testing.assert_allclose(latents(unset), relu(p), atol=1e-5)
    convert_sae(unset, tmp_path / "unset.pt", "pt")  # in which a threshold is at least 0
    np.testing.assert_array_equal(latents(tmp_path / "unset.pt"), latents(unset))
    top = dictionary(tmp_path / "d", "AutoEncoderTopK", linear(w, b_dec=w["b_dec"], **scalars), k=K)
    kept = p >= np.sort(p, axis=1)[:, [-K]]
    np.testing.assert_allclose(latents(top), np.where(kept, relu(p), 0), atol=1e-5)
    assert load_sae(top).extra["layer"] == 2
    assert load_sae(top / "ae.pt").config == load_sae(top).config


def test_sparsify_names_its_layer_by_the_folder(tmp_path):
    w = weights()
    folder = tmp_path / "layers.7"
    folder.mkdir()
    save_file(
        {"encoder.weight": w["W_enc"].T.copy(), "encoder.bias": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]},
        folder / "sae.safetensors",
    )
    (folder / "cfg.json").write_text(json.dumps({"k": K, "d_in": D_IN, "num_latents": D_SAE}))
    p = (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    kept = p >= np.sort(p, axis=1)[:, [-K]]
    np.testing.assert_allclose(latents(folder), np.where(kept, relu(p), 0), atol=1e-5)
    assert load_sae(folder).extra["layer"] == 7


def test_what_saelens_reads_is_written(tmp_path):
    """The keys that its loader needs, and false where its default is true."""
    convert_sae(ours(tmp_path, "matryoshka"), tmp_path / "out", "saelens")
    config = json.loads((tmp_path / "out/cfg.json").read_text())
    assert (config["architecture"], config["dtype"], config["apply_b_dec_to_input"]) == ("jumprelu", "float32", False)
    assert config["metadata"]["hook_name"] == "blocks.8.hook_resid_post"
    assert config["metadata"]["training_architecture"] == "matryoshka"
    assert set(load_file(tmp_path / "out/sae_weights.safetensors")) == {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}


WRONG = {
    "architecture": ({"architecture": "transcoder"}, {}, "got architecture 'transcoder', which is not known here"),
    "a list": ({"architecture": []}, {}, "got architecture '[]', which is not known here"),
    "before 6": ({"activation_fn_str": "tanh-relu"}, {}, "got activation_fn 'tanh-relu'"),
    "normalised": ({"normalize_activations": "layer_norm"}, {}, "got normalize_activations 'layer_norm'"),
    "reshaped": ({"reshape_activations": "hook_z"}, {}, "got reshaped activations"),
    "k": ({"architecture": "topk", "k": 2.5}, {}, "k must be a whole number of at least 1, got 2.5"),
    "k too large": ({"architecture": "topk", "k": 12}, {}, "k must be in 1..11 (d_sae), got 12"),
    "note": ({"metadata": {"jaxsae": {"losses": "x"}}}, {}, "what jaxsae noted in it must be as it writes it"),
    "metadata": ({"metadata": 3}, {}, "cfg.json: metadata must be a dict (an object), got int"),
    "transposed": ({}, {"W_enc": np.zeros((D_SAE, D_IN), np.float32)}, "shapes must fit W_enc [d_in, d_sae]"),
    "not finite": ({}, {"b_dec": np.full(D_IN, np.nan, np.float32)}, "b_dec must be finite"),
    "whole numbers": ({}, {"b_dec": np.zeros(D_IN, np.int32)}, "b_dec must hold dense floating-point numbers"),
    "more": ({}, {"W_skip": np.zeros(3, np.float32)}, "misses none and has besides W_skip"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_by_one_line(script, tmp_path, name):
    config, tensors, says = WRONG[name]
    folder = saelens(tmp_path / "sae", weights() | tensors, **config)
    ran = script("convert_sae", folder, tmp_path / "out.pt", "--to", "pt")
    assert_one_line_error(ran, str(folder) if "k must be in" not in says else "", says)
    assert not (tmp_path / "out.pt").exists()


def test_damaged_files_are_refused(script, tmp_path):
    folder = saelens(tmp_path / "sae", weights())
    whole = (folder / "sae_weights.safetensors").read_bytes()
    for damage, says in (
        (whole[:-4], "must be a whole safetensors file"),
        (b"\xff" * 64, "must be a whole safetensors file"),
    ):
        (folder / "sae_weights.safetensors").write_bytes(damage)
        assert_one_line_error(script("convert_sae", folder, tmp_path / "out.pt", "--to", "pt"), says)
    (folder / "cfg.json").write_text("[")
    assert_one_line_error(script("convert_sae", folder, tmp_path / "out.pt", "--to", "pt"), "cfg.json: must be JSON")
    (folder / "cfg.json").unlink()
    assert_one_line_error(script("convert_sae", folder, tmp_path / "out.pt", "--to", "pt"), "must have cfg.json beside")
    (folder / "ae.pt").write_text("")
    assert_one_line_error(
        script("convert_sae", folder, tmp_path / "out.pt", "--to", "pt"), "got saelens and dictionary"
    )


def test_transcoders_and_gates_by_group_are_refused(script, tmp_path):
    (tmp_path / "sae").mkdir()
    save_file(weights(), tmp_path / "sae/sae.safetensors")
    for setting, says in (({"transcode": True}, "a transcoder"), ({"activation": "groupmax"}, "activation 'groupmax'")):
        (tmp_path / "sae/cfg.json").write_text(json.dumps(setting))
        assert_one_line_error(script("convert_sae", tmp_path / "sae", tmp_path / "out.pt", "--to", "pt"), says)
    other = dictionary(tmp_path / "other", "IdentityDict", {})
    assert_one_line_error(script("convert_sae", other, tmp_path / "out.pt", "--to", "pt"), "got 'IdentityDict'")


def test_the_command(script, tmp_path):
    path = ours(tmp_path, "topk")
    ran = script("convert_sae", path, tmp_path / "out", "--to", "saelens")
    assert ran.status == 0, ran
    assert "pt, topk, k 3, 5 x 11, layer 8" in ran.out
    before = (tmp_path / "out/cfg.json").read_bytes()
    again = script("convert_sae", path, tmp_path / "out", "--to", "sparsify")
    assert_one_line_error(again, "must not exist yet; remove it or give another name")
    assert (tmp_path / "out/cfg.json").read_bytes() == before
