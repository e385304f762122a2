"""A synthetic batch with every signal, for the tests of losses."""

import torch

from retrodistill.objectives.objective import Signals, bind, parse_objective


def batch(
    seed: int = 0, b: int = 4, n: int = 5, pad: int = 0, dtype: torch.dtype = torch.float64
) -> Signals:
    """Return all signals of a batch whose lists have a hole in the middle and one at the end.

    Columns of `batch_scores` are all candidates of all queries, so M = B * N; D = T = 3, H = 7. Of
    the tokens, J = 2, X = B, W = N, U = 3, R = 3, V = Z = 8, P = S = 3. With `pad`, each list, and
    each text, ends with that many padded columns.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    student, teacher = draw(2, b, n)
    mask = torch.ones(b, n, dtype=torch.bool)
    mask[:, -1] = False
    mask[0, 2] = False
    labels = torch.zeros(b, n, dtype=torch.bool)
    labels[:, 0] = True
    trusted = mask.clone()
    trusted[1, 1] = False
    scores = draw(b, b * n)
    candidates = torch.block_diag(*mask.to(dtype)[:, None]).bool()
    for row in range(b):
        scores[row, row * n : (row + 1) * n] = student[row]
    margins = draw(b, n, n)
    token_mask = torch.ones(b, n, dtype=torch.bool)
    token_mask[:, -1] = False
    token_mask[0, 1] = False
    lists = {
        "student_scores": student,
        "teacher_scores": teacher,
        "mask": mask,
        "labels": labels,
        "trusted_negatives": trusted,
        "log_weights": draw(b, n).abs() * labels.logical_not(),
        "pair_scores": draw(b, n),
    }
    squares = {
        "preferences": torch.nn.functional.logsigmoid(margins - margins.mT),
        "preference_mask": mask[:, :, None] & mask[:, None, :] & ~torch.eye(n, dtype=torch.bool),
    }
    pads = torch.nn.functional.pad
    return Signals(
        **{name: pads(tensor, (0, pad)) for name, tensor in lists.items()},
        **{name: pads(tensor, (0, pad, 0, pad)) for name, tensor in squares.items()},
        batch_scores=scores,
        batch_candidates=candidates,
        batch_labels=candidates & torch.block_diag(*labels.to(dtype)[:, None]).bool(),
        batch_mask=mask.reshape(1, -1).repeat(b, 1),
        batch_relevant=candidates | candidates.roll(n + 1, dims=1),
        query_vectors=draw(b, 3),
        doc_vectors=draw(b * n, 3),
        second_query_vectors=draw(b, 3),
        second_doc_vectors=draw(b * n, 3),
        matched_query_vectors=draw(b, 3),
        matched_doc_vectors=draw(b * n, 3),
        teacher_query_vectors=draw(b, 3),
        teacher_doc_vectors=draw(b * n, 3),
        queue_vectors=draw(6, 3),
        matched_span_vectors=draw(7, 3),
        teacher_span_vectors=draw(7, 3),
        teacher_batch_scores=draw(b, b * n),
        teachers=pads(draw(3, b, n), (0, pad)),
        base_scores=pads(draw(b, n), (0, pad)),
        start_scores=pads(draw(b, n), (0, pad)),
        layer_scores=draw(3, b, b * n),
        teacher_layer_scores=draw(3, b, b * n),
        token_mask=pads(token_mask, (0, pad)),
        student_states=pads(draw(2, b, n, 3), (0, 0, 0, pad)),
        teacher_states=pads(draw(2, b, n, 3), (0, 0, 0, pad)),
        attention_vectors=pads(draw(3, b, n, 8), (0, 0, 0, pad)),
        teacher_attention_vectors=pads(draw(3, b, n, 8), (0, 0, 0, pad)),
        token_vectors=pads(draw(b, n, 3), (0, 0, 0, pad)),
        teacher_token_vectors=pads(draw(b, n, 3), (0, 0, 0, pad)),
        scored_tokens=pads(token_mask, (0, pad)),
        student_loss=draw(1)[0],
        teacher_loss=draw(1)[0],
    )


def value(name: str, signals: Signals) -> torch.Tensor:
    """Return the value of a loss by its registered name, with its default settings."""
    return bind(parse_objective(name))(signals)[name]
