"""SAEs in the formats of SAELens, dictionary_learning and sparsify, through their own code; `make test-rivals`.

Ours are opened by their loaders and give the same latents; theirs, trained for some steps and saved by themselves, are
opened by ours and pass through evaluate.py and inspect_sae.py. Their environment is their own, `.venv-rivals`.
"""

import dataclasses
import json

import pytest
from helpers import THRESHOLDED

sae_lens = pytest.importorskip("sae_lens", reason="needs the libraries compared with: make test-rivals")

import dictionary_learning.utils  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from conftest import ROOT  # noqa: E402
from dictionary_learning import trainers  # noqa: E402
from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, standard  # noqa: E402
from sae_lens.config import SAETrainerConfig  # noqa: E402
from sae_lens.evals import ExplainedVarianceCalculator  # noqa: E402
from sae_lens.training.sae_trainer import SAETrainer  # noqa: E402
from sparsify import SparseCoder, SparseCoderConfig  # noqa: E402

from convert import convert_sae, load_restoration_model, load_sae, save_sae  # noqa: E402
from jaxsae import TrainConfig, decode, encode, extract, load_samples, score, train_sae  # noqa: E402
from jaxsae.config import DEMO, SAEConfig  # noqa: E402
from jaxsae.sae.architectures import init  # noqa: E402

ROUNDING = 1e-6
ARCHITECTURES = ("relu", "topk", *THRESHOLDED)
LAYER = 8


@pytest.fixture(scope="module")
def rows():
    """The demo's layer 8."""
    model, samples = load_restoration_model(DEMO / "best_model.pt"), load_samples(DEMO / "dataset", "validation", 20)
    return np.array(extract(model, samples, [LAYER]).values[LAYER])


@pytest.fixture(scope="module")
def table(pytestconfig):
    """Largest differences, told at the end."""
    lines = []
    yield lambda *cells: lines.append(cells)
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n| format | SAE | direction | latents | reconstruction |")
        for what, kind, direction, latents, x_hat in lines:
            print(f"| {what} | {kind} | {direction} | {told(latents)} | {told(x_hat)} |")


def told(difference):
    return "bit for bit" if difference == 0 else f"{difference:.1e}"


@pytest.fixture(scope="module")
def ours(rows, tmp_path_factory):
    """(`random` or `trained`, architecture) -> `.pt`."""
    folder, d_in, made = tmp_path_factory.mktemp("ours"), rows.shape[1], {}
    rng = np.random.default_rng(0)
    for architecture in ARCHITECTURES:
        sparsity = {"relu": {"l1_coef": 3e-3}, "topk": {"k_sparse": 8}}.get(architecture, {"target_l0": 8})
        trained = train_sae(
            jnp.asarray(rows), TrainConfig(recipe="modern", architecture=architecture, epochs=2, **sparsity)
        )
        made["trained", architecture] = (trained.sae, trained.config)
        k = 8 if architecture == "topk" else None
        config = SAEConfig(d_in, 3 * d_in + 1, k=k, architecture=architecture)
        sae = init(jax.random.key(0), config)
        sae = sae.replace(
            b_dec=jnp.asarray(rows.mean(0)), b_enc=jnp.asarray(rng.normal(size=config.d_sae), jnp.float32)
        )
        if architecture in THRESHOLDED:
            limits = rng.uniform(0, 0.2, config.d_sae) if architecture == "jumprelu" else np.full(config.d_sae, 0.1)
            sae = sae.replace(threshold=jnp.asarray(limits, jnp.float32))
        made["random", architecture] = (sae, config)
    for (kind, architecture), (sae, config) in made.items():
        save_sae(folder / f"{kind}_{architecture}.pt", sae, config, extra={"layer": LAYER})
    return {name: folder / f"{'_'.join(name)}.pt" for name in made}


