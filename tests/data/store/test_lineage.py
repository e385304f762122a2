"""What an artifact was trained on, through every step, in words and texts rather than ids."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import retrodistill as rd
from retrodistill.base.manifest import FILE
from retrodistill.base.types import Pairs
from retrodistill.data.rankings import reranked
from retrodistill.data.store.lineage import (
    FOLDER,
    Lineage,
    Record,
    lineage_of,
    model_lineage,
    own_lineage,
    spec_lineage,
)
from retrodistill.stages.mining.labels import add_positives, drop_false_negatives, drop_positives

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def record(*queries: str, student: str = "kl") -> Record:
    return Record.of(queries, [["a document"]] * len(queries), student=student, split="train")


def run_of(lineage: Lineage, **docs: float) -> rd.Run:
    return rd.Run.from_dict({"q1": docs or {"d1": 2.0, "d2": 1.0}}, lineage=lineage)


def test_records_are_equal_by_words_and_texts_and_not_by_ids_or_order_of_words() -> None:
    """Case, punctuation and order would hide a near double; a changed text would be a lost one."""
    original, same = record("Does asthma kill?"), record("does ASTHMA kill")
    assert original == same
    assert original.fingerprint == same.fingerprint
    assert original != record("does asthma heal")
    other_docs = Record.of(
        ["does asthma kill"], [["Another document"]], student="kl", split="train"
    )
    assert original != other_docs
    assert original.to_dict() == {
        "fingerprint": original.fingerprint,
        "student": "kl",
        "split": "train",
        "queries": 1,
        "documents": 1,
    }


def test_a_run_keeps_its_lineage_on_the_disk(tmp_path: Path) -> None:
    """A lineage that is lost in a folder makes every query look unseen."""
    lineage = Lineage((record("asthma"), record("flu", student="ce")), ("hub/model",))
    run_of(lineage).write(tmp_path / "run")
    back = rd.Run.read(tmp_path / "run").lineage
    assert back == lineage
    assert back.records[0].table.equals(lineage.records[0].table)
    assert [own.about["student"] for own in back.records] == ["kl", "ce"]
    listed = json.loads((tmp_path / "run" / FILE).read_text())["details"]["lineage"]
    assert [entry["queries"] for entry in listed["records"]] == [1, 1]
    assert listed["unrecorded"] == ["hub/model"]


def test_no_text_of_a_query_or_document_is_in_the_files(tmp_path: Path) -> None:
    """A student that is published would publish the queries of those who trained it."""
    secret = Record.of(["zyxomma petiolatum"], [["quokka setonix"]], student="kl")
    run_of(Lineage((secret,))).write(tmp_path / "run")
    content = b"".join(p.read_bytes() for p in (tmp_path / "run" / FOLDER).iterdir())
    assert not any(word in content for word in (b"zyxomma", b"petiolatum", b"quokka", b"setonix"))


@pytest.mark.parametrize("damage", ["delete", "flip", "manifest", "no manifest entry"])
def test_a_lost_record_is_unknown_training_and_not_none(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its record a trained system would look untrained: all queries would be unseen."""
    run_of(Lineage((record("asthma"),))).write(tmp_path / "run")
    [file] = (tmp_path / "run" / FOLDER).iterdir()
    manifest = tmp_path / "run" / FILE
    content = json.loads(manifest.read_text())
    if damage == "delete":
        shutil.rmtree(file.parent)
    elif damage == "flip":
        foreign = record("flu")
        run_of(Lineage((foreign,))).write(tmp_path / "other")
        [wrong] = (tmp_path / "other" / FOLDER).iterdir()
        shutil.copy(wrong, file)
    elif damage == "manifest":
        content["details"]["lineage"] = {"records": [7]}
    else:
        del content["details"]["lineage"]
    manifest.write_text(json.dumps(content))
    lineage = lineage_of(tmp_path / "run")
    assert lineage == Lineage(unrecorded=("run",))
    assert ("missing or damaged" in capsys.readouterr().err) == (damage in ("delete", "flip"))


def test_files_and_runs_made_in_python_are_unrecorded(tmp_path: Path) -> None:
    """A TREC file of a trained system says nothing of its training, so nothing may be assumed."""
    run = rd.Run.from_dict({"q1": {"d1": 1.0}})
    for name in ("run.trec", "run.jsonl", "run.parquet"):
        getattr(run, f"to_{name.partition('.')[2]}")(tmp_path / name)
        assert rd.Run.read(tmp_path / name).lineage == Lineage(unrecorded=(name,))
    assert run.lineage.unrecorded
    assert not run.lineage.records


