"""Files of other people, legal and odd: each gives the figures it means, or is refused by a line that says why."""

from __future__ import annotations

import argparse
import collections
import datetime
import json
import pathlib
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from conftest import TINY, assert_one_line_error, checkpoint_content, tiny_tensors
from safetensors.numpy import save_file

from convert import (
    check_model,
    convert_sae,
    layer_of,
    load_restoration_model,
    load_sae,
    read_checkpoint,
    restoration,
    words,
)
from convert.pt import Fields
from jaxsae import encode
from jaxsae.errors import InputError, InputNote

# ------------------------------------------------------------------------------------------------------- SAE files

D_IN, D_SAE, K = 6, 10, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, D_IN)).astype(np.float32)
W = {
    "W_enc": RNG.normal(size=(D_IN, D_SAE)),
    "b_enc": RNG.normal(size=D_SAE),
    "W_dec": RNG.normal(size=(D_SAE, D_IN)),
    "b_dec": RNG.normal(size=D_IN),
}
W = {name: array.astype(np.float32) for name, array in W.items()}
PRE = X @ W["W_enc"] + W["b_enc"]
SHAPE = {"d_in": D_IN, "d_sae": D_SAE, "l1_coef": 0.0}


def sae_pt(folder, config=(), **more):
    tensors = {name: torch.from_numpy(array) for name, array in W.items()}
    path = folder / "sae.pt"
    torch.save({**tensors, "losses": [1.0], "config": SHAPE | dict(config), **more}, path)
    return path


def latents(path):
    file = load_sae(path)
    return np.asarray(encode(file.sae, jnp.asarray(X), file.config.k))


def relu(x):
    return np.maximum(x, 0)


def top(x, k):
    return np.where(x >= np.sort(x, axis=1)[:, [-k]], relu(x), 0)


LIMITS = np.linspace(0.1, 1, D_SAE).astype(np.float32)
MEANT = {
    "k by another word": ({"k_sparse": K}, {}, top(PRE, K)),
    "k beside the config": ({}, {"k": K}, top(PRE, K)),
    "k as NumPy has it": ({"k": np.int64(K)}, {}, top(PRE, K)),
    "k as a tensor": ({"k": torch.tensor(K)}, {}, top(PRE, K)),
    "an activation with its k": ({"activation": "topk", "top_k": K}, {}, top(PRE, K)),
    "an architecture by another name": ({"architecture": "standard"}, {}, relu(PRE)),
    "a ReLU in words": ({"activation": "relu"}, {}, relu(PRE)),
    "thresholds as a tensor beside": (
        {},
        {"threshold": torch.from_numpy(LIMITS)},
        np.where(PRE > LIMITS, relu(PRE), 0),
    ),
    "thresholds as a list": ({"threshold": LIMITS.tolist()}, {}, np.where(PRE > LIMITS, relu(PRE), 0)),
    "thresholds as an array": (
        {"architecture": "jumprelu", "threshold": LIMITS},
        {},
        np.where(PRE > LIMITS, relu(PRE), 0),
    ),
    "a threshold of NumPy's": ({"threshold": np.float64(0.5)}, {}, np.where(PRE > 0.5, relu(PRE), 0)),
    "thresholds of 0": ({"threshold": 0.0}, {}, relu(PRE)),
    "thresholds of 0, by name": ({"architecture": "matryoshka", "threshold": 0.0}, {}, relu(PRE)),
    "what is said twice alike": ({"k": K, "architecture": "topk"}, {"k_sparse": K}, top(PRE, K)),
    "what is not done": (
        {"normalize": False, "input_scale": 1.0, "apply_b_dec_to_input": False},
        {"pre_bias": torch.zeros(D_IN)},
        relu(PRE),
    ),
    "how it was trained": (
        {"lr": 1e-3, "optimizer": torch.optim.Adam, "device": torch.device("cpu"), "dtype": torch.float32},
        {"epoch": 3, "loss": np.float64(0.5), "optimizer_state_dict": {"state": {}}},
        relu(PRE),
    ),
}


