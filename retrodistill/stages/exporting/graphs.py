"""A transformer's body as a graph: ONNX, or OpenVINO made from that ONNX; float32 or int8.

Its inputs have the names that transformers gives them, and any batch and length. It is traced from
a copy with eager attention: the graph is shorter than that of PyTorch's fused attention and runs
faster in both runtimes, which fuse it again. The TorchScript exporter is used for the same reason.
"""

import contextlib
import inspect
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError

FILES = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
"""Format -> the file that sentence-transformers, optimum and servers look for first, in whatever
precision: what they load is what was measured."""

HINTS = "openvino/ov_config.json"
"""Settings of OpenVINO that the measured numbers belong to."""

OPSET = 17
LARGEST = 2_000_000_000
"""Bytes of float32 weights in one ONNX file; protobuf ends at 2 GiB."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

Inputs = dict[str, NDArray[np.int64]]


def graph_inputs(model: Any) -> list[str]:
    """Return the names of the inputs of a model's body, as its tokenizer gives them."""
    accepted = inspect.signature(model[0].model.forward).parameters
    given = model.tokenizer.model_input_names
    return [name for name in INPUTS if name in accepted and name in given]


def graph_output(model: Any) -> str:
    """Return the name of the output that the modules behind the body read.

    Raises:
        ConfigError: the model is read otherwise than by its last hidden state or its logits.

    """
    settings = model[0].modality_config.get("text", {})
    output = settings.get("method_output_name")
    output = output[0] if isinstance(output, tuple | list) and len(output) == 1 else output
    if settings.get("method") != "forward" or output not in ("last_hidden_state", "logits"):
        raise ConfigError(
            f"a graph gives last_hidden_state or logits, but this model reads {output!r} of its "
            f"body's {settings.get('method', 'forward')}(). It cannot be exported."
        )
    return str(output)


def write_onnx(model: Any, path: Path) -> None:
    """Write the float32 graph of a model's body; the body is left with eager attention.

    Raises:
        ConfigError: it is too large for one file, or cannot be traced.

    """
    import torch

    body = model[0].model
    size = sum(weights.numel() * 4 for weights in body.parameters())
    if size > LARGEST:
        raise ConfigError(
            f"the model's weights take {size:,} bytes in float32, but an ONNX file holds at most "
            f"{LARGEST:,}. Export a smaller student."
        )
    names, output = graph_inputs(model), graph_output(model)
    body.set_attn_implementation("eager")
    axes = {0: "batch", 1: "sequence"}
    outputs_axes = axes if output == "last_hidden_state" else {0: "batch"}
    with _quiet():
        torch.onnx.export(
            _Traced(body, names, output).eval(),
            tuple(_example()[name] for name in names),
            str(path),
            input_names=names,
            output_names=[output],
            dynamic_axes=dict.fromkeys(names, axes) | {output: outputs_axes},
            opset_version=OPSET,
            dynamo=False,
        )


def quantise_onnx(source: Path, path: Path, *, reduce_range: bool) -> None:
    """Write a graph of int8 weights, a scale a column; activations become uint8 as it runs.

    With `reduce_range` weights have 7 bits, so that sums of products do not saturate on processors
    without VNNI.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _quiet(), TemporaryDirectory(dir=path.parent) as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(
            str(prepared),
            str(path),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
            extra_options={"MatMulConstBOnly": True},
        )


def write_openvino(source: Path, path: Path, *, calibration: Sequence[Inputs] = ()) -> None:
    """Write an ONNX graph as OpenVINO's, in float32, or in int8 after a calibration.

    With `calibration`, weights and activations are int8 with fixed scales, which these inputs set.
    """
    import openvino

    with _quiet():
        graph = openvino.Core().read_model(str(source))  # convert_model would report its use
        if calibration:
            nncf = _import_nncf()
            graph = nncf.quantize(
                graph,
                nncf.Dataset(list(calibration)),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(calibration),
            )
        openvino.save_model(graph, str(path), compress_to_fp16=False)


def write_hints(path: Path, precision: str) -> None:
    """Write the settings with which OpenVINO must load the graph to compute as measured.

    Without them it computes in bfloat16 on processors that have it, whatever the graph says.
    """
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
    path.write_text(json.dumps(hints, indent=2) + "\n", encoding="utf-8")


def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether int8 products of this processor do not saturate: VNNI, or not x86 at all."""
    if os.uname().machine not in ("x86_64", "i686", "AMD64"):
        return True
    try:
        flags = cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni"))


def _example() -> Any:
    """Return inputs to trace with: two texts, a padded one and one with two segments."""
    import torch

    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    types = torch.zeros_like(mask)
    types[0, 4:] = 1
    return {"input_ids": 5 + mask, "attention_mask": mask, "token_type_ids": types}


def _Traced(body: Any, names: Sequence[str], output: str) -> Any:  # noqa: N802 - makes a module
    """Return a module from columns, in the order of `names`, to one output of a body."""
    import torch

    class Traced(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, *columns: torch.Tensor) -> torch.Tensor:
            outputs = self.body(**dict(zip(names, columns, strict=True)), return_dict=True)
            result: torch.Tensor = outputs[output]
            return result

    return Traced()


def _import_nncf() -> Any:
    """Return NNCF without its telemetry, which sends what it is used for unless it is missing."""
    name = "openvino_telemetry"
    hidden = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails, as NNCF expects
    try:
        return import_module("nncf")
    finally:
        del sys.modules[name]
        if hidden is not None:
            sys.modules[name] = hidden


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings, the log and the bars of libraries that trace and quantise."""
    level, handlers = logging.root.manager.disable, [*logging.root.handlers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(level)
            logging.root.handlers[:] = handlers  # a library's first message adds one
