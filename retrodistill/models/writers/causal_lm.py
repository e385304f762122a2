"""Causal language models of transformers as writers: a few examples, then the document."""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError
from retrodistill.base.logging import log
from retrodistill.base.manifest import cache_folder, digest
from retrodistill.base.progress import bar
from retrodistill.base.types import Doc
from retrodistill.data.datasets.texts import spread_rows
from retrodistill.models.inference import token_batches
from retrodistill.models.inference.cuts import counted_cuts
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.teachers.llm.answers import Answer
from retrodistill.models.teachers.llm.cache import AnswerCache
from retrodistill.models.writers.answers import bare_query
from retrodistill.models.writers.base import Draft, WriterOptions
from retrodistill.models.writers.prompts import Prompt

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts
    from retrodistill.models.inference.templates import Prompts
    from retrodistill.models.teachers.language_models import LanguageModel

LINE_END = ("\n", "Ċ", "<0x0A>")
"""How tokenizers write the end of a line, at which a query ends."""

SAMPLE = 64
"""Documents whose prompts are counted for the estimate."""

LONG = 60.0
"""Seconds of work of which the time is estimated, after the first batch."""


class CausalWriter:
    """Continues each prompt with a line: a query of its kind.

    At `temperature` 0 it is the likeliest token each time, so a document has one query of a kind;
    above, `per_doc` ones are sampled, of the likeliest tokens with `top_p` of the probability. A
    query that does not end within `answer_tokens` is a draft with a problem. What a batch wrote is
    kept in the cache, and a run that was killed resumes after its last batch.
    """

    def __init__(
        self,
        argument: str,
        docs: "Texts",
        options: WriterOptions,
        *,
        temperature: float = 0.0,
        top_p: float = 0.95,
        answer_tokens: int = 48,
    ) -> None:
        from retrodistill.models.inference.templates import Template, special_tokens
        from retrodistill.models.teachers.language_models import load_language_model

        self._count = options.per_doc or 1
        self._options = options
        _check(self._count, temperature, top_p, answer_tokens)
        self._sampling = {"temperature": temperature, "top_p": top_p} if temperature else {}
        self._answer_tokens = answer_tokens
        common = ModelOptions(
            max_tokens=options.max_tokens + answer_tokens, precision=options.precision
        )
        self._model: LanguageModel = load_language_model(argument, "causal-lm", ("causal",), common)
        tokenizer = self._model.tokenizer
        self._templates = [
            Template(
                tokenizer,
                prompt.text,
                (prompt.slot.strip("{}"),),
                max_tokens=options.max_tokens,
                special=(special_tokens(tokenizer)[0], ()),
            )
            for prompt in options.asked()
        ]
        self._ends = _line_ends(tokenizer)
        self._cache = AnswerCache(cache_folder("generate") / "answers.sqlite")
        seed = options.seed if temperature else 0
        shaping = (options.max_tokens, answer_tokens, self._count, sorted(self._sampling.items()))
        self.fingerprint = digest(
            self._model.fingerprint,
            *(prompt.fingerprint for prompt in options.asked()),
            *map(str, (*shaping, seed)),
        )

    def estimate(self, docs: Sequence[Doc]) -> str:
        """Return the tokens to read and to write; the time is known after the first batch."""
        sample = [docs[row] for row in spread_rows(len(docs), SAMPLE).tolist()]
        read = sum(self._filled(number, sample).lengths.sum() for number in self._kinds())
        total = int(read) * len(docs) // max(1, len(sample))
        written = len(docs) * len(self._templates) * self._count * self._answer_tokens
        return f"about {total:,} tokens to read and at most {written:,} to write"

    def write(self, docs: Sequence[Doc]) -> list[Draft]:
        """Return the queries for these documents."""
        with counted_cuts("prompts"):
            written = [self._continued(self._filled(number, docs)) for number in self._kinds()]
        return [
            _draft(line, prompt, doc, ended)
            for row, doc in enumerate(docs)
            for prompt, lines in zip(self._options.asked(), written, strict=True)
            for line, ended in lines[row]
        ]

    def _kinds(self) -> range:
        return range(len(self._templates))

    def _filled(self, number: int, docs: Sequence[Doc]) -> "Prompts":
        """Return the prompts of a kind; a document is one line in them."""
        texts = [" ".join(doc.full_text.split()) for doc in docs]
        field = self._options.asked()[number].slot.strip("{}")
        return self._templates[number].fill({field: (texts, np.arange(len(texts)))})

    def _continued(self, prompts: "Prompts") -> list[list[tuple[str, bool]]]:
        """Return what the model writes after each prompt, and whether the line ended."""
        lines: list[list[tuple[str, bool]]] = [[] for _ in range(len(prompts))]
        sizes = (prompts.lengths + self._answer_tokens) * self._count
        batches = [*token_batches(sizes, self._options.batch_tokens)]
        timed = False
        with bar("writing queries", len(prompts)) as advance:
            for number, batch in enumerate(batches):
                rows = [prompts.ids(row) for row in batch]
                key = digest(self.fingerprint, json.dumps(rows))
                kept = self._cache.get(key)
                if kept is None:
                    start = time.monotonic()
                    kept = self._generated(rows, seed=int(key[:8], 16))
                    self._cache.put(key, kept)
                    if not timed:
                        _log_time(time.monotonic() - start, sizes, batches[number:])
                    timed = True
                for row, answers in zip(batch, json.loads(kept.text), strict=True):
                    lines[row] = [(text, ended) for text, ended in answers]
                advance(len(batch))
        return lines

    def _generated(self, rows: Sequence[list[int]], *, seed: int) -> Answer:
        """Return the lines of a batch as they are cached: for each prompt text and whether ended.

        What is sampled depends on the batch's prompts and the seed alone.
        """
        import torch
        from transformers import GenerationConfig

        tokenizer = self._model.tokenizer
        settings: Any = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=self._answer_tokens,
            do_sample=bool(self._sampling),
            num_return_sequences=self._count,
            eos_token_id=self._ends,
            pad_token_id=tokenizer.pad_token_id or 0,
            **({"top_k": 0} | self._sampling if self._sampling else {}),
        )
        inputs = self._model.inputs(rows, left=True)
        inputs.pop("position_ids", None)  # generate counts them itself
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            tokens = self._model.run(
                self._model.model.generate, **inputs, generation_config=settings
            )
        written = tokens[:, inputs["input_ids"].shape[1] :].cpu().tolist()
        lines = [self._line(ids) for ids in written]
        groups = [lines[i : i + self._count] for i in range(0, len(lines), self._count)]
        return Answer(json.dumps(groups), None, sum(map(len, rows)), sum(map(len, written)))

    def _line(self, ids: Sequence[int]) -> tuple[str, bool]:
        """Return the text of the tokens up to the end of the line, and whether there is one."""
        end = next((place for place, id in enumerate(ids) if id in self._ends), None)
        text = self._model.tokenizer.decode(ids[:end], skip_special_tokens=True)
        return text.strip(), end is not None


