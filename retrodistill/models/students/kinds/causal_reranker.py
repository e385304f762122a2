"""Causal rerankers: a language model reads a prompt with query and document, and says yes or no."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from retrodistill.base.config import TrainSettings
from retrodistill.base.types import Rows
from retrodistill.models.inference import positions, token_batches
from retrodistill.models.students.causal_reranker import PairPrompt, with_prompt
from retrodistill.models.students.cross_encoder import load_causal_reranker
from retrodistill.models.students.kinds import CAUSAL_RERANKER, CardText, StudentKind
from retrodistill.models.students.kinds.cross_encoder import CPU, CrossEncoderTask, PairBatch


class PromptBatch(PairBatch):
    """Collate examples for a student that reads pairs within a prompt, which is never cut."""

    def __init__(self, model: Any, *args: Any, **options: Any) -> None:
        super().__init__(model, *args, **options)
        self._max_tokens = min(self._max_tokens, positions(model[0].model) or self._max_tokens)
        self._prompt = PairPrompt(model, max_tokens=self._max_tokens)

    def _chunks(
        self, queries: Sequence[str], owners: Rows, docs: Sequence[str]
    ) -> list[dict[str, Any]]:
        prompts = self._prompt.fill((queries, owners), (docs, np.arange(len(docs))))
        return [
            {
                "features": self._prompt.features([prompts.ids(row) for row in rows], CPU),
                "positions": torch.from_numpy(rows),
            }
            for rows in token_batches(prompts.lengths, self._batch_tokens)
        ]


def start(model: Any, settings: TrainSettings) -> Any:
    """Return a copy of the model that holds the prompt and the answers of the settings."""
    return with_prompt(model, settings.pair_prompt or "", settings.answers)


KIND = StudentKind(
    name="causal-reranker",
    noun="causal reranker",
    about="It reads a prompt with a query and a document; the score is the log-odds of its answer "
    "yes over no.",
    saved_as=(CAUSAL_RERANKER,),
    load=load_causal_reranker,
    start=start,
    task=CrossEncoderTask,
    batches=PromptBatch,
    teacher="causal-lm",
    settings=frozenset({"pair_prompt", "answers"}),
    card=CardText(
        library_class="CrossEncoder",
        pipeline="text-ranking",
        tags=("cross-encoder", "reranker", "causal-lm"),
        usage="model.predict([({query}, {doc})])",
    ),
)
