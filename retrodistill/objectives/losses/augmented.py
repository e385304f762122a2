"""Contrastive losses of augmented vectors: under another dropout, or mixed with others."""

from jaxtyping import Bool, Float
from torch import Tensor, arange, cat
from torch.nn.functional import cross_entropy

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contract import StudentTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import LOWEST, average
from retrodistill.objectives.losses.vectors import unit


@loss
def mixup_contrastive(
    query_vectors: Float[Tensor, "A D"],
    doc_vectors: Float[Tensor, "M D"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: StudentTemperature = 0.05,
    share: float = 0.8,
) -> Float[Tensor, ""]:
    """InfoNCE of mixed queries: a mixture has to find the documents of both, in its proportions.

        m    = normalise(share q_i + (1 - share) q_j)
        loss = -share ln P(positives of i | m) - (1 - share) ln P(positives of j | m)

    j is the next labelled query of the batch, so that it is one at random. P is a softmax of
    cosines over the positives of both and every document that may be compared with both queries and
    is relevant to neither; ln P is a mean over a query's positives. Both vectors are scaled to
    length 1 before. Vectors are mixed, not texts, so it costs no pass through the encoder. At a
    share of 1, and in a batch of one labelled query, it is `contrastive` of cosines with one
    positive a query. In nats, averaged over the labelled queries.

    Raises:
        ConfigError: the share is below 0.5, or above 1.

    Source: i-Mix, Lee et al. 2021, arXiv:2010.08887 (from memory), after mixup, Zhang et al. 2018,
    arXiv:1710.09412; both draw the share from a Beta distribution, while here it is fixed.

    """
    if not 0.5 <= share <= 1:
        raise ConfigError(f"mixup_contrastive: share must be from 0.5 to 1, but it is {share}.")
    positive = batch_labels & batch_mask
    keep = positive.any(-1)
    # Queries with a positive, and the partner of each: L x D, L x M.
    queries, positives = unit(query_vectors[: len(keep)])[keep], positive[keep]
    partner = positives.roll(1, 0)
    mixtures = unit(share * queries + (1 - share) * queries.roll(1, 0))
    logits = mixtures @ unit(doc_vectors).T / temperature
    # What the softmax runs over: both queries' positives, and what is a negative of both.
    negative = (batch_mask & ~batch_labels)[keep]
    compared = positives | partner | (negative & negative.roll(1, 0))
    costs = logits.masked_fill(~compared, LOWEST).logsumexp(-1, keepdim=True) - logits
    target = share * positives / positives.sum(-1, keepdim=True)
    target = target + (1 - share) * partner / partner.sum(-1, keepdim=True)
    return average((costs * target).sum(-1))


@loss
def simcse(
    query_vectors: Float[Tensor, "A D"],
    doc_vectors: Float[Tensor, "M D"],
    second_query_vectors: Float[Tensor, "A D"],
    second_doc_vectors: Float[Tensor, "M D"],
    *,
    temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """Unsupervised SimCSE: each text's vector finds the same text's vector under another dropout.

        -log( exp(cos(h_i, h'_i) / T) / sum over j of exp(cos(h_i, h'_j) / T) )

    h and h' are the student's vectors of the batch's texts, queries and documents together, by two
    passes. It needs neither labels nor a teacher, and each step costs two passes through the
    encoder. A duplicate of a text under another id looks like a negative. A student without
    dropout is refused: its two passes are one. In nats, averaged over the texts.

    Source: Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings",
    arXiv:2104.08821; its head, which is used in training alone, is not here. 0.05 is from memory.

    """
    passes = unit(cat([query_vectors, doc_vectors]))
    second = unit(cat([second_query_vectors, second_doc_vectors]))
    logits = passes @ second.T / temperature
    return cross_entropy(logits, arange(len(logits), device=logits.device))
