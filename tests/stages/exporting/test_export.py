"""Exports of tiny models: graphs, gate, folder, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from sentence_transformers import CrossEncoder

from retrodistill.base.config import ExportConfig
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest, check_model_files, digest_files
from retrodistill.data.datasets import Collection
from retrodistill.models.students.dense import DenseEncoder, load_bi_encoder
from retrodistill.models.students.towers import two_towers
from retrodistill.stages.exporting import export_model, graphs
from retrodistill.stages.exporting.runtimes import open_graph, put_graph
from retrodistill.stages.reporting.chain import chain

for package in ("onnx", "onnxruntime", "openvino"):
    pytest.importorskip(package)

CPU = torch.device("cpu")
TEXTS = ["asthma and vitamin", "heart " * 90, "x", "blood pressure is high in the morning"]


def settings(model: Path, folder: Path, out: Path, **changes: Any) -> ExportConfig:
    """Return settings whose speed is not judged: a tiny model says nothing of it."""
    given = {"split": "test", "min_speedup": 0.0} | changes
    return ExportConfig(model=str(model), data=f"beir:{folder}", out=out, **given)


@pytest.fixture(scope="module")
def exported(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, folder: Path, collection: Collection
) -> Path:
    """Return the folder of a float32 ONNX export of the tiny model."""
    out = tmp_path_factory.mktemp("exported") / "kl"
    assert not export_model(collection, settings(tiny_model, folder, out)).measured.failures
    return out


@pytest.mark.parametrize(
    ("format", "precision"), [("onnx", "float32"), ("onnx", "int8"), ("openvino", "float32")]
)
def test_graph_reads_batches_lengths_masks_and_segments(
    format: str, precision: str, tmp_path: Path, tiny_model: Path
) -> None:
    """A graph that was traced for one shape, or ignores padding or segments, fits its example."""
    reference, copy = (load_bi_encoder(str(tiny_model), CPU) for _ in range(2))
    (tmp_path / format).mkdir()
    source = tmp_path / "float32.onnx"
    graphs.write_onnx(copy, source)
    path = tmp_path / graphs.FILES[format]
    if format == "openvino":
        graphs.write_openvino(source, path)
        graphs.write_hints(tmp_path / graphs.HINTS, precision)
    elif precision == "int8":
        graphs.quantise_onnx(source, path, reduce_range=False)
    else:
        shutil.copyfile(source, path)
    graph, names, output = open_graph(tmp_path, format)
    assert names == ["input_ids", "attention_mask", "token_type_ids"]
    assert output == "last_hidden_state"
    body = reference[0].model.eval()
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 40), (3, 5), (17, 31)):
        ids = rng.integers(5, 200, shape)
        mask, types = np.ones_like(ids), np.zeros_like(ids)
        mask[-1, shape[1] // 2 + 1 :] = 0
        types[:, shape[1] // 2 :] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        with torch.inference_mode():
            wanted = body(**{k: torch.from_numpy(v) for k, v in inputs.items()})[output].numpy()
        real = mask.astype(bool)
        values = graph(inputs)
        error = np.abs(values - wanted)[real].max()
        assert values.shape == wanted.shape
        assert error < (1e-4 if precision == "float32" else 0.5)
        for name in ("attention_mask", "token_type_ids"):
            changed = graph(inputs | {name: np.ones_like(ids) - types})
            if shape[1] > 4:
                assert np.abs(changed - values)[real].max() > 0.05, name


def test_reduced_range_has_weights_of_7_bits(tmp_path: Path, tiny_model: Path) -> None:
    """Without it, sums saturate on processors without VNNI, and vectors are wrong there only."""
    import onnx

    graphs.write_onnx(load_bi_encoder(str(tiny_model), CPU), tmp_path / "float32.onnx")
    highest = {}
    for reduced in (False, True):
        path = tmp_path / f"{reduced}.onnx"
        graphs.quantise_onnx(tmp_path / "float32.onnx", path, reduce_range=reduced)
        weights = [
            onnx.numpy_helper.to_array(tensor)
            for tensor in onnx.load(path).graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
        ]
        assert len(weights) >= 36  # six layers of six products
        highest[reduced] = max(np.abs(values.astype(int)).max() for values in weights)
    assert highest[False] > 100
    assert highest[True] <= 64


@pytest.mark.parametrize(
    ("flags", "has"), [("avx2 avx512f", False), ("avx2 avx_vnni", True), ("avx512_vnni", True)]
)
def test_vnni_is_read_from_the_processor(flags: str, has: bool, tmp_path: Path) -> None:
    """Full-range weights on a processor that saturates."""
    if os.uname().machine != "x86_64":
        pytest.skip("other processors do not saturate")
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags} sse\n")
    assert graphs.has_vnni(tmp_path / "cpuinfo") is has


@pytest.mark.slow
def test_static_int8_is_calibrated_and_silent(
    tmp_path: Path, tiny_model: Path, folder: Path, collection: Collection
) -> None:
    """Static int8 whose scales do not fit the documents; a tool that reports its use."""
    pytest.importorskip("nncf")
    config = settings(
        *(tiny_model, folder, tmp_path / "out"),
        format="openvino",
        precision="int8-static",
        calibration=16,
        min_cosine=0.8,
    )
    measured = export_model(collection, config).measured
    assert not measured.failures
    assert measured.min_cosine < 0.99999
    assert json.loads((tmp_path / "out" / graphs.HINTS).read_text()) == {
        "INFERENCE_PRECISION_HINT": "f32"
    }
    call = "graphs._import_nncf(); from nncf.telemetry import wrapper as w; print(w.telemetry)"
    code = f"from retrodistill.stages.exporting import graphs; {call}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "MagicMock" in said  # a stub, without the library that sends


def test_exported_folder_is_the_model_in_pytorch_too(exported: Path, tiny_model: Path) -> None:
    """The older layout that servers read could be another model for sentence-transformers."""
    before, after = DenseEncoder(tiny_model), DenseEncoder(exported)
    np.testing.assert_allclose(
        after.encode_docs(TEXTS), before.encode_docs(TEXTS), rtol=0, atol=1e-6
    )
    assert after.model.max_seq_length == before.model.max_seq_length == 128


def test_graph_in_the_folder_gives_the_models_vectors(exported: Path, tiny_model: Path) -> None:
    """What the gate measured must be what lies in the folder afterwards."""
    model = load_bi_encoder(str(exported), CPU)
    put_graph(model, exported, "onnx")
    vectors = DenseEncoder(model, precision="float32").encode_docs(TEXTS)
    wanted = DenseEncoder(tiny_model, precision="float32").encode_docs(TEXTS)
    np.testing.assert_allclose((vectors * wanted).sum(1), 1.0, atol=1e-5)


def test_manifest_names_model_collection_and_figures(
    exported: Path, tiny_model: Path, collection: Collection
) -> None:
    """A deployed graph whose origin and loss nobody can look up."""
    manifest = Manifest.read(exported, kind="export")
    assert manifest.inputs["collection"] == collection.fingerprint
    assert manifest.details["min_cosine"] > 0.9999
    assert manifest.details["lineage"]["unrecorded"] == [tiny_model.name]
    assert {"onnx/model.onnx", "model.safetensors"} <= manifest.files.keys()
    check_model_files(exported)
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert 'backend="onnx"' in card
    assert "| lowest cosine | 1 | 1.00000 |" in card


def test_damaged_graph_is_noticed(exported: Path, tmp_path: Path) -> None:
    """Half of a copied graph would be loaded, or its error blamed on the runtime."""
    copy = shutil.copytree(exported, tmp_path / "copy")
    (copy / "onnx" / "model.onnx").write_bytes(b"half")
    with pytest.raises(DataError, match=r"model\.onnx is damaged"):
        check_model_files(copy)


def test_failed_gate_leaves_no_folder(
    tmp_path: Path, tiny_model: Path, folder: Path, collection: Collection
) -> None:
    """A folder that failed would be deployed by whoever does not read the exit status."""
    config = settings(tiny_model, folder, tmp_path / "out", min_speedup=1e6)
    exported = export_model(collection, config)
    assert "--min-speedup" in exported.measured.failures[0]
    assert [*tmp_path.iterdir()] == []
    again = export_model(collection, replace(config, min_speedup=0.0, min_cosine=1.1))
    assert "--min-cosine" in again.measured.failures[0]


def test_int8_and_weights_left_out(
    tmp_path: Path, tiny_model: Path, folder: Path, collection: Collection
) -> None:
    """int8 that silently stayed float32 has a cosine of 1 and the old size."""
    config = settings(
        tiny_model, folder, tmp_path / "out", precision="int8", weights=False, min_cosine=0.5
    )
    measured = export_model(collection, config).measured
    assert not measured.failures
    assert 0.5 < measured.min_cosine < 0.99999
    files = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert "model.onnx" in files
    assert "model.safetensors" not in files


def test_cross_encoder(tmp_path: Path, folder: Path, collection: Collection) -> None:
    """Its graph must give logits, read pairs, and keep the order of BM25's candidates."""
    model = save_tiny_cross_encoder(tmp_path / "ce")
    exported = export_model(collection, settings(model, folder, tmp_path / "out"))
    assert not exported.measured.failures
    assert exported.measured.noun == "pairs"
    assert exported.measured.min_cosine > 0.99999
    _, names, output = open_graph(tmp_path / "out", "onnx")
    assert (names[-1], output) == ("token_type_ids", "logits")
    body = json.loads((tmp_path / "out" / "sentence_bert_config.json").read_text())
    assert body["max_seq_length"] == 256
    pairs = [("heart", text) for text in TEXTS]
    scores = [
        CrossEncoder(str(path), device="cpu").predict(pairs) for path in (model, tmp_path / "out")
    ]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-6)  # with its sigmoid


