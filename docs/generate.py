"""Pages that are made from the code: flags, losses, recipes, parts, and the Python reference.

python docs/generate.py      # writes docs/generated/, which is not committed; `make docs` runs it
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import retrodistill
from retrodistill.__main__ import VERBS, about
from retrodistill.base import config as configs
from retrodistill.base import registry
from retrodistill.base.command import GENERAL, groups, help_texts, metavar
from retrodistill.base.config.reading import plain, required
from retrodistill.objectives.objective import needs_of
from retrodistill.objectives.recipes import load_recipe, recipe_names

HERE = Path(__file__).parent
OUT = HERE / "generated"

TABLES = (
    "COLLECTIONS",
    "READERS",
    "WRITERS",
    "RETRIEVERS",
    "TEACHERS",
    "STUDENT_KINDS",
    "SIGNAL_SOURCES",
    "LOSSES",
    "FORMATS",
    "INDEXES",
)
"""Registries whose parts are listed."""


def flags_page() -> str:
    """Return every verb with its flags, group by group."""
    lines = ["# Command line", ""]
    lines += ["Every verb also has these flags:", ""]
    lines += ["`--config FILE.yaml`", ": Settings to start from; flags override them.", ""]
    for flag, text in GENERAL.items():
        lines += [f"`{flag}`", f": {text}", ""]
    for verb in VERBS:
        config_class = getattr(configs, f"{verb.capitalize()}Config")
        lines += [f"## {verb}", "", about(verb), ""]
        fields = {item.name: item for item in dataclasses.fields(config_class)}
        texts, hints = help_texts(config_class), get_type_hints(config_class)
        for title, names in groups(config_class).items():
            lines += [f"*{title}*", ""]
            for name in names:
                lines += [_flag(fields[name], hints[name]), f": {texts[name]}", ""]
    return "\n".join(lines)


def _flag(item: "dataclasses.Field[object]", declared: object) -> str:
    """Return a flag as it is typed, with its choices and its default."""
    hint, many = plain(declared)
    name = item.name.rstrip("_").replace("_", "-")
    if item.metadata.get("positional"):
        return f"`{name.upper()}`"
    if hint is bool:
        text = f"`--{name}`"
    elif get_origin(hint) is Literal:
        text = f"`--{name} {'|'.join(map(str, get_args(hint)))}`"
    else:
        text = f"`--{name} {metavar(item.name, declared)}`"
    if many and hint is not int:
        text += " (repeatable)"
    if not required(item) and item.default not in (None, (), False):
        text += f" [default: `{item.default}`]"
    return text


def recipes_page() -> str:
    """Return every recipe: what it is, its source, what it needs, its settings and its notes."""
    lines = ["# Recipes", "", "Published methods as settings of `train --recipe NAME`.", ""]
    for name in recipe_names():
        recipe = load_recipe(name)
        lines += [f"## {name}", "", f"{recipe.about}.", "", f"- Source: {recipe.source}"]
        for stage in recipe.stages:
            inputs = needs_of(configs.TrainSettings(**stage.settings))
            needs = ", ".join([*inputs, *recipe.needs]) or "nothing"
            settings = ", ".join(f"`{key}: {value}`" for key, value in stage.settings.items())
            if recipe.staged:
                about = f"Stage `{stage.name}`: {stage.about}."
                lines += [f"- {about} Needs: {needs}. Settings: {settings}"]
            else:
                lines += [f"- Needs: {needs}", f"- Settings: {settings}"]
        lines += [f"- Notes: {' '.join(recipe.notes.split())}"] if recipe.notes else []
        lines += [""]
    return "\n".join(lines)


def parts_page() -> str:
    """Return the tables of interchangeable parts: name, and where its code lives."""
    lines = ["# Tables of parts", ""]
    lines += ["Wherever a name is taken, `module:attribute` names a part of your own.", ""]
    for table in TABLES:
        parts: registry.Registry = getattr(registry, table)
        lines += [f"## {table.lower().replace('_', ' ')}", "", "| name | code |", "|---|---|"]
        lines += [f"| `{name or '(no suffix)'}` | `{parts.path(name)}` |" for name in parts]
        lines += [""]
    return "\n".join(lines)


def python_page() -> str:
    """Return the reference of the public names, for autodoc."""
    lines = ["# Python", "", "The public names of `import retrodistill as rd`.", ""]
    lines += ["```{eval-rst}", ".. currentmodule:: retrodistill", ""]
    for name in sorted(set(retrodistill.__all__) - {"__version__"}):
        value = getattr(retrodistill, name)
        kind = "autoclass" if isinstance(value, type) else "autofunction"
        lines += [f".. {kind}:: {name}"]
        lines += ["   :members:"] if kind == "autoclass" else []
        lines += [""]
    return "\n".join([*lines, "```", ""])


def write_pages(out: Path = OUT) -> None:
    """Write all generated pages."""
    sys.path.insert(0, str(HERE))
    from losses import methods_page

    out.mkdir(parents=True, exist_ok=True)
    pages = {
        "cli": flags_page(),
        "losses": methods_page(),
        "recipes": recipes_page(),
        "parts": parts_page(),
        "python": python_page(),
    }
    for name, text in pages.items():
        (out / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_pages()
