"""Result cards as files: round trips are exact, and other files are refused."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from retrodistill.base.config.evaluate import EvaluationSettings
from retrodistill.base.errors import RetrodistillError
from retrodistill.stages.pipelines.reproduce.card import (
    Card,
    CardCollection,
    CardJudgements,
    CardRun,
    card_judgements,
    measure_definition,
)
from retrodistill.stages.pipelines.reproduce.card_files import read_card, to_yaml, write_card
from retrodistill.stages.reporting.chain import Input, Origin

TEXT = st.text(max_size=12)
NUMBER = st.floats(0, 1)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
NAMED = st.dictionaries(st.text(min_size=1, max_size=8), TEXT, max_size=3)
SETTINGS = st.dictionaries(TEXT, PLAIN | st.lists(TEXT, max_size=3), max_size=4)
MEASURING = st.builds(
    EvaluationSettings,
    metrics=TEXT,
    judged_only=st.booleans(),
    baseline=st.none() | TEXT,
    tie=st.floats(0, 1),
    seed=st.integers(0),
    test=st.sampled_from(["t", "fisher", "none"]),
).map(EvaluationSettings.measuring)
CARDS = st.builds(
    Card,
    format=st.just(1),
    runs=st.lists(
        st.builds(
            CardRun,
            name=TEXT,
            run=TEXT,
            fingerprint=TEXT,
            queries=st.integers(0),
            rows=st.integers(0),
            identical_ids=st.integers(0),
            file=TEXT,
            note=TEXT,
            measures=st.dictionaries(TEXT, NUMBER, min_size=1, max_size=3),
            judged=st.dictionaries(TEXT, NUMBER, max_size=2),
        ),
        max_size=2,
    ),
    measures=NAMED,
    settings=MEASURING,
    machine=SETTINGS,
    versions=NAMED,
    judgements=st.builds(
        CardJudgements,
        source=TEXT,
        split=TEXT,
        fingerprint=TEXT,
        queries=st.integers(0),
        pairs=st.integers(0),
    ),
    collection=st.none()
    | st.builds(
        CardCollection,
        data=TEXT,
        fingerprint=TEXT,
        docs_fingerprint=TEXT,
        docs=st.integers(0),
        queries=st.integers(0),
    ),
    chain=st.lists(
        st.builds(
            Origin,
            artifact=TEXT,
            kind=TEXT,
            fingerprint=TEXT,
            verb=TEXT,
            command=TEXT,
            cannot=TEXT,
            number_type=TEXT,
            fingerprints=NAMED,
            settings=SETTINGS,
            versions=NAMED,
            inputs=st.lists(
                st.builds(Input, setting=TEXT, name=TEXT, kind=TEXT, fingerprint=TEXT), max_size=2
            ),
        ),
        max_size=2,
    ),
)
CARD = Card(
    runs=[
        CardRun(
            name="kl",
            run="runs/kl",
            fingerprint="ab",
            queries=2,
            rows=4,
            identical_ids=0,
            measures={"ndcg@10": 0.1},
        )
    ],
    measures={"ndcg@10": "DCG"},
    settings=EvaluationSettings(metrics="ndcg@10").measuring(),
    collection=None,
    judgements=CardJudgements(source="q.txt", split="", fingerprint="cd", queries=2, pairs=3),
    chain=[Origin(artifact="runs/kl", kind="run", fingerprint="ab")],
    machine={},
    versions={},
)


@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(card=CARDS)
@example(card=dataclasses.replace(CARD, machine={"cpu": "a\x85b"}))
def test_a_card_comes_back_as_it_was_written(tmp_path: Path, card: Card) -> None:
    """A value rounded in the file, or a name that YAML reads as a number or a date."""
    chain = [dataclasses.replace(origin, inputs=list(origin.inputs)) for origin in card.chain]
    write_card(card, tmp_path / "card.yaml")
    assert read_card(tmp_path / "card.yaml") == dataclasses.replace(card, chain=chain)


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("format: 1", "format: 2", "has format 2, but this version reads 1"),
        ("format: 1", "format: [", "is not YAML"),
        ("  fingerprint: cd\n", "", "judgements lacks fingerprint"),
        ("  rows: 4\n", "", "runs 1 lacks rows"),
        ("  kind: run\n", "", "chain 1 lacks kind"),
        ("  rows: 4\n", "  rows: four\n", "runs 1: rows must not be 'four'"),
        ("ndcg@10: 0.1", "ndcg@10: high", "ndcg@10 must be a number, but it is 'high'"),
        ("  seed: 0", "  seeds: 0", "Did you mean 'seed'"),
        ("machine: {}", "machines: {}", "lacks machine"),
        ("machine: {}", "machine: {}\nmore: 1", "has unknown more"),
    ],
)
def test_a_malformed_card_is_refused(tmp_path: Path, was: str, becomes: str, message: str) -> None:
    """A traceback, or a number compared with nothing, from a file that somebody has edited."""
    text = to_yaml(CARD)
    assert was in text
    path = tmp_path / "card.yaml"
    path.write_text(text.replace(was, becomes))
    with pytest.raises(RetrodistillError, match=message) as raised:
        read_card(path)
    assert str(path) in str(raised.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A manifest or a report taken for a card."""
    path = tmp_path / "card.yaml"
    path.write_text("systems: []\n")
    with pytest.raises(RetrodistillError, match="lacks runs, measures"):
        read_card(path)
    with pytest.raises(RetrodistillError, match="cannot be read"):
        read_card(tmp_path / "none.yaml")


def test_judgements_are_told_apart_by_each_grade() -> None:
    """Another grade of one document that goes unseen, or another order that is complained of."""
    original = {"q1": {"a": 1, "b": 0}, "q2": {"a": 2}}
    reordered = {"q2": {"a": 2}, "q1": {"b": 0, "a": 1}}
    regraded = {"q1": {"a": 1, "b": 1}, "q2": {"a": 2}}
    fingerprints = [
        card_judgements(qrels, source="", split="").fingerprint
        for qrels in (original, reordered, regraded)
    ]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_measure_is_named_in_full() -> None:
    """Two nDCGs with different gains under one name."""
    assert "the gain is the grade" in measure_definition("ndcg@10")
    assert "2^grade - 1" in measure_definition("ndcg@10(gain=exp)")
    assert "a grade of 2 or more" in measure_definition("map(rel=2)")
    assert "p is 0.9" in measure_definition("rbp@20(p=0.9)")
