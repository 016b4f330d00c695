"""Any PyTorch module by hooks: what is read is what one's own hook sees, what is put there PyTorch goes on with."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hooked_modules import CAUSAL, MASKED, RESTORATION, TEXTS, write
from torch import nn

from convert import load_restoration_model, modules, read_checkpoint
from jaxsae.activations.extraction import extract
from jaxsae.config import TrainConfig
from jaxsae.errors import InputError
from jaxsae.explain.readout import Readout
from jaxsae.features import splice
from jaxsae.models.protocol import ModelOfOnePass, ResidualModel, StoredModel
from jaxsae.sae.architectures import encode
from jaxsae.text.samples import Samples
from jaxsae.train.loop import train_sae


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    write(path, CAUSAL, "causal.py")
    write(path, MASKED, "masked.py")
    write(path, "\n".join(TEXTS), "texts.txt")
    return path


@pytest.fixture(scope="module")
def causal(folder):
    return read_checkpoint(f"{folder}/causal.py:load")


@pytest.fixture(scope="module")
def masked(folder):
    return read_checkpoint(f"{folder}/masked.py:load")


def samples_of(checkpoint, folder):
    with pytest.warns(UserWarning, match="every 10th text is the test split"):
        return checkpoint.config.datasets.load_several([folder / "texts.txt"], "train", 12)


def seen_by_hand(module, name, ids, mask=None):
    """What a forward hook on a module sees, of each text by itself, without its padding."""
    found = []

    def see(_, __, output):
        found.append((output[0] if isinstance(output, tuple) else output)[0].numpy())

    handle = module.get_submodule(name).register_forward_hook(see)
    with torch.no_grad():
        for row, real in zip(ids, mask, strict=True):
            module(torch.from_numpy(row[real != 0][None]).long())
    handle.remove()
    return found


def test_it_is_a_model_and_a_stored_one(causal):
    assert isinstance(causal, StoredModel)
    model = causal.model()
    assert isinstance(model, ResidualModel)
    assert isinstance(model, ModelOfOnePass)
    assert (model.n_layers, model.d_model, model.max_position, model.tokenizer.vocab_size) == (3, 18, 24, 40)
    assert causal.about == "Model: 3 blocks, blocks; predicts the next token"


def test_rows_are_what_a_hook_sees(causal, masked, folder):
    """Bit for bit where the pass is the same; where padding is masked instead of cut off, up to rounding."""
    for checkpoint, name in ((causal, "blocks.1"), (masked, "encoder.layers.1")):
        samples = samples_of(checkpoint, folder)
        one = samples[3:4]
        length = int(one.lengths[0])
        model = checkpoint.model()
        ours = np.asarray(model.activations(one.ids[:, :length], None, layer=1))[0]
        theirs = seen_by_hand(checkpoint.module, name, samples.ids, samples.mask)
        np.testing.assert_array_equal(ours, theirs[3])
        rows = extract(model, samples, [1, 2])
        text = np.concatenate([x[samples.real[i][: len(x)]] for i, x in enumerate(theirs)])
        np.testing.assert_allclose(rows.values[1], text, atol=2e-6)
        assert len(rows.sample) == samples.real.sum()


def test_the_pass_ends_at_the_last_layer_needed(causal):
    model, ran = causal.model(), []
    handles = [m.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, m in enumerate(causal.module.blocks)]
    model.activations_of(np.ones((1, 4), int), layers=[0, 1])
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


def in_place(content):
    """The same blocks, which add to the stream in place."""
    return content.replace("x = x + self.proj", "x += self.proj").replace(
        "return x + self.mlp(self.norm2(x)),", "x += self.mlp(self.norm2(x))\n        return x,"
    )


def test_what_is_added_in_place_comes_later(causal, tmp_path):
    """Layers of one pass are what each is alone; parts are found, and gradients go through."""
    checkpoint = read_checkpoint(f"{write(tmp_path, in_place(CAUSAL))}:load")
    model, ids = checkpoint.model(), np.arange(12).reshape(2, 6)
    found = model.activations_of(ids, layers=[0, 1, 2])
    for layer in range(3):
        np.testing.assert_array_equal(found[layer], model.activations(ids, layer=layer))
        np.testing.assert_array_equal(found[layer], causal.model().activations(ids, layer=layer))
    pre = checkpoint.model(hook="resid_pre").activations(ids, layer=1)
    np.testing.assert_array_equal(pre, found[0])
    seen, again = (one.runner.probe(ids)[0] for one in (checkpoint, causal))
    for part in ("given", "gave"):
        np.testing.assert_array_equal(getattr(seen["blocks.1"], part), getattr(again["blocks.1"], part))
    places = np.array([3, 8])
    x, whole = found[1], model.logits(ids, places=places)
    np.testing.assert_array_equal(model.logits(ids, places=places, layer=1, x=x), whole)
    ours, theirs = (
        jax.grad(lambda x, one=one: (one.logits(ids, places=places, layer=1, x=x) ** 2).sum())(x)
        for one in (model, causal.model())
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_module_without_a_gradient_is_said(tmp_path):
    content = CAUSAL.replace("return self.out(self.norm(self.others[0](x)))", "return self.out(x.detach())")
    model, ids = read_checkpoint(f"{write(tmp_path, content)}:load").model(), np.arange(6)[None]
    x = model.activations(ids, layer=0)
    with pytest.raises(InputError, match=r"logits must have a gradient by blocks\.0, got element 0"):
        jax.grad(lambda x: model.logits(ids, places=np.array([1]), layer=0, x=x).sum())(x)


def test_modules_by_name_and_their_inputs(causal):
    ids = np.arange(12).reshape(2, 6)
    resid_post, resid_pre = causal.model(), causal.model(hook="resid_pre")
    np.testing.assert_array_equal(resid_pre.activations(ids, layer=2), resid_post.activations(ids, layer=1))
    embedded = causal.module.tokens.weight[ids] + causal.module.positions.weight[:6]
    np.testing.assert_array_equal(resid_pre.activations(ids, layer=0), embedded)
    named = causal.model(hook={1: "blocks.1.mlp.1", 2: "blocks.2.mlp.1"})
    assert named.d_model == 36
    assert named.activations(ids, layer=2).shape == (2, 6, 36)
    texts = Samples(ids.astype(np.int32), np.full(ids.shape, -100, np.int32), np.ones(ids.shape, np.int8))
    rows = extract(named, texts, [2]).values[2]
    np.testing.assert_array_equal(rows.reshape(2, 6, 36), named.activations(ids, layer=2))
    with pytest.raises(InputError, match=r"layer must be one of 1, 2 \(the modules\), got 0"):
        named.activations(ids, layer=0)
    same = causal.model(hook={1: "blocks.1", 2: "blocks.2.hook_resid_post"})
    for layer in (1, 2):
        np.testing.assert_array_equal(same.activations(ids, layer=layer), resid_post.activations(ids, layer=layer))


@pytest.mark.parametrize("how", ["load", "norm_first"])
def test_what_parts_add_is_what_the_blocks_sum(folder, how):
    """Norms before the parts, or behind the sums: the stream after a block is made of what was read."""
    checkpoint = read_checkpoint(f"{folder}/masked.py:{how}")
    ids = np.random.default_rng(0).integers(2, 30, (2, 7))
    pre, attn, mlp, post = (
        torch.from_numpy(np.array(checkpoint.model(hook=hook).activations(ids, layer=1)))
        for hook in ("resid_pre", "attn_out", "mlp_out", "resid_post")
    )
    block = checkpoint.module.encoder.layers[1]
    total = pre + attn + mlp if how == "norm_first" else block.norm2(block.norm1(pre + attn) + mlp)
    torch.testing.assert_close(total, post, atol=1e-5, rtol=1e-5)


def test_parts_that_are_not_found_are_refused(causal):
    with pytest.raises(
        InputError, match=r"attn_out must be what a part of blocks\.0 adds .* norm1, norm2, qkv, proj, mlp"
    ):
        causal.model(hook="attn_out")


def test_padding_changes_nothing(folder, masked):
    """With a mask, and without one where the module would attend to padding: then texts of one length run together."""
    ids = np.random.default_rng(0).integers(2, 30, (3, 9))
    mask = (np.arange(9) < np.array([9, 5, 5])[:, None]).astype(np.int8)
    for checkpoint in (masked, read_checkpoint(f"{folder}/masked.py:unmasked")):
        model = checkpoint.model()
        x = model.activations(ids, mask, layer=1)
        alone = model.activations(ids[1:2, :5], None, layer=1)
        np.testing.assert_allclose(x[1, :5], alone[0], atol=2e-6)
        places = np.array([3, 12, 22])
        logits = model.logits(ids, mask, places=places)
        np.testing.assert_allclose(logits[1], model.logits(ids[1:2, :5], places=np.array([3]))[0], atol=2e-6)
        np.testing.assert_array_equal(model.logits(ids, mask, places=places, layer=1, x=x), logits)


def test_the_stream_itself_changes_nothing_and_zero_is_torchs(causal, masked, folder):
    for checkpoint, name in ((causal, "blocks.1"), (masked, "encoder.layers.1")):
        model, samples = checkpoint.model(), samples_of(checkpoint, folder)
        found = splice.effects(model, samples, 1, {"same": lambda x: x, "zero": jnp.zeros_like})
        assert abs(found["same"].ce - found["clean"].ce) < 1e-6
        module = checkpoint.module

        def zero(_, __, output):  # the text, and not what stands around it
            first = output[0] if isinstance(output, tuple) else output
            left = first.clone()
            left[:, text] = 0  # noqa: B023 - of the row that runs
            return (left, *output[1:]) if isinstance(output, tuple) else left

        losses = []
        handle = module.get_submodule(name).register_forward_hook(zero)
        with torch.no_grad():
            for row, (ids, labels, mask) in enumerate(zip(samples.ids, samples.labels, samples.mask, strict=True)):
                real = mask != 0
                text = np.flatnonzero(samples.real[row][real])
                logits = module(torch.from_numpy(ids[real][None]).long())[0]
                true = torch.from_numpy(labels[real]).long()
                losses.append(torch.nn.functional.cross_entropy(logits, true, reduction="none")[true != -100])
        handle.remove()
        np.testing.assert_allclose(found["zero"].ce, torch.cat(losses).mean(), rtol=1e-5)
        assert found["clean"].positions == samples.scored.sum() == len(torch.cat(losses))


def test_gradients_are_torchs_and_those_of_differences(masked):
    model, ids = masked.model(), np.random.default_rng(0).integers(2, 30, 8).astype(np.int32)
    readout = Readout(model, ids, 3)
    x = readout.stream(1)
    (ours,) = readout.gradients(1, [x])

    whole = np.array([[38, *ids, 39]])  # with what stands around a text
    put = torch.from_numpy(np.array(model.activations(whole, layer=1))).requires_grad_()
    handle = masked.module.encoder.layers[1].register_forward_hook(lambda *_: put)
    logits = masked.module(torch.from_numpy(whole).long())[0, 4]
    handle.remove()
    (logits[readout.candidate] - logits[readout.against]).backward()
    np.testing.assert_allclose(x, put.detach()[0, 1:-1], atol=1e-6)
    np.testing.assert_allclose(ours, put.grad[0, 1:-1], atol=1e-6)

    direction = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    ahead, behind = readout.of_streams(1, {"x": [x + 1e-2 * direction, x - 1e-2 * direction]})["x"]
    np.testing.assert_allclose((ahead - behind) / 2e-2, (ours * direction).sum(), rtol=2e-3)


def test_gradients_go_through_jit(causal):
    model, ids = causal.model(), np.arange(6)[None]
    x = model.activations(ids, layer=0)

    def loss(x):
        return (model.logits(ids, places=np.array([2, 5]), layer=0, x=x) ** 2).sum()

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(x), jax.grad(loss)(x), atol=1e-6)


def test_the_restoration_model_through_hooks_and_through_jax(tiny_pt, tmp_path):
    """Two ways to one model: rows that differ by rounding, and the same latents of an SAE."""
    ours = load_restoration_model(tiny_pt)
    path = write(tmp_path, RESTORATION.format(path=str(tiny_pt), most=45))
    checkpoint = read_checkpoint(f"{path}:load")
    texts = write(tmp_path, "\n".join(TEXTS), "texts.txt")
    with pytest.warns(UserWarning, match="10th"):
        samples = checkpoint.config.datasets.load_several([texts], "train")
    assert samples.damaged.any()
    rows, theirs = (extract(model, samples, [2]).values[2] for model in (ours, checkpoint.model()))
    scale = float(np.sqrt(np.square(theirs).mean()))
    np.testing.assert_allclose(rows, theirs, atol=1e-5 * scale)
    sae = train_sae(rows, TrainConfig(epochs=4, batch_size=64, k_sparse=4, expansion=2, recipe="modern")).sae
    a, b = (np.asarray(encode(sae, x)) for x in (rows, theirs))
    assert ((a > 0) == (b > 0)).mean() > 0.999
    np.testing.assert_allclose(a, b, atol=1e-3 * a.max())
    for hook in ("attn_out", "mlp_out"):
        parts = (
            extract(m.hooked_at(hook) if m is ours else checkpoint.model(hook=hook), samples, [1]) for m in (ours, None)
        )
        of_jax, of_torch = (part.values[1] for part in parts)
        np.testing.assert_allclose(of_jax, of_torch, atol=1e-5 * scale)


def test_identity_follows_weights_and_modules(folder, causal, tmp_path, monkeypatch):
    """A comment, or other pieces, are of the code alone."""
    again = read_checkpoint(f"{folder}/causal.py:load")
    assert (again.identity, again.code) == (causal.identity, causal.code)
    other = write(tmp_path, CAUSAL.replace("nn.GELU()", "nn.ReLU()"))
    assert read_checkpoint(f"{other}:load").identity != causal.identity
    for change in (("LETTERS[i] if", "LETTERS[i].upper() if"), ("def load", "# a comment\ndef load")):
        same = read_checkpoint(f"{write(tmp_path, CAUSAL.replace(*change), 'same.py')}:load")
        assert same.identity == causal.identity
        assert same.code != causal.code
    path = write(tmp_path, CAUSAL.replace("manual_seed(0)", "manual_seed(int(__import__('os').environ['SEED']))"))
    found = []
    for seed in "011":
        monkeypatch.setenv("SEED", seed)
        found.append(read_checkpoint(f"{path}:load").identity)
    assert found[0] != found[1] == found[2]


def test_modules_with_any_attribute_are_no_part_of_the_code(causal, monkeypatch, tmp_path):
    """As `torch.classes`, which may be imported with the file."""
    text = CAUSAL + "\nimport sys, types\nclass Any(types.ModuleType):\n    def __getattr__(self, name): return 1\n"
    text += "sys.modules['any_attribute'] = Any('any_attribute')\n"
    monkeypatch.delitem(sys.modules, "any_attribute", raising=False)
    assert read_checkpoint(f"{write(tmp_path, text)}:load").identity == causal.identity
    monkeypatch.delitem(sys.modules, "any_attribute")


def test_folders_with_modules_of_one_name_share_none(tmp_path):
    """Nor do files of one name; what was imported from the folder is part of the code."""
    made, before = [], set(sys.modules)
    for name, seed in (("a", 1), ("b", 2), ("c", 2)):
        (tmp_path / name / "parts").mkdir(parents=True)
        (tmp_path / name / "bare").mkdir()
        write(tmp_path / name, CAUSAL.replace("manual_seed(0)", f"manual_seed({seed})"), "their_model.py")
        write(tmp_path / name, "", "parts/__init__.py")
        write(tmp_path / name, f"NUMBER = {seed}", "parts/one.py")
        write(tmp_path / name, f"NUMBER = {seed}  # {name}", "bare/one.py")
        text = "import bare.one\nimport their_model\nfrom parts import one\n"
        text += "def load():\n    assert one.NUMBER == bare.one.NUMBER\n    return their_model.load()\n"
        made.append(read_checkpoint(f"{write(tmp_path / name, text, 'hooked.py')}:load"))
    a, b, c = made
    assert len({a.identity, b.identity}) == 2
    assert b.identity == c.identity
    assert len({a.code, b.code, c.code}) == 3
    ids = np.arange(4)[None]
    rows = [np.asarray(one.model().activations(ids, layer=1)) for one in made]
    assert (rows[0] != rows[1]).any()
    assert not {"their_model", "parts", "parts.one", "bare", "bare.one"} & (set(sys.modules) - before)


def test_a_tuple_will_do(folder, tmp_path):
    lists = CAUSAL.replace("24, causal=True", "24, frame=([1], [2])")
    assert read_checkpoint(f"{write(tmp_path, lists)}:load").config.tokenizer.frame == ((1,), (2,))
    found = read_checkpoint(f"{folder}/causal.py:as_tuple")
    assert found.config.max_position == 512
    assert found.config.tokenizer.encode("ab").tolist() == [2, 3]


BAD = {
    "def other(): pass": r"must define load\(\), got other",
    "def load(): return 1": r"load\(\) must return a TorchModel, \(module, encode, pieces\), or .*, got int",
    "def load(): raise KeyError('x')": r"load\(\) must return the model, got KeyError: 'x'",
    "import nothing_such": r"load\(\) must return the model, got ModuleNotFoundError: No module",
    "from jaxsae import TorchModel\ndef load(): return TorchModel(1, list, list)": r"must be a torch\.nn\.Module, got int",
    "from torch import nn\ndef load(): return nn.Identity(), list, list": r"vocab_size must be given",
    CAUSAL + "\ndef load(): return TorchModel(Model(), list, list, mask_id=40)": r"mask_id must be in 0\.\.39",
    CAUSAL + "\ndef load(): m = TorchModel(Model(), list, list); vars(m).update(frame=(1, 2)); return m": (
        r"frame must be the ids put before a text and those put behind it, such as \(\[1\], \[2\]\), got \(1, 2\)"
    ),
    CAUSAL + "\ndef load(): return TorchModel(Model(), list, lambda ids: [{1: 'a'}[i] for i in ids])": (
        r"got KeyError: 2; the embedding has 40 rows, so ids up to 39 are asked for"
    ),
    MASKED.replace("src_key_padding_mask=None", "padding_mask=None").replace(
        "=src_key_padding_mask", "=padding_mask"
    ): (r"padding must change nothing where padding_mask is 0.*; give TorchModel\(forward=\.\.\.\)"),
    CAUSAL + "\ndef load(): return Block(6, 2), list, list": r"the module must run on ids \[1, 6\], got",
}


@pytest.mark.parametrize("content", BAD)
def test_bad_files(content, tmp_path):
    with pytest.raises(InputError, match=BAD[content]) as error:
        read_checkpoint(f"{write(tmp_path, content)}:load")
    assert str(tmp_path) in str(error.value)


def test_bad_names(causal, tmp_path):
    with pytest.raises(InputError, match="name the function, such as load"):
        read_checkpoint(write(tmp_path, CAUSAL))
    with pytest.raises(InputError, match=r"file must exist, got .*none\.py"):
        read_checkpoint(f"{tmp_path}/none.py:load")
    for hook, said in {
        "blocks.1.mpl": r"a hook must name a module of the model, got 'blocks\.1\.mpl'; the nearest are blocks\.1\.mlp",
        "others.0": None,
        "blocks.7.hook_resid_post": r"layer must be in 0\.\.2, got 7",
    }.items():
        if said is None:
            causal.model(hook={0: hook})
        else:
            with pytest.raises(InputError, match=said):
                causal.model(hook={0: hook})
    with pytest.raises(InputError, match="must be of one width, got 18, 36"):
        causal.model(hook={0: "blocks.0", 1: "blocks.1.mlp.0"})
    with pytest.raises(InputError, match=r"layer must be in 0\.\.2, got 9"):
        causal.model(n_layers=10)


def test_what_a_module_gives_is_checked(tmp_path):
    more = """