def opened(kind, folder):
    """By the library itself: rows -> (latents, reconstructions), torch to torch."""
    if kind == "saelens":
        sae = sae_lens.SAE.load_from_disk(folder)
        return lambda x: (f := sae.encode(x), sae.decode(f))
    if kind == "dictionary_learning":
        sae, _ = dictionary_learning.utils.load_dictionary(str(folder), device="cpu")
        return lambda x: (f := sae.encode(x), sae.decode(f))
    sae = SparseCoder.load_from_disk(folder)

    def run(x):
        values, indices, _ = sae.encode(x)
        return torch.zeros(len(x), sae.num_latents).scatter_(1, indices, values), sae.decode(values, indices)

    return run


def plain(path, x):
    """The formula of docs/formats.md on a `.pt`, in torch."""
    content = torch.load(path, weights_only=True)
    config, pre_acts = content["config"], x @ content["W_enc"] + content["b_enc"]
    latents = pre_acts.relu()
    if "k" in config:
        top = pre_acts.topk(config["k"], dim=1)
        latents = torch.zeros_like(pre_acts).scatter_(1, top.indices, top.values.relu())
    if "threshold" in config:
        latents = latents * (pre_acts > torch.as_tensor(config["threshold"], dtype=torch.float32))
    return latents, latents @ content["W_dec"] + content["b_dec"]


def difference(one, other):
    """The largest, in units of the largest number."""
    return np.abs(np.asarray(one) - np.asarray(other)).max() / np.abs(np.asarray(other)).max()


