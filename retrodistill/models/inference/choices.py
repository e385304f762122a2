"""Which of two ways is faster on this machine: measured once, and kept for later processes.

So a short command does not measure again, and processes of one machine do not differ in number type
or kernel. The file is `choices.json` in the user's cache folder (`RETRODISTILL_CACHE`, else
`~/.cache/retrodistill`); an entry names the processor, the threads and the version of PyTorch.
Delete the file to have everything measured again, as after a measurement beside heavy work.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from retrodistill.base.files import write_atomically
from retrodistill.base.manifest import cache_folder

ROUNDS = 6
Call = Callable[[], Any]

_known: dict[str, float] = {}


def speedup(name: str, trial: Callable[[], tuple[Call, Call]]) -> float:
    """Return how many times as fast as the second call of a trial the first one is here.

    `name` says what is compared. The trial runs where no process has measured it before: it makes
    what the calls need, and they take turns, of which the shortest counts.
    """
    key = f"{name} on {_machine()}"
    if key not in _known:
        _known.update(_kept())
    if key not in _known:
        _known[key] = round(_measured(*trial()), 3)
        _keep(key)
    return _known[key]


def choices_file() -> Path:
    """Return the file in which choices are kept."""
    return cache_folder("choices.json")


def processor() -> str:
    """Return the processor's name, where the system tells it."""
    import platform

    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def made_here() -> dict[str, float]:
    """Return what has been measured on this machine: name -> times as fast."""
    ending = f" on {_machine()}"
    ratios = {**_kept(), **_known}
    return {key.removesuffix(ending): ratios[key] for key in sorted(ratios) if key.endswith(ending)}


def _measured(fast: Call, plain: Call) -> float:
    times = {fast: float("inf"), plain: float("inf")}
    for _ in range(ROUNDS):
        for call in times:
            began = time.perf_counter()
            call()
            times[call] = min(times[call], time.perf_counter() - began)
    return times[plain] / times[fast]


def _machine() -> str:
    """Return what a choice depends on: a processor may be another one under the same name."""
    import torch

    kinds = [torch.backends.cpu.get_cpu_capability()]
    kinds += ["bfloat16"] * torch.cpu._is_avx512_bf16_supported()
    kinds += ["amx"] * torch.cpu._is_amx_tile_supported()
    kinds += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    threads = f"{torch.get_num_threads()} threads"
    return ", ".join([processor(), *kinds, threads, f"torch {torch.__version__}"])


def _kept() -> dict[str, float]:
    """Return the file's entries; of one that cannot be read, none."""
    with suppress(OSError, ValueError):
        entries = json.loads(choices_file().read_text(encoding="utf-8"))
        if isinstance(entries, dict) and all(isinstance(v, float) for v in entries.values()):
            return entries
    return {}


def _keep(key: str) -> None:
    """Add an entry to the file, where the folder can be written."""
    content = json.dumps({**_kept(), key: _known[key]}, indent=1, sort_keys=True)
    with suppress(OSError):
        choices_file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(choices_file(), content.encode())
