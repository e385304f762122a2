"""Published methods as settings of `train`: one YAML file each, with its source.

A file holds `about` (a line), `source`, `notes` (what is unverified, or differs from the paper) and
`settings`, whose keys are the fields of `retrodistill.base.config.TrainSettings`; with `views:
true`, the method is one whose teacher reads other texts than the student.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodistill.base.config.reading import read_yaml
from retrodistill.base.errors import ConfigError, did_you_mean

FOLDER = Path(__file__).parent
VIEWS = "--teacher-view or --student-view"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A published method: what it is, where it was published, and its settings."""

    name: str
    about: str
    source: str
    settings: Mapping[str, Any]
    notes: str = ""

    views: bool = False
    """Whether the teacher reads other texts than the student: without, it is another method."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs beside what its settings ask for."""
        return (VIEWS,) if self.views else ()


def recipe_names() -> list[str]:
    """Return the names of all recipes, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises:
        ConfigError: the name is unknown; the message names the nearest.

    """
    names = recipe_names()
    if name not in names:
        hint = did_you_mean(name, names) or f" Known: {', '.join(names)}."
        raise ConfigError(f"unknown recipe {name!r}.{hint}")
    return Recipe(name=name, **read_yaml(FOLDER / f"{name}.yaml", f"recipe {name}"))
