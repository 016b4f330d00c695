"""Tiny random models of Hugging Face's, with tokenizers of their own, as `save_pretrained` writes them."""

from pathlib import Path

WORDS = ["šarru", "bēlu", "bītu", "ana", "ina", "mātu", "ilu", "nāru", "ekallu", "tuppu", "dannu", "rabû"]
TEXTS = [" ".join(WORDS[(7 * i + 3 * j * j + j) % len(WORDS)] for j in range(5 + i % 9)) for i in range(60)]
ROBERTAS = ("roberta", "xlm_roberta")
KINDS = ("bert", *ROBERTAS, "modernbert", "gpt2", "gpt_neox")
LAYERS, WIDTH = 3, 20


def word_pieces():
    """BERT's: a WordPiece tokenizer with `##`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted({letter for word in WORDS for letter in word})
    starts = [word[:3] for word in WORDS]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS[:4], *starts, *letters])]
    pieces += [f"##{letter}" for letter in letters]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def byte_pairs(*, framed: bool):
    """A byte-level BPE tokenizer; RoBERTa's puts `<s>` and `</s>` around a text, GPT's nothing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if not framed:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def save(kind: str, folder: Path) -> Path:
    """A model of a kind and its tokenizer, in a folder."""
    import torch
    import transformers

    tokenizer = word_pieces() if kind in ("bert", "modernbert") else byte_pairs(framed=kind in ROBERTAS)
    of_all = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    usual = of_all | {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 28,
    }
    usual |= {"max_position_embeddings": 40}
    config = {
        "bert": lambda: transformers.BertConfig(**usual),
        "roberta": lambda: transformers.RobertaConfig(**usual),
        "xlm_roberta": lambda: transformers.XLMRobertaConfig(**usual),
        "modernbert": lambda: transformers.ModernBertConfig(
            **usual,
            cls_token_id=2,
            sep_token_id=3,
            bos_token_id=2,
            eos_token_id=3,
            global_attn_every_n_layers=2,
            local_attention=8,
        ),
        "gpt2": lambda: transformers.GPT2Config(
            **of_all, n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=40, bos_token_id=2, eos_token_id=2
        ),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**usual, bos_token_id=2, eos_token_id=2),
    }[kind]()
    heads = {"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM", "modernbert": "ModernBertForMaskedLM"}
    heads |= {"xlm_roberta": "XLMRobertaForMaskedLM"}
    heads |= {"gpt2": "GPT2LMHeadModel", "gpt_neox": "GPTNeoXForCausalLM"}
    torch.manual_seed(0)
    model = getattr(transformers, heads[kind])(config)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases that matter
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
