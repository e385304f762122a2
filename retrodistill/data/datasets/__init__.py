"""Collections: documents, queries and judgements, from an id such as `beir:PATH`.

`load_collection` parses the id, and the loader of its kind (`beir`, `docs`, `irds`, `hf`,
`builtin`) says
where the texts come from. They are read once into a cache of memory-mapped tables (`texts`,
`cache`), so that a large collection opens in seconds and stays out of memory.
"""

from retrodistill.data.datasets.attributes import read_attributes
from retrodistill.data.datasets.collection import Collection, load_collection
from retrodistill.data.datasets.texts import Texts

__all__ = ["Collection", "Texts", "load_collection", "read_attributes"]
