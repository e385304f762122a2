"""Cross-encoder teachers: the query and the document are read together."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.config import Precision
from retrodistill.errors import ConfigError
from retrodistill.types import Pairs, Unit

if TYPE_CHECKING:
    from retrodistill.datasets import Collection


class CrossEncoderTeacher:
    """Raw logits of a sentence-transformers or transformers cross-encoder."""

    scale = "logit"
    unit: Unit = "pair"

    def __init__(
        self,
        model: str,
        collection: "Collection | None" = None,
        *,
        max_tokens: int = 256,
        batch_tokens: int = 4096,
        precision: Precision = "auto",
    ) -> None:
        from retrodistill.inference import body_dtype, pick_device
        from retrodistill.manifest import digest
        from retrodistill.students.cross_encoder import load_cross_encoder
        from retrodistill.students.dense import fingerprint

        if not model:
            raise ConfigError("teacher cross-encoder needs a model: cross-encoder:FOLDER.")
        self._device = pick_device()
        self._dtype = body_dtype(precision, self._device)
        self._model = load_cross_encoder(model, self._device).eval()
        self._max_tokens = min(max_tokens, self._model.max_seq_length or max_tokens)
        self._batch_tokens = batch_tokens
        self.fingerprint = digest(fingerprint(self._model), str(self._max_tokens), str(self._dtype))

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return one raw logit a pair, in float32."""
        import torch

        from retrodistill.inference import padded, run_model, token_batches, tokenize

        tokenizer = self._model.tokenizer
        rows = tokenize(
            tokenizer,
            [pairs.queries[row].full_text for row in pairs.query_rows],
            [pairs.docs[row].full_text for row in pairs.doc_rows],
            max_tokens=self._max_tokens,
        )
        scores = np.empty(len(rows), np.float32)
        lengths = [len(row["input_ids"]) for row in rows]
        with torch.inference_mode():
            for places in token_batches(lengths, self._batch_tokens):
                features = padded(tokenizer, [rows[place] for place in places], self._device)
                output = run_model(self._model, features, self._dtype)["scores"]
                scores[places] = output.float().reshape(-1).cpu().numpy()
        return scores
