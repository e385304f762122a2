"""Causal language models that say yes or no, against their library and a plain loop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.language_models import CHAT, pairs_of, save_tiny_causal, texts
from fakes.models import save_tiny_cross_encoder

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.causal_reranker import INSTRUCTION, TEMPLATE
from retrodistill.models.teachers.causal import CausalTeacher
from retrodistill.models.teachers.cross_encoder import CrossEncoderTeacher

PLAIN = "Query: {query} Document: {doc}\nRelevant (yes or no):"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("causal")
    return {
        "chat": save_tiny_causal(root / "chat", chat=CHAT),
        "qwen": save_tiny_causal(root / "qwen"),
        "neo": save_tiny_causal(root / "neo", "neo"),
    }


def texts_of(pairs: Pairs) -> list[tuple[str, str]]:
    """Return the query's and the document's text of each pair."""
    rows = zip(pairs.query_rows, pairs.doc_rows, strict=True)
    return [(pairs.queries[q].full_text, pairs.docs[d].full_text) for q, d in rows]


def plain_scores(folder: Path, prompts: list[str], yes: str, no: str) -> np.ndarray:
    """Return logit(yes) - logit(no) of each prompt, one at a time, in float64."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    yes_id, no_id = tokenizer.convert_tokens_to_ids([yes, no])
    with torch.no_grad():
        rows = [model(**tokenizer(text, return_tensors="pt")).logits[0, -1] for text in prompts]
    return np.array([float(row[yes_id] - row[no_id]) for row in rows])


@pytest.mark.parametrize("max_tokens", [60, 400])
@pytest.mark.parametrize("instruction", ["", "find the treatment"])
def test_a_chat_reranker_equals_its_library(
    instruction: str, max_tokens: int, folders: dict[str, Path]
) -> None:
    """Another prompt than the library's, a cut that takes the question away, a squashed score."""
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    prompts = {"prompts": {"own": instruction}, "default_prompt_name": "own"} if instruction else {}
    peer = CrossEncoder(
        str(folders["chat"]),
        activation_fn=Identity(),
        max_length=max_tokens,
        device="cpu",
        **prompts,
    )
    pairs = pairs_of(4, 9, words=60)
    expected = peer.predict(texts_of(pairs), batch_size=1)
    teacher = CausalTeacher(
        str(folders["chat"]),
        ModelOptions(max_tokens=max_tokens, batch_tokens=500, precision="float32"),
        instruction=instruction,
    )
    assert expected.std() > 0.1
    np.testing.assert_allclose(teacher.score(pairs), expected, atol=1e-4)
    lengths = [
        len(ids) for ids in peer.tokenizer([doc.full_text for doc in pairs.docs])["input_ids"]
    ]
    assert 50 < max(lengths) < 300


