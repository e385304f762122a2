"""When does `distil` pay: by what is there to learn from, by student and by teacher.

    python benchmarks/bench_distil.py --data ../shared/data/scifact --work /tmp/distil \\
        --regime documents --regime log --regime labels=100 --seeds 3 \\
        > benchmarks/results/distil_SET_MACHINE_YYYYMM.jsonl
    python benchmarks/tables.py benchmarks/results/distil_SET_MACHINE_YYYYMM.jsonl

`--data` is a BEIR folder, or builtin:pydocs. A regime decides what `distil` gets:

    documents   the documents alone; their titles become queries
    log         also the queries of the train split, without labels (at most --logged)
    labels=N    N of them with their labels, the others as the log; labels=all all of them

The test split is only measured on, never chosen by; the dev split, if there is one, is given with
labels alone. Seeds differ in the training's batches and dropout (and with labels=N, in the labels'
draw not at all). Rows of unseen queries are those of the train split, labelled or not in a regime.
One JSON line a system and row of queries (`rows.py`), with the regime, the
minutes of the whole pipeline for one seed, and what the gate decided.
"""

import argparse
import dataclasses
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import rows

import retrodistill as rd
from retrodistill.base.config import DistilConfig
from retrodistill.data.store.lineage import Lineage
from retrodistill.stages.pipelines.distil import Distilled, distil
from retrodistill.stages.pipelines.distil.layout import NAMES, Layout
from retrodistill.stages.pipelines.distil.situation import look_at

LABELS = "labels="
HEAD = "query-id\tcorpus-id\tscore\n"


def source(data: str) -> "rd.Collection":
    """Return the whole collection."""
    return rd.load_collection(data if ":" in data else f"beir:{data}")


def collection_for(regime: str, data: str, out: Path, *, logged: int) -> tuple[str, str | None]:
    """Write the BEIR folder and the log that a regime gives to `distil`; return both names."""
    collection = source(data)
    folder, log = out / "collection", out / "log.jsonl"
    if not folder.exists():
        _write(collection, regime, folder, log, logged)
    return f"beir:{folder}", str(log) if log.exists() else None


def _write(collection: "rd.Collection", regime: str, folder: Path, log: Path, logged: int) -> None:
    """Write documents, queries and judgements of a regime."""
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as stream:
        for doc in collection.docs:
            row = {"_id": doc.id, "title": doc.title, "text": doc.text}
            stream.write(json.dumps(row) + "\n")
    train = collection.query_ids("train") if "train" in collection.splits else []
    order = sorted(train)
    random.Random(0).shuffle(order)
    count = 0
    if regime.startswith(LABELS):
        number = regime.removeprefix(LABELS)
        count = len(order) if number == "all" else int(number)
    splits = {"test": collection.query_ids("test")}
    if count:
        splits["train"] = order[:count]
        if "dev" in collection.splits:
            splits["dev"] = collection.query_ids("dev")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as stream:
        for query in (query for ids in splits.values() for query in ids):
            row = {"_id": query, "text": collection.queries.get(query).text}
            stream.write(json.dumps(row) + "\n")
    for split, ids in splits.items():
        qrels = collection.qrels(split)
        lines = [f"{q}\t{d}\t{grade}\n" for q in ids for d, grade in qrels[q].items()]
        (folder / "qrels" / f"{split}.tsv").write_text(HEAD + "".join(lines), encoding="utf-8")
    rest = order[count : count + logged] if regime != "documents" else []
    if rest:
        texts = [{"_id": q, "text": collection.queries.get(q).text} for q in rest]
        log.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")


def seeded(config: DistilConfig, seed: int) -> DistilConfig:
    """Return the settings with another seed of the trainings alone: the rest is made once."""
    layout = Layout(config=config, situation=look_at(config))
    plan = {f"student-{name}": {"seed": seed} for name in layout.trained}
    return dataclasses.replace(config, plan=plan)


def runs_of(
    config: DistilConfig, *, seeds: int
) -> tuple[dict[str, list[rd.Run]], Distilled, float]:
    """Run the pipeline for each seed; return the runs of each system, the last end, and minutes."""
    systems: dict[str, list[rd.Run]] = {}
    started, minutes = time.perf_counter(), 0.0
    for seed in range(seeds):
        result = distil(seeded(config, seed))
        assert result is not None
        minutes = minutes or (time.perf_counter() - started) / 60
        for folder in NAMES:
            path = config.out / "runs" / "test" / folder
            if path.exists():
                systems.setdefault(NAMES[folder], []).append(rd.Run.read(path))
    fixed = (NAMES["bm25"], NAMES["untouched"], NAMES["fused"])
    return {n: r[:1] if n in fixed else r for n, r in systems.items()}, result, minutes


def measured(regime: str, options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of a regime."""
    name = f"{regime}-{options.name}" if options.name else regime
    work = options.work / Path(options.data.replace(":", "-")).name / regime
    data, log = collection_for(regime, options.data, work, logged=options.logged)
    config = DistilConfig(
        data=data,
        queries=log,
        student=options.student,
        teacher=tuple(options.teacher or ()),
        writer=(options.writer,) if options.writer else (),
        max_generated=options.generated,
        keep_layers=tuple(map(int, options.keep_layers.split(","))) if options.keep_layers else (),
        steps=options.steps,
        depth=options.depth,
        out=work / (options.name or "app"),
    )
    systems, result, minutes = runs_of(config, seeds=options.seeds)
    against = dict.fromkeys(systems, NAMES["untouched"])
    if NAMES["labelled"] in systems:
        against[NAMES["distilled"]] = NAMES["labelled"]
    about = {"set": Path(options.data).name, "regime": name, "minutes": round(minutes, 1)}
    about |= {"steps": options.steps, "chosen": NAMES[result.choice.name]}
    about |= {"teachers": list(options.teacher or ["bm25", "student"])}
    collection = source(options.data)
    labels = ("train",) if "train" in collection.splits else ()
    if labels:
        # Titles of every document were queries: what counts as seen are the labels.
        unrecorded = Lineage()
        systems = {
            title: [dataclasses.replace(run, lineage=unrecorded) for run in runs]
            for title, runs in systems.items()
        }
    for line in rows.lines(collection, systems, against=against, trained_on=labels):
        system = f"{name}: {line['system']}"
        yield about | line | {"system": system} | rows.machine()


def main(words: Sequence[str] | None = None) -> None:
    """Measure each regime and print its lines."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--regime", action="append", required=True)
    parser.add_argument("--name", default="", help="name of this student and teacher, for the rows")
    parser.add_argument("--student", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--teacher", action="append")
    parser.add_argument("--keep-layers", default="")
    parser.add_argument("--writer", default="")
    parser.add_argument("--generated", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--logged", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(words)
    for regime in options.regime:
        for line in measured(regime, options):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
