"""Do many threads get the answers of one? Searches and encodings with a prompted model.

    python benchmarks/check_threads.py > benchmarks/results/threads_MACHINE_YYYYMM.jsonl

THREADS threads ask SEARCHES questions of indexes of several kinds, in turns, all with one encoder
whose queries and documents have prompts and lengths of their own; every tenth question is a
document to be encoded instead, and every third search has a condition. Each answer is compared,
number by number, with the one that a single thread got before. Prints one JSON object, and exits
with 1 if any answer differs. `--model`: default all-MiniLM-L6-v2, of which two layers are kept.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

import retrodistill as rd
from retrodistill.base.manifest import library_versions
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.models.indexes import index_kind
from retrodistill.models.inference import pick_device
from retrodistill.models.students.dense import load_bi_encoder
from retrodistill.models.students.transforms import keep_layers
from retrodistill.quickstart import packaged_model

THREADS, SEARCHES, DOCUMENTS, QUESTIONS = 32, 10_000, 2_000, 500
KINDS = ("exact", "flat", "ivf", "hnsw", "binary", "ivf-pq")
PROMPTS = {"query": "Represent the question for search: ", "document": "A document: "}


def make_encoder(model: str) -> rd.DenseEncoder:
    """Return two layers of a model, with prompts and short lengths."""
    student = keep_layers(load_bi_encoder(model, pick_device()), [0, 5])
    student.prompts = PROMPTS
    student[0].query_length, student[0].document_length = 16, 48
    return rd.DenseEncoder(student)


def make_work(model: str, data: str) -> Callable[[int], Any]:
    """Return what answers question `number` of QUESTIONS."""
    docs = rd.load_collection(data).docs
    texts = docs.full_texts(spread_rows(len(docs), DOCUMENTS))
    encoder = make_encoder(model)
    vectors = encoder.encode_docs(texts)
    year = pa.table({"year": 2000 + np.arange(len(texts)) % 10})
    searchers = []
    for kind in KINDS:
        index = index_kind(kind)(encoder.dimension)
        index.train(vectors, len(vectors))
        index.add([f"d{row}" for row in range(len(texts))], vectors, year)
        searchers.append(rd.Searcher(encoder, index))

    def work(number: int) -> Any:
        text = " ".join(texts[number * 3].split()[: 3 + number % 40])
        if number % 10 == 0:
            return encoder.encode_docs([text]).tobytes()
        where = f"year >= {2000 + number % 9}" if number % 3 == 0 else None
        hits = searchers[number % len(KINDS)].search(text, 10, where=where)
        return [(hit.doc_id, hit.score) for hit in hits]

    return work


def main() -> int:
    """Compare, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=packaged_model())
    parser.add_argument("--data", default="builtin:pydocs")
    parser.add_argument("--searches", type=int, default=SEARCHES)
    options = parser.parse_args()
    work = make_work(options.model, options.data)
    began = time.perf_counter()
    alone = [work(number) for number in range(QUESTIONS)]
    single = (time.perf_counter() - began) / QUESTIONS
    numbers = np.random.default_rng(0).integers(0, QUESTIONS, options.searches).tolist()
    sys.setswitchinterval(1e-4)
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(work, numbers))
    many = (time.perf_counter() - began) / options.searches
    different = sum(
        answer != alone[number] for number, answer in zip(numbers, answers, strict=True)
    )
    row = {
        "threads": THREADS,
        "searches": options.searches,
        "different": different,
        "ms_one_thread": round(1e3 * single, 2),
        "ms_threads": round(1e3 * many, 2),
    }
    print(json.dumps(row | library_versions()))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
