import dataclasses
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from conftest import TINY, checkpoint_content, tiny_tensors

from convert import load_restoration_model, load_sae, pt, read_checkpoint, restoration, save_sae, table
from convert.sae_files import TENSORS
from jaxsae.config import SAEConfig
from jaxsae.errors import InputError
from jaxsae.models import folder as folders
from jaxsae.models.restoration import params_of
from jaxsae.sae.autoencoder import SAE

# --- the name table


def test_the_table_covers_the_model_exactly():
    assert len({e.torch_name for e in table.TABLE}) == len({e.path for e in table.TABLE}) == len(table.TABLE)
    expected = {name: tuple(tensor.shape) for name, tensor in tiny_tensors().items()}
    assert table.torch_shapes(TINY) == expected


def test_there_and_back_is_bitwise():
    tensors = {name: t.numpy() for name, t in tiny_tensors().items()}
    back = table.to_torch(table.to_flax(tensors, TINY, "x"), TINY)
    assert list(back) == list(table.torch_shapes(TINY))
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)


def test_one_error_names_every_difference():
    tensors = {name: t.numpy() for name, t in tiny_tensors().items()}
    del tensors["layers.2.ln1.bias"]
    tensors["layers.9.ln1.bias"] = np.zeros(30)
    tensors["layers.0.ff.0.weight"] = tensors["layers.0.ff.0.weight"].T
    with pytest.raises(InputError) as error:
        table.to_flax(tensors, TINY, "m.pt")
    assert str(error.value) == (
        "m.pt: tensors must be those of its config, got 3 differences: missing layers.2.ln1.bias; "
        "unknown layers.9.ln1.bias; layers.0.ff.0.weight is [30, 37] instead of [37, 30]"
    )


# --- checkpoints


def saved(tmp_path, content, name="m.pt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def assert_weights(model, expected):
    got = table.to_torch({path: np.asarray(p) for path, p in params_of(model).items()}, TINY)
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
    restoration.to_folder(source, tmp_path / "folder")
    restoration.to_pt(tmp_path / "folder", tmp_path / "back.pt")
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
    restoration.to_folder(tiny_pt, tmp_path / "folder")
    with pytest.raises(InputError, match="must not exist yet"):
        restoration.to_folder(tiny_pt, tmp_path / "folder")
    (tmp_path / "old.pt").write_text("mine")
    with pytest.raises(InputError, match="must not exist yet"):
        restoration.to_pt(tmp_path / "folder", tmp_path / "old.pt")
    assert (tmp_path / "old.pt").read_text() == "mine"


def test_a_damaged_folder_is_refused(tmp_path, tiny_pt):
    restoration.to_folder(tiny_pt, tmp_path / "folder")
    config = (tmp_path / "folder" / "config.json").read_text()
    (tmp_path / "folder" / "config.json").write_text(config.replace('"d_ff": 37', '"d_ff": 38'))
    with pytest.raises(InputError, match="parameters must fit its config"):
        folders.load_model(tmp_path / "folder")
    (tmp_path / "folder" / "config.json").write_text(config.replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="format must be 1, got 2"):
        folders.load_model(tmp_path / "folder")
    with pytest.raises(InputError, match=r"without a config\.json"):
        folders.load_model(tmp_path)


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


# --- reading .pt files safely


class Evil:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class HookedTransformer:
    """Stands for the pickled object in a tl_model.pt."""


def test_nothing_in_a_file_is_run(tmp_path):
    target = tmp_path / "owned"
    with pytest.raises(InputError, match=r"must hold tensors and numbers only, got .*open.* \(nothing was run\)"):
        read_checkpoint(saved(tmp_path, {"model_state_dict": Evil(target)}))
    assert not target.exists()


def test_a_name_that_hides_from_the_listing_is_not_run_either(tmp_path):
    """The pickle's last strings are harmless; what it calls it takes from its memo."""
    target = tmp_path / "owned"

    def string(text: str) -> bytes:
        return b"\x8c" + bytes([len(text)]) + text.encode()

    hidden = b"\x80\x04" + string("os") + b"\x94" + string("mkdir") + b"\x94" + string(str(target)) + b"\x94"
    hidden += string("collections") + string("OrderedDict") + b"h\x00h\x01\x93h\x02\x85R."
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", hidden)
    with pytest.raises(InputError, match=r"must hold tensors and numbers only, got os\.mkdir \(nothing was run\)"):
        pt.read_pt(tmp_path / "m.pt", "another")
    assert not target.exists()
    pickle.loads(hidden)  # so it would have been
    assert target.is_dir()


def test_tl_model_is_refused_naming_the_file_to_give(tmp_path):
    path = saved(tmp_path, {"model": HookedTransformer(), "config": {}, "original_checkpoint": "x"}, "tl_model.pt")
    with pytest.raises(InputError, match=r"HookedTransformer.*; give the best_model\.pt of the restoration model"):
        read_checkpoint(path)
    path = saved(tmp_path, {"model": {}, "config": {}, "original_checkpoint": "x"}, "tl_model.pt")
    with pytest.raises(InputError, match=r"best_model\.pt"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (pickle.dumps({}), "a bare pickle"),
        (b"hello", "something else"),
        (b"PK\x03\x04" + bytes(99), "a truncated or damaged one"),
    ],
)
def test_other_files_are_refused(tmp_path, content, says):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_checkpoint(tmp_path / "m.pt")


