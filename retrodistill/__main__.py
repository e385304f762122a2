"""List the commands, or run one: `retrodistill VERB` is `python -m retrodistill.VERB`."""

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from retrodistill.base.errors import did_you_mean

VERBS = (
    "quickstart",
    "mine",
    "audit",
    "leakage",
    "score",
    "train",
    "embed",
    "search",
    "fuse",
    "evaluate",
    "report",
    "benchmark",
    "reproduce",
    "convert",
    "doctor",
)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status (0 done, 2 a mistake of the user)."""
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    verb, *rest = words
    if verb == "--version":
        from retrodistill import __version__

        print(__version__)
        return 0
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS)
        print(f"retrodistill: no verb {verb!r}.{hint} It has: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    status: int = import_module(f"retrodistill.{verb}").main(rest)
    return status


def overview() -> str:
    """Return a line for each verb: its name, and the first line of its module's docstring."""
    folder = Path(__file__).parent
    lines = ["Usage: retrodistill VERB [flags], or python -m retrodistill.VERB [flags]", ""]
    for verb in VERBS:
        source = (folder / f"{verb}.py").read_text(encoding="utf-8")
        about = ast.get_docstring(ast.parse(source)) or ""
        lines.append(f"  {verb:<12}{about.partition(chr(10))[0]}")
    return "\n".join([*lines, "", "retrodistill VERB --help lists the flags of a verb."])


if __name__ == "__main__":
    sys.exit(main())
