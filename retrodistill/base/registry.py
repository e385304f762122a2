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

from retrodistill.base.errors import ConfigError, did_you_mean

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
                annotation=_source(argument.annotation),
            )
            for argument, default in zip([*plain, *named], defaults, strict=True)
        ]
    )


def _source(annotation: ast.expr | None) -> Any:
    return inspect.Parameter.empty if annotation is None else ast.unparse(annotation)


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
    registration: `my_lab.losses:focal`. A table may write behind a name what its argument is:
    `bi-encoder:MODEL`.

    Raises:
        ConfigError: the name is unknown (the nearest one is named), or its path leads nowhere.

    """

    def __init__(
        self, kind: str, table: Mapping[str, str], *, aliases: Mapping[str, str] | None = None
    ) -> None:
        self.kind = kind
        self._table = {name.partition(":")[0]: path for name, path in table.items()}
        self._arguments = {name.partition(":")[0]: name.partition(":")[2] for name in table}
        self._aliases = dict(aliases or {})
        """Other words of the field for names of the table: hints, not names."""

    def __getitem__(self, name: str) -> Any:
        path = name if ":" in name else self._table.get(name)
        if path is None:
            raise ConfigError(f"unknown {self.kind} {name!r}.{self._hint(name)}")
        if name not in self._table and not _paths_allowed.get():
            raise ConfigError(
                f"{self.kind} {name!r} is code that is not part of retrodistill. Read it, and give "
                "--trust-custom-code if it may run."
            )
        module, _, attribute = path.partition(":")
        try:
            if not module or module.startswith("."):
                raise ModuleNotFoundError(f"{module!r} is not the full name of a module")
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

        So a setting can be checked without importing what the function itself needs; annotations
        are source text then.

        Raises:
            ConfigError: as [] does.

        """
        module, _, attribute = self._table.get(name, "").partition(":")
        try:
            return _signature(module, attribute)
        except (LookupError, ValueError):  # not in the table, or a default is not a literal
            return inspect.signature(self[name])

    def argument(self, name: str) -> str:
        """Return what the argument of a part is, as the table writes it behind the name.

        `MODEL` is a model of ours, `PATH` a file or a folder that must exist, `URL` a server's
        address; it is empty for a part that takes none, or that is not in the table.
        """
        return self._arguments.get(name, "")

    def path(self, name: str) -> str:
        """Return where the code of a part lives, as `module:attribute`."""
        return self._table[name]

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
        "margin-mse": "retrodistill.objectives.losses.pairwise:margin_mse",
        "ranknet": "retrodistill.objectives.losses.pairwise:ranknet",
        "lambdarank": "retrodistill.objectives.losses.pairwise:lambdarank",
        "preference-kl": "retrodistill.objectives.losses.pairwise:preference_kl",
        "listwise-kl": "retrodistill.objectives.losses.listwise:listwise_kl",
        "listwise-kl-in-batch": "retrodistill.objectives.losses.in_batch:listwise_kl_in_batch",
        "in-batch-kl": "retrodistill.objectives.losses.in_batch:in_batch_kl",
        "batch-kl": "retrodistill.objectives.losses.live:batch_kl",
        "batch-margin-mse": "retrodistill.objectives.losses.live:batch_margin_mse",
        "layer-kl": "retrodistill.objectives.losses.layers:layer_kl",
        "m3-kd": "retrodistill.objectives.losses.in_batch:m3_kd",
        "top-k-kl": "retrodistill.objectives.losses.listwise:top_k_kl",
        "standardised-kl": "retrodistill.objectives.losses.listwise:standardised_kl",
        "sampled-kl": "retrodistill.objectives.losses.listwise:sampled_kl",
        "fused-kl": "retrodistill.objectives.losses.listwise:fused_kl",
        "confidence-weighted-kl": (
            "retrodistill.objectives.losses.ensembles:confidence_weighted_kl"
        ),
        "agreement-weighted-kl": "retrodistill.objectives.losses.ensembles:agreement_weighted_kl",
        "selected-kl": "retrodistill.objectives.losses.selection:selected_kl",
        "delta-kl": "retrodistill.objectives.losses.base_models:delta_kl",
        "one-vs-rest": "retrodistill.objectives.losses.listwise:one_vs_rest",
        "listnet": "retrodistill.objectives.losses.permutation:listnet",
        "listmle": "retrodistill.objectives.losses.permutation:listmle",
        "plackett-luce": "retrodistill.objectives.losses.permutation:listmle",
        "position-aware-listmle": (
            "retrodistill.objectives.losses.permutation:position_aware_listmle"
        ),
        "partial-pl": "retrodistill.objectives.losses.permutation:partial_pl",
        "partial-pl-in-batch": "retrodistill.objectives.losses.permutation:partial_pl_in_batch",
        "approx-ndcg": "retrodistill.objectives.losses.permutation:approx_ndcg",
        "sorted-w1": "retrodistill.objectives.losses.transport:sorted_w1",
        "sinkhorn": "retrodistill.objectives.losses.transport:sinkhorn",
        "contrastive": "retrodistill.objectives.losses.contrastive:contrastive",
        "listwise-ce": "retrodistill.objectives.losses.contrastive:listwise_ce",
        "contrastive-over-queries": (
            "retrodistill.objectives.losses.contrastive:contrastive_over_queries"
        ),
        "soft-nn": "retrodistill.objectives.losses.contrastive:soft_nn",
        "decayed-contrastive": "retrodistill.objectives.losses.contrastive:decayed_contrastive",
        "passage-centric": "retrodistill.objectives.losses.contrastive:passage_centric",
        "mixed-negatives": "retrodistill.objectives.losses.contrastive:mixed_negatives",
        "mixup-contrastive": "retrodistill.objectives.losses.augmented:mixup_contrastive",
        "gcse": "retrodistill.objectives.losses.base_models:gcse",
        "simcse": "retrodistill.objectives.losses.augmented:simcse",
        "inter-set": "retrodistill.objectives.losses.classes:inter_set",
        "arm": "retrodistill.objectives.losses.margins:arm",
        "triplet": "retrodistill.objectives.losses.margins:triplet",
        "elsa": "retrodistill.objectives.losses.interactions:elsa",
        "embed-distill": "retrodistill.objectives.losses.embedding:embed_distill",
        "leaf": "retrodistill.objectives.losses.embedding:leaf",
        "ckd": "retrodistill.objectives.losses.embedding:ckd",
        "span-contrastive": "retrodistill.objectives.losses.spans:span_contrastive",
        "norm-and-direction": "retrodistill.objectives.losses.embedding:norm_and_direction",
        "hidden-mse": "retrodistill.objectives.losses.states:hidden_mse",
        "attention-relations": "retrodistill.objectives.losses.states:attention_relations",
        "token-graph": "retrodistill.objectives.losses.tokens:token_graph",
        "class-mean-direction": "retrodistill.objectives.losses.classes:class_mean_direction",
        "rkd-distance": "retrodistill.objectives.losses.relational:rkd_distance",
        "rkd-angle": "retrodistill.objectives.losses.relational:rkd_angle",
        "transfer-mse": "retrodistill.objectives.losses.transfers:transfer_mse",
        "dse": "retrodistill.objectives.losses.pairs:dse",
        "flops": "retrodistill.objectives.losses.sparsity:flops",
    },
    aliases={
        "infonce": "contrastive",
        "info-nce": "contrastive",
        "nt-xent": "contrastive",
        "mnrl": "contrastive",
        "multiple-negatives-ranking": "contrastive",
        "cross-entropy": "contrastive",
        "lce": "listwise-ce",
        "mse": "margin-mse",
        "kl": "listwise-kl",
        "kl-div": "listwise-kl",
        "kld": "listwise-kl",
        "cosine": "embed-distill",
        "minilm": "attention-relations",
        "tinybert": "hidden-mse",
        "wasserstein": "sorted-w1",
        "ndcg": "approx-ndcg",
    },
)

