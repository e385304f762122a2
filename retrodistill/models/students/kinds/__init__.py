"""Kinds of students: how a kind is loaded, trained, measured, and described in a card.

A kind is a `StudentKind` at the end of one module, and a line of `STUDENT_KINDS`. One of your own
needs no line: `--student-kind my_lab.kinds:KIND`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import RETRIEVERS, STUDENT_KINDS

if TYPE_CHECKING:
    from retrodistill.base.config import TrainSettings
    from retrodistill.base.types import Encoder
    from retrodistill.models.students.tasks import Task

DENSE = "bi-encoder"
"""The kind of a model that was saved as none of the others."""

RANKING_HEAD = "ForSequenceClassification"
"""End of the architecture's name of a bare transformer that scores pairs."""

CAUSAL_RERANKER = "CrossEncoder of ForCausalLM"
"""What a CrossEncoder is saved as, for `saved_as`, if a causal language model is behind it."""

DocScorer = Callable[[Sequence[str]], NDArray[np.float32]]
"""Returns scores (queries, texts) of documents' texts for fixed queries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CardText:
    """The part of a model card that is the same for all students of a kind."""

    library_class: str
    """Class of sentence-transformers that loads the student."""

    pipeline: str
    """Pipeline tag of the hub."""

    tags: tuple[str, ...]
    """Further tags of the hub."""

    usage: str
    """Python expression for the score of `{query}` with `{doc}` by `model`."""

    parts: "tuple[tuple[str, CardText], ...]" = ()
    """Subfolders that are models of their own, with their texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentKind:
    """A kind of student: all that training, measuring and the card need of it."""

    name: str
    """As in --student-kind."""

    noun: str
    """What one is called in a sentence: `sparse encoder`."""

    about: str
    """How it scores a query and a document, in one sentence."""

    saved_as: tuple[str, ...]
    """Names in `model_type` of config_sentence_transformers.json."""

    load: Callable[..., Any]
    """`load(model, device)` returns the model to train, from a folder or a hub id. Layers that the
    kind needs and the model lacks are new and random."""

    start: "Callable[[Any, TrainSettings], Any]" = lambda model, settings: model
    """`start(model, settings)` returns the loaded model with what the kind's own settings give it,
    such as the prompt of a causal reranker."""

    task: "type[Task]"
    """Its forward pass under an objective; `task.gives` are the signals that it has."""

    batches: Callable[..., Callable[..., dict[str, Any]]]
    """`batches(model, collection, settings, sources)` returns the collator of its task."""

    teacher: str
    """Name in TEACHERS of what scores pairs with such a model."""

    retriever: str | None = None
    """Name in RETRIEVERS with which a trained student retrieves by itself; None if it reranks."""

    doc_scorer: Callable[..., DocScorer] | None = None
    """`doc_scorer(model, queries, max_tokens=, batch_tokens=, precision=)` scores all documents
    for a dev split. Without, the candidates of its queries are reranked by `teacher`."""

    encoder: "Callable[..., Encoder] | None" = None
    """`encoder(model, max_tokens=, batch_tokens=, precision=)`, if a text has one dense vector."""

    gives_cosines: Callable[[Any], bool] = lambda model: False
    """Tells whether a model's scores are cosines, from -1 to 1."""

    new_layers: Callable[[Any], Sequence[Any]] = lambda model: ()
    """Layers that may be new, so that adapters leave them trainable as a whole."""

    settings: frozenset[str] = field(default_factory=frozenset)
    """Settings of training that not every kind has, such as `pooling`."""

    card: CardText
    """Its part of the model card."""


def kind_of(model: str) -> StudentKind:
    """Return the kind that a folder or a hub id was saved as; by default a bi-encoder."""
    from retrodistill.models.inference import saved_settings

    saved = saved_settings(model, "config_sentence_transformers.json").get("model_type", "")
    bare = not saved_settings(model, "modules.json")
    architectures = saved_settings(model, "config.json").get("architectures") or ()
    if bare and any(name.endswith(RANKING_HEAD) for name in architectures):
        saved = "CrossEncoder"
    causal = any(name.endswith("ForCausalLM") for name in architectures)
    if saved == "CrossEncoder" and causal:
        saved = CAUSAL_RERANKER
    kinds: list[StudentKind] = [STUDENT_KINDS[name] for name in STUDENT_KINDS]
    default: StudentKind = STUDENT_KINDS[DENSE]
    return next((kind for kind in kinds if saved in kind.saved_as), default)


def check_bi_encoder(model: str) -> None:
    """Refuse a model that does not give a text one dense vector.

    sentence-transformers converts it: its body with mean pooling, whose vectors were never trained.

    Raises:
        ConfigError: the model was saved as another kind.

    """
    kind = kind_of(model)
    if kind.encoder is not None:
        return
    uses = [f"score with --teacher {kind.teacher}:{model}"]
    if kind.retriever in RETRIEVERS:
        uses.insert(0, f"mine with --retriever {kind.retriever}:{model}")
    raise ConfigError(
        f"model {model!r} does not make one vector for a text. It is a {kind.noun}: "
        f"{', '.join(uses)}, train it further with --student-kind {kind.name}."
    )
