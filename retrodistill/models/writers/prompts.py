"""Prompts for language models: what kind of text to write, with examples; plain text files.

A file `KIND.txt` has the task, examples, and at its end the slot of the document, or of the query
for which a passage is written, and the label before the answer:

    Write a question that the document answers.

    Document: Bees dance to show where the flowers are.
    Question: how do bees tell others about flowers?

    Document: {doc}
    Question:
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrodistill.base.errors import ConfigError, DataError, did_you_mean
from retrodistill.base.manifest import digest
from retrodistill.data.store.words import jaccard, words_of

FOLDER = Path(__file__).parent / "prompts"
SLOTS = {"{doc}": "document", "{query}": "query"}
"""Slot -> what a prompt that has it is about."""
DEFAULT = "question"

TOPIC_WORDS, LONG_WORD = 2, 5
"""Words of an example's topic, and their letters, that make a query one about the example."""

COMMON = frozenset(
    """
    after again almost although because before costs degrees effort gained groups ground level
    place stand their those training years
    """.split()  # noqa: SIM905 - words read better without quotes
)
"""Long words of the examples that are of no topic."""

ALIKE = 0.8
"""Jaccard similarity of words from which on an answer is a copy of an example."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A kind of text, and how a language model is asked for it."""

    kind: str
    text: str
    """It holds `{doc}` or `{query}`, and ends with the label."""

    @property
    def slot(self) -> str:
        """The slot of the text that it is about: `{doc}`, or `{query}`."""
        return next(slot for slot in SLOTS if slot in self.text)

    @property
    def label(self) -> str:
        """The last line, such as `Question:`."""
        return self.text.rpartition("\n")[2]

    @property
    def examples(self) -> list[str]:
        """The queries of the examples."""
        lines = self.text.split("\n")[:-1]
        return [line.removeprefix(self.label) for line in lines if line.startswith(self.label)]

    @property
    def topics(self) -> list[set[str]]:
        """The words of each example's document that are long, rare, and in no other's."""
        blocks = [block.split("\n") for block in self.text.split("\n\n")[1:-1]]
        docs = [" ".join(line for line in b if not line.startswith(self.label)) for b in blocks]
        words = [{word for word in words_of(doc) if len(word) >= LONG_WORD} for doc in docs]
        counts = Counter(word for doc in words for word in doc)
        return [{word for word in doc - COMMON if counts[word] == 1} for doc in words]

    @property
    def fingerprint(self) -> str:
        """Hash of kind and text."""
        return digest(self.kind, self.text)

    def question(self, doc: str, count: int) -> str:
        """Return the prompt for a model that follows instructions, for `count` queries."""
        label = self.label.rstrip(": ").lower()
        last = f"the last {SLOTS[self.slot]}"
        one = f"Write one {label} for {last}, on one line, and nothing else."
        many = f"Write {count} different ones for {last}, one a line, and nothing else."
        begun = self.text.removesuffix(self.label).replace(self.slot, doc)
        return f"{begun}\n{one if count == 1 else many}"

    def is_copied(self, query: str, doc: str) -> bool:
        """Tell whether a query is about an example instead of the document.

        It is nearly an example's query, or has two words of its topic that the document lacks.
        """
        words = set(words_of(query))
        topics = [words & topic - set(words_of(doc)) for topic in self.topics]
        return any(len(topic) >= TOPIC_WORDS for topic in topics) or any(
            jaccard(words, set(words_of(example))) >= ALIKE for example in self.examples
        )


def read_prompts(
    kinds: Sequence[str], folder: Path | None = None, *, slot: str = "{doc}"
) -> tuple[Prompt, ...]:
    """Return the prompts of these kinds, those of a folder before the package's own.

    Raises:
        ConfigError: a kind has no prompt, or one about the other side: with another slot.
        DataError: a file is not of the form.

    """
    known = {path.stem: path for path in sorted(FOLDER.glob("*.txt"))}
    if folder is not None:
        own = {path.stem: path for path in sorted(folder.glob("*.txt"))}
        if not own:
            raise ConfigError(f"--prompts {folder} has no file KIND.txt, such as question.txt.")
        known |= own
    prompts = []
    for kind in kinds or (DEFAULT,):
        if kind not in known:
            own_file = folder / f"{kind}.txt" if folder else f"FOLDER/{kind}.txt"
            raise ConfigError(
                f"--kind {kind} has no prompt.{did_you_mean(kind, known)} There are: "
                f"{', '.join(sorted(known))}. Write one of your own into {own_file} "
                "(--prompts FOLDER)."
            )
        prompt = _prompt(kind, known[kind])
        if prompt.slot != slot:
            raise ConfigError(
                f"--kind {kind} is written for a {SLOTS[prompt.slot]}, but here a {SLOTS[slot]} is "
                f"given ({known[kind].name} must hold {slot}). `--write passages` is for kinds "
                "that are written for queries."
            )
        prompts.append(prompt)
    return tuple(prompts)


def _prompt(kind: str, path: Path) -> Prompt:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it as UTF-8.") from None
    prompt = Prompt(kind, text)
    count = sum(text.count(slot) for slot in SLOTS)
    if count != 1:
        raise DataError(
            f"{path} must hold {{doc}} once, where the document goes (or {{query}}, for passages), "
            f"but holds it {count} times."
        )
    if prompt.slot in prompt.label or not prompt.label.endswith(":"):
        raise DataError(
            f"{path} must end with a line such as `Question:`, after which the query is written, "
            f"but ends with {prompt.label[:60]!r}."
        )
    return prompt