COLLECTIONS = Registry(
    "collection",
    {
        "beir": "retrodistill.data.datasets.beir:load",
        "docs": "retrodistill.data.datasets.docs:load",
        "irds": "retrodistill.data.datasets.irds:load",
        "hf": "retrodistill.data.datasets.hf:load",
        "builtin": "retrodistill.data.datasets.builtin:load",
    },
    aliases={"ir-datasets": "irds", "huggingface": "hf"},
)

READERS = Registry(
    "kind of file",
    {
        "": "retrodistill.data.datasets.readers.text:read",
        ".txt": "retrodistill.data.datasets.readers.text:read",
        ".text": "retrodistill.data.datasets.readers.text:read",
        ".rst": "retrodistill.data.datasets.readers.text:read",
        ".md": "retrodistill.data.datasets.readers.markdown:read",
        ".markdown": "retrodistill.data.datasets.readers.markdown:read",
        ".html": "retrodistill.data.datasets.readers.html:read",
        ".htm": "retrodistill.data.datasets.readers.html:read",
        ".xhtml": "retrodistill.data.datasets.readers.html:read",
        ".man": "retrodistill.data.datasets.readers.man:read",
        ".pdf": "retrodistill.data.datasets.readers.pdf:read",
        ".docx": "retrodistill.data.datasets.readers.docx:read",
        ".jsonl": "retrodistill.data.datasets.readers.table:read",
        ".csv": "retrodistill.data.datasets.readers.table:read",
        ".tsv": "retrodistill.data.datasets.readers.table:read",
        ".parquet": "retrodistill.data.datasets.readers.table:read",
    },
)
"""Suffix of a file -> what reads its documents."""

