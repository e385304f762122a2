"""Relational knowledge distillation (RKD): distances and angles between vectors of a batch."""

from jaxtyping import Float
from torch import Tensor, arange, cat
from torch.linalg import vector_norm
from torch.nn.functional import pdist, smooth_l1_loss

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average

EQUAL_VECTORS = {
    "query_vectors": "teacher_query_vectors",
    "doc_vectors": "teacher_doc_vectors",
}

NEAREST = 1e-12
"""Lower bound of a mean distance that is divided by."""


@loss(zero_at=EQUAL_VECTORS)
def rkd_distance(
    query_vectors: Float[Tensor, "A D"],
    doc_vectors: Float[Tensor, "M D"],
    teacher_query_vectors: Float[Tensor, "A T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
) -> Float[Tensor, ""]:
    """RKD on distances: Huber loss between the student's and the teacher's pairwise distances.

        psi_ij = |x_i - x_j| / mean of |x - x'|
        mean over pairs i < j of huber(psi_ij of the student - psi_ij of the teacher)

    Texts are the batch's queries and documents together. Distances are Euclidean, in units of
    their mean over all distinct pairs, so that the two spaces may differ in scale and dimension.
    Huber is e^2/2 up to |e| = 1, |e| - 1/2 above. Memory grows with the square of the number of
    texts. The distance of equal vectors has a gradient of 0.

    Source: Park et al. 2019, arXiv:1904.05068, whose mean runs over all ordered pairs.

    """
    student = pdist(cat([query_vectors, doc_vectors]))
    teacher = pdist(cat([teacher_query_vectors, teacher_doc_vectors]))
    return average(smooth_l1_loss(_relative(student), _relative(teacher), reduction="none"))


@loss(zero_at=EQUAL_VECTORS)
def rkd_angle(
    query_vectors: Float[Tensor, "A D"],
    doc_vectors: Float[Tensor, "M D"],
    teacher_query_vectors: Float[Tensor, "A T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
    *,
    texts: int = 64,
) -> Float[Tensor, ""]:
    """RKD on angles: Huber loss between the student's and the teacher's angles of three texts.

        psi_ijk = cos of the angle at x_j between x_i and x_k
        mean over triples of huber(psi_ijk of the student - psi_ijk of the teacher)

    Texts are the batch's queries and documents together. A triple has three different texts;
    triples in which the teacher's vectors of two texts are equal have no angle and are skipped.
    Huber is e^2/2 up to |e| = 1, |e| - 1/2 above. Where the student's vectors of two texts are
    equal, its cosine counts as 0.

    Memory grows with the cube of the number of texts. From a larger batch, `texts` of them are
    taken at even steps through the queries, then the documents: 64 need about 1 MB for each
    tensor of angles in float32, and 12 MB for the differences of vectors of 768 dimensions.

    Raises:
        ConfigError: `texts` is below 3.

    Source: Park et al. 2019, arXiv:1904.05068, without the limit on texts.

    """
    if texts < 3:
        raise ConfigError(f"rkd_angle: texts must be at least 3, but it is {texts}.")
    # Sample n texts at even steps: n x D and n x T.
    student = cat([query_vectors, doc_vectors])
    teacher = cat([teacher_query_vectors, teacher_doc_vectors])
    count = min(texts, len(student))
    chosen = arange(count, device=student.device) * len(student) // count
    student, teacher = student[chosen], teacher[chosen]
    # Triples of three distinct vectors of the teacher: n x n x n.
    apart = (teacher[:, None] != teacher).any(-1)
    triples = apart[:, :, None] & apart[:, None, :] & apart
    student, teacher = _cosines(student)[triples], _cosines(teacher)[triples]
    return average(smooth_l1_loss(student, teacher, reduction="none"))


def _relative(distances: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    return distances / average(distances).clamp_min(NEAREST)


def _cosines(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n n n"]:
    """Return at [j, i, k] the cosine of the angle at j between i and k; 0 where two are equal."""
    differences = vectors - vectors[:, None]
    lengths: Tensor = vector_norm(differences, dim=-1, keepdim=True)
    directions = differences / lengths.masked_fill(lengths == 0, 1.0)
    return directions @ directions.mT
