"""List the commands, or run one: `retrodistill VERB` is `python -m retrodistill.VERB`."""

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from retrodistill.base.command import reader_gone
from retrodistill.base.errors import RetrodistillError, did_you_mean

VERBS = (
    "quickstart",
    "distil",
    "generate",
    "mine",
    "audit",
    "leakage",
    "score",
    "train",
    "rounds",
    "embed",
    "search",
    "serve",
    "fuse",
    "judge",
    "evaluate",
    "report",
    "benchmark",
    "reproduce",
    "convert",
    "export",
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
    if verb == "--completion":
        return completion(rest)
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS)
        print(f"retrodistill: no verb {verb!r}.{hint} It has: {', '.join(VERBS)}.", file=sys.stderr)
        return 2
    status: int = import_module(f"retrodistill.{verb}").main(rest)
    return status


def completion(words: Sequence[str]) -> int:
    """Print the completion script of a shell."""
    from retrodistill.base import config
    from retrodistill.base.completion import SHELLS, completion_script

    if len(words) != 1:
        print(f"retrodistill: give one of --completion {'|'.join(SHELLS)}.", file=sys.stderr)
        return 2
    verbs = {verb: (getattr(config, f"{verb.capitalize()}Config"), about(verb)) for verb in VERBS}
    try:
        print(completion_script(words[0], verbs))
    except RetrodistillError as error:
        print(f"retrodistill: {error}", file=sys.stderr)
        return 2
    return 0


def overview() -> str:
    """Return a line for each verb: its name, and the first line of its module's docstring."""
    lines = ["Usage: retrodistill VERB [flags], or python -m retrodistill.VERB [flags]", ""]
    lines += [f"  {verb:<12}{about(verb)}" for verb in VERBS]
    lines += ["", "retrodistill VERB --help lists the flags of a verb."]
    lines += ["retrodistill --completion bash|zsh|fish prints a completion script."]
    return "\n".join(lines)


def about(verb: str) -> str:
    """Return the first line of a verb's docstring, without importing the verb."""
    source = (Path(__file__).parent / f"{verb}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        status = reader_gone()
    sys.exit(status)
