"""Metadata filters: conditions on a document's attributes, such as its year.

    where = parse_where('year >= 2020 and lang in ("de", "en")')
    mask = Attributes.from_columns({"year": [2019, 2021], "lang": ["de", "en"]}).matching(where)

`expressions` holds conditions in a canonical form, `where` parses them, `attributes` finds the
matching rows, and `milvus` translates a condition into Milvus's filter language.
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
