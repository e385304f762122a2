"""Count filler names, private phrases, long functions and long parameter lists.

    python benchmarks/check_code.py             # the package: totals, and what exceeds a limit
    python benchmarks/check_code.py --folder retrodistill/data --list

Exit status 1 when a limit is exceeded. `make lint` runs it.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

FILLERS = frozenset(
    {
        "found",
        "own",
        "place",
        "places",
        "part",
        "known",
        "first",
        "kept",
        "wanted",
        "one",
        "said",
        "given",
        "other",
        "others",
        "left",
        "here",
        "there",
        "what",
        "these",
        "those",
        "many",
        "some",
        "rest",
        "again",
    }
)
"""Local names that do not say what they hold."""

PHRASES = (
    r"\b(is|are|be|was|were|has been) told\b",
    r"\btells? (the|its|who|what|how)\b",
    r"\bgo(es)? on (from|with|where)\b",
    r"(?<!there )(?<!if )\b(is|are) no (?!longer|more|less|better|worse|wider|larger)[a-z]+",
    r"\bstands? there\b",
    r"\bleave (it |them |this |the \w+ |--?[\w-]+ )?away\b",
    r"\bleft out\b",
    r"\banew\b",
    r"\bshall\b",
    r"\bnot in order\b",
    r"\bso many\b",
    r"\bat the door\b",
    r"\bwhatever happens\b",
    r"\beverybody's\b",
    r"\bby words\b",
    r"\bdoes more than to\b",
)
"""Private English; CONTRIBUTING names the words of the field to write instead."""

LINES, PARAMETERS, SHARE = 60, 8, 0.02
"""Most lines of a function without its docstring, most parameters, largest share of fillers."""


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return a function's lines below its signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many parameters a caller may give."""
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
    return len(names) + len(function.args.kwonlyargs) - (names[:1] in (["self"], ["cls"]))


def main() -> int:
    """Print the counts; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "retrodistill")
    parser.add_argument("--list", action="store_true", help="print every filler name and its place")
    arguments = parser.parse_args()
    fillers, bindings, faults = [], 0, []
    for path in sorted(arguments.folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        where = path.resolve().relative_to(ROOT)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bindings += 1
                if node.id in FILLERS:
                    fillers.append(f"{where}:{node.lineno}: {node.id}")
        for function in functions(tree):
            if lines(function) > LINES:
                faults.append(
                    f"{where}:{function.lineno}: {function.name}: {lines(function)} lines"
                )
            if parameters(function) > PARAMETERS:
                count = parameters(function)
                faults.append(f"{where}:{function.lineno}: {function.name}: {count} parameters")
        for number, line in enumerate(source.splitlines(), start=1):
            matches = [re.search(phrase, line, re.IGNORECASE) for phrase in PHRASES]
            faults += [f"{where}:{number}: {match.group(0)!r}" for match in matches if match]
    if arguments.list:
        print(*fillers, sep="\n")
    share = len(fillers) / max(bindings, 1)
    print(*faults, sep="\n")
    print(
        f"{len(fillers):,} of {bindings:,} names are fillers ({share:.1%}); {len(faults)} faults."
    )
    return int(bool(faults) or share > SHARE)


if __name__ == "__main__":
    sys.exit(main())
