"""Duo models and round-robins, against plain loops."""

import math
from pathlib import Path

import numpy as np
import pytest
from fakes.language_models import bart_tokenizer, pairs_of, save_tiny_causal, save_tiny_seq2seq
from fakes.models import save_tiny_cross_encoder
from hypothesis import given
from hypothesis import strategies as st

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Comparer, Comparisons, Doc, Pairs, Teacher
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.teachers.comparisons import (
    comparisons_of,
    in_both_orders,
    mean_preference,
    ring,
)
from retrodistill.models.teachers.pairwise import CAUSAL, SEQ2SEQ, PairwiseTeacher


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("duo")
    return {
        "t5": save_tiny_seq2seq(root / "t5"),
        "one": save_tiny_cross_encoder(root / "one"),
        "two": save_tiny_cross_encoder(root / "two", labels=2),
        "roberta": save_tiny_roberta(root / "roberta"),
        "qwen": save_tiny_causal(root / "qwen"),
        "neo": save_tiny_causal(root / "neo", "neo", marks=False),
    }


SAYS: dict[str, str] = {"yes": " true", "no": " false"}
"""Answers of the tiny causal models, whose tokenizer has no token for A or B."""


def save_tiny_roberta(folder: Path) -> Path:
    """Write a classifier with two separators in a pair, and no types of tokens."""
    import torch
    from transformers import RobertaConfig, RobertaForSequenceClassification

    tokenizer = bart_tokenizer()
    tokenizer.save_pretrained(str(folder))
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        initializer_range=0.2,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def plain_log_odds(name: str, folder: Path, query: str, first: str, second: str) -> float:
    """Return the log-odds that a model gives in one order, for one input, in float64."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForSequenceClassification
    kind = AutoModelForCausalLM if name in ("qwen", "neo") else kind
    model = kind.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        if name == "t5":
            text = SEQ2SEQ.format(query=query, first=first, second=second)
            inputs = tokenizer(text, return_tensors="pt")
            logits = model(**inputs, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
            yes, no = tokenizer.convert_tokens_to_ids(["▁true", "▁false"])
            return float(logits[yes] - logits[no])
        if name in ("qwen", "neo"):
            text = CAUSAL.format(query=query, first=first, second=second)
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
            yes, no = tokenizer.convert_tokens_to_ids(["Ġtrue", "Ġfalse"])
            return float(logits[yes] - logits[no])
        both = first + tokenizer.sep_token + second
        logits = model(**tokenizer(query, both, return_tensors="pt")).logits[0]
    return float(logits[-1] - (logits[0] if name == "two" else 0.0))


def some_comparisons() -> Comparisons:
    """Return seven comparisons over two queries, with a mirror and a document against itself."""
    pairs = pairs_of(2, 4)
    rows = [[0, 0, 1], [0, 1, 0], [0, 2, 3], [1, 0, 3], [1, 2, 2], [1, 3, 1], [0, 0, 1]]
    return Comparisons(pairs.queries, pairs.docs, *np.array(rows).T)


@pytest.mark.parametrize("name", ["t5", "one", "two", "roberta", "qwen", "neo"])
def test_preferences_equal_a_plain_loop(name: str, folders: dict[str, Path]) -> None:
    """Documents in the wrong places, the logit of another answer, an order that is not asked.

    Of a causal model: the logits of padding, or positions that count it.
    """
    says = SAYS if name in ("qwen", "neo") else {}
    options = ModelOptions(precision="float32", max_tokens=400, batch_tokens=500)
    if not says:
        options = ModelOptions(precision="float32", batch_tokens=150)
    teacher = PairwiseTeacher(str(folders[name]), options, **says)
    assert isinstance(teacher, Comparer)
    comparisons = some_comparisons()
    preferences = teacher.compare(comparisons)
    assert preferences.dtype == np.float32
    for position in (0, 2, 3, 5):
        query = comparisons.queries[comparisons.query_rows[position]].full_text
        first = comparisons.docs[comparisons.first_rows[position]].full_text
        second = comparisons.docs[comparisons.second_rows[position]].full_text
        forward = plain_log_odds(name, folders[name], query, first, second)
        back = plain_log_odds(name, folders[name], query, second, first)
        expected = -math.log1p(math.exp(-(forward - back) / 2))
        assert preferences[position] == pytest.approx(expected, abs=1e-4)
        assert abs(forward) > 1e-2


@pytest.mark.parametrize("name", ["t5", "two"])
def test_a_comparison_and_its_mirror_add_up_to_one(name: str, folders: dict[str, Path]) -> None:
    """A preference for whatever stands first, which a student would learn as relevance."""
    teacher = PairwiseTeacher(str(folders[name]))
    comparisons = some_comparisons()
    log_p = teacher.compare(comparisons)
    mirror = Comparisons(
        comparisons.queries,
        comparisons.docs,
        comparisons.query_rows,
        comparisons.second_rows,
        comparisons.first_rows,
    )
    np.testing.assert_allclose(np.exp(log_p) + np.exp(teacher.compare(mirror)), 1.0, atol=1e-6)
    assert math.exp(log_p[0]) + math.exp(log_p[1]) == pytest.approx(1.0, abs=1e-6)
    assert log_p[0] == log_p[6]
    assert log_p[4] == pytest.approx(math.log(0.5))


@pytest.mark.parametrize("name", ["t5", "one", "roberta"])
def test_a_comparison_is_independent_of_its_neighbours(name: str, folders: dict[str, Path]) -> None:
    """Padding that is read, so that a resumed store holds other preferences."""
    teacher = PairwiseTeacher(str(folders[name]), ModelOptions(precision="float32"))
    comparisons = some_comparisons()
    together = teacher.compare(comparisons)
    for position in range(len(comparisons)):
        rows = (
            side[position : position + 1]
            for side in (comparisons.query_rows, comparisons.first_rows, comparisons.second_rows)
        )
        alone = teacher.compare(Comparisons(comparisons.queries, comparisons.docs, *rows))
        np.testing.assert_allclose(alone, together[position], atol=1e-4)


@pytest.mark.filterwarnings("ignore:this cpu has no bfloat16")
@pytest.mark.parametrize("name", ["t5", "two", "roberta"])
def test_a_bfloat16_body_has_a_float32_head(name: str, folders: dict[str, Path]) -> None:
    """Preferences that are rounded to three digits by the model's last layer."""
    exact, fast = (
        PairwiseTeacher(str(folders[name]), ModelOptions(precision=precision))
        for precision in ("float32", "bfloat16")
    )
    seen = []
    heads = [module for module in fast._model.model.modules() if "Float32" in type(module).__name__]
    heads[0].register_forward_hook(lambda _, args, out: seen.append(str(out.dtype)))
    gaps = np.abs(exact.compare(some_comparisons()) - fast.compare(some_comparisons()))
    assert 0 < gaps.max() < 0.5
    assert len(heads) == 1
    assert set(seen) == {"torch.float32"}


