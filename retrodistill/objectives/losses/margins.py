"""Margin losses without a teacher: a fixed margin, or one from the similarity of documents."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.linalg import vector_norm

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average
from retrodistill.objectives.losses.positives import labelled_pairs
from retrodistill.objectives.losses.vectors import unit

TARGETS = ("static", "adaptive", "distributed")


@loss
def arm(
    query_vectors: Float[Tensor, "A D"],
    doc_vectors: Float[Tensor, "M D"],
    batch_candidates: Bool[Tensor, "B M"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    target: str = "adaptive",
    margin: float = 0.6,
    in_batch: bool = True,
) -> Float[Tensor, ""]:
    """Adaptive relevance margins (ARM): margins regress to targets from document similarity.

        margin_ij = cos(q_i, p+_i) - cos(q_i, p-_j)
        tau_kj    = (1 + cos(p+_k, p-_j)) / 2
        static       mean over i, j of     (margin_ij - margin)^2
        adaptive     mean over i, j of     (margin_ij - tau_ij)^2
        distributed  mean over i, j, k of  (margin_ij - tau_kj)^2, k over all positives of the batch

    Each labelled pair (q_i, p+_i) is compared with every negative p-_j of its query that
    `batch_mask` keeps, or without `in_batch` only with those of the query's candidates; the mean
    runs over all these pairs, so a query with more negatives weighs more. Vectors are scaled to
    length 1; margins have no unit and lie from -2 to 2, targets from 0 to 1. A negative similar to
    the positive, which is a hard one, gets a large target. The gradient flows through the targets
    as well, as in the published code, so the documents move apart too. `margin` is used by
    `static` alone.

    Raises:
        ConfigError: an unknown target.

    Source: Gienapp et al. 2024, arXiv:2407.21515. The formulas follow its published code with
    this difference: in the batch, that code sets the margin cos(q_j, p+_j) - cos(q_i, p-_j),
    with the positive of another query; here a query keeps its own positive. It has `distributed`
    with the query's own negatives only. Its static margin was tuned: 0.6 for MPNet, 0.2 for
    DistilBERT.

    """
    if target not in TARGETS:
        raise ConfigError(f"arm: target must be one of {', '.join(TARGETS)}, not {target!r}.")
    # Which negatives count for each labelled pair: P x M.
    rows, columns = labelled_pairs(batch_labels, batch_mask)
    negative = (batch_mask & ~batch_labels & (batch_candidates | in_batch))[rows]
    # Margins of the query, and similarities of the positive, to every document: P x M.
    docs = unit(doc_vectors)
    scores = unit(query_vectors) @ docs.T
    margins = scores[rows, columns][:, None] - scores[rows]
    similar = (1 + docs[columns] @ docs.T) / 2
    if target == "static":
        errors = (margins - margin).square()
    elif target == "adaptive":
        errors = (margins - similar).square()
    else:  # the mean over k of squared errors is the squared error of the mean plus the variance
        centre = similar.sum(0) / max(len(rows), 1)
        spread = (similar - centre).square().sum(0) / max(len(rows), 1)
        errors = (margins - centre).square() + spread
    return average(errors[negative])


@loss
def triplet(
    query_vectors: Float[Tensor, "A D"],
    doc_vectors: Float[Tensor, "M D"],
    batch_candidates: Bool[Tensor, "B M"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    margin: float = 1.0,
) -> Float[Tensor, ""]:
    """Triplet loss: a query nearer to its positive than to each of its own negatives by a margin.

        max(0, margin + |q - p+| - |q - p-|)

    Distances are Euclidean, so that `margin` is in units of the vectors: those of length 1 are at
    most 2 apart. Negatives are the query's candidates that `batch_mask` keeps, not documents of
    other queries. Averaged over all pairs of a labelled positive and a negative.

    Source: Weinberger and Saul 2009, "Distance Metric Learning for Large Margin Nearest Neighbor
    Classification"; in this form in Ravfogel et al. 2023, arXiv:2305.12517, with a margin of 1.

    """
    rows, columns = labelled_pairs(batch_labels, batch_mask)
    negative = (batch_candidates & batch_mask & ~batch_labels)[rows]
    pair, other = negative.nonzero(as_tuple=True)
    near = vector_norm(query_vectors[rows] - doc_vectors[columns], dim=-1)
    far = vector_norm(query_vectors[rows[pair]] - doc_vectors[other], dim=-1)
    return average((margin + near[pair] - far).relu())
