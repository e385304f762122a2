"""Causal language models as rerankers: log-odds of yes over no."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Pairs, Unit
from retrodistill.models.inference.options import DEFAULTS, ModelOptions
from retrodistill.models.teachers.templates import Template, special_tokens

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder


SLOTS = ("query", "doc")

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {doc}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""Prompt of Qwen3-Reranker, word for word as published."""


class CausalTeacher:
    """The logit of the word `yes` minus that of `no`, after a prompt with query and document.

    The prompt is, in this order: `template`, with `{instruction}`, `{query}` and `{doc}`; the
    model's own chat template, if it knows the roles `query` and `document`, with the instruction
    as the system's message; TEMPLATE, for models with the `<|im_start|>` of Qwen. The instruction
    is `instruction`, or the model's own default prompt, or (for TEMPLATE) INSTRUCTION. The words
    are `yes` and `no`, as the tokenizer reads them right after the prompt, or else the tokens that
    the model itself names (of a bare transformer: those spelt yes and no).

    Of what is longer than `max_tokens`, the document loses its end, or a query that is more than
    half of it, never the prompt. Only the logits of the last token are computed, in float32; the
    body runs in `precision`.
    """

    scale = "logit"
    unit: Unit = "document"

    def __init__(
        self,
        model: str,
        options: ModelOptions = DEFAULTS,
        *,
        template: str = "",
        instruction: str = "",
        yes: str = "",
        no: str = "",
    ) -> None:
        from retrodistill.base.manifest import digest
        from retrodistill.models.inference import body_dtype, pick_device
        from retrodistill.models.students.cross_encoder import load_causal_reranker
        from retrodistill.models.students.towers import fingerprint
        from retrodistill.models.teachers.language_models import check_length

        if not model:
            raise ConfigError("teacher causal-lm needs a model: causal-lm:FOLDER or a hub id.")
        self._device = pick_device()
        self._dtype = body_dtype(options.precision, self._device)
        self._model = load_causal_reranker(model, self._device).eval()
        self._batch_tokens = options.batch_tokens
        tokenizer = self._model.tokenizer
        check_length(self._model[0].model, tokenizer, options.max_tokens)
        text, special = prompt_of(self._model, template, instruction)
        self._template = Template(
            tokenizer, text, SLOTS, max_tokens=options.max_tokens, special=(special, ())
        )
        head: Any = self._model[-1]
        self._yes = self._template.answer(yes) if yes else head.true_token_id
        self._no = self._template.answer(no) if no else head.false_token_id
        if self._yes == self._no:
            raise ConfigError(
                f"{model!r} has the same token for yes and for no. "
                "Name its answers: --option yes=WORD --option no=WORD."
            )
        self.fingerprint = digest(
            fingerprint(self._model),
            text,
            f"{special} {self._yes} {self._no} {options.max_tokens} {self._dtype}",
        )

    def score(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return the logit of yes minus the logit of no for each pair."""
        from sentence_transformers.cross_encoder.modules import LogitScore
        from torch.nn import Sequential

        from retrodistill.models.inference import run_model, token_batches
        from retrodistill.models.teachers.language_models import in_batches, model_inputs

        prompts = self._template.fill(
            {
                "query": ([query.full_text for query in pairs.queries], pairs.query_rows),
                "doc": ([doc.full_text for doc in pairs.docs], pairs.doc_rows),
            }
        )
        body: Any = self._model[0]
        model = Sequential(body, LogitScore(self._yes, self._no))

        def logits_of(positions: NDArray[np.int64]) -> "torch.Tensor":
            rows = [prompts.ids(position) for position in positions]
            inputs = model_inputs(body.model, body.tokenizer, rows, self._device, left=True)
            outputs = run_model(model, inputs | {"logits_to_keep": 1}, self._dtype)
            scores: torch.Tensor = outputs["scores"]
            return scores.reshape(-1)

        return in_batches(list(token_batches(prompts.lengths, self._batch_tokens)), logits_of)


def prompt_of(model: "CrossEncoder", template: str, instruction: str) -> tuple[str, list[int]]:
    """Return a reranker's prompt with `{query}` and `{doc}`, and the tokens put before it.

    Raises:
        ConfigError: there is neither a template nor one that fits the model.

    """
    instruction = instruction or model.prompts.get(model.default_prompt_name or "") or ""
    if not template and (rendered := chat_prompt(model, instruction)):
        return rendered, []
    if not template and "<|im_start|>" not in model.tokenizer.get_vocab():
        raise ConfigError(
            "this causal model has no chat template with the roles query and document, and is "
            "not made for Qwen's. Give its prompt: "
            "--option 'template=Query: {query} Document: {doc} Relevant (yes or no):'."
        )
    if template and instruction and "{instruction}" not in template:
        raise ConfigError(f"an instruction needs {{instruction}} in the template: {template!r}.")
    text = (template or TEMPLATE).replace("{instruction}", instruction or INSTRUCTION)
    return text, special_tokens(model.tokenizer)[0]


def chat_prompt(model: "CrossEncoder", instruction: str) -> str:
    """Return the model's own chat template with `{query}` and `{doc}`; empty if it has none.

    Raises:
        ConfigError: there is an instruction, but no place for one.

    """
    body: Any = model[0]
    options = dict(body.processing_kwargs.get("chat_template", {}))
    options.pop("restore_suffix", None)  # sentence-transformers' own, about cutting
    formatter = body.input_formatter
    if formatter.pair_roles_failure(options) is not None:
        return ""
    pair = formatter.pair_to_messages(tuple(f"{{{slot}}}" for slot in SLOTS))

    def render(messages: Any) -> str:
        return str(body.processor.apply_chat_template(messages, tokenize=False, **options))

    plain = render(pair)
    if not instruction:
        return plain
    (instructed,) = formatter.prepend_prompt_to_messages([pair], instruction)
    if render(instructed) == plain:
        raise ConfigError("this model's chat template has no place for an instruction.")
    return render(instructed)