RETRIEVERS = Registry(
    "retriever",
    {
        "bm25": "retrodistill.models.retrievers.bm25:BM25Retriever",
        "lucene:LANGUAGE": "retrodistill.models.retrievers.lucene:LuceneRetriever",
        "dense:MODEL": "retrodistill.models.retrievers.dense:DenseRetriever",
        "sparse:MODEL": "retrodistill.models.retrievers.sparse:SparseRetriever",
        "late-interaction:MODEL": (
            "retrodistill.models.retrievers.late_interaction:LateInteractionRetriever"
        ),
        "hybrid:MODEL": "retrodistill.models.retrievers.hybrid:HybridRetriever",
        "endpoint:URL": "retrodistill.models.retrievers.endpoints:open_endpoint",
    },
    aliases={
        "bi-encoder": "dense",
        "splade": "sparse",
        "pyserini": "lucene",
        "lexical": "bm25",
        "served": "endpoint",
        "openai": "endpoint",
    },
)

WRITERS = Registry(
    "writer of queries",
    {
        "titles": "retrodistill.models.writers.titles:TitlesWriter",
        "causal-lm:MODEL": "retrodistill.models.writers.causal_lm:CausalWriter",
        "llm:NAME": "retrodistill.models.writers.llm:LLMWriter",
    },
    aliases={"title": "titles", "headings": "titles", "openai": "llm", "doc2query": "causal-lm"},
)

