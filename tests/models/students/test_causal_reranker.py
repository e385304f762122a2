"""A language model that is trained to say yes or no: the prompt that it is saved with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.language_models import CHAT, byte_tokenizer, pairs_of, save_tiny_causal
from fakes.models import save_tiny_cross_encoder, save_tiny_model

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Pairs
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.causal_reranker import PairPrompt, with_prompt
from retrodistill.models.students.cross_encoder import load_causal_reranker, load_cross_encoder
from retrodistill.models.students.kinds import check_bi_encoder, kind_of
from retrodistill.models.teachers.causal import CausalTeacher

PLAIN = 'Query: {query} Document: {doc}\nDoes "it" {{ meet }} the requirements?\\n é yes or no:'
CPU = torch.device("cpu")
EXACT = ModelOptions(max_tokens=400, precision="float32")


def texts_of(pairs: Pairs) -> list[tuple[str, str]]:
    rows = zip(pairs.query_rows, pairs.doc_rows, strict=True)
    return [(pairs.queries[q].full_text, pairs.docs[d].full_text) for q, d in rows]


def save_with_first_token(folder: Path) -> Path:
    """Write a model whose tokenizer puts a special token before every text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    save_tiny_causal(folder, "neo")
    inner = byte_tokenizer()
    start = "<|im_start|>"
    backend = inner.backend_tokenizer
    backend.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, inner.convert_tokens_to_ids(start))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<|endoftext|>", bos_token=start
    ).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("causal")
    return {
        "chat": save_tiny_causal(root / "chat", chat=CHAT),
        "qwen": save_tiny_causal(root / "qwen"),
        "neo": save_tiny_causal(root / "neo", "neo", marks=False),
        "first": save_with_first_token(root / "first"),
    }


@pytest.mark.parametrize(
    ("name", "template", "answers"),
    [
        ("chat", "", ()),
        ("qwen", "", ()),
        ("chat", PLAIN, (" true", " false")),
        ("neo", PLAIN, (" yes", " no")),
        ("first", PLAIN, (" yes", " no")),
    ],
)
def test_the_saved_prompt_is_the_one_that_was_trained(
    name: str, template: str, answers: tuple[str, ...], folders: dict[str, Path], tmp_path: Path
) -> None:
    """A student whose scorer asks otherwise than its training did, or compares other words.

    The teacher with the prompt as an option, the student in memory, the saved student under our
    teacher without any option, and the library alone: one score.
    """
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    pairs = pairs_of(3, 7)
    words = dict(zip(("yes", "no"), answers, strict=False))
    expected = CausalTeacher(str(folders[name]), EXACT, template=template, **words).score(pairs)
    assert expected.std() > 0.1
    student = with_prompt(load_causal_reranker(str(folders[name]), CPU), template, answers)
    np.testing.assert_allclose(CausalTeacher(student, EXACT).score(pairs), expected, atol=1e-5)
    student.save(str(tmp_path / "s"))
    saved = CausalTeacher(str(tmp_path / "s"), EXACT)
    np.testing.assert_allclose(saved.score(pairs), expected, atol=1e-5)
    peer = CrossEncoder(str(tmp_path / "s"), activation_fn=Identity(), device="cpu")
    # one at a time: the library counts padding as positions, where these are learned (neo)
    predicted = peer.predict(texts_of(pairs), batch_size=1)
    np.testing.assert_allclose(predicted, expected, atol=1e-4)


def test_a_prompt_changes_a_copy(folders: dict[str, Path]) -> None:
    """A teacher whose prompt becomes its student's, as both came from one object."""
    model = load_causal_reranker(str(folders["chat"]), CPU)
    before = model.tokenizer.chat_template, model[-1].true_token_id
    with_prompt(model, PLAIN, (" true", " false"))
    assert (model.tokenizer.chat_template, model[-1].true_token_id) == before


def test_the_saved_student_is_a_plain_language_model(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """A folder that only this package can read, or whose chat template renders another text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    student = with_prompt(load_causal_reranker(str(folders["neo"]), CPU), PLAIN, (" yes", " no"))
    student.save(str(tmp_path / "s"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "s")
    messages = [
        {"role": "query", "content": "is {{ it }} 'so'"},
        {"role": "document", "content": "it is {query}"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    expected = PLAIN.replace("{query}", "is {{ it }} 'so'", 1).replace("{doc}", "it is {query}")
    assert text == expected
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "s", use_safetensors=True, output_loading_info=True
    )
    assert not report["missing_keys"]
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        logits = model.double()(**inputs).logits[0, -1]
    yes, no = tokenizer.convert_tokens_to_ids(["Ġyes", "Ġno"])
    settings = json.loads(next((tmp_path / "s").glob("*LogitScore/config.json")).read_text())
    assert (settings["true_token_id"], settings["false_token_id"]) == (yes, no)
    assert float(logits[yes] - logits[no]) != 0


def test_what_cannot_be_a_causal_reranker_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """A student without a prompt, with one word for both answers, or of another architecture."""
    neo = load_causal_reranker(str(folders["neo"]), CPU)
    with pytest.raises(ConfigError, match="Give its prompt"):
        with_prompt(neo)
    with pytest.raises(ConfigError, match="same token"):
        with_prompt(neo, PLAIN, (" yes", " yes"))
    with pytest.raises(ConfigError, match="needs {query} and {doc}"):
        with_prompt(neo, "Query: {query}")
    with pytest.raises(ConfigError, match="must be one token"):
        with_prompt(neo, PLAIN, ("unbelievable", " no"))
    with pytest.raises(ConfigError, match="too little"):
        PairPrompt(neo, max_tokens=12, template=PLAIN)
    with pytest.raises(ConfigError, match="not a ForCausalLM"):
        load_causal_reranker(str(save_tiny_cross_encoder(tmp_path / "bert")), CPU)
    with pytest.raises(ConfigError, match="--student-kind causal-reranker"):
        load_cross_encoder(str(folders["neo"]), CPU, new_head=True)


def test_a_saved_student_is_known_as_what_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    """A reranker that is embedded with mean pooling, or taken for a cross-encoder with a head."""
    student = with_prompt(load_causal_reranker(str(folders["chat"]), CPU))
    student.save(str(tmp_path / "s"))
    assert kind_of(str(tmp_path / "s")).name == "causal-reranker"
    assert kind_of(str(save_tiny_model(tmp_path / "dense"))).name == "bi-encoder"
    with pytest.raises(ConfigError, match="--teacher causal-lm:"):
        check_bi_encoder(str(tmp_path / "s"))
