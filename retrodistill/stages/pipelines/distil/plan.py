"""The steps from documents to a measured student, each a verb with its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrodistill.base.config import (
    EmbedConfig,
    FuseConfig,
    GenerateConfig,
    JudgeConfig,
    MineConfig,
    ScoreConfig,
    SearchConfig,
    TrainConfig,
)
from retrodistill.stages.pipelines.distil.layout import (
    GENERATED,
    K,
    Layout,
    Measured,
)

BATCH = 32
"""Queries of a step."""

QUANTILES = "0.5,0.7,0.9"
"""Shares of the scores below grade 1, 2 and 3, of a judge that gives scores."""

CUT_RATE, CUT_ANCHOR = 3e-4, 5
"""Learning rate, and weight of the whole model's vectors, that bring back a cut model."""

CUT_SHARE_OF_STEPS = 2
"""Steps are divided by this where documents are encoded in training, which takes longer."""

CUT_BATCH, CUT_CANDIDATES = 16, 4
"""Queries of a step, and documents of each, where documents are encoded in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStep:
    """A verb's settings under a name."""

    name: str
    verb: str
    config: Any
    round: int = 1
    """Round that it belongs to."""

    adds_to: Path | None = None
    """Store of the round before, whose scores need not be asked for again."""


def plan_steps(layout: Layout) -> list[PlannedStep]:
    """Return all steps in order, up to the runs that are measured."""
    steps = [*source_steps(layout), *index_steps(layout), *first_student_steps(layout)]
    steps += teaching_steps(layout)
    steps += student_steps(layout, "distilled")
    asked = tuple(dict.fromkeys(each for each in (layout.dev, layout.test) if each))
    for measured in asked:
        steps += measuring_steps(layout, measured)
    for number in range(2, layout.config.rounds + 1):
        steps += round_steps(layout, number, asked)
    return steps


def round_steps(layout: Layout, number: int, asked: Sequence[Measured]) -> list[PlannedStep]:
    """Return the steps of a round: the student before it retrieves, new pairs are scored."""
    name = round_name(number)
    before = layout.out / "scores" / (round_name(number - 1) if number > 2 else "")
    stores = layout.out / "scores" / name
    mining = teaching_mining(layout, layout.out / "runs" / f"{name}-candidates")
    retriever = ("bm25", f"dense:{layout.student(round_name(number - 1))}")
    steps = scoring(layout, f"{name}-", replace(mining, retriever=retriever), stores)
    steps = [
        replace(step, adds_to=before / step.config.out.name) if step.verb == "score" else step
        for step in steps
    ]
    steps += student_steps(layout, name, start=layout.student(round_name(number - 1)))
    steps += [search_step(layout, measured, name) for measured in asked]
    return [replace(step, round=number) for step in steps]


def round_name(number: int) -> str:
    """Return the name of a round's student."""
    return "distilled" if number == 1 else f"round-{number}"


def source_steps(layout: Layout) -> list[PlannedStep]:
    """Return the step that writes queries from documents, if there is one."""
    config = layout.config
    if not layout.situation.generates:
        return []
    return [
        PlannedStep(
            name="queries",
            verb="generate",
            config=GenerateConfig(
                data=config.data + (f",queries={layout.judged_log}" if layout.judges_log else ""),
                writer=layout.situation.writers,
                docs=config.max_generated if layout.situation.docs > config.max_generated else None,
                held_out=layout.held_out if layout.holds_out else None,
                seed=config.seed,
                out=layout.out / "queries",
            ),
        )
    ]


def index_steps(layout: Layout) -> list[PlannedStep]:
    """Return the step that embeds the documents with the untouched model."""
    return [embedding(layout, "untouched")]


def embedding(layout: Layout, name: str) -> PlannedStep:
    """Return the step that embeds the documents with a model."""
    config = layout.config
    return PlannedStep(
        name=f"index-{name}",
        verb="embed",
        config=EmbedConfig(
            data=config.data,
            model=layout.student(name),
            index=config.index,
            max_tokens=layout.max_tokens,
            precision=config.precision,
            out=layout.out / "indexes" / name,
        ),
    )


