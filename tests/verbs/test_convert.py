"""Score files become stores and leave them again; click logs become judgements."""

import json
import shlex
from pathlib import Path

import pytest
from fakes.corpus import save_small_collection

from retrodistill import convert
from retrodistill.base.config import ConvertConfig
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import load_collection
from retrodistill.data.datasets.queries import query_id
from retrodistill.data.qrels import read_qrels
from retrodistill.data.store.formats import FORMATS
from retrodistill.data.store.runs import Run
from retrodistill.stages.reporting.commands import command_of


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def converted(tmp_path: Path, line: str) -> dict[str, dict[str, int]]:
    words = ["--out", str(tmp_path / "out.tsv"), "--overwrite", *line.split()]
    assert convert.main(words) == 0
    return read_qrels(tmp_path / "out.tsv")


def test_clicks_are_added_up_and_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One grade for a document that one person clicked and one that hundreds did."""
    log = write(
        tmp_path / "clicks.csv",
        "query,doc_id,clicks\nred apples,d1,2\nred  apples,d1,1\nred apples,d2,1\npears,d2,0\n",
    )
    apples = query_id("red apples")
    assert converted(tmp_path, f"--clicks {log}") == {apples: {"d1": 1, "d2": 1}}
    said = capsys.readouterr().err
    assert "4 rows, 2 pairs" in said
    assert "1 rows without a click skipped" in said
    graded = f"--clicks {log} --grades clicks --min-clicks 2"
    assert converted(tmp_path, graded) == {apples: {"d1": 3}}
    assert "1 pairs with fewer clicks skipped" in capsys.readouterr().err


def test_a_log_is_of_its_collection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Judgements of queries and documents that nobody has, which count as not found."""
    data = save_small_collection(tmp_path / "data", docs=20, train=4, test=2)
    text = load_collection(f"beir:{data}").queries.get("q3").text
    log = write(
        tmp_path / "clicks.tsv", f"q1\td1\n{text}\td3\n{text}\tnowhere\nred apples\td1\nnew\td2\n"
    )
    qrels = converted(tmp_path, f"--clicks {log} --data beir:{data}")
    assert qrels == {"q1": {"d1": 1}, "q3": {"d3": 1}}
    said = capsys.readouterr().err
    assert "2 rows of unknown queries skipped ('red apples', 'new', ...)" in said
    assert "1 rows of unknown documents skipped ('nowhere', ...)" in said
    queries = write(tmp_path / "log.txt", "red apples\n")
    both = f"--clicks {log} --data beir:{data} --queries {queries}"
    assert converted(tmp_path, both)[query_id("red apples")] == {"d1": 1}
    spec = f"beir:{data},queries={queries},qrels={tmp_path / 'out.tsv'}"
    assert set(load_collection(spec).query_ids("out")) == {"q1", "q3", query_id("red apples")}


