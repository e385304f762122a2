"""Exporting: from a student to a folder with an ONNX or OpenVINO graph that passed a gate."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import ExportConfig, as_dict
from retrodistill.base.errors import ConfigError
from retrodistill.base.files import new_folder
from retrodistill.base.logging import log
from retrodistill.base.manifest import FILE, Manifest, digest_file, digest_files, model_files
from retrodistill.data.store.lineage import model_lineage
from retrodistill.stages.exporting import gate, graphs
from retrodistill.stages.exporting.card import write_section
from retrodistill.stages.exporting.layout import (
    SETTINGS,
    differences,
    read_layout,
    write_portable,
)
from retrodistill.stages.exporting.pushing import push
from retrodistill.stages.exporting.requirements import refuse_kind

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection
    from retrodistill.stages.exporting.gate import Measured

KIND = "export"
"""Of the manifest of an exported folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What an export came to."""

    measured: "Measured"
    """With `failures`, where the folder was not written."""

    differences: Sequence[str]
    """What text-embeddings-inference would refuse, or compute differently."""

    url: str = ""
    """Address of the pushed commit, if it was pushed."""


class _GateFailedError(Exception):
    """Ends the writing of a folder whose graph does not meet a limit."""


def export_model(collection: "Collection", config: ExportConfig) -> Exported:
    """Export a model to `config.out`, if its graph passes the gate; else nothing is written.

    A folder that lies there gets deployed, so one that failed is not left; to have it all the same,
    loosen the limit, which the card then names.

    Raises:
        ConfigError: the model cannot be exported, the collection lacks the split, or `out` exists.
        DataError: the split has no judgements, or the graph gives NaN.

    """
    gate.check_split(collection, config.split)
    reference, copy = (_load(config.model) for _ in range(2))
    result: Exported | None = None
    try:
        with new_folder(config.out, overwrite=config.overwrite) as folder:
            _save(copy, config.model, folder)
            write_portable(folder, copy.max_seq_length)
            _write_graph(collection, config, copy, folder)
            result = _measure(
                collection, config, {gate.TORCH: reference, gate.EXPORTED: copy}, folder
            )
            if result.measured.failures:
                raise _GateFailedError
            _finish(collection, config, reference, folder, result)
    except _GateFailedError:
        assert result is not None
        return result
    url = push(config.out, config.push, private=config.private) if config.push else ""
    return Exported(measured=result.measured, differences=result.differences, url=url)


def _load(model: str) -> Any:
    """Return a bi-encoder or a cross-encoder on the CPU, with float32 weights."""
    import torch

    from retrodistill.models.inference import model_path, saved_settings
    from retrodistill.models.students.cross_encoder import load_cross_encoder
    from retrodistill.models.students.dense import load_bi_encoder
    from retrodistill.models.students.kinds import kind_of

    path = model_path(model)
    kind = kind_of(path)
    modules = saved_settings(path, "modules.json") or []
    refuse_kind(model, kind.saved_as[0], [module["type"] for module in modules])
    if kind.name not in ("bi-encoder", "cross-encoder"):
        raise ConfigError(f"--model {model} is a {kind.noun}, which cannot be exported.")
    load = load_cross_encoder if kind.name == "cross-encoder" else load_bi_encoder
    loaded: Any = load(path, torch.device("cpu"))
    return loaded.eval()


def _save(model: Any, name: str, folder: Path) -> None:
    """Write a model in sentence-transformers' format, with the card of its folder.

    A cross-encoder keeps the activation that it was saved with: it was loaded without any.
    """
    from sentence_transformers import CrossEncoder

    from retrodistill.models.inference import model_path, saved_settings, without_bars
    from retrodistill.stages.training.card import CARD

    with without_bars():
        model.save(str(folder), create_model_card=False, safe_serialization=True)
    if isinstance(model, CrossEncoder):
        default = type(model.get_default_activation_fn())
        saved = saved_settings(model_path(name), SETTINGS)
        activation = saved.get("activation_fn") or f"{default.__module__}.{default.__qualname__}"
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings |= {"activation_fn": activation}
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    card = Path(model_path(name)) / CARD
    if card.is_file():
        shutil.copyfile(card, folder / CARD)


def _write_graph(collection: "Collection", config: ExportConfig, model: Any, folder: Path) -> None:
    """Write the graph into a model's folder, and let the model run on it."""
    from retrodistill.stages.exporting.runtimes import put_graph

    path = folder / graphs.FILES[config.format]
    path.parent.mkdir()
    direct = config.format == "onnx" and config.precision == "float32"
    calibration = (
        _calibration(collection, config, model) if config.precision == "int8-static" else ()
    )
    with TemporaryDirectory(dir=folder) as scratch:
        source = path if direct else Path(scratch) / "float32.onnx"
        graphs.write_onnx(model, source)
        if config.format == "openvino":
            graphs.write_openvino(source, path, calibration=calibration)
            graphs.write_hints(folder / graphs.HINTS, config.precision)
        elif config.precision == "int8":
            graphs.quantise_onnx(source, path, reduce_range=not graphs.has_vnni())
    put_graph(model, folder, config.format)


