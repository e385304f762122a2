"""What an artifact folder is, and what it was made from.

Each stage leaves a folder with a `manifest.json`. It says what kind of artifact this is, its
fingerprint, the fingerprints of its inputs, the settings and the library versions, so that
resuming, caching, provenance and "these scores are for another corpus" are one mechanism.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import DataError
from retrodistill.base.files import write_atomically

FILE = "manifest.json"
FORMAT = 1
CHECKSUM = "checksum"
"""Key beside the fields: a changed scale or fingerprint is noticed. Older manifests lack it."""
MODEL_FILES = (".jinja", ".json", ".model", ".safetensors", ".txt")
"""Endings of the files that a model is loaded from."""

LIBRARIES = (
    "retrodistill",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "faiss-gpu",
    "bm25s",
    "ranx",
    "pyarrow",
    "numpy",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The contents of a `manifest.json`."""

    kind: str
    """`queries`, `run`, `scores`, `student`, `index`, `export`, `collection`, `judgements`,
    `evaluation` or `cell`."""

    fingerprint: str
    """Hash of the content: equal fingerprints mean equal artifacts."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role of each input (`collection`, `teacher`, ...) to its fingerprint."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """The full settings of the command that made it."""

    details: Mapping[str, Any] = field(default_factory=dict)
    """What this kind wants known beside: counts, dtype, scale, seconds."""

    versions: Mapping[str, str] = field(default_factory=lambda: library_versions())
    """Installed versions of the libraries that shape results."""

    format: int = FORMAT
    """Version of the folder's layout."""

    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file that decides results, by its path in the folder."""

    def write(self, folder: Path) -> None:
        """Write `folder/manifest.json`, whole or not at all."""
        content = json.loads(json.dumps(asdict(self), default=str))
        content[CHECKSUM] = _checksum(content)
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_atomically(folder / FILE, (text + "\n").encode())

    def _check_types(self) -> None:
        """Raise TypeError if a field is not of its declared type."""
        for name in ("kind", "fingerprint"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a string")
        for name in ("inputs", "config", "details", "versions", "files"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} must be an object")
        for name in ("inputs", "versions", "files"):
            if not all(isinstance(value, str) for value in getattr(self, name).values()):
                raise TypeError(f"the values of {name} must be strings")

    def with_inputs(self, **inputs: str) -> "Manifest":
        """Return this manifest with other fingerprints of some inputs."""
        return replace(self, inputs={**self.inputs, **inputs})

    def check_files(self, folder: Path) -> None:
        """Compare a folder's files with what they were when this manifest was written.

        Raises:
            DataError: one is missing or has changed.

        """
        for name, sha256 in self.files.items():
            path = folder / name
            if not path.is_file() or digest_file(path) != sha256:
                raise DataError(
                    f"{path} is damaged or was changed: its checksum is not the one in "
                    f"{folder / FILE}. Make the folder again. If the change is meant, remove this "
                    'file\'s line from "files" there.'
                )

    @classmethod
    def read(cls, folder: Path, *, kind: str | None = None) -> "Manifest":
        """Read a folder's manifest, and check that it is of the wanted kind.

        Raises:
            DataError: there is none, it is damaged, or it belongs to another kind of artifact.

        """
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            checksum = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
            manifest = cls(**content)
            manifest._check_types()
        except (FileNotFoundError, NotADirectoryError):
            article = "an" if (kind or "artifact")[0] in "aeiou" else "a"
            wanted = f"{article} {kind or 'artifact'} folder"
            raise DataError(
                f"{folder} is not {wanted}: it has no {FILE}. "
                "Give the folder that a retrodistill command wrote with --out."
            ) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path} cannot be read as a manifest ({error}). Make the folder again."
            ) from error
        if manifest.format != FORMAT:
            raise DataError(
                f"{path} has format {manifest.format}, but this version reads {FORMAT}. "
                "Make the folder again, or use the version that wrote it."
            )
        if checksum is not None and checksum != _checksum(content):
            raise DataError(
                f"{path} is damaged or was changed: its checksum is another one. Make the folder "
                f'again. If the change is meant, remove the line "{CHECKSUM}" there.'
            )
        if kind is not None and manifest.kind != kind:
            raise DataError(f"{folder} is of kind {manifest.kind!r}, but {kind!r} was wanted.")
        return manifest


def _checksum(content: Mapping[str, Any]) -> str:
    """Return a hash of a manifest's fields but `files`, whose lines may be taken away."""
    fields = {name: value for name, value in content.items() if name not in (CHECKSUM, "files")}
    return digest(json.dumps(fields, sort_keys=True))


def library_versions() -> dict[str, str]:
    """Return the installed version of each library that shapes results."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 of the parts as hex; their boundaries count."""
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        hasher.update(len(raw).to_bytes(8, "big"))
        hasher.update(raw)
    return hasher.hexdigest()


def hash64(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return 64 bits of BLAKE2b for each text."""
    raw = b"".join(
        hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
        for text in texts
    )
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64, copy=False)


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(folder: Path, pattern: str = "*") -> str:
    """Return one hash over the names and contents of a folder's files, subfolders included."""
    hasher = hashlib.sha256()
    for path in sorted(p for p in folder.rglob(pattern) if p.is_file() and p.name != FILE):
        hasher.update(f"{path.relative_to(folder).as_posix()}\0{digest_file(path)}\n".encode())
    return hasher.hexdigest()


def model_files(folder: Path, part: str = "") -> dict[str, str]:
    """Return the SHA-256 of each file of a model that decides results, for `Manifest.files`.

    `part` is the model's subfolder. A README and the like may change.
    """
    paths = sorted((folder / part).rglob("*"))
    return {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in paths
        if path.suffix in MODEL_FILES and path.name != FILE and path.is_file()
    }


def check_model_files(folder: Path) -> None:
    """Compare a model's files with the manifest beside them, if it has one.

    Raises:
        DataError: a file is missing or has changed, or the manifest is damaged.

    """
    path = folder / FILE
    if path.is_file() and not _is_foreign(path):
        Manifest.read(folder).check_files(folder)


def _is_foreign(path: Path) -> bool:
    """Tell whether a file is sound JSON of somebody else that has a manifest's name by chance."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return not isinstance(content, dict) or "fingerprint" not in content


def cache_folder(part: str) -> Path:
    """Return where derived data of a kind may lie: below $RETRODISTILL_CACHE or ~/.cache."""
    root = os.environ.get("RETRODISTILL_CACHE") or "~/.cache/retrodistill"
    return Path(root).expanduser() / part
