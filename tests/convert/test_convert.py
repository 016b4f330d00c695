"""Models from `.pt` to folders and back, bit for bit; what is no such model is refused."""

import dataclasses
import zipfile

import numpy as np
import pytest
import torch
from conftest import TINY, checkpoint_content, tiny_tensors
from helpers import saved

from convert import checkpoints, families, load_restoration_model, read_checkpoint, restoration
from jaxsae.errors import InputError
from jaxsae.models.transformer import params_of


def test_the_table_covers_the_model_exactly():
    assert (
        len({e.torch_name for e in restoration.TABLE})
        == len({e.path for e in restoration.TABLE})
        == len(restoration.TABLE)
    )
    expected = {name: tuple(tensor.shape) for name, tensor in tiny_tensors().items()}
    assert families.torch_shapes(TINY) == expected


def test_there_and_back_is_bitwise():
    tensors = {name: t.numpy() for name, t in tiny_tensors().items()}
    back = families.to_torch(families.to_flax(tensors, TINY, "x"), TINY)
    assert list(back) == list(families.torch_shapes(TINY))
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)


def test_one_error_names_every_difference():
    tensors = {name: t.numpy() for name, t in tiny_tensors().items()}
    del tensors["layers.2.ln1.bias"]
    tensors["layers.9.ln1.bias"] = np.zeros(30)
    tensors["layers.0.ff.0.weight"] = tensors["layers.0.ff.0.weight"].T
    with pytest.raises(InputError) as error:
        families.to_flax(tensors, TINY, "m.pt")
    assert str(error.value) == (
        "m.pt: tensors must be those of its config, got 3 differences: missing layers.2.ln1.bias; "
        "unknown layers.9.ln1.bias; layers.0.ff.0.weight is [30, 37] instead of [37, 30] (transposed?)"
    )


def assert_weights(model, expected):
    got = families.to_torch({path: np.asarray(p) for path, p in params_of(model).items()}, TINY)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(got[name], tensor.float().numpy(), err_msg=name)


def test_weights_arrive_bit_for_bit(tiny_pt):
    assert_weights(load_restoration_model(tiny_pt), tiny_tensors())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_are_computed_with_in_float32(tmp_path, dtype):
    content = checkpoint_content()
    content["model_state_dict"] = {name: t.to(dtype) for name, t in content["model_state_dict"].items()}
    assert_weights(load_restoration_model(saved(tmp_path, content)), content["model_state_dict"])


def test_parameters_and_required_gradients_are_read(tmp_path):
    content = checkpoint_content()
    state = content["model_state_dict"]
    state["head.bias"] = torch.nn.Parameter(state["head.bias"])
    state["head.weight"] = state["head.weight"].requires_grad_()
    state["embed.weight"] = state["embed.weight"].T.contiguous().T  # strided
    content |= {"optimizer_state_dict": {"state": {}}, "epoch": 3}  # other keys are ignored
    assert_weights(load_restoration_model(saved(tmp_path, content)), tiny_tensors())


def test_last_model_without_vocab_size_and_config_defaults(tmp_path):
    content = checkpoint_content()
    del content["vocab_size"]
    assert_weights(load_restoration_model(saved(tmp_path, content)), tiny_tensors())
    config = dataclasses.replace(TINY, dropout=0.1, rotary_base=10000)
    content["config"] = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("dropout", "rotary_base")}
    assert load_restoration_model(saved(tmp_path, content)).config == config