def test_both_documents_are_cut_evenly(folders: dict[str, Path]) -> None:
    """A second document that the first pushes out, or a question that loses its last word."""
    teacher = PairwiseTeacher(str(folders["t5"]), ModelOptions(max_tokens=60, precision="float32"))
    long, other = "blood " * 90, "cancer " * 90
    docs = [Doc("a", "", long), Doc("b", "", other), Doc("c", "", other + "end")]
    comparisons = Comparisons([Doc("q", "", "insulin")], docs, *np.array([[0, 0, 1], [0, 0, 2]]).T)
    first, second = teacher.compare(comparisons)
    assert first == pytest.approx(second, abs=1e-5)
    prompts = teacher._template.fill(
        {
            name: ([text], np.array([0]))
            for name, text in [("query", "insulin"), ("first", long), ("second", other)]
        }
    )
    words = teacher._model.tokenizer.convert_ids_to_tokens(prompts.ids(0))
    assert words.count("▁blood") == words.count("▁cancer") > 10
    assert words[-3:] == ["▁Relevant", ":", "</s>"]
    assert len(words) in (59, 60)


@pytest.mark.parametrize(("name", "opponents"), [("t5", 0), ("one", 1)])
def test_scores_are_a_round_robins_means(
    name: str, opponents: int, folders: dict[str, Path]
) -> None:
    """Scores that belong to other candidates of the list."""
    teacher = PairwiseTeacher(
        str(folders[name]), ModelOptions(precision="float32"), opponents=opponents
    )
    assert isinstance(teacher, Teacher)
    assert teacher.unit == "list"
    pairs = pairs_of(2, 5)
    scores = teacher.score(pairs)
    assert scores.dtype == np.float32
    assert (scores <= 0).all()
    for query, positions in pairs.by_query():
        for i, position in enumerate(positions):
            steps = range(1, 5) if opponents == 0 else (1, 4)
            rivals = [pairs.docs[pairs.doc_rows[positions[(i + step) % 5]]] for step in steps]
            comparisons = Comparisons(
                [query],
                [pairs.docs[pairs.doc_rows[position]], *rivals],
                *np.array([[0, 0, j + 1] for j in range(len(rivals))]).T,
            )
            assert scores[position] == pytest.approx(teacher.compare(comparisons).mean(), abs=1e-4)


def test_lists_of_one_or_none_have_scores(folders: dict[str, Path]) -> None:
    """A division by no opponents, which the store refuses after hours of work."""
    teacher = PairwiseTeacher(str(folders["one"]))
    query, doc = Doc("q", "", "blood"), Doc("d", "", "insulin")
    assert teacher.score(Pairs.of([query], [doc])).tolist() == [0.0]
    assert teacher.score(Pairs.of([], [])).shape == (0,)
    twice = teacher.score(Pairs.of([query] * 2, [doc] * 2))
    np.testing.assert_allclose(twice, math.log(0.5), rtol=1e-6)


