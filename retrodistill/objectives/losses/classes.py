"""Losses over the documents that are relevant to one query, as a class of texts."""

import math

from jaxtyping import Bool, Float
from torch import Tensor, cat, maximum, stack
from torch.linalg import vector_norm

from retrodistill.objectives.losses.contract import StudentTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average
from retrodistill.objectives.losses.vectors import SHORTEST, unit


@loss
def class_mean_direction(
    matched_query_vectors: Float[Tensor, "A T"],
    matched_doc_vectors: Float[Tensor, "M T"],
    teacher_query_vectors: Float[Tensor, "A T"],
    teacher_doc_vectors: Float[Tensor, "M T"],
    batch_labels: Bool[Tensor, "B M"],
) -> Float[Tensor, ""]:
    """ND loss: vectors as long as the teacher's, in the direction of their class's mean.

        mean over members of  1 - s.c / max(|s|, |t|)

    The class of a query are its labelled documents of the batch, and c is the mean of the teacher's
    vectors of them, scaled to length 1; members are these documents and the query. s is the
    student's vector of a member, t the teacher's: a student's vector that is shorter than the
    teacher's costs something even in the right direction, a longer one costs 1 - cosine. So
    relevant documents of one query, and the query, come together, which `embed-distill` and
    `norm-and-direction` do not ask for. Where each query has one document and lengths are 1, the
    half of the documents is that of `embed-distill`; the half of the queries never is. Without
    unit, from 0 to 2; above 0 at the teacher.

    Source: Wang et al. 2023, "Improving Knowledge Distillation via Regularizing Feature Norm and
    Direction", arXiv:2305.17007, as in its code; its classes are those of images, with means over
    the whole training set, and it stands beside a divergence of class probabilities.

    """
    rows, columns = batch_labels.nonzero(as_tuple=True)
    labelled = batch_labels.any(-1).nonzero()[:, 0]
    # The teacher's mean of each query's documents, of length 1: B x T.
    weights = batch_labels.to(teacher_doc_vectors.dtype)
    centres = unit(weights @ teacher_doc_vectors / weights.sum(-1, keepdim=True).clamp_min(1.0))
    # Members of all classes: one row a labelled pair, then one a query with a document.
    student = cat([matched_doc_vectors[columns], matched_query_vectors[labelled]])
    teacher = cat([teacher_doc_vectors[columns], teacher_query_vectors[labelled]])
    along = (student * cat([centres[rows], centres[labelled]])).sum(-1)
    longest = maximum(vector_norm(student, dim=-1), vector_norm(teacher, dim=-1))
    return average(1.0 - along / longest.clamp_min(SHORTEST))


@loss
def inter_set(
    doc_vectors: Float[Tensor, "M D"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """Inter-set loss: the documents of one set far from those of all others (SetCSE).

        mean over sets of  T ln( mean over pairs of exp(cos(a, b) / T) )

    A set are the labelled documents of a query; a pair is one of them, a, with a labelled document
    of another query, b, that is not in the set itself and may be compared with it. It pushes sets
    apart and pulls nothing together: add it to a loss that does, such as `contrastive`, which
    compares documents with queries only. It helps what asks for documents of A and not of B
    (`search` with NOT). In units of a cosine, from -1 to 1.

    Source: Liu 2024, "SetCSE: Set Operations using Contrastive Learning of Sentence Embeddings",
    arXiv:2404.17606 (from its abstract; the form is from memory, which has a sum and no factor T).

    """
    members = batch_labels & batch_mask
    # Which documents of other sets each set is compared with: B x M.
    elsewhere = members.sum(0) - members.long() > 0
    negatives = elsewhere & batch_mask & ~batch_labels
    docs = unit(doc_vectors)
    logits = docs @ docs.T / temperature
    # Pairs of each set that has some, as a logarithm of their mean.
    pairs = [logits[mine][:, theirs] for mine, theirs in zip(members, negatives, strict=True)]
    means = [each.logsumexp((0, 1)) - math.log(each.numel()) for each in pairs if each.numel()]
    return temperature * average(stack(means) if means else logits[:0])
