"""What the processes of one training share: every process compares its queries with all documents.

A process keeps its own rows first, so that row numbers of its batch stay what they were.
"""

import os
from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Return how many processes train together, as torchrun and accelerate start them."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Tell whether this is the process that writes."""
    return int(os.environ.get("RANK", 0)) == 0


def gathered(tensor: Tensor, *, fill: float = 0.0) -> Tensor:
    """Return the rows of all processes, this one's first; the same tensor if there is only one.

    Gradients flow back to the process that a row came from. Other dimensions than the first may
    differ between processes (padding): they are filled up to the longest.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return tensor
    world, own = distributed.get_world_size(), distributed.get_rank()
    shape = torch.tensor(tensor.shape, device=tensor.device)
    shapes = [torch.empty_like(shape) for _ in range(world)]
    distributed.all_gather(shapes, shape)
    rows = [int(other[0]) for other in shapes]
    largest = torch.stack(shapes).amax(0).tolist()
    padded = tensor.new_full(largest, fill)
    padded[tuple(slice(size) for size in tensor.shape)] = tensor
    parts: tuple[Tensor, ...] = _AllGather.apply(padded)  # type: ignore[no-untyped-call]
    order = [own, *(rank for rank in range(world) if rank != own)]
    return torch.cat([parts[rank][: rows[rank]] for rank in order])


class _AllGather(torch.autograd.Function):
    """All processes' tensors of one shape; backwards, the sum of what they all want changed."""

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
