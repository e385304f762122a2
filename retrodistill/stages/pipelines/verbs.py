"""What each artifact verb does: from its settings, opened and checked, to the folder it writes.

A verb's module reads the command line, calls its function here, and prints the folder. A pipeline
calls the same function as a step. The functions stand here, below the verbs, because a pipeline is
a stage too: what it runs must not be on the floor above it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import (
    ConvertConfig,
    EmbedConfig,
    ExportConfig,
    GenerateConfig,
    JudgeConfig,
    MineConfig,
    MineSettings,
    ScoreConfig,
    SearchConfig,
    TrainConfig,
    as_dict,
)
from retrodistill.base.manifest import FILE
from retrodistill.base.types import RetrieverOptions
from retrodistill.data.datasets import load_collection
from retrodistill.data.datasets.mixtures import meta_view
from retrodistill.stages.pipelines.fusing import fuse
from retrodistill.stages.pipelines.steps import Step, sound_fingerprint
from retrodistill.stages.reporting.chain import input_fingerprint, inputs_named
from retrodistill.stages.reporting.commands import IMMATERIAL, VERBS

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run
    from retrodistill.stages.exporting import Exported
    from retrodistill.stages.judging.judgements import JudgedPool

PASSAGES = 100
"""Passages that a retriever returns where one document is wanted."""


def generate(config: GenerateConfig) -> None:
    """Write queries, or the texts of a collection, and the folder with their judgements."""
    from retrodistill.stages.generating import generate_queries, generate_texts

    write = generate_queries if config.write == "queries" else generate_texts
    written = write(load_collection(config.data), config)
    written.write(config.out, config=as_dict(config), overwrite=config.overwrite)


def mine(config: MineConfig) -> None:
    """Mine candidates, and write the run."""
    from retrodistill.stages.mining import mine_candidates

    collection = load_collection(config.data, queries=config.queries)
    candidates = mine_candidates(collection, config.split, config)
    candidates.write(
        config.out,
        inputs={"collection": collection.fingerprint},
        config=as_dict(config),
        overwrite=config.overwrite,
    )


def score(config: ScoreConfig) -> None:
    """Fill the score store with a teacher's scores of candidates; what it holds already stays."""
    from retrodistill.base.executor import execute
    from retrodistill.data.store.shards import shard_paths
    from retrodistill.stages.scoring import fill

    execute(
        partial(fill, config),
        executor=config.executor,
        workers=config.workers,
        done=lambda: len(shard_paths(config.out)),
    )


def convert(config: ConvertConfig) -> None:
    """Import the scores of a file, and write the score store."""
    from retrodistill.stages.scoring import import_scores

    assert config.data is not None
    assert config.import_ is not None
    import_scores(
        load_collection(config.data, queries=config.queries),
        config.import_,
        config.out,
        format=config.format,
        scale=config.scale,
        on_conflict=config.on_conflict,
        config=as_dict(config),
    )


def train(config: TrainConfig) -> None:
    """Train a student, and write its folder."""
    from retrodistill.stages.training.sources import open_sources

    collection = load_collection(config.data, queries=config.queries)
    student = collection.view(config.student_view)
    sources = open_sources(config)

    from retrodistill.stages.training.trainer import train_student  # imports torch: last

    train_student(
        student.taught_by(collection.view(config.teacher_view)).meta_viewed(config.meta_view),
        config.student,
        config.out,
        sources=sources,
        split=config.split,
        settings=config,
        resume=config.resume,
        overwrite=config.overwrite,
    )


def embed(config: EmbedConfig) -> None:
    """Embed a collection's documents, and write the index folder."""
    from retrodistill.data.filters import read_conditions
    from retrodistill.models.students.dense import DenseEncoder
    from retrodistill.models.students.kinds import kind_of
    from retrodistill.stages.indexing import embed_collection
    from retrodistill.stages.indexing.retrievers import check_settings, embed_with_retriever

    kind = kind_of(config.model)
    if kind.encoder is None:
        check_settings(kind, config)
        embed_with_retriever(
            load_collection(config.data, queries=config.queries),
            kind,
            config.model,
            config.out,
            options=RetrieverOptions(
                max_tokens=config.max_tokens,
                batch_tokens=config.batch_tokens,
                precision=config.precision,
            ),
            config=as_dict(config),
            overwrite=config.overwrite,
        )
        return
    collection = load_collection(config.data, queries=config.queries)
    encoder = DenseEncoder(
        config.model,
        max_tokens=config.max_tokens,
        batch_tokens=config.batch_tokens,
        precision=config.precision,
    )
    embed_collection(
        collection,
        encoder,
        out=config.out,
        settings=config,
        attributes=doc_attributes(collection, config.attributes) if config.attributes else None,
        workload=read_conditions(config.workload) if config.workload is not None else (),
        config=as_dict(config),
        overwrite=config.overwrite,
    )