def first_student_steps(layout: Layout) -> list[PlannedStep]:
    """Return the step before any scores: labels alone, or the vectors of the whole model."""
    steps = []
    if "labelled" in layout.prepared:
        settings = {"objective": "contrastive"} | _query_tower(layout)
        steps.append(training(layout, "labelled", start=layout.config.student, **settings))
    if "cut" in layout.prepared:
        cut = training(
            layout,
            "cut",
            start=layout.config.student,
            objective="embed-distill",
            keep_layers=layout.config.keep_layers,
            vectors=layout.followed,
            vector_tokens=layout.max_tokens,
            learning_rate=CUT_RATE,
            dropout=0.0,
        )
        steps += [cut, embedding(layout, "cut")]
    return steps


def teaching_steps(layout: Layout) -> list[PlannedStep]:
    """Return the steps that mine candidates, score them with each teacher, and average."""
    mining = teaching_mining(layout, layout.out / "runs" / "candidates")
    return scoring(layout, "", mining, layout.out / "scores")


def teaching_mining(layout: Layout, out: Path) -> MineConfig:
    """Return the settings that mine for all queries that are trained on."""
    split = layout.config.split if layout.situation.labelled else None
    return MineConfig(
        data=layout.data,
        queries=layout.log,
        split=split,
        add_positives=split is not None,
        out=out,
        **_mining(layout),
    )


