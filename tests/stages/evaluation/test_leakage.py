"""Train texts that stand in the test split: planted ones, and brute force over all pairs."""

import json
import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from retrodistill.base.errors import ConfigError
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.leakage import main
from retrodistill.stages.evaluation.leakage import (
    Example,
    Leakage,
    Overlap,
    find_leakage,
    jaccard,
    nearest,
    shingles,
)

DOCS = {
    "d1": ("Heat", "water boils at one hundred degrees"),
    "d2": ("Cold", "water freezes at zero degrees and ice is lighter than water is"),
    "d3": ("Cold", "Water freezes at zero degrees, and ice is lighter than water is!"),
    "d4": ("Cold", "water freezes at zero degrees and ice is lighter than water was"),
    "d5": ("", "a text that nobody else has written down"),
}
QUERIES = {
    "t1": "when does water boil in the high mountains",
    "t2": "why does ice float",
    "t3": "nobody asks this",
    "e1": "When does WATER boil, in the high mountains?",
    "e2": "when does water freeze in the high mountains",
    "e3": "a text that nobody else has written down",
    "e4": "what is new",
}
TRAIN = [("t1", "d1"), ("t2", "d2"), ("t3", "d5")]
TEST = [("e1", "d1"), ("e2", "d3"), ("e3", "d5"), ("e4", "d4")]


def save(folder: Path, queries: Mapping[str, str], docs: Mapping[str, tuple[str, str]]) -> str:
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": id, "title": title, "text": text} for id, (title, text) in docs.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": id, "text": text} for id, text in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, pairs in (("train", TRAIN), ("test", TEST)):
        lines = ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t1" for q, d in pairs)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return f"beir:{folder}"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("leak") / "data", QUERIES, DOCS)


def test_planted_doubles_are_found_and_told_apart(spec: str) -> None:
    """A double that case or a comma hides, and one that is counted twice."""
    found = find_leakage(load_collection(spec), threshold=0.7)
    queries, positives, copies, train_copies = found.overlaps
    assert (queries.total, queries.same, queries.exact, queries.near) == (4, 0, 1, 1)
    assert queries.share == 0.5
    assert queries.same_positive == 1  # e1 has d1 too, e2 another document than t1
    assert [(pair.id, pair.double_id) for pair in queries.examples] == [("e1", "t1"), ("e2", "t1")]
    assert queries.examples[1].similarity == pytest.approx(7 / 9)
    assert queries.examples[1].double_text == QUERIES["t1"]
    # d1 and d5 are in both splits, and d3 equals d2. d4 ends in another word: of its 11 runs of
    # three words, the title among them, 10 are common.
    counts = (positives.total, positives.same, positives.exact, positives.near)
    assert counts == (4, 2, 1, 1)
    assert positives.same_positive is None
    assert positives.examples[1].similarity == pytest.approx(10 / 12)
    assert (copies.total, copies.exact, copies.near) == (4, 1, 0)
    assert copies.examples[0].id == "e3"
    assert train_copies.exact + train_copies.near == 0


def test_the_threshold_and_the_shingle_decide(spec: str) -> None:
    """A setting that changes nothing."""
    collection = load_collection(spec)
    near = [
        find_leakage(collection, threshold=threshold, query_shingle=width).overlaps[0].near
        for threshold, width in ((0.7, 1), (0.8, 1), (0.7, 3))
    ]
    assert near == [1, 0, 0]
    assert [len(o.examples) for o in find_leakage(collection, examples=0).overlaps] == [0] * 4


@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_the_index_finds_what_all_pairs_find(threshold: float) -> None:
    """Pairs that an index misses, or similarities of other sets."""
    rng = random.Random(0)
    words = [f"w{number}" for number in range(400)]
    others = [" ".join(rng.choices(words, k=12)) for _ in range(150)]
    texts = []
    for text in others[:60]:
        changed = text.split()
        for place in rng.sample(range(12), rng.randint(0, 10)):
            changed[place] = rng.choice(words)
        texts.append(" ".join(changed))
    found = nearest(texts, others, threshold=threshold, shingle=1)
    wanted = {}
    for row, text in enumerate(texts):
        own = shingles(text.split(), 1)
        best = max(jaccard(own, shingles(other.split(), 1)) for other in others)
        if best >= threshold:
            wanted[row] = best
    assert 5 < len(wanted) < 60
    assert found.keys() == wanted.keys()
    for row, double in found.items():
        assert double.similarity == wanted[row]
        assert double.exact == (texts[row] == others[double.row])


def test_questions_of_one_template_are_compared_in_seconds() -> None:
    """Work that grows with the square of what a template fills: minutes for 4,000 questions."""
    start = "what are the symptoms and the best known treatments of"
    texts, others = ([f"{start} {side}{n}" for n in range(2000)] for side in ("a", "b"))
    began = time.process_time()
    found = nearest(texts, [*others, texts[7]], threshold=0.8, shingle=1)
    assert time.process_time() - began < 20  # 0.6 s alone on a core; pair by pair, 30 s and more
    assert len(found) == 2000
    assert (found[7].exact, found[7].row) == (True, 2000)
    assert found[8] == (False, 9 / 11, 0)


