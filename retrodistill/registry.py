"""Tables of interchangeable parts: a name, and where its code lives.

Nothing is imported until a name is asked for, so listing the parts costs nothing.
"""

import ast
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retrodistill.errors import ConfigError, did_you_mean

_paths_allowed = ContextVar("paths_allowed", default=True)


@contextmanager
def registered_only() -> Iterator[None]:
    """Refuse names that are paths to code: a stranger's file may not choose what is imported."""
    token = _paths_allowed.set(False)
    try:
        yield
    finally:
        _paths_allowed.reset(token)


def _signature(module: str, attribute: str) -> inspect.Signature:
    """Return the parameters of a module's function, without importing the module."""
    arguments = _functions(module)[attribute].args
    plain, named = arguments.args, arguments.kwonlyargs
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    defaults += [*arguments.defaults, *arguments.kw_defaults]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return inspect.Signature(
        [
            inspect.Parameter(
                argument.arg,
                kinds[argument in named],
                default=inspect.Parameter.empty if default is None else ast.literal_eval(default),
            )
            for argument, default in zip([*plain, *named], defaults, strict=True)
        ]
    )


@cache
def _functions(module: str) -> dict[str, ast.FunctionDef]:
    spec = find_spec(module) if module else None
    if spec is None or spec.origin is None:
        raise LookupError(module)
    body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


