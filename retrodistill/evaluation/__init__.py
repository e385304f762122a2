"""Evaluation: runs against judgements, system beside system."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.arithmetic.metrics import PerQuery, evaluate, parse_metrics
from retrodistill.errors import DataError
from retrodistill.evaluation.significance import Comparison, Test, compare
from retrodistill.manifest import write_atomically
from retrodistill.types import Qrels

if TYPE_CHECKING:
    from retrodistill.store.runs import Run

__all__ = ["METRICS", "Evaluation", "evaluate_runs"]

METRICS = "ndcg@10,mrr@10,map,recall@100"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was measured of each system."""

    per_query: Mapping[str, PerQuery]
    """System -> metric -> query id -> value."""

    tests: Sequence[Comparison]

    @property
    def systems(self) -> dict[str, dict[str, float]]:
        """System -> metric -> mean over all judged queries."""
        return {
            name: {metric: sum(row.values()) / len(row) for metric, row in values.items()}
            for name, values in self.per_query.items()
        }

    def to_dict(self, *, per_query: bool = False) -> dict[str, Any]:
        """Return the form of `--json`: systems with their metrics, and the tests."""
        systems: list[dict[str, Any]] = []
        for name, means in self.systems.items():
            systems.append({"name": name, "metrics": means})
            if per_query:
                systems[-1]["per_query"] = self.per_query[name]
        return {"systems": systems, "tests": [asdict(row) for row in self.tests]}

    def write(self, path: Path, *, per_query: bool = False) -> None:
        """Write `to_dict` as a JSON file, whole or not at all."""
        text = json.dumps(self.to_dict(per_query=per_query), indent=2)
        write_atomically(path, (text + "\n").encode())


def evaluate_runs(
    qrels: Qrels,
    runs: "Mapping[str, Run]",
    *,
    metrics: str | Sequence[str] = METRICS,
    test: Test = "t",
) -> Evaluation:
    """Measure each run on every judged query, and test each pair of runs.

    Raises:
        ConfigError: a metric is unknown.
        DataError: there are no judgements, or a run shares no query with them.

    """
    wanted = parse_metrics(metrics)
    judged = [query for query, docs in qrels.items() if docs]
    if not judged:
        raise DataError("there are no judgements, so there is nothing to measure against.")
    for name, run in runs.items():
        found = run.query_ids
        if not set(judged).intersection(found):
            raise DataError(
                f"run {name!r} shares no query with the judgements: it has ids like {found[:3]}, "
                f"they have ids like {judged[:3]}. Check --split, or the file that was given."
            )
    per_query = {name: evaluate(qrels, run, wanted) for name, run in runs.items()}
    tests = [
        row
        for metric in map(str, wanted)
        for row in compare(metric, {n: own[metric] for n, own in per_query.items()}, test=test)
    ]
    return Evaluation(per_query, tests)