def test_prompts_are_measured_with(tmp_path: Path, folder: Path, collection: Collection) -> None:
    """An export measured without the model's prompts is that of another model."""
    prompts = {"query": "find ", "document": "text "}
    model = save_tiny_model(tmp_path / "prompted", prompts=prompts)
    exported = export_model(collection, settings(model, folder, tmp_path / "out"))
    assert exported.measured.min_cosine > 0.9999
    assert any("prompt_name" in sentence for sentence in exported.differences)


def test_two_towers_are_refused(
    tmp_path: Path, tiny_model: Path, folder: Path, collection: Collection
) -> None:
    """One graph for two towers would read documents as queries."""
    model = load_bi_encoder(str(tiny_model), CPU)
    two_towers(model, model).save(str(tmp_path / "towers"))
    with pytest.raises(ConfigError, match="two towers"):
        export_model(collection, settings(tmp_path / "towers", folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_absent_split_says_what_there_is(
    tmp_path: Path, tiny_model: Path, folder: Path, collection: Collection
) -> None:
    """Without a dev split, the test split must not be taken in its place unasked."""
    config = settings(tiny_model, folder, tmp_path / "out", split="dev")
    with pytest.raises(ConfigError, match=r"no split 'dev' .* It has: test, train\. Give one"):
        export_model(collection, config)


def test_an_export_can_be_traced_and_repeated(
    tmp_path: Path, tiny_model: Path, folder: Path, collection: Collection
) -> None:
    """A report of an exported folder that calls its student changed, or does not know the verb."""
    student = shutil.copytree(tiny_model, tmp_path / "student")
    weights = digest_files(student, "*.safetensors")
    Manifest(kind="student", fingerprint=weights, config={"student": "m"}).write(student)
    out = tmp_path / "out"
    export_model(collection, settings(student, folder, out))
    origin = chain([out])[-1]
    assert (origin.verb, origin.kind, origin.cannot) == ("export", "export", "")
    assert [(source.setting, source.kind) for source in origin.inputs] == [("model", "student")]
    assert f"--model {student}" in origin.command
