"""Two processes that train together, as torchrun starts them, on this machine's processor."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

WORLD = 2


def in_two_processes(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `function(rank, world, *arguments)` returns in each of two gloo processes.

    `function` is one of a module, and it and its arguments can be pickled; so can its results.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        processes = [
            context.Process(target=_run, args=(rank, folder, function, arguments))
            for rank in range(WORLD)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(600)
        assert [process.exitcode for process in processes] == [0] * WORLD
        return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


def _run(rank: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(WORLD))
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(minutes=5),
    )
    try:
        torch.save(function(rank, WORLD, *arguments), folder / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def gradients_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of each weight that has one, by name."""
    weights = module.named_parameters()
    return {name: weight.grad.clone() for name, weight in weights if weight.grad is not None}


def assert_halves_are_the_whole(
    halves: list[Mapping[str, Tensor]], whole: Mapping[str, Tensor], *, rate: float = 1e-4
) -> None:
    """Assert that the mean of two processes' tensors is that of one process, by name.

    `rate` is the largest length of a difference, relative to the length of the whole.
    """
    for half in halves:
        assert half.keys() == whole.keys()
    for name, expected in whole.items():
        mean = torch.stack([half[name] for half in halves]).mean(0)
        largest = rate * float(expected.norm()) + 1e-7
        assert float((mean - expected).norm()) <= largest, name
