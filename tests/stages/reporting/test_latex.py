"""The tables for a paper, as LaTeX itself reads them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from retrodistill.data.store.runs import Run
from retrodistill.stages.evaluation import evaluate_runs
from retrodistill.stages.reporting.content import Report
from retrodistill.stages.reporting.latex import as_latex, escape
from retrodistill.stages.reporting.sections import headline

LATEX = shutil.which("pdflatex")
NAMES = (r"[a]_&%#$ {x}~y^z \alpha", "größe→τ≤λ", "* it's --flag,, ''b'' `c` <d>|\"e\"", "Łódź ½ é")
PAPER = r"""\documentclass{article}
\usepackage[T1]{fontenc} \usepackage{booktabs,graphicx}
\begin{document}
\input{report}
\end{document}
"""


def tables() -> str:
    """Return the tables of four systems of these names, better from one to the next."""
    qrels = {f"q{number}": {"d": 1} for number in range(12)}
    runs = {
        name: Run.from_dict({q: {"d": place, "e": 0.5, "f": 1.5, "g": 2.5} for q in qrels})
        for place, name in enumerate(NAMES)
    }
    found = evaluate_runs(qrels, runs).to_dict()
    return as_latex(
        Report(title="", about="", evaluation=found, sections=[headline(found, queries=12)])
    )


def test_two_signs_do_not_become_another() -> None:
    """A name with two hyphens, which is set with a dash."""
    assert escape("a--b ,, ''") == "a-{}-b ,{}, '{}'"
    assert escape("---") == "-{}-{}-"
    assert escape("τ=0.5") == r"$\tau$=0.5"


def test_intervals_stand_below_and_marks_are_padded() -> None:
    """A table twice as wide as its page, whose numbers do not stand below each other."""
    lines = tables().splitlines()
    values = [line for line in lines if line.endswith(r"\\[-2pt]")]
    assert len(values) == len(NAMES)
    assert r"0.4307\textsuperscript{\phantom{xxx}}" in values[0]
    assert r"0.6309\textsuperscript{ab\phantom{x}}" in values[2]
    assert r"\textbf{1.0000}\textsuperscript{abc}" in values[3]
    below = [line for line in lines if line.strip().startswith("&") and r"\scriptsize" in line]
    assert len(below) == len(NAMES)
    assert "0.431 to 0.431" in below[0]


@pytest.mark.skipif(LATEX is None, reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_latex_takes_the_tables_and_they_fit(tmp_path: Path) -> None:
    """A report whose tables stop the paper that takes them, or run over its margin."""
    (tmp_path / "report.tex").write_text(tables(), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(PAPER, encoding="utf-8")
    words = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=120)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Overfull" not in log
    assert "Missing character" not in log
