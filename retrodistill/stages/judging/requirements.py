"""What a judge needs, checked before a collection or a model is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.config import JudgeSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import FILE, Manifest
from retrodistill.base.registry import TEACHERS
from retrodistill.data.datasets.options import take_options


def is_language_model(judge: str) -> bool:
    """Tell whether a judge is asked for grades in words: `llm:NAME`."""
    return judge.partition(":")[0] == "llm"


def check_judge(settings: JudgeSettings) -> None:
    """Check that a judge can grade with these settings.

    Raises:
        ConfigError: it is unknown, its setting is, or it lacks a rubric or thresholds.

    """
    from retrodistill.models.teachers import read_options, read_part_options

    part, argument = TEACHERS.split(settings.judge)
    check_unit(settings.judge, part)
    thresholds = settings.grades is not None or settings.quantiles is not None
    if is_language_model(settings.judge):
        from retrodistill.models.teachers.llm import LLMGrader, Rubric

        if not argument:
            raise ConfigError("--judge llm needs the name of a model: llm:NAME.")
        if thresholds:
            raise ConfigError(
                f"--judge {settings.judge} gives grades by a rubric: leave out --grades and "
                "--quantiles, which are for teachers that give scores."
            )
        read_part_options(LLMGrader, settings.judge, settings.option)
        Rubric.read(settings.rubric)
        return
    if settings.rubric is not None:
        raise ConfigError(
            f"--judge {settings.judge} gives scores and reads no --rubric: give --grades or "
            "--quantiles, or --judge llm:NAME."
        )
    if not thresholds:
        raise ConfigError(
            f"--judge {settings.judge} gives scores: say from which score on a grade holds, as "
            "--grades 0.3,0.6,0.8, or --quantiles 0.5,0.8,0.95."
        )
    read_options(settings.judge, settings.option)


def check_unit(judge: str, teacher: Any) -> None:
    """Raise ConfigError for a teacher whose number for a document depends on the others."""
    if getattr(teacher, "unit", "pair") == "list":
        raise ConfigError(
            f"--judge {judge} compares the documents of a list, so that a grade would depend on "
            "what else was retrieved. Give a judge of single pairs: llm:NAME, cross-encoder:MODEL."
        )


def recorded_collection(run: Path) -> str:
    """Return the fingerprint of the collection that a run's folder records.

    It is empty where none is recorded, and where queries of a file have shaped it.
    """
    if not (run / FILE).is_file():
        return ""
    manifest = Manifest.read(run)
    with_file = manifest.config.get("queries") or (
        "queries" in take_options(str(manifest.config.get("data") or ""), ("queries",))[1]
    )
    return "" if with_file else manifest.inputs.get("collection", "")


def check_one_collection(runs: Sequence[Path]) -> None:
    """Raise ConfigError if two run folders record that they are of two collections."""
    recorded = {run: fingerprint for run in runs if (fingerprint := recorded_collection(run))}
    for run, fingerprint in recorded.items():
        if fingerprint != recorded[next(iter(recorded))]:
            raise ConfigError(
                f"--run {next(iter(recorded))} and --run {run} were made from two collections, or "
                "from two states of one. Give runs of the collection of --data."
            )
