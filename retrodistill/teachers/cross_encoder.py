"""Cross-encoder teachers: the query and the document are read together."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.config import Precision
from retrodistill.errors import ConfigError
from retrodistill.types import Pairs, Unit

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from retrodistill.datasets import Collection


class CrossEncoderTeacher:
    """Raw logits of a sentence-transformers or transformers cross-encoder.

    Its work is cut by documents, so that each of them is tokenised once. A model that is given as
    an object is used where it is.
    """

    scale = "logit"
    unit: Unit = "document"

    def __init__(
        self,
        model: "str | CrossEncoder",
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
        if isinstance(model, str):
            model = load_cross_encoder(model, pick_device())
        self._model = model.eval()
        self._device = model.device
        self._dtype = body_dtype(precision, self._device)
        self._max_tokens = min(max_tokens, self._model.max_seq_length or max_tokens)
        self._batch_tokens = batch_tokens
        self.fingerprint = digest(fingerprint(self._model), str(self._max_tokens), str(self._dtype))

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return one raw logit a pair, in float32."""
        import torch

        from retrodistill.inference import pair_tokens, run_model, token_batches

        tokens = pair_tokens(
            self._model.tokenizer,
            [query.full_text for query in pairs.queries],
            [doc.full_text for doc in pairs.docs],
            (pairs.query_rows, pairs.doc_rows),
            max_tokens=self._max_tokens,
        )
        batches = list(token_batches(tokens.lengths, self._batch_tokens))
        # Read at the end only: a GPU then never waits for the next batch.
        found: list[torch.Tensor] = []
        with torch.inference_mode():
            for places in batches:
                features = tokens.batch(places, self._device)
                found.append(run_model(self._model, features, self._dtype)["scores"].reshape(-1))
        scores = np.empty(len(pairs), np.float32)
        if found:
            scores[np.concatenate(batches)] = torch.cat(found).float().cpu().numpy()
        return scores
