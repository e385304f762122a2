"""What a training will do: everything checked, the student loaded, no step taken."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import TrainSettings, as_dict
from retrodistill.base.manifest import Manifest, digest, digest_files, model_files
from retrodistill.models.students.reading import Reading
from retrodistill.objectives.labels import EMA
from retrodistill.stages.training.building import (
    build_batches,
    build_task,
    constant_vectors,
    start_student,
)
from retrodistill.stages.training.checks import check_student, with_perplexity
from retrodistill.stages.training.hard_queries import hard_queries
from retrodistill.stages.training.material import Material, gather_material
from retrodistill.stages.training.requirements import check_kind, check_settings
from retrodistill.stages.training.resuming import check_resumes, training_record
from retrodistill.stages.training.sources import SignalSource, as_sources
from retrodistill.stages.training.sources.ema import EmaTeacher
from retrodistill.stages.training.sources.joint import JointTeacher, joint_of
from retrodistill.stages.training.sources.scores import scores_of
from retrodistill.stages.training.transfers import check_meta_views

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run
    from retrodistill.models.students.tasks import Task
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.development import Development


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TrainingPlan:
    """A training that is about to begin."""

    student: str
    """Folder or hub id that the student starts from."""

    settings: TrainSettings
    terms: "tuple[LossTerm, ...]"
    """The objective."""

    sources: tuple[SignalSource, ...]
    material: Material
    development: "Development | None"
    """Measures the student on the dev split, if there is one."""

    joint_development: "Development | None"
    """Measures the joint teacher there, if there are both."""

    task: "Task"
    """The student under its objective."""

    collate: Callable[..., dict[str, Any]]
    """Makes the inputs of the task from items of the schedule."""

    schedule: Sequence[Any]
    """Every item of the training, in order."""

    fingerprints: Mapping[str, str]
    """Of the collection and of each source, by role."""

    record: Mapping[str, Any]
    """All that the weights depend on, which a resume must share."""

    @property
    def joint(self) -> JointTeacher | None:
        """The teacher that is trained with the student, if there is one."""
        return joint_of(self.sources)

    @property
    def steps(self) -> int:
        """Return how many steps are planned."""
        return self.material.steps(self.settings)

    @property
    def split(self) -> str:
        """Return the split whose labels are used."""
        return self.material.split

    def write_manifest(self, folder: Path, details: Mapping[str, Any]) -> Manifest:
        """Write, and return, the manifest of a model in a folder that this training has made."""
        manifest = Manifest(
            kind="student",
            fingerprint=digest_files(folder, "*.safetensors"),
            inputs=self.fingerprints,
            config={"student": self.student, "split": self.split} | as_dict(self.settings),
            details=details,
            files=model_files(folder),
        )
        manifest.write(folder)
        return manifest


def plan_training(
    collection: "Collection",
    student: str | Path,
    out: Path,
    *,
    sources: Iterable[object] = (),
    split: str = "train",
    settings: TrainSettings | None = None,
    resume: bool = False,
) -> TrainingPlan:
    """Return the plan of a training, as `train_student` describes its arguments.

    Raises:
        ConfigError, DataError: as `train_student` does.

    """
    from transformers import set_seed

    from retrodistill.models.inference import body_dtype, pick_device
    from retrodistill.objectives.objective import parse_objective

    settings = settings or TrainSettings()
    # The settings, and whether they fit what they are given.
    check_kind(settings)
    terms = parse_objective(settings.objective)
    wrapped = _all_sources(sources, settings)
    check_settings(terms, settings, split, wrapped)
    check_meta_views([view.spec for view in collection.meta_views], terms, settings)
    if not settings.other_texts:
        for source in wrapped:
            source.check_texts(collection.teacher_view)
    # What to train on and to measure with.
    scores = scores_of(wrapped)
    joint = joint_of(wrapped)
    development = _development(collection, settings, scores)
    joint_development = _joint_development(collection, joint, settings, scores)
    material = gather_material(collection, split, scores, terms, settings)
    terms = with_perplexity(terms, scores, material, settings)
    for source in wrapped:
        source.prepare(material.as_taught(), terms, settings)
    fingerprints = _fingerprints(collection, wrapped)
    record = training_record(settings, str(student), split, fingerprints)
    if resume:
        check_resumes(out, record)
    # The student.
    set_seed(settings.seed)
    device = pick_device()
    model = start_student(str(student), settings, collection, device)
    check_student([term for term in terms if not term.of_joint_teacher], model, settings)
    material = hard_queries(material, model, settings)
    schedule = material.schedule(model, settings)
    constants = constant_vectors(model, settings, collection)
    if development is not None:
        development.doc_vectors = constants
    dtype = body_dtype(settings.precision, device)
    # What makes and reads its batches.
    if joint is not None:
        second = joint.load(collection.teacher_view, terms, settings, device)
        own_terms = [term for term in terms if term.of_joint_teacher]
        check_student(own_terms, second.model, joint.settings(settings))
    signals = {signal for term in terms for signal in term.signals}
    requested = [source for source in wrapped if source.gives & signals]
    return TrainingPlan(
        student=str(student),
        settings=settings,
        terms=terms,
        sources=wrapped,
        material=material,
        development=development,
        joint_development=joint_development,
        task=build_task(model, terms, settings, dtype, requested, doc_vectors=constants),
        collate=build_batches(model, settings, collection, requested),
        schedule=schedule,
        fingerprints=fingerprints,
        record=record,
    )


def _all_sources(sources: Iterable[object], settings: TrainSettings) -> tuple[SignalSource, ...]:
    """Return the sources as such, with the one that a setting alone makes."""
    wrapped = as_sources(sources)
    if settings.ema is not None and all(source.name != EMA for source in wrapped):
        return (*wrapped, EmaTeacher(settings.ema))
    return wrapped


def _fingerprints(collection: "Collection", sources: Iterable[SignalSource]) -> dict[str, str]:
    """Return what a training reads, by role: texts of student and teacher, and the sources."""
    fingerprints = {"collection": collection.fingerprint}
    if collection.teacher_view is not collection:
        fingerprints["teacher_view"] = collection.teacher_view.fingerprint
    if collection.meta_views:
        fingerprints["meta_view"] = digest(*(view.fingerprint for view in collection.meta_views))
    return fingerprints | {source.name: source.fingerprint for source in sources}


def _joint_development(
    collection: "Collection",
    joint: "JointTeacher | None",
    settings: TrainSettings,
    scores: "Run | None",
) -> "Development | None":
    if joint is None:
        return None
    return _development(collection.teacher_view, joint.settings(settings), scores)


def _development(
    collection: "Collection", settings: TrainSettings, scores: "Run | None"
) -> "Development | None":
    from retrodistill.stages.training.development import Development

    if settings.dev_split is None:
        return None
    return Development(
        collection,
        settings.dev_split,
        settings.dev_metric,
        kind=settings.student_kind,
        queries=settings.dev_queries,
        pool=scores if settings.dev_docs == "scored" else None,
        reading=Reading(
            max_tokens=settings.doc_tokens,
            batch_tokens=settings.batch_tokens,
            precision=settings.precision,
        ),
        seed=settings.seed,
    )