@pytest.mark.parametrize("name", MEANT)
def test_an_sae_file_is_read_as_it_means(tmp_path, name):
    config, more, expected = MEANT[name]
    np.testing.assert_allclose(latents(sae_pt(tmp_path, config, **more)), expected, atol=1e-5)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_by_any_protocol(tmp_path, protocol):
    """The order of memory, too, is another's: `order="F"`."""
    tensors = {name: torch.from_numpy(array) for name, array in W.items()}
    for limits in (LIMITS, np.stack([LIMITS, LIMITS], 1, dtype=np.float64)[:, 0], np.asfortranarray(LIMITS)):
        content = {**tensors, "config": SHAPE | {"threshold": limits}, "losses": np.asfortranarray(np.ones((3, 2)))}
        torch.save(content, tmp_path / "sae.pt", pickle_protocol=protocol)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputNote)
            np.testing.assert_allclose(latents(tmp_path / "sae.pt"), np.where(PRE > LIMITS, relu(PRE), 0), atol=1e-5)


REFUSED = {
    "an unknown word": ({"gain": 2.0}, {}, "got 'gain'"),
    "an unknown tensor": ({}, {"log_scale": torch.ones(D_SAE)}, "got 'log_scale'"),
    "a scale": ({"input_scale": 2.0}, {}, "input_scale must be None/False/1, got 2.0"),
    "a scale of 0": ({"input_scale": 0}, {}, "input_scale must be"),
    "a scale beside": ({}, {"input_scale": 2.0}, "input_scale must be"),
    "a bias before": ({}, {"pre_bias": torch.ones(D_IN)}, "pre_bias must be None/False/0, got others"),
    "a mean": ({}, {"mean": torch.ones(D_IN)}, "mean must be"),
    "normalised rows": ({"normalize_activations": "layer_norm"}, {}, "normalize_activations must be"),
    "a bias subtracted": ({"apply_b_dec_to_input": True}, {}, "apply_b_dec_to_input must be"),
    "another activation": ({"activation": "gelu"}, {}, "got activation 'gelu'"),
    "two ks": ({"k": K, "top_k": K + 1}, {}, "k and top_k must say the same"),
    "a k that is true": ({"k": 1, "top_k": True}, {}, "k and top_k must say the same"),
    "two thresholds": ({"threshold": 0.5}, {"threshold": torch.from_numpy(LIMITS)}, "must say the same"),
    "a ReLU with a threshold": ({"architecture": "relu", "threshold": 0.5}, {}, "config must describe relu"),
    "k and thresholds": ({"k": K, "threshold": 0.5}, {}, "config must describe relu"),
    "a TopK without k": ({"activation": "topk"}, {}, "config must describe relu"),
    "too few thresholds": ({}, {"threshold": torch.ones(3)}, "or 10 (d_sae) of them"),
    "thresholds of truth values": (
        {},
        {"threshold": torch.ones(D_SAE, dtype=torch.bool)},
        "threshold must be a number",
    ),
    "a threshold that is true": ({"threshold": np.bool_(True)}, {}, "threshold must be a number"),
    "a layer in words": ({"layer": "eight"}, {}, "layer must be a number, got 'eight'"),
    "a place that is no name": ({"layer": 1, "hook_name": ["mlp"]}, {}, "hook_name must be a name, got ['mlp']"),
    "two layers": ({"layer": 3, "hook_name": "blocks.2.hook_resid_post"}, {}, "layer and hook_name must say the same"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_sae_file_that_means_something_else_is_refused(tmp_path, name):
    config, more, says = REFUSED[name]
    with pytest.raises(InputError) as error:
        load_sae(sae_pt(tmp_path, config, **more))
    assert says in str(error.value)


def test_reading_an_sae_consumes_its_keys(tmp_path):
    """Whatever key is added, and whatever it holds, reading fails; but for those that are known to say nothing."""
    known = {word for of in words.APPLIED.values() for word in of} | set(words.SILENT) | set(words.NEUTRAL)
    assert all(words.SILENT.values())  # a reason for each
    for key in ("anything", "K", "thresh", "W_skip", "config2", "b_enc2"):
        assert key not in known
        for places in (({key: 1}, {}), ({}, {key: 1}), ({}, {key: torch.ones(2)}), ({}, {key: argparse.Namespace()})):
            with pytest.raises(InputError, match=key):
                load_sae(sae_pt(tmp_path, places[0], **places[1]))
    for folder, write in FOLDERS.items():
        path = write(tmp_path / folder)
        load_sae(path)
        for file in path.glob("*.json"):
            good = json.loads(file.read_text())
            for at in [[], *([name] for name, value in good.items() if isinstance(value, dict) and name != "metadata")]:
                changed = json.loads(file.read_text())
                inner = changed[at[0]] if at else changed
                inner["anything"] = 1
                file.write_text(json.dumps(changed))
                with pytest.raises(InputError, match="anything"):
                    load_sae(path)
                file.write_text(json.dumps(good))


def test_what_nobody_took_is_told():
    fields = Fields({"a": 1, "b": 2}, "here")
    assert fields.take("a") == 1
    with pytest.raises(InputError, match=r"here: may have a alone, got 'b'"):
        fields.finish("may have a alone")
    fields.drop("b")
    fields.finish("may have a alone")


@pytest.mark.parametrize(
    ("losses", "read"),
    [
        ([torch.tensor(1.0), torch.tensor(0.5)], [1.0, 0.5]),
        (torch.tensor([1.0, 0.5]), [1.0, 0.5]),
        ((1.0, 0.5), [1.0, 0.5]),
        (np.array([1.0, 0.5]), [1.0, 0.5]),
        (None, []),
        ([1.0, float("nan")], None),
        ({"total": [1.0]}, None),
        ("low", None),
        ([argparse.Namespace()], None),
    ],
    ids=str,
)
def test_losses_of_any_form_are_in_nobodys_way(tmp_path, losses, read):
    path = sae_pt(tmp_path, losses=losses)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        file = load_sae(path)
        np.testing.assert_allclose(latents(path), relu(PRE), atol=1e-5)
    assert bool(notes) == (read is None)
    assert all(issubclass(one.category, InputNote) for one in notes)
    assert read is None or file.losses == read


@pytest.mark.parametrize("layer", [1, "1", np.int64(1), torch.tensor(1), 1.0], ids=repr)
def test_a_layer_may_be_written_in_any_way(tmp_path, layer):
    path = sae_pt(tmp_path, {"layer": layer})
    assert layer_of(path, load_sae(path), None) == 1


# ------------------------------------------------------------------------------------- folders of other libraries


def saelens(path, tensors=None, scaler=None, **config):
    path.mkdir()
    usual = {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "apply_b_dec_to_input": False}
    usual["metadata"] = {"hook_name": "blocks.1.hook_resid_post"}
    (path / "cfg.json").write_text(json.dumps(usual | config))
    save_file(W if tensors is None else tensors, path / "sae_weights.safetensors")
    if scaler is not None:
        (path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": scaler}))
    return path


def dictionary(path, buffer=None, tensors=None, **trainer):
    path.mkdir()
    usual = {"dict_class": "JumpReluAutoEncoder", "activation_dim": D_IN, "dict_size": D_SAE, "layer": 1, "lr": 1e-3}
    (path / "config.json").write_text(json.dumps({"trainer": usual | trainer, "buffer": buffer or {"io": "out"}}))
    content = W | {"threshold": LIMITS} if tensors is None else tensors
    torch.save({name: torch.as_tensor(array) for name, array in content.items()}, path / "ae.pt")
    return path


def sparsify(path, **config):
    path.mkdir(parents=True)
    (path / "cfg.json").write_text(
        json.dumps({"activation": "topk", "k": K, "d_in": D_IN, "multi_topk": True} | config)
    )
    tensors = {
        "encoder.weight": W["W_enc"].T.copy(),
        "encoder.bias": W["b_enc"],
        "W_dec": W["W_dec"],
        "b_dec": W["b_dec"],
    }
    save_file(tensors, path / "sae.safetensors")
    return path


FOLDERS = {"saelens": saelens, "dictionary_learning": dictionary, "sparsify": sparsify}


@pytest.mark.parametrize("subtracts", [False, True])
def test_a_checkpoint_of_saelens_is_scaled_by_the_factor_beside_it(tmp_path, subtracts):
    """As its trainer runs it: encode(factor * x), decode / factor."""
    path = saelens(
        tmp_path / "a", scaler=0.25, normalize_activations="expected_average_only_in", apply_b_dec_to_input=subtracts
    )
    expected = relu((0.25 * X - W["b_dec"] * subtracts) @ W["W_enc"] + W["b_enc"])
    np.testing.assert_allclose(latents(path), expected, atol=1e-5)
    file = load_sae(path)
    x_hat = expected @ np.asarray(file.sae.W_dec) + np.asarray(file.sae.b_dec)
    np.testing.assert_allclose(x_hat, (expected @ W["W_dec"] + W["b_dec"]) / 0.25, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("normalize", "scaler", "says"),
    [
        (
            "expected_average_only_in",
            None,
            "must have the scaling_factor of its rows in activation_scaler.json, got None",
        ),
        (True, None, "must have the scaling_factor"),
        ("expected_average_only_in", -1, "must have the scaling_factor"),
        ("none", 0.5, "normalize_activations and activation_scaler.json must say the same"),
        ("constant_norm_rescale", None, "got normalize_activations 'constant_norm_rescale'"),
        ([], None, "got normalize_activations []"),
    ],
)
def test_rows_scaled_by_no_known_factor_are_refused(tmp_path, normalize, scaler, says):
    path = saelens(tmp_path / "a", scaler=scaler, normalize_activations=normalize)
    with pytest.raises(InputError) as error:
        load_sae(path)
    assert says in str(error.value)


def test_a_finished_run_of_saelens_has_its_scale_in_the_weights(tmp_path):
    for i, said in enumerate(({}, {"normalize_activations": "none"}, {"normalize_activations": False})):
        np.testing.assert_allclose(latents(saelens(tmp_path / str(i), **said)), relu(PRE), atol=1e-5)


ELSEWHERE = {
    "before a block": (lambda p: saelens(p, metadata={"hook_name": "blocks.0.hook_resid_pre"}), None),
    "feed-forward": (lambda p: saelens(p, metadata={"hook_name": "blocks.1.hook_mlp_out"}), None),
    "between": (lambda p: saelens(p, metadata={}, hook_name="blocks.1.hook_resid_mid", hook_layer=1), None),
    "heads": (lambda p: saelens(p, metadata={"hook_name": "blocks.1.attn.hook_z"}), None),
    "a module of a block": (lambda p: sparsify(p.with_name("layers.1.mlp")), None),
    "a module by name": (lambda p: sparsify(p, hook_name="layers.1.attn.out_proj"), None),
    "feed-forward, dictionary_learning": (lambda p: dictionary(p, submodule_name="mlp_out_layer_1"), None),
    "the next block's input": (lambda p: saelens(p, metadata={"hook_name": "blocks.2.hook_resid_pre"}), 1),
    "the stream, dictionary_learning": (lambda p: dictionary(p, submodule_name="resid_post_layer_1"), 1),
    "a block in brackets": (lambda p: dictionary(p, submodule_name="model.gpt_neox.layers[1]"), 1),
    "a module in brackets": (lambda p: dictionary(p, submodule_name="model.gpt_neox.layers[1].mlp"), None),
    "a block by its module": (lambda p: sparsify(p.with_name("model.layers.1")), 1),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_sae_of_another_place_is_refused(tmp_path, name):
    make, layer = ELSEWHERE[name]
    path = make(tmp_path / "sae_layer_1")
    file = load_sae(path)
    if layer is not None:
        assert layer_of(path, file, None) == layer_of(path, file, layer) == layer
        return
    convert_sae(path, tmp_path / "ours_layer1.pt", "pt")  # where it is from goes along
    for one in (path, tmp_path / "ours_layer1.pt"):
        for given in (1, None):
            with pytest.raises(InputError, match="must be of the residual stream after a block"):
                layer_of(one, load_sae(one), given)


CONTRADICTS: dict[str, tuple[dict, str]] = {
    "a yes that is none": ({"apply_b_dec_to_input": None}, "apply_b_dec_to_input must be true or false, got None"),
    "a yes in words": ({"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input must be true or false, got 'false'"),
    "half a yes": ({"apply_b_dec_to_input": 0.5}, "apply_b_dec_to_input must be true or false, got 0.5"),
    "rescaled in words": (
        {"architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": "false"},
        "rescale_acts_by_decoder_norm must be true or false",
    ),
    "a topk without k": ({"activation_fn_str": "topk"}, "activation_fn topk must have its k in activation_fn_kwargs"),
    "two ks": (
        {"architecture": "topk", "k": K, "activation_fn": "topk", "activation_fn_kwargs": {"k": K + 1}},
        "activation_fn topk must have its k in activation_fn_kwargs, got {'k': 4}, and k 3",
    ),
    "no width": ({"d_in": 0}, "d_in must be that of the weights, 6, got 0"),
    "two places": ({"hook_name": "blocks.2.hook_resid_post"}, "hooks and layers must be the same in all places"),
    "a place that is no name": ({"metadata": {"hook_name": ["mlp"]}}, "hook_name must be a name"),
    "the layer of another input": (
        {"metadata": {"hook_name": "blocks.2.hook_resid_pre", "hook_layer": 3}},
        "hook_layer and hook_name must say the same, got 3 and 'blocks.2.hook_resid_pre'",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTS)
def test_a_folder_of_saelens_that_contradicts_itself_is_refused(tmp_path, name):
    said, says = CONTRADICTS[name]
    with pytest.raises(InputError) as error:
        load_sae(saelens(tmp_path / "a", **said))
    assert says in str(error.value)


def test_the_layer_of_an_input_is_that_of_the_hook(tmp_path):
    metadata = {"hook_name": "blocks.2.hook_resid_pre", "hook_layer": 2}
    path = saelens(tmp_path / "a", metadata=metadata, l1_coefficient=5)
    assert layer_of(path, load_sae(path), None) == 1


def test_a_topk_of_before_version_6_has_its_k_beside_its_activation(tmp_path):
    said = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    np.testing.assert_allclose(latents(saelens(tmp_path / "a", **said)), top(PRE, K), atol=1e-5)


def test_what_a_module_reads_is_not_what_it_gives(tmp_path):
    with pytest.raises(InputError, match=r"must be of what a module gives, got buffer\.io 'in'"):
        load_sae(dictionary(tmp_path / "a", {"io": "in"}))
    with pytest.raises(InputError, match="transcoder from blocks"):
        load_sae(saelens(tmp_path / "b", metadata={"hook_name": "blocks.1.hook_resid_post", "hook_name_out": "x"}))
    with pytest.raises(InputError, match="hook_head_index"):
        load_sae(saelens(tmp_path / "c", metadata={"hook_name": "blocks.1.hook_resid_post", "hook_head_index": 2}))


def test_a_folders_name_is_no_evidence_against_what_its_file_says(tmp_path):
    path = saelens(tmp_path / "mlp_layer_7")
    assert layer_of(path, load_sae(path), None) == 1
    unsaid = saelens(tmp_path / "best_layer_7", metadata={})
    assert layer_of(unsaid, load_sae(unsaid), None) == 7
    assert layer_of(unsaid, load_sae(unsaid), 3) == 3
    renamed = sparsify(tmp_path / "my mlp experiment")
    assert layer_of(renamed, load_sae(renamed), 3) == 3


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: saelens(p, d_sae=D_SAE + 1), "d_sae must be that of the weights, 10, got 11"),
        (lambda p: saelens(p, k=3), "k for architecture 'standard'"),
        (lambda p: sparsify(p, signed=True), "signed latents"),
        (lambda p: sparsify(p, num_latents=3), "num_latents must be that of the weights"),
        (lambda p: dictionary(p, k=3), "k must go with a TopK, got 3 and JumpReluAutoEncoder"),
        (lambda p: dictionary(p, dict_size=3), "dict_size must be that of the weights"),
    ],
)
def test_folders_that_contradict_themselves_are_refused(tmp_path, make, says):
    with pytest.raises(InputError) as error:
        load_sae(make(tmp_path / "a"))
    assert says in str(error.value)


# ------------------------------------------------------------------------------------------------------- checkpoints


def saved(path, content):
    torch.save(content, path)
    return path


def stream(path):
    ids = np.arange(40, 40 + 2 * 9).reshape(2, 9).astype(np.int32)
    return np.asarray(load_restoration_model(path).resid_post(ids, None, layer=3))


class Settings:
    """Of a user's own script."""


BESIDE = {
    "history": np.array([1.0, 0.5]),
    "rng": np.random.RandomState(0).get_state(),
    "generator": np.random.default_rng(0),
    "args": argparse.Namespace(lr=1e-4),
    "data_dir": pathlib.PurePosixPath("/data"),
    "saved": datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC),
    "frozen": {"embed"},
    "device": torch.device("cpu"),
    "dtype": torch.float32,
    "log": collections.defaultdict(list, {"loss": [1.0]}),
    "settings": Settings(),
    "counts": collections.Counter("aab"),
    "spectrum": torch.ones(3, dtype=torch.complex64),
    "step": torch.tensor(3),
    "model": torch.nn.Linear(2, 2),
}


@pytest.mark.parametrize("key", BESIDE)
def test_what_lies_beside_the_weights_is_in_nobodys_way(tmp_path, tiny_pt, key):
    path = saved(tmp_path / "m.pt", checkpoint_content() | {key: BESIDE[key]})
    np.testing.assert_array_equal(stream(path), stream(tiny_pt))


def test_reading_a_checkpoint_consumes_config_and_tensors(tmp_path):
    content = checkpoint_content()
    content["config"]["anything"] = 1
    with pytest.raises(InputError, match="does not know: anything"):
        read_checkpoint(saved(tmp_path / "m.pt", content))
    content = checkpoint_content()
    content["model_state_dict"]["layers.0.anything"] = torch.ones(2)
    with pytest.raises(InputError, match=r"unknown layers\.0\.anything"):
        read_checkpoint(saved(tmp_path / "m.pt", content))
    content = checkpoint_content()
    content["config"]["dropout"] = argparse.Namespace()
    with pytest.raises(InputError, match=r"config: must hold tensors and numbers only, got argparse\.Namespace"):
        read_checkpoint(saved(tmp_path / "m.pt", content))


@pytest.mark.parametrize("chain", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.encoder.module."])
def test_names_behind_a_wrapper_are_read(tmp_path, tiny_pt, chain):
    content = checkpoint_content()
    content["model_state_dict"] = {chain + name: t for name, t in content["model_state_dict"].items()}
    path = saved(tmp_path / "m.pt", content)
    with pytest.warns(InputNote, match=f"begin with {chain}"):
        np.testing.assert_array_equal(stream(path), stream(tiny_pt))


def test_names_behind_several_wrappers_are_refused_in_one_short_line(script, tmp_path, tiny_dataset):
    content = checkpoint_content()
    names = list(content["model_state_dict"])
    for change in (
        lambda i, name: f"module.{name}" if i % 2 else f"_orig_mod.{name}",
        lambda i, name: f"module.{name}" if i else name,
        lambda i, name: f"module.{name}" if i else "module.extra",
    ):
        content["model_state_dict"] = {change(i, name): tiny_tensors()[name] for i, name in enumerate(names)}
        path = saved(tmp_path / "m.pt", content)
        ran = script("train", "--checkpoint", path, "--dataset", tiny_dataset, "--output", tmp_path / "out")
        assert_one_line_error(ran, "tensors must be those of its config", "and ", "more")
        assert len(ran.err) <= 300


def test_numbers_of_numpy_are_numbers(tmp_path, tiny_pt):
    for kind in (np.int64, np.float64, torch.tensor, float):
        content = checkpoint_content()
        content["config"] = {name: kind(value) for name, value in content["config"].items()}
        content["vocab_size"] = kind(content["vocab_size"])
        path = saved(tmp_path / "m.pt", content)
        np.testing.assert_array_equal(stream(path), stream(tiny_pt))


def test_a_file_without_checksums_is_read_and_one_with_them_is_still_checked(tmp_path, tiny_pt):
    from torch.utils.serialization import config

    config.save.compute_crc32 = False
    try:
        path = saved(tmp_path / "m.pt", checkpoint_content())
    finally:
        config.save.compute_crc32 = True
    with pytest.warns(InputNote, match="saved without checksums"):
        np.testing.assert_array_equal(stream(path), stream(tiny_pt))
    broken = bytearray(tiny_pt.read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "broken.pt").write_bytes(broken)
    with pytest.raises(InputError, match="checksums must hold"):
        read_checkpoint(tmp_path / "broken.pt")


def test_tensors_as_they_may_lie_in_a_file(tmp_path):
    content = checkpoint_content()
    state = content["model_state_dict"]
    state["layers.0.ln1.bias"] = torch.full((1,), 0.25).expand(TINY.d_model)
    state["layers.1.ln1.bias"] = torch.zeros(1).expand(TINY.d_model)
    parameter = torch.nn.Parameter(state["head.bias"])
    parameter.no_decay = True
    state["head.bias"] = parameter
    state["layers.2.ln1.bias"] = torch._neg_view(state["layers.2.ln1.bias"])  # negated by a bit beside the storage
    plain = {name: t.detach().resolve_neg().clone().contiguous() for name, t in state.items()}
    path, same = saved(tmp_path / "a.pt", content), saved(tmp_path / "b.pt", content | {"model_state_dict": plain})
    np.testing.assert_array_equal(stream(path), stream(same))


def test_a_model_is_known_by_what_it_computes(tmp_path, tiny_pt):
    """Saved again, wrapped, in another type of the same values, or converted and back, it is the same; else another."""
    first = read_checkpoint(tiny_pt)
    again = saved(tmp_path / "again.pt", checkpoint_content() | {"epoch": 3})
    restoration.to_folder(tiny_pt, tmp_path / "folder")
    restoration.to_pt(tmp_path / "folder", tmp_path / "back.pt")
    content = checkpoint_content()
    double = {name: t.double() for name, t in content["model_state_dict"].items()}
    saved(tmp_path / "double.pt", content | {"model_state_dict": double})
    content["config"] |= {"dropout": 0.3, "rotary_base": 10000.0}
    saved(tmp_path / "dropout.pt", content)
    for path in (again, tmp_path / "folder", tmp_path / "back.pt", tmp_path / "double.pt", tmp_path / "dropout.pt"):
        assert read_checkpoint(path).identity == first.identity, path
    assert read_checkpoint(again).sha256 != first.sha256
    assert read_checkpoint(tmp_path / "folder").sha256 == first.sha256
    content["config"]["rotary_base"] = 500.0
    others = {"base.pt": content, "seed.pt": checkpoint_content(seed=1)}
    for name, other in others.items():
        assert read_checkpoint(saved(tmp_path / name, other)).identity != first.identity


def test_an_sae_of_a_model_that_was_saved_again_is_its_sae(tmp_path, tiny_pt):
    model = read_checkpoint(tiny_pt)
    new = load_sae(sae_pt(tmp_path, {"model_sha256": model.identity, "checkpoint_sha256": "of the old file"}))
    check_model("sae.pt", new, model.identity, model.sha256)
    with pytest.raises(InputError, match="was trained on another model"):
        check_model("sae.pt", new, "f" * 64, "of the old file")
    old = load_sae(sae_pt(tmp_path, {"checkpoint_sha256": model.sha256}))
    check_model("sae.pt", old, model.identity, model.sha256)
    with pytest.raises(InputError, match="was trained on another model"):
        check_model("sae.pt", old, model.identity, "f" * 64)


# ------------------------------------------------------------------------------------------------------------ commands


@pytest.fixture
def inputs(tiny_pt, tiny_dataset):
    return ["--checkpoint", tiny_pt, "--dataset", tiny_dataset]


def test_every_error_line_is_short(script, tmp_path, inputs):
    """However long what is named."""
    long = "x" * 200
    for args in (
        ("train", *inputs, "--split", long),
        ("train", "--checkpoint", tmp_path / long / long),
        ("evaluate", *inputs, "--sae", tmp_path / long / long / long),
        ("inspect_sae", *inputs, "--feature", long * 3),
        ("train", *inputs, *(f"--{long}{i}" for i in range(9))),
    ):
        ran = script(*args)
        assert_one_line_error(ran)
        assert len(ran.err) <= 301
