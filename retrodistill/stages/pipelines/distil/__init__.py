"""From documents to a measured student: planned, run as a pipeline, chosen and reported."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from retrodistill.base.config import DistilConfig, EmbedConfig
from retrodistill.base.config.evaluate import MeasureSettings
from retrodistill.base.logging import log
from retrodistill.stages.evaluation import Evaluation
from retrodistill.stages.pipelines.distil.choice import Choice, adopt, choose
from retrodistill.stages.pipelines.distil.costs import measure_costs
from retrodistill.stages.pipelines.distil.estimate import log_estimate
from retrodistill.stages.pipelines.distil.log_split import log_step
from retrodistill.stages.pipelines.distil.page import (
    report_of,
    table_rows,
    verdict,
    write_pages,
)
from retrodistill.stages.pipelines.distil.plan import (
    JUDGED,
    NAMES,
    Layout,
    Measured,
    PlannedStep,
    plan_steps,
)
from retrodistill.stages.pipelines.distil.plan_file import edited, write_plan
from retrodistill.stages.pipelines.distil.situation import look_at
from retrodistill.stages.pipelines.steps import Pipeline, Step, refuse_foreign, sound_fingerprint
from retrodistill.stages.pipelines.verbs import verb_step

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
    steps = [*log_step(layout), *(verb_step(each.name, each.verb, each.config) for each in planned)]
    log_estimate(layout, planned, _outdated(pipeline, planned))
    if config.dry_run:
        return None
    for number, step in enumerate(steps, 1):
        pipeline.ensure(step, label=f"{number}/{len(steps)} {step.name}")
    return _conclude(layout, pipeline, planned)


def _outdated(pipeline: Pipeline, planned: Sequence[PlannedStep]) -> list[str]:
    """Return the names of the steps that have no finished record of their settings."""
    names = []
    for each in planned:
        step = verb_step(each.name, each.verb, each.config)
        if pipeline.outdated_settings(step):
            names.append(each.name)
    return names


def _conclude(layout: Layout, pipeline: Pipeline, planned: Sequence[PlannedStep]) -> Distilled:
    """Choose the student, make its folder and index, measure costs, and write the report."""
    test, dev = layout.test, layout.dev
    evaluation = _evaluation(layout, test)
    decisive = evaluation if dev == test else _evaluation(layout, dev)
    folders = {name: folder for folder, name in NAMES.items()}
    means = dataclasses.replace(
        decisive, per_query={folders[name]: v for name, v in decisive.per_query.items()}
    )
    reference = "untouched" if layout.retrieves_whole else "cut"
    trained = layout.trained if layout.retrieves_whole else ("distilled",)
    choice = choose(means, trained, reference)
    details = {"chosen": choice.name, "values": dict(choice.values)}
    model = layout.student(choice.name)
    pipeline.ensure(
        Step(
            name="choice",
            config={"model": model},
            inputs=partial(_fingerprint_of, model),
            outputs={"artifact": layout.out / "student"},
            make=partial(adopt, model, layout.out / "student", details=details),
        )
    )
    index = EmbedConfig(
        data=layout.config.data,
        model=str(layout.out / "student"),
        index=layout.config.index,
        max_tokens=layout.config.max_tokens,
        precision=layout.config.precision,
        out=layout.out / "index",
    )
    pipeline.ensure(verb_step("index", "embed", index))
    assert test is not None
    costs = pipeline.ensure(
        Step(
            name="costs",
            config={"systems": [*layout.trained]},
            inputs=partial(_fingerprint_of, str(layout.out / "student")),
            make=partial(measure_costs, layout, test),
        )
    ).details
    content = evaluation.to_dict()
    lines = verdict(content, choice, dev, layout)
    report = report_of(layout, content, costs, lines, layout.situation.sentence)
    write_pages(layout, report, costs, choice, lines)
    return Distilled(
        choice=choice, evaluation=content, rows=table_rows(content, costs), lines=lines
    )


def _evaluation(layout: Layout, measured: Measured | None) -> Evaluation:
    """Return the evaluation of all systems that have a run of the measured queries."""
    from retrodistill.stages.evaluation.systems import read_systems

    assert measured is not None
    data, split = measured.data, measured.split
    if (layout.out / "judgements").exists():
        file = "" if measured.queries is None else f",queries={measured.queries}"
        data = f"{layout.config.data}{file},qrels={layout.out}/judgements/qrels"
        split = JUDGED
    assert split is not None
    paths = {
        title: layout.run(measured, name)
        for name, title in NAMES.items()
        if layout.run(measured, name).exists()
    }
    settings = MeasureSettings(data=data, split=split, baseline=NAMES["untouched"])
    return read_systems(settings, paths).evaluate()


def _fingerprint_of(model: str) -> dict[str, str]:
    """Return the fingerprint of a model's folder, if it is an artifact."""
    folder = Path(model)
    return {"model": sound_fingerprint(folder)} if (folder / "manifest.json").exists() else {}
