"""The page of all losses, made from their docstrings."""

import inspect
import re
import sys

import retrodistill.objectives.losses
from retrodistill.base.registry import LOSSES
from retrodistill.objectives.objective import SIGNALS, LossTerm, inputs_of


def methods_page() -> str:
    """Return what every registered loss computes, needs and takes, as Markdown."""
    groups: dict[str, list[LossTerm]] = {}
    for name in LOSSES:
        term = LossTerm(name=name)
        groups.setdefault(term.function.__module__, []).append(term)
    contents, sections = [], []
    for module, terms in groups.items():
        title = _paragraphs(sys.modules[module].__doc__)[0].rstrip(".")
        links = ", ".join(f"[{term.name}](#{term.name})" for term in terms)
        contents.append(f"- {title}: {links}")
        sections.append(f"## {title}")
        for position, term in enumerate(terms):
            same = [other.name for other in terms[:position] if other.function is term.function]
            sections.append(_entry(term, same[0] if same else None))
    about = [_escaped(part) for part in _paragraphs(retrodistill.objectives.losses.__doc__)]
    return "\n\n".join(["# Losses", *about, "\n".join(contents), *sections]) + "\n"


def _entry(term: LossTerm, same: str | None) -> str:
    if same is not None:
        return f"### {term.name}\n\nAnother name of [{same}](#{same})."
    parameters = inspect.signature(term.function).parameters.values()
    settings = [f"`{p.name}={p.default}`" for p in parameters if p.kind is p.KEYWORD_ONLY]
    signals = [
        f"`{name}` ({SIGNALS[name].replace(' ', ', ') or 'a number'})" for name in term.signals
    ]
    facts = {
        "Function": [f"`{term.function.__module__}.{term.function.__name__}`"],
        "Needs": signals,
        "Settings": settings,
        "To give": [f"`{given}`" if "-" in given else given for given in inputs_of([term])],
    }
    lines = [f"- {label}: {', '.join(words)}" for label, words in facts.items() if words]
    text = [_rendered(part) for part in _paragraphs(term.function.__doc__)]
    return "\n\n".join([f"### {term.name}", *text, "\n".join(lines)])


def _paragraphs(doc: str | None) -> list[str]:
    return inspect.cleandoc(doc or "").split("\n\n")


def _rendered(paragraph: str) -> str:
    """Return a paragraph of a docstring as Markdown; indented formulas are code there too."""
    if paragraph.startswith("    "):
        return paragraph
    head, *errors = re.split(r"\n    (?=\w+: )", paragraph)
    items = [re.sub(r"^(\w+):\s", r"- `\1`: ", re.sub(r"\n\s+", "\n  ", each)) for each in errors]
    return "\n".join([_escaped(head), *map(_escaped, items)])


def _escaped(text: str) -> str:
    """Return prose with what Markdown would read as emphasis or a tag escaped, outside of code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"(?<!\\)([*<])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
