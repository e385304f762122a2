"""Losses of a head that sees a query's and a document's vector together."""

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.errors import DataError


def dse(
    pair_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    *,
    teacher_temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Squared error of the head's score and the teacher's, of each single pair.

        mean over real candidates of (pair score - teacher score / T)^2

    In squared units of the teacher's scores, divided by its temperature squared. Each candidate
    counts alike, whatever its list. Unlike margins and lists, this teaches a score's absolute
    height, which a head with a bias can reach and a cosine cannot.

    Raises:
        DataError: no query has a real candidate.

    Source: Distilled Sentence Embedding, Barkan et al. 2019, arXiv:1908.05161 (from memory).

    """
    if not mask.any():
        raise DataError(
            "dse needs a real candidate for at least one query, but the mask of shape "
            f"{tuple(mask.shape)} leaves none. Mine candidates and score them."
        )
    return (pair_scores - teacher_scores / teacher_temperature)[mask].square().mean()
