"""SAE files as the original writes them."""

import resource

import numpy as np
import pytest
import torch
from helpers import saved

from convert import load_sae, save_sae
from convert.sae_files import TENSORS
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError
from jaxsae.sae.autoencoder import SAE

THRESHOLDED = {"d_in": 6, "d_sae": 10, "architecture": "batchtopk"}


def some_sae(d_in=6, d_sae=10, seed=0, **more):
    rng = np.random.default_rng(seed)
    shapes = [(d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)]
    return SAE(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes), **more)


def arrays(sae):
    return [getattr(sae, name) for name in TENSORS]


def sae_content(**changes):
    tensors = {name: torch.from_numpy(np.array(a)) for name, a in zip(TENSORS, arrays(some_sae()), strict=True)}
    return {**tensors, "losses": [1.0, 0.5], "config": {"d_in": 6, "d_sae": 10, "l1_coef": 1e-3}} | changes


@pytest.mark.parametrize("k", [None, 3])
def test_sae_files_load_without_an_allow_list_and_come_back(tmp_path, k):
    path = tmp_path / "sae.pt"
    config = SAEConfig(6, 10, 0.0 if k else 1e-3, k, "topk" if k else "relu")
    sae = some_sae(architecture=config.architecture, k=k)
    save_sae(path, sae, config, [np.float64(1.0), 0.5], {"layer": 8})
    plain = torch.load(path, weights_only=True)
    assert list(plain) == ["W_enc", "b_enc", "W_dec", "b_dec", "losses", "config"]
    for name, array in zip(TENSORS, arrays(some_sae()), strict=True):
        assert type(plain[name]) is torch.Tensor
        assert plain[name].is_contiguous()
        np.testing.assert_array_equal(plain[name].numpy(), array)
    assert plain["losses"] == [1.0, 0.5]
    assert {type(loss) for loss in plain["losses"]} == {float}
    expected = {
        "d_in": 6,
        "d_sae": 10,
        "l1_coef": 0.0 if k else 1e-3,
        "architecture": "topk" if k else "relu",
        "layer": 8,
    }
    assert plain["config"] == expected | ({"k": 3} if k else {})
    read = load_sae(path)
    assert (read.config, read.losses, read.extra) == (config, [1.0, 0.5], {"layer": 8})
    for ours, array in zip(arrays(read.sae), arrays(some_sae()), strict=True):
        np.testing.assert_array_equal(ours, array)


@pytest.mark.parametrize("threshold", [np.full(10, 0.3), np.linspace(0, 1, 10)], ids=["one", "many"])
def test_thresholds_come_back(tmp_path, threshold):
    path = tmp_path / "sae.pt"
    config = SAEConfig(6, 10, architecture="jumprelu", target_l0=4)
    sae = some_sae(architecture="jumprelu", threshold=threshold.astype(np.float32))
    save_sae(path, sae, config)
    written = torch.load(path, weights_only=True)["config"]["threshold"]
    assert isinstance(written, float) == (len(set(threshold)) == 1)
    read = load_sae(path)
    assert read.config == config
    np.testing.assert_array_equal(read.sae.threshold, sae.threshold)


def test_the_originals_variants_are_read(tmp_path):
    parameters = {name: torch.nn.Parameter(sae_content()[name]) for name in TENSORS}
    losses = [np.float64(2.5), np.float64(0.5)]
    read = load_sae(saved(tmp_path, sae_content(**parameters, losses=losses)))
    assert (read.losses, read.config) == ([2.5, 0.5], SAEConfig(6, 10, 1e-3))
    older = sae_content(training_losses=[np.float32(1.0)], config={"d_in": 6, "d_sae": 10, "l1_coefficient": 3e-3})
    del older["losses"]
    read = load_sae(saved(tmp_path, older))
    assert (read.losses, read.config.l1_coef) == ([1.0], 3e-3)
    best = sae_content(epoch=4, loss=np.float64(0.1))
    del best["losses"]
    assert load_sae(saved(tmp_path, best)).losses == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"W_enc": torch.zeros(10, 6)}, r"W_enc \[6, 10\].*got W_enc \[10, 6\]"),
        ({"config": {"d_in": 6}}, "must have whole d_in and d_sae, got 6 and None"),
        ({"config": {"d_in": 6, "d_sae": 10, "k": 11}}, r"k must be in 1\.\.10"),
        ({"config": {"d_in": 6, "d_sae": 10, "architecture": "jumprelu"}}, "got architecture 'jumprelu'"),
        (
            {"config": {"d_in": 6, "d_sae": 10, "threshold": 0.1, "architecture": "relu"}},
            "must describe relu, topk with k, or batchtopk, jumprelu, matryoshka with threshold",
        ),
        ({"config": THRESHOLDED | {"threshold": [0.1] * 9}}, r"a number of at least 0, or 10 \(d_sae\) of them"),
        ({"config": THRESHOLDED | {"threshold": -0.1}}, "config.threshold must be a number of at least 0"),
        ({"config": THRESHOLDED | {"k": 3, "threshold": 0.1}}, "got architecture 'batchtopk', k, threshold"),
        ({"b_dec": torch.tensor([float("nan")] * 6)}, "b_dec must be finite"),
        ({"config": 3}, "config must be a dict"),
    ],
)
def test_wrong_sae_files_are_refused(tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        load_sae(saved(tmp_path, sae_content(**changes)))


def test_a_model_is_not_an_sae(tiny_pt):
    with pytest.raises(InputError, match=r"got none of W_enc, b_enc, W_dec, b_dec; give an sae_layer"):
        load_sae(tiny_pt)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "sae.pt"
    save_sae(path, some_sae(), SAEConfig(6, 10))
    before = path.read_bytes()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_sae(path, some_sae(seed=1), SAEConfig(6, 10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_originals_real_file(real):
    read = load_sae(real / "checkpoints" / "sae_layer8_optimized.pt")
    assert read.config == SAEConfig(384, 1536, 1e-3)
    assert len(read.losses) == 50
    np.testing.assert_allclose(np.linalg.norm(read.sae.W_dec, axis=1), 1, atol=1e-6)
