"""Prompts and chat templates: scores and vectors are those of sentence-transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.language_models import CHAT, pairs_of, save_tiny_causal, texts
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch.nn import Identity

from retrodistill.base.errors import ConfigError
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.cross_encoder import load_cross_encoder, pair_rows
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.teachers.cross_encoder import CrossEncoderTeacher

PLAIN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
PAIRS = pairs_of(4, 10)
TEXTS = [*texts(20), "", "cell " * 300]


def check_scores(folder: Path, max_tokens: int = 256) -> Any:
    peer = CrossEncoder(str(folder), activation_fn=Identity(), device="cpu", max_length=max_tokens)
    teacher = CrossEncoderTeacher(
        str(folder), ModelOptions(max_tokens=max_tokens, precision="float32")
    )
    pairs = [
        (PAIRS.queries[query].full_text, PAIRS.docs[doc].full_text)
        for query, doc in zip(PAIRS.query_rows, PAIRS.doc_rows, strict=True)
    ]
    np.testing.assert_allclose(teacher.score(PAIRS), peer.predict(pairs), atol=2e-5)
    return teacher


@pytest.mark.parametrize("max_tokens", [256, 16])
def test_a_cross_encoder_with_a_default_prompt(tmp_path: Path, max_tokens: int) -> None:
    """Scores without the instruction that a model was trained with: correlation 0.28."""
    plain = save_tiny_cross_encoder(tmp_path / "plain")
    model = CrossEncoder(
        str(plain), device="cpu", prompts={"web": "search the web : "}, default_prompt_name="web"
    )
    model.save(str(tmp_path / "prompted"))
    teacher = check_scores(tmp_path / "prompted", max_tokens)
    padded = check_scores(plain, max_tokens)
    assert np.abs(teacher.score(PAIRS) - padded.score(PAIRS)).max() > 1e-3
    assert teacher.fingerprint != padded.fingerprint


@pytest.mark.parametrize("max_tokens", [256, 30])
@pytest.mark.parametrize("prompt", ["", "Given search retrieve relevant"])
def test_a_classifier_with_a_chat_template(tmp_path: Path, prompt: str, max_tokens: int) -> None:
    """Raw texts given to a re-ranker that reads them within a chat: correlation 0.04."""
    folder = save_tiny_causal(tmp_path / "model", chat=CHAT, ranks=True)
    if prompt:
        model = CrossEncoder(
            str(folder), device="cpu", prompts={"web": prompt}, default_prompt_name="web"
        )
        folder = tmp_path / "prompted"
        model.save(str(folder))
    check_scores(folder, max_tokens)


def test_a_template_that_shows_no_pair_is_refused(tmp_path: Path) -> None:
    """One score for all pairs."""
    chat = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}x"
    folder = save_tiny_causal(tmp_path / "model", chat=chat, ranks=True)
    with pytest.raises(ConfigError, match=r"cannot be loaded.*chat template"):
        CrossEncoderTeacher(str(folder))


def test_a_student_is_trained_on_what_its_library_reads(tmp_path: Path) -> None:
    """A student that learns to read raw texts, and is served rendered ones."""
    folder = save_tiny_causal(tmp_path / "model", chat=CHAT, ranks=True)
    model = load_cross_encoder(str(folder), torch.device("cpu"))
    rows, beside = pair_rows(model, ["what"], ["asthma is a disease"], max_tokens=128)
    expected = model.preprocess([("what", "asthma is a disease")])
    assert rows[0]["input_ids"] == expected["input_ids"][0].tolist()
    assert beside["modality"] == expected["modality"] == "message"


@pytest.mark.parametrize("prompts", [None, {"query": "Given search retrieve", "document": ""}])
@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
def test_a_bi_encoder_with_a_chat_template(
    tmp_path: Path, pooling: str, prompts: dict[str, str] | None
) -> None:
    """Vectors of raw texts where its users' library renders them: cosine 0.08."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    body = Transformer(str(save_tiny_causal(tmp_path / "body", chat=PLAIN_CHAT)))
    model = SentenceTransformer(modules=[body, Pooling(32, pooling)], prompts=prompts, device="cpu")
    model.save(str(tmp_path / "model"))
    peer = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    encoder = DenseEncoder(tmp_path / "model", precision="float32")
    expected = peer.encode_query(TEXTS), peer.encode_document(TEXTS)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected[0], atol=2e-5)
    np.testing.assert_allclose(encoder.encode_docs(TEXTS), expected[1], atol=2e-5)
    plain = peer.tokenizer(["cell"])["input_ids"]
    assert encoder.count_tokens(["cell"])[0] > len(plain[0])
    cut = DenseEncoder(tmp_path / "model", precision="float32", max_tokens=12)
    assert cut.count_tokens(TEXTS).max() == 12


@pytest.mark.parametrize("chat", [None, PLAIN_CHAT])
def test_a_bare_decoder_is_the_same_model_when_it_is_served(
    tmp_path: Path, chat: str | None
) -> None:
    """A student that is another model for who opens its folder with its library: cosine 0.63."""
    encoder = DenseEncoder(save_tiny_causal(tmp_path / "body", chat=chat), precision="float32")
    encoder.save(tmp_path / "student")
    peer = SentenceTransformer(str(tmp_path / "student"), device="cpu")
    np.testing.assert_allclose(encoder.encode_docs(TEXTS), peer.encode_document(TEXTS), atol=2e-5)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), peer.encode_query(TEXTS), atol=2e-5)
    assert DenseEncoder(tmp_path / "student", precision="float32").fingerprint == (
        encoder.fingerprint
    )


def test_lengths_of_one_side_are_kept(tmp_path: Path) -> None:
    """Queries read at full length by a model whose library cuts them at eight tokens."""
    model = SentenceTransformer(str(save_tiny_model(tmp_path)), device="cpu")
    model[0].query_length, model[0].document_length = 8, 20
    encoder = DenseEncoder(model, precision="float32", max_tokens=100)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_docs(TEXTS), model.encode_document(TEXTS), atol=1e-5)
    assert encoder.count_tokens(["cell " * 90]).tolist() == [20]
