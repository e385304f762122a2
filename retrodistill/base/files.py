"""Files and folders that are written whole or not at all, flushed, and with the user's umask.

What is being written has a hidden name beside its place, `.NAME.new-HEX`, and is locked until it
is moved there. So whoever writes to the same place later knows what a killed command has left, for
nobody locks it, and removes it. Files of a cache end with a checksum of what is before it.
"""

import ctypes
import errno
import fcntl
import json
import math
import os
import re
import resource
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log

UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<state>new|old)-[0-9a-f]{8}(\.[^.]*)?")
"""Hidden names: `new` is what replaces a file or folder, `old` what is being replaced."""

SEAL = 16
"""Bytes of the checksum at the end of a cached file: 128 bits of XXH3."""

OTHER_FILES = 256
"""Files that a process has open beside those that it counts: libraries, sockets, logs."""

BLOCK = 1 << 20
"""Bytes that are read at a time for a checksum."""

AT_CWD, EXCHANGE = -100, 2
"""Of Linux's renameat2: relative to the working directory; exchange the two paths."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""System errors of a full disk, an exceeded quota, and a file over the limit."""

NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems answer that cannot exchange two paths, or have no hard links."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to the disk, and rename it into place."""
    with _written(Path(path), content) as aside:
        os.replace(aside, path)


def json_text(content: object, *, ensure_ascii: bool = True) -> str:
    """Return plain values as indented JSON; NaN and infinity, which JSON lacks, become null.

    What JSON has no form for, such as a path, becomes a string.
    """
    plain = _finite(content)
    text = json.dumps(plain, indent=2, ensure_ascii=ensure_ascii, allow_nan=False, default=str)
    return text + "\n"


