"""Losses on vectors: the student's against the teacher's of the same text."""

from jaxtyping import Float
from torch import Tensor, cat
from torch.nn.functional import cosine_similarity


def embed_distill(
    query_vectors: Float[Tensor, "B D"],
    doc_vectors: Float[Tensor, "M D"],
    teacher_query_vectors: Float[Tensor, "B D"],
    teacher_doc_vectors: Float[Tensor, "M D"],
) -> Float[Tensor, ""]:
    """One less the cosine of the student's and the teacher's vector, averaged over all texts.

    Queries and documents count alike. It needs no labels and no candidates, and it tells a
    student that lost layers where each single text belongs.

    Source: the embedding-matching term of Kim et al. 2023, "EmbedDistill", arXiv:2301.12005.

    """
    student = cat([query_vectors, doc_vectors])
    teacher = cat([teacher_query_vectors, teacher_doc_vectors])
    return (1.0 - cosine_similarity(student, teacher, dim=-1)).mean()
