"""Cross-encoder teachers: logits of a model that reads query and document together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Pairs, Unit
from retrodistill.models.inference.options import DEFAULTS, ModelOptions

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from retrodistill.models.inference.pairs import PairTokens


class CrossEncoderTeacher:
    """Raw logits of a sentence-transformers or transformers cross-encoder.

    They are what its library's `predict` gives without an activation: with the model's default
    prompt, and, if it has one, with its chat template, which needs the roles `query` and
    `document`. Work is cut by documents, so that each of them is tokenised once (a chat template
    is rendered for each pair). A model given as an object is used on its own device.

    Raises:
        ConfigError: the model cannot be loaded, has no ranking head, or cannot read a pair.

    """

    scale = "logit"
    unit: Unit = "document"

    def __init__(
        self,
        model: "str | CrossEncoder",
        options: ModelOptions = DEFAULTS,
    ) -> None:
        from retrodistill.base.manifest import digest
        from retrodistill.models.inference import body_dtype, explained, pick_device, positions
        from retrodistill.models.students.cross_encoder import default_prompt, load_cross_encoder
        from retrodistill.models.students.towers import fingerprint

        if not model:
            raise ConfigError("teacher cross-encoder needs a model: cross-encoder:FOLDER.")
        name = model if isinstance(model, str) else ""
        if isinstance(model, str):
            model = load_cross_encoder(model, pick_device())
        self._model = model.eval()
        self._prompt = default_prompt(model)
        self._device = model.device
        self._dtype = body_dtype(options.precision, self._device)
        limits = self._model.max_seq_length, positions(self._model[0].model)
        self._max_tokens = min([options.max_tokens, *(limit for limit in limits if limit)])
        self._batch_tokens = options.batch_tokens
        self.fingerprint = digest(
            fingerprint(self._model), self._prompt, str(self._max_tokens), str(self._dtype)
        )
        if name:
            with explained(name):  # its chat template may not take a pair
                self._logits(["a"], ["a"], (np.zeros(1, np.int64), np.zeros(1, np.int64)))

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return one raw logit a pair, in float32."""
        queries = [query.full_text for query in pairs.queries]
        docs = [doc.full_text for doc in pairs.docs]
        return self._logits(queries, docs, (pairs.query_rows, pairs.doc_rows))

    def count_tokens(self, query: str, texts: Sequence[str]) -> int:
        """Return how many tokens the pairs of a query with texts have, after the cut."""
        from retrodistill.models.inference import reserved

        tokenizer: Any = self._model[0].tokenizer
        with reserved(tokenizer):
            rows = tokenizer([self._prompt + query, *texts], verbose=False)["input_ids"]
        length, *lengths = map(len, rows)
        return sum(min(self._max_tokens, length + other) for other in lengths)

    def cut_text(self, text: str, tokens: int) -> str:
        """Return the beginning of a text that has this number of tokens at most."""
        from retrodistill.models.inference import reserved

        tokenizer: Any = self._model[0].tokenizer
        with reserved(tokenizer):
            spans = tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )["offset_mapping"]
        return text if len(spans) <= tokens else text[: spans[tokens - 1][1]]

    def _logits(
        self, queries: list[str], docs: list[str], rows: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> NDArray[np.float32]:
        """Return the logits of pairs of rows of texts."""
        import torch

        from retrodistill.models.inference import casts_kept, run_model, token_batches

        tokens = self._tokens(queries, docs, rows)
        batches = list(token_batches(tokens.lengths, self._batch_tokens))
        # Read at the end only: a GPU then never waits for the next batch.
        logits: list[torch.Tensor] = []
        with casts_kept(self._dtype, self._device):
            for batch in batches:
                features = tokens.batch(batch, self._device)
                logits.append(run_model(self._model, features, self._dtype)["scores"].reshape(-1))
        scores = np.empty(len(rows[0]), np.float32)
        if logits:
            scores[np.concatenate(batches)] = torch.cat(logits).float().cpu().numpy()
        return scores

    def _tokens(
        self, queries: list[str], docs: list[str], rows: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> "PairTokens":
        """Return the tokens of pairs, as the model's library makes them."""
        from retrodistill.models.inference import is_rendered, pair_tokens, rendered_pairs

        body, limit = self._model[0], self._max_tokens
        if is_rendered(body):
            return rendered_pairs(body, queries, docs, rows, prompt=self._prompt, max_tokens=limit)
        prompted = [self._prompt + query for query in queries]
        return pair_tokens(body.tokenizer, prompted, docs, rows, max_tokens=limit)
