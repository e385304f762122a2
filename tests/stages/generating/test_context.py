"""The view of queries with what a retriever found for them."""

import json
import shutil
from pathlib import Path

import pytest

from retrodistill import convert
from retrodistill.base.errors import DataError
from retrodistill.data.datasets import Collection, load_collection
from retrodistill.data.store.runs import Run
from retrodistill.stages.generating.context import queries_with_context

RUN = Run.from_dict({"q1": {"d5": 1.0, "d7": 3.0, "d6": 2.0}, "q0": {"d9": 1.0}})


def test_a_query_is_followed_by_its_own_best_documents_in_their_order(
    collection: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    """Context of another query, by position; the worst documents; a query that is lost."""
    lines = list(queries_with_context(collection, RUN, docs=2, words=3))
    texts = {row["_id"]: row["text"].split("\n") for row in map(json.loads, lines)}
    assert list(texts) == collection.queries.ids()
    own = {query.id: query.text for query in collection.queries}

    def start(doc: str) -> str:
        return " ".join(collection.docs.get(doc).full_text.split()[:3])

    assert texts["q1"] == [own["q1"], start("d7"), start("d6")]
    assert texts["q0"] == [own["q0"], start("d9")]
    assert texts["q2"] == [own["q2"]]
    assert "30 of 32 queries are not in the run" in capsys.readouterr().err
    with pytest.raises(DataError, match="hold no id 'elsewhere'"):
        list(queries_with_context(collection, Run.from_dict({"elsewhere": {"d1": 1.0}})))


def test_the_command_writes_a_view_that_a_collection_reads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no view, or replaces another one without being asked to."""
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    RUN.write(tmp_path / "run")
    words = f"--context {tmp_path / 'run'} --data beir:{data} --context-docs 1"
    command = [*words.split(), "--out", str(data / "queries.context.jsonl")]
    assert convert.main(command) == 0
    base = load_collection(f"beir:{data}")
    view = base.view("context")
    assert view.queries.get("q0").text.startswith(base.queries.get("q0").text + "\n")
    assert view.queries.get("q2") == base.queries.get("q2")
    assert view.docs.fingerprint == base.docs.fingerprint
    assert convert.main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert convert.main([*command, "--overwrite"]) == 0
    assert convert.main(["--context", str(tmp_path / "run"), "--out", str(tmp_path / "v")]) == 2
    assert "--context needs --data" in capsys.readouterr().err