def of_latents(one, other):
    """`difference`; where rounding decides which of two latents fires, by how much these two differ."""
    one, other = np.asarray(one), np.asarray(other)
    alike = (one > 0) == (other > 0)
    assert (~alike).mean() < 1e-4
    return max(difference(np.where(alike, one, 0), np.where(alike, other, 0)), difference(np.sort(one), np.sort(other)))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["random", "trained"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("to", ["saelens", "dictionary_learning", "sparsify"])
def test_ours_open_there_with_the_same_features(ours, rows, table, tmp_path, to, architecture, kind):
    path, folder = ours[kind, architecture], tmp_path / "out"
    if to == "sparsify" and architecture in THRESHOLDED:
        with pytest.raises(ValueError, match=f"must be topk or relu, got {architecture}"):
            convert_sae(path, folder, to)
        assert not folder.exists()
        return
    convert_sae(path, folder, to)
    x = torch.from_numpy(rows)
    latents, x_hat = opened(to, folder)(x)
    expected, expected_x_hat = plain(path, x)
    assert (latents > 0).any()
    off = of_latents(latents, expected), difference(x_hat, expected_x_hat)
    table(to, f"{architecture}, {kind}", "to", *off)
    exact = to == "saelens" or (to == "dictionary_learning" and architecture != "topk")
    assert off == (0, 0) if exact else max(off) < ROUNDING
    file = load_sae(path)
    assert of_latents(encode(file.sae, jnp.asarray(rows)), latents) < ROUNDING
    # and back
    again = load_sae(folder)
    assert again.config == file.config
    assert again.extra["layer"] == LAYER
    back = encode(again.sae, jnp.asarray(rows))
    assert of_latents(back, encode(file.sae, jnp.asarray(rows))) < ROUNDING


def their_saelens(rows, folder, config):
    sae = sae_lens.TrainingSAE.from_dict(config.to_dict() | {"architecture": config.architecture()})
    steps, size = 60, 256

    def batches():
        rng = np.random.default_rng(0)
        while True:
            yield torch.from_numpy(rows[rng.integers(len(rows), size=size)])

    run = SAETrainerConfig(total_training_samples=steps * size, train_batch_size_samples=size, lr=3e-3, lr_end=3e-3)
    SAETrainer(run, sae, batches()).fit().save_inference_model(folder)


def their_dictionary(rows, folder, trainer):
    rng, scale = np.random.default_rng(0), float(np.sqrt((rows**2).sum(1).mean()))
    for step in range(60):
        trainer.update(step, torch.from_numpy(rows[rng.integers(len(rows), size=256)] / scale))
    if hasattr(trainer.ae, "scale_biases"):  # AutoEncoderNew has none: its rows stay scaled
        trainer.ae.scale_biases(scale)
    folder.mkdir()
    torch.save(trainer.ae.state_dict(), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": trainer.config, "buffer": None}, default=str))


def their_sparsify(rows, folder, config):
    sae, rng = SparseCoder(rows.shape[1], config), np.random.default_rng(0)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sae(torch.from_numpy(rows[rng.integers(len(rows), size=256)])).fvu.backward()
        optimizer.step()
        sae.set_decoder_norm_to_unit_norm()
    sae.save_to_disk(folder)


def made_there(kind, name, rows, folder):
    """Train what is called so, and save it as the library does."""
    torch.manual_seed(0)
    d_in, d_sae = rows.shape[1], 200
    if kind == "saelens":
        shape = {"d_in": d_in, "d_sae": d_sae, "normalize_activations": "expected_average_only_in"}
        shape["metadata"] = sae_lens.saes.sae.SAEMetadata(hook_name=f"blocks.{LAYER}.hook_resid_post")
        config = {
            "standard": lambda: sae_lens.StandardTrainingSAEConfig(**shape, l1_coefficient=0.1),
            "gated": lambda: sae_lens.GatedTrainingSAEConfig(**shape, l1_coefficient=0.1),
            "topk": lambda: sae_lens.TopKTrainingSAEConfig(**shape, k=8),
            "batchtopk": lambda: sae_lens.BatchTopKTrainingSAEConfig(**shape, k=8),
            "matryoshka": lambda: sae_lens.MatryoshkaBatchTopKTrainingSAEConfig(
                **shape, k=8, matryoshka_widths=[50, d_sae]
            ),
            "jumprelu": lambda: sae_lens.JumpReLUTrainingSAEConfig(**shape, l0_coefficient=0.1),
        }[name]()
        return their_saelens(rows, folder, config)
    if kind == "sparsify":
        return their_sparsify(rows, folder, SparseCoderConfig(k=8, num_latents=d_sae))
    common = {"steps": 60, "activation_dim": d_in, "dict_size": d_sae, "layer": LAYER, "lm_name": "", "device": "cpu"}
    ramp = {"warmup_steps": 5, "sparsity_warmup_steps": 5}
    trainer = {
        "AutoEncoder": lambda: standard.StandardTrainer(**common, lr=1e-3, l1_penalty=0.1, **ramp),
        "AutoEncoderNew": lambda: standard.StandardTrainerAprilUpdate(**common, lr=1e-3, l1_penalty=0.1, **ramp),
        "AutoEncoderTopK": lambda: trainers.top_k.TopKTrainer(**common, k=8, warmup_steps=5),
        "BatchTopKSAE": lambda: batch_top_k.BatchTopKTrainer(**common, k=8, warmup_steps=5, threshold_start_step=10),
        "MatryoshkaBatchTopKSAE": lambda: matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer(
            **common, k=8, group_fractions=[0.25, 0.75], warmup_steps=5, threshold_start_step=10
        ),
        "JumpReluAutoEncoder": lambda: trainers.jumprelu.JumpReluTrainer(**common, lr=1e-3, **ramp),
        "GatedAutoEncoder": lambda: trainers.gdm.GatedSAETrainer(**common, lr=1e-3, **ramp),
    }[name]()
    return their_dictionary(rows, folder, trainer)


def test_the_words_of_saelens_s_own_configs_are_known():
    """Those of its runner and of the kinds that are read: what a folder of its may have is not refused for its name."""
    from convert import config_keys

    known = (
        {word for of in config_keys.APPLIED_KEYS.values() for word in of}
        | set(config_keys.IGNORED_KEYS)
        | set(config_keys.MUST_BE_OFF)
    )
    known |= config_keys.IGNORED_KEYS_OF_LIBRARIES["saelens"] | {"metadata", "sae"}
    kinds = ("Standard", "TopK", "BatchTopK", "MatryoshkaBatchTopK", "JumpReLU", "Gated")
    configs = [getattr(sae_lens, f"{kind}TrainingSAEConfig") for kind in kinds]
    for config in (*configs, sae_lens.LanguageModelSAERunnerConfig):
        assert {field.name for field in dataclasses.fields(config)} <= known, config


THERE = [("saelens", name) for name in ("standard", "gated", "topk", "batchtopk", "matryoshka", "jumprelu")]
THERE += [
    ("dictionary_learning", name) for name in ("AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE")
]
THERE += [
    ("dictionary_learning", name) for name in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder", "GatedAutoEncoder")
]
THERE += [("sparsify", "topk")]


@pytest.fixture(scope="module")
def theirs(rows, tmp_path_factory):
    """(library, name) -> folder, each trained when first asked for."""
    folder, made = tmp_path_factory.mktemp("theirs"), {}

    def get(kind, name):
        if (kind, name) not in made:
            made[kind, name] = folder / f"{kind}_{name}"
            made_there(kind, name, rows, made[kind, name])
        return made[kind, name]

    return get


@pytest.mark.parametrize(("kind", "name"), THERE)
def test_theirs_open_here_with_the_same_features(theirs, rows, table, kind, name):
    folder = theirs(kind, name)
    with torch.no_grad():
        latents, x_hat = opened(kind, folder)(torch.from_numpy(rows))
    assert 0 < (latents > 0).float().mean() < 1
    file, x = load_sae(folder), jnp.asarray(rows)
    mine = encode(file.sae, x)
    off = of_latents(mine, latents), difference(decode(file.sae, mine), x_hat)
    table(kind, name, "from", *off)
    assert max(off) < ROUNDING
    if kind != "sparsify":  # which does not say
        assert file.extra["layer"] == LAYER


@pytest.mark.parametrize(("kind", "name"), [THERE[2], THERE[4], THERE[8], THERE[10], THERE[-1]])
def test_theirs_are_rated_and_inspected(theirs, script, tmp_path, kind, name):
    folder, report, page = theirs(kind, name), tmp_path / "out.json", tmp_path / "features.json"
    flags = ["--sae", folder, "--layer", LAYER]
    ran = script("evaluate", *flags, "--max-samples", 10, "--json", report)
    assert ran.status == 0, ran
    rows = extract(
        load_restoration_model(DEMO / "best_model.pt"), load_samples(DEMO / "dataset", "test", 10), [LAYER]
    ).values[LAYER]
    with torch.no_grad():
        latents, x_hat = opened(kind, folder)(torch.from_numpy(np.array(rows)))
    (rated,) = json.loads(report.read_text())
    counted = ExplainedVarianceCalculator()
    counted.add_batch(x_hat.double(), torch.from_numpy(np.array(rows)).double())
    assert rated["l0"] == pytest.approx((latents > 0).sum(1).float().mean().item(), rel=1e-4)
    assert rated["explained_variance"] == pytest.approx(counted.compute(), abs=1e-6)
    ran = script("inspect_sae", *flags, "--num-samples", 10, "--split", "test", "--json", page)
    assert ran.status == 0, ran
    rates = (latents > 0).double().mean(0).numpy()
    np.testing.assert_allclose(json.loads(page.read_text())["features"]["firing_rate"], rates, atol=2 / len(rows))


def test_our_topk_is_rated_by_saelens(ours, rows, tmp_path):
    path = ours["trained", "topk"]
    convert_sae(path, tmp_path / "sae", "saelens")
    x, counted = torch.from_numpy(rows), ExplainedVarianceCalculator()
    with torch.no_grad():
        latents, x_hat = opened("saelens", tmp_path / "sae")(x)
    counted.add_batch(x_hat.double(), x.double())
    file = load_sae(path)
    mine = score(file.sae, jnp.asarray(rows))
    assert mine.l0 == pytest.approx((latents > 0).sum(1).float().mean().item(), rel=1e-6)
    assert mine.explained_variance == pytest.approx(counted.compute(), abs=1e-6)


def test_the_commands_find_the_project_they_belong_to():
    import jaxsae

    assert ROOT in type(ROOT)(jaxsae.__file__).parents
