"""Readers as teachers: cross-attention to each passage when the answer begins."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.manifest import digest
from retrodistill.base.types import Pairs, Reads, Rows, Unit
from retrodistill.models.inference import token_batches
from retrodistill.models.inference.options import DEFAULTS, ModelOptions
from retrodistill.models.inference.templates import Prompts, Template, special_tokens
from retrodistill.models.teachers.language_models import decoder_start, load_language_model

if TYPE_CHECKING:
    import torch


TEMPLATE = "question: {query} {doc}"


class ReaderTeacher:
    """Mean log cross-attention of a fusion-in-decoder reader to each of a query's passages.

    The encoder reads each passage alone, as `question: ... title: ... context: ...`, cut at
    `max_tokens`. The decoder looks at the passages of a query together, and begins its answer.
    A passage's score is the mean, over layers, heads and the passage's tokens, of the log of
    the attention: at most 0. Within a query this differs by one constant from the mean of the
    attention before its softmax, which is what the published code averages, so that a softmax
    over a query's passages gives the published targets. Attention below 1e-38 counts as that.

    One query's passages are in memory at a time. Body and attention run in `precision`.

    Source: Izacard and Grave 2020, arXiv:2012.04584, and their published code.
    """

    scale = "attention"
    unit: Unit = "list"
    reads: Reads = "fields"

    def __init__(
        self,
        model: str,
        options: ModelOptions = DEFAULTS,
    ) -> None:
        self._model = load_language_model(model, "reader", ("seq2seq",), options, attention="eager")
        self._batch_tokens = options.batch_tokens
        self._start = decoder_start(self._model)
        tokenizer = self._model.tokenizer
        self._template = Template(
            tokenizer,
            TEMPLATE,
            ("query", "doc"),
            max_tokens=options.max_tokens,
            special=special_tokens(tokenizer),
        )
        self.fingerprint = digest(self._model.fingerprint, TEMPLATE, str(options.max_tokens))

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return each passage's mean log attention among the passages of its query."""
        import torch

        prompts = self._template.fill(
            {
                "query": ([query.full_text for query in pairs.queries], pairs.query_rows),
                "doc": (
                    [f"title: {doc.title} context: {doc.text}" for doc in pairs.docs],
                    pairs.doc_rows,
                ),
            }
        )
        scores = np.empty(len(pairs), np.float32)
        with torch.inference_mode():
            for _, positions in pairs.by_query():
                if len(positions):
                    attention = self._attention(self._encodings(prompts, positions))
                    sizes = prompts.lengths[positions]
                    sums = np.add.reduceat(attention, np.cumsum(sizes) - sizes)
                    scores[positions] = sums / sizes
        return scores

    def _encodings(self, prompts: Prompts, positions: Rows) -> "torch.Tensor":
        """Return the encoder's states of all passages, one after another, without padding."""
        import torch

        passages: list[torch.Tensor] = [torch.empty(0)] * len(positions)
        encoder = self._model.model.get_encoder()
        for batch in token_batches(prompts.lengths[positions], self._batch_tokens):
            rows = [prompts.ids(position) for position in positions[batch]]
            states = self._model.run(encoder, **self._model.inputs(rows)).last_hidden_state
            for number, row, state in zip(batch, rows, states, strict=True):
                passages[number] = state[: len(row)]
        return torch.cat(passages)

    def _attention(self, states: "torch.Tensor") -> NDArray[np.float64]:
        """Return the mean over layers and heads of the log of the attention to each state."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        columns = {
            "attention_mask": np.ones((1, len(states)), np.int64),
            "decoder_input_ids": np.array([self._start]),
        }
        layers = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states[None]),
            **self._model.tensors(**columns),
            output_attentions=True,
            use_cache=False,
        ).cross_attentions
        tiny = torch.finfo(torch.float32).tiny
        shares = torch.cat([layer[0, :, -1].float() for layer in layers]).clamp_min(tiny)
        means: NDArray[np.float64] = shares.log().double().mean(0).cpu().numpy()
        return means
