import pytest

from jaxsae.models.hooks import hook_name, layer_of_hook


@pytest.mark.parametrize("layer", [0, 8, 15, 123])
def test_a_hooks_name_is_of_its_layer(layer):
    assert layer_of_hook(hook_name(layer)) == layer


def test_the_words_are_transformer_lenss():
    assert hook_name(8) == "blocks.8.hook_resid_post"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "8",
        "blocks.8.hook_resid_pre",
        "blocks.8.hook_resid_post.hook_sae",
        "blocks.-1.hook_resid_post",
        "blocks.٣.hook_resid_post",
    ],
)
def test_another_name_is_of_no_layer(name):
    assert layer_of_hook(name) is None
