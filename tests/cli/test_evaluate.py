"""evaluate.py: a table and JSON over several files, the layer from the file, its name or the flag."""

import json

import jax
import numpy as np
import pytest
import torch
from conftest import TINY, assert_one_line_error

from convert import load_restoration_model, load_sae, save_sae
from jaxsae import extract, load_samples, score
from jaxsae.config import SAEConfig
from jaxsae.sae.architectures import init

KEYS = [
    "sae",
    "l0",
    "fvu",
    "explained_variance",
    "cosine",
    "norm_ratio",
    "relative_reconstruction_bias",
    "dead",
    "rows",
    "ce_clean",
    "ce_sae",
    "ce_zero",
    "ce_mean",
    "ce_recovered_zero",
    "ce_recovered_mean",
    "kl",
    "top1_clean",
    "top1_sae",
    "top5_clean",
    "top5_sae",
    "positions",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An SAE of each kind, of random weights, that name their layer in three ways."""
    folder = tmp_path_factory.mktemp("saes")
    paths = [folder / name for name in ("sae_layer1_optimized.pt", "topk.pt", "unnamed.pt")]
    for seed, (path, k, extra) in enumerate(zip(paths, (None, 4, None), ({}, {"layer": 2}, {}), strict=True)):
        config = SAEConfig(TINY.d_model, 60, k=k, architecture="topk" if k else "relu")
        save_sae(path, init(jax.random.key(seed), config), config, extra=extra)
    return paths


def test_files_of_several_layers_in_one_table(script, files, tiny_pt, tiny_dataset, tmp_path):
    flags = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset, "--json", tmp_path / "out.json"]
    ran = script("evaluate", "--sae", files[1], files[0], *flags)
    assert ran.status == 0, ran
    assert "topk.pt" in ran.out
    reports = json.loads((tmp_path / "out.json").read_text())
    assert [(r["sae"], r["layer"]) for r in reports] == [(str(files[1]), 2), (str(files[0]), 1)]
    model, samples = load_restoration_model(tiny_pt), load_samples(tiny_dataset, "test")
    for report in reports:
        assert set(KEYS) <= report.keys()
        file, rows = load_sae(report["sae"]), extract(model, samples, [report["layer"]]).values[report["layer"]]
        expected = score(file.sae, rows)
        for key in ("l0", "fvu", "cosine", "norm_ratio", "dead", "rows"):
            np.testing.assert_allclose(report[key], getattr(expected, key), rtol=1e-6)
        assert sum(report["density_histogram"]) == round(60 * (1 - report["dead"]))
        ablated, clean, with_sae = report["ce_mean"], report["ce_clean"], report["ce_sae"]
        np.testing.assert_allclose(report["ce_recovered_mean"], (ablated - with_sae) / (ablated - clean))
        assert report["positions"] == (samples.labels != -100).sum()
    assert reports[0]["l0"] <= 4
    assert reports[0]["ce_clean"] == reports[1]["ce_clean"]


@pytest.mark.parametrize("padding", ["drop", "keep"])
def test_stored_rows_give_the_figures_of_their_text(script, files, tiny_pt, tiny_dataset, tmp_path, padding):
    store, model = tmp_path / "rows", ["--checkpoint", tiny_pt]
    made = [*model, "--dataset", tiny_dataset, "--split", "test", "--padding", padding]
    assert script("extract_activations", *made, "--layer", "1,2", "--output", store).status == 0

    def rated(*flags):
        ran = script("evaluate", "--sae", *files[:2], *flags, "--json", tmp_path / "out.json")
        assert ran.status == 0, ran
        return json.loads((tmp_path / "out.json").read_text()), ran.out

    of_rows, out = rated(*model, "--dataset", store)
    assert "12 samples of the test split" in out
    if padding == "drop":
        assert of_rows == rated(*model, "--dataset", tiny_dataset)[0]
    else:
        assert [r["rows"] for r in of_rows] == [12 * TINY.max_position] * 2
    assert rated(*model, "--dataset", store, "--max-samples", 2)[0][0]["positions"] < of_rows[0]["positions"]
    bare = store / "layer1.npy"
    ran = script("evaluate", "--sae", files[0], "--dataset", bare, "--json", tmp_path / "out.json")
    [report] = json.loads((tmp_path / "out.json").read_text())
    assert report == {key: of_rows[0][key] for key in report}
    assert "ce_sae" not in report
    assert "Rows alone do not tell what is restored" in ran.out
    ran = script("evaluate", "--sae", files[2], "--layer", 0, *model, "--dataset", store)
    assert_one_line_error(ran, "layer must be one of the stored 1, 2, got 0")
    ran = script("evaluate", "--sae", files[0], "--dataset", store)
    assert ran.status == 0
    assert "no --checkpoint given: what the rows tell alone" in ran.out


def test_the_layer(script, files, tiny_pt, tiny_dataset):
    inputs = ["--checkpoint", tiny_pt, "--dataset", tiny_dataset]
    assert_one_line_error(script("evaluate", "--sae", files[2], *inputs), "must say its layer", "give the layer")
    assert script("evaluate", "--sae", files[2], "--layer", 0, *inputs).status == 0
    ran = script("evaluate", "--sae", files[0], "--layer", 2, *inputs)
    assert_one_line_error(ran, "the one", "trained on, 1, got 2")
    assert_one_line_error(script("evaluate", "--sae", files[2], "--layer", 99, *inputs), "layer must be in 0..")


def test_an_sae_of_another_width_is_refused(script, tiny_pt, tiny_dataset, tmp_path):
    config = SAEConfig(TINY.d_model + 2, 60)
    save_sae(tmp_path / "sae_layer1.pt", init(jax.random.key(0), config), config)
    ran = script("evaluate", "--sae", tmp_path / "sae_layer1.pt", "--checkpoint", tiny_pt, "--dataset", tiny_dataset)
    assert_one_line_error(ran, f"d_in must be {TINY.d_model} (the model's d_model), got {TINY.d_model + 2}")


def test_the_originals_own_file_on_the_real_model(script, real, tmp_path):
    """Dense and faithful; in the model, next to nothing is lost."""
    checkpoint, dataset = real / "checkpoints/restoration_16x384/best_model.pt", real / "data/restoration_dataset"
    flags = ["--checkpoint", checkpoint, "--dataset", dataset, "--max-samples", 8, "--json", tmp_path / "out.json"]
    ran = script("evaluate", "--sae", real / "checkpoints/sae_layer8_optimized.pt", *flags)
    assert ran.status == 0, ran
    [report] = json.loads((tmp_path / "out.json").read_text())
    original = torch.load(real / "checkpoints/sae_layer8_optimized.pt", weights_only=False)
    rows = extract(load_restoration_model(checkpoint), load_samples(dataset, "test", 8), [8]).values[8]
    x = torch.from_numpy(np.array(rows)).double()
    w = {name: original[name].detach().double() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    latents = (x @ w["W_enc"] + w["b_enc"]).relu()
    x_hat = latents @ w["W_dec"] + w["b_dec"]
    np.testing.assert_allclose(report["l0"], float((latents > 0).sum(1).double().mean()), rtol=1e-4)
    np.testing.assert_allclose(report["fvu"], float(((x_hat - x) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()), rtol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(x, x_hat).mean()
    np.testing.assert_allclose(report["cosine"], float(cosine), rtol=1e-6)
    np.testing.assert_allclose(report["norm_ratio"], float((x_hat.norm(dim=1) / x.norm(dim=1)).mean()), rtol=1e-5)
    bias = (x_hat**2).sum() / (x * x_hat).sum()
    np.testing.assert_allclose(report["relative_reconstruction_bias"], float(bias), rtol=1e-5)