def student_steps(layout: Layout, name: str, *, start: str | None = None) -> list[PlannedStep]:
    """Return the step that distils a student, and those of indexes that it needs.

    It starts from what was trained before there were scores, else from `start`.
    """
    config = layout.config
    labels = " + contrastive" if layout.situation.labelled else ""
    common = {
        "scores": layout.out / "scores" / ("" if name == "distilled" else name) / "mean",
        "teacher_perplexity": config.perplexity,
        "positives": "labels" if labels else "teacher",
    }
    if layout.retrieves_whole:
        prepared = layout.student("labelled") if labels else config.student
        settings = {"objective": "listwise-kl-in-batch" + labels} | _query_tower(layout)
        return [training(layout, name, start=start or prepared, **settings, **common)]
    distilled = training(
        layout,
        name,
        start=start or layout.student("cut"),
        objective=f"listwise-kl-in-batch{labels} + {CUT_ANCHOR}*embed-distill",
        vectors=layout.followed,
        vector_tokens=layout.max_tokens,
        max_steps=max(1, config.steps // CUT_SHARE_OF_STEPS),
        batch_size=CUT_BATCH,
        candidates_per_query=CUT_CANDIDATES,
        pool=2 * CUT_CANDIDATES - 1,
        dropout=0.0,
        **common,
    )
    return [distilled, embedding(layout, name)]


def training(layout: Layout, name: str, *, start: str, **settings: Any) -> PlannedStep:
    """Return the step that trains a student from a model."""
    config, situation = layout.config, layout.situation
    also = (GENERATED,) if situation.learns_generated and layout.labels_split != GENERATED else ()
    common = {
        "split": layout.labels_split,
        "unlabelled_split": also,
        "batch_size": BATCH,
        "max_steps": config.steps,
        "learning_rate": config.learning_rate,
        "doc_tokens": config.max_tokens,
        "seed": config.seed,
        "precision": config.precision,
        "save_steps": max(50, config.steps // 4),
    }
    if situation.has_dev and settings.get("freeze") == "document":
        common |= {"dev_split": config.dev_split, "dev_queries": 400}
    return PlannedStep(
        name=f"student-{name}",
        verb="train",
        config=TrainConfig(
            data=layout.data,
            queries=layout.log,
            student=start,
            out=layout.out / "students" / name,
            **(common | settings),
        ),
    )


def measuring_steps(layout: Layout, measured: Measured) -> list[PlannedStep]:
    """Return the steps that search with each system for the queries that are measured."""
    runs = [
        PlannedStep(
            name=f"{measured.folder}-bm25",
            verb="search",
            config=SearchConfig(
                retriever=("bm25",), k=K, out=layout.run(measured, "bm25"), **measured.where
            ),
        )
    ]
    runs += [search_step(layout, measured, name) for name in ("untouched", *layout.trained)]
    runs += [
        _fused(layout, measured, "fused", "untouched"),
        _fused(layout, measured, "distilled-bm25", "distilled"),
    ]
    if measured == layout.test:
        runs += teacher_steps(layout, measured)
    if layout.judges(measured):
        runs.append(_judging(layout, measured))
    return runs


def search_step(layout: Layout, measured: Measured, name: str) -> PlannedStep:
    """Return the step that searches with a dense system for the queries that are measured."""
    index = layout.index_of(name)
    return PlannedStep(
        name=f"{measured.folder}-{name}",
        verb="search",
        config=SearchConfig(
            index=index,
            query_model=None if index.name == name else layout.student(name),
            k=K,
            precision=layout.config.precision,
            out=layout.run(measured, name),
            **measured.where,
        ),
    )


def teacher_steps(layout: Layout, measured: Measured) -> list[PlannedStep]:
    """Return the steps that rerank the candidates of measured queries with the teachers."""
    mining = MineConfig(out=layout.run(measured, "candidates"), **measured.where, **_mining(layout))
    steps = scoring(layout, f"{measured.folder}-", mining, layout.out / "scores" / measured.folder)
    mean: PlannedStep = steps.pop()
    fuse = FuseConfig(run=mean.config.run, norm="z", out=layout.run(measured, "teacher"))
    return [*steps, PlannedStep(name=f"{measured.folder}-teacher", verb="fuse", config=fuse)]


def scoring(layout: Layout, prefix: str, mining: MineConfig, stores: Path) -> list[PlannedStep]:
    """Return the steps that mine, score with each teacher, and average the z-scores."""
    config = layout.config
    specs = dict(zip(_store_names(layout.teachers), layout.teachers, strict=True))
    texts: dict[str, Any] = {"data": mining.data, "queries": mining.queries}
    steps = [PlannedStep(name=f"{prefix}candidates", verb="mine", config=mining)]
    steps += [
        PlannedStep(
            name=f"{prefix}scores-{name}",
            verb="score",
            config=ScoreConfig(
                candidates=mining.out,
                teacher=spec,
                max_tokens=config.max_tokens,
                precision=config.precision,
                out=stores / name,
                **texts,
            ),
        )
        for name, spec in specs.items()
    ]
    mean = FuseConfig(
        run=tuple(stores / name for name in specs), as_store=True, out=stores / "mean", **texts
    )
    return [*steps, PlannedStep(name=f"{prefix}scores-mean", verb="fuse", config=mean)]


def _judging(layout: Layout, measured: Measured) -> PlannedStep:
    names = ("bm25", "untouched", *layout.trained, "fused", "distilled-bm25")
    names += ("teacher",) if measured == layout.test else ()
    assert layout.config.judge is not None
    return PlannedStep(
        name=f"{measured.folder}-judgements",
        verb="judge",
        config=JudgeConfig(
            run=tuple(layout.run(measured, name) for name in names),
            judge=layout.config.judge,
            quantiles=None if layout.config.judge.startswith("llm:") else QUANTILES,
            out=layout.out / "judgements",
            **measured.where,
        ),
    )


def _fused(layout: Layout, measured: Measured, name: str, dense: str) -> PlannedStep:
    runs = tuple(layout.run(measured, system) for system in ("bm25", dense))
    return PlannedStep(
        name=f"{measured.folder}-{name}",
        verb="fuse",
        config=FuseConfig(run=runs, depth=K, out=layout.run(measured, name)),
    )


def _mining(layout: Layout) -> Mapping[str, Any]:
    """Return the settings of `mine` that are the same for all queries: BM25 and dense teachers."""
    config = layout.config
    dense = [config.student]
    dense += [spec.partition(":")[2] for spec in config.teacher if spec.startswith("bi-encoder:")]
    return {
        "retriever": ("bm25", *(f"dense:{model}" for model in dict.fromkeys(dense))),
        "depth": config.depth,
        "max_tokens": layout.max_tokens,
        "precision": config.precision,
    }


def _query_tower(layout: Layout) -> dict[str, Any]:
    """Return the settings of a query tower that is trained against all documents."""
    return {
        "freeze": "document",
        "compare": "collection",
        "candidates_per_query": layout.config.depth,
        "pool": layout.config.depth,
    }


def _store_names(teachers: Sequence[str]) -> list[str]:
    """Return a folder's name for each teacher: its kind, with a number where kinds repeat."""
    kinds = [spec.partition(":")[0] for spec in teachers]
    return [
        f"{kind}-{kinds[:number].count(kind) + 1}" if kinds.count(kind) > 1 else kind
        for number, kind in enumerate(kinds)
    ]