def test_without_a_chat_template_the_prompt_is_qwens(folders: dict[str, Path]) -> None:
    """A prompt that differs by a blank from the one that the model was trained with."""
    pairs = pairs_of(3, 7)
    text = TEMPLATE.replace("{instruction}", INSTRUCTION)
    prompts = [text.replace("{query}", q).replace("{doc}", d) for q, d in texts_of(pairs)]
    expected = plain_scores(folders["qwen"], prompts, "yes", "no")
    teacher = CausalTeacher(str(folders["qwen"]), ModelOptions(max_tokens=400, precision="float32"))
    np.testing.assert_allclose(teacher.score(pairs), expected, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize("name", ["qwen", "neo"])
def test_own_templates_and_words_equal_a_plain_loop(name: str, folders: dict[str, Path]) -> None:
    """Learned positions that count the padding, or the wrong tokens for the two answers."""
    pairs = pairs_of(3, 7)
    prompts = [PLAIN.replace("{query}", q).replace("{doc}", d) for q, d in texts_of(pairs)]
    expected = plain_scores(folders[name], prompts, "Ġtrue", "Ġfalse")
    teacher = CausalTeacher(
        str(folders[name]),
        ModelOptions(max_tokens=400, precision="float32"),
        template=PLAIN,
        yes=" true",
        no=" false",
    )
    np.testing.assert_allclose(teacher.score(pairs), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["chat", "neo"])
def test_a_score_is_the_pairs_own(name: str, folders: dict[str, Path]) -> None:
    """A score that depends on its neighbours in a batch, so that a resume changes the table."""
    settings_of_model: dict[str, Any] = {"template": PLAIN} if name == "neo" else {}
    teacher = CausalTeacher(
        str(folders[name]), ModelOptions(max_tokens=90, precision="float32"), **settings_of_model
    )
    assert isinstance(teacher, Teacher)
    pairs = pairs_of(4, 9)
    scores = teacher.score(pairs)
    assert scores.dtype == np.float32
    assert scores.shape == (36,)
    assert (teacher.score(pairs) == scores).all()
    for position in (0, 17, 35):
        pair = Pairs.of(
            [pairs.queries[pairs.query_rows[position]]], [pairs.docs[pairs.doc_rows[position]]]
        )
        np.testing.assert_allclose(teacher.score(pair), scores[position], atol=1e-4)
    assert teacher.score(Pairs.of([], [])).shape == (0,)


@pytest.mark.filterwarnings("ignore:this cpu has no bfloat16")
def test_only_the_last_tokens_logits_are_computed_and_in_float32(folders: dict[str, Path]) -> None:
    """Gigabytes of logits for tokens that nobody asks, or answers rounded to three digits."""
    teacher = CausalTeacher(
        str(folders["chat"]), ModelOptions(max_tokens=90, batch_tokens=800, precision="bfloat16")
    )
    seen = []
    head = teacher._prompt.modules[0].model.get_output_embeddings()
    head.register_forward_hook(lambda _, args, out: seen.append((args[0].shape[1], out.dtype)))
    scores = teacher.score(pairs_of(4, 9))
    assert {str(length) + str(dtype) for length, dtype in seen} == {"1torch.float32"}
    exact = CausalTeacher(str(folders["chat"]), ModelOptions(max_tokens=90, precision="float32"))
    gaps = np.abs(scores - exact.score(pairs_of(4, 9)))
    assert 0 < gaps.max() < 0.5 * scores.std()


def test_the_document_is_cut_and_the_question_never(folders: dict[str, Path]) -> None:
    """Documents that differ within the cut and score the same, or a question that is lost."""
    (query,), long = texts(1, words=4), "blood " * 200
    teacher = CausalTeacher(str(folders["chat"]), ModelOptions(max_tokens=60, precision="float32"))
    docs = [long, long + "cancer", "cancer " + long]
    pairs = Pairs.of(
        [Doc("q", "", query)] * 3, [Doc(str(i), "", doc) for i, doc in enumerate(docs)]
    )
    same, cut, different = teacher.score(pairs)
    assert same == pytest.approx(cut, abs=1e-5)
    assert abs(same - different) > 1e-3


def test_the_fingerprint_is_that_of_the_scores(folders: dict[str, Path], tmp_path: Path) -> None:
    """Two settings that share a store though they score differently."""
    chat = str(folders["chat"])
    settings: list[dict[str, Any]] = [
        {},
        {"instruction": "find it"},
        {"template": PLAIN},
        {"yes": "true", "no": "false"},
        {"yes": "true"},
    ]
    options = ModelOptions(precision="float32")
    prints = [CausalTeacher(chat, options, **named).fingerprint for named in settings]
    shorter = ModelOptions(precision="float32", max_tokens=99)
    prints.append(CausalTeacher(chat, shorter).fingerprint)
    different = save_tiny_causal(tmp_path / "other", chat=CHAT, seed=1)
    prints.append(CausalTeacher(str(different), ModelOptions(precision="float32")).fingerprint)
    assert len(set(prints)) == len(prints)
    assert CausalTeacher(chat, ModelOptions(precision="float32")).fingerprint == prints[0]


def test_what_does_not_fit_is_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    """A causal model read as a classifier, or the other way round: plausible scores of noise."""
    chat, qwen, neo = (str(folders[name]) for name in ("chat", "qwen", "neo"))
    bert = str(save_tiny_cross_encoder(tmp_path / "bert"))
    with pytest.raises(ConfigError, match="use the teacher causal-lm:"):
        CrossEncoderTeacher(chat)
    with pytest.raises(ConfigError, match="use the teacher cross-encoder:"):
        CausalTeacher(bert)
    with pytest.raises(ConfigError, match="needs a model"):
        CausalTeacher("")
    with pytest.raises(ConfigError, match="must be one token"):
        CausalTeacher(qwen, yes="unbelievable")
    with pytest.raises(ConfigError, match="same token"):
        CausalTeacher(qwen, yes="no")
    with pytest.raises(ConfigError, match="needs {instruction}"):
        CausalTeacher(neo, template=PLAIN, instruction="find it")
    with pytest.raises(ConfigError, match="more than this model can read"):
        CausalTeacher(chat, ModelOptions(max_tokens=513))
    with pytest.raises(ConfigError, match="too little of --max-tokens 12"):
        CausalTeacher(qwen, ModelOptions(max_tokens=12))


def test_a_model_without_a_prompt_asks_for_one(tmp_path: Path) -> None:
    """Qwen's marks given to a model for which they are letters."""
    folder = save_tiny_causal(tmp_path, "neo", marks=False)
    with pytest.raises(ConfigError, match="Give its prompt"):
        CausalTeacher(str(folder))
