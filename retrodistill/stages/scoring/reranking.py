"""Second stage: reranks the best documents of a run by a teacher's scores."""

from typing import TYPE_CHECKING

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Teacher
from retrodistill.data.rankings import reranked
from retrodistill.data.store.lineage import own_lineage
from retrodistill.data.store.runs import Run
from retrodistill.stages.scoring.candidates import pairs_of

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def rerank(run: Run, collection: "Collection", teacher: Teacher, depth: int = 100) -> Run:
    """Return the run with each query's `depth` best documents in the teacher's order.

    The others follow in their old order. The teacher's scores are not stored, and an interruption
    loses them: for large runs, `score_candidates` writes a store, which `fuse_runs` takes for
    its method `rerank`.

    Raises:
        ConfigError: `depth` is below 1.
        DataError: an id is not in the collection, or a score is not finite.

    """
    if depth < 1:
        raise ConfigError(f"depth must be at least 1, but it is {depth}.")
    best = run.top(depth).table
    scores = teacher.score(pairs_of(collection, best))
    columns = (best["query_id"], best["doc_id"], scores)
    source = f"{type(teacher).__name__}: "
    return reranked(run, Run.from_columns(*columns, source=source, lineage=own_lineage(teacher)))
