"""Folders of Hugging Face's: rows are `output_hidden_states`, bit for bit, and SAEs are trained on them."""

import json
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tiny_transformers import KINDS, LAYERS, ROBERTAS, TEXTS, WIDTH, save

from convert import read_checkpoint
from convert.huggingface import pieces_of
from convert.torch_run import Put
from jaxsae.errors import InputError
from jaxsae.features import splice
from jaxsae.models.protocol import ModelWithHead

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("folders")
    return {kind: save(kind, path / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rows = [{"text": text, "genre": "letter" if i % 3 else "list"} for i, text in enumerate(TEXTS)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def samples_of(checkpoint, texts):
    with pytest.warns(UserWarning, match="10th"):
        return checkpoint.config.datasets.load_several([texts], "train", 20)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_hidden_states(kind, folders, texts):
    """The library counts the embedding as 0, and of some kinds has the last behind the last norm."""
    checkpoint = read_checkpoint(folders[kind])
    samples = samples_of(checkpoint, texts)
    ids, mask = (torch.from_numpy(a).long() for a in (samples.ids, samples.mask))
    with torch.no_grad():
        given = {"input_ids": ids, "attention_mask": mask}
        hidden = checkpoint.module(**given, output_hidden_states=True).hidden_states
    model = checkpoint.model()
    assert (model.n_layers, model.d_model) == (LAYERS, WIDTH)
    found = model.activations_of(samples.ids, samples.mask, layers=range(LAYERS))
    for layer in range(LAYERS if kind in ("bert", *ROBERTAS) else LAYERS - 1):
        np.testing.assert_array_equal(found[layer], hidden[layer + 1])
    embedding = checkpoint.model(hook="resid_pre").activations(samples.ids, samples.mask, layer=0)
    np.testing.assert_array_equal(embedding, hidden[0])
    pre, attn, mlp = (
        np.array(checkpoint.model(hook=hook).activations(samples.ids, samples.mask, layer=1))
        for hook in ("resid_pre", "attn_out", "mlp_out")
    )
    if kind in ("bert", *ROBERTAS):  # norms behind the sums
        block = checkpoint.module.base_model.encoder.layer[1]
        middle = block.attention.output.LayerNorm(torch.from_numpy(pre + attn))
        after = block.output.LayerNorm(middle + torch.from_numpy(mlp)).numpy()
    else:
        after = pre + attn + mlp
    np.testing.assert_allclose(after, found[1], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_leaves_the_real_positions_as_they_are(kind, folders, texts):
    checkpoint = read_checkpoint(folders[kind])
    model, samples = checkpoint.model(), samples_of(checkpoint, texts)
    x = np.asarray(model.activations(samples.ids, samples.mask, layer=LAYERS - 1))
    for row, length in enumerate(samples.lengths[:4]):
        alone = model.activations(samples.ids[row : row + 1, :length], layer=LAYERS - 1)
        np.testing.assert_allclose(x[row, :length], alone[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt_neox"])
def test_the_library_own_loss_is_ours(kind, folders, texts):
    checkpoint = read_checkpoint(folders[kind])
    samples = samples_of(checkpoint, texts)
    assert (samples.damaged.any(), samples.causal) == (kind == "bert", kind != "bert")
    found = splice.effects(checkpoint.model(), samples, 1, {"same": lambda x: x, "zero": jnp.zeros_like})
    assert abs(found["same"].ce - found["clean"].ce) < 1e-6
    assert found["zero"].ce != found["clean"].ce
    ids, mask, labels = (torch.from_numpy(a).long() for a in (samples.ids, samples.mask, samples.labels))
    with torch.no_grad():
        logits = checkpoint.module(input_ids=ids, attention_mask=mask).logits
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    np.testing.assert_allclose(found["clean"].ce, float(theirs), rtol=1e-5)
    if kind == "gpt_neox":  # which shifts the labels itself
        own = torch.where(mask != 0, ids, -100)
        theirs = checkpoint.module(input_ids=ids, attention_mask=mask, labels=own).loss
        np.testing.assert_allclose(found["clean"].ce, float(theirs), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_text_is_read(kind, folders):
    checkpoint = read_checkpoint(folders[kind])
    most = checkpoint.config.max_position
    assert most == (38 if kind in ROBERTAS else 40)  # which counts positions from behind the padding's id
    ids = np.full((1, most), 5)
    assert checkpoint.model().activations(ids, np.ones_like(ids), layer=0).shape == (1, most, WIDTH)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_the_text(kind, folders):
    tokenizer = read_checkpoint(folders[kind]).config.tokenizer
    text = "šarru ana bītu rabû 𒀭" if kind in (*ROBERTAS, "gpt2", "gpt_neox") else "šarru ana bītu rabû"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == f" {text}"
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert sum(piece.startswith(" ") for piece in pieces) == len(text.split())
    framed = {"bert": (2, 3), "modernbert": (2, 3), **dict.fromkeys(ROBERTAS, (0, 2))}.get(kind)
    assert tokenizer.frame == (((framed[0],), (framed[1],)) if framed else ((), ()))
    if framed:
        shown = tokenizer.pieces([*tokenizer.frame[0], *tokenizer.frame[1], tokenizer.damaged_id])
        assert "".join(shown) == ("<s></s><mask>" if kind in ROBERTAS else "[CLS][SEP] [MASK]")


def test_words_are_pieces_with_a_space(tmp_path):
    """Where the vocabulary is of words; of letters, they are letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    for words, split in (
        (["ana", "ina", "šarru"], pre_tokenizers.WhitespaceSplit()),
        ([*"ain", " "], pre_tokenizers.Split("", "isolated")),
    ):
        vocab = {word: number for number, word in enumerate(["[UNK]", "[MASK]", "[CLS]", *words])}
        tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = split
        named = {"unk_token": "[UNK]", "mask_token": "[MASK]", "cls_token": "[CLS]"}
        pieces = pieces_of(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named))
        expected = (
            [" ana", " ina", " [UNK]", " [MASK]", "[CLS]"] if "ana" in words else ["a", "i", "[UNK]", "[MASK]", "[CLS]"]
        )
        assert pieces([3, 4, 0, 1, 2]) == expected


def test_an_sae_by_the_command_line(script, folders, texts, tmp_path):
    """Trained on the model, evaluated, inspected; then on stored rows, which say themselves what their text is."""
    model, data = ["--checkpoint", folders["bert"]], ["--texts", texts]
    train = ["--epochs", 2, "--k-sparse", 4, "--recipe", "modern", "--batch-size", 32, "--output", tmp_path / "out"]
    ran = script("train", *model, *data, "--layer", 1, *train)
    assert ran.status == 0, ran.err
    assert "hooks    BertForMaskedLM: 3 blocks, bert.encoder.layer; restores hidden tokens" in ran.out
    assert "check    none: PyTorch itself runs the model" in ran.out
    sae = tmp_path / "out" / "sae_layer1_optimized.pt"
    ran = script("evaluate", "--sae", sae, *model, *data, "--json", tmp_path / "e.json")
    assert ran.status == 0, ran.err
    (figures,) = json.loads((tmp_path / "e.json").read_text())
    assert figures["positions"] > 0
    assert figures["ce_clean"] > 0

    rows = tmp_path / "rows"
    ran = script("extract_activations", *model, *data, "--hook", "bert.encoder.layer.2.output.dense", "--output", rows)
    assert ran.status == 0, ran.err
    ran = script("train", "--dataset", rows, *train, "--overwrite")
    assert ran.status == 0, ran.err
    sae = tmp_path / "out" / "sae_layer2_bert.encoder.layer.2.output.dense_optimized.pt"
    for more in ([], model):
        ran = script("evaluate", "--sae", sae, "--dataset", rows, *more, "--json", tmp_path / "e.json")
        assert ran.status == 0, ran.err
    assert json.loads((tmp_path / "e.json").read_text())[0]["positions"] > 0
    wrong = script("evaluate", "--sae", sae, "--dataset", rows, "--checkpoint", folders["roberta"])
    assert wrong.status == 2


def test_what_cannot_be_read_is_said(folders, tmp_path, monkeypatch):
    folder = tmp_path / "bert"
    shutil.copytree(folders["bert"], folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"auto_map": {"AutoModel": "own.Model"}}))
    with pytest.raises(InputError, match="runs code of its own"):
        read_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps(said | {"num_hidden_layers": 5}))
    with pytest.raises(
        InputError, match=r"must have the weights of a BertForMaskedLM, got none for bert\.encoder\.layer\.3"
    ):
        read_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="must hold a model and its tokenizer"):
        read_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"must have model\.safetensors, got none"):
        read_checkpoint(folder)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs the package transformers .* pip install 'jaxsae\[huggingface\]'"):
        read_checkpoint(folders["bert"])


def test_identity_follows_the_config(folders, tmp_path):
    shutil.copytree(folders["bert"], tmp_path / "bert")
    said = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps(said))
    first = read_checkpoint(folders["bert"])
    assert read_checkpoint(tmp_path / "bert").identity == first.identity
    (tmp_path / "bert" / "config.json").write_text(json.dumps(said | {"num_attention_heads": 4}))
    assert read_checkpoint(tmp_path / "bert").identity != first.identity
    assert first.code == ""


def test_a_model_without_a_head_has_rows(folders, texts, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(folders["bert"], folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"architectures": ["BertModel"]}))
    checkpoint = read_checkpoint(folder)
    samples = samples_of(checkpoint, texts)
    assert not samples.scored.any()
    whole = read_checkpoint(folders["bert"]).model()
    ours = checkpoint.model().activations(samples.ids, samples.mask, layer=1)
    np.testing.assert_array_equal(ours, whole.activations(samples.ids, samples.mask, layer=1))


@pytest.mark.parametrize("kind", ["bert", "gpt2", "gpt_neox", "modernbert"])
def test_what_directions_add_to_the_logits(tmp_path, kind):
    """Of a norm and a linear head, W @ (scale * (direction - its mean)) up to a factor; else what the head makes."""
    checkpoint = read_checkpoint(save(kind, tmp_path / kind))
    model = checkpoint.model()
    assert isinstance(model, ModelWithHead)
    directions = np.random.default_rng(0).standard_normal((70, model.d_model)).astype(np.float32)
    ids = np.array([0, 5, 9, 12])
    got = model.direct_logits(directions, ids)
    assert got.shape == (70, 4)
    if kind in ("gpt2", "gpt_neox"):
        module = checkpoint.module
        norm = module.transformer.ln_f if kind == "gpt2" else module.gpt_neox.final_layer_norm
        head = module.get_output_embeddings()
        centred = directions - directions.mean(axis=1, keepdims=True)
        scaled = centred / centred.std(axis=1, keepdims=True) * norm.weight.detach().numpy()
        expected = (scaled @ head.weight.detach().numpy().T)[:, ids]
        expected *= np.sqrt(np.square(directions).mean(axis=1, keepdims=True))
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    with torch.no_grad():
        x = torch.from_numpy(directions[:1])[None] * 1e4
        one, other = (module_logits(model, sign * x) for sign in (1, -1))
    size = np.sqrt(np.square(directions[0]).mean())
    np.testing.assert_allclose(got[0] * 2 / size, (one - other)[0, ids], rtol=1e-3, atol=1e-4)


def module_logits(model, x):
    """With `x` in place of the last block's output of a text of one token."""
    return model.runner.logits(np.zeros((1, 1), int), None, Put(model.last, x))[0].numpy()