def test_truncated_and_flipped_files_are_refused(tmp_path):
    whole = saved(tmp_path, checkpoint_content()).read_bytes()
    path = tmp_path / "spoilt.pt"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_checkpoint(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    path.write_bytes(flipped)
    torch.load(path, weights_only=True)  # alone, torch sees nothing wrong with it
    with pytest.raises(InputError, match="checksums must hold"):
        read_checkpoint(path)


def test_compressed_entries_are_refused(tmp_path):
    source = saved(tmp_path, checkpoint_content())
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(InputError, match="stored uncompressed"):
        read_checkpoint(tmp_path / "z.pt")


def test_absent_file_and_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="got no such file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"an SAE.s folder must have one of .*, got none of them"):
        load_sae(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_are_read_as_torch_reads_them(tmp_path, dtype):
    """Views, transposed and shared storages, parameters, scalars and empty ones."""
    base = torch.randn(3, 5).to(dtype)
    content = {
        "plain": base,
        "transposed": base.T,
        "part": base[1:, 2:4],
        "parameter": torch.nn.Parameter(base),
        "scalar": base[0, 0],
        "empty": base[:0],
        "numbers": [np.float64(0.5), np.float32(2), 3, "x", None, True],
    }
    path = saved(tmp_path, content)
    fields = pt.read_pt(path, "another")
    read = {name: fields.take(name) for name in content}
    for name in ("plain", "transposed", "part", "parameter", "scalar", "empty"):
        array = pt.floating(read[name], name)
        assert (array.dtype == ml_dtypes.bfloat16) == (dtype == torch.bfloat16)
        back = pt.to_tensor(array)
        assert back.dtype == dtype
        assert torch.equal(back, content[name])
        assert not array.flags.writeable
    assert read["numbers"] == content["numbers"]
    pt.forget([read["plain"]])
    assert torch.equal(pt.to_tensor(read["plain"]), base)


def test_a_tensor_must_lie_within_its_storage(tmp_path):
    """A file that declares more than it has, by size, by stride, by an expanded view, or by its storage."""
    for size, stride, offset in (((4, 5), (5, 1), 0), ((3, 5), (7, 1), 0), ((3, 5), (5, 1), 1), ((10**9,), (0,), 0)):
        with pytest.raises(InputError, match="must lie within its storage"):
            pt._tensor(np.zeros(15, np.float32), offset, size, stride)
    with pytest.raises(InputError, match="must lie within its storage"):
        pt._tensor(np.zeros(15, np.float32), -1, (1,), (1,))
    path = saved(tmp_path, {"x": torch.zeros(4), "y": torch.ones(4)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "more.pt", "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, data[:8] if entry.filename.endswith("data/0") else data)
    with pytest.raises(InputError, match="must have the length that is declared, got 8 bytes"):
        pt.read_pt(tmp_path / "more.pt", "another")


# --- SAE files


THRESHOLDED = {"d_in": 6, "d_sae": 10, "architecture": "batchtopk"}


def some_sae(d_in=6, d_sae=10, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,)]
    return SAE(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


def sae_content(**changes):
    tensors = {name: torch.from_numpy(np.array(a)) for name, a in zip(TENSORS, some_sae(), strict=False)}
    return {**tensors, "losses": [1.0, 0.5], "config": {"d_in": 6, "d_sae": 10, "l1_coef": 1e-3}} | changes


@pytest.mark.parametrize("k", [None, 3])
def test_sae_files_load_without_an_allow_list_and_come_back(tmp_path, k):
    path = tmp_path / "sae.pt"
    config = SAEConfig(6, 10, 0.0 if k else 1e-3, k, "topk" if k else "relu")
    save_sae(path, some_sae(), config, [np.float64(1.0), 0.5], {"layer": 8})
    plain = torch.load(path, weights_only=True)
    assert list(plain) == ["W_enc", "b_enc", "W_dec", "b_dec", "losses", "config"]
    for name, array in zip(TENSORS, some_sae(), strict=False):
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
    for ours, array in zip(read.sae[:4], some_sae()[:4], strict=True):
        np.testing.assert_array_equal(ours, array)


@pytest.mark.parametrize("threshold", [np.full(10, 0.3), np.linspace(0, 1, 10)], ids=["one", "many"])
def test_thresholds_come_back(tmp_path, threshold):
    path = tmp_path / "sae.pt"
    config = SAEConfig(6, 10, architecture="jumprelu", target_l0=4)
    sae = some_sae()._replace(threshold=threshold.astype(np.float32))
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


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "sae.pt"
    save_sae(path, some_sae(), SAEConfig(6, 10))
    before = path.read_bytes()

    def fail(content, to):
        to.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save_sae(path, some_sae(seed=1), SAEConfig(6, 10))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_originals_real_file(real):
    read = load_sae(real / "checkpoints" / "sae_layer8_optimized.pt")
    assert read.config == SAEConfig(384, 1536, 1e-3)
    assert len(read.losses) == 50
    np.testing.assert_allclose(np.linalg.norm(read.sae.W_dec, axis=1), 1, atol=1e-6)


def test_the_real_checkpoint_there_and_back(real, tmp_path):
    source = real / "checkpoints" / "restoration_16x384" / "best_model.pt"
    restoration.to_folder(source, tmp_path / "folder")
    restoration.to_pt(tmp_path / "folder", tmp_path / "back.pt")
    old, new = (torch.load(path, weights_only=True) for path in (source, tmp_path / "back.pt"))
    assert (new["config"], new["vocab_size"]) == (old["config"], old["vocab_size"])
    assert list(new["model_state_dict"]) == list(old["model_state_dict"])
    for name, tensor in old["model_state_dict"].items():
        assert torch.equal(new["model_state_dict"][name].view(torch.int32), tensor.view(torch.int32)), name