def test_the_fingerprint_is_that_of_the_scores(folders: dict[str, Path]) -> None:
    """Two settings that share a store though they score differently."""
    t5 = str(folders["t5"])
    teachers = [
        PairwiseTeacher(t5),
        PairwiseTeacher(t5, opponents=2),
        PairwiseTeacher(t5, ModelOptions(max_tokens=99)),
        PairwiseTeacher(t5, yes="yes", no="no"),
        PairwiseTeacher(str(folders["one"])),
        PairwiseTeacher(str(folders["two"])),
        PairwiseTeacher(str(folders["qwen"]), **SAYS),
        PairwiseTeacher(str(folders["qwen"]), template="{query} {first} {second}", **SAYS),
    ]
    assert len({teacher.fingerprint for teacher in teachers}) == len(teachers)
    assert PairwiseTeacher(t5).fingerprint == teachers[0].fingerprint


def test_what_does_not_fit_is_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    """A model of another kind with a random head, whose preferences look like any others."""
    from transformers import BertConfig, BertModel

    three = save_tiny_cross_encoder(tmp_path / "nli", labels=3)
    body = save_tiny_cross_encoder(tmp_path / "body")
    config = BertConfig.from_pretrained(body)
    BertModel(config).save_pretrained(body)
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(body)
    cases = [
        ("", {}, "needs a model"),
        (str(three), {}, "this gives 3"),
        (str(body), {}, "lacks weights"),
        (str(folders["qwen"]), {}, "must be one token"),
        (str(folders["qwen"]), {"yes": " true", "no": " true"}, "same token"),
        (str(folders["qwen"]), SAYS | {"template": "{query} {first}"}, "needs {query} and"),
        (str(folders["one"]), SAYS, "which has no prompt"),
        (str(tmp_path / "none"), {}, "there is no folder"),
        (str(folders["t5"]), {"opponents": -1}, "at least 0"),
        (str(folders["t5"]), {"yes": "unbelievable"}, "must be one token"),
        (
            str(folders["one"]),
            {"options": ModelOptions(max_tokens=257)},
            "more than this model can read",
        ),
    ]
    for model, settings, message in cases:
        with pytest.raises(ConfigError, match=message):
            PairwiseTeacher(model, **settings)


def test_a_round_robin_by_hand() -> None:
    """Three candidates with p(a>b) = 0.9, p(a>c) = 0.8, p(b>c) = 0.5, by the mean log p."""
    query, docs = Doc("q", "", "x"), [Doc(name, "", name) for name in "abc"]
    pairs = Pairs.of([query] * 3, docs)
    comparisons = comparisons_of(pairs)
    assert comparisons.first_rows.tolist() == [0, 0, 1]
    assert comparisons.second_rows.tolist() == [1, 2, 2]
    scores = mean_preference(pairs, comparisons, np.log(np.float32([0.9, 0.8, 0.5])))
    expected = [
        (math.log(0.9) + math.log(0.8)) / 2,
        (math.log(0.1) + math.log(0.5)) / 2,
        (math.log(0.2) + math.log(0.5)) / 2,
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_certainty_stays_finite() -> None:
    """The log of zero for the loser of a comparison that the judge is certain about."""
    pairs = Pairs.of([Doc("q", "", "x")] * 2, [Doc("a", "", "a"), Doc("b", "", "b")])
    scores = mean_preference(pairs, comparisons_of(pairs), np.float32([-0.0]))
    assert np.isfinite(scores).all()
    assert scores[1] < -80


def test_the_mean_of_both_orders_by_hand() -> None:
    """p = 0.8 in one order and 0.4 in the other: log-probabilities averaged, scaled to add up."""
    comparisons = Comparisons(
        [Doc("q", "", "x")], [Doc("a", "", "a"), Doc("b", "", "b")], *np.array([[0, 0, 1]]).T
    )
    asked = []

    def judge(questions: Comparisons) -> np.ndarray:
        asked.append(len(questions))
        forward = questions.first_rows == 0
        return np.where(forward, math.log(0.8 / 0.2), math.log((1 - 0.4) / 0.4))

    win, loss = math.sqrt(0.8 * 0.4), math.sqrt(0.2 * 0.6)
    (log_p,) = in_both_orders(comparisons, judge)
    assert math.exp(log_p) == pytest.approx(win / (win + loss))
    assert asked == [2]


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 6))
def test_a_ring_meets_evenly_and_never_twice(sizes: list[int], opponents: int) -> None:
    """A comparison that is paid for twice, or a candidate with fewer opponents than the others."""
    first, second = ring(np.array(sizes, np.int64), opponents)
    starts = np.cumsum([0, *sizes])
    owner = np.repeat(np.arange(len(sizes)), sizes)
    assert (owner[first] == owner[second]).all()
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == len(first)
    assert (first < second).all()
    assert list(zip(first, second, strict=True)) == sorted(zip(first, second, strict=True))
    for number, size in enumerate(sizes):
        own = np.concatenate([first[owner[first] == number], second[owner[second] == number]])
        counts = np.bincount(own - starts[number], minlength=size)
        around = 0 < 2 * opponents < size - 1
        assert (counts == (2 * opponents if around else max(0, size - 1))).all()
