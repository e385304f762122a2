"""Losses on a matrix of interactions: which users, in place of queries, chose which documents."""

from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average
from retrodistill.objectives.losses.vectors import unit


@loss
def elsa(
    doc_vectors: Float[Tensor, "M D"],
    batch_relevant: Bool[Tensor, "B M"],
) -> Float[Tensor, ""]:
    """ELSA: each of a user's documents predicted from the user's others (beeFormer).

        A    = rows of doc_vectors scaled to length 1
        Y    = max(X A A^T - X, 0)
        loss = mean over users of | X / |X| - Y / |Y| |^2

    X (B, M) has 1 where a user chose a document of the batch, drawn for this user or for another.
    Subtracting X removes the diagonal of A A^T, which is 1: without it a document predicts itself,
    and vectors that are all orthogonal are perfect. Queries are not looked at. From 0 to 2, a mean
    over the users with two documents in the batch; of a single one there is nothing to predict.

    Source: Vančura, Kordík and Straka 2024 (beeFormer), arXiv:2409.10309; its published code also
    divides by the number of documents, and keeps users of one document, whose loss is constant.
    ELSA: Vančura et al. 2022, "Scalable Linear Shallow Autoencoder for Collaborative Filtering".

    """
    chosen = batch_relevant[batch_relevant.sum(-1) > 1].to(doc_vectors.dtype)
    docs = unit(doc_vectors)
    # U x M, by way of U x D: the sum of a user's documents against every document.
    predicted = ((chosen @ docs) @ docs.T - chosen).relu()
    return average((unit(chosen) - unit(predicted)).square().sum(-1))