def search(config: SearchConfig) -> None:
    """Search for the queries of a split or a file, and write the run."""
    from retrodistill.stages.searching import documents
    from retrodistill.stages.searching.answers import index_run

    assert config.data is not None
    assert config.out is not None
    collection = load_collection(config.data, queries=config.queries)
    if config.index is not None:
        hits, inputs, details = index_run(config, collection)
    else:
        hits, inputs, details = retrieve(collection, config), {}, {"model": config.model}
        hits = documents(hits, config.k) if config.by_document else hits
    hits.write(
        config.out,
        inputs=inputs | {"collection": collection.fingerprint},
        config=as_dict(config),
        details=details | {"split": config.split},
        overwrite=config.overwrite,
    )


def export(config: ExportConfig) -> "Exported":
    """Export a model, write its folder if it passes the gate, and return what was measured."""
    from retrodistill.stages.exporting import export_model

    return export_model(load_collection(config.data), config)


def judge(config: JudgeConfig) -> "JudgedPool":
    """Judge what the runs found, write the judgements, and return them."""
    from retrodistill.data.store.runs import Run
    from retrodistill.stages.judging.judging import judge_runs
    from retrodistill.stages.reporting.results import system_names

    collection = load_collection(config.data, queries=config.queries)
    return judge_runs(
        collection,
        {name: Run.read(path) for name, path in system_names(config.run).items()},
        config,
        config.out,
        split=config.split,
        config=as_dict(config),
        overwrite=config.overwrite,
    )


def doc_attributes(collection: "Collection", attributes: str) -> "pa.Table":
    """Return a row of attributes for each document: the named fields, or those of a file."""
    from retrodistill.data.datasets.attributes import read_attributes

    docs = collection.docs
    if Path(attributes).is_file():
        return read_attributes(Path(attributes), docs.ids())
    return docs.attributes([name.strip() for name in attributes.split(",")])


def retrieve(collection: "Collection", config: SearchConfig) -> "Run":
    """Return the run of --retriever, or of --model, over the documents of the collection."""
    from retrodistill.stages.mining import mine_candidates
    from retrodistill.stages.searching import SPLIT

    return mine_candidates(
        collection,
        config.split if config.split or collection.file_queries else SPLIT,
        MineSettings(
            retriever=config.retriever or (f"dense:{config.model}",),
            depth=config.k * (PASSAGES if config.by_document else 1),
            precision=config.precision,
        ),
    )


RUN: Mapping[str, Callable[[Any], object]] = {
    "generate": generate,
    "mine": mine,
    "score": score,
    "convert": convert,
    "train": train,
    "embed": embed,
    "search": search,
    "fuse": fuse,
    "export": export,
    "judge": judge,
}
"""Verb -> its function: the artifact verbs of `retrodistill.stages.reporting.commands`."""


def verb_step(name: str, verb: str, config: Any) -> Step:
    """Return the step of a verb's settings; what lies at its `out` is resumed or replaced."""
    from retrodistill.stages.training.resuming import checkpoint_folder  # imports torch

    settings = {
        setting: value
        for setting, value in as_dict(config).items()
        if setting not in IMMATERIAL | {"out"}
    }
    return Step(
        name=name,
        config={"verb": verb, **settings},
        inputs=partial(fingerprints_read, verb, config),
        outputs={"artifact": config.out},
        leftovers=(checkpoint_folder(config.out),),
        make=partial(run_again, verb, config),
    )


def run_again(verb: str, config: Any) -> None:
    """Run a verb in place of a run of the same settings that may have been killed.

    A score store resumes; other folders are replaced.
    """
    fields = {item.name for item in dataclasses.fields(config)}
    is_store = VERBS[verb].kinds == ("scores",) or getattr(config, "as_store", False)
    again = {"overwrite": not is_store, "resume": getattr(config, "save_steps", 0) > 0}
    changes = {name: value for name, value in again.items() if name in fields}
    RUN[verb](dataclasses.replace(config, **changes))


def fingerprints_read(verb: str, config: Any) -> dict[str, str]:
    """Return the fingerprints of the collection, artifacts, models and files that a verb reads.

    Raises:
        RetrodistillError: the collection or an artifact is missing or damaged.

    """
    fingerprints = {}
    if config.data is not None:
        collection = load_collection(config.data, queries=getattr(config, "queries", None))
        fingerprints["collection"] = collection.fingerprint
        for setting in ("teacher_view", "student_view"):
            if view := getattr(config, setting, None):
                fingerprints[setting] = collection.view(view).fingerprint
        for spec in getattr(config, "meta_view", ()):
            student = collection.view(config.student_view)
            fingerprints[f"meta_view {spec}"] = meta_view(student, spec).fingerprint
    for setting, _, name in inputs_named(verb, as_dict(config)):
        path = Path(name)
        if path.exists():
            is_artifact = (path / FILE).is_file()
            fingerprint = sound_fingerprint(path) if is_artifact else input_fingerprint(path)
            fingerprints[f"{setting} {name}"] = fingerprint
    return fingerprints
