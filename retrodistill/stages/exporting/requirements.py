"""What can be exported, and what must be installed for it: found out before any work."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retrodistill.base.config import ExportConfig
from retrodistill.base.errors import ConfigError, MissingExtra

PACKAGES = {
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "int8-static": ("nncf",),
}
"""Format or precision -> the packages that write and run it."""

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

REFUSED = {
    "SparseEncoder": "a sparse encoder: its vocabulary head and its weights are not in a graph",
    "MultiVectorEncoder": "a late-interaction model, which no ONNX loader reads",
    "ColBERT": "a late-interaction model, which no ONNX loader reads",
}
"""`model_type` of a saved model -> what it is, where it cannot be exported."""


def check_export(config: ExportConfig) -> None:
    """Raise unless these settings can be carried out, as far as it shows without loading the model.

    Raises:
        ConfigError: the model's folder holds a kind that is not exported, or --push is malformed.
        MissingExtra: a package is not installed.

    """
    if config.push is not None and not REPOSITORY.fullmatch(config.push):
        raise ConfigError(
            f"--push must name a repository as in ORGANISATION/NAME, but it is {config.push!r}."
        )
    folder = Path(config.model).expanduser()
    if folder.is_dir():
        modules = _json(folder / "modules.json") or []
        settings = _json(folder / "config_sentence_transformers.json") or {}
        refuse_kind(config.model, settings.get("model_type", ""), [m["type"] for m in modules])
    for package in (*PACKAGES[config.format], *PACKAGES.get(config.precision, ())):
        if find_spec(package) is None:
            raise MissingExtra(
                f"--format {config.format} --precision {config.precision} needs the package "
                f"{package}: pip install 'retrodistill[export]'."
            )


def refuse_kind(model: str, model_type: str, module_types: list[str]) -> None:
    """Raise ConfigError for a kind of model that is not exported.

    `model_type` is that of config_sentence_transformers.json, `module_types` those of modules.json.
    """
    reason = REFUSED.get(model_type)
    if any(name.rpartition(".")[2] in ("Router", "Asym") for name in module_types):
        reason = "a model of two towers, but a folder has one graph: export each tower's own folder"
    if reason is not None:
        raise ConfigError(
            f"--model {model} is {reason}. `export` writes bi-encoders of one tower and "
            "cross-encoders."
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
