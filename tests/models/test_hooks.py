import pytest

from jaxsae.errors import InputError
from jaxsae.models.hooks import HOOKS, file_stem, hook_name, hook_names, hook_of, hook_point, numbered, points_of


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("layer", [0, 8, 15, 123])
def test_a_hooks_name_is_of_its_layer_and_place(layer, hook):
    assert hook_point(hook_name(layer, hook)) == (layer, hook)


def test_the_words_are_transformer_lenss():
    assert hook_name(8) == "blocks.8.hook_resid_post"
    assert hook_name(0, "attn_out") == "blocks.0.hook_attn_out"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "8",
        "blocks.8.hook_resid_mid",
        "blocks.8.hook_resid_post.hook_sae",
        "blocks.-1.hook_resid_post",
        "blocks.٣.hook_resid_post",
    ],
)
def test_another_name_is_of_no_place(name):
    assert hook_point(name) is None


def test_names_say_where_a_model_is_read():
    assert hook_of({2: "blocks.2.hook_mlp_out", 5: "blocks.5.hook_mlp_out"}) == "mlp_out"
    assert hook_of(hook_names("attn_out", [1, 3])) == "attn_out"
    modules = {3: "encoder.mixer.3.proj"}
    assert hook_of(modules) == modules
    assert hook_names(modules, [3]) == modules
    with pytest.raises(InputError, match="one kind at a time, got attn_out and resid_post"):
        hook_of({2: "blocks.2.hook_attn_out", 5: "blocks.5.hook_resid_post"})


def test_files_of_the_usual_place_keep_their_name():
    assert file_stem(8, "resid_post") == "sae_layer8_optimized"
    assert file_stem(8, "attn_out") == "sae_layer8_attn_out_optimized"
    assert file_stem(3, {3: "encoder.mixer.3/x"}) == "sae_layer3_encoder.mixer.3_x_optimized"


def test_modules_are_numbered_by_their_names():
    assert numbered(["bert.encoder.layer.3", "bert.encoder.layer.11"]) == {
        3: "bert.encoder.layer.3", 11: "bert.encoder.layer.11",
    }  # fmt: skip
    assert numbered(["enc.0.norm", "dec.0.norm"]) == {0: "enc.0.norm", 1: "dec.0.norm"}
    assert numbered(["proj"]) == {0: "proj"}
    assert numbered(["blocks.2.mlp.0"]) == {2: "blocks.2.mlp.0"}
    assert list(numbered(["blocks.2.mlp.0", "blocks.4.mlp.0"])) == [2, 4]
    assert list(numbered(["blocks.2.mlp.0", "blocks.2.mlp.3"])) == [0, 3]
    assert list(numbered(["stage3.norm1", "stage3.norm2"])) == [1, 2]


def test_what_a_block_reads_is_what_the_one_before_gives():
    assert points_of([2, 8], "attn_out") == ([2, 8], "attn_out")
    assert points_of([8], "hidden_states") == ([7], "resid_post")
    assert points_of([4, 8, 16], "hidden_states") == ([3, 7, 15], "resid_post")
    assert points_of([0], "hidden_states") == ([0], "resid_pre")
    assert points_of([8], "resid_pre") == ([7], "resid_post")
    with pytest.raises(InputError, match="layer 0 of hidden_states, the embedding, must be asked for by itself"):
        points_of([0, 4], "hidden_states")
