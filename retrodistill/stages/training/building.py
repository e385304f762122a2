"""From settings to the student that is trained, its task and its batches; and back to a folder."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import TrainSettings
from retrodistill.base.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from retrodistill.data.datasets import Collection
    from retrodistill.objectives.objective import LossTerm
    from retrodistill.stages.training.batches import Extra, TeacherVectors
    from retrodistill.stages.training.tasks import Task


def load_student(kind: str, model: str, device: "torch.device") -> Any:
    """Return a model of a kind of student to train, from a folder or a hub id.

    What the kind needs and the model lacks is new and random: the head of a cross-encoder, the
    projection of token vectors of a late-interaction model.
    """
    from retrodistill.models.students.cross_encoder import load_cross_encoder
    from retrodistill.models.students.dense import load_bi_encoder
    from retrodistill.models.students.late_interaction import load_late_interaction
    from retrodistill.models.students.sparse import load_sparse_encoder

    loaders: Mapping[str, Callable[..., Any]] = {
        "bi-encoder": load_bi_encoder,
        "sparse": load_sparse_encoder,
        "late-interaction": partial(load_late_interaction, new_projection=True),
        "cross-encoder": partial(load_cross_encoder, new_head=True),
    }
    return loaders[kind](model, device)


def start_student(
    student: str, settings: TrainSettings, collection: "Collection", device: "torch.device"
) -> Any:
    """Return the model to train: cut, pruned, with its pooling, prompts, towers and adapters.

    Raises:
        ConfigError: the model cannot be loaded or cut so, or a setting is for other kinds.

    """
    from retrodistill.models.students import adapters, forms, make, vocabulary, width
    from retrodistill.models.students.routes import side_modules

    kind = settings.student_kind
    wanted = ("width", "prune_vocabulary", "pooling", "query_prompt", "doc_prompt", "doc_student")
    for name in wanted:
        if kind != "bi-encoder" and getattr(settings, name) not in (None, False):
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} is for bi-encoders, but --student-kind is {kind}.")
    if kind != "bi-encoder" and settings.dims:
        raise ConfigError(
            f"--dims cuts the one vector of a bi-encoder, but --student-kind is {kind}."
        )
    model = load_student(kind, student, device)
    if settings.keep_layers:
        model = make.keep_layers(model, settings.keep_layers)
    if settings.width is not None:
        model = width.narrow(model, settings.width)
    if settings.prune_vocabulary:
        texts = (text.full_text for side in (collection.queries, collection.docs) for text in side)
        model = vocabulary.prune_vocabulary(model, texts)
    if settings.pooling is not None:
        model = forms.pooled(model, settings.pooling)
    if settings.doc_student is not None:
        documents = load_student(kind, settings.doc_student, device)
        if settings.doc_keep_layers:
            documents = make.keep_layers(documents, settings.doc_keep_layers)
        model = forms.two_towers(model, documents)
    if settings.query_prompt is not None or settings.doc_prompt is not None:
        model = forms.prompted(model, query=settings.query_prompt, document=settings.doc_prompt)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    if settings.lora_rank:
        model = adapters.add_lora(model, rank=settings.lora_rank, alpha=settings.lora_alpha)
        for part in model.modules():  # a cross-encoder's head may be new: it is trained whole
            if kind == "cross-encoder" and getattr(part, "out_features", 0) == 1:
                part.requires_grad_(True)
    if settings.freeze:
        for part in side_modules(model, settings.freeze):
            part.requires_grad_(False)
            set_dropout(part, 0.0)
    return model


def build_task(
    model: Any,
    terms: "Sequence[LossTerm]",
    settings: TrainSettings,
    dtype: "torch.dtype",
    *,
    teacher_dimension: int | None = None,
) -> "Task":
    """Return a model and its objective as a task.

    Raises:
        ConfigError: the objective asks for what a student of this kind does not have.

    """
    from torch import nn

    from retrodistill.models.students.pair_head import PairHead
    from retrodistill.models.students.routes import is_normalised
    from retrodistill.objectives.objective import bind
    from retrodistill.stages.training import tasks

    wanted = {signal for term in terms for signal in term.signals}
    common: dict[str, Any] = {"cache_gradients": settings.cache_gradients}
    kind: type[Task] = {
        "cross-encoder": tasks.CrossEncoderTask,
        "late-interaction": tasks.LateInteractionTask,
    }.get(settings.student_kind, tasks.BiEncoderTask)
    absent = (wanted & tasks.BiEncoderTask.gives) - kind.gives
    if absent:
        raise ConfigError(
            f"--student-kind {settings.student_kind} has no {', '.join(sorted(absent))}: choose "
            "another objective, or a bi-encoder."
        )
    if kind is tasks.LateInteractionTask:
        common["averaged"] = model.similarity_fn_name == "meanmaxsim"
    if kind is tasks.BiEncoderTask:
        dimension = int(model.get_embedding_dimension())
        if settings.dims and max(settings.dims) > dimension:
            raise ConfigError(f"--dims {max(settings.dims)}: the student has {dimension}.")
        matched = bool(wanted & tasks.MATCHED)
        normalised = is_normalised(model)
        common |= {"dims": settings.dims, "normalised": normalised, "matched": matched}
        if matched and teacher_dimension not in (None, dimension):
            common["projection"] = nn.Linear(dimension, teacher_dimension, bias=False)
            nn.init.orthogonal_(common["projection"].weight)
        if "pair_scores" in wanted:
            common["head"] = PairHead(dimension)
    return kind(model, bind(terms), dtype, **common).to(model.device)


def build_batches(
    model: Any,
    settings: TrainSettings,
    collection: "Collection",
    *,
    teacher: bool,
    vectors: "TeacherVectors | None" = None,
    extra: "Extra | None" = None,
    lists: bool = True,
) -> Callable[..., dict[str, Any]]:
    """Return what turns examples, or texts without `lists`, into the inputs of the task."""
    from retrodistill.models.students.routes import side_length
    from retrodistill.stages.training.batches import CrossEncoderBatch, RetrieverBatch, TextBatch

    limit = model.max_seq_length or 512
    common: dict[str, Any] = {
        "batch_tokens": settings.batch_tokens,
        "teacher": teacher,
        "extra": extra,
    }
    queries, docs = collection.queries, collection.docs
    if settings.student_kind == "cross-encoder":
        pair_tokens = min(limit, settings.doc_tokens)
        return CrossEncoderBatch(queries, docs, model, max_tokens=pair_tokens, **common)
    return (RetrieverBatch if lists else TextBatch)(
        queries,
        docs,
        model,
        query_tokens=min(limit, settings.query_tokens, side_length(model, "query") or limit),
        doc_tokens=min(limit, settings.doc_tokens, side_length(model, "document") or limit),
        vectors=vectors,
        **common,
    )


def save_student(task: Any, settings: TrainSettings, folder: Path) -> None:
    """Write the trained model into a folder, in the format of sentence-transformers."""
    from retrodistill.models.inference import without_bars
    from retrodistill.models.students.adapters import merge_lora
    from retrodistill.models.students.make import with_projection

    model = task.model.eval()
    if settings.lora_rank:
        model = merge_lora(model)
    projection = getattr(task, "projection", None)
    if projection is not None and settings.projection == "keep":
        model = with_projection(model, projection.weight.detach())
    with without_bars():
        model.save(str(folder), safe_serialization=True)
    head = getattr(task, "head", None)
    if head is not None:
        head.save(folder)


def set_dropout(model: "torch.nn.Module", probability: float) -> None:
    """Set the dropout probability of every layer of a model that is about to be trained."""
    from torch import nn

    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = probability
        elif isinstance(getattr(part, "dropout_prob", None), float):
            part.dropout_prob = probability  # type: ignore[assignment]
