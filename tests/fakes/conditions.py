"""Random conditions over columns of every type, and what SQL would say of a row, done slowly."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from retrodistill.data.filters import (
    Among,
    And,
    Compare,
    Expression,
    Missing,
    Not,
    Or,
    all_of,
    any_of,
)

TYPES = {
    "year": "int",
    "stars": "float",
    "lang": "text",
    "open": "truth",
    "seen at": "time",
    "tags": "list",
    "nothing": "null",
}
WORDS = ("", "a", "b", 'q"u', "é", "😀", "and")
TIMES = ("2020-01-01", "2020-01-01T12:00:00", "2021-05-05T00:00:00+02:00", "1969-12-31")
INTEGERS = st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
FLOATS = st.sampled_from([-2.5, -1.0, 0.0, 0.5, 2.0, 1e20, -1e300])
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": INTEGERS | FLOATS,
    "float": st.integers(-3, 3) | FLOATS,
    "text": st.sampled_from(WORDS),
    "truth": st.booleans(),
    "time": st.sampled_from(TIMES),
    "list": st.sampled_from(WORDS),
    "null": st.integers(0, 3) | st.sampled_from(WORDS),
}
CELLS: dict[str, st.SearchStrategy[Any]] = {
    "int": INTEGERS,
    "float": FLOATS | st.just(float("nan")),
    "text": st.sampled_from(WORDS),
    "truth": st.booleans(),
    "time": st.sampled_from(TIMES).map(lambda text: moment(text)),
    "list": st.lists(st.none() | st.sampled_from(WORDS), max_size=3),
    "null": st.none(),
}


def moment(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def rows() -> st.SearchStrategy[list[dict[str, Any]]]:
    cells = {name: st.none() | CELLS[kind] for name, kind in TYPES.items()}
    return st.lists(st.fixed_dictionaries(cells), max_size=8)


@st.composite
def leaves(draw: st.DrawFn) -> Expression:
    name = draw(st.sampled_from(list(TYPES)))
    kind = TYPES[name]
    if draw(st.integers(0, 5)) == 0:
        return Missing(name)
    value = draw(VALUES[kind])
    if kind not in ("truth", "list") and draw(st.booleans()):
        return Compare(name, draw(st.sampled_from(["<", "<=", ">", ">="])), value)
    more = st.lists(VALUES[kind], max_size=3)
    alike = [v for v in draw(more) if isinstance(v, str) == isinstance(value, str)]
    return Among(name, (value, *alike))


@st.composite
def any_leaves(draw: st.DrawFn) -> Expression:
    """Leaves of any name and value, independent of a table."""
    name = draw(TEXTS.filter(bool))
    numbers = st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False)
    kind = draw(st.sampled_from([TEXTS, numbers, st.booleans()]))
    form = draw(st.integers(0, 2))
    if form == 0:
        return Missing(name)
    if form == 1:
        return Compare(name, draw(st.sampled_from(["<", "<=", ">", ">="])), draw(TEXTS | numbers))
    return Among(name, tuple(draw(st.lists(kind, min_size=1, max_size=3))))


def conditions(of: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    def joined(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        several = st.lists(parts, min_size=1, max_size=3)
        return several.map(all_of) | several.map(any_of) | parts.map(lambda part: ~part)

    return st.recursive(of, joined, max_leaves=8)


def truth(expression: Expression, row: dict[str, Any]) -> bool | None:
    """Return true, false or None (unknown), as SQL does."""
    match expression:
        case And(operands):
            truths = [truth(operand, row) for operand in operands]
            return False if False in truths else None if None in truths else True
        case Or(operands):
            truths = [truth(operand, row) for operand in operands]
            return True if True in truths else None if None in truths else False
        case Not(operand):
            inner = truth(operand, row)
            return None if inner is None else not inner
        case Missing(name):
            return missing(row[name])
        case Among(name, values):
            cell = row[name]
            if missing(cell):
                return None
            if isinstance(cell, list):
                return any(value in cell for value in values)
            return any(same(cell, value) for value in values)
        case Compare(name, operator, value):
            cell = row[name]
            if missing(cell):
                return None
            bound = moment(value) if isinstance(cell, datetime) else value
            return {"<": cell < bound, "<=": cell <= bound, ">": cell > bound, ">=": cell >= bound}[
                operator
            ]
    raise AssertionError(expression)


def missing(cell: Any) -> bool:
    return cell is None or cell != cell


def same(cell: Any, value: Any) -> bool:
    return bool(cell == (moment(value) if isinstance(cell, datetime) else value))
