"""What every registered loss promises, each stated once for all of them."""

import inspect
from collections.abc import Mapping

import pytest
import torch
from fakes.batch import batch, value

from retrodistill.base.errors import DataError
from retrodistill.base.registry import LOSSES
from retrodistill.objectives.losses.contract import Role, role_of
from retrodistill.objectives.objective import LossTerm, Signals, shape_of

NAMES = [*LOSSES, "fakes.losses:huber_margin"]
"""Every registered loss, and one from outside the package."""

EXACT = [name for name in NAMES if LossTerm(name=name).contract.exact_gradient]
DISTILLING = [name for name in NAMES if LossTerm(name=name).contract.zero_at]

LEAVES = (
    "student_scores",
    "pair_scores",
    "batch_scores",
    "layer_scores",
    "query_vectors",
    "doc_vectors",
    "second_query_vectors",
    "second_doc_vectors",
    "matched_query_vectors",
    "matched_doc_vectors",
    "matched_span_vectors",
    "student_states",
    "attention_vectors",
    "token_vectors",
    "student_loss",
    "teacher_loss",
)
"""Signals that a student's weights shape."""

TEACHERS: tuple[dict[str, str], ...] = (
    {"student_scores": "teacher_scores"},
    {"pair_scores": "teacher_scores"},
    {"batch_scores": "teacher_batch_scores"},
    {"layer_scores": "teacher_layer_scores"},
    {"query_vectors": "teacher_query_vectors", "doc_vectors": "teacher_doc_vectors"},
    {
        "matched_query_vectors": "teacher_query_vectors",
        "matched_doc_vectors": "teacher_doc_vectors",
    },
    {"matched_span_vectors": "teacher_span_vectors"},
    {"student_states": "teacher_states"},
    {"attention_vectors": "teacher_attention_vectors"},
    {"token_vectors": "teacher_token_vectors"},
    {"student_loss": "teacher_loss"},
)
"""Signals of a student and of a teacher that can be equal."""


def asks(name: str, *signals: str) -> bool:
    """Tell whether a loss asks for one of these signals."""
    return bool(set(LossTerm(name=name).signals) & set(signals))


MASKS = ("mask", "batch_mask", "preference_mask", "token_mask", "scored_tokens")
MASKED = [name for name in NAMES if asks(name, *MASKS)]
LISTS = [
    name
    for name in NAMES
    if asks(name, "mask", "token_mask", "scored_tokens") and not asks(name, "batch_mask")
]
TOKENS = ("student_states", "teacher_states", "attention_vectors", "teacher_attention_vectors")
TOKEN_VECTORS = ("token_vectors", "teacher_token_vectors")


def at_the_teacher(name: str, equal: Mapping[str, str]) -> float:
    """Return the value of a loss where signals of the student equal those of the teacher."""
    signals = batch()
    for student, teacher in equal.items():
        signals[student] = signals[teacher]
    return value(name, signals).item()


@pytest.mark.parametrize("name", DISTILLING)
def test_a_distilling_loss_is_zero_at_the_teacher(name: str) -> None:
    """A KL that is 1.71 at equality: probabilities passed where log-probabilities belong."""
    zero_at = LossTerm(name=name).contract.zero_at
    assert asks(name, *zero_at)
    assert asks(name, *zero_at.values())
    assert at_the_teacher(name, zero_at) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(DISTILLING)))
def test_a_loss_that_is_zero_at_the_teacher_says_so(name: str) -> None:
    """A new loss that declares nothing, and so escapes the test above."""
    both = [
        {student: teacher for student, teacher in pairs.items() if asks(name, student)}
        for pairs in TEACHERS
    ]
    values = [at_the_teacher(name, pairs) for pairs in both if asks(name, *pairs.values())]
    assert all(value > 1e-3 for value in values), "declare it: @loss(zero_at={...})"


