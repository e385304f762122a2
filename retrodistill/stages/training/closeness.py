"""Mean cosine of a student's vectors with those of the teacher that it follows."""

from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.base.config import TrainSettings
from retrodistill.base.logging import log

if TYPE_CHECKING:
    from retrodistill.stages.training.material import Material
    from retrodistill.stages.training.sampling import Rows
    from retrodistill.stages.training.sources.vectors import VectorSource

TEXTS = 1000
"""Maximum number of queries, and of documents, to compare."""

ENOUGH = 0.9
"""Mean cosine below which a student cannot replace its teacher. Source: the recipe leaf."""


def teacher_cosine(
    task: Any,
    source: "VectorSource",
    material: "Material",
    settings: TrainSettings,
    *,
    required: bool,
) -> float:
    """Return the mean cosine of the student's vectors and the teacher's, and log it.

    Queries that were trained on and documents are drawn evenly. If the student is
    `required` to replace its teacher, a mean below ENOUGH is logged as a failure.
    """
    from retrodistill.models.students.dense import DenseEncoder

    collection = material.collection
    rows = _spread(material.queries), _spread(np.arange(len(collection.docs)))
    encoder = DenseEncoder(
        task.model,
        max_tokens=min(task.model.max_seq_length or 512, settings.doc_tokens),
        batch_tokens=settings.batch_tokens,
        precision=settings.precision,
    )
    sides = [encoder.encode_docs(collection.docs.full_texts(rows[1]))]
    if len(rows[0]):
        sides.insert(0, encoder.encode_queries(collection.queries.full_texts(rows[0])))
    student = np.concatenate(sides)
    if task.projection is not None:
        student = student @ task.projection.weight.detach().float().cpu().numpy().T
    teacher = np.concatenate(source.vectors(*rows))
    lengths = np.linalg.norm(student, axis=1) * np.linalg.norm(teacher, axis=1)
    cosines = (student * teacher).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    mean = float(cosines.mean())
    log.info(
        f"mean cosine to the teacher's vectors: {mean:.3f} "
        f"({len(rows[0]):,} queries, {len(rows[1]):,} documents)."
    )
    if required and mean < ENOUGH:
        log.info(
            f"warning: below {ENOUGH} the student cannot replace its teacher. Train longer, "
            "with a higher --learning-rate, or from a student nearer to the teacher."
        )
    return mean


def _spread(rows: "Rows") -> "Rows":
    """Return at most TEXTS of the rows, evenly spaced."""
    count = min(TEXTS, len(rows))
    return rows[np.arange(count) * len(rows) // max(1, count)]
