"""Whether the steps of a plan can run with their settings, before any of them runs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.stages.pipelines.distil.plan import PlannedStep
from retrodistill.stages.pipelines.steps import PLAN

if TYPE_CHECKING:
    from retrodistill.base.config import GenerateConfig, JudgeConfig, ScoreConfig, TrainConfig


def check_steps(steps: Sequence[PlannedStep], outdated: Collection[str]) -> None:
    """Check the settings of the steps that are to be done, as far as nothing has to be made first.

    Raises:
        ConfigError: a setting does not fit; a step is named.

    """
    for step in steps:
        if step.name in outdated and step.verb in CHECKS:
            try:
                CHECKS[step.verb](step.config)
            except ConfigError as error:
                raise ConfigError(f"{PLAN}, step {step.name}: {error}") from None


def _generate(config: "GenerateConfig") -> None:
    from retrodistill.models.writers import check_options

    check_options(config.writer, config.option)


def _score(config: "ScoreConfig") -> None:
    from retrodistill.models.teachers import read_options

    assert config.teacher is not None
    read_options(config.teacher, config.option)


def _judge(config: "JudgeConfig") -> None:
    from retrodistill.stages.judging.requirements import check_judge

    check_judge(config)


def _train(config: "TrainConfig") -> None:
    from retrodistill.objectives.objective import parse_objective
    from retrodistill.stages.training.requirements import check_kind, check_settings
    from retrodistill.stages.training.sources import named_sources

    terms = parse_objective(config.objective)
    check_settings(terms, config, config.split, named_sources(config))
    check_kind(config)
    if config.keep_layers:
        from retrodistill.models.inference import pick_device
        from retrodistill.models.students.transforms import keep_layers

        model = STUDENT_KINDS[config.student_kind].load(config.student, pick_device())
        keep_layers(model, config.keep_layers)


CHECKS: Mapping[str, Callable[[Any], None]] = {
    "generate": _generate,
    "judge": _judge,
    "score": _score,
    "train": _train,
}
"""Verb -> the check of its settings."""
