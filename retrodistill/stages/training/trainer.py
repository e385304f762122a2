"""From a collection, scores and settings to a student's folder."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import TrainSettings, as_dict
from retrodistill.base.files import new_folder, refuse_existing
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest, digest_files, model_files
from retrodistill.base.progress import duration
from retrodistill.stages.training.building import (
    build_batches,
    build_task,
    save_student,
    start_student,
)
from retrodistill.stages.training.card import write_card
from retrodistill.stages.training.checks import check_student
from retrodistill.stages.training.cuts import log_cut_documents
from retrodistill.stages.training.lineage import student_lineage, unseen_values
from retrodistill.stages.training.material import Material, prepare
from retrodistill.stages.training.processes import is_main
from retrodistill.stages.training.sources import Sources, check_settings, follows_vectors

if TYPE_CHECKING:
    from retrodistill.base.types import Encoder
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run
    from retrodistill.data.store.scores import PreferenceStore
    from retrodistill.stages.training.development import Development
    from retrodistill.stages.training.loop import Fitted


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
    `preferences` are a pairwise teacher's, `vectors` is the encoder whose vectors it follows: an
    objective of vectors alone needs neither labels nor scores, and without scores it learns from
    every text of the collection. `objective` stands for the settings' one; `teachers` names who
    gave the scores, for the model card. Checkpoints lie in `OUT.checkpoints` until the training
    is done.

    Raises:
        ConfigError: the model, the objective or `out` cannot be used, the objective needs what is
            not given, or a resumed training had other settings.
        DataError: no query can be learned from, or the scores are of other texts.

    """
    from transformers import set_seed

    from retrodistill.models.inference import body_dtype, pick_device
    from retrodistill.objectives.objective import parse_objective
    from retrodistill.stages.training.balance import check_balance
    from retrodistill.stages.training.batches import TeacherVectors
    from retrodistill.stages.training.closeness import teacher_cosine
    from retrodistill.stages.training.loop import checkpoint_folder, fit, remove_old_checkpoints

    settings = settings or TrainSettings()
    if objective is not None:
        settings = replace(settings, objective=objective)
    out = Path(out)
    remove_old_checkpoints(out)
    refuse_existing(out, overwrite=overwrite)
    terms = parse_objective(settings.objective)
    sources = Sources(
        collection=collection, split=split, scores=scores, preferences=preferences, vectors=vectors
    )
    check_settings(
        terms,
        settings,
        split,
        scores=scores is not None,
        preferences=preferences is not None,
        vectors=vectors is not None,
    )
    if not settings.other_texts:
        sources.check_texts()
    development = _development(sources, settings)
    material = prepare(terms, settings, sources)
    _prepare_checkpoints(out, settings, sources, str(student), resume=resume)
    set_seed(settings.seed)
    device = pick_device()
    model = start_student(str(student), settings, collection, device)
    check_student(terms, model, settings)
    schedule = material.schedule(model, settings)
    teacher_vectors = None
    if vectors is not None:
        teacher_vectors = TeacherVectors(
            vectors, collection.queries, collection.docs, material.queries, queue=settings.queue
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
        extra=material.preferences,
        lists=material.lists is not None,
    )
    log.info(material.sentence(settings))
    log_cut_documents(model, collection.docs, material.lists, settings.doc_tokens)
    shares = check_balance(task, terms, schedule, collate, settings.batch_size)
    started = time.perf_counter()
    fitted = fit(
        task,
        collate,
        schedule,
        material.steps(settings),
        settings,
        out,
        terms=[term.name for term in terms],
        measure=development,
        resume=resume,
    )
    seconds = time.perf_counter() - started
    if not is_main():
        return out
    details = _details(material, settings, fitted)
    details["gradient_shares"] = shares
    details |= {"seconds": round(seconds, 1), "dtype": str(task.dtype).removeprefix("torch.")}
    if teacher_vectors is not None and follows_vectors(terms):
        details["teacher_cosine"] = teacher_cosine(
            task,
            teacher_vectors,
            collection,
            material.queries,
            settings,
            required=any(term.name == "leaf" for term in terms),
        )
    lineage = student_lineage(material, name=out.name, start=student, settings=settings)
    if development is not None and fitted.best is not None:
        unseen = unseen_values(development, task.model, collection, lineage)
        details["development"]["unseen"] = unseen
    with new_folder(out, overwrite=overwrite) as folder:
        save_student(task, settings, folder)
        details |= lineage.write(folder)
        manifest = Manifest(
            kind="student",
            fingerprint=digest_files(folder, "*.safetensors"),
            inputs=sources.fingerprints(),
            config={"student": str(student), "split": split} | as_dict(settings),
            details=details,
            files=model_files(folder),
        )
        manifest.write(folder)
        write_card(folder, manifest, name=out.name, teachers=teachers)
    shutil.rmtree(checkpoint_folder(out), ignore_errors=True)
    log.info(f"trained in {duration(seconds)}: {out}")
    return out


def _prepare_checkpoints(
    out: Path, settings: TrainSettings, sources: Sources, student: str, *, resume: bool
) -> None:
    """Clear the folder of checkpoints, or check that they are those of this training."""
    from retrodistill.stages.training.loop import checkpoint_folder, last_checkpoint
    from retrodistill.stages.training.resuming import check_record, training_record, write_record

    checkpoints = checkpoint_folder(out)
    resumes = resume and last_checkpoint(checkpoints) is not None
    if is_main() and not resumes:
        shutil.rmtree(checkpoints, ignore_errors=True)
    if resumes or settings.save_steps:
        record = training_record(settings, sources, student)
        if resumes:
            check_record(checkpoints, record)
        elif is_main():
            write_record(checkpoints, record)


def _details(material: Material, settings: TrainSettings, fitted: "Fitted") -> dict[str, Any]:
    """Return what a manifest says of a training that is done."""
    details: dict[str, Any] = {
        "queries": len(material.queries),
        "steps": fitted.steps,
        "planned_steps": material.steps(settings),
        "teacher_perplexity": material.perplexities,
        "losses": fitted.losses,
        "steps_without_signal": dict(fitted.without_signal),
    }
    if material.lists is None:
        details["documents"] = len(material.sources.collection.docs)
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
    return details


def _development(sources: Sources, settings: TrainSettings) -> "Development | None":
    """Return what measures the student while it is trained, if there is a split for it."""
    from retrodistill.stages.training.development import Development

    if settings.dev_split is None:
        return None
    return Development(
        sources.collection,
        settings.dev_split,
        settings.dev_metric,
        kind=settings.student_kind,
        queries=settings.dev_queries,
        pool=sources.scores if settings.dev_docs == "scored" else None,
        max_tokens=settings.doc_tokens,
        batch_tokens=settings.batch_tokens,
        precision=settings.precision,
        seed=settings.seed,
    )
