"""A graph in place of a transformer's body, so that the whole model runs on it as it did before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrodistill.stages.exporting.graphs import FILES, HINTS

Graph = Callable[[dict[str, NDArray[np.int64]]], NDArray[np.float32]]
"""Takes the inputs (batch, tokens) by name, and returns the one output."""


class GraphModel(nn.Module):
    """The body of a model of sentence-transformers, run by a graph.

    Tokenizer, prompts, pooling and all other modules are the model's own, as with its `backend`.
    """

    def __init__(self, graph: Graph, names: list[str], output: str, config: Any) -> None:
        super().__init__()
        self._graph, self._names, self._output = graph, names, output
        self.config = config

    def forward(self, **features: Any) -> dict[str, Tensor]:
        """Return the graph's output, under its name."""
        inputs = {name: features[name].cpu().numpy() for name in self._names}
        return {self._output: torch.from_numpy(self._graph(inputs))}


def open_graph(folder: Path, format: str) -> tuple[Graph, list[str], str]:
    """Return the graph in a folder, its inputs' names and its output's, with PyTorch's threads."""
    return _OPENERS[format](folder)


def put_graph(model: Any, folder: Path, format: str) -> None:
    """Let a model run its body by the graph in a folder."""
    graph, names, output = open_graph(folder, format)
    model[0].model = GraphModel(graph, names, output, model[0].model.config)


def _onnx(folder: Path) -> tuple[Graph, list[str], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / FILES["onnx"]), options, providers=["CPUExecutionProvider"]
    )
    output = session.get_outputs()[0].name

    def run(inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = session.run([output], inputs)[0]
        return values

    return run, [value.name for value in session.get_inputs()], output


def _openvino(folder: Path) -> tuple[Graph, list[str], str]:
    import openvino

    hints = json.loads((folder / HINTS).read_text(encoding="utf-8"))
    hints["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    compiled = openvino.Core().compile_model(str(folder / FILES["openvino"]), "CPU", hints)
    output = compiled.output(0)

    def run(inputs: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        return np.array(compiled(inputs)[output], np.float32)

    return run, [value.get_any_name() for value in compiled.inputs], output.get_any_name()


_OPENERS = {"onnx": _onnx, "openvino": _openvino}