@pytest.mark.parametrize("name", [name for name in NAMES if asks(name, "teacher_scores")])
def test_a_loss_that_depends_on_the_teachers_scale_declares_the_setting_for_it(name: str) -> None:
    """A temperature called `tau`, at which nobody checks that the lists are not one-hot."""
    signals, scaled = batch(), batch()
    scaled["teacher_scores"] = 3 * scaled["teacher_scores"]
    term = LossTerm(name=name)
    declared = [
        setting
        for role in (Role.TEACHER_TEMPERATURE, Role.TEACHER_UNITS)
        for setting in term.settings_with(role)
    ]
    depends = value(name, signals).item() != pytest.approx(value(name, scaled).item())
    assert bool(declared) >= depends, "annotate the setting as TeacherTemperature or TeacherUnits"


@pytest.mark.parametrize("name", LOSSES)
def test_roles_are_read_from_the_source_as_python_reads_them(name: str) -> None:
    """An annotation under another name: a role that only code that imports the loss sees."""
    parameters = inspect.signature(LossTerm(name=name).function).parameters
    roles = {each: role_of(parameter.annotation) for each, parameter in parameters.items()}
    source = LOSSES.signature(name).parameters
    assert {each: role_of(parameter.annotation) for each, parameter in source.items()} == roles


@pytest.mark.parametrize("name", MASKED)
def test_every_loss_ignores_padding(name: str) -> None:
    """A padded score that leaks in trains the student on nothing, at a plausible-looking loss."""
    signals = batch()
    before = value(name, signals)
    signals["student_scores"][~signals["mask"]] = 1e3
    signals["pair_scores"][~signals["mask"]] = 1e3
    signals["teacher_scores"][~signals["mask"]] = -1e3
    signals["teachers"][:, ~signals["mask"]] = 1e3
    signals["base_scores"][~signals["mask"]] = 1e3
    signals["start_scores"][~signals["mask"]] = -1e3
    signals["log_weights"][~signals["mask"]] = 1e3
    signals["batch_scores"][~signals["batch_mask"]] = 1e3
    signals["preferences"][~signals["preference_mask"]] = float("nan")
    for signal in TOKENS:
        signals[signal][:, ~signals["token_mask"]] = 1e3
    for signal in TOKEN_VECTORS:
        signals[signal][~signals["scored_tokens"]] = 1e3
    assert value(name, signals).item() == before.item()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if LossTerm(name=name).contract.exact_gradient]
)
def test_every_loss_has_a_finite_and_right_gradient(name: str) -> None:
    """NaN from a masked -inf, which turns all weights to NaN at the first step."""
    signals = batch(b=3, n=4)
    leaves = [leaf for leaf in LEAVES if asks(name, leaf)]
    tensors = tuple(signals[leaf].clone().requires_grad_() for leaf in leaves)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return value(name, Signals(**{**signals, **dict(zip(leaves, tensors, strict=True))}))

    assert torch.autograd.gradcheck(loss, tensors)


@pytest.mark.parametrize("name", MASKED)
def test_every_loss_survives_rows_without_a_list(name: str) -> None:
    """One fully masked query of a batch that makes the whole loss, or its gradient, NaN."""
    signals = batch()
    for mask in MASKS:
        signals[mask][1] = False
    signals["batch_labels"][1] = False
    signals["mask"][2, 1:] = False
    leaves = [signals[leaf].requires_grad_() for leaf in LEAVES if asks(name, leaf)]
    loss = value(name, signals)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


WITHOUT = {
    "candidates": (*MASKS, "batch_labels", "batch_candidates"),
    "labels": ("labels", "batch_labels"),
    "negatives": ("trusted_negatives",),
    "comparisons": ("preference_mask",),
}
"""What a batch can lack, and the signals that are all False then."""


