"""Lets writers write, and drops what no later step would keep."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.config import GenerateSettings
from retrodistill.base.logging import log
from retrodistill.base.types import Doc
from retrodistill.models.writers import Draft, WriterOptions, load_writer
from retrodistill.models.writers.prompts import Prompt, read_prompts
from retrodistill.stages.generating.filters import checks

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

KINDS = {
    "queries": (("question",), ()),
    "passages": (("passage", "reasoning"), ("distractor",)),
    "descriptions": (("description",), ("misdescription",)),
}
"""What is written -> the kinds of relevant texts, and of wrong ones, unless others are chosen."""


def kinds_of(settings: GenerateSettings) -> tuple[Sequence[str], Sequence[str]]:
    """Return the kinds of relevant and of wrong texts."""
    right, wrong = KINDS[settings.write]
    return settings.kind or right, settings.wrong_kind or wrong


def prompts_of(settings: GenerateSettings) -> tuple[Prompt, ...]:
    """Return the prompts of all kinds.

    Raises:
        ConfigError: a kind has no prompt, or one for another side.
        DataError: a file is not of the form.

    """
    right, wrong = kinds_of(settings)
    slot = "{query}" if settings.write == "passages" else "{doc}"
    return read_prompts([*right, *wrong], settings.prompts, slot=slot)


def sampled(total: int, count: int | None, *, seed: int) -> NDArray[np.int64]:
    """Return `count` of `total` positions, in order: a random one of each of `count` equal parts.

    Returns all positions if `count` is None or not below `total`.
    """
    if count is None or count >= total:
        return np.arange(total)
    bounds = np.linspace(0, total, count + 1).astype(np.int64)
    return np.random.default_rng(seed).integers(bounds[:-1], bounds[1:])


def written(
    sources: Sequence[Doc], texts: "Texts", settings: GenerateSettings, dropped: Counter[str]
) -> list[tuple[str, str, Draft]]:
    """Return specification, fingerprint and draft of all that passes the filters of one draft.

    `texts` are all documents, or all queries, of the collection that the sources are of.
    """
    options = WriterOptions(
        per_doc=settings.per_doc,
        seed=settings.seed,
        prompts=prompts_of(settings),
        max_tokens=settings.max_tokens,
        batch_tokens=settings.batch_tokens,
        precision=settings.precision,
    )
    passed = []
    for spec in settings.writer:
        writer = load_writer(spec, texts, options, own=settings.option)
        _announce(spec, writer.estimate(sources), sources, settings)
        drafts = writer.write(sources)
        log.info(f"{spec}: {len(drafts):,} {settings.write} written.")
        for draft in drafts:
            problem = next(filter(None, (check(draft) for check in checks(settings))), "")
            dropped[problem] += 1
            if not problem:
                passed.append((spec, writer.fingerprint, draft))
    del dropped[""]
    return passed


def _announce(spec: str, estimate: str, sources: Sequence[Doc], settings: GenerateSettings) -> None:
    noun = "queries" if settings.write == "passages" else "documents"
    log.info(f"{spec}: {len(sources):,} {noun}" + (f", {estimate}." if estimate else "."))
