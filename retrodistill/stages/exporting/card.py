"""The section of a model card on an export: how to load it, and what was measured."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from retrodistill.base.config import ExportConfig
from retrodistill.base.files import write_atomically
from retrodistill.stages.exporting.gate import COLUMNS, Measured
from retrodistill.stages.exporting.graphs import FILES, HINTS
from retrodistill.stages.reporting.tables import markdown_table
from retrodistill.stages.training.card import CARD, shown

TITLE = "## Exported graph"


def write_section(
    folder: Path,
    name: str,
    config: ExportConfig,
    measured: Measured,
    *,
    notes: Sequence[str],
    library_class: str,
) -> None:
    """Put the section into the README of a folder, in place of an older one."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {name}\n"
    older = re.compile(rf"^{re.escape(TITLE)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    section = export_section(name, config, measured, notes=notes, library_class=library_class)
    text = older.sub("", text).rstrip() + f"\n\n{section}"
    write_atomically(path, text.encode(errors="replace"))


def export_section(
    name: str,
    config: ExportConfig,
    measured: Measured,
    *,
    notes: Sequence[str],
    library_class: str,
) -> str:
    """Return the section: the graph, a call that loads it, the table, and what to know.

    `notes` are sentences on other loaders; `library_class` is that of sentence-transformers.
    """
    options = [json.dumps(name, ensure_ascii=False), f'backend="{config.format}"']
    if config.format == "openvino":
        options.append(f'model_kwargs={{"ov_config": {json.dumps(f"{name}/{HINTS}")}}}')
    code = "\n".join(
        (
            f"from sentence_transformers import {library_class}",
            f"model = {library_class}({', '.join(options)})",
        )
    )
    about = (
        f"`{FILES[config.format]}` in {config.precision}, measured beside the float32 model in "
        f"PyTorch on {measured.queries:,} queries of the split `{config.split}` of "
        f"`{shown(config.data)}` and {measured.texts:,} {measured.noun}, in turns on the same "
        "machine:"
    )
    parts = [
        TITLE,
        f"```python\n{code}\n```",
        about,
        markdown_table(COLUMNS, measured.rows()),
    ]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"
