"""Run the main job once, in minutes, on what every installation has.

    python -m retrodistill.quickstart

From documents to a small, distilled, searchable and measured student, over the documentation of
the installed Python libraries, starting from all-MiniLM-L6-v2 (six layers):

1. mine candidates by BM25 and the six-layer model: of a few queries with labels (from the train
   split), and of more without (those of --queries; else those of the dev split play a query log)
2. train a cross-encoder teacher on the labels
3. score the candidates with three teachers (BM25, six layers, cross-encoder), and average them
4. distil a three-layer student from the scores, and train its twin on the labels alone
5. embed, search and measure them all
"""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrodistill.base.command import run
from retrodistill.base.config import QuickstartConfig
from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.base.progress import duration
from retrodistill.models.inference import model_path

if TYPE_CHECKING:
    from retrodistill.base.config import TrainSettings
    from retrodistill.base.types import Teacher
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run
    from retrodistill.stages.evaluation import Evaluation
    from retrodistill.stages.searching import Searcher

PACKAGED = "packaged:all-MiniLM-L6-v2"
KEPT = (0, 2, 5)
TOKENS = 96
LABELLED = 160
STEPS = 30
SCORED = 8
RERANKED = 6
DISTILLED = "listwise-kl-in-batch(teacher_temperature=0.5) + contrastive"
COLUMNS = ("system", "nDCG@10", "Recall@100", "docs/s", "query ms", "MB")
EXAMPLE = "read a file line by line"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(QuickstartConfig, quickstart, verb="quickstart", about=__doc__, words=words)


def quickstart(config: QuickstartConfig) -> None:
    """Do the job, print the table, and leave all that was made in --out."""
    import retrodistill as rd
    from retrodistill.stages.evaluation import evaluate_with_unseen

    started = time.perf_counter()
    out, model = config.out, model_path(config.model or PACKAGED)
    collection = rd.load_collection(config.data)
    logged = rd.load_collection(config.data, queries=config.queries)
    mining = rd.MineSettings(retriever=("bm25", f"dense:{model}"), max_tokens=TOKENS)

    log.info("\n1. Candidates of queries, few of them with labels")
    labelled = short_lists(
        rd.mine_candidates(collection, "train", replace(mining, depth=50, add_positives=True)),
        collection,
    )
    split = "dev" if config.queries is None else None
    unlabelled = rd.mine_candidates(logged, split, replace(mining, depth=SCORED)).to_dict()
    labelled_lists = labelled.to_dict()
    candidates = rd.Run.from_dict(
        labelled_lists | unlabelled | labelled_lists, lineage=labelled.lineage
    )
    candidates.write(out / "runs" / "candidates", overwrite=True)

    log.info("\n2. A cross-encoder teacher, from the labels")
    reranker = train_teacher(collection, labelled, model, out / "teacher")

    log.info("\n3. Scores of three teachers, and their mean")
    specs = ("bm25", f"bi-encoder:{model}", f"cross-encoder:{reranker}")
    teachers = {spec: rd.load_teacher(spec, collection, max_tokens=TOKENS) for spec in specs}
    scores = mean_of_teachers(logged, candidates, teachers, out / "scores" / "train")

    log.info("\n4. Two students of three layers: one from the labels, one from the scores as well")
    models = train_students(logged, scores, labelled.query_ids, model, out / "students")

    log.info("\n5. Search and measure")
    runs, costs = measure_systems(collection, models | {"six layers": Path(model)}, out)
    hits = rd.mine_candidates(collection, "test", replace(mining, depth=100))
    runs["teacher"], costs["teacher"] = measure_teacher(
        collection, hits, teachers, out / "scores" / "test", reranker
    )
    for name, system_run in runs.items():
        system_run.write(out / "runs" / name.replace(" ", "-"), overwrite=True)
    report = evaluate_with_unseen(collection, collection.qrels("test"), runs)
    report.write(out / "report.json")
    print_report(report, costs, collection, out)
    print(f"Done in {duration(time.perf_counter() - started)}. The numbers: {out / 'report.json'}")


def budget() -> "TrainSettings":
    """Return the settings of all trainings: equally many steps, candidates and tokens."""
    from retrodistill.base.config import TrainSettings

    return TrainSettings(
        candidates_per_query=4,
        pool=SCORED - 1,
        batch_size=16,
        max_steps=STEPS,
        dropout=0.0,
        learning_rate=1e-4,
        doc_tokens=TOKENS,
        unlabelled_split=("dev",),
    )


def train_teacher(collection: "Collection", labelled: "Run", model: str, out: Path) -> Path:
    """Return the folder of a cross-encoder that is trained on the labels."""
    import retrodistill as rd

    return rd.train_student(
        collection,
        model,
        out,
        sources=[labelled],
        settings=replace(
            budget(), student_kind="cross-encoder", objective="contrastive(temperature=1)"
        ),
        overwrite=True,
    )


def train_students(
    collection: "Collection", scores: "Run", labelled: Sequence[str], model: str, out: Path
) -> dict[str, Path]:
    """Return the folders of the distilled student and of its twin, which has the labels alone."""
    import retrodistill as rd

    return {
        name: rd.train_student(
            collection,
            model,
            out / name,
            sources=[lists],
            settings=replace(budget(), keep_layers=KEPT, objective=objective),
            overwrite=True,
        )
        for name, objective, lists in (
            ("contrastive", "contrastive", scores.select(labelled)),
            ("distilled", DISTILLED, scores),
        )
    }


