"""Pairwise teachers: which of two documents answers a query better."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Comparisons, Pairs, Unit
from retrodistill.models.inference import token_batches
from retrodistill.models.inference.options import DEFAULTS, ModelOptions
from retrodistill.models.teachers.comparisons import comparisons_of, in_both_orders, mean_preference
from retrodistill.models.teachers.language_models import (
    LanguageModel,
    decoder_start,
    in_batches,
    load_language_model,
)
from retrodistill.models.teachers.templates import Template, one_token, special_tokens

if TYPE_CHECKING:
    import torch


SLOTS = ("query", "first", "second")
SEQ2SEQ = "Query: {query} Document0: {first} Document1: {second} Relevant:"


class PairwiseTeacher:
    """Preferences of a duo model, asked in both orders; its score is a round-robin's mean.

    An encoder-decoder (duoT5) reads `Query: ... Document0: ... Document1: ... Relevant:` and
    answers with the token `yes` or `no`. A sequence classifier (duoBERT) reads the query, then
    both documents with a separator between them; its one logit, or its second minus its first,
    is the log-odds that the first document is better. What is longer than `max_tokens` is cut:
    the documents evenly.

    As a teacher of scores, each candidate meets the next `opponents` of its list (0: all others),
    and its score is the mean log p that it is better, over the comparisons that it is in.

    The body runs in `precision`, the head and all that follows in float32 or wider.

    Source: Nogueira et al. 2019, arXiv:1910.14424 (duoBERT), and Pradeep et al. 2021,
    arXiv:2101.05667 (duoT5).
    """

    scale = "log-probability"
    unit: Unit = "list"

    def __init__(
        self,
        model: str,
        options: ModelOptions = DEFAULTS,
        *,
        opponents: int = 0,
        yes: str = "true",
        no: str = "false",
    ) -> None:
        if opponents < 0:
            raise ConfigError(f"opponents must be at least 0 (all others), got {opponents}.")
        self._model = load_language_model(model, "pairwise", ("seq2seq", "classifier"), options)
        self._batch_tokens = options.batch_tokens
        self._opponents = opponents
        tokenizer = self._model.tokenizer
        generates = self._model.kind == "seq2seq"
        self._template = Template(
            tokenizer,
            SEQ2SEQ if generates else classifier_template(self._model),
            SLOTS,
            max_tokens=options.max_tokens,
            special=special_tokens(tokenizer),
        )
        self._answers = [one_token(tokenizer, word) for word in (no, yes)] if generates else []
        self._start = decoder_start(self._model) if generates else []
        self.fingerprint = digest(
            self._model.fingerprint,
            self._template.text,
            f"{options.max_tokens} {opponents} {self._answers}",
        )

    def compare(self, comparisons: Comparisons) -> NDArray[np.float32]:
        """Return log p(first is better than second) of each comparison, in nats.

        Both orders are asked, and their log-probabilities averaged; a comparison and its mirror in
        one call agree exactly.
        """
        return in_both_orders(comparisons, self._log_odds)

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the mean log p(it is better) of each candidate against its opponents."""
        comparisons = comparisons_of(pairs, self._opponents)
        return mean_preference(pairs, comparisons, self.compare(comparisons))

    def _log_odds(self, comparisons: Comparisons) -> NDArray[np.float32]:
        """Return log p / (1 - p) that the first document is better, in this order only."""
        docs = [doc.full_text for doc in comparisons.docs]
        prompts = self._template.fill(
            {
                "query": (
                    [query.full_text for query in comparisons.queries],
                    comparisons.query_rows,
                ),
                "first": (docs, comparisons.first_rows),
                "second": (docs, comparisons.second_rows),
            }
        )
        typed = "token_type_ids" in self._model.tokenizer.model_input_names
        query_ends = prompts.parts[0] + len(self._template.special[0])

        def log_odds_of(positions: NDArray[np.int64]) -> "torch.Tensor":
            inputs = self._model.inputs([prompts.ids(position) for position in positions])
            logits: torch.Tensor
            if self._model.kind == "seq2seq":
                starts = np.tile(self._start, (len(positions), 1))
                inputs |= self._model.tensors(decoder_input_ids=starts)
                logits = self._model(**inputs).logits[:, -1, self._answers]
                return logits[:, 1] - logits[:, 0]
            if typed:
                width = inputs["input_ids"].shape[1]
                seconds = (np.arange(width) >= query_ends[positions, None]).astype(np.int64)
                types = self._model.tensors(types=seconds)["types"]
                inputs["token_type_ids"] = types * inputs["attention_mask"]
            logits = self._model(**inputs).logits
            return logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0.0)

        return in_batches(list(token_batches(prompts.lengths, self._batch_tokens)), log_odds_of)


def classifier_template(model: LanguageModel) -> str:
    """Return the template of a sequence classifier for a query and two documents.

    Raises:
        ConfigError: the model gives more than two numbers, or its tokenizer has no separator.

    """
    labels, tokenizer = model.model.config.num_labels, model.tokenizer
    if labels > 2:
        raise ConfigError(
            f"teacher pairwise needs a classifier of one or two numbers, but this gives {labels}."
        )
    if tokenizer.sep_token is None:
        raise ConfigError("teacher pairwise needs a classifier whose tokenizer has a separator.")
    between = tokenizer.num_special_tokens_to_add(pair=True) - sum(
        map(len, special_tokens(tokenizer))
    )
    return f"{{query}}{tokenizer.sep_token * between}{{first}}{tokenizer.sep_token}{{second}}"