def test_words_that_all_texts_share_are_not_compared() -> None:
    """Work that grows with the square of the texts, since all share some words: hours for 10^6."""
    texts, others = (
        [f"the and of in to {side}{n} x{n} y{n} z{n}" for n in range(30_000)] for side in "ab"
    )
    began = time.process_time()
    found = nearest(texts, others, threshold=0.8, shingle=1)
    assert time.process_time() - began < 20  # 1.2 s alone on a core; all pairs, 45 s
    assert len(found) == 30_000
    assert found[7] == (False, 8 / 10, 7)


def test_shingles_by_hand() -> None:
    """A short text without any shingle is never found; one without words is no double."""
    assert shingles(["a", "b", "c", "d"], 3) == {"a b c", "b c d"}
    assert shingles(["a", "b"], 3) == {"a b"}
    assert shingles([], 3) == set()
    assert nearest(["?!", "One two."], ["...", "one TWO"])[1].exact
    assert list(nearest(["?!"], ["..."])) == []


def test_the_better_of_two_doubles_is_named() -> None:
    """An example that shows a near text where an equal one stands further down."""
    texts = ["a b c d e f g h i j"]
    others = ["j i h g f e d c b a", "a b c d e f g h i", texts[0]]
    found = nearest(texts, others, shingle=1)
    assert found[0] == (True, 1.0, 2)


def test_vowels_that_are_marks_tell_words_apart() -> None:
    """Two words of Hindi that are one without their vowels, and so a double that is none."""
    assert nearest(["\u0915\u0940"], ["\u0915\u093e"]) == {}
    assert nearest(["heart \u2764\ufe0f"], ["Heart!"])[0].exact


def test_examples_of_scripts_without_spaces_are_shown() -> None:
    """A text of one long word of which nothing is left but the dots."""
    pair = Example(True, 1.0, "a", "\u5b57" * 200, "b", "one  two")
    found = Leakage("train", "test", 0.8, [Overlap("queries", 1, 0, 1, 0, [pair])])
    _, own, other = found.quotations(20)
    assert own == "  a: " + "\u5b57" * 16 + " ..."
    assert other == "  b: one two"


def test_settings_are_checked(spec: str) -> None:
    """A split that is compared with itself, whole, and found to leak."""
    collection = load_collection(spec)
    with pytest.raises(ConfigError, match="two splits"):
        find_leakage(collection, "test", "test")
    with pytest.raises(ConfigError, match="no split 'dev'"):
        find_leakage(collection, test="dev")
    for settings in ({"threshold": 0.0}, {"threshold": 1.1}, {"shingle": 0}, {"query_shingle": 0}):
        with pytest.raises(ConfigError, match="must"):
            find_leakage(collection, **settings)


def test_the_verb_shows_and_writes_it(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts in the table that are not those of the JSON, or flags that do not arrive."""
    words = ["--data", spec, "--threshold", "0.7", "--json", str(tmp_path / "l.json")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "l.json").read_text(encoding="utf-8"))
    assert found["config"]["threshold"] == found["threshold"] == 0.7
    wanted = find_leakage(load_collection(spec), threshold=0.7)
    assert found["overlaps"] == wanted.to_dict()["overlaps"]
    (line,) = [line for line in shown.splitlines() if line.startswith("│ test queries in train ")]
    assert "50.0%" in line
    assert f"  e1: {QUERIES['e1']}" in shown
    assert f"  t1: {QUERIES['t1']}" in shown
    assert main([*words, "--query-shingle", "3"]) == 0
    again = json.loads((tmp_path / "l.json").read_text(encoding="utf-8"))
    assert again["overlaps"][0]["near"] == 0
    assert main([*words, "--split", "test", "--test-split", "train"]) == 0
    assert "train positives in test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--threshold 1.5", "at most 1"),
        ("--threshold 0", "at least 0.1"),
        ("--shingle 0", "--shingle must be at least 1"),
        ("--split dev --test-split dev", "two different splits"),
        ("--split train --test-split dev", "no split 'dev'"),
    ],
)
def test_the_verb_explains_what_is_missing(
    words: str, message: str, spec: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or a split compared with itself."""
    assert main(["--data", spec, *words.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.realdata
def test_scifact_claims_that_were_negated(shared_data: Path) -> None:
    """A published split is clean, one would think: 67 test claims differ in few words."""
    collection: Collection = load_collection(f"beir:{shared_data / 'scifact'}")
    queries, positives, *copies = find_leakage(collection).overlaps
    assert (queries.total, queries.same, queries.exact, queries.near) == (300, 0, 2, 67)
    assert queries.same_positive == 68
    assert (positives.total, positives.same) == (283, 181)
    assert [copy.exact + copy.near for copy in copies] == [0, 0]
