"""Causal language models as rerankers: log-odds of yes over no."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Pairs, Unit
from retrodistill.models.inference.options import DEFAULTS, ModelOptions

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder


class CausalTeacher:
    """The logit of the word `yes` minus that of `no`, after a prompt with query and document.

    The prompt is, in this order: `template`, with `{instruction}`, `{query}` and `{doc}`; the
    model's own chat template, if it knows the roles `query` and `document`, with the instruction
    as the system's message; that of Qwen3-Reranker, for models with the `<|im_start|>` of Qwen. The
    instruction is `instruction`, or the model's own default prompt, or (for Qwen's) its usual one.
    The words are `yes` and `no`, as the tokenizer reads them right after the prompt, or else the
    tokens that the model itself names (of a bare transformer: those spelt yes and no).

    Of what is longer than `max_tokens`, the document loses its end, or a query that is more than
    half of it, never the prompt. Only the logits of the last token are computed, in float32; the
    body runs in `precision`. A model given as an object is used on its own device.
    """

    scale = "logit"
    unit: Unit = "document"

    def __init__(
        self,
        model: "str | CrossEncoder",
        options: ModelOptions = DEFAULTS,
        *,
        template: str = "",
        instruction: str = "",
        yes: str = "",
        no: str = "",
    ) -> None:
        from retrodistill.base.manifest import digest
        from retrodistill.models.inference import body_dtype, pick_device
        from retrodistill.models.students.causal_reranker import PairPrompt
        from retrodistill.models.students.cross_encoder import load_causal_reranker
        from retrodistill.models.students.towers import fingerprint
        from retrodistill.models.teachers.language_models import check_length

        if not model:
            raise ConfigError("teacher causal-lm needs a model: causal-lm:FOLDER or a hub id.")
        if isinstance(model, str):
            model = load_causal_reranker(model, pick_device())
        model.eval()
        self._device = model.device
        self._dtype = body_dtype(options.precision, self._device)
        self._batch_tokens = options.batch_tokens
        check_length(model[0].model, model.tokenizer, options.max_tokens)
        self._prompt = PairPrompt(
            model,
            max_tokens=options.max_tokens,
            template=template,
            instruction=instruction,
            yes=yes,
            no=no,
        )
        self.fingerprint = digest(
            fingerprint(model),
            self._prompt.text,
            f"{list(self._prompt.special)} {self._prompt.yes} {self._prompt.no} "
            f"{options.max_tokens} {self._dtype}",
        )

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the logit of yes minus the logit of no for each pair."""
        from retrodistill.models.inference import run_model, token_batches
        from retrodistill.models.teachers.language_models import in_batches

        prompts = self._prompt.fill(
            ([query.full_text for query in pairs.queries], pairs.query_rows),
            ([doc.full_text for doc in pairs.docs], pairs.doc_rows),
        )

        def logits_of(positions: NDArray[np.int64]) -> "torch.Tensor":
            rows = [prompts.ids(position) for position in positions]
            features = self._prompt.features(rows, self._device)
            scores: torch.Tensor = run_model(self._prompt.modules, features, self._dtype)["scores"]
            return scores.reshape(-1)

        return in_batches(list(token_batches(prompts.lengths, self._batch_tokens)), logits_of)