def test_a_clicked_document_may_be_cut_into_passages(tmp_path: Path) -> None:
    """Every click on a long document thrown away, for only its passages have ids."""
    (tmp_path / "docs").mkdir()
    write(tmp_path / "docs" / "a.txt", "A sentence of words. " * 30)
    log = write(tmp_path / "c.jsonl", '{"q": "words", "url": "a.txt"}\n{"q": "x", "url": "b"}\n')
    queries = write(tmp_path / "log.txt", "words\nx\n")
    spec = f"--data docs:{tmp_path / 'docs'},tokens=20 --queries {queries}"
    assert converted(tmp_path, f"--clicks {log} {spec}") == {query_id("words"): {"a.txt": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("query,doc,clicks\na,d,many\n", "c.csv:2: the clicks must be a whole number"),
        ("query,doc,clicks\na,d,-1\n", "at least 0"),
        ("query,doc,clicks\na,,1\n", "doc must be a word"),
        ("what,doc\na,d\n", "no column for the query"),
        ("query,what\na,d\n", "no column for the document"),
        ("query,doc,clicks\na,d,0\n", "gives no judgement"),
        ("query,doc\n", "gives no judgement"),
    ],
)
def test_malformed_logs_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    """A traceback, or an empty split."""
    log = write(tmp_path / "c.csv", text)
    assert convert.main(["--clicks", str(log), "--out", str(tmp_path / "out.tsv")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.tsv").exists()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small collection, in the folder to work in."""
    monkeypatch.chdir(tmp_path)
    save_small_collection(tmp_path / "data")
    return "beir:data"


def run(line: str, capsys: pytest.CaptureFixture[str], *, status: int = 0) -> str:
    exit_status = convert.main(line.split())
    messages = capsys.readouterr().err
    assert exit_status == status, messages
    return messages


def test_published_scores_become_a_store_and_leave_it_again(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores that somebody has paid for, and that this package cannot use or give away."""
    lines = ["2.5\t-1.25\tq0\td0\td1", "2.5\t0.125\tq0\td0\td2", "1\t-3\tq1\td1\td0"]
    Path("published.tsv").write_text("\n".join(lines) + "\n")
    line = f"--data {data} --import published.tsv --format margin-mse --scale logit --out scores/p"
    run(line, capsys)
    assert Run.read(Path("scores/p")).to_dict() == {
        "q0": {"d0": 2.5, "d2": 0.125, "d1": -1.25},
        "q1": {"d1": 1.0, "d0": -3.0},
    }
    assert Manifest.read(Path("scores/p")).details["scale"] == "logit"
    export = f"--data {data} --export scores/p --out out.tsv --format margin-mse"
    run(export, capsys)
    assert sorted(Path("out.tsv").read_text().splitlines()) == sorted(lines)
    assert "exists already" in run(export, capsys, status=2)
    run(f"{export} --overwrite", capsys)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_leaves_a_store_and_comes_back(
    name: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A format that Python reads and writes, but the command does not."""
    Run.from_dict({"q0": {"d0": 2.5, "d1": -1.25}, "q1": {"d1": 1.0, "d0": -3.0}}).write(Path("r"))
    run(f"--data {data} --export r --out file.{name} --format {name}", capsys)
    run(f"--data {data} --import file.{name} --format {name} --out scores/{name}", capsys)
    assert set(Run.read(Path("scores") / name).to_dict()) <= {"q0", "q1"}


def test_an_import_records_the_command_that_made_it(
    data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A store of published scores whose result card cannot be repeated."""
    Path("published.tsv").write_text("2.5\t-1.25\tq0\td0\td1\n")
    line = f"--data {data} --import published.tsv --format margin-mse --scale logit --out p"
    run(line, capsys)
    command = command_of(json.loads(Path("p/manifest.json").read_text()))
    assert command is not None
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "retrodistill.convert"]
    assert sorted(words[3:]) == sorted(line.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--import no.tsv --format margin-mse", "no.tsv"),
        ("--import bad.tsv --format margin-mse", "bad.tsv:2"),
        ("--import bad.tsv --format marginmse", "Did you mean 'margin-mse'"),
        ("--import good.tsv --format margin-mse --scale logits", "scale"),
        ("--import other.tsv --format margin-mse", "hold no id 'nobody'"),
        ("--import twice.tsv --format margin-mse", "mean"),
        ("", "give one of"),
    ],
)
def test_mistakes_in_score_files_are_explained(
    line: str, message: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or a store that is begun before the mistake is found."""
    Path("good.tsv").write_text("2.5\t-1.25\tq0\td0\td1\n")
    Path("bad.tsv").write_text("2.5\t-1.25\tq0\td0\td1\n2.5\tq0\td0\td2\n")
    Path("other.tsv").write_text("2.5\t-1.25\tq0\td0\tnobody\n")
    Path("twice.tsv").write_text("2.5\t-1.25\tq0\td0\td1\n1.5\t-1.25\tq0\td0\td1\n")
    messages = run(f"--data {data} {line} --out s", capsys, status=2)
    assert message in messages
    assert "Traceback" not in messages
    assert not list(Path().glob("s/shards/*"))


def test_one_conversion_at_a_time() -> None:
    """Two jobs in one line, of which one is silently left undone."""
    for wrong in (
        {"clicks": "x", "import_": Path("x")},
        {"export": Path("x")},
        {"import_": Path("x"), "data": None},
        {"import_": Path("x"), "overwrite": True},
    ):
        with pytest.raises(ConfigError):
            ConvertConfig(out=Path("s"), **{"data": "beir:x"} | wrong)
