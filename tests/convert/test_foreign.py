"""SAE files of other people, legal and odd: each gives the figures it means, or is refused by a line that says why."""

from __future__ import annotations

import argparse
import json
import warnings

import numpy as np
import pytest
import torch
from some_sae import D_IN, D_SAE, LIMITS, PRE, SHAPE, K, W, dictionary, latents, relu, sae_pt, saelens, sparsify, top

from convert import (
    config_keys,
    layer_of,
    load_sae,
)
from convert.fields import Fields
from jaxsae.errors import InputError, InputNote

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
    known = (
        {word for of in config_keys.APPLIED_KEYS.values() for word in of}
        | set(config_keys.IGNORED_KEYS)
        | set(config_keys.MUST_BE_OFF)
    )
    assert all(config_keys.IGNORED_KEYS.values())  # a reason for each
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


FOLDERS = {"saelens": saelens, "dictionary_learning": dictionary, "sparsify": sparsify}
