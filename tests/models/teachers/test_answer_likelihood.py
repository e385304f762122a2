"""Answer likelihoods, against a plain loop in float64; where answers come from."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import save_small_collection
from fakes.language_models import save_tiny_causal, save_tiny_seq2seq

from retrodistill.base.errors import DataError
from retrodistill.base.types import Pairs
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.teachers.answer_likelihood import TEMPLATE, AnswerTeacher
from retrodistill.models.teachers.generator import GeneratorTeacher

MODELS = {"qwen": save_tiny_causal, "t5": save_tiny_seq2seq}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("answers")
    return {name: save(root / name, name) for name, save in MODELS.items()}


def answered(folder: Path, *, field: str = "answer", queries: int = 32) -> Collection:
    """Return a small collection whose first queries have answers."""
    data = save_small_collection(folder)
    lines = [json.loads(line) for line in (data / "queries.jsonl").read_text().splitlines()]
    for number, row in enumerate(lines[:queries]):
        answer = f"{row['text'].split()[0]} number {number}"
        row |= {"answer": answer} if field == "answer" else {"metadata": {"answers": [answer, "x"]}}
    (data / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return load_collection(f"beir:{data}")


def some_pairs(collection: Collection) -> Pairs:
    queries = [collection.queries[number // 3] for number in range(9)]
    return Pairs.of(queries, [collection.docs[number] for number in range(9)])


def plain(name: str, folder: Path, query: str, doc: str, answer: str) -> float:
    """Return the summed log-probability of an answer's tokens, in float64."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = TEMPLATE.replace("{doc}", doc).replace("{query}", query)
    kind = AutoModelForCausalLM if name == "qwen" else AutoModelForSeq2SeqLM
    model = kind.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        if name == "qwen":
            start = len(tokenizer(prompt)["input_ids"])
            ids = tokenizer(f"{prompt} {answer}", return_tensors="pt")["input_ids"]
            logits, targets = model(ids).logits[0, start - 1 : -1], ids[0, start:]
        else:
            targets = torch.tensor(tokenizer(answer, add_special_tokens=False)["input_ids"])
            written = torch.cat([torch.tensor([0]), targets[:-1]])[None]
            inputs = tokenizer(prompt, return_tensors="pt")
            logits = model(**inputs, decoder_input_ids=written).logits[0]
        return float(logits.log_softmax(-1).gather(-1, targets[:, None]).sum())


@pytest.mark.parametrize("field", ["answer", "answers"])
@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_scored_and_not_the_query(
    name: str, field: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """The query's likelihood under another name; a document that the generator does not read."""
    collection = answered(tmp_path / "data", field=field)
    options = ModelOptions(max_tokens=200, precision="float32")
    teacher = AnswerTeacher(str(folders[name]), collection, options)
    pairs = some_pairs(collection)
    scores = teacher.score(pairs)
    for place in (0, 4, 8):
        query, doc = pairs.queries[pairs.query_rows[place]], pairs.docs[pairs.doc_rows[place]]
        answer = f"{query.text.split()[0]} number {query.id[1:]}"
        expected = plain(name, folders[name], query.full_text, doc.full_text, answer)
        assert scores[place] == pytest.approx(expected, abs=1e-3)
    assert len({*scores.tolist()}) == 9
    query_scores = GeneratorTeacher(str(folders[name]), options, per_token=False).score(pairs)
    assert not np.allclose(scores, query_scores)
    other = AnswerTeacher(str(folders[name]), collection, options, per_token=True)
    assert other.fingerprint != teacher.fingerprint


def test_other_answers_are_another_teacher(folders: dict[str, Path], tmp_path: Path) -> None:
    """Scores of last week's answers that are taken for those of today's."""
    options = ModelOptions(max_tokens=200, precision="float32")
    prints = {
        AnswerTeacher(
            str(folders["t5"]), answered(tmp_path / str(n), queries=n), options
        ).fingerprint
        for n in (20, 32)
    }
    assert len(prints) == 2


def test_a_query_without_an_answer_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    """A likelihood of nothing, which is 0 for every document."""
    options = ModelOptions(max_tokens=200, precision="float32")
    collection = answered(tmp_path / "some", queries=2)
    teacher = AnswerTeacher(str(folders["t5"]), collection, options)
    with pytest.raises(DataError, match="1 of 3 queries have no answer, such as 'q2'"):
        teacher.score(some_pairs(collection))
    without = load_collection(f"beir:{save_small_collection(tmp_path / 'none')}")
    with pytest.raises(DataError, match="have no field `answer`. Give each an answer"):
        AnswerTeacher(str(folders["t5"]), without, options)
