"""Batches over several processes: every process compares its queries with all documents.

A process keeps its own rows first, so that the row numbers of its batch stay valid.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Return how many processes train together, as torchrun and accelerate start them."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Tell whether this is the main process, which writes."""
    return int(os.environ.get("RANK", 0)) == 0


class SharedRows:
    """The distinct rows of all processes, this one's first; called with tensors of rows.

    A document that several processes hold is one row: this process's own copy, or the first.
    The rows of one process are distinct.
    """

    def __init__(self, rows: Tensor) -> None:
        every = gathered(rows)
        distinct, positions = torch.unique(every, return_inverse=True)
        order = torch.arange(len(every), device=every.device)
        earliest = order.new_full(distinct.shape, len(every)).scatter_reduce(
            0, positions, order, "amin", include_self=True
        )
        self._first = None if len(distinct) == len(every) else earliest.sort().values
        self.rows = self._kept(every)
        """The numbers of the rows."""

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return a tensor of this process's rows, with those of all processes."""
        return self._kept(gathered(tensor))

    def _kept(self, tensor: Tensor) -> Tensor:
        return tensor if self._first is None else tensor[self._first]


class SameRows:
    """Rows that are the same in every process; called as `SharedRows` is."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor


def of_main(value: Callable[[], float]) -> float:
    """Return the main process's value in every process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value()
    values = [value() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(values)
    shared = values[0]
    assert shared is not None
    return shared


def gathered(tensor: Tensor, *, fill: float = 0.0) -> Tensor:
    """Return the rows of all processes, this one's first; the same tensor if there is only one.

    Gradients flow back to the process that a row came from. Other dimensions than the first may
    differ between processes (padding): they are filled up to the longest.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return tensor
    world, rank = distributed.get_world_size(), distributed.get_rank()
    shape = torch.tensor(tensor.shape, device=tensor.device)
    shapes = [torch.empty_like(shape) for _ in range(world)]
    distributed.all_gather(shapes, shape)
    rows = [int(shape_of[0]) for shape_of in shapes]
    largest = torch.stack(shapes).amax(0).tolist()
    padded = tensor.new_full(largest, fill)
    padded[tuple(slice(size) for size in tensor.shape)] = tensor
    parts: tuple[Tensor, ...] = _AllGather.apply(padded)  # type: ignore[no-untyped-call]
    order = [rank, *(process for process in range(world) if process != rank)]
    return torch.cat([parts[process][: rows[process]] for process in order])


class _AllGather(torch.autograd.Function):
    """All processes' tensors of one shape; backwards, the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, tensor.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = torch.stack(gradients)
        distributed.all_reduce(total)
        return total[distributed.get_rank()]
