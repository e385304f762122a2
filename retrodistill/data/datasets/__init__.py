"""Data sets: collections of documents, queries and relevance judgements, such as `beir:PATH`.

`load_collection` parses the id and calls the loader of its kind (`beir`, `docs`, `irds`, `hf`,
`builtin`). Texts are read once into a cache of memory-mapped tables (`texts`, `cache`), so that a
large collection opens in seconds and stays out of memory.
"""

from retrodistill.data.datasets.attributes import read_attributes
from retrodistill.data.datasets.collection import Collection, load_collection
from retrodistill.data.datasets.texts import Texts

__all__ = ["Collection", "Texts", "load_collection", "read_attributes"]
