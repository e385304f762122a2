"""From a collection, sources of signals and settings to a student's folder: plan, fit, save."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import TrainSettings
from retrodistill.base.files import new_folder, refuse_existing
from retrodistill.base.logging import log
from retrodistill.base.progress import duration
from retrodistill.models.students.processes import is_main
from retrodistill.stages.training.building import save_student
from retrodistill.stages.training.card import write_card
from retrodistill.stages.training.joint import joint_development, save_joint, teacher_folder
from retrodistill.stages.training.lineage import student_lineage, unseen_values
from retrodistill.stages.training.plan import TrainingPlan, plan_training
from retrodistill.stages.training.requirements import follows_vectors
from retrodistill.stages.training.resuming import checkpoint_folder, remove_old_checkpoints

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.stages.training.loop import Fitted


def train_student(
    collection: "Collection",
    student: str | Path,
    out: str | Path,
    *,
    sources: Iterable[object] = (),
    split: str = "train",
    settings: TrainSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Train a student and return its folder, in sentence-transformers format.

    `student` is where it starts: a folder or a hub id. `sources` are what it learns from beside
    labels: a `Run` of candidates with teacher scores, a `PreferenceStore` of a pairwise teacher,
    an `Encoder` whose vectors it follows, a `Teacher` that scores each batch while the student
    trains, or a `SignalSource` of your own. Without a run, it
    learns from labels and in-batch negatives; an objective of vectors alone needs neither labels
    nor scores, and without scores it learns from every text of the collection. Checkpoints are in
    `OUT.checkpoints` until the training is done. A teacher reads the student's texts, or else those
    of another view: `collection.view("german").taught_by(collection)`.

    Raises:
        ConfigError: the model, the objective or `out` cannot be used, the objective needs what is
            not given, or a resumed training had other settings.
        DataError: no query can be learned from, or the scores are of other texts.

    """
    from retrodistill.stages.training import loop

    out = Path(out)
    remove_old_checkpoints(out)
    refuse_existing(out, overwrite=overwrite)
    plan = plan_training(
        collection, student, out, sources=sources, split=split, settings=settings, resume=resume
    )
    if plan.joint is not None and not resume:
        refuse_existing(teacher_folder(out), overwrite=overwrite)
    fitted = loop.fit(plan, out, resume=resume)
    if is_main():
        if plan.joint is not None:
            save_joint(plan, fitted, out)
        save(plan, fitted, out, overwrite=overwrite)
    return out


def save(plan: TrainingPlan, fitted: "Fitted", out: Path, *, overwrite: bool = False) -> None:
    """Write the trained student with its manifest, lineage and card, and drop its checkpoints."""
    details = _details(plan, fitted)
    lineage = student_lineage(
        plan.material, plan.sources, name=out.name, start=plan.student, settings=plan.settings
    )
    if plan.development is not None and fitted.best is not None:
        unseen = unseen_values(plan.development, plan.task.model, plan.material.collection, lineage)
        details["development"]["unseen"] = unseen
    with new_folder(out, overwrite=overwrite) as folder:
        save_student(plan.task, plan.settings, folder)
        manifest = plan.write_manifest(folder, details | lineage.write(folder))
        teachers = [teacher for source in plan.sources for teacher in source.teachers]
        write_card(folder, manifest, name=out.name, teachers=teachers)
    shutil.rmtree(checkpoint_folder(out), ignore_errors=True)
    log.info(f"trained in {duration(fitted.seconds)}: {out}")


def _details(plan: TrainingPlan, fitted: "Fitted") -> dict[str, Any]:
    """Return what a manifest records of a training that is done."""
    settings, material = plan.settings, plan.material
    details: dict[str, Any] = {
        "queries": len(material.queries),
        "steps": fitted.steps,
        "planned_steps": plan.steps,
        "teacher_perplexity": {},
        "losses": fitted.losses,
        "steps_without_signal": dict(fitted.without_signal),
        "gradient_shares": dict(fitted.gradient_shares),
        "seconds": round(fitted.seconds, 1),
        "dtype": str(plan.task.dtype).removeprefix("torch."),
    }
    for source in plan.sources:
        details |= source.details
    if plan.joint is not None:
        details["joint_teacher"] = {"gradient_shares": dict(fitted.joint_shares)}
        if fitted.best is not None:
            details["joint_teacher"]["development"] = joint_development(plan, fitted)
    if material.lists is None:
        details["documents"] = len(material.collection.docs)
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
    return details | _teacher_cosine(plan)


def _teacher_cosine(plan: TrainingPlan) -> dict[str, float]:
    """Return how near the student's vectors are to its teacher's, if it follows a teacher's."""
    from retrodistill.stages.training.closeness import teacher_cosine
    from retrodistill.stages.training.sources.vectors import VectorSource

    source = next((source for source in plan.sources if isinstance(source, VectorSource)), None)
    if source is None or not follows_vectors(plan.terms):
        return {}
    required = any(term.name == "leaf" for term in plan.terms)
    cosine = teacher_cosine(plan.task, source, plan.material, plan.settings, required=required)
    return {"teacher_cosine": cosine}
