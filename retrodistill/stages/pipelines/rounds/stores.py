"""What a training learns from: lists of pairs, scored once for all rounds.

`scores/` and `preferences/` hold one store for each teacher, which all rounds fill: what is there
is not asked for again. A round's own store is the part of it that belongs to the round's lists, so
that it stays what it was when later rounds add theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrodistill.base.config import ScoreConfig, as_dict
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest, digest
from retrodistill.base.types import Comparisons, Reads
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.columns import coded
from retrodistill.data.store.form import PREFERENCES, SCORES, row_ids
from retrodistill.data.store.lineage import Lineage, spec_lineage
from retrodistill.data.store.run_table import COLUMNS
from retrodistill.data.store.runs import Run
from retrodistill.data.store.scores import PreferenceStore
from retrodistill.models.teachers.runs import RunTeacher
from retrodistill.stages.pipelines import verbs
from retrodistill.stages.scoring import compare_candidates, score_candidates
from retrodistill.stages.scoring.candidates import edges_of


def write_lists(collection: str, candidates: Path, earlier: Path | None, out: Path) -> None:
    """Write the run of the pairs to learn from: the new candidates, then those of `earlier`."""
    lists = united(Run.read(candidates), None if earlier is None else Run.read(earlier))
    lists.write(out, inputs={"collection": collection}, overwrite=True)


def united(latest: Run, earlier: Run | None) -> Run:
    """Return each query's documents in both runs, those of the latest first, in its order.

    A score is the negative of the place in the list.
    """
    tables = [latest.table] if earlier is None else [latest.table, earlier.table]
    rows = pa.concat_tables([table.select(COLUMNS[:2]) for table in tables])
    _, starts = np.unique(row_ids(rows), return_index=True)
    rows = rows.take(pa.array(np.sort(starts)))
    queries = coded(rows["query_id"]).indices.to_numpy()
    order = np.argsort(queries, kind="stable")
    sizes = np.bincount(queries)
    positions = np.empty(len(rows), np.int64)
    positions[order] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    lineage = latest.lineage if earlier is None else latest.lineage | earlier.lineage
    return Run.from_columns(rows["query_id"], rows["doc_id"], -positions, lineage=lineage)


def write_scores(config: ScoreConfig, known: Sequence[Path], out: Path) -> Mapping[str, Any]:
    """Score what the teacher's store lacks of a run, and write the store of the run's own scores.

    Returns how many pairs there are, and how many of them are in no run of `known`.
    """
    assert config.candidates is not None
    filled = fill(config)
    lists = Run.read(filled.candidates)  # type: ignore[arg-type]
    stored = Run.read(filled.out)
    collection = load_collection(str(filled.data), queries=filled.queries)
    lineage = spec_lineage(str(filled.teacher)) | lists.lineage
    rows = _selected(stored.table, row_ids(lists.table))
    teacher = RunTeacher(
        Run.from_columns(*(rows[name] for name in COLUMNS), lineage=lineage), scale=stored.scale
    )
    score_candidates(collection, lists, teacher, out, config=as_dict(filled))
    earlier = [row_ids(Run.read(path).table) for path in known]
    whole = Manifest.read(filled.out).details.get("unit") == "list"
    return _counts(lists.table, row_ids(lists.table), earlier, whole_lists=whole)


def write_preferences(config: ScoreConfig, known: Sequence[Path], out: Path) -> Mapping[str, Any]:
    """Compare what the comparer's store lacks, and write the store of the run's own preferences.

    Returns how many comparisons there are, and how many of them no run of `known` asked for.
    """
    assert config.candidates is not None
    filled = fill(config)
    lists = Run.read(filled.candidates)  # type: ignore[arg-type]
    collection = load_collection(str(filled.data), queries=filled.queries)
    comparer = StoredComparer(filled.out, spec_lineage(str(filled.teacher)))
    compare_candidates(
        collection, lists, comparer, out, opponents=filled.opponents, config=as_dict(filled)
    )
    edges = edges_of(lists, filled.opponents)
    earlier = [
        row_ids(edges_of(Run.read(path), filled.opponents), PREFERENCES.ids) for path in known
    ]
    return _counts(edges, row_ids(edges, PREFERENCES.ids), earlier)


def fill(config: ScoreConfig) -> ScoreConfig:
    """Fill the teacher's store in `config.out`; return the settings with this store as `out`.

    The store is named after the teacher, its weights, and all that shapes a score.
    """
    assert config.teacher is not None
    read = verbs.fingerprints_read("score", config)
    weights = [value for role, value in read.items() if role.startswith("teacher ")]
    shaping = (config.teacher, *config.option, str(config.max_tokens), config.precision, *weights)
    name = config.teacher.partition(":")[0].replace("/", "-")
    config = replace(config, out=config.out / f"{name}-{digest(*shaping)[:8]}")
    verbs.score(config)
    log.info("the part of this store that is of the round's lists:")
    return config


class StoredComparer:
    """The preferences of a store, by ids."""

    reads: Reads = "id"

    def __init__(self, folder: Path, lineage: Lineage) -> None:
        store = PreferenceStore.open(folder)
        edges = store.edges()
        self.fingerprint = store.manifest.inputs["teacher"]
        self.lineage = lineage
        ids = row_ids(edges, PREFERENCES.ids)
        order = np.argsort(ids)
        self._ids, self._values = ids[order], edges[PREFERENCES.value].to_numpy()[order]

    def compare(self, comparisons: Comparisons) -> NDArray[np.float32]:
        """Return the stored log p(first is better than second) of each comparison."""
        sides = (
            (comparisons.queries, comparisons.query_rows),
            (comparisons.docs, comparisons.first_rows),
            (comparisons.docs, comparisons.second_rows),
        )
        columns = [pa.array([text.id for text in texts]).take(rows) for texts, rows in sides]
        ids = row_ids(pa.table(columns, names=PREFERENCES.ids), PREFERENCES.ids)
        positions = np.searchsorted(self._ids, ids)
        assert np.array_equal(self._ids[positions], ids)  # `fill` has asked for all of them
        values: NDArray[np.float32] = self._values[positions]
        return values


def _selected(table: pa.Table, ids: NDArray[np.uint64]) -> pa.Table:
    """Return the rows of a table of scores that are these pairs, in their order."""
    stored = row_ids(table, SCORES.ids)
    order = np.argsort(stored)
    rows = order[np.searchsorted(stored[order], ids)]
    assert np.array_equal(stored[rows], ids)  # `fill` has asked for all of them
    return table.take(pa.array(rows))


def _counts(
    rows: pa.Table,
    ids: NDArray[np.uint64],
    earlier: Sequence[NDArray[np.uint64]],
    *,
    whole_lists: bool = False,
) -> dict[str, int]:
    """Return the number of rows, and of those that are not among earlier ones.

    With `whole_lists` a row is new if any row of its query is: the teacher reads lists.
    """
    new = ~np.isin(ids, np.concatenate([np.empty(0, np.uint64), *earlier]))
    if whole_lists:
        queries = coded(rows["query_id"]).indices.to_numpy()
        new = np.isin(queries, queries[new])
    return {"pairs": len(rows), "new": int(new.sum())}
