"""Tables for the terminal and for Markdown."""

import math
from collections.abc import Sequence

Cell = str | float | None


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    title: str = "",
    best: Sequence[str] = (),
) -> None:
    """Print a table on stdout; the highest number of each column in `best` is bold."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(title=escape(title) or None, title_justify="left")
    for column in columns:
        justify = "left" if column == columns[0] else "right"
        table.add_column(escape(column), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    numbers = [[number_in(cell) for cell in row] for row in rows]
    highest = {
        place: max((own for row in numbers if (own := row[place]) is not None), default=0.0)
        for place, column in enumerate(columns)
        if column in best
    }
    for row, values in zip(rows, numbers, strict=True):
        wins = [
            value is not None and value == highest.get(place) for place, value in enumerate(values)
        ]
        table.add_row(
            *(Text(shown(cell), "bold" if win else "") for cell, win in zip(row, wins, strict=True))
        )
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width of its own: nothing is cut there
        console.width = 10_000
    console.print(table)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a Markdown table; numbers stand right."""
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)]]
    lines += [[shown(cell).replace("|", r"\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(cell: Cell) -> str:
    """Return a cell's text: a float has four decimals up to 1, one above; None is a dash."""
    if isinstance(cell, float):
        return f"{cell:.4f}" if abs(cell) <= 1 else f"{cell:,.1f}"
    return "-" if cell is None else str(cell)


def number_in(cell: Cell) -> float | None:
    """Return the number that a cell says, for sorting and comparing; a % behind it is dropped."""
    try:
        number = float(str(cell).replace(",", "").removesuffix("%"))
    except ValueError:
        return None
    return None if math.isnan(number) else number
