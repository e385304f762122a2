"""From a pool to grades: by a language model with a rubric, or from a teacher's scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import JudgeSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.manifest import cache_folder, digest
from retrodistill.base.types import Qrels
from retrodistill.data.datasets.collection import ALL
from retrodistill.data.rankings.reranking import scores_for
from retrodistill.data.store.runs import Run
from retrodistill.models.teachers import load_teacher, read_part_options
from retrodistill.stages.judging.agreement import agreement_of
from retrodistill.stages.judging.judgements import JudgedPool, Judgement
from retrodistill.stages.judging.pool import pooled
from retrodistill.stages.judging.requirements import check_judge, check_unit, is_language_model
from retrodistill.stages.scoring import score_candidates
from retrodistill.stages.scoring.candidates import pairs_of

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

SHARD = 256
"""Pairs that a teacher scores between two writes: the most that an interruption can lose."""


@dataclass(frozen=True, kw_only=True)
class _Graded:
    """A pool's judgements, and what made them."""

    rows: Sequence[Judgement]
    rubric: str
    fingerprint: str
    details: Mapping[str, Any]


def judge_runs(
    collection: "Collection",
    runs: Mapping[str, Run],
    settings: JudgeSettings,
    out: Path,
    *,
    split: str | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> JudgedPool:
    """Judge the first documents of the runs, and write the folder of judgements.

    Args:
        collection: texts, and the human judgements if there are any.
        runs: name -> run.
        settings: who judges what.
        out: the folder to write.
        split: whose queries to judge (default: all of the runs and of a file), and whose human
            judgements to compare with.
        config: the settings of the command, for the manifest.
        overwrite: replace what is at `out`.

    Raises:
        ConfigError: the judge is unknown or cannot grade.
        DataError: a run is of another collection, or too many pairs have no usable answer.

    """
    check_judge(settings)
    human = human_grades(collection, split)
    pool = pooled(collection, runs, settings, split=split)
    log.info(f"{len(pool):,} pairs of {len(pool.query_ids):,} queries: {settings.judge}")
    grade = _by_language_model if is_language_model(settings.judge) else _by_scores
    graded = grade(collection, pool, settings, runs)
    judgements = JudgedPool(judge=settings.judge, rubric=graded.rubric, rows=graded.rows)
    if not judgements.qrels:
        raise DataError(f"{settings.judge} gave no grade to any of {len(pool):,} pairs.")
    if split is not None:
        agreement = agreement_of(judgements.qrels, human, runs, split=split, depth=settings.depth)
        if agreement is None:
            log.info(f"split {split!r} has no human grade for these queries: nothing to compare.")
        judgements = replace(judgements, agreement=agreement)
    judgements.write(
        out,
        human=human,
        inputs={
            "collection": collection.fingerprint,
            "judge": graded.fingerprint,
            **{f"run {number}": run.fingerprint for number, run in enumerate(runs.values(), 1)},
        },
        config=config or {},
        details=graded.details,
        overwrite=overwrite,
    )
    _log_result(judgements)
    return judgements


def human_grades(collection: "Collection", split: str | None) -> Qrels:
    """Return the human grades of a split, none where it has none.

    Raises:
        ConfigError: there is no such split.

    """
    if split is None or (split == ALL and ALL not in collection.splits):
        return {}
    grades = collection.qrels(split)
    if note := collection.made_by_machine(split):
        log.warning(f"split {split!r} cannot serve as a human standard: {note}.")
    return grades


def _log_result(judgements: JudgedPool) -> None:
    """Log how many pairs have a grade, and why others have none."""
    total = len(judgements.rows)
    if judgements.failures:
        reasons = ", ".join(f"{count:,} {why}" for why, count in judgements.failures.items())
        count = sum(judgements.failures.values())
        log.warning(
            f"{count:,} of {total:,} pairs have no grade ({reasons}). They are unjudged, not "
            "grade 0; unjudged.jsonl lists them."
        )
    else:
        log.info(f"all {total:,} pairs have a grade.")


def _by_language_model(
    collection: "Collection", pool: Run, settings: JudgeSettings, runs: Mapping[str, Run]
) -> _Graded:
    """Ask a language model for the grade of each pair by the rubric."""
    from retrodistill.models.teachers.llm import LLMGrader, Rubric

    options = read_part_options(LLMGrader, settings.judge, settings.option)
    rubric = Rubric.read(settings.rubric)
    grader = LLMGrader(settings.judge.partition(":")[2], rubric, **options)
    most_failures = int(settings.max_failed * len(pool) + 1e-9)  # 0.29 * 100 is below 29
    answers = grader.grade(pairs_of(collection, pool.table), most_failures=most_failures)
    return _Graded(
        rows=[
            Judgement(query, doc, given.grade, answer=given.answer, failure=given.failure)
            for (query, doc), given in zip(_ids(pool), answers, strict=True)
        ],
        rubric=grader.rubric_hash,
        fingerprint=grader.fingerprint,
        details={"question": grader.template(), "highest": rubric.highest},
    )


def _by_scores(
    collection: "Collection", pool: Run, settings: JudgeSettings, runs: Mapping[str, Run]
) -> _Graded:
    """Turn a teacher's scores of the pairs into grades; scores are kept in the cache."""
    teacher = load_teacher(
        settings.judge,
        collection,
        options=settings.option,
        max_tokens=settings.max_tokens,
        batch_tokens=settings.batch_tokens,
        precision=settings.precision,
    )
    check_unit(settings.judge, teacher)
    if teacher.fingerprint in {run.fingerprint for run in runs.values()}:
        raise ConfigError(
            f"--judge {settings.judge} is one of the runs that are judged: it would only agree "
            "with itself. Give another judge."
        )
    folder = cache_folder("judging") / digest(teacher.fingerprint, collection.fingerprint)[:32]
    store = score_candidates(collection, pool, teacher, folder, shard_pairs=SHARD)
    scores = scores_for(pool, store.run()).astype(np.float64)
    values = 1 / (1 + np.exp(-scores)) if teacher.scale == "logit" else scores
    thresholds = _thresholds(settings, values, scale=teacher.scale)
    grades = np.searchsorted(thresholds, values, side="right")
    return _Graded(
        rows=[
            Judgement(query, doc, int(grade), score=float(score))
            for (query, doc), grade, score in zip(_ids(pool), grades, scores, strict=True)
        ],
        rubric=digest("thresholds", teacher.scale, *map(repr, thresholds.tolist()))[:16],
        fingerprint=teacher.fingerprint,
        details={
            "scale": teacher.scale,
            "thresholds": thresholds.tolist(),
            "highest": len(thresholds),
        },
    )


def _thresholds(
    settings: JudgeSettings, values: NDArray[np.float64], *, scale: str
) -> NDArray[np.float64]:
    """Return the values from which on the grade is 1, 2, ..."""
    thresholds = np.array(settings.numbers("grades"))
    if not len(thresholds):
        quantiles: NDArray[np.float64] = np.quantile(values, settings.numbers("quantiles"))
        return quantiles
    if scale == "logit" and not (thresholds[0] > 0 and thresholds[-1] < 1):
        raise ConfigError(
            f"--grades {settings.grades}: the scores of {settings.judge} are logits, which are "
            "turned into probabilities first. Give thresholds between 0 and 1."
        )
    return thresholds


def _ids(pool: Run) -> list[tuple[str, str]]:
    """Return the query and the document of each row."""
    columns = (pool.table[name].to_pylist() for name in ("query_id", "doc_id"))
    return list(zip(*columns, strict=True))
