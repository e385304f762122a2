"""Query likelihoods, against a plain loop in float64."""

from pathlib import Path

import numpy as np
import pytest
from fakes.language_models import pairs_of, save_tiny_causal, save_tiny_seq2seq

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.types import SCALES, Doc, Pairs, Teacher
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.teachers import generator
from retrodistill.models.teachers.generator import TEMPLATE, GeneratorTeacher

MODELS = ("qwen", "neo", "t5", "bart")
CAUSAL = ("qwen", "neo")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("generator")
    save = {name: save_tiny_causal if name in CAUSAL else save_tiny_seq2seq for name in MODELS}
    return {name: save[name](root / name, name) for name in MODELS}


def plain_likelihoods(name: str, folder: Path, query: str, doc: str) -> np.ndarray:
    """Return the log-probability of each token of a query, for one input, in float64."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = TEMPLATE.replace("{doc}", doc)
    kind = AutoModelForCausalLM if name in CAUSAL else AutoModelForSeq2SeqLM
    model = kind.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        if name in CAUSAL:
            start = len(tokenizer(prompt)["input_ids"])
            ids = tokenizer(f"{prompt} {query}", return_tensors="pt")["input_ids"]
            logits, targets = model(ids).logits[0, start - 1 : -1], ids[0, start:]
        else:
            targets = torch.tensor(tokenizer(query, add_special_tokens=False)["input_ids"])
            begin = [0] if name == "t5" else [tokenizer.eos_token_id, tokenizer.bos_token_id]
            written = torch.cat([torch.tensor(begin), targets[:-1]])[None]
            inputs = tokenizer(prompt, return_tensors="pt")
            logits = model(**inputs, decoder_input_ids=written).logits[0, len(begin) - 1 :]
        nats = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return nats.numpy()


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_scores_equal_a_plain_loop(name: str, per_token: bool, folders: dict[str, Path]) -> None:
    """The prompt's likelihood for the query's, or one token too few, or padding that is read."""
    pairs = pairs_of(3, 5)
    teacher = GeneratorTeacher(
        str(folders[name]), ModelOptions(max_tokens=400, precision="float32"), per_token=per_token
    )
    scores = teacher.score(pairs)
    for position in (0, 4, 7, 14):
        query = pairs.queries[pairs.query_rows[position]].full_text
        doc = pairs.docs[pairs.doc_rows[position]].full_text
        nats = plain_likelihoods(name, folders[name], query, doc)
        assert scores[position] == pytest.approx(nats.mean() if per_token else nats.sum(), abs=2e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_score_is_the_pairs_own(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score that depends on its neighbours in a batch, or on how batches are split up."""
    teacher = GeneratorTeacher(str(folders[name]), ModelOptions(max_tokens=90, precision="float32"))
    assert isinstance(teacher, Teacher)
    assert teacher.scale in SCALES
    pairs = pairs_of(4, 6)
    scores = teacher.score(pairs)
    assert scores.dtype == np.float32
    assert (scores < 0).all()
    assert (teacher.score(pairs) == scores).all()
    for position in (0, 11, 23):
        pair = Pairs.of(
            [pairs.queries[pairs.query_rows[position]]], [pairs.docs[pairs.doc_rows[position]]]
        )
        np.testing.assert_allclose(teacher.score(pair), scores[position], atol=1e-4)
    monkeypatch.setattr(generator, "LOGITS_AT_ONCE", 1)
    np.testing.assert_allclose(teacher.score(pairs), scores, atol=1e-4)
    assert teacher.score(Pairs.of([], [])).shape == (0,)


@pytest.mark.parametrize("name", MODELS)
def test_the_query_is_never_cut_for_a_document(name: str, folders: dict[str, Path]) -> None:
    """Likelihoods of the first words of a query only, where documents are long."""
    teacher = GeneratorTeacher(
        str(folders[name]), ModelOptions(max_tokens=60, precision="float32"), per_token=False
    )
    long = "cancer " * 200
    docs = [Doc("a", "", long), Doc("b", "", long + "blood"), Doc("c", "", "blood " + long)]
    query = "insulin blood pressure"
    same, cut, different = teacher.score(Pairs.of([Doc("q", "", query)] * 3, docs))
    assert same == pytest.approx(cut, abs=1e-4)
    assert abs(same - different) > 1e-4
    room = 60 - len(_ids(folders[name], TEMPLATE.replace("{doc}", "")))
    room -= len(_ids(folders[name], query)) if name in CAUSAL else 0
    shortened = "cancer " * (room + 3)
    shorter = [
        teacher.score(Pairs.of([Doc("q", "", query)], [Doc("d", "", shortened[: 7 * words - 1])]))
        for words in range(room - 3, room + 4)
    ]
    assert min(abs(score[0] - same) for score in shorter) < 1e-4


def _ids(folder: Path, text: str) -> list[int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)(text)["input_ids"]


@pytest.mark.filterwarnings("ignore:this cpu has no bfloat16")
def test_only_the_logits_of_the_query_are_computed_and_in_float32(folders: dict[str, Path]) -> None:
    """Gigabytes of logits for the prompt's tokens, or likelihoods rounded to three digits."""
    pairs = pairs_of(3, 5)
    for name in MODELS:
        teacher = GeneratorTeacher(str(folders[name]), ModelOptions(precision="bfloat16"))
        seen = []
        head = teacher._model.model.get_output_embeddings()
        head.register_forward_hook(
            lambda _, args, out, seen=seen: seen.append((args[0].shape[1], str(out.dtype)))
        )
        scores = teacher.score(pairs)
        longest = max(len(_ids(folders[name], query.full_text)) for query in pairs.queries)
        assert max(length for length, _ in seen) <= longest + 2
        assert {dtype for _, dtype in seen} == {"torch.float32"}
        exact = GeneratorTeacher(str(folders[name]), ModelOptions(precision="float32")).score(pairs)
        assert 0 < np.abs(scores - exact).max() < 0.5


def test_the_fingerprint_is_that_of_the_scores(folders: dict[str, Path], tmp_path: Path) -> None:
    """Two settings that share a store though they score differently."""
    t5 = str(folders["t5"])
    teachers = [
        GeneratorTeacher(t5),
        GeneratorTeacher(t5, per_token=False),
        GeneratorTeacher(t5, template="{doc} question:"),
        GeneratorTeacher(t5, ModelOptions(max_tokens=99)),
        GeneratorTeacher(str(folders["qwen"])),
        GeneratorTeacher(str(save_tiny_seq2seq(tmp_path / "t5", seed=1))),
    ]
    assert len({teacher.fingerprint for teacher in teachers}) == len(teachers)
    assert GeneratorTeacher(t5).fingerprint == teachers[0].fingerprint


def test_what_does_not_fit_is_explained(folders: dict[str, Path]) -> None:
    """A template that asks for the query beside the query, or a mean over no tokens."""
    t5 = str(folders["t5"])
    for model, settings, message in [
        ("", {}, "needs a model"),
        (t5, {"template": "Passage:"}, "needs {doc}, once each"),
        (t5, {"template": "{doc} {query}"}, "the query follows"),
        (
            str(folders["qwen"]),
            {"options": ModelOptions(max_tokens=513)},
            "more than this model can read",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            GeneratorTeacher(model, **settings)
    with pytest.raises(DataError, match="query 'q7' has no tokens"):
        GeneratorTeacher(t5).score(Pairs.of([Doc("q7", "", "")], [Doc("d", "", "blood")]))
