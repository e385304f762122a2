"""Run the main job once, in minutes, on what every installation has.

    python -m retrodistill.quickstart

From documents to a small, distilled, searchable and measured student, over the documentation of
the installed Python libraries, starting from all-MiniLM-L6-v2 (six layers):

1. mine candidates by BM25 and the six-layer model
2. train a cross-encoder teacher on the labels of the train split
3. score the candidates with three teachers (BM25, six layers, cross-encoder) and average them
4. distil a three-layer student from the scores, and train its twin on the labels alone
5. embed, search and measure them all
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from retrodistill.command import run
from retrodistill.config import QuickstartConfig

if TYPE_CHECKING:
    from retrodistill.store.runs import Run

KEPT = (0, 2, 5)
TOKENS = 96
QUERIES = 480
SCORED = 8
RERANKED = 10
LABELS = "contrastive"
DISTILLED = "listwise-kl-in-batch(teacher_temperature=0.3) + 0.2*contrastive"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status (0 done, 2 a mistake of the user)."""
    return run(QuickstartConfig, quickstart, verb="quickstart", about=__doc__, words=words)


def quickstart(config: QuickstartConfig) -> None:
    """Do the job, print the table, and leave all that was made in --out."""
    import retrodistill as rd
    from retrodistill.evaluation.efficiency import median_ms, per_second, weights_mb
    from retrodistill.manifest import write_atomically
    from retrodistill.progress import duration, say
    from retrodistill.searching import search_run
    from retrodistill.training import TrainSettings

    started = time.perf_counter()
    out = config.out
    collection = rd.load_collection(config.data)
    model = config.model or packaged_model()

    say("\n1. Candidates")
    retrievers = ("bm25", f"dense:{model}")
    mined = rd.mine_candidates(
        collection, retrievers=retrievers, depth=50, add_positives=True, max_tokens=TOKENS
    )
    lists = mined.select(mined.query_ids[:: max(1, len(mined.query_ids) // QUERIES)])
    lists.write(out / "runs" / "train", overwrite=True)

    say("\n2. A cross-encoder teacher, from the labels")
    budget = TrainSettings(
        candidates_per_query=4, pool=SCORED - 1, batch_size=16, dropout=0.0, doc_tokens=TOKENS,
        learning_rate=2e-4,
    )  # fmt: skip
    teacher = rd.train_student(
        collection, model, out / "teacher", scores=lists, objective="contrastive(temperature=1)",
        settings=replace(budget, student_kind="cross-encoder", learning_rate=1e-4, max_steps=20),
        overwrite=True,
    )  # fmt: skip

    say("\n3. Scores of three teachers, and their mean")
    pairs = rd.Run.from_dict(
        {query: dict(list(docs.items())[:SCORED]) for query, docs in with_positives(lists, collection).items()}
    )
    specs = {
        "bm25": "bm25", "six-layers": f"bi-encoder:{model}", "cross-encoder": f"cross-encoder:{teacher}"
    }
