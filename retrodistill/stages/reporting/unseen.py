"""The part of a report about the queries that no training behind the systems has seen."""

from collections.abc import Mapping
from typing import Any

from retrodistill.stages.reporting.content import Block, Cell, Section, Table, Text
from retrodistill.stages.reporting.results import SUBSETS, subset_rows
from retrodistill.stages.reporting.sections import tables_of_tests
from retrodistill.stages.reporting.tables import number_in


def unseen(evaluation: Mapping[str, Any]) -> Section | None:
    """Return systems on all queries and on unseen ones, the tests there, and what is known.

    None if there is nothing to say: no system is trained, and none of unknown training.
    """
    training = evaluation.get("training", {})
    blocks: list[Block] = [Text(text=said) for said in _sentences(evaluation)]
    if evaluation.get("subsets"):
        blocks.insert(0, _systems(evaluation))
        for subset in evaluation["subsets"]:
            blocks += tables_of_tests(subset["tests"], title=f"{subset['name']}, ", folded=True)
        blocks.append(_records(training["records"]))
    if not blocks:
        return None
    return Section(key="unseen", title="Without what training has seen", blocks=blocks)


def _sentences(evaluation: Mapping[str, Any]) -> list[str]:
    """Return what is to be said below the table, in one form."""
    said = [*evaluation.get("warnings", ()), *evaluation.get("training", {}).get("notes", ())]
    return [sentence[:1].upper() + sentence[1:] for sentence in said]


def _systems(evaluation: Mapping[str, Any]) -> Table:
    columns, rows = subset_rows(evaluation, repeated=True)
    threshold = evaluation["training"]["threshold"]
    return Table(
        caption=SUBSETS[:1].upper() + SUBSETS[1:],
        columns=columns,
        rows=[
            [
                Cell(text=cell, number=number_in(cell) if place else None)
                for place, cell in enumerate(row)
            ]
            for row in rows
        ],
        note=f"A near double has a Jaccard similarity of its words of at least {threshold:g} with "
        "a query that any of the systems, or what taught them, was trained on; a document is seen "
        "if it was relevant to such a query. A system that is better on all queries only, "
        "remembers.",
    )


def _records(records: list[Mapping[str, Any]]) -> Table:
    names = ("student", "collection", "split")
    counts = ("queries", "documents")
    return Table(
        caption="Training data behind the systems",
        columns=(*names, *counts),
        rows=[
            [
                *(Cell(text=str(record.get(name) or "-")) for name in names),
                *(Cell(text=f"{record[name]:,}", number=record[name]) for name in counts),
            ]
            for record in records
        ],
        folded=True,
    )
