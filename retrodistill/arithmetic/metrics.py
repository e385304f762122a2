"""Measures of rankings: ranx behind one adapter that fixes what trec_eval fixes.

- The ranking is the run's own, by its tie rule: ranx gets document numbers, no scores to sort.
- Every query with a judgement counts, and one that the run lacks counts 0 (trec_eval -c).
- A query whose judgements are all below the relevance level counts 0, as in trec_eval.
- nDCG's gain is the grade itself (trec_eval's ndcg_cut; `ndcg_burges` has 2^grade - 1), and a
  grade below 0 gains 0. All other measures ask whether a grade reaches the level `rel`.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.errors import ConfigError
from retrodistill.progress import say
from retrodistill.store.runs import Run
from retrodistill.types import Qrels

if TYPE_CHECKING:
    from numpy.typing import NDArray

FUNCTIONS = {
    "ndcg": "ndcg",
    "ndcg_burges": "ndcg_burges",
    "dcg": "dcg",
    "mrr": "reciprocal_rank",
    "map": "average_precision",
    "recall": "recall",
    "precision": "precision",
    "rprec": "r_precision",
    "hit_rate": "hit_rate",
    "hits": "hits",
    "f1": "f1",
}
"""Our name of a measure to the function of `ranx.metrics`."""

ALIASES = {
    "recip_rank": "mrr",
    "rr": "mrr",
    "ap": "map",
    "r": "recall",
    "p": "precision",
    "success": "hit_rate",
    "r-precision": "rprec",
}
GRADED = {"ndcg", "ndcg_burges", "dcg"}
FORM = re.compile(r"([a-z][a-z0-9_-]*)(?:@(\d+))?(?:\(rel=(\d+)\))?")

PerQuery = dict[str, dict[str, float]]
"""Metric as it was typed -> query id -> value."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure, such as nDCG of the first ten documents."""

    name: str
    """A key of `FUNCTIONS`."""

    cutoff: int | None = None
    """Ranks that count (None: all)."""

    rel: int = 1
    """Lowest grade that is relevant; graded measures do not ask."""

    label: str = field(default="", compare=False)
    """As the user typed it, without spaces: its key in all results."""

    def __str__(self) -> str:
        """Return the label, or the canonical form of what has none."""
        cutoff = f"@{self.cutoff}" if self.cutoff else ""
        level = f"(rel={self.rel})" if self.rel != 1 else ""
        return self.label or f"{self.name}{cutoff}{level}"


def parse_metric(text: str) -> Metric:
    """Return the metric that `name@cutoff(rel=level)` names; cutoff and level may be left away.

    Raises:
        ConfigError: the form or the name is unknown (the nearest is named), or a part of it has
            no meaning for this measure.

    """
    label = "".join(text.split())
    match = FORM.fullmatch(label.lower())
    if match is None:
        raise ConfigError(
            f"metric {text!r} is not of the form name@cutoff(rel=level), "
            "as in ndcg@10, map or recall@100(rel=2)."
        )
    given, cutoff, level = match.groups()
    name = ALIASES.get(given, given)
    if name not in FUNCTIONS:
        near = get_close_matches(given, [*FUNCTIONS, *ALIASES], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown metric {given!r}.{hint} Known: {', '.join(FUNCTIONS)}.")
    if cutoff is not None and (int(cutoff) < 1 or name == "rprec"):
        wanted = "takes no cutoff" if name == "rprec" else "needs a cutoff of at least 1"
        raise ConfigError(f"metric {text!r}: {name} {wanted}.")
    if level is not None and (int(level) < 1 or name in GRADED):
        wanted = (
            "uses the grades themselves: leave (rel=...) away"
            if name in GRADED
            else "needs a level of at least 1"
        )
        raise ConfigError(f"metric {text!r}: {name} {wanted}.")
    return Metric(name, int(cutoff) if cutoff else None, int(level or 1), label)


def parse_metrics(text: str | Sequence[str]) -> list[Metric]:
    """Return the metrics of a comma-separated list, each once; commas in brackets do not split."""
    words = re.split(r",(?![^(]*\))", text) if isinstance(text, str) else text
    metrics = {metric.label: metric for metric in map(parse_metric, words)}
    if not metrics:
        raise ConfigError("no metric was given. Give some, as in ndcg@10,mrr@10.")
    return list(metrics.values())


def evaluate(qrels: Qrels, run: Run, metrics: Sequence[Metric]) -> PerQuery:
    """Return each metric's value for every query that has a judgement, 0 where the run lacks it.

    Queries of the run without a judgement are left out.
    """
    query_ids = [query for query, judged in qrels.items() if judged]
    if not query_ids:
        return {str(metric): {} for metric in metrics}
    from numba.core.errors import NumbaTypeSafetyWarning

    judgements, rankings = _as_numbers(qrels, run, query_ids)
    values = {}
    for metric in metrics:
        function = _ranx_function(FUNCTIONS[metric.name])
        with warnings.catch_warnings():
            # ranx counts with uint64 what it indexes with int64: numba says so while it compiles.
            warnings.simplefilter("ignore", NumbaTypeSafetyWarning)
            row = function(judgements, rankings, metric.cutoff or 0, metric.rel)
        values[str(metric)] = dict(zip(query_ids, row.tolist(), strict=True))
    return values


def _as_numbers(qrels: Qrels, run: Run, query_ids: Sequence[str]) -> tuple[Any, Any]:
    """Return judgements and rankings as ranx's lists of (document number, score) rows.

    A query's judged documents are numbered from the highest grade down, its other ones behind
    them. The second column holds the grades, and for rankings nothing that is read.
    """
    from numba.typed import List

    judgements: dict[str, NDArray[np.float64]] = {}
    numbers: dict[str, dict[str, int]] = {}
    for query in query_ids:
        judged = sorted(qrels[query].items(), key=lambda item: -item[1])
        judgements[query] = np.array([(i, grade) for i, (_, grade) in enumerate(judged)], float)
        numbers[query] = {doc: i for i, (doc, _) in enumerate(judged)}
    rankings = dict.fromkeys(query_ids, np.empty((0, 2)))
    for query, docs, _ in run.lists():
        if (known := numbers.get(query)) is not None:
            ranking = np.zeros((len(docs), 2))
            ranking[:, 0] = [known.get(doc, -1) for doc in docs]
            rankings[query] = ranking
    return List(judgements.values()), List(rankings.values())


def _ranx_function(name: str) -> Any:
    """Return a function of ranx; say so if its first call in this environment has to compile it."""
    import ranx.metrics

    compiled = Path(ranx.metrics.__file__).parent.glob(f"__pycache__/*._{name}_parallel-*.nbc")
    if name not in _ANNOUNCED and not any(compiled):
        _ANNOUNCED.add(name)
        say(f"compiling ranx's {name}: once in an environment, some seconds.")
    return getattr(ranx.metrics, name)


_ANNOUNCED: set[str] = set()
