"""Embedding distillation: the student's vector of a text against the teacher's."""

from jaxtyping import Float
from torch import Tensor, arange, cat
from torch.linalg import vector_norm
from torch.nn.functional import cross_entropy

from retrodistill.objectives.losses.contract import StudentTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.vectors import SHORTEST, unit

EQUAL_VECTORS = {
    "matched_query_vectors": "teacher_query_vectors",
    "matched_doc_vectors": "teacher_doc_vectors",
}


@loss(zero_at=EQUAL_VECTORS)
def embed_distill(
    matched_query_vectors: Float[Tensor, "A T"],
    matched_doc_vectors: Float[Tensor, "M T"],
    teacher_query_vectors: Float[Tensor, "A T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
) -> Float[Tensor, ""]:
    """Embedding matching: 1 - cosine of the student's and the teacher's vector (EmbedDistill).

    Averaged over all texts, queries and documents alike. It needs no labels and no candidates, and
    restores the position of each single text after layers were removed from a student.

    Source: the embedding-matching term of Kim et al. 2023, "EmbedDistill", arXiv:2301.12005.

    """
    student = cat([matched_query_vectors, matched_doc_vectors])
    teacher = cat([teacher_query_vectors, teacher_doc_vectors])
    return (1.0 - (unit(student) * unit(teacher)).sum(-1)).mean()


@loss(zero_at=EQUAL_VECTORS)
def leaf(
    matched_query_vectors: Float[Tensor, "A T"],
    matched_doc_vectors: Float[Tensor, "M T"],
    teacher_query_vectors: Float[Tensor, "A T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
) -> Float[Tensor, ""]:
    """LEAF: squared Euclidean distance between the student's and the teacher's vector of a text.

        mean over texts of ||student - teacher||^2

    The sum over the T dimensions, not their mean: for vectors of length 1 it is twice
    `embed_distill`. Queries and documents count alike; neither labels nor candidates are needed.
    Lengths count, so that the teacher's documents may be searched with the student's queries.

    Source: LEAF, Vujanic and Rueckstiess 2025, arXiv:2509.12539 (from its abstract; the form of
    the loss unverified).

    """
    student = cat([matched_query_vectors, matched_doc_vectors])
    teacher = cat([teacher_query_vectors, teacher_doc_vectors])
    return (student - teacher).square().sum(-1).mean()


@loss
def ckd(
    matched_query_vectors: Float[Tensor, "A T"],
    matched_doc_vectors: Float[Tensor, "M T"],
    teacher_query_vectors: Float[Tensor, "A T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
    queue_vectors: Float[Tensor, "Q T"],
    *,
    temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """Contrastive embedding distillation: InfoNCE between student's and teacher's vectors.

        -log( exp(cos(s_i, t_i) / T) / sum over j of exp(cos(s_i, t_j) / T) )

    The student's vector of text i has to find the teacher's vector of text i: j runs over all
    texts of the batch, queries and documents together, and over the queue. In nats, averaged over
    the batch's texts; above 0 even at the teacher. A duplicate of a text under another id looks
    like a negative: the two copies cost at least ln 2 nats, so remove duplicates from the
    collection.

    Source: the contrastive distillation of DistilCSE, Gao et al. 2021, arXiv:2112.05638, whose
    code learns the temperature, while here it is fixed; 0.05 is from memory.

    """
    student = unit(cat([matched_query_vectors, matched_doc_vectors]))
    teacher = cat([teacher_query_vectors, teacher_doc_vectors, queue_vectors])
    cosines = student @ unit(teacher).T
    return cross_entropy(cosines / temperature, arange(len(student), device=cosines.device))


@loss(zero_at=EQUAL_VECTORS)
def norm_and_direction(
    matched_query_vectors: Float[Tensor, "A T"],
    matched_doc_vectors: Float[Tensor, "M T"],
    teacher_query_vectors: Float[Tensor, "A T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
    *,
    norm_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """Norm and direction of the teacher's vectors, each as a separate term.

        mean over texts of  1 - cos(s, t) + norm_weight ((|s| - |t|) / |t|)^2

    For teachers whose vector lengths carry information, such as those trained with inner products;
    the relative difference has no unit, so that long vectors weigh no more than short ones. 0 only
    where student and teacher are equal. Where both give vectors of length 1, as models with a
    normalising last module do, the second term is 0, and it is `embed-distill` by another name.

    Source: ours. The name and the split are those of Wang et al. 2023, arXiv:2305.17007 (from
    its abstract), who align image features with class means and make their norms large; here
    each text has its own target, in norm as well.

    """
    student = cat([matched_query_vectors, matched_doc_vectors])
    teacher = cat([teacher_query_vectors, teacher_doc_vectors])
    direction = 1.0 - (unit(student) * unit(teacher)).sum(-1)
    norm: Tensor = vector_norm(teacher, dim=-1)
    excess: Tensor = (vector_norm(student, dim=-1) - norm) / norm.clamp_min(SHORTEST)
    return (direction + norm_weight * excess.square()).mean()
