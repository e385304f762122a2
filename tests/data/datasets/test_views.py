"""Views: other texts for the ids of a collection, matched by id and checked."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from fakes.views import backwards, save_view

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.datasets.collection import load_docs


@pytest.fixture
def data(folder: Path, tmp_path: Path) -> Path:
    """BEIR folder of the small collection with the view `backwards`."""
    copied = tmp_path / "data"
    shutil.copytree(folder, copied)
    save_view(copied, "backwards")
    return copied


def rewrite(file: Path, change: "dict[str, str | None]", more: str = "") -> None:
    """Change the texts of ids in a view's file, or drop those of None."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row | {"text": change.get(row["_id"], row["text"])} for row in rows]
    lines = [json.dumps(row) for row in rows if row["text"] is not None]
    file.write_text("\n".join(lines) + "\n" + more)


def test_a_view_has_the_texts_of_its_files_by_id_in_the_rows_of_the_collection(
    data: Path, collection: Collection
) -> None:
    """A file in another order, matched by position: every query with another one's text."""
    more = json.dumps({"_id": "elsewhere", "text": "of another collection"}) + "\n"
    rewrite(data / "queries.backwards.jsonl", {}, more)
    base = load_collection(f"beir:{data}")
    view = base.view("backwards")
    assert base.teacher_view is base
    assert base.taught_by(view).teacher_view is view
    for own, other in ((base.queries, view.queries), (base.docs, view.docs)):
        assert other.ids() == own.ids()
        assert [text.full_text for text in other] == [backwards(text.full_text) for text in own]
    assert view.qrels("test") == base.qrels("test")
    assert "elsewhere" not in view.queries
    assert view.fingerprint not in (base.fingerprint, collection.fingerprint)
    assert base.view(None) is base
    assert "backwards" in view.name
    with pytest.raises(DataError, match="has other ids than data"):
        base.taught_by(_of(data, queries=3))


def _of(data: Path, *, queries: int) -> Collection:
    """Return the collection of the first queries alone."""
    fewer = data.with_name("fewer")
    shutil.copytree(data, fewer)
    lines = (fewer / "queries.jsonl").read_text().splitlines()[:queries]
    (fewer / "queries.jsonl").write_text("\n".join(lines))
    return load_collection(f"beir:{fewer}")


def test_what_a_view_lacks_is_the_collections_own(data: Path) -> None:
    """Rewritten queries without a corpus, which search in nothing; or gzipped files overlooked."""
    (data / "corpus.backwards.jsonl").unlink()
    queries = data / "queries.backwards.jsonl"
    (data / "queries.backwards.jsonl.gz").write_bytes(gzip.compress(queries.read_bytes()))
    queries.unlink()
    base = load_collection(f"beir:{data}")
    view = base.view("backwards")
    assert view.docs.fingerprint == base.docs.fingerprint
    assert view.queries[0].text == backwards(base.queries[0].text)


def test_a_view_without_a_text_for_every_id_is_refused(data: Path) -> None:
    """A query without a translation, which is scored as an empty one or in the wrong language."""
    file = data / "queries.backwards.jsonl"
    rewrite(file, dict.fromkeys(["q3", "q7", "q8", "q9"]))
    message = r"queries.backwards.jsonl has no text for 4 of 32 ids of the queries of data: 'q3', "
    with pytest.raises(DataError, match=message + r"'q7', 'q8', \.\.\."):
        load_collection(f"beir:{data}").view("backwards")
    rewrite(file, {"q4": " "})
    with pytest.raises(DataError, match=r"queries.backwards.jsonl:\d+: query 'q4' has no text"):
        load_collection(f"beir:{data}").view("backwards")
    save_view(data, "backwards")
    rewrite(file, {}, json.dumps({"_id": "q1", "text": "again"}) + "\n")
    with pytest.raises(DataError, match=r"queries.backwards.jsonl:33: duplicate id 'q1'"):
        load_collection(f"beir:{data}").view("backwards")


