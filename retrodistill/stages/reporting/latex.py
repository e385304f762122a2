"""Tables of a report for a paper."""

import re
from collections.abc import Sequence

from retrodistill.stages.reporting.content import Cell, Report, Table

ABOUT = r"""% Tables for a paper: \input{report}, behind this in its preamble:
% \usepackage[T1]{fontenc} \usepackage{booktabs,graphicx}
% Letters that are neither Latin nor Greek need a font that has them: compile with LuaLaTeX or
% XeLaTeX then, without fontenc."""

KEPT = ("systems", "unseen", "fidelity", "explanations")
"""Sections whose tables are written, but for folded ones."""

SMALL = (
    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi o pi rho "
    "varsigma sigma tau upsilon varphi chi psi omega"
)
"""The small letters of Greek in their order: temperatures and weights in names."""

CAPITALS = {
    "Γ": "Gamma",
    "Δ": "Delta",
    "Θ": "Theta",
    "Λ": "Lambda",
    "Ξ": "Xi",
    "Π": "Pi",
    "Σ": "Sigma",
    "Φ": "Phi",
    "Ψ": "Psi",
    "Ω": "Omega",
}

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
    "`": r"\textasciigrave{}",
    "→": r"$\rightarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    **{chr(ord("\u03b1") + place): rf"$\{name}$" for place, name in enumerate(SMALL.split())},
    **{letter: rf"$\{name}$" for letter, name in CAPITALS.items()},
}

FITTING = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""What makes a box as narrow as the page, if it is wider."""


def as_latex(report: Report) -> str:
    """Return the tables of systems and of fidelity, to be put into a paper."""
    parts = [ABOUT]
    for section in report.sections:
        tables = [one for one in section.blocks if isinstance(one, Table) and not one.folded]
        if section.key in KEPT:
            parts += [_table(table, label=section.key) for table in tables]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Return text that LaTeX sets as it is, in one line."""
    line = "".join(SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
    line = re.sub(r"[\x00-\x1f\x7f]", "", line)
    return re.sub(r"([-,'])(?=\1)", r"\1{}", line)  # two of them would become another sign


def _table(table: Table, *, label: str) -> str:
    caption = f"{table.caption}. {table.note}".strip()
    head = " & ".join(escape(column) for column in table.columns)
    columns = zip(*table.rows, strict=True)
    widths = [max(len(cell.marks) for cell in column) for column in columns]
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        rf"  \caption{{{escape(caption)}}}",
        rf"  \label{{tab:{label}}}",
        r"  \smallskip",
        f"  {FITTING}",
        rf"  \begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"    \toprule",
        rf"    {head} \\",
        r"    \midrule",
        *(f"    {line}" for row in table.rows for line in _row(row, widths)),
        r"    \bottomrule",
        r"  \end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _row(row: Sequence[Cell], widths: Sequence[int]) -> list[str]:
    """Return the line of a row, and the one of what stands below its cells if there is any."""
    line = " & ".join(map(_cell, row, widths)) + r" \\"
    if not any(cell.below for cell in row):
        return [line]
    small = [rf"\scriptsize {escape(cell.below)}" if cell.below else "" for cell in row]
    return [f"{line}[-2pt]", " & ".join(small) + r" \\", r"\addlinespace"]


def _cell(cell: Cell, width: int) -> str:
    """Return a cell; marks are padded to the width of their column, so that numbers align.

    An opening bracket would be read as an argument of the row before.
    """
    text = escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    if width:
        rest = "x" * (width - len(cell.marks))
        padding = rf"\phantom{{{rest}}}" if rest else ""
        text += rf"\textsuperscript{{{escape(cell.marks)}{padding}}}"
    return f"{{}}{text}" if text.startswith(("[", "*")) else text
