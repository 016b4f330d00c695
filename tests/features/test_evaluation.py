"""`evaluate` and `inspect` as a notebook calls them."""

import jax
import numpy as np
import pytest
from conftest import TINY, tiny_splits

from convert import load_restoration_model
from jaxsae import LayerSAE, evaluate, evaluate_all, extract, inspect, score
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError
from jaxsae.features import splice
from jaxsae.sae.architectures import init
from jaxsae.text.samples import Samples


@pytest.fixture(scope="module")
def model(tiny_pt):
    return load_restoration_model(tiny_pt)


@pytest.fixture(scope="module")
def samples():
    columns = tiny_splits(seed=2)["test"]
    return Samples(columns["input_ids"], columns["labels"], columns["attention_mask"])


def random_sae(seed: int, d_in: int = TINY.d_model):
    return init(jax.random.key(seed), SAEConfig(d_in, 40, k=4, architecture="topk"))


def test_the_figures_are_those_of_the_score_and_of_splicing(model, samples):
    sae = random_sae(0)
    found = evaluate(model, samples, sae, 1)
    rows = extract(model, samples, [1]).values[1]
    expected = score(sae, rows)
    assert (found.layer, found.architecture, found.d_sae) == (1, "topk", 40)
    assert (found.score.l0, found.score.fvu) == (expected.l0, expected.fvu)
    effects = splice.effects(model, samples, 1, {"sae": lambda x: splice.reconstruct(sae, x)})
    assert found.restoration is not None
    assert (found.restoration.ce_clean, found.restoration.ce_sae) == (effects["clean"].ce, effects["sae"].ce)
    assert found.as_json()["fvu"] == expected.fvu
    assert found.as_json()["kl"] == effects["sae"].kl


def test_several_saes_come_back_in_their_order(model, samples):
    saes = [LayerSAE(2, random_sae(0)), LayerSAE(0, random_sae(1)), LayerSAE(2, random_sae(2))]
    found = evaluate_all(model, samples, saes)
    assert [one.layer for one in found] == [2, 0, 2]
    for one, (layer, sae) in zip(found, saes, strict=True):
        np.testing.assert_equal(one.as_json(), evaluate(model, samples, sae, layer).as_json())


def test_rows_without_a_model_give_what_they_can(model, samples):
    sae, rows = random_sae(0), extract(model, samples, [1]).values[1]
    found = evaluate(None, None, sae, 1, rows=rows)
    assert found.restoration is None
    assert "ce_sae" not in found.as_json()
    assert found.score.fvu == evaluate(model, samples, sae, 1).score.fvu


def test_what_does_not_fit_is_refused(model, samples):
    with pytest.raises(InputError, match=f"d_in of the SAE must be {TINY.d_model}"):
        evaluate(model, samples, random_sae(0, TINY.d_model + 1), 1)
    with pytest.raises(InputError, match="either rows, or a model and samples, must be given"):
        evaluate(None, samples, random_sae(0), 1)
    with pytest.raises(InputError, match=f"d_in of the SAE must be {TINY.d_model}"):
        inspect(model, samples, random_sae(0, TINY.d_model + 1), 1)
    with pytest.raises(InputError, match="pattern must have at most 40 characters, got 41"):
        inspect(model, samples, random_sae(0), 1, pattern=41 * "a")


def test_an_inspection_answers_one_question_at_a_time(model, samples):
    found = inspect(model, samples, random_sae(0), 1)
    [strongest] = found.strongest_latents(1)
    summary = found.feature(strongest)
    assert summary.fired == found.statistics.fired[strongest] > 0
    assert summary.nearest[0].feature == found.nearest[0][strongest, 0]
    assert found.on_text("abc")[1].character == "b"
    assert found.concept_scores == found.left_out == []
    [effect] = found.causal_effects([(strongest, 0.0)])
    both = effect.where_it_fires.positions + effect.elsewhere.positions
    assert both == samples.damaged.sum()
    [of_some] = found.causal_effects([(strongest, 0.0)], every=2)
    alone = inspect(model, samples[::2], random_sae(0), 1).causal_effects([(strongest, 0.0)])
    assert repr(of_some) == repr(alone[0])
    assert 0 < of_some.elsewhere.positions < effect.elsewhere.positions
    with pytest.raises(InputError, match=r"feature must be in 0\.\.39, got 40"):
        found.feature(40)
    with pytest.raises(InputError, match="pattern must be given to `inspect`"):
        found.pattern_detectors()
    with pytest.raises(InputError, match="text must have at least one character"):
        found.on_text("")
