"""Causal language models that answer yes or no: their prompt, and how it becomes part of them."""

import copy
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Rows
from retrodistill.models.inference.templates import Prompts, Template, special_tokens
from retrodistill.models.students.cross_encoder import default_prompt

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


class PairPrompt:
    """The prompt of a pair and its answers: what training and scoring of a reranker share.

    The prompt is `template`, else the model's own, as `CausalTeacher` describes them. Prompts are
    padded at the left, so that the last token, whose logits answer, is never padding.

    Raises:
        ConfigError: no prompt fits the model, it leaves no room for texts, or an answer is not one
            token, or the same for yes and for no.

    """

    def __init__(
        self,
        model: "CrossEncoder",
        *,
        max_tokens: int,
        template: str = "",
        instruction: str = "",
        yes: str = "",
        no: str = "",
    ) -> None:
        from sentence_transformers.cross_encoder.modules import LogitScore

        self.text, self.special = prompt_of(model, template, instruction)
        self._body: Any = model[0]
        self._template = Template(
            model.tokenizer, self.text, SLOTS, max_tokens=max_tokens, special=(self.special, ())
        )
        head: Any = model[-1]
        self.yes = self._template.answer(yes) if yes else head.true_token_id
        self.no = self._template.answer(no) if no else head.false_token_id
        if self.yes == self.no:
            raise ConfigError(
                "this model has the same token for yes and for no. Name its answers: "
                "--option yes=WORD --option no=WORD, or --answers of train."
            )
        self.modules: tuple[torch.nn.Module, torch.nn.Module] = (
            self._body,
            LogitScore(self.yes, self.no),
        )
        """What scores the features: for `run_model`."""

    def fill(
        self, queries: tuple[Sequence[str], Rows], docs: tuple[Sequence[str], Rows]
    ) -> Prompts:
        """Return the prompts of pairs, given distinct texts and each pair's row of them."""
        return self._template.fill({"query": queries, "doc": docs})

    def features(self, rows: Sequence[Sequence[int]], device: "torch.device") -> dict[str, Any]:
        """Return prompts' token ids as the model's inputs, for the logits of the last token."""
        from retrodistill.models.inference import model_inputs

        inputs = model_inputs(self._body.model, self._body.tokenizer, rows, device, left=True)
        return inputs | {"logits_to_keep": 1}


def with_prompt(
    model: "CrossEncoder", template: str = "", answers: Sequence[str] = ()
) -> "CrossEncoder":
    """Return a copy of a causal reranker that holds its prompt and its answers, and saves them.

    `template` has `{query}` and `{doc}`, `answers` are the words for yes and no as they follow it
    (" yes", with its space, after a colon). By default both are what the teacher `causal-lm` would
    take. The template becomes the model's chat template, which the roles query and document fill,
    so that whatever loads the model asks the same; a chat template of its own gives way to it.

    Raises:
        ConfigError: as `PairPrompt` does.

    """
    from sentence_transformers.cross_encoder.modules import LogitScore

    copied = copy.deepcopy(model)
    body: Any = copied[0]
    yes, no = answers or ("", "")
    prompt = PairPrompt(model, max_tokens=int(1e9), template=template, yes=yes, no=no)
    copied[-1] = LogitScore(prompt.yes, prompt.no)
    if not template and chat_prompt(model, default_prompt(model)):
        return copied
    start = copied.tokenizer.decode(prompt.special) if prompt.special else ""
    copied.tokenizer.chat_template = _as_chat_template(start + prompt.text)
    copied.prompts, copied.default_prompt_name = {}, None
    body.processing_kwargs.pop("chat_template", None)
    body.modality_config["message"] = {**body.modality_config["text"], "format": "flat"}
    body.input_formatter.message_format = "flat"
    body.input_formatter.supported_modalities = list(body.modality_config)
    return copied


def _as_chat_template(text: str) -> str:
    """Return a prompt with `{query}` and `{doc}` as a chat template for the messages of a pair."""
    roles = {"query": "query", "doc": "document"}
    parts = re.split(rf"\{{({'|'.join(SLOTS)})\}}", text)
    pieces = [
        f"(messages | selectattr('role', 'equalto', '{roles[piece]}') | first).content"
        if number % 2
        else json.dumps(piece, ensure_ascii=False)
        for number, piece in enumerate(parts)
    ]
    return "{{ " + " ~ ".join(pieces) + " }}"


def prompt_of(model: "CrossEncoder", template: str, instruction: str) -> tuple[str, list[int]]:
    """Return a reranker's prompt with `{query}` and `{doc}`, and the tokens put before it.

    Raises:
        ConfigError: there is neither a template nor one that fits the model.

    """
    instruction = instruction or default_prompt(model)
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
