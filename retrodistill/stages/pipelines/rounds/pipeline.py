"""The steps of all rounds run in order, until one brings nothing; the best student is kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retrodistill.base.config import RoundsConfig
from retrodistill.base.config.evaluate import MeasureSettings
from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.base.registry import STUDENT_KINDS
from retrodistill.data.datasets import load_collection
from retrodistill.data.rankings.metrics import evaluate, parse_metric
from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation import Evaluation
from retrodistill.stages.pipelines.distil.choice import METRICS, adopt
from retrodistill.stages.pipelines.rounds.layout import START, Layout, Turn
from retrodistill.stages.pipelines.rounds.page import (
    Result,
    Row,
    result_of,
    write_pages,
)
from retrodistill.stages.pipelines.rounds.stopping import Kept, kept_of
from retrodistill.stages.pipelines.rounds.trainings import trainings_of
from retrodistill.stages.pipelines.rounds.turn_steps import measuring_steps, run_of, turn_steps
from retrodistill.stages.pipelines.steps import Pipeline, Step, refuse_foreign, sound_fingerprint


def run_rounds(config: RoundsConfig) -> Result:
    """Train in rounds, keep the student that is best on the dev split, and write the report.

    What is finished and up to date in `config.out` is kept.

    Raises:
        ConfigError: a setting does not fit the recipe, the student or the collection.
        DataError: the collection is malformed, or there is nothing to learn from.

    """
    refuse_foreign(config.out)
    layout = look_at(config)
    pipeline = Pipeline(config.out)
    measuring = measuring_steps(layout, None)
    by_turn = {turn.name: turn_steps(layout, turn) for turn in layout.turns}
    pipeline.write_plan([*measuring, *(step for steps in by_turn.values() for step in steps)])
    for step in measuring:
        pipeline.ensure(step)
    values = {START: _value(layout, None)}
    rows = [Row(name=START, value=values[START])]
    choice = kept_of(layout, values)
    for number in range(1, config.rounds + 1):
        for turn in layout.of_round(number):
            steps = by_turn[turn.name]
            for place, step in enumerate(steps, 1):
                pipeline.ensure(step, label=f"{turn.name}, {place}/{len(steps)} {step.name}")
            values[turn.name] = _value(layout, turn)
            rows.append(_row(layout, pipeline, turn, values[turn.name]))
            log.info(f"{turn.name}: {config.metric} {values[turn.name]:.4f}")
        choice = kept_of(layout, values)
        if choice.stops:
            break
    _keep(layout, pipeline, choice)
    done = [turn for turn in layout.turns if turn.name in values]
    result = result_of(layout, choice, rows, _evaluation(layout, done))
    write_pages(layout, result)
    return result


def look_at(config: RoundsConfig) -> Layout:
    """Return the settings with what is known of the collection and the student.

    Raises:
        ConfigError: there is no such split, or the student retrieves nothing.

    """
    from retrodistill.models.students.kinds import kind_of

    trainings = trainings_of(config)
    collection = load_collection(config.data, queries=config.queries)
    for split in (config.dev_split, config.test_split):
        if split is not None and not any(collection.qrels(split).values()):
            raise ConfigError(
                f"split {split!r} of {collection.name} has no judgements to measure by."
            )
    if config.split not in collection.splits and config.queries is None:
        collection.qrels(config.split)  # raises
    kinds = {training.settings.student_kind for training in trainings}
    if len(kinds) > 1:
        raise ConfigError(
            f"the stages train students of several kinds: {', '.join(sorted(kinds))}."
        )
    start, trained = kind_of(config.student), STUDENT_KINDS[kinds.pop()]
    for kind in (start, trained):
        if kind.retriever is None:
            raise ConfigError(
                f"a {kind.noun} does not retrieve by itself, so it cannot mine its own candidates. "
                "Mine with another model, and train it alone: retrodistill train."
            )
    return Layout(
        config=config,
        trainings=trainings,
        labelled=config.split in collection.splits,
        start_retriever=str(start.retriever),
        retriever=str(trained.retriever),
    )


def _value(layout: Layout, turn: Turn | None) -> float:
    """Return what decides: the metric's mean over the queries of the dev split."""
    config = layout.config
    qrels = load_collection(config.data).qrels(config.dev_split)
    metric = parse_metric(config.metric)
    run = Run.read(run_of(layout, turn, config.dev_split))
    values = evaluate(qrels, run, [metric])[str(metric)]
    return sum(values.values()) / len(values)


def _row(layout: Layout, pipeline: Pipeline, turn: Turn, value: float) -> Row:
    """Return what is to be shown of a training that is done."""
    counts: dict[str, Mapping[str, Any]] = {"scores": {}, "preferences": {}}
    for name in counts:
        steps = [step for step in turn_steps(layout, turn) if step.name == f"{turn.key}-{name}"]
        counts[name] = pipeline.record(steps[0]).details if steps else {}
    return Row(
        name=turn.name,
        value=value,
        pairs=counts["scores"].get("pairs"),
        new=counts["scores"].get("new"),
        compared=counts["preferences"].get("new"),
    )


def _keep(layout: Layout, pipeline: Pipeline, kept: Kept) -> None:
    """Make OUT/student the folder of the student that is kept."""
    turns = {turn.name: turn for turn in layout.turns}
    model = str(turns[kept.name].student) if kept.paid else layout.config.student
    out = layout.out / "student"
    values = {name: round(value, 6) for name, value in kept.values.items()}

    def inputs() -> Mapping[str, str]:
        return {"model": sound_fingerprint(Path(model))} if kept.paid else {}

    pipeline.ensure(
        Step(
            name="kept",
            config={"student": kept.name, "start": layout.config.student},
            inputs=inputs,
            outputs={"artifact": out},
            make=lambda: adopt(model, out, details={"kept": kept.name, "values": values}),
        )
    )


def _evaluation(layout: Layout, turns: Sequence[Turn]) -> Evaluation:
    """Return the evaluation of all students on the test split, or else on the dev split."""
    from retrodistill.stages.evaluation.systems import read_systems

    config = layout.config
    split = config.test_split or config.dev_split
    paths = {START: run_of(layout, None, split)}
    paths |= {turn.name: run_of(layout, turn, split) for turn in turns}
    metrics = ",".join(dict.fromkeys((config.metric, *METRICS.split(","))))
    settings = MeasureSettings(metrics=metrics, data=config.data, split=split, baseline=START)
    return read_systems(settings, paths).evaluate()
