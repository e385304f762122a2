"""Random language models of 32 dimensions with real tokenizers, for tests without a download."""

import string
from pathlib import Path

from fakes.corpus import NOUNS
from fakes.models import WORDS

PROMPTS = """
Query Document Relevant Passage Instruct Judge whether meets the requirements based on Provided
title context question Given search retrieve relevant passages that answer Please write a this
true false yes no system user assistant
""".split()  # noqa: SIM905 - words read better without quotes
CHAT = (
    "{% for m in messages %}{% if m.role == 'system' %}<|im_start|>system\n{{ m.content }}"
    "<|im_end|>\n{% elif m.role == 'query' %}<|im_start|>user\n<Query>: {{ m.content }}\n"
    "{% elif m.role == 'document' %}<Document>: {{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}<|im_start|>assistant\n"
)
"""A chat template that knows the roles of a re-ranker."""


def save_tiny_causal(
    folder: Path,
    family: str = "qwen",
    *,
    chat: str | None = None,
    marks: bool = True,
    ranks: bool = False,
    seed: int = 0,
) -> Path:
    """Write a causal model (qwen: rotary positions, neo: learned ones); return its folder.

    With `ranks` it is a qwen with a head of one score, as conversions of re-rankers are.
    """
    import torch
    from transformers import (
        GPTNeoConfig,
        GPTNeoForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
        Qwen3ForSequenceClassification,
    )

    tokenizer = byte_tokenizer(marks=marks)
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(str(folder))
    common = {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    common |= {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "qwen":
            config = Qwen3Config(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=8,
                max_position_embeddings=512,
                tie_word_embeddings=True,
                **(common | {"num_labels": 1} if ranks else common),
            )
            kind = Qwen3ForSequenceClassification if ranks else Qwen3ForCausalLM
            kind(config).save_pretrained(folder)
        else:
            config = GPTNeoConfig(
                hidden_size=32,
                num_layers=2,
                attention_types=[[["global"], 2]],
                num_heads=4,
                max_position_embeddings=512,
                **common,
            )
            GPTNeoForCausalLM(config).save_pretrained(folder)
    return folder


def save_tiny_seq2seq(folder: Path, family: str = "t5", *, seed: int = 0) -> Path:
    """Write an encoder-decoder, t5 or bart; return its folder."""
    import torch
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        T5Config,
        T5ForConditionalGeneration,
    )

    tokenizer = word_tokenizer() if family == "t5" else bart_tokenizer()
    tokenizer.save_pretrained(str(folder))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family == "t5":
            config = T5Config(
                vocab_size=len(tokenizer),
                d_model=32,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                decoder_start_token_id=0,
                pad_token_id=0,
                eos_token_id=1,
            )
            T5ForConditionalGeneration(config).save_pretrained(folder)
        else:
            config = BartConfig(
                vocab_size=len(tokenizer),
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                max_position_embeddings=512,
                init_std=0.3,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                decoder_start_token_id=tokenizer.eos_token_id,
            )
            BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


def word_tokenizer():
    """Return T5's tokenizer over whole words and letters."""
    from transformers import T5Tokenizer

    signs = string.ascii_letters + string.digits + string.punctuation
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words = [(f"▁{word}", -3.0) for word in dict.fromkeys([*PROMPTS, *WORDS]) if len(word) > 1]
    return T5Tokenizer(vocab=[*special, *words, *((sign, -6.0) for sign in signs)], extra_ids=0)


def byte_tokenizer(*, marks: bool = True):
    """Return Qwen's tokenizer, trained on the words of the tests, with its chat's marks."""
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer().train_new_from_iterator(_corpus(), 900, show_progress=False)
    if marks:
        special = ["<|im_start|>", "<|im_end|>"]
        tokenizer.add_special_tokens({"additional_special_tokens": special})
        tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


def bart_tokenizer():
    """Return BART's tokenizer, trained on the words of the tests."""
    from transformers import RobertaTokenizer

    return RobertaTokenizer().train_new_from_iterator(_corpus(), 900, show_progress=False)


def texts(count: int, *, words: int = 14, seed: int = 0) -> list[str]:
    """Return texts of one to `words` words, some of which end in a sign or hold one."""
    import random

    rng = random.Random(seed)
    ends = ["", "", ".", "?", " (new)", ", 3-4", "'s"]
    return [
        " ".join(rng.choices(NOUNS, k=rng.randint(1, words))) + rng.choice(ends)
        for _ in range(count)
    ]


def pairs_of(queries: int, docs: int, *, words: int = 14, seed: int = 0):
    """Return every query with every document, the documents with a title each."""
    from retrodistill.base.types import Doc, Pairs

    asked = [Doc(f"q{i}", "", text) for i, text in enumerate(texts(queries, words=5, seed=seed))]
    written = texts(docs, words=words, seed=seed + 1)
    read = [Doc(f"d{i}", NOUNS[i], text) for i, text in enumerate(written)]
    return Pairs.of([q for q in asked for _ in read], read * queries)


def _corpus() -> list[str]:
    return [" ".join([*PROMPTS, *WORDS])] * 3 + [word for word in PROMPTS for _ in range(5)]
