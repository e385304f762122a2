"""One contract over every registered teacher, and each against its library."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from fakes.corpus import save_small_collection
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.language_models import save_tiny_causal, save_tiny_seq2seq
from fakes.llm_server import reader, serve
from fakes.models import save_tiny_cross_encoder, save_tiny_model

from retrodistill.base.config import MineSettings
from retrodistill.base.errors import ConfigError, MissingExtra
from retrodistill.base.registry import RETRIEVERS, TEACHERS
from retrodistill.base.types import SCALES, Pairs, Teacher, Unit, reads_of
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import ScoreStore
from retrodistill.models.students.pair_head import PairHead
from retrodistill.score import main
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import load_teacher

OWN = "my_lab_teachers:SharedLetters"

MODULE = '''
import numpy as np

class SharedLetters:
    """How many letters of the query are in the document, and how many words it has."""

    scale = "unknown"
    unit = "pair"

    def __init__(self, letters, *, weight=1.0):
        self.letters, self.weight = letters, weight
        self.fingerprint = f"shared letters {letters} {weight}"

    def score(self, pairs):
        def value(query, doc):
            shared = sum(letter in doc and letter in query for letter in self.letters)
            return self.weight * shared + len(doc) / 100

        rows = zip(pairs.query_rows, pairs.doc_rows)
        return np.float32(
            [value(pairs.queries[q].full_text, pairs.docs[d].full_text) for q, d in rows]
        )
'''


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, collection: Collection
) -> Iterator[dict[str, str]]:
    """What each teacher is called with: a random model, an endpoint, or a table of scores."""

    def made(save: Callable[[Path], Path]) -> Path:
        return save(tmp_path_factory.mktemp("model"))

    cross = made(save_tiny_cross_encoder)
    causal = made(save_tiny_causal)
    with serve(reader) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.url)
        lab = tmp_path_factory.mktemp("lab")
        (lab / "my_lab_teachers.py").write_text(MODULE)
        patch.syspath_prepend(lab)
        yield {
            "cross-encoder": f"cross-encoder:{cross}",
            "causal-lm": f"causal-lm:{causal}",
            "late-interaction": f"late-interaction:{made(save_tiny_late_interaction)}",
            "bi-encoder": f"bi-encoder:{tiny_model}",
            "pair-head": f"pair-head:{made(save_tiny_pair_head)}",
            "sparse": f"sparse:{made(save_tiny_sparse)}",
            "bm25": "bm25",
            "lucene": "lucene",
            "pairwise": f"pairwise:{cross}",
            "reader": f"reader:{made(save_tiny_seq2seq)}",
            "generator": f"generator:{causal}",
            "answer-likelihood": f"answer-likelihood:{causal}",
            "llm": "llm:m",
            "llm-pairwise": "llm-pairwise:m",
            "llm-listwise": "llm-listwise:m",
            "run": f"run:{made(partial(scored_pairs, collection))}",
            OWN: f"{OWN}:aeiou",
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BEIR folder of the small collection, whose queries have answers."""
    data = save_small_collection(tmp_path_factory.mktemp("small") / "data")
    rows = [json.loads(line) for line in (data / "queries.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"answer": row["text"].split()[0]}) for row in rows]
    (data / "queries.jsonl").write_text("\n".join(lines) + "\n")
    return data


def save_tiny_pair_head(folder: Path) -> Path:
    """Write a bi-encoder with a random head over pairs of its vectors."""
    model = save_tiny_model(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        PairHead(32).save(model)
    return model


def scored_pairs(collection: Collection, folder: Path) -> Path:
    """Write a run of the pairs that the contract asks for; return its file."""
    ids = made_pairs(collection).ids()
    run = Run.from_columns(ids["query_id"], ids["doc_id"], np.arange(len(ids), dtype=np.float32))
    run.to_parquet(folder / "run.parquet")
    return folder / "run.parquet"


def made_pairs(collection: Collection, count: int = 40) -> Pairs:
    """Return forty documents, each with one of seven queries."""
    queries = [collection.queries[number % 7] for number in range(count)]
    return Pairs.of(queries, [collection.docs[number] for number in range(count)])


def texts_of(pairs: Pairs) -> tuple[list[str], list[str]]:
    """Return the query's and the document's text of each pair."""
    queries = [pairs.queries[row].full_text for row in pairs.query_rows]
    return queries, [pairs.docs[row].full_text for row in pairs.doc_rows]


@pytest.mark.parametrize("name", [*TEACHERS, OWN])
def test_every_teacher_keeps_the_contract(
    name: str, collection: Collection, models: dict[str, str]
) -> None:
    """A score that depends on its neighbours in a batch, so that a resume changes the table."""
    try:
        teacher = load_teacher(models[name], collection, batch_tokens=64)
    except MissingExtra as error:
        pytest.skip(str(error))
    assert isinstance(teacher, Teacher)
    pairs = made_pairs(collection)
    scores = teacher.score(pairs)
    assert scores.dtype == np.float32
    assert scores.shape == (40,)
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) > 4
    assert (teacher.score(pairs) == scores).all()
    assert teacher.scale in SCALES
    assert teacher.unit in get_args(Unit)
    if teacher.unit != "list":
        alone = [
            teacher.score(Pairs.of([pairs.queries[pairs.query_rows[i]]], [pairs.docs[i]]))[0]
            for i in range(5)
        ]
        np.testing.assert_allclose(alone, scores[:5], atol=1e-5)
    else:
        rows = [i for i, row in enumerate(pairs.query_rows) if row == 0]
        list_pairs = Pairs.of([pairs.queries[0]] * len(rows), [pairs.docs[i] for i in rows])
        np.testing.assert_allclose(teacher.score(list_pairs), scores[rows], atol=1e-5)


@pytest.fixture(scope="module")
def doubles(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The collection, in which each text has a second document, whose title is in its text."""
    copy = tmp_path_factory.mktemp("doubles") / "data"
    shutil.copytree(folder, copy)
    rows = [json.loads(line) for line in (copy / "corpus.jsonl").read_text().splitlines()]
    rows += [
        {"_id": f"{row['_id']}-again", "title": "", "text": f"{row['title']} {row['text']}"}
        for row in rows
    ]
    (copy / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_collection(f"beir:{copy}")


@pytest.mark.parametrize("name", [name for name in TEACHERS if name not in ("run", "lucene")])
def test_a_teacher_that_reads_texts_gives_equal_texts_one_score(
    name: str, doubles: Collection, models: dict[str, str]
) -> None:
    """A score that a store copies between documents of equal text, though they differ in it."""
    teacher = load_teacher(models[name], doubles, precision="float32")
    pairs = Pairs.of(
        [doubles.queries[0]] * 6,
        [doubles.docs.get(f"d{number}{end}") for number in range(3) for end in ("", "-again")],
    )
    scores = teacher.score(pairs).reshape(3, 2)
    alike = np.allclose(scores[:, 0], scores[:, 1], atol=1e-5)
    assert alike or reads_of(teacher) != "text" or teacher.unit == "list"
    reads = {"reader": "fields", "answer-likelihood": "id"}  # the answer is found by the query's id
    assert reads_of(teacher) == reads.get(name, "text")
    if name == "reader":
        assert not alike


def test_a_cross_encoder_equals_its_library(collection: Collection, models: dict[str, str]) -> None:
    """Squashed scores, or pairs that are cut elsewhere than in the library."""
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    path = models["cross-encoder"].partition(":")[2]
    peer = CrossEncoder(path, activation_fn=Identity(), max_length=12, device="cpu")
    pairs = made_pairs(collection)
    texts = list(zip(*texts_of(pairs), strict=True))
    teacher = load_teacher(models["cross-encoder"], collection, max_tokens=12, precision="float32")
    np.testing.assert_allclose(teacher.score(pairs), peer.predict(texts), atol=1e-5)


def test_a_bi_encoder_equals_its_library(collection: Collection, models: dict[str, str]) -> None:
    """Vectors of other documents than the ones that were asked for."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(models["bi-encoder"].partition(":")[2], device="cpu")
    pairs = made_pairs(collection)
    queries, docs = texts_of(pairs)
    query_vectors = model.encode_query(queries)
    right = model.encode_document(docs)
    teacher = load_teacher(models["bi-encoder"], collection, max_tokens=128, precision="float32")
    np.testing.assert_allclose(teacher.score(pairs), (query_vectors * right).sum(1), atol=1e-5)


def test_bm25_gives_the_first_stages_scores(collection: Collection) -> None:
    """A lexical teacher with other statistics than the retriever of the same name."""
    run = mine_candidates(collection, "test", settings=MineSettings(depth=10))
    teacher = load_teacher("bm25", collection)
    for query, docs, scores in run.lists():
        queries = [collection.queries.get(query)] * len(docs)
        values = teacher.score(Pairs.of(queries, [collection.docs.get(doc) for doc in docs]))
        np.testing.assert_allclose(values, scores, rtol=1e-6)


@pytest.mark.parametrize("name", ["cross-encoder", "bi-encoder"])
def test_the_fingerprint_is_that_of_the_scores(
    name: str, collection: Collection, models: dict[str, str], tmp_path: Path
) -> None:
    """Two teachers that share a store because their folders have the same name."""
    make = {"cross-encoder": save_tiny_cross_encoder, "bi-encoder": save_tiny_model}[name]
    specs = [models[name], f"{name}:{make(tmp_path / 'other', seed=1)}"]
    prints = {load_teacher(spec, collection).fingerprint for spec in specs}
    prints.add(load_teacher(specs[0], collection, max_tokens=12).fingerprint)
    assert len(prints) == 3
    assert load_teacher(specs[0], collection).fingerprint in prints


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("crossencoder:x", "Did you mean 'cross-encoder'|read as module"),
        ("cross-encoder", "needs a model"),
        ("bi-encoder", "needs a model"),
        ("bm25:x", "takes no argument"),
        ("cross-encoder:/no/such/folder", "there is no folder /no/such/folder"),
    ],
)
def test_teachers_that_are_not_there_are_explained(
    spec: str, message: str, collection: Collection
) -> None:
    """A traceback from deep inside a library for a misspelt name."""
    with pytest.raises(ConfigError, match=message):
        load_teacher(spec, collection)


def test_a_classifier_is_no_ranker(collection: Collection, tmp_path: Path) -> None:
    """A model of three classes whose first logit is taken for a relevance score."""
    path = save_tiny_cross_encoder(tmp_path / "nli", labels=3)
    with pytest.raises(ConfigError, match="3 numbers for a pair"):
        load_teacher(f"cross-encoder:{path}", collection)


def test_a_teacher_of_ones_own_is_one_file(
    collection: Collection, folder: Path, models: dict[str, str], tmp_path: Path
) -> None:
    """A teacher of somebody's lab that needs a line of this package before `score` takes it."""
    mine_candidates(collection, "test", settings=MineSettings(depth=5)).write(tmp_path / "run")
    words = f"--data beir:{folder} --candidates {tmp_path / 'run'} --teacher {models[OWN]}"
    assert main([*words.split(), "--option", "weight=2", "--out", str(tmp_path / "s")]) == 0
    teacher = load_teacher(models[OWN], collection, options=["weight=2"])
    assert ScoreStore.open(tmp_path / "s").manifest.inputs["teacher"] == teacher.fingerprint
    run = Run.read(tmp_path / "s")
    assert len(run) == len(Run.read(tmp_path / "run"))
    for query, docs, scores in run.lists():
        pairs = Pairs.of(
            [collection.queries.get(query)] * len(docs), [collection.docs.get(doc) for doc in docs]
        )
        assert teacher.score(pairs).tolist() == scores.tolist()
    with pytest.raises(ConfigError, match="Did you mean 'weight'"):
        load_teacher(models[OWN], collection, options=["wieght=2"])


def test_a_teacher_gets_what_its_parameters_name(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A teacher that must take a collection, or options, of which it has no use."""
    (tmp_path / "my_lab_parameters.py").write_text(
        "def nothing(argument): return argument\n"
        "def texts(argument, collection): return argument, collection\n"
        "def shared(argument, options): return options.max_tokens\n"
        "def single(argument, *, max_tokens=8): return max_tokens\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = partial(load_teacher, collection=collection, max_tokens=99)
    assert made("my_lab_parameters:nothing:x") == "x"
    assert made("my_lab_parameters:texts:x") == ("x", collection)
    assert made("my_lab_parameters:shared:x") == 99
    assert made("my_lab_parameters:single:x") == 99


def test_an_entry_says_what_its_argument_is() -> None:
    """A list of the parts without a model, kept somewhere else by hand."""
    assert TEACHERS.argument("cross-encoder") == "MODEL"
    assert TEACHERS.argument("run") == "PATH"
    assert TEACHERS.argument("bm25") == TEACHERS.argument(OWN) == ""
    assert {TEACHERS.argument(name) for name in TEACHERS if name.startswith("llm")} == {"NAME"}
    assert RETRIEVERS.argument("dense") == "MODEL"
