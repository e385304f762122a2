"""The verbs that write artifacts, and the command line of an artifact's settings."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from retrodistill.base.config import (
    ConvertConfig,
    EmbedConfig,
    ExportConfig,
    FuseConfig,
    GenerateConfig,
    JudgeConfig,
    MineConfig,
    ScoreConfig,
    SearchConfig,
    TrainConfig,
    as_dict,
)


@dataclasses.dataclass(frozen=True, slots=True)
class ArtifactVerb:
    """A verb whose settings can be read back from the manifest of the artifact that it wrote."""

    config: type
    kinds: tuple[str, ...]
    """Of the artifacts that it can write."""

    reads: tuple[str, ...]
    """Settings that name artifacts, models and files; the collection is not among them."""


VERBS: Mapping[str, ArtifactVerb] = {
    "generate": ArtifactVerb(
        GenerateConfig, ("queries", "texts"), ("writer", "retriever", "ranker", "teacher")
    ),
    "mine": ArtifactVerb(MineConfig, ("run",), ("retriever",)),
    "score": ArtifactVerb(ScoreConfig, ("scores",), ("candidates", "teacher")),
    "convert": ArtifactVerb(ConvertConfig, ("scores",), ("import",)),
    "train": ArtifactVerb(
        TrainConfig,
        ("student",),
        ("scores", "preferences", "student", "doc_student", "vectors", "teacher", "joint_teacher"),
    ),
    "embed": ArtifactVerb(EmbedConfig, ("index",), ("model", "attributes", "workload")),
    "search": ArtifactVerb(SearchConfig, ("run",), ("index", "query_model")),
    "fuse": ArtifactVerb(FuseConfig, ("run", "scores"), ("run", "tune", "qrels")),
    "export": ArtifactVerb(ExportConfig, ("export",), ("model",)),
    "judge": ArtifactVerb(JudgeConfig, ("judgements",), ("run", "judge", "rubric")),
}

IMMATERIAL = frozenset({"overwrite", "resume", "recipe", "stage"})
"""Settings that do not shape the artifact; a stage of a recipe is read into the others."""


def command_of(manifest: Mapping[str, Any]) -> str | None:
    """Return the command that made an artifact; None where its settings are of no command."""
    verb = verb_of(manifest["kind"], manifest["config"])
    return None if verb is None else command_line(verb, VERBS[verb].config, manifest["config"])


def verb_of(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return the verb that made an artifact of a kind; None where its settings are of no verb."""
    for name in verbs_writing(kind):
        fields = {item.name.rstrip("_"): item for item in dataclasses.fields(VERBS[name].config)}
        required = {
            setting for setting, item in fields.items() if _default(item) is dataclasses.MISSING
        }
        if config and required <= config.keys() <= fields.keys():
            return name
    return None


def verbs_writing(kind: str) -> list[str]:
    """Return the verbs that write artifacts of a kind."""
    return [name for name, verb in VERBS.items() if kind in verb.kinds]


def command_line(verb: str, config_class: type, config: Mapping[str, Any]) -> str:
    """Return a verb's command with all settings that are not the defaults."""
    words = ["python", "-m", f"retrodistill.{verb}"]
    fields = dataclasses.fields(config_class)
    for item in sorted(fields, key=lambda item: _default(item) is not dataclasses.MISSING):
        name = item.name.rstrip("_")
        value, default = config.get(name, _default(item)), _default(item)
        default = list(default) if isinstance(default, tuple) else default
        value = list(value) if isinstance(value, tuple) else value
        if name in IMMATERIAL or value is None or value in (default, str(default)):
            continue
        flag = "--" + name.replace("_", "-")
        if item.metadata.get("positional"):
            words += value
        elif isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            for element in value if isinstance(value, list) else [value]:
                words += [flag, str(element)]
    return shlex.join(words)


def command_of_settings(verb: str, config: object) -> str:
    """Return the command of these settings."""
    return command_line(verb, type(config), as_dict(config))


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default
