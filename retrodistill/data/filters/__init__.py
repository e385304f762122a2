"""Filters: conditions on what is known of a document beside its text, such as its year.

    where = parse_where('year >= 2020 and lang in ("de", "en")')
    mask = Attributes.from_columns({"year": [2019, 2021], "lang": ["de", "en"]}).matching(where)

`expressions` holds the conditions in a canonical form, `where` reads them from text, `attributes`
says which rows fit, and `milvus` writes them in the language of another engine.
"""

from retrodistill.data.filters.attributes import Attributes
from retrodistill.data.filters.expressions import (
    Among,
    And,
    Compare,
    Expression,
    Missing,
    Not,
    Or,
    all_of,
    any_of,
)
from retrodistill.data.filters.milvus import milvus_filter
from retrodistill.data.filters.where import parse_where, read_conditions

__all__ = [
    "Among",
    "And",
    "Attributes",
    "Compare",
    "Expression",
    "Missing",
    "Not",
    "Or",
    "all_of",
    "any_of",
    "milvus_filter",
    "parse_where",
    "read_conditions",
]
