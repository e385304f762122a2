"""From a collection, scores and settings to a student's folder."""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.config import TrainSettings, as_dict
from retrodistill.errors import ConfigError
from retrodistill.manifest import Manifest, digest_files, new_folder, refuse_existing
from retrodistill.progress import duration, say
from retrodistill.training.building import build_batches, build_task, save_student, start_student
from retrodistill.training.card import write_card
from retrodistill.training.checks import check_teacher
from retrodistill.training.cuts import log_cut_documents
from retrodistill.training.examples import Schedule, gather
from retrodistill.training.processes import is_main, world_size

if TYPE_CHECKING:
    from retrodistill.datasets import Collection
    from retrodistill.objective import LossTerm
    from retrodistill.store.runs import Run
    from retrodistill.store.scores import PreferenceStore
    from retrodistill.training.development import Development
    from retrodistill.training.sampling import Rows
    from retrodistill.types import Encoder


def train_student(
    collection: "Collection",
    student: str | Path,
    out: str | Path,
    *,
    scores: "Run | None" = None,
    preferences: "PreferenceStore | None" = None,
    vectors: "Encoder | None" = None,
    split: str = "train",
    objective: str | None = None,
    settings: TrainSettings | None = None,
    teachers: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train a student and return its folder, in sentence-transformers format.

    `student` is where it starts: a folder or a hub id. With `scores`, it learns from the
    candidates and teacher scores found there; without, from labels and in-batch negatives.
    `preferences` are a pairwise teacher's, `vectors` is the encoder whose vectors it follows.
    `objective` stands for the settings' one; `teachers` names who gave the scores, for the model
    card. Checkpoints lie in `OUT.checkpoints` until the training is done.

    Raises:
        ConfigError: the model, the objective or `out` cannot be used, or the objective needs
            what is not given.
        DataError: no query can be learned from.

    """
    from transformers import set_seed

    from retrodistill.inference import body_dtype, pick_device
    from retrodistill.objective import parse_objective
    from retrodistill.training.batches import TeacherVectors
    from retrodistill.training.loop import checkpoint_folder, fit
    from retrodistill.training.preferences import Preferences

    settings = settings or TrainSettings()
    if objective is not None:
        settings = replace(settings, objective=objective)
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    terms = parse_objective(settings.objective)
    _check_inputs(terms, settings, scores, preferences, vectors)
    if settings.dev_split == split:
        raise ConfigError(f"--dev-split {split} is trained on: measure on another split.")
    development = _development(collection, settings, scores)
    if development is not None and scores is not None:  # what is measured on is not trained on
        held = set(collection.query_ids(str(settings.dev_split)))
        scores = scores.select(query for query in scores.query_ids if query not in held)
    candidates = gather(
        collection,
        split,
        scores,
        pool=settings.pool,
        drop_weak_queries=settings.drop_weak_queries,
        false_negatives=settings.false_negatives,
    )
    compared = None if preferences is None else Preferences(preferences, collection)
    if compared is not None:
        compared.check(candidates)
    perplexities = {}
    if scores is not None:
        perplexities = check_teacher(terms, scores, first=settings.pool + 1)
    batch_size = settings.batch_size * world_size()
    steps = settings.max_steps
    if steps < 0:
        steps = math.ceil(len(candidates) * settings.epochs / batch_size)
    set_seed(settings.seed)
    device = pick_device()
    model = start_student(str(student), settings, collection, device)
    schedule = Schedule(
        candidates,
        steps * batch_size,
        per_query=settings.candidates_per_query,
        seed=settings.seed,
        order=settings.order,
        draw=settings.draw,
        batch_size=batch_size,
        clusters=_topics(model, collection, candidates.queries, settings),
    )
    teacher_vectors = None
    if vectors is not None:
        teacher_vectors = TeacherVectors(
            vectors, collection.queries, collection.docs, candidates.queries, queue=settings.queue
        )
    task = build_task(
        model,
        terms,
        settings,
        body_dtype(settings.precision, device),
        teacher_dimension=None if vectors is None else vectors.dimension,
    )
    collate = build_batches(
        model,
        settings,
        collection,
        teacher=scores is not None,
        vectors=teacher_vectors,
        extra=compared,
    )
    checkpoints = checkpoint_folder(out)
    if is_main() and not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    say(
        f"{len(candidates):,} queries, {steps:,} steps of {batch_size} queries with "
        f"up to {settings.candidates_per_query} documents."
    )
    log_cut_documents(model, collection.docs, candidates, settings.doc_tokens)
    started = time.perf_counter()
    names = [term.name for term in terms]
    fitted = fit(
        task,
        collate,
        schedule,
        steps,
        settings,
        out,
        terms=names,
        measure=development,
        resume=resume,
    )
    seconds = time.perf_counter() - started
    if not is_main():
        return out
    details: dict[str, Any] = {
        "queries": len(candidates),
        "steps": steps,
        "seconds": round(seconds, 1),
        "dtype": str(task.dtype).removeprefix("torch."),
        "teacher_perplexity": perplexities,
        "losses": fitted.losses,
    }
    if fitted.best is not None:
        step, value = fitted.best
        details["development"] = {
            "split": settings.dev_split,
            "metric": settings.dev_metric,
            "step": step,
            "value": value,
            "docs": settings.dev_docs,
            "values": fitted.measured,
        }
    with new_folder(out, overwrite=overwrite) as folder:
        save_student(task, settings, folder)
        manifest = Manifest(
            kind="student",
            fingerprint=digest_files(folder, "*.safetensors"),
            inputs=_fingerprints(collection, scores, preferences, vectors),
            config={"student": str(student), "split": split} | as_dict(settings),
            details=details,
        )
        manifest.write(folder)
        write_card(folder, manifest, name=out.name, teachers=teachers)
    shutil.rmtree(checkpoints, ignore_errors=True)
    say(f"trained in {duration(seconds)}: {out}")
    return out


def _check_inputs(
    terms: "Sequence[LossTerm]",
    settings: TrainSettings,
    scores: "Run | None",
    preferences: "PreferenceStore | None",
    vectors: "Encoder | None",
) -> None:
    """Raise ConfigError unless all is given that the objective learns from."""
    from retrodistill.objective import inputs_of

    given = {
        "--scores": ("teacher scores", scores),
        "--preferences": ("preferences", preferences),
        "--vectors": ("a teacher's vectors", vectors),
    }
    needed = inputs_of(terms)
    for flag, (what, source) in given.items():
        if flag in needed and source is None:
            raise ConfigError(f"objective {settings.objective!r} needs {what}: give {flag}.")


def _development(
    collection: "Collection", settings: TrainSettings, scores: "Run | None"
) -> "Development | None":
    """Return what measures the student while it is trained, if there is a split for it."""
    from retrodistill.training.development import Development

    if settings.dev_split is None:
        return None
    return Development(
        collection,
        settings.dev_split,
        settings.dev_metric,
        kind=settings.student_kind,
        queries=settings.dev_queries,
        pool=scores if settings.dev_docs == "scored" else None,
        max_tokens=settings.doc_tokens,
        batch_tokens=settings.batch_tokens,
        precision=settings.precision,
        seed=settings.seed,
    )


def _fingerprints(
    collection: "Collection",
    scores: "Run | None",
    preferences: "PreferenceStore | None",
    vectors: "Encoder | None",
) -> dict[str, str]:
    """Return the fingerprint of each thing that a student was made from."""
    found = {"collection": collection.fingerprint}
    if scores is not None:
        found["scores"] = scores.fingerprint
    if preferences is not None:
        found["preferences"] = preferences.manifest.fingerprint
    if vectors is not None:
        found["vectors"] = vectors.fingerprint
    return found


def _topics(
    model: Any, collection: "Collection", queries: "Rows", settings: TrainSettings
) -> "Rows | None":
    """Return the cluster of each query, by the vectors of the student before its training."""
    from retrodistill.students.dense import DenseEncoder
    from retrodistill.training.sampling import query_clusters

    if settings.order != "clusters":
        return None
    if settings.student_kind != "bi-encoder":
        raise ConfigError("--order clusters needs a bi-encoder, whose vectors tell the topics.")
    encoder = DenseEncoder(model, precision=settings.precision)
    vectors = encoder.encode_queries(collection.queries.full_texts(queries))
    count = settings.clusters or max(1, len(queries) // (10 * settings.batch_size))
    return query_clusters(vectors, count, seed=settings.seed)
