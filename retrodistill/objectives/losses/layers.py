"""Losses over the scores that each layer of a model gives the documents of a batch."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrodistill.base.errors import ConfigError
from retrodistill.objectives.losses.contract import StudentTemperature, TeacherTemperature
from retrodistill.objectives.losses.inputs import loss
from retrodistill.objectives.losses.lists import average
from retrodistill.objectives.losses.live import batch_kl
from retrodistill.objectives.losses.positives import choice_nll, labelled_pairs


@loss(zero_at={"layer_scores": "teacher_layer_scores"})
def layer_kl(
    layer_scores: Float[Tensor, "L B M"],
    teacher_layer_scores: Float[Tensor, "K B M"],
    batch_labels: Bool[Tensor, "B M"],
    batch_mask: Bool[Tensor, "B M"],
    *,
    student_temperature: StudentTemperature = 1.0,
    teacher_temperature: TeacherTemperature = 1.0,
    layer_temperature: float = 10.0,
) -> Float[Tensor, ""]:
    """Weighted KL divergences between the layers of teacher and student, over the batch.

        sum over layers j of w_j KL(softmax(t_k(j) / T) || softmax(s_j / T))

    All layers of the student but the last, whose scores are the model's own and for `batch_kl`. Of
    a student of L layers and a teacher of K, layer j of the student follows layer k(j) of the
    teacher, j K / L rounded, and never its last. The teacher's layers that find the labelled
    documents weigh more: w is the softmax of -NLL_k(j) / `layer_temperature`, where NLL is the
    cross-entropy of the labels under the teacher's layer, averaged over the batch. The weights are
    one number a layer, without a gradient. In nats, averaged over the queries that have a labelled
    document.

    Raises:
        ConfigError: a model has one layer alone, or `layer_temperature` is not above 0.

    Source: LEAD, Sun et al. 2022, arXiv:2212.05225, whose code draws layers of both models at
    random every ten steps, the embeddings among them, divides the teacher's side alone by the
    temperature, and scores by the vectors of the first token.

    """
    if not layer_temperature > 0:
        raise ConfigError(
            f"layer_kl: layer_temperature must be above 0, but it is {layer_temperature}."
        )
    followed = followed_layers(len(layer_scores), len(teacher_layer_scores))
    labelled = (batch_labels & batch_mask).any(-1)
    student, teacher = layer_scores[:, labelled], teacher_layer_scores[followed][:, labelled]
    weights = _layer_weights(
        teacher / teacher_temperature,
        batch_labels[labelled],
        batch_mask[labelled],
        layer_temperature,
    )
    divergences = [
        batch_kl(
            ours,
            theirs,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
        )
        for ours, theirs in zip(student, teacher, strict=False)
    ]
    return (weights * torch.stack(divergences)).sum()


def followed_layers(layers: int, teacher_layers: int) -> list[int]:
    """Return the teacher's layer, from 0, for each layer of the student but the last.

    Raises:
        ConfigError: a model has one layer alone.

    """
    if min(layers, teacher_layers) < 2:
        raise ConfigError(
            f"layer-kl compares layers below the last, but student and teacher have {layers} and "
            f"{teacher_layers} layers: take models of two layers and more, or drop layer-kl."
        )
    nearest = ((2 * layer * teacher_layers + layers) // (2 * layers) for layer in range(1, layers))
    return [min(max(layer, 1), teacher_layers - 1) - 1 for layer in nearest]


def _layer_weights(
    logits: Float[Tensor, "K B M"],
    labels: Bool[Tensor, "B M"],
    mask: Bool[Tensor, "B M"],
    temperature: float,
) -> Float[Tensor, " J"]:
    """Return the weight of each layer, by how well it finds the labelled documents."""
    rows, columns = labelled_pairs(labels, mask)
    negative = (mask & ~labels)[rows]
    losses = [
        average(choice_nll(layer[rows, columns], layer[rows], negative))
        for layer in logits.detach()
    ]
    return (-torch.stack(losses) / temperature).softmax(0)
