"""Vectors under string ids, searched by inner product. An index never knows a model."""

from typing import TYPE_CHECKING

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


def index_kind(spec: str) -> type["Index"]:
    """Return the class of `kind` or `kind:argument`, whose `load` opens what it saved."""
    kind: type[Index] = INDEXES.split(spec)[0]
    return kind
