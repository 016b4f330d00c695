"""Settings: a recipe's name is the recipe, and what would not be read is refused."""

import dataclasses

import pytest

from jaxsae.config import ARCHITECTURES, RECIPES, SAEConfig, TrainConfig
from jaxsae.errors import InputError


def test_the_default_is_the_guides_recipe():
    config = TrainConfig()
    assert (config.recipe, config.architecture) == ("guide", "relu")
    assert (config.epochs, config.patience, config.batch_size, config.lr) == (50, 5, 256, 1e-4)
    assert (config.penalty, config.decay, config.expansion) == (1e-3, None, 4)
    assert config.sae(10) == SAEConfig(10, 40, 1e-3)


def test_the_modern_recipe_is_its_name():
    config = TrainConfig(recipe="modern")
    assert (config.epochs, config.lr, config.decay, config.patience) == (10, 8e-3, 1 / 3, None)
    assert TrainConfig(recipe="modern", lr=1e-3).lr == 1e-3


def test_the_reading_recipe_is_wide_and_sparse_unless_told_otherwise():
    config = TrainConfig(recipe="reading")
    assert (config.architecture, config.target_l0) == ("topk", 16)
    assert {**config.settings(), "recipe": ""} == {
        **TrainConfig(recipe="modern", architecture="topk", target_l0=16).settings(),
        "recipe": "",
        "expansion": None,
    }
    # about as many latents whatever the model's width
    widths = {16: 512, 64: 2048, 128: 2048, 384: 1920, 768: 2304, 4096: 8192}
    assert {d_in: config.sae(d_in).d_sae for d_in in widths} == widths
    topk = TrainConfig(recipe="reading", k_sparse=8, expansion=4)
    assert (topk.architecture, topk.target_l0, topk.expansion) == ("topk", None, 4)
    assert TrainConfig(recipe="reading", architecture="relu", l1_coef=1e-3).target_l0 is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_chooses_a_recipe_that_trains_it(architecture):
    rules = ARCHITECTURES[architecture]
    config = TrainConfig(architecture=architecture, **({} if architecture == "relu" else {"target_l0": 3}))
    assert config.recipe == rules.recipes[0]
    assert {name for name in RECIPES[config.recipe] if getattr(config, name) is None} == set()


def test_a_k_means_a_topk():
    assert TrainConfig(k_sparse=3).architecture == "topk"
    assert TrainConfig(k_sparse=3).sae(10) == TrainConfig(architecture="topk", k_sparse=3).sae(10)
    assert TrainConfig(architecture="topk", target_l0=3).sae(10).k == 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"recipe": "modern", "patience": 3}, "patience is not read by recipe modern; leave it out"),
        ({"decay": 0.5}, "decay is not read by recipe guide; leave it out"),
        ({"k_sparse": 3, "l1_coef": 1.0}, "l1_coef goes with architecture relu, got topk; leave it out"),
        (
            {"architecture": "batchtopk", "target_l0": 3, "k_sparse": 3},
            "k_sparse goes with architecture topk, got batch",
        ),
        ({"architecture": "jumprelu", "target_l0": 3, "recipe": "guide"}, "needs recipe modern or reading, got guide"),
        ({"architecture": "jumprelu"}, "architecture jumprelu needs target_l0, got "),
        ({"architecture": "topk"}, "architecture topk needs k_sparse or target_l0, got "),
        ({"l1_coef": 1.0, "target_l0": 3}, "give either l1_coef or target_l0, got both: the target determines the pen"),
        ({"architecture": "gated"}, "architecture must be one of relu, topk, batchtopk, jumprelu, matryoshka, got 'ga"),
        ({"recipe": "old"}, "recipe must be one of guide, modern, reading, got 'old'"),
    ],
)
def test_what_would_not_be_read_is_refused(settings, says):
    with pytest.raises(InputError, match=says):
        TrainConfig(**settings)


def test_a_config_can_be_changed_in_part():
    """What a recipe filled in does not stand in the way of a change."""
    modern = dataclasses.replace(TrainConfig(recipe="modern"), target_l0=5)
    assert (modern.target_l0, modern.penalty) == (5, None)
    topk = dataclasses.replace(TrainConfig(), architecture="topk", k_sparse=4)
    assert topk.sae(10).k == 4


def test_settings_that_mean_the_same_are_the_same():
    assert TrainConfig(l1_coef=1e-3).settings() == TrainConfig().settings()
    assert TrainConfig(k_sparse=3).settings() == TrainConfig(architecture="topk", k_sparse=3).settings()