def _finite(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_once(path: Path, content: bytes) -> bool:
    """Write a file as `write_atomically` does, unless there is one; tell whether it was written."""
    with _written(Path(path), content) as aside:
        try:
            os.link(aside, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            try:
                Path(path).touch(exist_ok=False)  # whoever makes it may replace it
            except FileExistsError:
                return False
            os.replace(aside, path)
    return True


def allow_open_files(count: int) -> None:
    """Let this process hold `count` more files open, as far as its hard limit goes.

    Each mapped file counts as one. The usual limit is 1,024, which a process may raise itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, which replaces it only if the block ends well."""
    path = Path(path)
    with _aside(path, _touch, path.suffix) as aside:
        yield aside
        _sync(aside)
        aside.replace(path)
    _sync(path.parent)


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder to fill, which becomes `out`, flushed, only if the block ends well.

    Raises:
        ConfigError: `out` exists already and `overwrite` is not set, or it cannot be written.

    """
    refuse_existing(out, overwrite=overwrite)
    out = Path(out).absolute()  # `.` has no name
    with _aside(out, Path.mkdir) as aside:
        yield aside
        _settle(aside)
        _move(aside, out, overwrite=overwrite)
        _sync(out.parent)


def refuse_existing(out: Path, *, overwrite: bool, folder: bool = True) -> None:
    """Raise ConfigError unless a new folder, or a new file, can be written to `out`.

    What killed commands left of the same `out` is removed.
    """
    out = Path(out)
    remove_unfinished(out)
    if out.exists() and not overwrite:
        raise ConfigError(
            f"{out} exists already. Give another --out, delete it, or pass --overwrite."
        )
    check_writable(out, folder=folder)


def check_writable(path: Path, *, folder: bool = True) -> None:
    """Raise ConfigError unless something can be made at a path, by making and removing it there.

    A stage calls it before its work; for a folder that it adds to, with a path within.
    """
    path = Path(path)
    if path.exists() and folder != path.is_dir():
        kinds = ("a file", "a folder") if folder else ("a folder", "a file")
        raise ConfigError(
            f"{path} is {kinds[0]}, but {kinds[1]} was to be written. Give another path."
        )
    place = path.absolute()
    nearest = next((parent for parent in place.parents if os.path.lexists(parent)), place)
    try:
        with _aside(nearest / (place.name or "x"), Path.mkdir):
            pass
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}, in {nearest}). "
            "Give a path below a folder that you may write to."
        ) from error


def is_unfinished(path: Path) -> bool:
    """Tell whether a path is one of the hidden names of what is being written."""
    return UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(final: Path) -> None:
    """Remove what killed commands left of a file or folder; whoever writes one does it first.

    Where one was killed while it replaced something, that is put back.
    """
    start = f".{final.name}."
    try:
        with os.scandir(final.parent) as entries:
            paths = [Path(entry) for entry in entries if entry.name.startswith(start)]
    except OSError:
        return
    for path in paths:
        match = UNFINISHED.fullmatch(path.name)
        if match is None or match["name"] != final.name:
            continue
        lock = _lock(path, wait=False)
        if lock is None:
            continue
        with suppress(OSError):
            if match["state"] == "old" and not os.path.lexists(final):
                os.rename(path, final)
                log.info(f"{final} is put back: a command was killed while it replaced it.")
            elif _is(lock, path):
                _remove(path)
        os.close(lock)


def sealed(content: bytes) -> bytes:
    """Return the content of a cached file, followed by its checksum."""
    from xxhash import xxh3_128_digest

    return content + xxh3_128_digest(content)


def is_sealed(path: Path) -> bool:
    """Tell whether a file ends with the checksum of what is before it; it costs one reading."""
    with path.open("rb") as stream:
        length = stream.seek(0, os.SEEK_END) - SEAL
        return length >= 0 and _checksum(path, length) == _tail(path, length)


def checksum(path: Path) -> str:
    """Return 128 bits of XXH3 of a file's content as hex: against damage, not against forgery."""
    return _checksum(path, path.stat().st_size).hex()


def _checksum(path: Path, length: int) -> bytes:
    from xxhash import xxh3_128

    hasher, block = xxh3_128(), memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as stream:
        while length > 0 and (count := stream.readinto(block[:length])):
            hasher.update(block[:count])
            length -= count
    return hasher.digest()


def _tail(path: Path, start: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read()


@contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    """Give a flushed file beside `path`, to be moved there."""
    with _aside(path, _touch) as aside:
        with aside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield aside
    _sync(path.parent)


@contextmanager
def _aside(path: Path, make: Callable[[Path], object], suffix: str = "") -> Iterator[Path]:
    """Make and lock something hidden beside `path`, to be moved there; remove it if it was not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path)
    while True:
        aside = _hidden(path, "new", suffix)
        make(aside)
        lock = _lock(aside, wait=True)
        if os.path.lexists(aside) if lock is None else _is(lock, aside):
            break
        if lock is not None:  # another command took it for what a killed one left
            os.close(lock)
    try:
        yield aside
    finally:
        _remove(aside)
        if lock is not None:
            os.close(lock)


def _hidden(path: Path, state: str, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.{state}-{secrets.token_hex(4)}{suffix}")


def _touch(path: Path) -> None:
    path.touch(exist_ok=False)


def _lock(path: Path, *, wait: bool) -> int | None:
    """Lock a file or a folder; None if somebody else holds it, or where there are no locks."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


def _is(handle: int, path: Path) -> bool:
    """Tell whether an open file or folder is still what lies at a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Flush all that is in a new folder, with the permissions that the umask leaves.

    Some libraries write for the owner alone, whatever the umask (safetensors does).
    """
    allowed = folder.stat().st_mode & 0o777
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        wanted = mode | (allowed if path.is_dir() else allowed & 0o666)
        if wanted != mode:
            path.chmod(wanted)
        _sync(path)


def _move(new: Path, out: Path, *, overwrite: bool) -> None:
    """Move a finished folder into its place; if that fails, leave it under a name that is said."""
    try:
        if os.path.lexists(out) or not _renamed(new, out):
            if not overwrite:
                raise FileExistsError(errno.EEXIST, "another process made it meanwhile", str(out))
            _exchange(new, out)
    except OSError as error:
        kept = out.with_name(f"{out.name}.{secrets.token_hex(4)}")
        os.rename(new, kept)
        raise ConfigError(
            f"{out} cannot be written ({error.strerror}); what lies there is unchanged. "
            f"The result is in {kept}: move it to where you want it."
        ) from error


def _renamed(new: Path, out: Path) -> bool:
    """Rename a folder; return False if another process has filled `out` meanwhile."""
    try:
        os.rename(new, out)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _exchange(new: Path, out: Path) -> None:
    """Let two paths change places: at once, or where that cannot be, step by step."""
    try:
        _exchange_at_once(new, out)
        return
    except OSError as error:
        if error.errno not in NO_EXCHANGE:
            raise
    lock = _lock(out, wait=False)
    old = _hidden(out, "old")
    os.rename(out, old)
    try:
        os.rename(new, out)
    except BaseException:
        os.rename(old, out)
        raise
    os.rename(old, new)
    if lock is not None:
        os.close(lock)


def _exchange_at_once(one: Path, other: Path) -> None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(AT_CWD, os.fsencode(one), AT_CWD, os.fsencode(other), EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk, so that it survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
