"""Queries of a file, beside those of a collection or in place of them."""

import json
from pathlib import Path

import pytest
from fakes.corpus import save_small_collection

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets import load_collection
from retrodistill.data.datasets.queries import query_id, read_queries


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_small_collection(tmp_path / "data", docs=20, train=4, test=2)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.txt", "\ufeffred apples\n\n  \nred  apples\ngreen pears\n"),
        ("log.jsonl", '{"query": "red apples"}\n{"query": ""}\n{"query": "green pears"}\n'),
        ("log.tsv", "query\tclicks\nred apples\t3\ngreen pears\t1\n"),
        ("one-column.tsv", "red apples\ngreen pears\n"),
        ("log.csv", 'when,Question\n1,"red\napples"\n2,green pears\n'),
        ("semicolons.csv", "when;question\n1;red apples\n2;green pears\n"),
    ],
)
def test_queries_without_ids_have_the_hash_of_their_text(
    tmp_path: Path, name: str, text: str
) -> None:
    """Ids by line number, which change when a line is added, and collide with a collection's."""
    file = read_queries(str(write(tmp_path / name, text)))
    assert [query.text for query in file.queries] == ["red apples", "green pears"]
    assert [query.id for query in file.queries] == [query_id("red apples"), query_id("green pears")]


def test_queries_keep_their_ids(tmp_path: Path) -> None:
    """MS MARCO's file without a header read as one column, or its first line as a header."""
    plain = write(tmp_path / "queries.tsv", "17\tred apples\n18\tgreen pears\n17\tred apples\n")
    file = read_queries(str(plain))
    assert {query.id: query.text for query in file.queries} == {
        "17": "red apples",
        "18": "green pears",
    }
    assert (file.repeated, file.empty) == (1, 0)
    log = write(tmp_path / "log.csv", "session,utterance\na,red apples\n")
    named = read_queries(f"{log},text=utterance,id=session")
    assert [(query.id, query.text) for query in named.queries] == [("a", "red apples")]


