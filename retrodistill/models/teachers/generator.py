"""Generators as teachers: log-likelihood of the query given the document."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Pairs, Rows, Unit
from retrodistill.models.inference import padded_rows, token_batches
from retrodistill.models.inference.options import DEFAULTS, ModelOptions
from retrodistill.models.inference.templates import Template, special_tokens
from retrodistill.models.teachers.language_models import (
    decoder_start,
    in_batches,
    load_language_model,
)

if TYPE_CHECKING:
    import torch


TEMPLATE = "Passage: {doc}. Please write a question based on this passage."
LOGITS_AT_ONCE = 1 << 26
"""Numbers of one matrix of logits: 256 MB in float32."""


class GeneratorTeacher:
    """Log-likelihood of the query's tokens given the document, in nats.

    An encoder-decoder reads `template` with the document in `{doc}` and writes the query; a
    causal model reads it and continues with the query, after a space. The score is the mean over
    the query's tokens, or their sum with `per_token=false`; the end of the text is not counted.
    The document is cut to fit in `max_tokens`, the template never; a query is cut at `max_tokens`,
    and by a causal model at half of what the template leaves. The body runs in `precision`, the
    head and the log-softmax in float32, for the query's tokens only.

    Source: Sachan et al. 2022, arXiv:2204.07496 (their published code sums, and counts the end).
    """

    scale = "log-probability"
    unit: Unit = "pair"
    given: tuple[str, ...] = ("doc",)
    """Slots of its template."""

    target = "query"
    """What follows the template, and is scored."""

    def __init__(
        self,
        model: str,
        options: ModelOptions = DEFAULTS,
        *,
        template: str = TEMPLATE,
        per_token: bool = True,
    ) -> None:
        self._model = load_language_model(model, "generator", ("causal", "seq2seq"), options)
        self._batch_tokens = options.batch_tokens
        self._per_token = per_token
        if f"{{{self.target}}}" in template:
            raise ConfigError(
                f"the {self.target} follows a generator's template, not in {template!r}."
            )
        tokenizer = self._model.tokenizer
        max_tokens = options.max_tokens
        before, after = special_tokens(tokenizer)
        if self._model.kind == "causal":
            self._prompt = Template(
                tokenizer,
                f"{template} {{{self.target}}}",
                (*self.given, self.target),
                steady=True,
                max_tokens=max_tokens,
                special=(before, ()),
            )
        else:
            self._start = decoder_start(self._model)
            self._prompt = Template(
                tokenizer,
                template,
                self.given,
                max_tokens=max_tokens,
                special=(before, after),
            )
            alone = f"{{{self.target}}}"
            self._target = Template(tokenizer, alone, (self.target,), max_tokens=max_tokens)
        self.fingerprint = digest(
            self._model.fingerprint, template, str(max_tokens), str(per_token)
        )

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the log-likelihood of each pair's query, or of what else is the target.

        Raises:
            DataError: it has no tokens.

        """
        reading = (
            self._continuations(pairs) if self._model.kind == "causal" else self._decodings(pairs)
        )
        empty = np.flatnonzero(reading.targets == 0)
        if len(empty):
            query = pairs.queries[pairs.query_rows[empty[0]]]
            whose = "" if self.target == "query" else f"the {self.target} of "
            raise DataError(f"{whose}query {query.id!r} has no tokens, so it has no likelihood.")
        vocabulary = self._model.model.get_output_embeddings().weight.shape[0]
        batches = [
            rows
            for batch in token_batches(reading.lengths, self._batch_tokens)
            for rows in _split(batch, int(reading.targets[batch].max()) * vocabulary)
        ]
        scores = in_batches(batches, reading.likelihoods)
        return (scores / reading.targets).astype(np.float32) if self._per_token else scores

    def texts(self, pairs: Pairs) -> Mapping[str, tuple[Sequence[str], Rows]]:
        """Return the distinct texts of each slot, and each pair's row among them."""
        return {
            "doc": ([doc.full_text for doc in pairs.docs], pairs.doc_rows),
            "query": ([query.full_text for query in pairs.queries], pairs.query_rows),
        }

    def _continuations(self, pairs: Pairs) -> "_Reading":
        """Return the pairs as a causal model reads them: the target at the end of its text."""
        prompts = self._prompt.fill(self.texts(pairs))
        targets = prompts.parts[-1]

        def likelihoods(positions: Rows) -> "torch.Tensor":
            rows = [prompts.ids(position) for position in positions]
            ends = [row[-size:] for row, size in zip(rows, targets[positions], strict=True)]
            logits = self._model(
                **self._model.inputs(rows, left=True),
                logits_to_keep=int(targets[positions].max()) + 1,
                use_cache=False,
            ).logits
            return self._log_likelihood(logits[:, :-1], ends, left=True)

        return _Reading(prompts.lengths, targets, likelihoods)

    def _decodings(self, pairs: Pairs) -> "_Reading":
        """Return the pairs as an encoder-decoder reads them: the target in the decoder."""
        texts = self.texts(pairs)
        prompts = self._prompt.fill(texts)
        targets = self._target.fill(texts)

        def likelihoods(positions: Rows) -> "torch.Tensor":
            ends = [targets.ids(position) for position in positions]
            begun, _ = padded_rows([self._start + end[:-1] for end in ends], 0)
            logits = self._model(
                **self._model.inputs([prompts.ids(position) for position in positions]),
                **self._model.tensors(decoder_input_ids=begun),
                use_cache=False,
            ).logits
            return self._log_likelihood(logits[:, len(self._start) - 1 :], ends)

        return _Reading(prompts.lengths + targets.lengths, targets.lengths, likelihoods)

    def _log_likelihood(
        self, logits: "torch.Tensor", targets: Sequence[list[int]], *, left: bool = False
    ) -> "torch.Tensor":
        """Return the summed log-probabilities of each row's targets under logits (B, T, V)."""
        ids, real = padded_rows(targets, 0, left=left)
        tensors = self._model.tensors(ids=ids, real=real)
        chosen = logits.gather(-1, tensors["ids"][..., None])[..., 0]
        nats: torch.Tensor = (chosen - logits.logsumexp(-1)) * tensors["real"]
        return nats.sum(1)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Tokenised pairs, and how the model scores them."""

    lengths: Rows
    """Tokens of each pair."""

    targets: Rows
    """Tokens of each pair's target."""

    likelihoods: "Callable[[Rows], torch.Tensor]"
    """From positions of pairs to their summed log-likelihoods."""


def _split(batch: Rows, logits: int) -> Iterator[Rows]:
    """Yield a batch in pieces of at most LOGITS_AT_ONCE logits, `logits` being a row's."""
    size = max(1, LOGITS_AT_ONCE // max(1, logits))
    for start in range(0, len(batch), size):
        yield batch[start : start + size]
