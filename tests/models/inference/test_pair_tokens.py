"""Pairs joined from the tokens of their texts, against the tokenizers themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.models import WORDS, save_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from retrodistill.models.inference.pairs import learn_template, longest_first, pair_tokens

CPU = torch.device("cpu")
SENTENCES = [" ".join(WORDS[start : start + 9]) for start in range(0, len(WORDS), 5)]


def byte_level() -> Tokenizer:
    """Byte-level BPE with two separators between the texts, as RoBERTa has it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.decoder = decoders.ByteLevel()
    return made


def unigram(single: str, pair: str) -> Tokenizer:
    """Pieces with a blank in front, as SentencePiece makes them."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return made


def wrapped(made: Tokenizer, **options: Any) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", unk_token="<unk>", **options
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "RoBERTa": lambda: wrapped(byte_level(), model_input_names=["input_ids", "attention_mask"]),
    "T5": lambda: wrapped(unigram("$A </s>", "$A </s> $B </s>")),
    "XLM-R": lambda: wrapped(unigram("<s> $A </s>", "<s> $A </s> </s> $B </s>")),
    "Llama": lambda: wrapped(unigram("<s> $A", "<s> $A <s>:1 $B:1")),
    "bare": lambda: wrapped(unigram("$A", "$A $B:1")),
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = {name: make() for name, make in FAMILIES.items()}
    return made | {"BERT": save_tokenizer(tmp_path_factory.mktemp("bert"))}


TEXT = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
    st.text(max_size=20),
)


@pytest.mark.parametrize("family", [*FAMILIES, "BERT"])
@given(
    st.lists(TEXT, min_size=1, max_size=4),
    st.lists(TEXT, min_size=1, max_size=4),
    st.integers(6, 70),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_joined_tokens_are_the_tokenizers_own(
    tokenizers: dict[str, Any],
    family: str,
    firsts: list[str],
    seconds: list[str],
    max_tokens: int,
    rng: Any,
) -> None:
    """A missing separator, a wrong type, or a cut in another place: scores of another model."""
    tokenizer = tokenizers[family]
    assert learn_template(tokenizer) is not None
    count = 6
    rows = tuple(
        np.array([rng.randrange(len(side)) for _ in range(count)]) for side in (firsts, seconds)
    )
    tokens = pair_tokens(tokenizer, firsts, seconds, rows, max_tokens=max_tokens)
    texts = [firsts[row] for row in rows[0]], [seconds[row] for row in rows[1]]
    expected = tokenizer(
        *texts, truncation=True, max_length=max_tokens, padding=True, return_tensors="pt"
    )
    batch = tokens.batch(np.arange(count), CPU)
    assert batch.keys() == expected.keys()
    for name, tensor in batch.items():
        assert torch.equal(tensor, expected[name]), name
    assert tokens.lengths.tolist() == expected["attention_mask"].sum(1).tolist()


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 30))
def test_a_cut_keeps_what_fits(first: int, second: int, budget: int) -> None:
    """A pair beyond the model's positions, or a cut where none was needed."""
    sizes_kept = longest_first(np.array([first]), np.array([second]), budget)
    a, b = int(sizes_kept[0][0]), int(sizes_kept[1][0])
    assert 0 <= a <= first
    assert 0 <= b <= second
    assert a + b == min(first + second, budget)


@pytest.mark.parametrize("side", ["padding_side", "truncation_side"])
def test_what_cannot_be_joined_is_asked_for(side: str, tokenizers: dict[str, Any]) -> None:
    """A tokenizer that pads or cuts at the left, taken for one that does so at the right."""
    tokenizer = wrapped(unigram("<s> $A", "<s> $A $B:1"), **{side: "left"})
    assert learn_template(tokenizer) is None
    firsts, seconds = ["a long sample of text", "it"], ["the size of a small mouse", "vitamin"]
    rows = (np.array([0, 1, 1]), np.array([1, 0, 1]))
    tokens = pair_tokens(tokenizer, firsts, seconds, rows, max_tokens=9)
    expected = tokenizer(
        [firsts[row] for row in rows[0]],
        [seconds[row] for row in rows[1]],
        truncation=True,
        max_length=9,
        padding=True,
        return_tensors="pt",
    )
    batch = tokens.batch(np.arange(3), CPU)
    assert torch.equal(batch["input_ids"], expected["input_ids"])


@pytest.mark.realdata
def test_a_real_vocabulary(shared_data: Path) -> None:
    """A tokenizer of the size and the settings that people use."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "bert-base-uncased-tokenizer")
    texts = (shared_data / "cranfield" / "corpus.jsonl").read_text(encoding="utf-8").split("\n")
    firsts, seconds = texts[:20], texts[20:60]
    rows = (np.arange(40) % 20, np.arange(40))
    for max_tokens in (64, 129, 512):
        tokens = pair_tokens(tokenizer, firsts, seconds, rows, max_tokens=max_tokens)
        expected = tokenizer(
            [firsts[row] for row in rows[0]],
            seconds,
            truncation=True,
            max_length=max_tokens,
            padding=True,
            return_tensors="pt",
        )
        batch = tokens.batch(np.arange(40), CPU)
        assert all(torch.equal(batch[name], expected[name]) for name in expected)