def test_tensors_tagged_with_another_device_are_read(tmp_path):
    """A file written on a GPU says cuda:0 for every storage."""
    source, target = saved(tmp_path, checkpoint_content()), tmp_path / "cuda.pt"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert data.count(b"X\x03\x00\x00\x00cpu") == 1  # memoised: named once
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            new.writestr(entry, data)
    assert_weights(load_restoration_model(target), tiny_tensors())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pt_to_folder_to_pt_is_bit_identical(tmp_path, dtype):
    content = checkpoint_content()
    content["model_state_dict"] = {name: t.to(dtype) for name, t in content["model_state_dict"].items()}
    source = saved(tmp_path, content)
    checkpoints.to_folder(source, tmp_path / "folder")
    checkpoints.to_pt(tmp_path / "folder", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert {k: v for k, v in back.items() if k != "model_state_dict"} == {
        k: content[k] for k in ("config", "vocab_size")
    }
    assert list(back["model_state_dict"]) == list(content["model_state_dict"])
    for name, tensor in content["model_state_dict"].items():
        got = back["model_state_dict"][name]
        assert got.dtype == dtype
        assert torch.equal(got.view(torch.uint8), tensor.contiguous().view(torch.uint8)), name
    assert_weights(load_restoration_model(tmp_path / "folder"), content["model_state_dict"])
    assert read_checkpoint(tmp_path / "folder").sha256 == read_checkpoint(source).sha256


def test_existing_outputs_are_left_alone(tmp_path, tiny_pt):
    checkpoints.to_folder(tiny_pt, tmp_path / "folder")
    with pytest.raises(InputError, match="must not exist yet"):
        checkpoints.to_folder(tiny_pt, tmp_path / "folder")
    (tmp_path / "old.pt").write_text("mine")
    with pytest.raises(InputError, match="must not exist yet"):
        checkpoints.to_pt(tmp_path / "folder", tmp_path / "old.pt")
    assert (tmp_path / "old.pt").read_text() == "mine"


def test_a_damaged_folder_is_refused(tmp_path, tiny_pt):
    checkpoints.to_folder(tiny_pt, tmp_path / "folder")
    config = (tmp_path / "folder" / "config.json").read_text()
    (tmp_path / "folder" / "config.json").write_text(config.replace('"d_ff": 37', '"d_ff": 38'))
    with pytest.raises(InputError, match="parameters must fit its config"):
        read_checkpoint(tmp_path / "folder")
    (tmp_path / "folder" / "config.json").write_text(config.replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="format must be 1, got 2"):
        read_checkpoint(tmp_path / "folder")
    with pytest.raises(InputError, match=r"without its config\.json"):
        read_checkpoint(tmp_path)


def change(**changes):
    def apply(content):
        for key, value in changes.items():
            if value is None:
                del content[key]
            else:
                content[key] = value

    return apply


def change_tensor(name, edit):
    def apply(content):
        content["model_state_dict"][name] = edit(content["model_state_dict"][name])

    return apply


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            change(model_state_dict=None),
            r"must have model_state_dict and config, got config, vocab_size; give the best_model\.pt",
        ),
        (change(config=None), "must have model_state_dict and config"),
        (change(vocab_size=7), "vocab_size must be config's 8000, got 7"),
        (lambda c: c["config"].update(n_kv_heads=2), "fields this replica does not know: n_kv_heads"),
        (lambda c: c["config"].pop("vocab_size"), "config must have vocab_size"),
        (lambda c: c["config"].update(n_layers=5), "missing layers.4.ln1.weight"),
        (change_tensor("head.bias", lambda t: t.int()), "head.bias must hold dense floating-point numbers"),
        (change_tensor("head.bias", lambda t: t / 0), "head.bias must be finite"),
        (change_tensor("head.bias", lambda t: t.tolist()), "head.bias must be a tensor, got list"),
    ],
)
def test_wrong_checkpoints_are_refused(tmp_path, edit, says):
    content = checkpoint_content()
    edit(content)
    with pytest.raises(InputError, match=says):
        read_checkpoint(saved(tmp_path, content))


def test_the_real_checkpoint_there_and_back(real, tmp_path):
    source = real / "checkpoints" / "restoration_16x384" / "best_model.pt"
    checkpoints.to_folder(source, tmp_path / "folder")
    checkpoints.to_pt(tmp_path / "folder", tmp_path / "back.pt")
    old, new = (torch.load(path, weights_only=True) for path in (source, tmp_path / "back.pt"))
    assert (new["config"], new["vocab_size"]) == (old["config"], old["vocab_size"])
    assert list(new["model_state_dict"]) == list(old["model_state_dict"])
    for name, tensor in old["model_state_dict"].items():
        assert torch.equal(new["model_state_dict"][name].view(torch.int32), tensor.view(torch.int32)), name
