"""Tables for the terminal and for Markdown."""

from collections.abc import Sequence

Row = Sequence[str]


def print_table(
    columns: Sequence[str], rows: Sequence[Row], *, title: str = "", best: Sequence[str] = ()
) -> None:
    """Print a table on stdout; the highest number of each column in `best` is bold."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right", no_wrap=True)
    highest = {column: max(float(row[columns.index(column)]) for row in rows) for column in best}
    for row in rows:
        table.add_row(
            *(
                f"[bold]{cell}[/]" if name in highest and float(cell) == highest[name] else cell
                for name, cell in zip(columns, row, strict=True)
            )
        )
    console = Console()
    # A file or a pipe has no width of its own: nothing is cut there.
    console.print(table, width=None if console.is_terminal else 160)


def markdown_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Return a Markdown table; numbers stand right."""
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("|" + "|".join(["---", *["--:"] * (len(columns) - 1)]) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
