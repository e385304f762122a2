"""Tables of a report for a paper."""

import re

from retrodistill.reporting.content import Cell, Report, Table

KEPT = ("systems", "fidelity")
"""Sections whose tables are written."""

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "→": r"$\rightarrow$",
}


def as_latex(report: Report) -> str:
    """Return the tables of systems and of fidelity, for booktabs."""
    parts = [r"% \usepackage[T1]{fontenc} \usepackage{booktabs}"]
    for section in report.sections:
        tables = [block for block in section.blocks if isinstance(block, Table)]
        if section.key in KEPT:
            parts += [_table(table, label=section.key) for table in tables]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return text that LaTeX sets as it is, in one line."""
    line = "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
    return re.sub(r"[\x00-\x1f\x7f]", "", line)


def _table(table: Table, *, label: str) -> str:
    caption = f"{table.caption}. {table.note}".strip()
    head = " & ".join(escape(column) for column in table.columns)
    rows = [" & ".join(map(_cell, row)) + r" \\" for row in table.rows]
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        rf"  \caption{{{escape(caption)}}}",
        rf"  \label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"    \toprule",
        rf"    {head} \\",
        r"    \midrule",
        *(f"    {row}" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    """Return a cell; an opening bracket would be read as an argument of the row before."""
    text = escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    text += rf"$^{{\mathrm{{{escape(cell.marks)}}}}}$" if cell.marks else ""
    text += rf" {{\scriptsize {escape(cell.below)}}}" if cell.below else ""
    return f"{{}}{text}" if text.startswith(("[", "*")) else text
