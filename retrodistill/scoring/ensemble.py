"""Several teachers' scores into one."""

from collections.abc import Sequence

import numpy as np

from retrodistill.errors import ConfigError, DataError
from retrodistill.progress import say
from retrodistill.store.runs import Run


def average_scores(runs: Sequence[Run], *, weights: Sequence[float] | None = None) -> Run:
    """Return the weighted mean of the runs' z-scores.

    Each run's scores are standardised over the query's candidates (mean 0, deviation 1), so that
    logits, cosines and BM25 count alike; a run that scores all candidates of a query the same
    adds nothing to it. Only pairs that every run has a score for are kept; how many were not is
    told.

    Raises:
        ConfigError: there are no runs, or weights that do not fit them.
        DataError: the runs share no pair.

    """
    if not runs:
        raise ConfigError("an ensemble needs at least one score store or run.")
    shares = np.asarray(weights or [1.0] * len(runs), dtype=np.float64)
    if len(shares) != len(runs) or not np.isfinite(shares).all() or shares.sum() <= 0:
        raise ConfigError(
            f"{len(runs)} runs need as many weights of a positive sum, not {weights}."
        )
    shares = shares / shares.sum()
    others = [run.to_dict() for run in runs[1:]]
    columns: tuple[list[str], list[str], list[float]] = ([], [], [])
    for query, docs, scores in runs[0].lists():
        tables = [other.get(query, {}) for other in others]
        kept = [place for place, doc in enumerate(docs) if all(doc in table for table in tables)]
        if not kept:
            continue
        rows = [scores[kept].astype(np.float64)]
        rows += [np.array([table[docs[place]] for place in kept]) for table in tables]
        mean = sum(share * _standardised(row) for share, row in zip(shares, rows, strict=True))
        columns[0].extend([query] * len(kept))
        columns[1].extend(docs[place] for place in kept)
        columns[2].extend(np.asarray(mean).tolist())
    if not columns[0]:
        raise DataError(
            "the members of the ensemble share no (query, document) pair. Score the same "
            "--candidates with each teacher."
        )
    dropped = max(len(run) for run in runs) - len(columns[0])
    if dropped:
        say(f"{dropped:,} pairs are left out: not every member of the ensemble scored them.")
    return Run.from_columns(*columns, source="ensemble")


def _standardised(
    scores: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)
