"""Names of measures: what each is, where it comes from, and how it is typed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from retrodistill.base.calls import Call, parse_call
from retrodistill.base.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True)
class Measure:
    """What a measure is, and the function that computes it."""

    function: str
    """A function of `ranx.metrics`; empty: our own."""

    definition: str
    source: str

    trec_eval: str = ""
    """Its name in trec_eval's output, K for the cutoff; empty: trec_eval does not know it."""

    keys: tuple[str, ...] = ("rel",)
    """Settings that it takes in brackets."""

    cutoff: bool = True
    """Whether it takes one."""

    kernel: str = ""
    """The function of ranx that is compiled, if it is not `function`."""


MEASURES = {
    "ndcg": Measure(
        "ndcg",
        "DCG over the DCG of the best order of the judged documents",
        "Järvelin and Kekäläinen 2002",
        "ndcg, ndcg_cut_K",
        keys=("gain",),
    ),
    "ndcg_burges": Measure(
        "ndcg_burges",
        "nDCG with gain 2^grade - 1, the same as ndcg(gain=exp)",
        "Burges et al. 2005",
        keys=(),
        kernel="ndcg",
    ),
    "dcg": Measure(
        "dcg",
        "sum of grade / log2(rank + 1)",
        "Järvelin and Kekäläinen 2002",
        keys=("gain",),
    ),
    "dcg_burges": Measure(
        "dcg_burges",
        "DCG with gain 2^grade - 1, the same as dcg(gain=exp)",
        "Burges et al. 2005",
        keys=(),
        kernel="dcg",
    ),
    "mrr": Measure(
        "reciprocal_rank",
        "1 / rank of the first relevant document",
        "Voorhees 1999, TREC-8",
        "recip_rank",
    ),
    "map": Measure(
        "average_precision",
        "precision at the rank of each relevant document, 0 for one that is "
        "not found, averaged over all that are relevant",
        "trec_eval",
        "map, map_cut_K",
    ),
    "recall": Measure(
        "recall",
        "share of the relevant documents that is found",
        "trec_eval",
        "set_recall, recall_K",
    ),
    "precision": Measure(
        "precision",
        "share of the first K ranks that is relevant; absent documents are not",
        "trec_eval",
        "set_P, P_K",
    ),
    "rprec": Measure(
        "r_precision",
        "precision at the rank R, the number of relevant documents",
        "trec_eval",
        "Rprec",
        cutoff=False,
    ),
    "hit_rate": Measure(
        "hit_rate",
        "1 if any relevant document is found",
        "trec_eval",
        "success_K",
    ),
    "hits": Measure("hits", "number of relevant documents found", "trec_eval", "num_rel_ret"),
    "f1": Measure(
        "f1",
        "harmonic mean of precision and recall",
        "van Rijsbergen 1979",
        "set_F",
    ),
    "bpref": Measure(
        "bpref",
        "1 less the share of judged non-relevant documents that stand before a relevant "
        "one (at most min(R, N) count), averaged over all R relevant; without judgement: ignored",
        "Buckley and Voorhees 2004",
        "bpref",
        cutoff=False,
    ),
    "rbp": Measure(
        "rank_biased_precision",
        "(1 - p) times the sum of p^(rank - 1) over relevant documents: "
        "a reader goes on to the next one with probability p (default 0.8; trec_eval: 0.9)",
        "Moffat and Zobel 2008",
        "rbp, of binary judgements",
        keys=("rel", "p"),
    ),
    "judged": Measure(
        "",
        "share of the documents listed up to rank K that have a judgement",
        "trec_eval",
        "1 - unj_K, of lists that reach K",
        keys=(),
    ),
}
"""Our name of a measure to what is known of it."""

ALIASES = {
    "recip_rank": "mrr",
    "rr": "mrr",
    "ap": "map",
    "r": "recall",
    "p": "precision",
    "success": "hit_rate",
    "r-precision": "rprec",
}
EXPONENTIAL = {"ndcg": "ndcg_burges", "dcg": "dcg_burges"}
GRADED = {*EXPONENTIAL, *EXPONENTIAL.values()}
NAME = r"[a-z][a-z0-9_-]*(?:@\d+)?"
"""A measure with or without a cutoff."""

