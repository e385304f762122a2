"""Labels by two thresholds on a teacher's scores: relevant above, negatives below."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.data.store.form import SCORES, row_ids
from retrodistill.data.store.runs import Run

FROM_0_TO_1 = ("probability", "percentiles", "min-max")


def pseudo_labelled(
    relevant: Mapping[str, Sequence[str]], scores: Run, *, above: float, below: float | None
) -> tuple[dict[str, list[str]], Run]:
    """Return the labels with those of the teacher, and the candidates that they leave.

    A candidate above `above` becomes relevant; one that is neither relevant nor below `below` is
    dropped, and so is a query without any relevant candidate. `below` defaults to `above`.

    Raises:
        ConfigError: the scores are not on a scale of which thresholds can be given.
        DataError: no query has a relevant candidate.

    Source: Qu et al. 2021, arXiv:2010.08191 (RocketQA: above 0.9, below 0.1); Ren et al. 2021,
    arXiv:2108.06027 (PAIR).

    """
    values = probabilities(scores)
    ids = row_ids(scores.table, SCORES.ids)
    pairs = [(query, doc) for query, docs in relevant.items() for doc in docs]
    labels = pa.table({name: [pair[n] for pair in pairs] for n, name in enumerate(SCORES.ids)})
    labelled = np.isin(ids, row_ids(labels, SCORES.ids)) if pairs else np.zeros(len(ids), np.bool_)
    positive = labelled | (values > above)
    negative = values < (above if below is None else below)
    # A query without a relevant candidate teaches nothing here.
    sizes = scores.list_sizes
    owners = np.repeat(np.arange(len(sizes)), sizes)
    usable = np.bincount(owners[positive], minlength=len(sizes)) > 0
    remaining = (positive | negative) & usable[owners]
    if not usable.any():
        raise DataError(
            f"no candidate of {len(sizes):,} queries has a probability above {above:g}: there is "
            "no pseudo-label to learn from. Lower --label-above, or omit it."
        )
    added = scores.table.filter(pa.array(positive & ~labelled))
    log.info(
        f"pseudo-labels: {len(added):,} candidates above {above:g} are relevant; "
        f"{int((usable[owners] & ~remaining).sum()):,} between the thresholds are dropped, and "
        f"{int((~usable).sum()):,} queries without a relevant candidate."
    )
    united = {query: [*docs] for query, docs in relevant.items()}
    for query, doc in zip(*(added[name].to_pylist() for name in SCORES.ids), strict=True):
        united.setdefault(query, []).append(doc)
    return united, replace(scores, table=scores.table.filter(pa.array(remaining)))


def probabilities(scores: Run) -> NDArray[np.float64]:
    """Return scores as probabilities: logits through the sigmoid, those from 0 to 1 as they are.

    Raises:
        ConfigError: they are on another scale.

    """
    values: NDArray[np.float64] = scores.table["score"].to_numpy().astype(np.float64)
    if scores.scale == "logit":
        return np.exp(-np.logaddexp(0.0, -values))
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    if scores.scale not in (*FROM_0_TO_1, "unknown") or low < 0 or high > 1:
        raise ConfigError(
            f"--label-above is a probability, but the scores are of scale {scores.scale!r}, from "
            f"{low:.4g} to {high:.4g}. Score with a cross-encoder, or bring them from 0 to 1 "
            "before: `retrodistill fuse --run STORE --norm percentiles --as-store`."
        )
    return values
