"""Documents that the labels judge not relevant are the hard negatives of a training on labels."""

from pathlib import Path

import pytest
from fakes.corpus import save_small_collection

from retrodistill import train as verb
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.datasets.collection import Collection as Plain
from retrodistill.data.store.runs import Run
from retrodistill.stages.training.candidates import gather
from retrodistill.stages.training.examples import Schedule


@pytest.fixture(scope="module")
def judged(collection: Collection) -> Collection:
    """q0 has negatives, one of which the collection lacks; q1 has none; q2 has only negatives."""
    labels = {
        "q0": {"d0": 1, "d5": 0, "d6": -1, "elsewhere": 0},
        "q1": {"d1": 2},
        "q2": {"d7": 0},
    }
    return Plain(
        "judged",
        docs=collection.docs,
        queries=collection.queries,
        judgements={"train": lambda: labels},
    )


def test_judged_negatives_are_drawn_and_not_labelled(judged: Collection) -> None:
    """A hard negative that `generate --relabel` chose and no training ever reads."""
    lists = gather(judged, "train", None, pool=16)
    assert judged.queries.ids(lists.queries) == ["q0", "q1"]
    example, other = (Schedule(lists, 2, per_query=3, seed=0)[place] for place in (0, 1))
    if judged.queries.ids([example.query]) == ["q1"]:
        example, other = other, example
    docs = judged.docs.ids(example.docs)
    assert docs[0] == "d0"
    assert {*docs[1:]} == {"d5", "d6"}
    assert example.labels.tolist() == [True, False, False]
    assert judged.docs.ids(other.docs) == ["d1"]


def test_scores_keep_their_own_candidates(judged: Collection) -> None:
    """Judged documents that join a teacher's list without a score."""
    scores = Run.from_dict({"q0": {"d0": 3.0, "d8": 1.0}})
    lists = gather(judged, "train", scores, pool=16)
    assert judged.docs.ids(lists[0].pool) == ["d8"]


def test_gecko_learns_from_the_negative_that_was_chosen(tiny_model: Path, tmp_path: Path) -> None:
    """Gecko without its hard negatives: in-batch InfoNCE under another name."""
    data = save_small_collection(tmp_path / "data")
    losses = {}
    for name, negatives in (("with", True), ("without", False)):
        rows = ["query-id\tcorpus-id\tscore"]
        for number in range(8):
            rows.append(f"q{number}\td{number}\t1")
            rows += [f"q{number}\td{number + 20}\t0"] if negatives else []
        (tmp_path / f"{name}.tsv").write_text("\n".join(rows) + "\n")
        words = f"--recipe gecko --data beir:{data},qrels={tmp_path}/{name}.tsv --split {name} "
        words += f"--student {tiny_model} --out {tmp_path}/s-{name} --max-steps 1 --batch-size 8 "
        words += "--dims 16 --query-tokens 16 --doc-tokens 32 --precision float32"
        assert verb.main(words.split()) == 0
        details = Manifest.read(tmp_path / f"s-{name}").details
        losses[name] = details["losses"][0]["contrastive"]
    assert losses["with"] > losses["without"] + 0.1
