"""The steps of a training in its round: mine, join the lists, score, train, measure."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from retrodistill.base.config import ScoreConfig, TrainConfig
from retrodistill.data.datasets import load_collection
from retrodistill.data.rankings.metrics import parse_metric
from retrodistill.stages.pipelines.rounds.layout import START, K, Layout, Turn
from retrodistill.stages.pipelines.rounds.stores import (
    write_lists,
    write_preferences,
    write_scores,
)
from retrodistill.stages.pipelines.rounds.trainings import PREVIOUS, names_of
from retrodistill.stages.pipelines.steps import Step, movable, sound_fingerprint
from retrodistill.stages.pipelines.verbs import fingerprints_read, verb_step


def turn_steps(layout: Layout, turn: Turn) -> list[Step]:
    """Return the steps of a training, in order."""
    steps = mining_steps(layout, turn) if turn.training.mines else []
    if turn.training.teacher is not None:
        steps.append(scoring_step(layout, turn, "scores", write_scores))
    if "--preferences" in turn.training.needs:
        steps.append(scoring_step(layout, turn, "preferences", write_preferences))
    steps.append(verb_step(f"{turn.key}-student", "train", training(layout, turn)))
    steps += measuring_steps(layout, turn)
    return [movable(step, layout.out) for step in steps]


def mining_steps(layout: Layout, turn: Turn) -> list[Step]:
    """Return the steps that retrieve with the present student, and join the earlier lists."""
    config = layout.config
    retrievers: tuple[str, ...] = (layout.present(turn),)
    if turn.earlier is None and config.first_retriever:
        retrievers = config.first_retriever
    mining = layout.mining(
        retrievers,
        turn.candidates,
        queries=config.queries,
        split=config.split if layout.labelled else None,
        add_positives=layout.labelled,
        depth=config.depth,
    )
    earlier = turn.earlier if config.candidates == "all" else None

    def inputs() -> Mapping[str, str]:
        paths = {"candidates": turn.candidates, "earlier lists": earlier}
        return {role: sound_fingerprint(path) for role, path in paths.items() if path is not None}

    def make() -> None:
        collection = load_collection(config.data, queries=config.queries)
        write_lists(collection.fingerprint, turn.candidates, earlier, turn.lists)

    return [
        verb_step(f"{turn.key}-candidates", "mine", mining),
        Step(
            name=f"{turn.key}-lists",
            config={"candidates": config.candidates},
            inputs=inputs,
            outputs={"artifact": turn.lists},
            make=make,
        ),
    ]


def scoring_step(
    layout: Layout,
    turn: Turn,
    name: str,
    write: Callable[[ScoreConfig, Sequence[Path], Path], Mapping[str, Any]],
) -> Step:
    """Return the step that scores or compares what is new in a training's lists."""
    config = layout.scoring(turn, preferences=name == "preferences")

    def inputs() -> Mapping[str, str]:
        read = fingerprints_read("score", config)
        return read | {f"known {path}": sound_fingerprint(path) for path in turn.known}

    return Step(
        name=f"{turn.key}-{name}",
        config={
            "teacher": config.teacher,
            "option": config.option,
            "max_tokens": config.max_tokens,
            "precision": config.precision,
            **({"opponents": config.opponents} if config.preferences else {}),
        },
        inputs=inputs,
        outputs={"artifact": turn.folder / name},
        make=partial(write, config, turn.known, turn.folder / name),
    )


def training(layout: Layout, turn: Turn) -> TrainConfig:
    """Return the settings of `train`."""
    from retrodistill.base.registry import STUDENT_KINDS

    config, each = layout.config, turn.training
    previous = f"previous={STUDENT_KINDS[turn.settings.student_kind].teacher}:{turn.start}"
    return TrainConfig(
        data=config.data,
        queries=config.queries,
        student=turn.start,
        recipe=config.recipe,
        stage=each.stage or None,
        scores=(str(turn.lists if each.teacher is None else turn.folder / "scores"),),
        preferences=turn.folder / "preferences" if "--preferences" in each.needs else None,
        teacher=(previous,) if PREVIOUS in each.needs else (),
        split=config.split,
        out=turn.student,
        **names_of(turn.settings),
    )


def measuring_steps(layout: Layout, turn: Turn | None) -> list[Step]:
    """Return the steps that search for the measured queries: with a student, or with --student."""
    config = layout.config
    if turn is None:
        name, retriever = START, f"{layout.start_retriever}:{config.student}"
    else:
        name, retriever = turn.key, f"{layout.retriever}:{turn.student}"
    depth = max(K, parse_metric(config.metric).cutoff or K)
    return [
        movable(
            verb_step(
                f"{name}-{split}",
                "mine",
                layout.mining([retriever], run_of(layout, turn, split), split=split, depth=depth),
            ),
            layout.out,
        )
        for split in (config.dev_split, config.test_split)
        if split is not None
    ]


def run_of(layout: Layout, turn: Turn | None, split: str) -> Path:
    """Return the run of a student, or of --student, for the queries of a split."""
    return layout.out / "runs" / split / (START if turn is None else turn.key)