KEYS: dict[str, tuple[str, str, Any]] = {
    "rel": (r"0*[1-9]\d*", "a grade of at least 1", int),
    "p": (r"0?\.\d*[1-9]\d*", "between 0 and 1, as in p=0.8", float),
    "gain": ("grade|exp", "grade, or exp for 2^grade - 1", str),
}
"""Setting -> its form, the form in words, and how it is read."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure, such as nDCG of the first ten documents."""

    name: str
    """A key of `MEASURES`."""

    cutoff: int | None = None
    """Ranks that count (None: all)."""

    rel: int = 1
    """Lowest grade that is relevant; graded measures do not ask."""

    label: str = field(default="", compare=False)
    """As the user typed it, without spaces: its key in all results."""

    p: float = 0.8
    """Persistence of `rbp`."""

    def __str__(self) -> str:
        """Return the label, or the canonical form of what has none."""
        cutoff = f"@{self.cutoff}" if self.cutoff else ""
        settings = [f"rel={self.rel}"] if self.rel != 1 else []
        if self.name == "rbp":
            settings.append(f"p={self.p:g}")
        level = f"({','.join(settings)})" if settings else ""
        return self.label or f"{self.name}{cutoff}{level}"


def parse_metric(text: str) -> Metric:
    """Return the metric that `name@cutoff(key=value,...)` names; all but the name may be absent.

    Keys: `rel`, the lowest grade that is relevant; `gain=exp` of ndcg and dcg; `p` of rbp.

    Raises:
        ConfigError: the form or the name is unknown (the nearest is named), or a part of it has
            no meaning for this measure.

    """
    label = "".join(text.split())
    call = parse_call(label.lower(), "metric", example="recall@100(rel=2)", name=NAME)
    if re.search(r"[(,][,)]", label):
        raise ConfigError(f"metric {text!r} has empty settings. Drop them, as in ndcg@10.")
    given, at, cutoff = call.name.partition("@")
    name = ALIASES.get(given, given)
    if name not in MEASURES:
        hint = did_you_mean(given, [*MEASURES, *ALIASES])
        raise ConfigError(
            f"unknown metric {given!r}.{hint} Known: {', '.join(MEASURES)}; "
            "evaluate --metrics help explains them."
        )
    if at and (int(cutoff) < 1 or not MEASURES[name].cutoff):
        wanted = "needs a cutoff of at least 1" if MEASURES[name].cutoff else "takes no cutoff"
        raise ConfigError(f"metric {text!r}: {name} {wanted}.")
    settings = _settings(name, call)
    if settings.pop("gain", None) == "exp":
        name = EXPONENTIAL.get(name, name)
    return Metric(name, int(cutoff) if at else None, label=label, **settings)


def _settings(name: str, call: Call) -> dict[str, Any]:
    """Return a metric's settings, checked and in their types."""
    if "rel" in call.settings and name in GRADED:
        raise ConfigError(
            f"metric {call.name!r}: {name} uses the grades themselves. Drop (rel=...)."
        )
    call.check_keys(MEASURES[name].keys)
    settings = {}
    for key, value in call.settings.items():
        form, wanted, read = KEYS[key]
        if not re.fullmatch(form, value):
            raise ConfigError(f"metric {call.name!r}: {key} must be {wanted}, not {value!r}.")
        settings[key] = read(value)
    return settings


def parse_metrics(text: str | Sequence[str]) -> list[Metric]:
    """Return the metrics of a comma-separated list, each once; commas in brackets do not split."""
    words = re.split(r",(?![^(]*\))", text) if isinstance(text, str) else text
    metrics = {metric.label: metric for metric in map(parse_metric, words)}
    if not metrics:
        raise ConfigError("no metric was given. Give some, as in ndcg@10,mrr@10.")
    return list(metrics.values())


def measures_help() -> str:
    """Return what `evaluate --metrics help` prints: each measure, what it is, and its source."""
    lines = [
        "A metric is name@cutoff(key=value,...), as in ndcg@10, map or rbp@100(p=0.9,rel=2).",
        "In brackets: the settings that it takes, its source, and its name in trec_eval.",
    ]
    for name, measure in MEASURES.items():
        notes = [", ".join(measure.keys), measure.source, measure.trec_eval]
        cutoff = "@K" if measure.cutoff else ""
        lines += ["", f"{name}{cutoff}  ({'; '.join(filter(None, notes))})", measure.definition]
    return "\n".join(lines)
