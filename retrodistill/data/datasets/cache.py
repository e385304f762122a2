"""Cache of parsed texts, in `$RETRODISTILL_CACHE` or `~/.cache/retrodistill`.

Each collection has a folder under `collections/` whose name is a hash of its source, so a changed
source gets another folder. A folder is written under a temporary name and renamed, so readers see
all of it or nothing, and processes that build the same one concurrently do no harm. Checksums are
verified whenever a folder is opened (5 GB a second once in memory), before any file is mapped: a
damaged folder is rebuilt. The cache can be deleted at any time.
"""

import errno
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.files import checksum, new_folder
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest, cache_folder, digest
from retrodistill.data.datasets.texts import Texts, TextSource, arrow_file, ids_file, write_texts

LAYOUT = "texts-2"
PARTS = {"docs": "documents", "queries": "queries"}


def file_key(path: Path) -> list[str]:
    """Return what identifies the state of a file: path, size and modification time."""
    state = path.stat()
    return [str(path.resolve()), str(state.st_size), str(state.st_mtime_ns)]


def cached_texts(
    name: str, *, docs: TextSource, queries: TextSource, key: Sequence[str] | None
) -> tuple[Texts, Texts]:
    """Return the tables of documents and queries, read from their sources if not cached.

    `key` must change whenever the content may have changed. Without a key nothing is cached: the
    tables live as long as this process.

    Raises:
        ConfigError: the cache folder cannot be written.
        DataError: the sources are malformed, or hold no document.

    """
    sources = {"docs": docs, "queries": queries}
    if key is None:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as aside:
            _fill(Path(aside), name, sources)
            tables = _open(Path(aside), name, sources, persistent=False)
    else:
        tables = _cached(name, sources, key)
    return tables[0], tables[1]


def cached_view(name: str, part: str, source: TextSource, *, key: Sequence[str]) -> Texts:
    """Return a table of documents or of queries alone, read from its source if not cached.

    `part` is `docs` or `queries`; `key` is as in `cached_texts`.

    Raises:
        ConfigError: the cache folder cannot be written.
        DataError: the source is malformed.

    """
    return _cached(name, {part: source}, key)[0]


def _cached(name: str, sources: dict[str, TextSource], key: Sequence[str]) -> list[Texts]:
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[-48:].strip("-.")
    folder = cache_folder("collections") / f"{slug}-{digest(LAYOUT, *key)[:16]}"
    if not _is_whole(folder, sources):
        what = name if len(sources) > 1 else f"the {PARTS[next(iter(sources))]} of {name}"
        damaged = f"{folder} is damaged: re-reading {what}"
        log.info(damaged if folder.exists() else f"reading {what} once; cached in {folder}")
        _build(folder, name, sources)
    return _open(folder, name, sources)


class _OutrunError(Exception):
    """Another process has built the same folder in the meantime."""


def _build(folder: Path, name: str, sources: dict[str, TextSource]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(folder.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        with new_folder(folder, overwrite=True) as aside:
            _fill(aside, name, sources)
            if _is_whole(folder, sources):
                raise _OutrunError
    except _OutrunError:
        return
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _unwritable(folder, error) from error
        if not _is_whole(folder, sources):
            raise


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the cache folder {folder.parent} cannot be written ({error.strerror}). "
        "Set RETRODISTILL_CACHE to a writable folder."
    )


def _fill(folder: Path, name: str, sources: dict[str, TextSource]) -> None:
    inputs = {table: write_texts(folder / table, source) for table, source in sources.items()}
    checksums = {path.name: checksum(path) for path in sorted(folder.iterdir())}
    Manifest(
        kind="collection",
        fingerprint=digest(*inputs.values()),
        inputs=inputs,
        details={"name": name, "xxh3_128": checksums},
    ).write(folder)
    if "docs" in sources and not len(_open(folder, name, sources)[0]):
        raise DataError(f"{name} holds no documents. A collection needs at least one.")


def _open(
    folder: Path, name: str, sources: Mapping[str, TextSource], *, persistent: bool = True
) -> list[Texts]:
    manifest = Manifest.read(folder, kind="collection")
    return [
        Texts(
            folder / table,
            name=f"the {PARTS[table]} of {name}",
            fingerprint=manifest.inputs[table],
            source=source,
            persistent=persistent,
        )
        for table, source in sources.items()
    ]


def _is_whole(folder: Path, parts: Iterable[str]) -> bool:
    """Return whether all files of a folder match their checksums."""
    try:
        manifest = Manifest.read(folder, kind="collection")
        if manifest.fingerprint != digest(*(manifest.inputs[table] for table in parts)):
            return False
        checksums = manifest.details["xxh3_128"]
        files = [file(folder / table) for table in parts for file in (arrow_file, ids_file)]
        return all(checksum(path) == checksums[path.name] for path in files)
    except (DataError, OSError, KeyError, TypeError):
        return False
