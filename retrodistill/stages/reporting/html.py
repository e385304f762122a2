"""A report as one HTML file that needs nothing but itself."""

import base64
import hashlib
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path

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
from retrodistill.stages.reporting.markup import Child, Html, tag
from retrodistill.stages.reporting.plots import swatch

HERE = Path(__file__).parent
NO_BREAK = "\u00a0"


def as_html(report: Report) -> str:
    """Return the page; its policy forbids whatever it does not bring along."""
    style = Html((HERE / "page.css").read_text(encoding="utf-8"))
    script = Html((HERE / "page.js").read_text(encoding="utf-8"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content="retrodistill"),
        tag("title", report.title),
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
    )
    links = [tag("a", part.title, href=f"#{part.key}") for part in report.sections]
    sections = [
        tag(
            "section",
            tag("h2", part.title, id=f"{part.key}-title"),
            _blocks(part.blocks),
            id=part.key,
            aria_labelledby=f"{part.key}-title",
        )
        for part in report.sections
    ]
    body = tag(
        "body",
        tag("header", tag("h1", report.title), tag("p", report.about, class_="about")),
        tag("nav", links, aria_label="Sections"),
        tag("main", sections),
        tag("script", script),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _blocks(blocks: Sequence[Block]) -> list[Html]:
    """Return blocks as markup: neighbouring figures share a grid, cases a list with a button."""
    found: list[Html] = []
    place = 0
    while place < len(blocks):
        kind = type(blocks[place])
        end = place
        while end < len(blocks) and type(blocks[end]) is kind:
            end += 1
        parts = [_block(block) for block in blocks[place:end]]
        if kind is Figure:
            found.append(tag("div", parts, class_="figures"))
        elif kind is Case:
            button = tag("button", "Open all", type="button", class_="all", hidden=True)
            found.append(tag("div", button, parts, class_="cases"))
        else:
            found += parts
        place = end
    return found


@singledispatch
def _block(block: Block) -> Html:
    raise AssertionError(block)


@_block.register
def _(block: Text) -> Html:
    return tag("p", block.text)


@_block.register
def _(block: Code) -> Html:
    code = tag("pre", tag("code", block.text), tabindex="0")
    if block.folded:
        return tag("details", tag("summary", block.title), code)
    return tag("figure", tag("figcaption", block.title), code, class_="code")


@_block.register
def _(block: Figure) -> Html:
    signs = [
        tag("span", swatch(number, line=not block.dots), " ", name)
        for name, number in block.legend.items()
    ]
    legend = tag("p", signs, class_="legend") if signs else None
    return tag("figure", block.svg, legend, tag("figcaption", block.caption))


@_block.register
def _(block: Table) -> Html:
    columns = list(zip(*block.rows, strict=True)) or [()] * len(block.columns)
    widths = [max((len(cell.marks) for cell in column), default=0) for column in columns]
    head = [
        tag(
            "th",
            tag("button", name, type="button"),
            scope="col",
            aria_sort="none",
            class_="n" if any(cell.number is not None for cell in column) else None,
        )
        for name, column in zip(block.columns, columns, strict=True)
    ]
    rows = [
        tag("tr", [_cell(cell, widths[place], first=place == 0) for place, cell in enumerate(row)])
        for row in block.rows
    ]
    table = tag(
        "table",
        tag("caption", tag("span", block.caption)),
        tag("thead", tag("tr", head)),
        tag("tbody", rows),
    )
    box = tag("div", table, class_="box", tabindex="0", role="region", aria_label=block.caption)
    note = tag("p", block.note, class_="note") if block.note else None
    if block.folded:
        return tag("details", tag("summary", block.caption), box, note, class_="folded")
    return tag("div", box, note)


@_block.register
def _(block: Case) -> Html:
    values = [
        tag("span", name, " ", tag("b", f"{value:.4f}"))
        for name, value in zip(block.systems, block.values, strict=True)
    ]
    summary = tag(
        "summary",
        tag("span", f"{block.values[1] - block.values[0]:+.2f}", class_="drop"),
        tag("span", block.text or block.query, class_="query", dir="auto"),
    )
    about = tag(
        "p",
        tag("code", block.query),
        f" {block.metric}: ",
        values[0],
        " → ",
        values[1],
        class_="values",
    )
    columns = [
        tag(
            "div",
            tag("h4", name),
            tag("ol", [_hit(hit) for hit in hits])
            if hits
            else tag("p", "nothing was found", class_="note"),
        )
        for name, hits in zip(block.systems, block.lists, strict=True)
    ]
    missed = None
    if block.missed:
        title = tag("h4", f"Relevant, and not shown in the list of {block.systems[1]}")
        missed = tag("div", title, tag("ol", [_hit(hit) for hit in block.missed]), class_="missed")
    return tag("details", summary, about, tag("div", columns, class_="sides"), missed)


def _cell(cell: Cell, width: int, *, first: bool) -> Html:
    """Return a cell; marks are padded to the width of their column, so that numbers align."""
    text: Child = tag("b", cell.text) if cell.best else cell.text
    marks = tag("sup", cell.marks.ljust(width, NO_BREAK)) if width else None
    below = tag("small", cell.below) if cell.below else None
    value = None if cell.number is None else repr(float(cell.number))
    if first:
        return tag("th", text, marks, below, scope="row")
    return tag("td", text, marks, below, data_value=value, class_="n" if value else None)


def _hit(hit: ListedDocument) -> Html:
    relevant = hit.grade is not None and hit.grade > 0
    badge = None
    if hit.grade is not None:
        said = f"relevant ({hit.grade})" if relevant else f"judged not relevant ({hit.grade})"
        badge = tag("span", said, class_="grade")
    beside = f"in the other list at {hit.other}" if hit.other else "not in the other list"
    return tag(
        "li",
        tag("span", str(hit.rank) if hit.rank else "-", class_="rank"),
        tag(
            "div",
            tag("p", tag("code", hit.id), " ", badge, " ", tag("small", beside)),
            tag("p", tag("b", hit.title), " " if hit.title else None, hit.text, dir="auto")
            if hit.title or hit.text
            else None,
        ),
        class_="hit relevant" if relevant else "hit",
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
