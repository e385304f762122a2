"""Judgements as an artifact: the grades, where each is from, and how far humans agree."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retrodistill.base.errors import DataError
from retrodistill.base.files import new_folder, write_atomically
from retrodistill.base.manifest import Manifest, digest
from retrodistill.data.lines import write_lines
from retrodistill.data.qrels import Judgements as Grades
from retrodistill.data.qrels import qrels_text, read_qrels
from retrodistill.stages.judging.agreement import Agreement

KIND = "judgements"
SPLIT = "judged"
LINES, UNJUDGED = "judgements.jsonl", "unjudged.jsonl"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge made of one pair."""

    query: str
    doc: str
    grade: int | None
    """None: the judge gave no usable answer."""

    answer: str | None = None
    """What a language model wrote."""

    score: float | None = None
    """The raw score of a teacher that gives scores."""

    failure: str = ""
    """Why there is no grade."""


@dataclass(frozen=True, kw_only=True)
class JudgedPool:
    """All judgements of a pool."""

    judge: str
    """The judge as it was named: `llm:NAME`, `cross-encoder:MODEL`."""

    rubric: str
    """Hash of what the grades mean: the rubric's question, or the thresholds."""

    rows: Sequence[Judgement]
    agreement: Agreement | None = None

    @cached_property
    def qrels(self) -> Grades:
        """Query id -> document id -> grade; a pair without a grade is absent."""
        qrels: Grades = {}
        for row in self.rows:
            if row.grade is not None:
                qrels.setdefault(row.query, {})[row.doc] = row.grade
        return qrels

    @property
    def failures(self) -> dict[str, int]:
        """Why pairs have no grade -> how many."""
        return dict(Counter(row.failure for row in self.rows if row.grade is None))

    def write(
        self,
        out: Path,
        *,
        human: Mapping[str, Mapping[str, int]],
        inputs: Mapping[str, str],
        config: Mapping[str, Any],
        details: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        """Write the folder, whole or not at all.

        Raises:
            ConfigError: `out` exists already and `overwrite` is not set.
            DataError: an id cannot be written to a BEIR file, as it holds a tab.

        """
        text = qrels_text(self.qrels)
        with new_folder(out, overwrite=overwrite) as folder:
            (folder / "qrels").mkdir()
            file = folder / "qrels" / f"{SPLIT}.tsv"
            write_atomically(file, text.encode())
            if read_qrels(file) != self.qrels:
                raise DataError(
                    "a query's or a document's id holds a tab or a quote, which a BEIR file "
                    "cannot. Rename it in the collection."
                )
            write_lines(
                folder / LINES,
                (self._line(row, human) for row in self.rows if row.grade is not None),
            )
            if self.failures:
                write_lines(
                    folder / UNJUDGED,
                    (self._line(row, human) for row in self.rows if row.grade is None),
                )
            Manifest(
                kind=KIND,
                fingerprint=digest(KIND, text),
                inputs=inputs,
                config=config,
                details={**self._counts(), **details},
            ).write(folder)

    def _counts(self) -> dict[str, Any]:
        grades = Counter(row.grade for row in self.rows if row.grade is not None)
        return {
            "judge": self.judge,
            "rubric": self.rubric,
            "split": SPLIT,
            "queries": len(self.qrels),
            "pairs": len(self.rows),
            "grades": {str(grade): grades[grade] for grade in sorted(grades)},
            "unjudged": self.failures,
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
        }

    def _line(self, row: Judgement, human: Mapping[str, Mapping[str, int]]) -> str:
        """Return a pair with its provenance, as JSON; what does not exist has no key."""
        line: dict[str, Any] = {"query_id": row.query, "doc_id": row.doc}
        line |= {"failure": row.failure} if row.grade is None else {"grade": row.grade}
        line |= {"judge": self.judge, "rubric": self.rubric}
        line |= {} if row.score is None else {"score": row.score}
        line |= {} if row.answer is None or row.grade is None else {"answer": row.answer}
        human_grade = human.get(row.query, {}).get(row.doc)
        line |= {} if human_grade is None else {"human_grade": human_grade}
        return json.dumps(line, ensure_ascii=False)