@pytest.mark.parametrize("lacking", [*WITHOUT, "order"])
@pytest.mark.parametrize("name", MASKED)
def test_a_batch_without_signal_costs_nothing_and_training_continues(
    name: str, lacking: str
) -> None:
    """A training of hours that stops at the first batch without a label; or the mean of nothing,
    NaN; or a loss without a graph, for which one of several processes waits for ever.
    """
    signals = batch()
    for mask in WITHOUT.get(lacking, ()):
        signals[mask][:] = False
    if lacking == "order":
        signals["teacher_scores"][:] = 2.0
    leaves = [signals[leaf].requires_grad_() for leaf in LEAVES if asks(name, leaf)]
    loss = value(name, signals)
    loss.backward()
    assert loss.isfinite()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
    needed = {"labels": ("batch_labels",), "comparisons": ("preference_mask",)}
    if lacking == "candidates" or asks(name, *needed.get(lacking, ())):
        assert loss.item() == 0.0
        assert not any(leaf.grad.any() for leaf in leaves if leaf.grad is not None)


LABELLED = [name for name in MASKED if asks(name, "labels", "batch_labels")]


def uneven() -> Signals:
    """Return a batch whose queries have two positives, none, three, and one."""
    signals = batch()
    n = signals["labels"].shape[1]
    for row, count in enumerate((2, 0, 3, 1)):
        signals["labels"][row] = torch.arange(n) < count
    signals["labels"] &= signals["mask"]
    own = torch.block_diag(*signals["labels"].double()[:, None]).bool()
    signals["batch_labels"] = signals["batch_candidates"] & own
    return signals


@pytest.mark.parametrize("name", MASKED)
def test_lists_of_several_positives_and_of_none_share_a_batch(name: str) -> None:
    """The mean of no positive, NaN, where a query log is trained on beside labelled queries."""
    signals = uneven()
    leaves = [signals[leaf].requires_grad_() for leaf in LEAVES if asks(name, leaf)]
    loss = value(name, signals)
    loss.backward()
    assert loss.isfinite()
    assert loss.item() > 0
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


UNLABELLED = (
    "fused-kl",
    "agreement-weighted-kl",
    "layer-kl",
    "inter-set",
    "contrastive-over-queries",
)
"""Losses of labels that learn a query without one from its teachers, compare others with it, or do
not look at queries.
"""


@pytest.mark.parametrize("name", [name for name in LABELLED if name not in UNLABELLED])
def test_a_query_without_a_label_is_no_part_of_a_loss_of_labels(name: str) -> None:
    """The teacher's best taken for a label unasked; or a log of queries that dilutes the loss."""
    signals = uneven()
    rows = [leaf for leaf in LEAVES if asks(name, leaf) and leaf != "doc_vectors"]
    leaves = [signals[leaf].requires_grad_() for leaf in rows]
    loss = value(name, signals)
    loss.backward()
    assert all(leaf.grad is not None and not leaf.grad[1].any() for leaf in leaves)
    labelled = torch.tensor([0, 2, 3])
    without = Signals(
        **{
            signal: tensor.index_select(queries[0], labelled) if queries else tensor
            for signal, tensor in signals.items()
            for shape in [(shape_of(signal) or "").split()]
            for queries in [[n for n, letter in enumerate(shape) if letter in ("A", "B")]]
        }
    )
    assert value(name, without).item() == pytest.approx(loss.item())


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in LABELLED
        if asks(name, "batch_scores") and not asks(name, "teacher_batch_scores")
    ],
)
def test_a_positive_is_no_negative_of_another_one(name: str) -> None:
    """Several positives in a list, of which the loss pushes all but one away."""
    signals = uneven()
    scores = signals["batch_scores"].requires_grad_()
    value(name, signals).backward()
    assert scores.grad is not None
    positives = scores.grad[signals["batch_labels"]]
    assert positives.max() <= 1e-9
    assert positives.min() < 0


@pytest.mark.parametrize("side", ["query", "doc"])
@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if all(s.endswith("vectors") for s in LossTerm(name=name).signals)],
)
def test_a_batch_of_queries_or_of_documents_alone_is_learned_from(name: str, side: str) -> None:
    """The mean of no text, NaN, where a batch is made of a collection's texts."""
    signals = batch()
    for signal in signals:
        if signal.endswith(f"{side}_vectors"):
            signals[signal] = signals[signal][:0]
    leaves = [signals[leaf].requires_grad_() for leaf in LEAVES if asks(name, leaf)]
    loss = value(name, signals)
    loss.backward()
    assert loss.isfinite()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("filling", [float("-inf"), float("nan")])
