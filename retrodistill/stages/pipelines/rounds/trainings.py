"""The trainings of a round: the stages of a recipe with their settings and their teachers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from retrodistill.base.calls import split_label
from retrodistill.base.config import RoundsConfig, TrainSettings
from retrodistill.base.config.reading import as_declared, by_field
from retrodistill.base.errors import ConfigError, did_you_mean
from retrodistill.objectives.objective import needs_of
from retrodistill.objectives.recipes import Recipe, Stage, load_recipe

PREVIOUS = "--teacher previous=TEACHER"
"""What an objective needs that looks back to the student before its training."""

GIVEN = ("labels", "--scores", "--preferences", PREVIOUS)
"""What a round can give to a training."""

SHAPING = ("keep_layers", "width", "prune_vocabulary", "doc_student", "doc_keep_layers")
"""Settings that cut or join a model: for --student, not for what was trained from it."""

SAVE_STEPS = 100
"""Steps between checkpoints, where the settings say nothing: a killed training resumes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One training of a round."""

    stage: str
    """Name in the recipe; empty where it has no stages."""

    settings: TrainSettings
    mines: bool
    """Whether the student retrieves candidates before it."""

    teacher: str | None
    """What scores them, without its label; None where nothing does."""

    options: tuple[str, ...]
    """Settings of the teacher."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return what it needs to be given."""
        return needs_of(self.settings)

    @property
    def shaping(self) -> bool:
        """Return whether it cuts or joins the model that it starts from."""
        defaults = TrainSettings()
        return any(getattr(self.settings, name) != getattr(defaults, name) for name in SHAPING)

    def unshaped(self) -> TrainSettings:
        """Return its settings for a model that has its shape already."""
        defaults = TrainSettings()
        return replace(self.settings, **{name: getattr(defaults, name) for name in SHAPING})


def trainings_of(config: RoundsConfig) -> list[Training]:
    """Return the trainings of a round, in order.

    Raises:
        ConfigError: a stage, a setting or a teacher is unknown or missing, or a stage needs what
            rounds do not give.

    """
    recipe = load_recipe(config.recipe)
    stages = _chosen(recipe, config.stage)
    changes = _changes(config.set_, stages)
    teachers = _teachers(config, stages)
    options = _options(config.option, teachers)
    trainings: list[Training] = []
    for stage in stages:
        settings = {"save_steps": SAVE_STEPS, "precision": config.precision, **stage.settings}
        settings |= changes.get("", {}) | (changes.get(stage.name, {}) if stage.name else {})
        training = Training(
            stage=stage.name,
            settings=TrainSettings(**as_declared(settings, TrainSettings)),
            mines=stage.mine or not trainings,
            teacher=teachers.get(stage.teacher),
            options=options.get(stage.teacher, ()),
        )
        _check(training, config)
        trainings.append(training)
    return trainings


def _chosen(recipe: Recipe, names: Sequence[str]) -> list[Stage]:
    for name in names:
        recipe.stage(name)  # raises if there is no such stage
    return [stage for stage in recipe.stages if not names or stage.name in names]


def _changes(texts: Sequence[str], stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """Return the settings of --set by stage; those of all stages are under an empty name."""
    names = [stage.name for stage in stages if stage.name]
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        stage, dot, setting = name.rpartition(".")
        if not equals or not value:
            raise ConfigError(f"--set {text!r} must read NAME=VALUE, as in max_steps=200.")
        if dot and stage not in names:
            hint = f" There are: {', '.join(names)}." if names else " The recipe has no stages."
            raise ConfigError(
                f"--set {text!r}: unknown stage {stage!r}.{did_you_mean(stage, names) or hint}"
            )
        converted: Any = {"true": True, "false": False}.get(value, value)
        (field, converted), *_ = by_field(
            {setting: converted}, TrainSettings, f"--set {text}"
        ).items()
        if field in ("dev_split", "unlabelled_split"):
            raise ConfigError(
                f"--set {text!r}: a round's queries are those of --split and --queries."
            )
        changes.setdefault(stage, {})[field] = converted
    return changes


def _teachers(config: RoundsConfig, stages: Sequence[Stage]) -> dict[str | None, str]:
    """Return the teachers by label, each of them one that a stage asks for."""
    teachers: dict[str | None, str] = {}
    labels = [stage.teacher for stage in stages if stage.teacher is not None]
    for text in config.teacher:
        label, spec = split_label(text)
        if label in teachers:
            raise ConfigError(
                f"--teacher {text}: a second teacher{f' {label}' if label else ' without a label'}."
            )
        if label is not None and label not in labels:
            listed = ", ".join(labels) or "none"
            raise ConfigError(
                f"--teacher {text}: no stage asks for {label!r}.{did_you_mean(label, labels)} "
                f"Labels that recipe {config.recipe!r} asks for: {listed}."
            )
        teachers[label] = spec
    for stage in stages:
        if stage.teacher is not None and stage.teacher not in teachers:
            raise ConfigError(
                f"stage {stage.name!r} needs --teacher {stage.teacher}=TEACHER. Or train the "
                "others alone: --stage."
            )
    if None in teachers and all(stage.teacher is not None for stage in stages):
        raise ConfigError(
            f"--teacher {teachers[None]}: every stage asks for a teacher by its label, "
            f"{', '.join(labels)}: --teacher LABEL={teachers[None]}."
        )
    return teachers


def _options(
    texts: Sequence[str], teachers: Mapping[str | None, str]
) -> dict[str | None, tuple[str, ...]]:
    """Return the settings of each teacher, by its label."""
    options: dict[str | None, tuple[str, ...]] = {}
    for text in texts:
        name = text.partition("=")[0]
        label, _, _ = name.rpartition(".")
        owner = label or None
        if owner not in teachers:
            raise ConfigError(
                f"--option {text!r}: there is no teacher {label or 'without a label'}."
            )
        options[owner] = (*options.get(owner, ()), text.removeprefix(f"{label}." if label else ""))
    return options


def _check(training: Training, config: RoundsConfig) -> None:
    """Raise ConfigError if a training needs what it is not given."""
    where = f"stage {training.stage!r}" if training.stage else f"recipe {config.recipe!r}"
    for need in training.needs:
        if need not in GIVEN:
            raise ConfigError(
                f"{where} needs {need}, which rounds do not give: they score what the student "
                "retrieves. Train it alone: retrodistill train."
            )
    if "--scores" in training.needs and training.teacher is None:
        raise ConfigError(f"{where} needs scores: give --teacher TEACHER.")
    if "--preferences" in training.needs and config.comparer is None:
        raise ConfigError(f"{where} needs preferences: give --comparer pairwise:MODEL.")


def names_of(settings: TrainSettings) -> dict[str, Any]:
    """Return all settings of a training by name."""
    return {item.name: getattr(settings, item.name) for item in fields(TrainSettings)}
