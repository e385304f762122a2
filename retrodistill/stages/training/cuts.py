"""How many documents a student's token limit cuts, counted before its training."""

from typing import TYPE_CHECKING, Any

import numpy as np

from retrodistill.data.datasets.texts import spread_rows
from retrodistill.models.inference import counted_cuts, tokenize
from retrodistill.models.students.towers import side_prompts

if TYPE_CHECKING:
    from retrodistill.stages.training.material import Material

SAMPLED = 1000
"""Number of documents whose tokens are counted."""


def log_cut_documents(model: Any, material: "Material", doc_tokens: int) -> None:
    """Log how many of an even sample of the candidates are longer than the limit, if any is.

    Without lists, every document is trained on.
    """
    docs, lists = material.collection.docs, material.lists
    rows = np.arange(len(docs))
    if lists is not None:
        rows = np.unique(np.concatenate([lists.positives.values, lists.pool.values]))
    texts = docs.full_texts(rows[spread_rows(len(rows), SAMPLED)])
    _, prompt = side_prompts(model)
    noun = "documents" if len(rows) <= SAMPLED else "sampled documents"
    with counted_cuts(noun):
        tokenize(model.tokenizer, [prompt + text for text in texts], max_tokens=doc_tokens)
