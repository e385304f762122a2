"""What a model's limit cuts off is counted and logged."""

from pathlib import Path

import pytest

from retrodistill.models.inference import counted_cuts, pair_tokens, tokenize
from retrodistill.models.students.dense import DenseEncoder, load_bi_encoder


def test_cuts_are_counted_by_hand(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A share that counts special tokens as words, or texts that fit as cut."""
    import torch

    tokenizer = load_bi_encoder(str(tiny_model), torch.device("cpu")).tokenizer
    words = "water " * 9
    assert len(tokenizer(words)["input_ids"]) == 11
    with counted_cuts("documents") as counts:
        tokenize(tokenizer, ["water", words, words + words], max_tokens=8)
    (cut,) = counts.values()
    assert (cut.texts, cut.longer, cut.tokens, cut.lost) == (3, 2, 27, 15)
    messages = capsys.readouterr().err
    assert "2 of 3 documents are longer than 8 tokens: 56% of their tokens are cut." in messages
    with counted_cuts("texts") as counts:
        pair_tokens(
            tokenizer,
            ["water"],
            ["water", words],
            (torch.tensor([0, 0]).numpy(), torch.tensor([0, 1]).numpy()),
            max_tokens=8,
        )
    (cut,) = counts.values()
    assert (cut.texts, cut.longer, cut.tokens, cut.lost) == (2, 1, 10, 5)


def test_nothing_is_said_where_nothing_is_cut(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of zeros at every command, or counts outside of the block."""
    encoder = DenseEncoder(tiny_model, max_tokens=8)
    encoder.encode_docs(["water " * 20])
    with counted_cuts("documents"):
        encoder.encode_docs(["water"])
    assert capsys.readouterr().err == ""


def test_cut_prompts_of_language_models_are_counted(tiny_model: Path) -> None:
    """Documents that a language model never sees whole, without a word."""
    import numpy as np
    import torch

    from retrodistill.models.inference.templates import Template

    tokenizer = load_bi_encoder(str(tiny_model), torch.device("cpu")).tokenizer
    template = Template(tokenizer, "{query} {document}", ("query", "document"), max_tokens=8)
    rows = np.zeros(1, np.int64)
    with counted_cuts("texts") as counts:
        template.fill({"query": (["water"], rows), "document": (["water " * 9], rows)})
    assert [(key, cut.texts, cut.longer) for key, cut in counts.items()] == [(("prompts", 8), 1, 1)]