def joins(a: rd.Run, b: rd.Run) -> dict[str, rd.Run]:
    """Return everything that makes one run of two."""
    methods: Sequence[Any] = ("sum", "max", "mnz", "rrf", "rerank")
    hows: Sequence[Any] = ("mean", "z", "percentiles", "rrf")
    return {
        **{f"fuse {method}": rd.fuse_runs([a, b], method) for method in methods},
        **{f"combine {how}": rd.combine([a, b], how) for how in hows},
        "average": rd.average_scores([a, b]),
        "reranked": reranked(a, b),
    }


def test_what_is_made_of_two_runs_has_both_lineages() -> None:
    """A fused run that forgets one of its systems hides what that one remembers."""
    ours, theirs = Lineage((record("asthma"),)), Lineage((record("flu"),), ("hub/model",))
    for name, run in joins(run_of(ours), run_of(theirs)).items():
        assert run.lineage == ours | theirs, name


def test_what_is_made_of_one_run_has_its_lineage() -> None:
    """Cutting or filtering lists changes nothing of what the system has learned."""
    lineage = Lineage((record("asthma"),))
    run, relevant = run_of(lineage), {"q1": frozenset({"d1"})}
    for made in (
        run.top(1),
        run.select(["q1"]),
        drop_positives(run, relevant).run,
        add_positives(run, relevant).run,
        drop_false_negatives(run, relevant, ratio=0.9).run,
    ):
        assert made.lineage == lineage


def test_lexical_systems_are_untrained_and_models_without_a_record_unrecorded(
    tmp_path: Path,
) -> None:
    """A model from elsewhere that passes for untrained would make its rows a promise."""
    assert spec_lineage("bm25") == spec_lineage("lucene:de") == Lineage()
    assert spec_lineage("dense:hub/model") == Lineage(unrecorded=("hub/model",))
    (tmp_path / "model").mkdir()
    assert model_lineage(tmp_path / "model") == Lineage(unrecorded=("model",))
    assert own_lineage(object()) == Lineage(unrecorded=("object",))


class Constant:
    """A teacher that was trained on something."""

    fingerprint, scale, unit = "constant", "unknown", "pair"

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage

    def score(self, pairs: Pairs) -> Any:
        return np.arange(len(pairs), dtype=np.float32)


def test_a_score_store_knows_its_teacher_and_all_its_candidates(
    collection: "Collection", tmp_path: Path
) -> None:
    """A teacher that was trained on the test queries teaches them to each student of its scores."""
    teacher = Lineage((record("asthma", student="ce"),))
    mined = rd.mine_candidates(collection, "train", settings=rd.MineSettings(depth=3))
    assert mined.lineage == Lineage()
    store = rd.score_candidates(collection, mined, Constant(teacher), tmp_path / "s")  # type: ignore[arg-type]
    assert store.run().lineage == store.lineage == lineage_of(tmp_path / "s") == teacher

    known_lineage = Lineage((record("flu"),))
    more = replace(
        rd.mine_candidates(collection, "train", settings=rd.MineSettings(depth=4)),
        lineage=known_lineage,
    )
    rd.score_candidates(collection, more, Constant(teacher), tmp_path / "s")  # type: ignore[arg-type]
    assert rd.Run.read(tmp_path / "s").lineage == teacher | known_lineage
    assert rd.load_teacher(f"run:{tmp_path / 's'}", collection).lineage == teacher | known_lineage
    result = rd.rerank(mined, collection, Constant(known_lineage))  # type: ignore[arg-type]
    assert result.lineage == known_lineage


def test_scores_of_somebody_elses_file_are_unrecorded(
    collection: "Collection", tmp_path: Path
) -> None:
    """Imported scores of a trained model would be taken for those of an untrained one."""
    rd.mine_candidates(collection, "train", settings=rd.MineSettings(depth=3)).to_trec(
        tmp_path / "theirs.trec"
    )
    store = rd.import_scores(collection, tmp_path / "theirs.trec", tmp_path / "s", format="trec")
    assert store.run().lineage == Lineage(unrecorded=("theirs.trec",))
