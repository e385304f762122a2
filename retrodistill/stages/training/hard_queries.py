"""Queries that the teacher masters and the student does not: what is worth learning next."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.stages.training.development import BLOCK, undisturbed

if TYPE_CHECKING:
    from retrodistill.models.students.kinds import StudentKind
    from retrodistill.stages.training.candidate_lists import CandidateLists
    from retrodistill.stages.training.material import Material


def hard_queries(material: "Material", model: Any, settings: TrainSettings) -> "Material":
    """Return the material of the queries whose labels the student ranks within --student-ranks.

    Without the setting, all of it. The teacher must rank a labelled document first. A student's
    rank is that of its best labelled document among the query's candidates, before training.

    Raises:
        ConfigError: the student does not encode documents by themselves.
        DataError: there is no such query.

    Source: Lin et al. 2023, arXiv:2209.13335 (PROD: the teacher first, the student 2 to 15).

    """
    if not settings.student_ranks:
        return material
    lists = material.lists
    assert lists is not None  # --student-ranks needs --scores
    low, high = settings.student_ranks
    mastered = lists.labelled & (lists.margins >= 0)
    ranks = student_ranks(material, lists, model, settings)
    chosen = mastered & (ranks >= low) & (ranks <= high)
    log.info(
        f"the teacher ranks a labelled document of {int(mastered.sum()):,} of {len(lists):,} "
        f"queries first; of {int(chosen.sum()):,} of them the student ranks it {low} to {high}."
    )
    if not chosen.any():
        raise DataError(
            f"there is no query that the teacher masters and the student ranks {low} to {high}: "
            "nothing is left to learn. Widen --student-ranks, or omit it."
        )
    chosen_lists = lists.select(chosen)
    return replace(material, queries=chosen_lists.queries, lists=chosen_lists)


def student_ranks(
    material: "Material", lists: "CandidateLists", model: Any, settings: TrainSettings
) -> NDArray[np.int64]:
    """Return the rank of each query's best labelled document among its candidates."""
    scores = _scores(material, lists, model, settings)
    ranks = np.empty(len(lists), np.int64)
    for index, (values, query) in enumerate(zip(scores, lists, strict=True)):
        best = values[: len(query.positives)].max()
        ranks[index] = 1 + int((values[len(query.positives) :] > best).sum())
    return ranks


def _scores(
    material: "Material", lists: "CandidateLists", model: Any, settings: TrainSettings
) -> list[NDArray[np.float32]]:
    """Return the student's scores of each query's positives, then of its pool."""
    kind: StudentKind = STUDENT_KINDS[settings.student_kind]
    if kind.doc_scorer is None:
        raise ConfigError(
            f"--student-ranks needs a student that encodes documents by themselves, and a "
            f"{kind.noun} does not."
        )
    limit = model.max_seq_length or settings.doc_tokens
    docs = [np.concatenate([query.positives, query.pool]) for query in lists]
    distinct, positions = np.unique(np.concatenate(docs), return_inverse=True)
    bounds = np.cumsum([0, *(len(rows) for rows in docs)])
    owners = np.repeat(np.arange(len(docs)), np.diff(bounds))
    flat = np.empty(len(positions), np.float32)
    collection = material.collection
    with undisturbed(model):
        scorer = kind.doc_scorer(
            model,
            collection.queries.full_texts(lists.queries),
            max_tokens=min(limit, settings.doc_tokens),
            batch_tokens=settings.batch_tokens,
            precision=settings.precision,
        )
        for start in range(0, len(distinct), BLOCK):
            block = scorer(collection.docs.full_texts(distinct[start : start + BLOCK]))
            inside = np.flatnonzero((positions >= start) & (positions < start + BLOCK))
            flat[inside] = block[owners[inside], positions[inside] - start]
    return np.split(flat, bounds[1:-1])
