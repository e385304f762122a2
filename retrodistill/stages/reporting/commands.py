"""The command lines that made an artifact, from the settings in its manifest."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from retrodistill.base.config import (
    EmbedConfig,
    FuseConfig,
    MineConfig,
    ScoreConfig,
    SearchConfig,
    TrainConfig,
    as_dict,
)

VERBS: Mapping[str, type] = {
    "mine": MineConfig,
    "score": ScoreConfig,
    "train": TrainConfig,
    "embed": EmbedConfig,
    "search": SearchConfig,
    "fuse": FuseConfig,
}
KINDS: Mapping[str, tuple[str, ...]] = {
    "run": ("search", "mine", "fuse"),
    "scores": ("score", "fuse"),
    "student": ("train",),
    "index": ("embed",),
}
"""Kind of artifact -> the verbs that may have made it."""

UNSAID = frozenset({"overwrite", "resume", "recipe"})
"""Settings that do not shape what comes out; a recipe's have been read into the others."""


def command_of(manifest: Mapping[str, Any]) -> str | None:
    """Return the command that made an artifact; None where its settings are of no command."""
    verb = verb_of(manifest["kind"], manifest["config"])
    return None if verb is None else command_line(verb, VERBS[verb], manifest["config"])


def verb_of(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return the verb that made an artifact of a kind; None where its settings are of no verb."""
    for verb in KINDS.get(kind, ()):
        fields = {f.name.rstrip("_"): f for f in dataclasses.fields(VERBS[verb])}
        required = {name for name, item in fields.items() if _default(item) is dataclasses.MISSING}
        if config and required <= config.keys() <= fields.keys():
            return verb
    return None


def command_line(verb: str, config_class: type, config: Mapping[str, Any]) -> str:
    """Return a verb's command with all settings that are not the defaults."""
    words = ["python", "-m", f"retrodistill.{verb}"]
    fields = dataclasses.fields(config_class)
    for item in sorted(fields, key=lambda item: _default(item) is not dataclasses.MISSING):
        name = item.name.rstrip("_")
        value, default = config.get(name, _default(item)), _default(item)
        default = list(default) if isinstance(default, tuple) else default
        value = list(value) if isinstance(value, tuple) else value
        if name in UNSAID or value is None or value in (default, str(default)):
            continue
        flag = "--" + name.replace("_", "-")
        if item.metadata.get("positional"):
            words += value
        elif isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            for part in value if isinstance(value, list) else [value]:
                words += [flag, str(part)]
    return shlex.join(words)


def command_of_settings(verb: str, config: object) -> str:
    """Return the command of these settings."""
    return command_line(verb, type(config), as_dict(config))


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default