def measure_systems(
    collection: "Collection", models: Mapping[str, Path], out: Path
) -> tuple[dict[str, "Run"], dict[str, "Cost"]]:
    """Embed each model and search with it; return runs and costs, BM25's first."""
    import retrodistill as rd

    runs, costs = {}, {}
    runs["BM25"], costs["BM25"] = measure_bm25(collection)
    for name, path in models.items():
        folder = out / "indexes" / name.replace(" ", "-")
        encoder = rd.DenseEncoder(path, max_tokens=TOKENS)
        rd.embed_collection(collection, encoder, out=folder, overwrite=True)
        runs[name], costs[name] = measure_student(collection, rd.Searcher.open(folder), path)
    return runs, costs


def print_report(
    report: "Evaluation", costs: Mapping[str, "Cost"], collection: "Collection", out: Path
) -> None:
    """Print the table, the rows of unseen queries, and a search with the distilled student."""
    import retrodistill as rd
    from retrodistill.stages.reporting.results import print_unseen
    from retrodistill.stages.reporting.tables import print_table

    rows = [
        (name, f"{means['ndcg@10']:.4f}", f"{means['recall@100']:.4f}", *costs[name])
        for name, means in report.systems.items()
    ]
    queries = report.settings["queries"]
    title = f"{len(collection.docs):,} documents, {queries} test queries"
    print_table(COLUMNS, rows, best=("nDCG@10",), title=title)
    print_unseen(report.to_dict(), tests=False, notes=False)
    index = out / "indexes" / "distilled"
    for hit in rd.Searcher.open(index).search(EXAMPLE, k=3):
        print(f"{hit.score:.3f}  {hit.title}")
    print(f'\nSearch it:  python -m retrodistill.search --index {index} "{EXAMPLE}" --k 3')


def packaged_model() -> str:
    """Return the folder of all-MiniLM-L6-v2 from its PyPI package."""
    return model_path(PACKAGED)


def short_lists(mined: "Run", collection: "Collection") -> "Run":
    """Return LABELLED queries with their best SCORED candidates, a relevant one among them."""
    from retrodistill.data.store.runs import Run

    relevant = collection.relevant("train")
    step = max(1, len(mined.query_ids) // LABELLED)
    lists = {}
    for query, docs, scores in mined.select(mined.query_ids[::step][:LABELLED]).lists():
        doc_scores = dict(zip(docs, scores.tolist(), strict=True))
        chosen = docs[:SCORED] + [doc for doc in docs[SCORED:] if doc in relevant[query]]
        lists[query] = {doc: doc_scores[doc] for doc in chosen}
    return Run.from_dict(lists, lineage=mined.lineage)


def mean_of_teachers(
    collection: "Collection", candidates: "Run", teachers: Mapping[str, "Teacher"], out: Path
) -> "Run":
    """Return the mean of the teachers' z-scores; the stores stay in `out`."""
    import retrodistill as rd

    shutil.rmtree(out, ignore_errors=True)
    stores = (
        rd.score_candidates(collection, candidates, teacher, out / spec.partition(":")[0])
        for spec, teacher in teachers.items()
    )
    return rd.average_scores([store.run() for store in stores])


Cost = tuple[str, str, str]
"""Documents a second, milliseconds a query, megabytes of weights: as they are printed."""


def measure_bm25(collection: "Collection") -> tuple["Run", Cost]:
    """Return BM25's run of the test queries and its cost."""
    import retrodistill as rd
    from retrodistill.models.retrievers.bm25 import Lexicon
    from retrodistill.stages.evaluation.efficiency import median_ms, per_second

    texts = collection.docs.full_texts()
    lexicon = Lexicon(texts)
    cost = (
        f"{per_second(Lexicon, texts):,.0f}",
        f"{median_ms(lambda text: lexicon.top(text, 100), some_queries(collection)):.1f}",
        "-",
    )
    return rd.mine_candidates(collection, "test", settings=rd.MineSettings(depth=100)), cost


def measure_student(
    collection: "Collection", searcher: "Searcher", model: Path
) -> tuple["Run", Cost]:
    """Return a student's run of the test queries and its cost."""
    from retrodistill.stages.evaluation.efficiency import median_ms, per_second, weights_mb
    from retrodistill.stages.searching import search_run

    sample = collection.docs.full_texts(range(0, len(collection.docs), 32))
    cost = (
        f"{per_second(searcher.encoder.encode_docs, sample):,.0f}",
        f"{median_ms(searcher.search, some_queries(collection)):.1f}",
        f"{weights_mb(model):.0f}",
    )
    return search_run(searcher, collection, "test", 100), cost


def measure_teacher(
    collection: "Collection",
    first: "Run",
    teachers: Mapping[str, "Teacher"],
    out: Path,
    model: Path,
) -> tuple["Run", Cost]:
    """Return the test run whose best RERANKED documents the teachers reranked, and its cost."""
    from retrodistill.data.rankings import reranked
    from retrodistill.stages.evaluation.efficiency import weights_mb

    started = time.perf_counter()
    scores = mean_of_teachers(collection, first.top(RERANKED), teachers, out)
    seconds = time.perf_counter() - started
    cost = (
        f"{len(scores) / seconds:,.0f}",
        f"{1e3 * seconds / len(scores.query_ids):.1f}",
        f"{weights_mb(model):.0f}",
    )
    return reranked(first, scores), cost


def some_queries(collection: "Collection") -> list[str]:
    """Return the texts of some test queries."""
    ids = collection.query_ids("test")
    if not ids:
        raise ConfigError(f"{collection.name} has no test queries.")
    return collection.queries.full_texts(collection.queries.rows(ids[:: max(1, len(ids) // 40)]))


if __name__ == "__main__":
    sys.exit(main())
