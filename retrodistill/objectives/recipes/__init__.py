"""Published methods as settings of `train`: one YAML file each, with its source.

A file holds `about` (a line), `source`, `notes` (what is unverified, or differs from the paper) and
`settings`, whose keys are the fields of `retrodistill.base.config.TrainSettings`. A method of
several trainings has `stages`, a list in order: each has a `name`, `about`, and `settings` over
those of the recipe; for `rounds`, also whether to `mine` before it, and which `teacher` scores.
With `views: true`, the recipe's teacher reads other texts than the student.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrodistill.base.config.reading import read_yaml, settings_of
from retrodistill.base.errors import ConfigError, did_you_mean

FOLDER = Path(__file__).parent
VIEWS = "--teacher-view or --student-view"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One training of a method."""

    name: str
    """Unique in its recipe; empty where the method is one training."""

    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings of the training, those that the stages share included."""

    mine: bool = False
    """Whether `rounds` mines candidates with the student before this stage. It always does before
    the first of a round."""

    teacher: str | None = None
    """Label of the teacher whose scores `rounds` gives to this stage; None for the only one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A published method: what it is, where it was published, and its trainings in order."""

    name: str
    about: str
    source: str
    notes: str = ""
    stages: Sequence[Stage]
    """At least one."""

    views: bool = False
    """Whether the teacher reads other texts than the student: without, it is another method."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What it needs beside what its settings ask for."""
        return (VIEWS,) if self.views else ()

    @property
    def staged(self) -> bool:
        """Tell whether the method is several trainings, each with a name."""
        return bool(self.stages[0].name)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the settings of a method of one training.

        Raises:
            ConfigError: it has stages, each with settings of its own.

        """
        return self.stage(None).settings

    def stage(self, name: str | None) -> Stage:
        """Return a stage by its name; None is the only training of a method without stages.

        Raises:
            ConfigError: there is no such stage, or it has to be named; the message names them.

        """
        names = [stage.name for stage in self.stages]
        known = f"stages, in order: {', '.join(names)}"
        if name is None and self.staged:
            raise ConfigError(f"recipe {self.name!r} has {known}. Name one with --stage.")
        if name is not None and not self.staged:
            raise ConfigError(f"recipe {self.name!r} has no stages: omit --stage {name}.")
        if name is not None and name not in names:
            hint = did_you_mean(name, names)
            raise ConfigError(f"unknown stage {name!r}.{hint} Recipe {self.name!r} has {known}.")
        return self.stages[names.index(name or "")]


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
    content = read_yaml(FOLDER / f"{name}.yaml", f"recipe {name}")
    shared = content.pop("settings", {})
    parts = content.pop("stages", [{"name": "", "about": content["about"]}])
    stages = [
        settings_of(Stage, {**part, "settings": {**shared, **part.get("settings", {})}}, name)
        for part in parts
    ]
    return Recipe(name=name, stages=stages, **content)
