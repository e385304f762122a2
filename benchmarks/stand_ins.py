"""What `bench_growth.py` measures with in place of models and people: texts, labels, answers.

All of it is made up and takes next to no time. The parts that a verb loads by their path, as
`stand_ins:Teacher`, are found because the folder of a script is on Python's path.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import retrodistill as rd
from retrodistill.base.types import Doc, Pairs
from retrodistill.models.writers import Draft

DEPTH, WORDS, DIMENSION, ASKED = 100, 55, 64, 200


class Teacher:
    """A teacher that answers at once."""

    fingerprint = "stand-in"
    scale = "logit"
    unit = "document"

    def __init__(self, argument: str = "", **settings: Any) -> None:
        pass

    def score(self, pairs: Pairs) -> np.ndarray:
        """Return a number of each pair."""
        return ((pairs.query_rows * 31 + pairs.doc_rows * 17) % 1009).astype(np.float32)


class Judge(Teacher):
    """A teacher whose numbers depend on a pair alone, as a judge's must."""

    unit = "pair"


class Writer:
    """A writer whose query is the first words of a document."""

    fingerprint = "stand-in"

    def __init__(self, argument: str, docs: object, options: object) -> None:
        pass

    def estimate(self, docs: Sequence[Doc]) -> str:
        """Return nothing."""
        return ""

    def write(self, docs: Sequence[Doc]) -> list[Draft]:
        """Return a query for each document."""
        return [Draft(" ".join(doc.text.split()[:8]), "question", doc.id) for doc in docs]


class Encoder:
    """An encoder whose vectors are hashes of texts."""

    fingerprint = doc_fingerprint = "stand-in"
    name, dtype, max_tokens = "stand-in", "float32", 512
    dimension = DIMENSION
    normalised = docs_normalised = True

    def encode_docs(self, texts: Sequence[str]) -> np.ndarray:
        """Return a unit vector of each text."""
        raw = b"".join(hashlib.blake2b(text.encode(), digest_size=64).digest() for text in texts)
        vectors = np.frombuffer(raw, np.int8).reshape(-1, DIMENSION).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_queries = encode_docs

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Return their numbers of words."""
        return np.array([len(text.split()) for text in texts])

    def save(self, folder: Path) -> None:
        """Write nothing."""


class SavedEncoder(Encoder):
    """The same, in the name of a model of one layer, which encodes what is asked of its index.

    Its vectors stand in the cache as those of the model, so that no document is ever encoded.
    """

    def __init__(self, folder: Path, *, max_tokens: int = 128) -> None:
        from fakes.models import save_tiny_model

        self.path = save_tiny_model(folder, layers=1, dimension=DIMENSION)
        model = rd.DenseEncoder(self.path, max_tokens=max_tokens, precision="float32")
        self.max_tokens = max_tokens
        self.fingerprint, self.doc_fingerprint = model.fingerprint, model.doc_fingerprint
        self.save = model.save


def made_texts(count: int, words: int) -> Iterator[str]:
    """Yield texts whose words are as unequally frequent as a language's."""
    rng = np.random.default_rng(0)
    names = np.array([f"word{number:x}" for number in range(50_000)], object)
    for _ in range(count):
        yield " ".join(names[(rng.pareto(1.1, words) * 10).astype(int) % len(names)])


def write(folder: Path, docs: int, queries: int) -> None:
    """Write a BEIR folder whose every query has one relevant document.

    The split `train` has all queries, `few` and `test` have half of the first ASKED each.
    """
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as stream:
        for number, text in enumerate(made_texts(docs, WORDS)):
            row = {"_id": f"doc{number:08d}", "title": "", "text": text, "part": number * 7 % 100}
            stream.write(json.dumps(row) + "\n")
    with (folder / "queries.jsonl").open("w") as stream:
        for number, text in enumerate(made_texts(queries, 6)):
            stream.write(json.dumps({"_id": f"query{number:07d}", "text": text}) + "\n")
    judged = [
        f"query{number:07d}\tdoc{_docs_of(number, docs)[3]:08d}\t1\n" for number in range(queries)
    ]
    half = ASKED // 2
    for split, lines in (("train", judged), ("few", judged[:half]), ("test", judged[half:ASKED])):
        text = "query-id\tcorpus-id\tscore\n" + "".join(lines)
        (folder / "qrels" / f"{split}.tsv").write_text(text)


def made_run(queries: int, docs: int, seed: int = 0) -> rd.Run:
    """Return DEPTH documents for each query."""
    rng = np.random.default_rng(seed)
    doc_rows = np.concatenate([_docs_of(query, docs) for query in range(queries)])
    doc_names = pa.array([f"doc{number:08d}" for number in range(docs)])
    query_names = pa.array([f"query{number:07d}" for number in range(queries)])
    owners = np.repeat(np.arange(queries), DEPTH)
    scores = rng.random(len(doc_rows), np.float32)
    return rd.Run.from_columns(query_names.take(owners), doc_names.take(doc_rows), scores)


def _docs_of(query: int, docs: int) -> np.ndarray:
    return (query * 97 + np.arange(DEPTH) * 13) % docs