def test_repeated_and_empty_lines_are_counted(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log that silently counts a frequent query a hundred times."""
    log = write(tmp_path / "log.txt", "red apples\n\nred apples\n \t\ngreen pears\nred apples\n")
    load_collection(f"beir:{data}", queries=log)
    # numbered_lines skips blank lines, so none of them counts as an empty query.
    assert "2 queries from" in (messages := capsys.readouterr().err)
    assert "2 repeated skipped" in messages


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "1\tred\n1\tgreen\n", r"a.tsv:2: the query id '1' has the text 'green'"),
        ("a.csv", "x,y\n1,2\n", "no column for the text of a query"),
        ("a.csv", "query,id\nred\n", "a.csv:2: 1 columns, but the first line has 2"),
        ("a.txt", "\n\n", "holds no query"),
        ("a.jsonl", '{"query": 3}\n', "must be a string"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected an object"),
        ("a.parquet", "no", "cannot be read as Parquet"),
    ],
)
def test_malformed_files_are_explained(tmp_path: Path, name: str, text: str, message: str) -> None:
    """A traceback, or a file that is read as something else."""
    with pytest.raises(DataError, match=message):
        read_queries(str(write(tmp_path / name, text)))


def test_mistakes_are_explained(tmp_path: Path, data: Path) -> None:
    """A file that does not exist read as no queries, a misspelt option as part of a name."""
    with pytest.raises(ConfigError, match="there is no such file"):
        read_queries(str(tmp_path / "nothing.txt"))
    with pytest.raises(ConfigError, match="one query a line"):
        read_queries(str(write(tmp_path / "log.xlsx", "x")))
    log = write(tmp_path / "log.csv", "a,b\n1,2\n")
    with pytest.raises(ConfigError, match="Did you mean 'text'"):
        read_queries(f"{log},txt=a")
    with pytest.raises(DataError, match="no column 'c' for the text"):
        read_queries(f"{log},text=c")
    with pytest.raises(DataError, match="under this id"):
        load_collection(f"beir:{data}", queries=write(tmp_path / "q.tsv", "q1\tanother text\n"))


def test_a_collection_with_a_file_has_both(tmp_path: Path, data: Path) -> None:
    """Labelled queries lost beside a log, or a log's query as another one than the labelled."""
    plain = load_collection(f"beir:{data}")
    text = plain.queries.get("q5").text
    log = write(tmp_path / "log.txt", f"{text}\nred apples\n")
    both = load_collection(f"beir:{data}", queries=log)
    assert both.file_queries == ["q5", query_id("red apples")]
    assert both.chosen_queries(None, default="train") == both.file_queries
    assert both.chosen_queries("train", default="train") == [
        "q0",
        "q1",
        "q2",
        "q3",
        "q5",
        query_id("red apples"),
    ]
    assert len(both.query_ids("all")) == 7
    assert both.relevant("train") == plain.relevant("train")
    assert both.docs.fingerprint == plain.docs.fingerprint
    assert both.fingerprint != plain.fingerprint
    same = load_collection(f"beir:{data},queries={log}")
    assert same.fingerprint == both.fingerprint
    assert same.spec == both.spec == f"beir:{data},queries={log}"


def test_queries_of_a_test_split_in_a_log_are_reported(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student that trains on the test queries, as they are in the log."""
    text = load_collection(f"beir:{data}").queries.get("q5").text
    write(tmp_path / "log.txt", f"{text}\n")
    load_collection(f"beir:{data}", queries=tmp_path / "log.txt")
    assert "1 of them are also queries of the split 'test'" in capsys.readouterr().err


def test_a_corpus_alone_is_a_collection(tmp_path: Path) -> None:
    """Documents without queries and judgements refused, though they can be embedded."""
    corpus = [{"_id": "d1", "text": "one"}, {"_id": "d2", "text": "two"}]
    (tmp_path / "only").mkdir()
    write(tmp_path / "only" / "corpus.jsonl", "".join(json.dumps(row) + "\n" for row in corpus))
    alone = load_collection(f"beir:{tmp_path / 'only'}")
    assert (len(alone.docs), len(alone.queries), alone.splits) == (2, 0, ())
    with pytest.raises(DataError, match="no queries.*--queries FILE"):
        alone.chosen_queries("all", default="train")
    with pytest.raises(ConfigError, match="--queries FILE"):
        alone.chosen_queries(None, default="train")


def test_judgements_are_added_by_the_id(tmp_path: Path, data: Path) -> None:
    """Judgements of queries of a file that nothing can measure with."""
    log = write(tmp_path / "log.tsv", "u1\tred apples\n")
    clicks = write(tmp_path / "clicks.tsv", "query-id\tcorpus-id\tscore\nu1\td3\t12\n")
    judged = load_collection(f"beir:{data},queries={log},qrels={clicks}")
    assert judged.splits == ("test", "train", "clicks")
    assert judged.relevant("clicks") == {"u1": ["d3"]}
    assert judged.query_ids("clicks") == ["u1"]
    with pytest.raises(ConfigError, match="already has a split 'test'"):
        load_collection(f"beir:{data},qrels={data / 'qrels'}")


def test_a_malformed_judgement_is_not_called_a_query_without_text(data: Path) -> None:
    """A grade that is malformed reported as a query that has no text."""
    write(data / "qrels" / "test.tsv", "q4\td4\thigh\n")
    with pytest.raises(DataError, match="whole number") as caught:
        load_collection(f"beir:{data}").query_ids("test")
    assert "no text" not in str(caught.value)
    write(data / "qrels" / "train.tsv", "q0\td0\t1.0\nq1\td1\t7\n")
    assert load_collection(f"beir:{data}").qrels("train") == {"q0": {"d0": 1}, "q1": {"d1": 7}}
