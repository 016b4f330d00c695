"""Folders of other libraries, legal and odd: each gives the figures it means, or is refused by a line that says why."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_one_line_error
from some_sae import D_SAE, PRE, K, W, X, dictionary, latents, relu, saelens, sparsify, top

from convert import convert_sae, hook_name_of, layer_of, load_sae, read_checkpoint
from jaxsae.errors import InputError


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
    "between": (lambda p: saelens(p, metadata={"hook_name": "blocks.1.hook_resid_mid"}), None),
    "heads": (lambda p: saelens(p, metadata={"hook_name": "blocks.1.attn.hook_z"}), None),
    "a module of a block": (lambda p: sparsify(p.with_name("layers.1.mlp")), None),
    "a module by name": (lambda p: sparsify(p, hook_name="layers.1.attn.out_proj"), None),
    "the next block's input": (lambda p: saelens(p, metadata={"hook_name": "blocks.2.hook_resid_pre"}), 1),
    "the stream, dictionary_learning": (lambda p: dictionary(p, submodule_name="resid_post_layer_1"), 1),
    "a block in brackets": (lambda p: dictionary(p, submodule_name="model.gpt_neox.layers[1]"), 1),
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
            with pytest.raises(InputError, match="must be of a place of a block"):
                layer_of(one, load_sae(one), given)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("blocks.0.hook_resid_pre", 0), ("blocks.1.hook_mlp_out", 1), ("blocks.2.hook_attn_out", 2)],
)
def test_other_places_of_a_block_are_known(tmp_path, name, layer):
    path = saelens(tmp_path / "theirs", metadata={"hook_name": name})
    convert_sae(path, tmp_path / "ours.pt", "pt")
    for one in (path, tmp_path / "ours.pt"):
        file = load_sae(one)
        assert (layer_of(one, file, None), hook_name_of(file, layer)) == (layer, name)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (
            lambda p: saelens(p, metadata={}, hook_name="blocks.1.hook_resid_mid", hook_layer=1),
            "blocks.1.hook_resid_mid",
        ),
        (lambda p: dictionary(p, submodule_name="mlp_out_layer_1"), "mlp_out_layer_1"),
        (lambda p: dictionary(p, submodule_name="model.gpt_neox.layers[1].mlp"), "model.gpt_neox.layers[1].mlp"),
    ],
)
def test_a_place_that_a_model_has_not_is_refused_by_the_model(tmp_path, tiny_pt, make, name):
    """Of another place of layer 1, as the file says; a PyTorch module may have it."""
    path = make(tmp_path / "theirs")
    file = load_sae(path)
    assert layer_of(path, file, None) == 1
    with pytest.raises(InputError, match=r"must be one of resid_post, .*, got ") as error:
        read_checkpoint(tiny_pt).model(hook={1: hook_name_of(file, 1)})
    assert str(error.value).endswith(name)


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
