"""Where a pipeline's parts lie, which queries are for what, and what its systems are called."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodistill.base.config import DistilConfig
from retrodistill.stages.pipelines.distil.situation import Situation

K = 100
"""Documents that each system finds for a query that is measured."""

GENERATED, HELD_OUT, JUDGED = "generated", "held-out", "judged"
"""Splits of generated queries, and of machine judgements."""

MOST_HELD_OUT = 0.2
"""Largest share of the documents whose queries are put aside."""

NAMES = {
    "bm25": "BM25",
    "untouched": "untouched",
    "fused": "untouched + BM25",
    "teacher": "teacher",
    "cut": "cut, no scores",
    "labelled": "labels alone",
    "distilled": "distilled",
    "distilled-bm25": "distilled + BM25",
}
"""Folder of a system's run -> its name in tables, in their order."""


def title(name: str) -> str:
    """Return the name in tables of a system, given that of its folder."""
    return NAMES.get(name, f"distilled, {name.replace('-', ' ')}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Queries that the systems are measured on."""

    folder: str
    """Folder of their runs."""

    data: str
    queries: str | None
    split: str | None
    """Split of the queries; None for those of the file `queries`."""

    @property
    def where(self) -> dict[str, Any]:
        """Return the settings of `search` that name the queries."""
        return {"data": self.data, "queries": self.queries, "split": self.split}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where things lie, and which queries are for what."""

    config: DistilConfig
    situation: Situation

    @property
    def out(self) -> Path:
        """Return the folder of all that is made."""
        return self.config.out

    @property
    def data(self) -> str:
        """Return the id of the collection with the generated queries, if there are any."""
        if not self.situation.learns_generated:
            return self.config.data
        return self.with_generated(GENERATED)

    def with_generated(self, split: str) -> str:
        """Return the id of the collection with the generated queries of a split alone."""
        folder = self.out / "queries"
        file = f"{split}.jsonl" if self.holds_out else "queries.jsonl"
        return f"{self.config.data},queries={folder}/{file},qrels={folder}/qrels/{split}.tsv"

    @property
    def log(self) -> str | None:
        """Return the file of the log's queries to train on."""
        return str(self.out / "log" / "train.jsonl") if self.judges_log else self.config.queries

    @property
    def judged_log(self) -> str:
        """Return the file of the log's queries that are put aside."""
        return str(self.out / "log" / "held-out.jsonl")

    @property
    def judges_log(self) -> bool:
        """Return whether a part of the log is put aside, to be judged."""
        situation = self.situation
        return self.config.judge is not None and situation.logged > 0 and not situation.judged

    def judges(self, measured: Measured) -> bool:
        """Return whether the results for measured queries are judged by --judge."""
        return self.config.judge is not None and measured.folder in ("log", HELD_OUT)

    def with_judgements(self, measured: Measured) -> str:
        """Return the id of the collection with the queries that are judged and the judgements."""
        queries = measured.queries or self.out / "queries" / f"{HELD_OUT}.jsonl"
        return f"{self.config.data},queries={queries},qrels={self.out}/judgements/qrels"

    @property
    def holds_out(self) -> bool:
        """Return whether a part of the generated queries is put aside."""
        situation = self.situation
        return situation.generates and not (situation.judged or self.judges_log)

    @property
    def held_out(self) -> int:
        """Return the number of documents whose queries are put aside."""
        return max(1, min(self.config.held_out, int(MOST_HELD_OUT * self.situation.files)))

    @property
    def max_tokens(self) -> int:
        """Return the longest document of the student, in tokens, in training and in its index."""
        return min(self.config.max_tokens, self.situation.limit or self.config.max_tokens)

    @property
    def labels_split(self) -> str:
        """Return the split to train on: the labelled one, or that of the generated queries."""
        unlabelled = not self.situation.labelled and self.situation.learns_generated
        return GENERATED if unlabelled else self.config.split

    @property
    def retrieves_whole(self) -> bool:
        """Return whether the student keeps all layers, so that documents stay as they are."""
        return not self.config.keep_layers

    @property
    def teachers(self) -> tuple[str, ...]:
        """Return the teachers' specs; a student of the labels is one of them."""
        teachers = self.config.teacher or ("bm25", f"bi-encoder:{self.config.student}")
        labelled = (f"bi-encoder:{self.student('labelled')}",)
        return teachers + (labelled if "labelled" in self.trained else ())

    @property
    def test(self) -> Measured | None:
        """Return the queries of the final table; None if nothing can be measured."""
        config, situation = self.config, self.situation
        if situation.has_test:
            return self._measured("test", config.test_split)
        if situation.has_dev:
            return self._measured("dev", config.dev_split)
        if self.judges_log:
            return Measured(folder="log", data=config.data, queries=self.judged_log, split=None)
        return self._measured("held-out", HELD_OUT) if self.holds_out else None

    @property
    def dev(self) -> Measured | None:
        """Return the queries that decide between students: of the dev split, else as `test`."""
        if self.situation.has_dev:
            return self._measured("dev", self.config.dev_split)
        return self.test

    def _measured(self, folder: str, split: str) -> Measured:
        data = self.with_generated(split) if split == HELD_OUT else self.config.data
        return Measured(folder=folder, data=data, queries=None, split=split)

    def run(self, measured: Measured, system: str) -> Path:
        """Return the folder of a system's run."""
        return self.out / "runs" / measured.folder / system

    def student(self, name: str) -> str:
        """Return the model of a dense system."""
        return self.config.student if name == "untouched" else str(self.out / "students" / name)

    @property
    def prepared(self) -> tuple[str, ...]:
        """Return the names of the students that are trained before there are scores."""
        labelled = ("labelled",) if self.situation.labelled else ()
        return labelled if self.retrieves_whole else (*labelled, "cut")

    @property
    def followed(self) -> str:
        """Return the model whose vectors a cut student follows: with labels, the one they made."""
        return self.student("labelled" if self.situation.labelled else "untouched")

    def index_of(self, name: str) -> Path:
        """Return the index that a dense system searches: of the untouched documents, or its own."""
        whole = self.retrieves_whole or name in ("untouched", "labelled")
        return self.out / "indexes" / ("untouched" if whole else name)

    @property
    def trained(self) -> tuple[str, ...]:
        """Return the names of the students of the first round."""
        return (*self.prepared, "distilled")