def _check(count: int, temperature: float, top_p: float, answer_tokens: int) -> None:
    if not temperature >= 0:
        raise ConfigError(f"option temperature must be at least 0, but it is {temperature}.")
    if not 0 < top_p <= 1:
        raise ConfigError(f"option top_p must be above 0 and at most 1, but it is {top_p}.")
    if answer_tokens < 4:
        raise ConfigError(f"option answer_tokens must be at least 4, but it is {answer_tokens}.")
    if count > 1 and not temperature:
        raise ConfigError(
            f"--per-doc {count} would give the same query {count} times at temperature 0. Sample "
            "them: --option temperature=0.8."
        )


def _line_ends(tokenizer: Any) -> list[int]:
    """Return the tokens that end a text, or hold the end of a line."""
    tokens = tokenizer.get_vocab().items()
    ends = {id for token, id in tokens if any(sign in token for sign in LINE_END)}
    return sorted(ends | ({tokenizer.eos_token_id} - {None}))


def _draft(line: str, prompt: Prompt, doc: Doc, ended: bool) -> Draft:
    query = bare_query(line, label=prompt.label)
    problem = "" if ended else "unfinished answer"
    if not query:
        problem = "empty answer"
    elif prompt.is_copied(query, doc.full_text):
        problem = "copied from the prompt"
    return Draft(query, prompt.kind, doc.id, problem=problem)


def _log_time(
    seconds: float, sizes: NDArray[np.int64], batches: Sequence[NDArray[np.int64]]
) -> None:
    """Log the time that the batches will take, from that of the first, if it is long."""
    first, *rest = (int(sizes[batch].sum()) for batch in batches)
    if (left := seconds * sum(rest) / max(1, first)) > LONG:
        log.info(f"about {left / 60:,.0f} minutes for the queries that are not written yet.")