@pytest.mark.parametrize("name", MASKED)
def test_padding_may_hold_anything(name: str, filling: float) -> None:
    """-inf, with which most code pads: a good loss whose gradient is NaN, and so all weights."""
    plain, filled = batch(), batch()
    scores = ("student_scores", "pair_scores", "teacher_scores", "base_scores", "start_scores")
    for signal in (*scores, "log_weights"):
        filled[signal][~filled["mask"]] = filling
    filled["teachers"][:, ~filled["mask"]] = filling
    filled["preferences"][~filled["preference_mask"]] = filling
    filled["batch_scores"][~filled["batch_mask"] & ~filled["batch_candidates"]] = filling
    for signal in TOKENS:
        filled[signal][:, ~filled["token_mask"]] = filling
    for signal in TOKEN_VECTORS:
        filled[signal][~filled["scored_tokens"]] = filling
    gradients = []
    for signals in (plain, filled):
        leaves = [signals[leaf].requires_grad_() for leaf in LEAVES if asks(name, leaf)]
        loss = value(name, signals)
        loss.backward()
        gradients.append([loss, *(leaf.grad for leaf in leaves)])
    for expected, actual in zip(*gradients, strict=True):
        assert expected is not None
        assert actual is not None
        assert torch.equal(expected, actual)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_counts_in_float32(name: str, dtype: torch.dtype) -> None:
    """Scores near 1 in steps of 0.004, 0.2 nats at a temperature of 0.02; 1e4 / 0.05 as infinity.

    Both by signals of that type, and by an autocast around the call.
    """
    signals = batch(dtype=torch.float32)
    half = Signals(
        **{
            signal: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for signal, tensor in signals.items()
        }
    )
    wide = Signals(
        **{
            signal: tensor.float() if tensor.is_floating_point() else tensor
            for signal, tensor in half.items()
        }
    )
    expected = value(name, wide)
    assert value(name, half).item() == expected.item()
    with torch.autocast("cpu", torch.bfloat16):
        actual = value(name, wide)
    assert actual.dtype == torch.float32
    assert actual.item() == expected.item()


@pytest.mark.parametrize(
    "name", [name for name in NAMES if any("vectors" in s for s in LossTerm(name=name).signals)]
)
def test_a_zero_vector_has_a_small_gradient(name: str) -> None:
    """A dead sparse student, divided by a length of 1e-12: a step of that text alone."""
    signals = batch(dtype=torch.float32)
    leaves = [signals[leaf] for leaf in LEAVES if asks(name, leaf)]
    for leaf in leaves:
        leaf[0] = 0.0
        leaf.requires_grad_()
    value(name, signals).backward()
    assert all(leaf.grad is not None and leaf.grad.abs().max() < 1e3 for leaf in leaves)


@pytest.mark.parametrize("name", LISTS)
def test_the_size_of_a_loss_does_not_depend_on_padding(name: str) -> None:
    """An elementwise mean, whose loss shrinks as lists grow by padding."""
    assert value(name, batch(pad=20)).item() == pytest.approx(value(name, batch()).item())


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_explains_itself(name: str) -> None:
    """A formula without its unit or its source, which nobody can check."""
    text = LossTerm(name=name).function.__doc__ or ""
    assert "Source:" in text


def test_a_teacher_of_one_column_is_refused() -> None:
    """A teacher of shape (B, 1) broadcast against (B, N) silently."""
    with pytest.raises(DataError, match=r"teacher_scores has N = 1, but student_scores has N = 3"):
        Signals(student_scores=torch.zeros(2, 3), teacher_scores=torch.zeros(2, 1))
    with pytest.raises(DataError, match=r"must have shape \(B, N\)"):
        Signals(student_scores=torch.zeros(2))
