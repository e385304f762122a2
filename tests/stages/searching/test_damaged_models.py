"""Models in index and student folders: what has changed is not searched with."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from retrodistill.base.config import IndexSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import FILE, Manifest
from retrodistill.data.datasets import Collection
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.indexing import embed_collection
from retrodistill.stages.searching import Searcher
from retrodistill.stages.training import TrainSettings, train_student


def embedded(collection: Collection, encoder: DenseEncoder, out: Path) -> Path:
    return embed_collection(collection, encoder, out=out, settings=IndexSettings(index="exact"))


@pytest.fixture(scope="module")
def index(
    collection: Collection, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    encoder = DenseEncoder(tiny_model, precision="float32")
    return embedded(collection, encoder, tmp_path_factory.mktemp("index") / "exact")


@pytest.fixture(scope="module")
def student(
    collection: Collection, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    settings = TrainSettings(batch_size=4, max_steps=1, objective="contrastive")
    out = tmp_path_factory.mktemp("student") / "student"
    return train_student(collection, tiny_model, out, settings=settings)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file, where JSON may well stay JSON."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_every_file_of_a_model_is_known(index: Path, student: Path) -> None:
    """A setting of a module, such as its normalisation, that no checksum covers."""
    for folder, part in ((index, "model"), (student, "")):
        decisive = {
            path.relative_to(folder).as_posix()
            for path in (folder / part).rglob("*")
            if path.is_file()
            and path.name not in (FILE, "README.md")
            and path.parent.name != "lineage"  # records are named by their content
        }
        assert set(Manifest.read(folder).files) == decisive
        assert len(decisive) > 5


def test_a_damaged_model_is_not_searched_with(index: Path, tmp_path: Path) -> None:
    """Scores of 4.07 for 0.86, silently, once 2_Normalize/config.json is another."""
    for number, name in enumerate(Manifest.read(index).files):
        copy = tmp_path / str(number)
        shutil.copytree(index, copy)
        flip(copy / name)
        with pytest.raises(DataError, match=f"{name} is damaged or was changed"):
            Searcher.open(copy)
        (copy / name).unlink()
        with pytest.raises(DataError, match=f"{name} is damaged or was changed"):
            Searcher.open(copy)


def test_a_damaged_student_is_not_used(student: Path, tmp_path: Path) -> None:
    """A student whose vectors are others than those that were measured."""
    for number, name in enumerate(Manifest.read(student).files):
        copy = tmp_path / str(number)
        shutil.copytree(student, copy)
        flip(copy / name)
        with pytest.raises(DataError, match=f"{name} is damaged or was changed"):
            DenseEncoder(copy)
    (copy / FILE).write_text("{")
    with pytest.raises(DataError, match=FILE):
        DenseEncoder(copy)


def test_what_decides_nothing_may_change(student: Path, tmp_path: Path) -> None:
    """A student that cannot be loaded because somebody wrote into its README."""
    copy = tmp_path / "copy"
    shutil.copytree(student, copy)
    (copy / "README.md").write_text("mine")
    (copy / "notes.txt").write_text("mine")
    DenseEncoder(copy)
    flip(copy / "README.md")
    (copy / FILE).unlink()
    flip(copy / "model.safetensors")
    DenseEncoder(copy)


def test_a_manifest_of_somebody_else_is_not_read(tiny_model: Path, tmp_path: Path) -> None:
    """A published model that is refused because one of its files has a common name."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / FILE).write_text('{"name": "app"}')
    DenseEncoder(tmp_path / "model")


def test_a_manifest_without_files_is_read(index: Path, tmp_path: Path) -> None:
    """An index that was embedded before there were checksums, and cannot be opened any more."""
    copy = tmp_path / "copy"
    shutil.copytree(index, copy)
    content = json.loads((copy / FILE).read_text())
    del content["files"], content["checksum"]
    (copy / FILE).write_text(json.dumps(content))
    Searcher.open(copy)


def test_the_model_copy_does_not_depend_on_the_cache(
    collection: Collection, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two index folders of one model that differ: `truncation` in tokenizer.json, or null."""
    monkeypatch.setenv("RETRODISTILL_CACHE", str(tmp_path / "cache"))
    files = []
    for name in ("encoded", "cached"):
        encoder = DenseEncoder(tiny_model, max_tokens=16, precision="float32")
        files.append(Manifest.read(embedded(collection, encoder, tmp_path / name)).files)
    assert files[0] == files[1]
    texts = collection.queries.full_texts()
    copy = Searcher.open(tmp_path / "encoded", precision="float32").encoder
    assert np.array_equal(copy.encode_queries(texts), encoder.encode_queries(texts))


def test_other_users_may_read_an_index(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """A server under another account that cannot open the index that was made for it."""
    encoder = DenseEncoder(tiny_model, precision="float32")
    old = os.umask(0o022)
    try:
        out = embedded(collection, encoder, tmp_path / "index")
    finally:
        os.umask(old)
    modes = {path: path.stat().st_mode & 0o777 for path in [out, *out.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o755}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o644}


def test_an_unwritable_place_is_refused_before_the_training(
    collection: Collection, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that is lost because the folder above --out is a file."""
    monkeypatch.setattr(
        "retrodistill.stages.training.loop.fit", lambda *_, **__: pytest.fail("it was trained")
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        train_student(collection, tiny_model, tmp_path / "file" / "student")
