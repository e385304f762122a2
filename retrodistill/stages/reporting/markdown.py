"""A report as Markdown: its tables, lists and commands; plots are in the page only."""

import re
from collections.abc import Sequence
from functools import singledispatch

from retrodistill.stages.reporting.content import (
    Block,
    Case,
    Cell,
    Code,
    Figure,
    ListedDocument,
    Report,
    Table,
    Text,
)
from retrodistill.stages.reporting.markup import printable


def as_markdown(report: Report) -> str:
    """Return the report; text from data is shown as it is, whatever it holds."""
    parts = [f"# {escape(report.title)}", escape(report.about)]
    for section in report.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, in one line; control characters become a sign."""
    line = " ".join(printable(text).split())
    line = re.sub(r"([\\`*_\[\]<>|~$#!])", r"\\\1", line)
    return re.sub(r"^(\d*)([.)+=-])(?=\s|$|=)", r"\1\\\2", line).replace("&", "&amp;")


@singledispatch
def _block(block: Block) -> str:
    raise AssertionError(block)


@_block.register
def _(block: Text) -> str:
    return escape(block.text)


@_block.register
def _(block: Figure) -> str:
    return f"*Plot in the HTML page: {escape(block.caption)}.*"


@_block.register
def _(block: Code) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
    return f"{escape(block.title)}:\n\n{fence}\n{printable(block.text)}\n{fence}"


@_block.register
def _(block: Table) -> str:
    table = _table(block.columns, [[_cell(cell) for cell in row] for row in block.rows])
    parts = [f"**{escape(block.caption)}**", table, escape(block.note)]
    return "\n\n".join(part for part in parts if part)


@_block.register
def _(block: Case) -> str:
    first, second = block.systems
    before, after = block.values
    title = f"### {escape(block.text or block.query)}"
    about = (
        f"Query {escape(block.query)}, {escape(block.metric)}: {escape(first)} {before:.4f}, "
        f"{escape(second)} {after:.4f}. Relevant documents are bold."
    )
    left, right = block.lists
    longest = max(len(left), len(right))
    rows = [
        [
            str(place + 1),
            *(_hit(hits[place]) if place < len(hits) else "" for hits in (left, right)),
        ]
        for place in range(longest)
    ]
    parts = [title, about, _table(("rank", first, second), rows)]
    if block.missed:
        found = [
            f"- {_hit(hit)}: " + (f"rank {hit.rank}" if hit.rank else "not found")
            for hit in block.missed
        ]
        parts.append(f"Relevant, and not above in {escape(second)}:\n\n" + "\n".join(found))
    return "\n\n".join(parts)


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"**{text}**" if cell.best else text
    marks = f" <sup>{escape(cell.marks)}</sup>" if cell.marks else ""
    below = f"<br>{escape(cell.below)}" if cell.below else ""
    return text + marks + below


def _hit(hit: ListedDocument) -> str:
    grade = f" ({hit.grade})" if hit.grade is not None else ""
    text = escape(f"{hit.id}{grade} {hit.title}".strip())
    return f"**{text}**" if hit.grade is not None and hit.grade > 0 else text


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already; numbers stand right."""
    lines = [[escape(column) for column in columns], ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
