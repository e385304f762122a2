"""What a report says, before it is a page, Markdown or LaTeX."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from retrodistill.stages.reporting.markup import Html


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    number: float | None = None
    """What its column is sorted by; None sorts the text."""

    best: bool = False
    marks: str = ""
    """Letters of the systems that this one is significantly better than."""

    below: str = ""
    """A smaller second line: an interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table; its first column names the rows."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    folded: bool = False
    """Whether the page shows only its caption until it is asked for more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A drawing."""

    caption: str
    svg: Html
    legend: Mapping[str, int] = field(default_factory=dict)
    """Name of each series -> its number, which decides how it looks."""

    dots: bool = False
    """Whether the series are points without lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """Text to be shown as it is."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedDocument:
    """A document in a list, or a relevant one that a list lacks."""

    id: str
    title: str = ""
    text: str = ""
    grade: int | None = None
    """Its judgement; None where it has none."""

    rank: int | None = None
    """Its rank in the list that it is shown in; None where it is not found."""

    other: int | None = None
    """Its rank in the list beside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One query, with two systems' lists."""

    query: str
    text: str
    metric: str
    systems: tuple[str, str]
    values: tuple[float, float]
    lists: tuple[Sequence[ListedDocument], Sequence[ListedDocument]]
    missed: Sequence[ListedDocument] = ()
    """Relevant documents below the end of the second list: rank there, and rank in the first."""


Block: TypeAlias = Table | Figure | Text | Code | Case


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a report under one heading."""

    key: str
    """Its anchor in the page and its name in the JSON."""

    title: str
    blocks: Sequence[Block]
    data: Any = None
    """What the JSON says of it; None for nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A whole report."""

    title: str
    about: str
    evaluation: Mapping[str, Any]
    """`Evaluation.to_dict()`."""

    sections: Sequence[Section] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation, and `sections` with what each of them says in numbers."""
        data = {part.key: part.data for part in self.sections if part.data is not None}
        return {**self.evaluation, "sections": data}
