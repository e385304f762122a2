"""Settings of `generate`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from retrodistill.base.config.base import Precision, at_least
from retrodistill.base.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateSettings:
    """Settings of `generate_queries`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "what to write": "write",
        "filters": "min_words",
        "new positives": "relabel",
        "models and machines": "option",
    }

    write: Literal["queries", "passages", "descriptions"] = "queries"
    """What to write: queries of documents; passages for the queries of --split, as a collection of
    passages; descriptions of documents, as a collection whose queries are the documents."""

    writer: tuple[str, ...] = ("titles",)
    """titles, causal-lm:MODEL or llm:NAME; several write one after the other."""

    kind: tuple[str, ...] = ()
    """What language models write: question, claim, keywords, title, instruction (a task and a
    query), or a kind of your own (default: question; with --write passages: passage and reasoning;
    with --write descriptions: description)."""

    wrong_kind: tuple[str, ...] = ()
    """What they write that is judged not relevant (default: distractor with --write passages,
    misdescription with --write descriptions)."""

    split: str = "train"
    """Queries to write passages for, whose relevant documents join the passages."""

    prompts: Path | None = None
    """Folder of prompts of your own, KIND.txt, which precede the package's."""

    docs: int | None = None
    """Documents to write for (passages, where files are cut; queries, with --write passages),
    sampled evenly over the collection (default: all)."""

    per_doc: int | None = None
    """Most queries of a document (default: all titles and headings of a file; a language model
    writes one of each kind for a passage)."""

    held_out: int | None = None
    """Documents to put aside (whole files, where these are cut into passages), whose queries stand
    in the split `held-out` alone, the others in `generated`."""

    seed: int = 0
    """Seed of the sampled and of the held-out documents, and of sampled queries."""

    min_words: int = 2
    """Drop queries of fewer words."""

    max_words: int | None = None
    """Drop queries of more words (default: 32; passages of more than 250)."""

    near_duplicates: float = 0.8
    """Drop a query whose words are at least this similar (Jaccard) to those of another; 1 drops
    the same words in another order alone."""

    round_trip: int | None = None
    """Drop queries that find none of their documents among this many best of --retriever."""

    retriever: str = "bm25"
    """First stage of --round-trip and --relabel: bm25, dense:MODEL, ..."""

    min_score: float | None = None
    """Drop queries that score lower with their source document, by --teacher. A passage or a
    description that does is judged not relevant, and a wrong one that does not is dropped."""

    teacher: str | None = None
    """Teacher of --min-score: cross-encoder:MODEL, llm:NAME (log-odds of yes), ..."""

    relabel: int | None = None
    """Make the best of a query's source and of this many documents of --retriever its positive,
    and the worst its negative, by reciprocal ranks of --ranker."""

    ranker: tuple[str, ...] = ()
    """Teacher of --relabel: generator:MODEL (query likelihood), cross-encoder:MODEL, ..."""

    ranker_option: tuple[str, ...] = ()
    """Setting of a --ranker: RANKER.name=value, such as `causal-lm.template=...`. May be given
    several times."""

    option: tuple[str, ...] = ()
    """Setting of the writers that have it: name=value, such as temperature=0.8. May be given
    several times."""

    teacher_option: tuple[str, ...] = ()
    """Setting of --teacher: name=value, such as grades=true for an llm. May be given several
    times."""

    max_tokens: int = 768
    """Longest prompt, in tokens; the document's end is cut."""

    batch_tokens: int = 8192
    """Padded tokens of a batch, those to be written included."""

    precision: Precision = "auto"
    """Number type of a model's body."""

    def options_of(self, ranker: str) -> tuple[str, ...]:
        """Return the settings of one --ranker, each `name=value`."""
        before = ranker.partition(":")[0] + "."
        mine = (option for option in self.ranker_option if option.startswith(before))
        return tuple(option.removeprefix(before) for option in mine)

    @property
    def most_words(self) -> int:
        """Words of the longest text that is kept."""
        default = 250 if self.write == "passages" else 32
        return default if self.max_words is None else self.max_words

    def _check_texts(self) -> None:
        """Raise ConfigError where passages or descriptions are to be written as queries are."""
        if self.write == "queries":
            if self.wrong_kind:
                raise ConfigError(
                    "--wrong-kind is for --write passages and --write descriptions: a query has a "
                    "negative by --relabel."
                )
            return
        flags = ("held_out", "round_trip", "relabel")
        for name in (each for each in flags if getattr(self, each) is not None):
            raise ConfigError(
                f"--{name.replace('_', '-')} is for queries, not for --write {self.write}."
            )
        if "titles" in self.writer:
            raise ConfigError(
                f"--write {self.write} needs a language model: --writer causal-lm:MODEL or "
                "llm:NAME."
            )
        if both := {*self.kind} & {*self.wrong_kind}:
            raise ConfigError(f"--kind and --wrong-kind are both {', '.join(sorted(both))}.")

    def __post_init__(self) -> None:
        self._check_texts()
        at_least(self, 1, "docs", "per_doc", "held_out", "min_words")
        at_least(self, 1, "round_trip", "relabel")
        at_least(self, 1, "batch_tokens")
        at_least(self, 8, "max_tokens")
        at_least(self, self.min_words, "max_words")
        at_least(self, 0.1, "near_duplicates")
        if self.near_duplicates > 1:
            raise ConfigError(
                f"--near-duplicates must be at most 1, but it is {self.near_duplicates}."
            )
        if (self.teacher is None) != (self.min_score is None):
            raise ConfigError("--teacher and --min-score need each other.")
        if self.teacher_option and self.teacher is None:
            raise ConfigError("--teacher-option needs --teacher.")
        if (self.relabel is None) != (not self.ranker):
            raise ConfigError("--relabel and --ranker need each other.")
        names = [spec.partition(":")[0] for spec in self.ranker]
        for option in self.ranker_option:
            if option.partition("=")[0].partition(".")[0] not in names:
                raise ConfigError(
                    f"--ranker-option {option!r} is of none of the rankers "
                    f"({', '.join(names) or 'none is given'}): write RANKER.name=value."
                )
        if not self.writer:
            raise ConfigError("give a --writer, such as titles.")
        for spec in self.writer:
            if self.writer.count(spec) > 1:
                raise ConfigError(f"--writer {spec} is given twice.")
        if (self.kind or self.prompts) and {*self.writer} == {"titles"}:
            raise ConfigError(
                "--kind and --prompts are for language models: give --writer causal-lm:MODEL or "
                "llm:NAME."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateConfig(GenerateSettings):
    """Settings of `python -m retrodistill.generate`."""

    GROUPS: ClassVar[Mapping[str, str]] = {"documents": "data", "output": "overwrite"}

    data: str
    """Collection: beir:PATH, docs:PATH, irds:ID, hf:ID or builtin:pydocs."""

    out: Path
    """Folder of queries to write: queries.jsonl and qrels/."""

    overwrite: bool = False
    """Replace what is at --out."""
