"""Contrastive losses: a labelled positive against negatives."""

from jaxtyping import Bool, Float
from torch import Tensor, cat

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contract import StudentTemperature, TeacherUnits
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import LOWEST, average
from retrodistill.objectives.losses.positives import choice_nll, labelled_pairs
from retrodistill.objectives.losses.vectors import unit


@loss
def contrastive(
    batch_scores: Float[Tensor, "B M"],
    batch_candidates: Bool[Tensor, "B M"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: StudentTemperature = 0.05,
    own_negatives: bool = True,
) -> Float[Tensor, ""]:
    """InfoNCE: each positive of a query against hard and in-batch negatives.

        -log( exp(s+ / T) / (exp(s+ / T) + sum over negatives of exp(s- / T)) )

    Negatives are the query's hard negatives and every document of the other queries that
    `batch_mask` keeps. Without `own_negatives`, the query's hard negatives are omitted, as in the
    cross-entropy that SimLM's code adds to its distillation; a query alone in its batch then has
    no negative, and its loss is 0. A query with several positives in the batch gives a term for
    each, in which its other positives do not count as negatives. In nats, averaged over the
    positives.

    Source: van den Oord et al. 2018, arXiv:1807.03748; in-batch negatives as in Karpukhin et
    al. 2020, arXiv:2004.04906; SimLM: Wang et al. 2022, arXiv:2207.02578.

    """
    rows, columns = labelled_pairs(batch_labels, batch_mask)
    negative = batch_mask & ~batch_labels
    if not own_negatives:
        negative = negative & ~batch_candidates
    logits = batch_scores / temperature
    return average(choice_nll(logits[rows, columns], logits[rows], negative[rows]))


@loss
def listwise_ce(
    student_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    labels: Bool[Tensor, "B N"],
    trusted_negatives: Bool[Tensor, "B N"],
    *,
    temperature: StudentTemperature = 1.0,
) -> Float[Tensor, ""]:
    """Cross-entropy of a query's labelled candidates over its own list: how rerankers are trained.

        -log( exp(s+ / T) / (exp(s+ / T) + sum over the list's negatives of exp(s- / T)) )

    Documents of other queries do not count, which a cross-encoder would have to read with each
    query. Negatives are unlabelled candidates that are `trusted_negatives`. A query with several
    positives gives a term for each, in which its other positives do not count. In nats, averaged
    over the positives that have a negative.

    Source: the localised contrastive estimation of Gao, Dai and Callan 2021, arXiv:2101.08751
    (from memory); the supervised term of RocketQAv2, Ren et al. 2021, arXiv:2110.07367.

    """
    negative = trusted_negatives & mask & ~labels
    rows, columns = (labels & mask & negative.any(-1, keepdim=True)).nonzero(as_tuple=True)
    logits = student_scores / temperature
    return average(choice_nll(logits[rows, columns], logits[rows], negative[rows]))


@loss
def contrastive_over_queries(
    batch_scores: Float[Tensor, "B M"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """InfoNCE in the other direction: each positive document chooses among the batch's queries.

        -log( exp(s+ / T) / (exp(s+ / T) + sum over other queries of exp(s- / T)) )

    The scores are those of one document with all queries of this process whose `batch_mask`
    keeps it. A query's hard negatives have no part in it. In nats, averaged over the labelled
    pairs.

    Source: the second half of a symmetric contrastive loss, as in Radford et al. 2021 (CLIP),
    arXiv:2103.00020.

    """
    rows, columns = labelled_pairs(batch_labels, batch_mask)
    negative = (batch_mask & ~batch_labels).T[columns]
    logits = batch_scores.T[columns] / temperature
    return average(choice_nll(batch_scores[rows, columns] / temperature, logits, negative))


@loss
def soft_nn(
    batch_scores: Float[Tensor, "B M"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """Soft nearest neighbour loss: a query's positives together against the batch.

        -log( sum over positives of exp(s / T) / sum over the batch of exp(s / T) )

    The batch is every document that `batch_mask` keeps, the positives included. The
    exponentials of the positives are summed, so that it is enough to be near one of them; with
    a single positive this is `contrastive`. In nats, averaged over the queries that have a
    positive.

    Source: Frosst et al. 2019, arXiv:1902.01889; for retrievers, the first stage of Syntriever,
    Kim and Baek 2025, arXiv:2502.03824, whose scale of 20 is the temperature 0.05.

    """
    positive = batch_labels & batch_mask
    keep = positive.any(-1)
    logits = batch_scores[keep] / temperature
    near = logits.masked_fill(~positive[keep], LOWEST).logsumexp(-1)
    return average(logits.masked_fill(~batch_mask[keep], LOWEST).logsumexp(-1) - near)


@loss
def decayed_contrastive(
    student_scores: Float[Tensor, "B N"],
    teacher_scores: Float[Tensor, "B N"],
    mask: Bool[Tensor, "B N"],
    labels: Bool[Tensor, "B N"],
    trusted_negatives: Bool[Tensor, "B N"],
    *,
    temperature: StudentTemperature = 0.05,
    centre: TeacherUnits = 0.0,
    width: TeacherUnits = 1.0,
) -> Float[Tensor, ""]:
    """InfoNCE over a query's candidates, with negatives weighted by their teacher margin.

        w_j  = exp( -(t_j - t+ - centre)^2 / (2 width^2) )
        loss = -log( exp(s+ / T) / (exp(s+ / T) + sum over negatives of w_j exp(s_j / T)) )

    `centre` and `width` are in units of the teacher's scores. A negative that the teacher scores
    t+ + `centre` has weight 1; easy negatives fade, and with a centre below 0 so do those that it
    scores above the positive, which are likely to be relevant. The weights do not depend on the
    student, and with a large width this is InfoNCE over the list. Unlabelled candidates are
    negatives if they are `trusted_negatives`: those with too high a teacher score are ignored.
    In nats, averaged over the positives that have a negative.

    Raises:
        ConfigError: the width is not above 0.

    Source: ours. From SimANS, Zhou et al. 2022, arXiv:2210.11773, it takes the Gaussian of the
    distance to the positive's score; SimANS samples negatives with that probability, by the
    retriever's scores, while here all of them are kept, weighted by the teacher's scores.
    Defaults unverified.

    """
    if not width > 0:
        raise ConfigError(f"decayed_contrastive: width must be above 0, but it is {width}.")
    negative = trusted_negatives & mask & ~labels
    rows, columns = (labels & mask & negative.any(-1, keepdim=True)).nonzero(as_tuple=True)
    logits = student_scores / temperature
    margins = teacher_scores[rows] - teacher_scores[rows, columns][:, None]
    log_weights = -((margins - centre) / width).square() / 2
    weighted = logits[rows] + log_weights
    return average(choice_nll(logits[rows, columns], weighted, negative[rows]))


@loss
def passage_centric(
    batch_scores: Float[Tensor, "B M"],
    doc_vectors: Float[Tensor, "M D"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """Passage-centric InfoNCE: a positive passage nearer to its query than to the negatives.

        -log( exp(q.p+ / T) / (exp(q.p+ / T) + sum over negatives of exp(p+.p- / T)) )

    Negatives are the query's hard negatives and every document of the other queries that
    `batch_mask` keeps; similarities are inner products, as the scores are. It does not compare
    queries with negatives: add it to `contrastive`. In nats, averaged over the labelled pairs.

    Source: the passage-centric term of PAIR, Ren et al. 2021, arXiv:2108.06027, which gives it a
    weight of 0.1 beside 0.9 of the query-centric one.

    """
    rows, columns = labelled_pairs(batch_labels, batch_mask)
    negative = batch_mask & ~batch_labels
    positives = batch_scores[rows, columns] / temperature
    passages = doc_vectors[columns] @ doc_vectors.T / temperature
    return average(choice_nll(positives, passages, negative[rows]))


@loss(exact_gradient=False)
def mixed_negatives(
    query_vectors: Float[Tensor, "A D"],
    doc_vectors: Float[Tensor, "M D"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: StudentTemperature = 0.05,
    share: float = 0.2,
) -> Float[Tensor, ""]:
    """InfoNCE with a synthetic hard negative: the hardest one, mixed with the positive (MixCSE).

        m    = normalise(share p+ + (1 - share) p-)
        loss = -log( exp(q.p+ / T) / (exp(q.p+ / T) + exp(q.m / T) + sum of exp(q.p- / T)) )

    All vectors are scaled to length 1, so that scores are cosines. The hardest negative is the
    query's highest-scoring one of those that `batch_mask` keeps; the mixture keeps the gradient
    from vanishing once all real negatives are far away. No gradient flows through the mixture into
    the documents, only into the query. In nats, averaged over the labelled pairs.

    Raises:
        ConfigError: the share is below 0, or 1 or more.

    Source: MixCSE, Zhang et al. 2022, "Unsupervised Sentence Representation via Contrastive
    Learning with Mixing Negatives" (AAAI). Its code detaches the mixture as here, but mixes with
    the next text of the batch instead of the hardest, and mixes on the query's side as well. The
    default share is from memory of the paper.

    """
    if not 0 <= share < 1:
        raise ConfigError(
            f"mixed_negatives: share must be at least 0 and below 1, but it is {share}: at 1 the "
            "mixture is the positive itself."
        )
    rows, columns = labelled_pairs(batch_labels, batch_mask)
    negative = (batch_mask & ~batch_labels)[rows]
    # One row a labelled pair: P x M scores.
    queries, docs = unit(query_vectors)[rows], unit(doc_vectors)
    scores = queries @ docs.T
    # Mix each pair's hardest negative with its positive: P x D.
    hardest = docs[scores.masked_fill(~negative, LOWEST).argmax(-1)]
    mixtures = unit(share * docs[columns] + (1 - share) * hardest).detach()
    mixed = (queries * mixtures).sum(-1, keepdim=True)
    positives = scores.gather(1, columns[:, None])[:, 0] / temperature
    logits = cat([scores, mixed], dim=1) / temperature
    counts = cat([negative, negative.any(-1, keepdim=True)], dim=1)
    return average(choice_nll(positives, logits, counts))