def _calibration(collection: "Collection", config: ExportConfig, model: Any) -> list[graphs.Inputs]:
    """Return the inputs of documents, or of pairs of them, drawn at random from the collection."""
    import numpy as np
    import torch
    from sentence_transformers import CrossEncoder

    from retrodistill.models.inference import padded, tokenize
    from retrodistill.models.students.towers import side_prompts

    rng = np.random.default_rng(config.seed)
    rows = rng.permutation(len(collection.docs))[: config.calibration]
    texts = collection.docs.full_texts(rows)
    if isinstance(model, CrossEncoder):  # the start of a document stands for a query
        firsts, seconds = [" ".join(text.split()[:8]) for text in texts], texts
    else:
        firsts, seconds = [side_prompts(model)[1] + text for text in texts], None
    limit = model.max_seq_length or 512
    tokens = tokenize(model.tokenizer, firsts, seconds, max_tokens=limit)
    names = graphs.graph_inputs(model)
    cpu = torch.device("cpu")
    batches = [padded(model.tokenizer, [row], cpu) for row in tokens]
    return [{name: batch[name].numpy() for name in names} for batch in batches]


def _measure(
    collection: "Collection", config: ExportConfig, models: dict[str, Any], folder: Path
) -> Exported:
    """Measure the graph, drop the weights if they are not wanted, and check the layout."""
    measured = gate.measure(collection, config, models, folder)
    if not config.weights:
        for path in folder.glob("*.safetensors"):  # those of the modules behind it stay
            path.unlink()
    return Exported(measured=measured, differences=differences(read_layout(folder)))


def _finish(
    collection: "Collection", config: ExportConfig, model: Any, folder: Path, result: Exported
) -> None:
    """Write the card, the lineage and the manifest."""
    from sentence_transformers import CrossEncoder

    library_class = "CrossEncoder" if isinstance(model, CrossEncoder) else "SentenceTransformer"
    write_section(
        folder,
        config.out.name,
        config,
        result.measured,
        notes=[
            *_notes(config),
            *(f"text-embeddings-inference: {text}" for text in result.differences),
        ],
        library_class=library_class,
    )
    details: dict[str, Any] = asdict(result.measured) | {"differences": [*result.differences]}
    details |= model_lineage(config.model).write(folder)
    weights = folder / graphs.FILES[config.format]
    parts = [path for path in sorted(weights.parent.iterdir()) if path.is_file()]
    Manifest(
        kind=KIND,
        fingerprint=digest_files(folder / weights.parent.name),
        inputs={"collection": collection.fingerprint, "model": _fingerprint(config.model, folder)},
        config=as_dict(config),
        details=details,
        files=model_files(folder)
        | {path.relative_to(folder).as_posix(): digest_file(path) for path in parts},
    ).write(folder)
    log.info(f"exported: {config.out}")


def _notes(config: ExportConfig) -> list[str]:
    """Return what a user of the graph must know of its numbers."""
    if config.precision == "int8" and graphs.has_vnni():
        return [
            "The int8 weights use their full range, for processors with VNNI (or ARM). On others, "
            "sums saturate and vectors are wrong: export there again."
        ]
    if config.format == "openvino":
        return [
            "Without ov_config.json, OpenVINO computes in bfloat16 on processors that have it, "
            "whatever the graph says: other numbers than those measured."
        ]
    return []


def _fingerprint(model: str, folder: Path) -> str:
    """Return the fingerprint of the model's weights: its manifest's, or that of its files."""
    path = Path(model).expanduser()
    if (path / FILE).is_file():
        return Manifest.read(path).fingerprint
    return digest_files(path if path.is_dir() else folder, "*.safetensors")
