"""Losses on vectors of the sentences of a text."""

import torch
from jaxtyping import Float
from torch import Tensor, arange
from torch.nn.functional import cross_entropy

from retrodistill.objectives.losses.contract import StudentTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import LOWEST, average
from retrodistill.objectives.losses.vectors import unit

SAME = 1 - 1e-5
"""Cosine of the teacher's vectors from which two sentences count as one."""


@loss
def span_contrastive(
    matched_span_vectors: Float[Tensor, "H T"],
    teacher_span_vectors: Float[Tensor, "H T"],
    *,
    temperature: StudentTemperature = 0.05,
) -> Float[Tensor, ""]:
    """InfoNCE of sentences: each, pooled from its text, finds the teacher's vector of it alone.

        -log( exp(cos(s_i, t_i) / T) / sum over j of exp(cos(s_i, t_j) / T) )

    s_i is the student's mean over the tokens of sentence i, each of which has read the whole
    document, in the teacher's space; t_i is the teacher's vector of the sentence as a text of its
    own. j runs over the sentences of all documents of the batch, those of the same document
    included, so that the parts of a text move apart: vectors that are all the document's own cost
    at least the logarithm of their number. A sentence that is the same as another, by the
    teacher's vectors, does not count as its negative. A document of one sentence has no parts.
    Neither labels nor candidates are needed; add `embed-distill` or `ckd` for vectors of whole
    texts. In nats, averaged over the sentences; above 0 even at the teacher.

    Source: Chen et al. 2023, "Sub-Sentence Encoder", arXiv:2311.04335 (from its abstract): there
    parts are propositions that a model extracts, and a positive is one that says the same in
    another text. The teacher's vector in its place, and sentences, are ours, as is 0.05.

    """
    teacher = unit(teacher_span_vectors)
    cosines = unit(matched_span_vectors) @ teacher.T
    diagonal = torch.eye(len(teacher), dtype=torch.bool, device=teacher.device)
    doubles = (teacher @ teacher.T > SAME) & ~diagonal
    logits = (cosines / temperature).masked_fill(doubles, LOWEST)
    own_columns = arange(len(teacher), device=teacher.device)
    return average(cross_entropy(logits, own_columns, reduction="none"))