class Odd(Model):
    def __init__(self):
        super().__init__()
        self.words, self.turned, self.twice = Words(), Turned(), nn.Identity()

    def forward(self, ids):
        x = self.twice(self.twice(super().forward(ids)))
        self.words(x), self.turned(x)
        return x


class Words(nn.Module):
    def forward(self, x):
        return "no tensor"


class Turned(nn.Module):
    def forward(self, x):
        return x.mT


def odd():
    model = load()
    return TorchModel(Odd(), model.encode, model.pieces)
"""
    checkpoint = read_checkpoint(f"{write(tmp_path, CAUSAL + more)}:odd")
    for name, said in {
        "words": "words must give a tensor first, got str",
        "turned": r"turned must give \[texts, positions, width\] of \[1, 6\] tokens, got \[1, 40, 6\]",
        "twice": "a module must run once in a pass to be read, got twice, which runs 2 times",
    }.items():
        with pytest.raises(InputError, match=said):
            checkpoint.model(hook={0: name})


def test_a_block_of_another_list_is_refused(tmp_path):
    """In an SAE's file, `layers.1` is of the model's blocks, whatever else has layers."""
    content = CAUSAL.replace(
        "self.others = nn.ModuleList([nn.Identity()])",
        "self.encoder = nn.Module()\n        self.encoder.layers = nn.ModuleList([nn.Identity()])",
    ).replace("self.others[0]", "self.encoder.layers[0]")
    checkpoint = read_checkpoint(f"{write(tmp_path, content)}:load")
    with pytest.raises(InputError, match=r"a block must be one of blocks, got encoder\.layers\.0"):
        checkpoint.model(hook={0: "encoder.layers.0"})


def test_of_lists_in_lists_the_outermost_are_blocks():
    """Not the heads within them, nor a head of several layers behind them."""

    def block(heads):
        part = nn.Module()
        part.heads = nn.ModuleList(nn.Linear(2, 2) for _ in range(heads))
        return part

    def named(**lists):
        module = nn.Module()
        for name, one in lists.items():
            setattr(module, name, one)
        return modules.blocks_of(module)

    blocks, head = nn.Sequential(*[block(6) for _ in range(4)]), nn.Sequential(*[nn.Linear(2, 2) for _ in range(8)])
    assert named(blocks=blocks, head=head) == ("blocks", 4)
    assert named(head=head, blocks=nn.ModuleList(blocks), few=nn.ModuleList([nn.Identity()])) == ("blocks", 4)
    assert named(whole=nn.Sequential(nn.Embedding(2, 2), block(3))) == ("whole.1.heads", 3)
    assert named(head=head) is None


def test_what_is_read_is_said(causal, masked, tmp_path):
    assert masked.about == "Model: 3 blocks, encoder.layers; restores hidden tokens"
    nothing = read_checkpoint(f"{write(tmp_path, CAUSAL.replace(', causal=True', ''))}:load")
    assert nothing.about == "Model: 3 blocks, blocks; hides nothing: give mask_id, or causal=True"


def test_a_module_without_logits_is_read_all_the_same(tmp_path):
    content = CAUSAL.replace("return self.out(self.norm(self.others[0](x)))", "return x")
    checkpoint = read_checkpoint(f"{write(tmp_path, content)}:load")
    model = checkpoint.model()
    assert model.activations(np.ones((1, 4), int), layer=1).shape == (1, 4, 18)
    with pytest.raises(InputError, match=r"must give logits \[texts, positions, 40\]"):
        model.logits(np.ones((1, 4), int), places=np.array([0]))
    with pytest.warns(UserWarning, match="10th"):
        samples = checkpoint.config.datasets.load_several([write(tmp_path, "\n".join(TEXTS), "t.txt")], "train")
    assert not samples.scored.any()