TEACHERS = Registry(
    "teacher",
    {
        "cross-encoder:MODEL": "retrodistill.models.teachers.cross_encoder:CrossEncoderTeacher",
        "causal-lm:MODEL": "retrodistill.models.teachers.causal:CausalTeacher",
        "late-interaction:MODEL": (
            "retrodistill.models.teachers.late_interaction:LateInteractionTeacher"
        ),
        "bi-encoder:MODEL": "retrodistill.models.teachers.bi_encoder:BiEncoderTeacher",
        "pair-head:MODEL": "retrodistill.models.teachers.bi_encoder:PairHeadTeacher",
        "sparse:MODEL": "retrodistill.models.teachers.sparse:SparseTeacher",
        "bm25": "retrodistill.models.teachers.lexical:BM25Teacher",
        "lucene:LANGUAGE": "retrodistill.models.teachers.lucene:LuceneTeacher",
        "pairwise:MODEL": "retrodistill.models.teachers.pairwise:PairwiseTeacher",
        "reader:MODEL": "retrodistill.models.teachers.reader:ReaderTeacher",
        "generator:MODEL": "retrodistill.models.teachers.generator:GeneratorTeacher",
        "answer-likelihood:MODEL": "retrodistill.models.teachers.answer_likelihood:AnswerTeacher",
        "llm:NAME": "retrodistill.models.teachers.llm:LLMTeacher",
        "llm-pairwise:NAME": "retrodistill.models.teachers.llm:LLMPairwiseTeacher",
        "llm-listwise:NAME": "retrodistill.models.teachers.llm:LLMListwiseTeacher",
        "run:PATH": "retrodistill.models.teachers.runs:RunTeacher",
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
        "trec": "retrodistill.data.store.formats.plain:TREC",
        "jsonl": "retrodistill.data.store.formats.plain:JSONL",
        "parquet": "retrodistill.data.store.formats.plain:PARQUET",
        "margin-mse": "retrodistill.data.store.formats.margin_mse:FORMAT",
        "sbert-scores": "retrodistill.data.store.formats.sbert_scores:FORMAT",
        "sbert-labels": "retrodistill.data.store.formats.sbert_labels:FORMAT",
        "flagembedding": "retrodistill.data.store.formats.flagembedding:FORMAT",
        "pylate": "retrodistill.data.store.formats.nway:PYLATE",
        "colbert": "retrodistill.data.store.formats.nway:COLBERT",
        "tevatron": "retrodistill.data.store.formats.tevatron:FORMAT",
        "tevatron-run": "retrodistill.data.store.formats.tevatron:RUN",
        "hf": "retrodistill.data.store.formats.hf:FORMAT",
    },
)

INDEXES = Registry(
    "index",
    {
        "exact": "retrodistill.models.indexes.exact:ExactIndex",
        "flat": "retrodistill.models.indexes.faiss:FlatIndex",
        "sq8": "retrodistill.models.indexes.faiss:ScalarIndex",
        "binary": "retrodistill.models.indexes.faiss:BinaryIndex",
        "hnsw": "retrodistill.models.indexes.faiss:HNSWIndex",
        "cagra": "retrodistill.models.indexes.cagra:CagraIndex",
        "ivf": "retrodistill.models.indexes.faiss:ListsIndex",
        "ivf-pq": "retrodistill.models.indexes.faiss:ProductIndex",
        "faiss:FACTORY": "retrodistill.models.indexes.faiss:FaissIndex",
        "milvus": "retrodistill.models.indexes.milvus:MilvusIndex",
    },
    aliases={"pq": "ivf-pq", "int8": "sq8", "brute-force": "exact"},
)

STUDENT_KINDS = Registry(
    "kind of student",
    {
        "bi-encoder": "retrodistill.models.students.kinds.dense:KIND",
        "sparse": "retrodistill.models.students.kinds.sparse:KIND",
        "late-interaction": "retrodistill.models.students.kinds.late_interaction:KIND",
        "hybrid": "retrodistill.models.students.kinds.hybrid:KIND",
        "cross-encoder": "retrodistill.models.students.kinds.cross_encoder:KIND",
        "causal-reranker": "retrodistill.models.students.kinds.causal_reranker:KIND",
    },
    aliases={
        "dense": "bi-encoder",
        "splade": "sparse",
        "colbert": "late-interaction",
        "reranker": "cross-encoder",
        "causal-lm": "causal-reranker",
    },
)

SIGNAL_SOURCES = Registry(
    "source of signals",
    {
        "scores": "retrodistill.stages.training.sources.scores:ScoreSource",
        "preferences": "retrodistill.stages.training.sources.preferences:PreferenceSource",
        "vectors": "retrodistill.stages.training.sources.vectors:VectorSource",
        "states": "retrodistill.stages.training.sources.states:StateSource",
        "teacher": "retrodistill.stages.training.sources.teacher:TeacherSource",
        "joint-teacher": "retrodistill.stages.training.sources.joint:JointTeacher",
        "ema": "retrodistill.stages.training.sources.ema:EmaTeacher",
    },
)
"""What a student learns from beside labels: the name is the flag of `train`."""