def test_an_unknown_view_names_those_that_exist(data: Path, tmp_path: Path) -> None:
    """A misspelled view that is taken for the collection's own texts."""
    base = load_collection(f"beir:{data}")
    save_view(data, "german", sides=["queries"])
    with pytest.raises(ConfigError, match=r"'backward'.*Did you mean 'backwards'.*german"):
        base.view("backward")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"neither queries.jsonl nor corpus.jsonl"):
        base.view(str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"a file of queries must be one of \.jsonl"):
        (tmp_path / "log.txt").write_text("blood")
        base.view(str(tmp_path / "log.txt"))
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "one.txt").write_text("blood pressure and diet")
    with pytest.raises(ConfigError, match="for this collection give a path"):
        load_collection(f"docs:{docs}").view("german")


def test_a_path_names_a_folder_or_a_file_of_queries(data: Path, tmp_path: Path) -> None:
    """A translated collection that must be copied beside the original before it can be used."""
    base = load_collection(f"beir:{data}")
    translated = tmp_path / "translated"
    translated.mkdir()
    for side in ("queries", "corpus"):
        shutil.copy(data / f"{side}.backwards.jsonl", translated / f"{side}.jsonl")
    rows = [f"{query.id}\t{backwards(query.text)}" for query in base.queries]
    (tmp_path / "rewrites.tsv").write_text("\n".join(rows[::-1]))
    named = base.view("backwards")
    assert base.view(str(translated)).fingerprint == named.fingerprint
    rewritten = base.view(str(tmp_path / "rewrites.tsv"))
    assert rewritten.queries.fingerprint == named.queries.fingerprint
    assert rewritten.docs.fingerprint == base.docs.fingerprint
    (tmp_path / "log.jsonl").write_text(json.dumps({"text": "no id"}))
    with pytest.raises(DataError, match=r"log.jsonl:1: the key _id is missing"):
        base.view(str(tmp_path / "log.jsonl"))
    (tmp_path / "log.csv").write_text("query\nno id\n")
    with pytest.raises(DataError, match=r"log.csv:2: .* has no id"):
        base.view(str(tmp_path / "log.csv"))


def test_a_view_stands_behind_any_collections_id(data: Path, tmp_path: Path) -> None:
    """Scores of the collection's own texts under the name of a view's; an index that shows them."""
    spec = f"beir:{data},view=backwards"
    view = load_collection(spec)
    assert view.spec == spec
    assert view.queries[0].text == backwards(load_collection(f"beir:{data}").queries[0].text)
    assert load_docs(spec).fingerprint == view.docs.fingerprint
    log = tmp_path / "log.tsv"
    log.write_text("further\tblood pressure\n")
    with pytest.raises(DataError, match="no text for 1 of 33 ids .* 'further'"):
        load_collection(f"beir:{data},view=backwards,queries={log}")
    rewrite(
        data / "queries.backwards.jsonl",
        {},
        json.dumps({"_id": "further", "text": "doolb erusserp"}) + "\n",
    )
    grown = load_collection(f"beir:{data},view=backwards", queries=log)
    assert grown.queries.get("further").text == "doolb erusserp"
    assert grown.file_queries == ["further"]


def test_a_changed_file_is_read_again_and_attributes_are_the_collections(data: Path) -> None:
    """A corrected translation that is never seen; documents that lose their years."""
    corpus = data / "corpus.jsonl"
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    lines = [json.dumps(row | {"year": 2000 + number}) for number, row in enumerate(rows)]
    corpus.write_text("\n".join(lines) + "\n")
    view = load_collection(f"beir:{data}").view("backwards")
    assert view.docs.attributes(["year"])["year"].to_pylist()[:2] == [2000, 2001]
    rewrite(data / "corpus.backwards.jsonl", {"d0": "corrected"})
    again = load_collection(f"beir:{data}").view("backwards")
    assert again.docs.get("d0").text == "corrected"
    assert again.fingerprint != view.fingerprint
