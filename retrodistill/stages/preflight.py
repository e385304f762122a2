"""What each command checks before heavy imports and long work: names, paths, models, --out.

One function a verb, of the verb's name. None of them imports torch, transformers or ranx, or reads
more than a file's first bytes, so a mistake is reported in less than a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from retrodistill.base.calls import split_label
from retrodistill.base.errors import ConfigError, MissingExtra, did_you_mean
from retrodistill.base.files import check_writable, refuse_existing
from retrodistill.base.manifest import Manifest
from retrodistill.base.registry import (
    FORMATS,
    INDEXES,
    RETRIEVERS,
    STUDENT_KINDS,
    TEACHERS,
    WRITERS,
    Registry,
)
from retrodistill.models.inference.models import check_model

if TYPE_CHECKING:
    from retrodistill.base import config as configs
    from retrodistill.base.config.evaluate import MeasureSettings


def distil(config: "configs.DistilConfig") -> None:
    """Check the settings of `distil`."""
    from retrodistill.stages.pipelines.steps import refuse_foreign

    refuse_foreign(config.out)
    check_models("--student", config.student)
    for spec in config.teacher:
        check_part(TEACHERS, spec)
    for spec in config.writer:
        if spec != "none":
            check_part(WRITERS, spec)
    if config.judge is not None:
        check_part(TEACHERS, config.judge)
    INDEXES.split(config.index)
    if config.index.startswith("milvus"):
        raise ConfigError(
            "--index milvus is for one index, and several are made here. Take another index, and "
            "embed the student into Milvus afterwards: retrodistill embed --model OUT/student."
        )


def generate(config: "configs.GenerateConfig") -> None:
    """Check the settings of `generate`."""
    refuse_existing(config.out, overwrite=config.overwrite)
    from retrodistill.models.writers import check_options
    from retrodistill.stages.generating.writing import prompts_of

    for spec in config.writer:
        check_part(WRITERS, spec)
    check_options(config.writer, config.option)
    check_paths("--prompts", config.prompts)
    prompts_of(config)
    if config.round_trip is not None or config.relabel is not None:
        check_part(RETRIEVERS, config.retriever)
    from retrodistill.models.teachers import read_options

    for spec in config.ranker:
        check_part(TEACHERS, spec)
        read_options(spec, config.options_of(spec))
    if config.teacher is not None:
        check_part(TEACHERS, config.teacher)
        read_options(config.teacher, config.teacher_option)


def mine(config: "configs.MineConfig") -> None:
    """Check the settings of `mine`."""
    refuse_existing(config.out, overwrite=config.overwrite)
    for spec in config.retriever:
        check_part(RETRIEVERS, spec)


def score(config: "configs.ScoreConfig") -> None:
    """Check the settings of `score`."""
    if config.status or config.verify is not None:
        check_paths("--out", config.out)
    else:
        check_writable(config.out / "shards")
    check_paths("--candidates", config.candidates)
    if config.teacher is not None:
        from retrodistill.models.teachers import read_options

        check_part(TEACHERS, config.teacher)
        read_options(config.teacher, config.option)


def audit(config: "configs.AuditConfig") -> None:
    """Check the settings of `audit`."""
    check_file("--json", config.json)
    check_paths("--candidates", config.candidates)
    for spec in config.teacher:
        check_part(TEACHERS, spec)
    check_models("--student", config.student)


def leakage(config: "configs.LeakageConfig") -> None:
    """Check the settings of `leakage`."""
    check_file("--json", config.json)


def train(config: "configs.TrainConfig") -> None:
    """Check the settings of `train`."""
    from retrodistill.base.config import TrainSettings
    from retrodistill.data.rankings.measures import parse_metric
    from retrodistill.objectives.objective import parse_objective
    from retrodistill.stages.training.requirements import check_kind, check_settings
    from retrodistill.stages.training.sampling import parse_negative_sampling
    from retrodistill.stages.training.sources import named_sources
    from retrodistill.stages.training.transfers import check_meta_views

    refuse_existing(config.out, overwrite=config.overwrite)
    _check_views(config)
    terms = parse_objective(config.objective)
    if config.student_kind not in STUDENT_KINDS:
        STUDENT_KINDS[config.student_kind]  # unknown, or one of your own
    parse_negative_sampling(config.negative_sampling)
    if config.dev_split is not None:
        parse_metric(config.dev_metric)
    check_paths("--scores", *(Path(split_label(name)[1]) for name in config.scores))
    check_paths("--preferences", config.preferences)
    check_models("--student", config.student)
    check_models("--doc-student", config.doc_student)
    check_models("--vectors", config.vectors)
    check_models("--states", config.states)
    for spec in config.teacher:
        check_part(TEACHERS, split_label(spec)[1])
    if config.joint_teacher is not None:
        check_models("--joint-teacher", STUDENT_KINDS.split(config.joint_teacher)[1])
        if not config.resume:
            teacher = config.out.with_name(f"{config.out.name}.teacher")
            refuse_existing(teacher, overwrite=config.overwrite)
    check_settings(terms, config, config.split, named_sources(config))
    check_meta_views(config.meta_view, terms, config)
    of_others = config.pair_prompt is not None or config.answers
    if of_others or config.student_kind != TrainSettings().student_kind:
        check_kind(config)  # imports torch


def _check_views(config: "configs.TrainConfig") -> None:
    """Raise ConfigError if teacher and student read the same texts in a recipe of two views."""
    from retrodistill.objectives.recipes import load_recipe

    if config.recipe and config.teacher_view == config.student_view:
        recipe = load_recipe(config.recipe)
        if recipe.views:
            raise ConfigError(
                f"recipe {recipe.name} is of a teacher that reads other texts than the student: "
                f"give {' '.join(recipe.needs)}, two different ones."
            )


def rounds(config: "configs.RoundsConfig") -> None:
    """Check the settings of `rounds`."""
    from retrodistill.data.rankings.measures import parse_metric
    from retrodistill.models.teachers import read_options
    from retrodistill.stages.pipelines.rounds.trainings import trainings_of
    from retrodistill.stages.pipelines.steps import refuse_foreign

    refuse_foreign(config.out)
    check_models("--student", config.student)
    for spec in config.teacher:
        check_part(TEACHERS, split_label(spec)[1])
    if config.comparer is not None:
        check_part(TEACHERS, config.comparer)
    for spec in config.first_retriever:
        check_part(RETRIEVERS, spec)
    parse_metric(config.metric)
    for training in trainings_of(config):
        if training.teacher is not None:
            read_options(training.teacher, training.options)


def embed(config: "configs.EmbedConfig") -> None:
    """Check the settings of `embed`."""
    from retrodistill.data.filters import read_conditions

    refuse_existing(config.out, overwrite=config.overwrite)
    INDEXES.split(config.index)
    if config.workload is not None:
        read_conditions(config.workload)
    check_models("--model", config.model)


def search(config: "configs.SearchConfig") -> None:
    """Check the settings of `search`."""
    if config.out is not None:
        refuse_existing(config.out, overwrite=config.overwrite)
    if config.index is not None:
        check_paths("--index", config.index)
        Manifest.read(config.index, kind="index")
    for spec in config.retriever:
        check_part(RETRIEVERS, spec)
    check_models("--model", config.model)
    check_models("--query-model", config.query_model)
    if config.where is not None:
        from retrodistill.data.filters import parse_where

        parse_where(config.where)
    if config.sets:
        from retrodistill.data.rankings.sets import parse_sets

        for query in config.query:
            parse_sets(query)


def serve(config: "configs.ServeConfig") -> None:
    """Check the settings of `serve`."""
    from retrodistill.base.config.serve import named

    for module in ("fastapi", "uvicorn", "orjson", "prometheus_client"):
        if find_spec(module) is None:
            raise MissingExtra(
                f"serve needs {module}, which is not installed: pip install 'retrodistill[serve]'."
            )
    check_paths("--api-key-file", config.api_key_file)
    for folder in named(config.index, "--index").values():
        check_paths("--index", Path(folder).expanduser())
        Manifest.read(Path(folder).expanduser(), kind="index")
    for model in named(config.model, "--model").values():
        check_models("--model", model)
    if config.reranker is not None:
        (teacher,) = named([config.reranker], "--reranker").values()
        check_part(TEACHERS, teacher)


def convert(config: "configs.ConvertConfig") -> None:
    """Check the settings of `convert`."""
    if config.import_ is None:
        refuse_existing(config.out, overwrite=config.overwrite, folder=False)
    else:
        check_writable(config.out / "shards")
    check_paths("--import", config.import_)
    check_paths("--export", config.export)
    check_paths("--context", config.context)
    if config.format is not None:
        FORMATS[config.format]


def export(config: "configs.ExportConfig") -> None:
    """Check the settings of `export`."""
    from retrodistill.stages.exporting.requirements import check_export

    refuse_existing(config.out, overwrite=config.overwrite)
    check_models("--model", config.model)
    check_export(config)


def fuse(config: "configs.FuseConfig") -> None:
    """Check the settings of `fuse`."""
    from retrodistill.data.rankings.measures import parse_metric

    if config.as_store:
        check_writable(config.out / "shards")
    else:
        refuse_existing(config.out, overwrite=config.overwrite)
    check_paths("--run", *config.run)
    check_paths("--tune", *config.tune)
    check_paths("--qrels", config.qrels)
    if config.tune:
        parse_metric(config.metric)


def judge(config: "configs.JudgeConfig") -> None:
    """Check the settings of `judge`."""
    from retrodistill.stages.judging.requirements import check_judge, check_one_collection

    refuse_existing(config.out, overwrite=config.overwrite)
    check_paths("--run", *config.run)
    for path in config.run:
        if path.is_dir() and (kind := Manifest.read(path).kind) not in ("run", "scores"):
            raise ConfigError(f"--run {path} is of kind {kind!r}, but must be a run.")
    check_one_collection(config.run)
    check_paths("--rubric", config.rubric)
    check_part(TEACHERS, config.judge)
    check_judge(config)
    _refuse_itself(config)


def _refuse_itself(config: "configs.JudgeConfig") -> None:
    """Raise ConfigError if the judge is one of the runs."""
    kind, _, argument = config.judge.partition(":")
    if kind == "run" and any(Path(argument).samefile(path) for path in config.run):
        raise ConfigError(
            f"--judge {config.judge} is one of the runs that are judged: it would only agree with "
            "itself. Give another judge."
        )


def evaluate(config: "configs.EvaluateConfig") -> None:
    """Check the settings of `evaluate`."""
    check_file("--json", config.json)
    check_file("--card", config.card)
    _measuring(config)
    check_paths("--run", *config.run)
    check_paths("--teacher", config.teacher)
    check_models("--against", config.against)
    if config.endpoint:
        from retrodistill.models.retrievers.endpoints.address import endpoint_names

        for argument in endpoint_names(config.endpoint).values():
            check_endpoint(argument)


def report(config: "configs.ReportConfig") -> None:
    """Check the settings of `report`."""
    refuse_existing(config.out, overwrite=config.overwrite)
    _measuring(config)
    for flag in ("run", "student", "index"):
        check_paths(f"--{flag}", *getattr(config, flag))
    check_paths("--teacher", config.teacher)
    check_paths("--benchmark", config.benchmark)


def benchmark(config: "configs.BenchmarkConfig") -> None:
    """Check the settings of `benchmark` and the names of its plan.

    A model that is not there is one system's failure: the others are measured.
    """
    from retrodistill.data.rankings.measures import parse_metrics
    from retrodistill.stages.pipelines.benchmark.plan import (
        DenseSettings,
        RerankedSettings,
        read_plan,
    )

    parse_metrics(config.metrics)
    check_writable(config.out / "cells")
    for name, system in read_plan(config.plan).systems.items():
        with _named(f"{config.plan}: system {name!r}"):
            if isinstance(system, DenseSettings):
                INDEXES.split(system.index)
            elif isinstance(system, RerankedSettings):
                TEACHERS.split(system.rerank)


def reproduce(config: "configs.ReproduceConfig") -> None:
    """Check the settings of `reproduce`."""
    check_paths("card", config.card_path)
    check_paths("--qrels", config.qrels)
    if config.out is not None:
        check_writable(config.out)


def check_file(flag: str, path: Path | None) -> None:
    """Raise ConfigError if a file cannot be written."""
    if path is not None:
        with _named(flag):
            check_writable(path, folder=False)


def check_paths(flag: str, *paths: Path | None) -> None:
    """Raise ConfigError if something that is to be read does not exist; a near name is named."""
    for path in paths:
        if path is not None and not path.exists():
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            near = did_you_mean(path.name, [entry.name for entry in beside])
            raise ConfigError(f"{flag} {path} does not exist.{near}")


def check_models(flag: str, model: str | None) -> None:
    """Raise ConfigError if a setting names no model."""
    if model is not None:
        with _named(flag):
            check_model(model)


def check_part(parts: Registry, spec: str) -> None:
    """Raise ConfigError if `name:argument` has an unknown name, or what is not there."""
    parts.split(spec)
    name, _, argument = spec.partition(":")
    if parts.argument(name) == "PATH":
        check_paths(f"{parts.kind} {name}:", Path(argument))
    elif parts.argument(name) == "MODEL":
        with _named(f"{parts.kind} {spec}"):
            check_model(argument)
    elif parts.argument(name) == "URL":
        check_endpoint(argument)


def check_endpoint(argument: str) -> None:
    """Raise ConfigError if no server answers at an endpoint's address, or an option is wrong."""
    from retrodistill.models.retrievers.endpoints.address import parse_address
    from retrodistill.models.retrievers.endpoints.transport import check_reachable

    check_reachable(parse_address(argument))


def _measuring(config: "MeasureSettings") -> None:
    from retrodistill.data.rankings.measures import parse_metrics

    parse_metrics(config.metrics)
    check_paths("--qrels", config.qrels)
    if config.explain_teacher is not None:
        from retrodistill.stages.evaluation.explanations import explained

        models = [*explained(config.explain).values()]
        for spec in (*models, *explained([config.explain_teacher]).values()):
            check_part(TEACHERS, spec)


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Put the place of a mistake before its sentence."""
    try:
        yield
    except (ConfigError, MissingExtra) as error:
        raise type(error)(f"{place}: {error}") from error
