"""Pairwise teachers: which of two documents answers a query better."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Comparisons, Pairs, Unit
from retrodistill.models.inference import token_batches
from retrodistill.models.inference.options import DEFAULTS, ModelOptions
from retrodistill.models.inference.templates import Template, one_token, special_tokens
from retrodistill.models.teachers.comparisons import comparisons_of, in_both_orders, mean_preference
from retrodistill.models.teachers.language_models import (
    Kind,
    LanguageModel,
    decoder_start,
    in_batches,
    load_language_model,
)

if TYPE_CHECKING:
    import torch


SLOTS = ("query", "first", "second")
SEQ2SEQ = "Query: {query} Document0: {first} Document1: {second} Relevant:"
CAUSAL = (
    'Given a query "{query}", which of the following two passages is more relevant to the query?\n'
    "Passage A: {first}\nPassage B: {second}\nOutput Passage A or Passage B: Passage"
)
"""The prompt of pairwise ranking prompting, whose answers share their first word."""

ANSWERS: dict[Kind, tuple[str, str]] = {"seq2seq": ("true", "false"), "causal": (" A", " B")}
"""What a generating model says for the first and for the second document."""


class PairwiseTeacher:
    """Preferences of a duo model, asked in both orders; its score is a round-robin's mean.

    An encoder-decoder (duoT5) reads `Query: ... Document0: ... Document1: ... Relevant:` and
    answers with the token `yes` or `no`. A sequence classifier (duoBERT) reads the query, then
    both documents with a separator between them; its one logit, or its second minus its first,
    is the log-odds that the first document is better. A causal language model reads CAUSAL and
    answers A or B. `template` is another prompt of a generating model, with `{query}`, `{first}`
    and `{second}`; `yes` and `no` are its answers, one token each, that the first document is
    better or that it is not. What is longer than `max_tokens` is cut: the documents evenly.

    As a teacher of scores, each candidate meets the next `opponents` of its list (0: all others),
    and its score is the mean log p that it is better, over the comparisons that it is in.

    The body runs in `precision`, the head and all that follows in float32 or wider.

    Source: Nogueira et al. 2019, arXiv:1910.14424 (duoBERT), Pradeep et al. 2021,
    arXiv:2101.05667 (duoT5), and Qin et al. 2023, arXiv:2306.17563 (pairwise ranking prompting; its
    wording from memory).
    """

    scale = "log-probability"
    unit: Unit = "list"

    def __init__(
        self,
        model: str,
        options: ModelOptions = DEFAULTS,
        *,
        opponents: int = 0,
        template: str = "",
        yes: str = "",
        no: str = "",
    ) -> None:
        if opponents < 0:
            raise ConfigError(f"opponents must be at least 0 (all others), got {opponents}.")
        self._model = load_language_model(
            model, "pairwise", ("seq2seq", "classifier", "causal"), options
        )
        self._batch_tokens = options.batch_tokens
        self._opponents = opponents
        kind, tokenizer = self._model.kind, self._model.tokenizer
        if kind == "classifier" and (template or yes or no):
            raise ConfigError(
                f"{model!r} is a classifier, which has no prompt: omit template, yes and no."
            )
        own = {"seq2seq": SEQ2SEQ, "causal": CAUSAL}
        before, after = special_tokens(tokenizer)
        self._template = Template(
            tokenizer,
            template or own.get(kind) or classifier_template(self._model),
            SLOTS,
            max_tokens=options.max_tokens,
            # what a causal model answers must follow its prompt
            special=(before, () if kind == "causal" else after),
        )
        self._answers = self._answer_tokens(no, yes)
        self._start = decoder_start(self._model) if kind == "seq2seq" else []
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

    def _answer_tokens(self, no: str, yes: str) -> list[int]:
        """Return the tokens that the second, and that the first document is better."""
        kind, tokenizer = self._model.kind, self._model.tokenizer
        if kind == "classifier":
            return []
        words = [given or usual for given, usual in zip((yes, no), ANSWERS[kind], strict=True)]
        follows = kind == "causal"
        tokens = [
            self._template.answer(word) if follows else one_token(tokenizer, word)
            for word in reversed(words)
        ]
        if tokens[0] == tokens[1]:
            raise ConfigError(f"the answers {words} are the same token: set yes and no.")
        return tokens

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
            causal = self._model.kind == "causal"
            rows = [prompts.ids(position) for position in positions]
            inputs = self._model.inputs(rows, left=causal)
            logits: torch.Tensor
            if self._answers:
                starts = np.tile(self._start, (len(positions), 1))
                extra = (
                    {"logits_to_keep": 1}
                    if causal
                    else self._model.tensors(decoder_input_ids=starts)
                )
                logits = self._model(**inputs, **extra).logits[:, -1, self._answers]
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
