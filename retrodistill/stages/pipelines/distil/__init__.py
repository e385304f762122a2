"""From documents to a measured student: planned, run as a pipeline, chosen and reported."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from retrodistill.base.config import DistilConfig, EmbedConfig
from retrodistill.base.config.evaluate import MeasureSettings
from retrodistill.base.logging import log
from retrodistill.base.manifest import FILE
from retrodistill.stages.evaluation import Evaluation
from retrodistill.stages.pipelines.distil.checks import check_steps
from retrodistill.stages.pipelines.distil.choice import METRIC, METRICS, Choice, adopt, choose
from retrodistill.stages.pipelines.distil.costs import measure_costs
from retrodistill.stages.pipelines.distil.estimate import log_estimate
from retrodistill.stages.pipelines.distil.layout import (
    JUDGED,
    NAMES,
    Layout,
    Measured,
    title,
)
from retrodistill.stages.pipelines.distil.log_split import log_step
from retrodistill.stages.pipelines.distil.page import (
    report_of,
    table_rows,
    verdict,
    write_pages,
)
from retrodistill.stages.pipelines.distil.plan import PlannedStep, plan_steps, round_name
from retrodistill.stages.pipelines.distil.plan_file import edited, write_plan
from retrodistill.stages.pipelines.distil.situation import look_at
from retrodistill.stages.pipelines.distil.stores import planned_step
from retrodistill.stages.pipelines.steps import Pipeline, Step, refuse_foreign, sound_fingerprint
from retrodistill.stages.reporting.chain import input_fingerprint

__all__ = ["Distilled", "distil"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Distilled:
    """What a run of `distil` ends with."""

    choice: Choice
    evaluation: Mapping[str, Any]
    """`Evaluation.to_dict()` of all systems."""

    rows: Sequence[Sequence[str]]
    """The final table, with the columns of `page.COLUMNS`."""

    lines: Sequence[str]
    """Which system to use, and why."""


def distil(config: DistilConfig) -> Distilled | None:
    """Make a student of a collection's documents, queries and labels, and measure it.

    What is finished and up to date in `config.out` is kept. Returns None for a dry run.

    Raises:
        ConfigError: there is nothing to learn from, or a setting of the plan does not fit.
        DataError: the collection is malformed or too small.

    """
    out = config.out
    refuse_foreign(out)
    situation = look_at(config)
    log.info(situation.sentence)
    layout = Layout(config=config, situation=situation)
    derived = plan_steps(layout)
    planned = edited(derived, config.plan, out)
    pipeline = Pipeline(out)
    write_plan(out, config, planned, derived)
    outdated = [
        each.name for each in planned if pipeline.outdated_settings(planned_step(each, out))
    ]
    check_steps(planned, outdated)
    log_estimate(layout, planned, outdated)
    if config.dry_run:
        return None
    for step in log_step(layout):
        pipeline.ensure(step)
    trained = _run(layout, pipeline, planned)
    return _conclude(layout, pipeline, trained)


def _run(layout: Layout, pipeline: Pipeline, planned: Sequence[PlannedStep]) -> tuple[str, ...]:
    """Run the steps, round by round until one brings nothing; return the students' names."""
    trained = layout.trained
    for number in range(1, layout.config.rounds + 1):
        if number > 2 and not _gained(layout, number - 1):
            log.info(f"round {number - 1} has brought nothing: there is no round {number}.")
            break
        steps = [step for step in planned if step.round == number]
        for number_of_step, each in enumerate(steps, 1):
            pipeline.ensure(
                planned_step(each, layout.out), label=f"{number_of_step}/{len(steps)} {each.name}"
            )
        trained += (round_name(number),) if number > 1 else ()
    return trained


def _gained(layout: Layout, number: int) -> bool:
    """Tell whether a round's student is better than the one before, on what decides."""
    before, after = round_name(number - 1), round_name(number)
    systems = ("untouched", before, after)
    means = _means(_evaluation(layout, layout.dev, systems), systems)
    return means[after] > means[before]


def _conclude(layout: Layout, pipeline: Pipeline, trained: tuple[str, ...]) -> Distilled:
    """Choose the student, make its folder and index, measure costs, and write the report."""
    absent = {"cut", "labelled"} - {*trained}
    systems = tuple(name for name in dict.fromkeys((*NAMES, *trained)) if name not in absent)
    test = layout.test
    evaluation = _evaluation(layout, test, systems)
    decisive = evaluation if layout.dev == test else _evaluation(layout, layout.dev, systems)
    means = _means(decisive, systems)
    is_cut = not layout.retrieves_whole
    candidates = tuple(name for name in trained if not (is_cut and name == "labelled"))
    choice = choose(means, candidates, is_cut=is_cut)
    model = layout.student(choice.name)
    details = {"chosen": choice.name, "values": dict(choice.values)}
    pipeline.ensure(
        Step(
            name="choice",
            config={"student": choice.name, "start": layout.config.student},
            inputs=partial(_fingerprint_of, model),
            outputs={"artifact": layout.out / "student"},
            make=partial(adopt, model, layout.out / "student", details=details),
        )
    )
    index = EmbedConfig(
        data=layout.config.data,
        model=str(layout.out / "student"),
        index=layout.config.index,
        max_tokens=layout.max_tokens,
        precision=layout.config.precision,
        out=layout.out / "index",
    )
    pipeline.ensure(planned_step(PlannedStep(name="index", verb="embed", config=index), layout.out))
    assert test is not None
    costs = pipeline.ensure(
        Step(
            name="costs",
            config={
                "systems": systems,
                "teachers": layout.teachers,
                "depth": layout.config.depth,
                "keep_layers": layout.config.keep_layers,
            },
            inputs=partial(_fingerprint_of, str(layout.out / "index")),
            make=partial(measure_costs, layout, test, trained),
        )
    ).details
    content = evaluation.to_dict()
    lines = verdict(content, choice, layout)
    report = report_of(layout, content, costs, lines, layout.situation.sentence)
    write_pages(layout, report, costs, choice, lines)
    return Distilled(
        choice=choice, evaluation=content, rows=table_rows(content, costs), lines=lines
    )


def _means(evaluation: Evaluation, systems: Sequence[str]) -> dict[str, float]:
    """Return the mean of METRIC of each system that was measured, by its folder's name."""
    means = evaluation.systems
    return {name: means[title(name)][METRIC] for name in systems if title(name) in means}


def _evaluation(layout: Layout, measured: Measured | None, systems: Sequence[str]) -> Evaluation:
    """Return the evaluation of the systems that have a run of the measured queries."""
    from retrodistill.stages.evaluation.systems import read_systems

    assert measured is not None
    data, split = measured.data, measured.split
    if layout.judges(measured):
        data, split = layout.with_judgements(measured), JUDGED
    assert split is not None
    paths = {
        title(name): layout.run(measured, name)
        for name in systems
        if layout.run(measured, name).exists()
    }
    settings = MeasureSettings(metrics=METRICS, data=data, split=split, baseline=NAMES["untouched"])
    return read_systems(settings, paths).evaluate()


def _fingerprint_of(model: str) -> dict[str, str]:
    """Return the fingerprint of an artifact, or of the weights in a model's folder."""
    folder = Path(model)
    if not folder.is_dir():
        return {}
    is_artifact = (folder / FILE).exists()
    return {"model": sound_fingerprint(folder) if is_artifact else input_fingerprint(folder)}
