"""Vectors under string ids, searched by inner product. An index never knows a model."""

from typing import TYPE_CHECKING

from retrodistill.base.config.base import Device
from retrodistill.base.errors import ConfigError
from retrodistill.base.registry import INDEXES

if TYPE_CHECKING:
    from retrodistill.base.types import Index


def new_index(spec: str, dimension: int) -> "Index":
    """Return an empty index of `kind` or `kind:argument`, as in `hnsw` or `faiss:IVF1024,SQ8`.

    Raises:
        ConfigError: the kind is unknown, or its argument is not what it takes.

    """
    kind, argument = INDEXES.split(spec)
    index: Index = kind(dimension, argument) if argument else kind(dimension)
    return index


def use_device(index: object, device: Device) -> None:
    """Let an index learn and search on a device.

    Raises:
        ConfigError: this kind does nothing on a GPU, or there is none.
        MissingExtra: the installed faiss knows no GPU.

    """
    from retrodistill.models.indexes.faiss import FaissIndex

    if device == "cpu":
        return
    if not isinstance(index, FaissIndex) or not index.uses_gpu:
        kinds = [name for name in INDEXES if getattr(INDEXES[name], "uses_gpu", False)]
        raise ConfigError(
            f"--device cuda is for indexes of the kinds {', '.join(kinds)}, but this one is "
            f"{type(index).__name__}: omit it."
        )
    index.use_gpu()


def index_kind(spec: str) -> type["Index"]:
    """Return the class of `kind` or `kind:argument`, whose `load` opens what it saved."""
    kind: type[Index] = INDEXES.split(spec)[0]
    return kind