class Registry(Mapping[str, Any]):
    """A fixed table from a name to `"module:attribute"`, imported only when asked for.

    A name holding a colon is taken as such a path itself, so a user's own part needs no
    registration: `my_lab.losses:focal`.

    Raises:
        ConfigError: the name is unknown (the nearest one is named), or its path leads nowhere.

    """

    def __init__(
        self, kind: str, table: Mapping[str, str], *, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.kind = kind
        self._table = dict(table)
        self._aliases = dict(aliases or {})
        """Other words of the field for names of the table: hints, not names."""

    def __getitem__(self, name: str) -> Any:
        path = name if ":" in name else self._table.get(name)
        if path is None:
            raise ConfigError(f"unknown {self.kind} {name!r}.{self._hint(name)}")
        if name not in self._table and not _paths_allowed.get():
            raise ConfigError(
                f"{self.kind} {name!r} is code that is not part of retrodistill. Read it, and give "
                "--own-code if it may run."
            )
        module, _, attribute = path.partition(":")
        try:
            if not module or module.startswith("."):
                raise ModuleNotFoundError(f"{module!r} is no module's full name")
            return getattr(import_module(module), attribute)
        except (ModuleNotFoundError, AttributeError) as error:
            if name in self._table:
                raise
            raise ConfigError(
                f"{self.kind} {name!r} was read as module:attribute, but {error}."
                f"{self._hint(module)}"
            ) from error

    def _hint(self, name: str) -> str:
        known = f" Known: {', '.join(self._table)}."
        return did_you_mean(name, self._table, self._aliases) or known

    def signature(self, name: str) -> inspect.Signature:
        """Return a function's parameters, read from the source if it is one of the table's.

        So a setting can be checked without importing what the function itself needs.

        Raises:
            ConfigError: as [] does.

        """
        module, _, attribute = self._table.get(name, "").partition(":")
        try:
            return _signature(module, attribute)
        except (LookupError, ValueError):  # not in the table, or a default that is no literal
            return inspect.signature(self[name])

    def __contains__(self, name: object) -> bool:
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def split(self, spec: str) -> tuple[Any, str]:
        """Return the part and the argument of `name:argument` or `module:attribute:argument`."""
        name, _, argument = spec.partition(":")
        if name in self._table or not argument:
            return self[name], argument
        attribute, _, argument = argument.partition(":")
        return self[f"{name}:{attribute}"], argument


LOSSES = Registry(
    "objective",
    {
        "margin-mse": "retrodistill.losses.pairwise:margin_mse",
        "ranknet": "retrodistill.losses.pairwise:ranknet",
        "lambdarank": "retrodistill.losses.pairwise:lambdarank",
        "preference-kl": "retrodistill.losses.pairwise:preference_kl",
        "listwise-kl": "retrodistill.losses.listwise:listwise_kl",
        "listwise-kl-in-batch": "retrodistill.losses.in_batch:listwise_kl_in_batch",
        "in-batch-kl": "retrodistill.losses.in_batch:in_batch_kl",
        "m3-kd": "retrodistill.losses.in_batch:m3_kd",
        "top-k-kl": "retrodistill.losses.listwise:top_k_kl",
        "standardised-kl": "retrodistill.losses.listwise:standardised_kl",
        "sampled-kl": "retrodistill.losses.listwise:sampled_kl",
        "fused-kl": "retrodistill.losses.listwise:fused_kl",
        "one-vs-rest": "retrodistill.losses.listwise:one_vs_rest",
        "listnet": "retrodistill.losses.permutation:listnet",
        "listmle": "retrodistill.losses.permutation:listmle",
        "plackett-luce": "retrodistill.losses.permutation:listmle",
        "position-aware-listmle": "retrodistill.losses.permutation:position_aware_listmle",
        "partial-pl": "retrodistill.losses.permutation:partial_pl",
        "approx-ndcg": "retrodistill.losses.permutation:approx_ndcg",
        "sorted-w1": "retrodistill.losses.transport:sorted_w1",
        "sinkhorn": "retrodistill.losses.transport:sinkhorn",
        "contrastive": "retrodistill.losses.contrastive:contrastive",
        "soft-nn": "retrodistill.losses.contrastive:soft_nn",
        "decayed-contrastive": "retrodistill.losses.contrastive:decayed_contrastive",
        "passage-centric": "retrodistill.losses.contrastive:passage_centric",
        "mixed-negatives": "retrodistill.losses.contrastive:mixed_negatives",
        "arm": "retrodistill.losses.margins:arm",
        "embed-distill": "retrodistill.losses.embedding:embed_distill",
        "leaf": "retrodistill.losses.embedding:leaf",
        "ckd": "retrodistill.losses.embedding:ckd",
        "norm-and-direction": "retrodistill.losses.embedding:norm_and_direction",
        "rkd-distance": "retrodistill.losses.relational:rkd_distance",
        "rkd-angle": "retrodistill.losses.relational:rkd_angle",
        "dse": "retrodistill.losses.pairs:dse",
        "flops": "retrodistill.losses.sparsity:flops",
    },
    aliases={
        "infonce": "contrastive",
        "info-nce": "contrastive",
        "nt-xent": "contrastive",
        "mnrl": "contrastive",
        "multiple-negatives-ranking": "contrastive",
        "cross-entropy": "contrastive",
        "mse": "margin-mse",
        "kl": "listwise-kl",
        "kl-div": "listwise-kl",
        "kld": "listwise-kl",
        "cosine": "embed-distill",
        "wasserstein": "sorted-w1",
        "ndcg": "approx-ndcg",
    },
)

COLLECTIONS = Registry(
    "collection",
    {
        "beir": "retrodistill.datasets.beir:load",
        "docs": "retrodistill.datasets.docs:load",
        "irds": "retrodistill.datasets.irds:load",
        "hf": "retrodistill.datasets.hf:load",
        "builtin": "retrodistill.datasets.builtin:load",
    },
    aliases={"ir-datasets": "irds", "huggingface": "hf"},
)

READERS = Registry(
    "kind of file",
    {
        "": "retrodistill.datasets.readers.text:read",
        ".txt": "retrodistill.datasets.readers.text:read",
        ".text": "retrodistill.datasets.readers.text:read",
        ".rst": "retrodistill.datasets.readers.text:read",
        ".md": "retrodistill.datasets.readers.markdown:read",
        ".markdown": "retrodistill.datasets.readers.markdown:read",
        ".html": "retrodistill.datasets.readers.html:read",
        ".htm": "retrodistill.datasets.readers.html:read",
        ".xhtml": "retrodistill.datasets.readers.html:read",
        ".man": "retrodistill.datasets.readers.man:read",
        ".pdf": "retrodistill.datasets.readers.pdf:read",
        ".docx": "retrodistill.datasets.readers.docx:read",
        ".jsonl": "retrodistill.datasets.readers.table:read",
        ".csv": "retrodistill.datasets.readers.table:read",
        ".tsv": "retrodistill.datasets.readers.table:read",
        ".parquet": "retrodistill.datasets.readers.table:read",
    },
)
"""Suffix of a file -> what reads its documents."""

RETRIEVERS = Registry(
    "retriever",
    {
        "bm25": "retrodistill.mining.retrievers:bm25",
        "lucene": "retrodistill.mining.retrievers:lucene",
        "dense": "retrodistill.mining.retrievers:dense",
        "sparse": "retrodistill.mining.retrievers:sparse",
    },
    aliases={"bi-encoder": "dense", "splade": "sparse", "pyserini": "lucene", "lexical": "bm25"},
)

TEACHERS = Registry(
    "teacher",
    {
        "cross-encoder": "retrodistill.teachers.cross_encoder:CrossEncoderTeacher",
        "causal-lm": "retrodistill.teachers.causal:CausalTeacher",
        "late-interaction": "retrodistill.teachers.late_interaction:LateInteractionTeacher",
        "bi-encoder": "retrodistill.teachers.bi_encoder:BiEncoderTeacher",
        "pair-head": "retrodistill.teachers.bi_encoder:PairHeadTeacher",
        "sparse": "retrodistill.teachers.sparse:SparseTeacher",
        "bm25": "retrodistill.teachers.lexical:BM25Teacher",
        "lucene": "retrodistill.teachers.lucene:LuceneTeacher",
        "pairwise": "retrodistill.teachers.pairwise:PairwiseTeacher",
        "reader": "retrodistill.teachers.reader:ReaderTeacher",
        "generator": "retrodistill.teachers.generator:GeneratorTeacher",
        "llm": "retrodistill.teachers.llm:LLMTeacher",
        "llm-pairwise": "retrodistill.teachers.llm:LLMPairwiseTeacher",
        "llm-listwise": "retrodistill.teachers.llm:LLMListwiseTeacher",
        "run": "retrodistill.teachers.runs:RunTeacher",
    },
    aliases={
        "dense": "bi-encoder",
        "colbert": "late-interaction",
        "splade": "sparse",
        "reranker": "cross-encoder",
        "decoder": "causal-lm",
        "monot5": "generator",
        "fid": "reader",
        "duot5": "pairwise",
        "rankgpt": "llm-listwise",
        "openai": "llm",
    },
)

FORMATS = Registry(
    "format",
    {
        "trec": "retrodistill.store.formats.plain:TREC",
        "jsonl": "retrodistill.store.formats.plain:JSONL",
        "parquet": "retrodistill.store.formats.plain:PARQUET",
        "margin-mse": "retrodistill.store.formats.margin_mse:FORMAT",
        "sbert-scores": "retrodistill.store.formats.sbert_scores:FORMAT",
        "sbert-labels": "retrodistill.store.formats.sbert_labels:FORMAT",
        "flagembedding": "retrodistill.store.formats.flagembedding:FORMAT",
        "pylate": "retrodistill.store.formats.nway:PYLATE",
        "colbert": "retrodistill.store.formats.nway:COLBERT",
        "tevatron": "retrodistill.store.formats.tevatron:FORMAT",
        "tevatron-run": "retrodistill.store.formats.tevatron:RUN",
        "hf": "retrodistill.store.formats.hf:FORMAT",
    },
)

INDEXES = Registry(
    "index",
    {
        "exact": "retrodistill.indexes.exact:ExactIndex",
        "flat": "retrodistill.indexes.faiss:FlatIndex",
        "sq8": "retrodistill.indexes.faiss:ScalarIndex",
        "binary": "retrodistill.indexes.faiss:BinaryIndex",
        "hnsw": "retrodistill.indexes.faiss:HNSWIndex",
        "ivf": "retrodistill.indexes.faiss:ListsIndex",
        "ivf-pq": "retrodistill.indexes.faiss:ProductIndex",
        "faiss": "retrodistill.indexes.faiss:FaissIndex",
        "milvus": "retrodistill.indexes.milvus:MilvusIndex",
    },
    aliases={"pq": "ivf-pq", "int8": "sq8", "brute-force": "exact"},
)

STAGES = Registry(
    "verb",
    {verb: f"retrodistill.{verb}:{verb}"
     for verb in ("mine", "score", "train", "embed", "search", "fuse")},
)  # fmt: skip
"""What a verb does with its settings, for whoever does it again."""
