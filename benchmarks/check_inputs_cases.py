"""The cases of check_inputs.py: what is damaged, and what is then read.

A check damages what it reads with its place's random numbers, reads it, and returns whether the
result is in order: False where it is silently another one than it should be.
"""

import dataclasses
import json
import math
import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrodistill.base import config as configs
from retrodistill.base.command import parse
from retrodistill.base.config import MineSettings
from retrodistill.base.registry import FORMATS
from retrodistill.data.datasets import Collection, load_collection, read_attributes
from retrodistill.data.store.runs import Run
from retrodistill.stages.mining import mine_candidates

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

QUERIES = ["vitamin dose", "heart disease risk", "skin cell growth"]
FILE_FORMATS = [name for name in FORMATS if name not in ("hf", "parquet")]
COMMANDS = (
    configs.MineConfig,
    configs.ScoreConfig,
    configs.AuditConfig,
    configs.TrainConfig,
    configs.EmbedConfig,
    configs.SearchConfig,
    configs.EvaluateConfig,
    configs.FuseConfig,
    configs.LeakageConfig,
    configs.ReportConfig,
    configs.BenchmarkConfig,
)


class Teacher:
    """Scores that are a function of the texts."""

    fingerprint, scale, unit = "check" * 8, "logit", "pair"

    def score(self, pairs: Any) -> np.ndarray:
        texts = (
            (pairs.queries[q].full_text, pairs.docs[d].full_text)
            for q, d in zip(pairs.query_rows, pairs.doc_rows, strict=True)
        )
        return np.array([len({*q} & {*d}) + len(d) / 1000 for q, d in texts], np.float32)


class Encoder:
    """Vectors that are a function of the texts."""

    fingerprint, dimension, normalised = "check" * 8, 16, True

    def encode_docs(self, texts: Sequence[str]) -> np.ndarray:
        seeds = [sum(map(ord, text)) for text in texts]
        return np.stack([np.random.default_rng(seed).standard_normal(16) for seed in seeds]).astype(
            np.float32
        )

    encode_queries = encode_docs


class Base:
    """What the commands wrote, undamaged, and what is read from it."""

    def __init__(self, folder: Path, needs: set[str]) -> None:
        from fakes.corpus import save_small_collection

        warm()
        self.folder = folder
        self.data = save_small_collection(folder / "data")
        self.collection = load_collection(f"beir:{self.data}")
        self.candidates = mine_candidates(self.collection, "test", settings=MineSettings(depth=10))
        self.candidates.write(folder / "run", inputs={"collection": self.collection.fingerprint})
        self.files = self._files()
        if "store" in needs:
            self.scores = stored(self.collection, self.candidates, folder / "scores")
        if "cache" in needs:
            from retrodistill.data.store.vectors import doc_vectors

            usual = os.environ["RETRODISTILL_CACHE"]
            os.environ["RETRODISTILL_CACHE"] = str(folder / "small-cache")
            docs = load_collection(f"beir:{self.data}").docs
            self.vectors = np.array(doc_vectors(Encoder(), docs))
            os.environ["RETRODISTILL_CACHE"] = usual
        if "card" in needs:
            from retrodistill.evaluate import main

            words = ["--data", f"beir:{self.data}", "--run", str(folder / "run")]
            assert main([*words, "--card", str(folder / "card.yaml")]) == 0
            self.files["card"] = (folder / "card.yaml").read_bytes()
        if "model" in needs:
            self._models()

    def _files(self) -> dict[str, bytes]:
        from retrodistill.data.store.formats import write_scores

        relevant = self.collection.relevant("test")
        lists = self.candidates.lists()
        sure = {query: [docs[0]] for query, docs, _ in lists} | relevant
        files = {}
        for name in FILE_FORMATS:
            path = self.folder / f"scores.{name}"
            write_scores(path, name, self.candidates, relevant=sure, collection=self.collection)
            files[name] = path.read_bytes()
        rows = [
            (q, d, s)
            for q, docs, scores in self.candidates.lists()
            for d, s in zip(docs, scores.tolist(), strict=True)
        ]
        files["trec qrels"] = "".join(f"{q} 0 {d} 1\n" for q, d, _ in rows).encode()
        files["id triples"] = "".join(
            f"{q}\td{n}\td{n + 1}\n" for n, (q, _, _) in enumerate(rows[:40])
        ).encode()
        return files

    def _models(self) -> None:
        import torch
        from fakes.models import save_tiny_model

        import retrodistill as rd

        torch.set_num_threads(1)
        model = save_tiny_model(self.folder / "tiny", layers=2)
        settings = rd.TrainSettings(max_steps=1, batch_size=4, doc_tokens=24, precision="float32")
        self.student = rd.train_student(
            self.collection,
            model,
            self.folder / "student",
            settings=dataclasses.replace(settings, objective="contrastive"),
        )
        encoder = rd.DenseEncoder(self.student, precision="float32")
        for kind in ("flat", "hnsw"):
            rd.embed_collection(
                self.collection,
                encoder,
                out=self.folder / kind,
                settings=rd.IndexSettings(index=kind),
            )
        self.hits = {kind: hits(self.folder / kind) for kind in ("flat", "hnsw")}
        self.encoded = encoder.encode_docs(QUERIES)


def warm() -> None:
    """Import and build once what each forked case would otherwise build for itself."""
    from fakes import conditions  # noqa: F401

    from retrodistill.data.filters import Attributes, parse_where
    from retrodistill.data.rankings.sets import parse_sets
    from retrodistill.data.store.triples import candidates_from_triples  # noqa: F401
    from retrodistill.objectives.objective import parse_objective
    from retrodistill.stages.pipelines.benchmark.plan import read_plan

    parse_sets("a AND b")
    Attributes.from_columns({"a": [1]}).matching(parse_where("a = 1"))
    parse_objective("listwise-kl + contrastive")
    read_plan({"datasets": {"a": "beir:a"}, "systems": {"b": {"retriever": "bm25"}}})
    parse(configs.MineConfig, ["--data", "a", "--out", "b"], "verb", "About.")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a case works: the undamaged things, an empty folder, and the case's own chances."""

    base: Base
    folder: Path
    rng: random.Random

    def copy(self, name: str) -> Path:
        """Return a copy of a folder of the base."""
        return shutil.copytree(self.base.folder / name, self.folder / name)

    def written(self, name: str, content: bytes) -> Path:
        """Return a new file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


Check = Callable[[Place], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """An input: its name, its cases at full size, what the base must hold, and the check."""

    name: str
    cases: int
    check: Check
    needs: str = ""


# Damage.

ENABLED = True
"""Whether anything is damaged: without damage, all that is read from files is in order."""

NASTY = [
    "",
    " ",
    "\x00",
    "\t",
    "\r",
    "\n\n",
    "\ufeff",
    "\u2028",
    "null",
    "true",
    "NaN",
    "Infinity",
    "-0",
    "1e400",
    "-1",
    "1" + "0" * 400,
    "0x1F",
    "1_000",
    "{}",
    "[]",
    "[" * 5000,
    '{"a":' * 2000,
    '"',
    "\\",
    "'",
    "\\ud800",
    "é" * 300,
    "../..",
    "%s",
    "{0}",
    ",",
    ";",
    "(",
    ")",
    "()",
    "*",
    "+",
    "=",
    "--",
    "q0",
    "d0",
    "1.0",
    "1e-320",
    "nan",
    "-inf",
    "AND",
    "NOT",
    "year",
    ">=",
    "in",
    "~",
    "&a *a",
    "!!int abc",
    "2024-13-45",
    "!!python/name:os.system",
    "<<",
    "- ",
    ": ",
    "#",
    "---",
    "|",
    ">",
    "@",
]
RAW = [b"\xff\xfe", b"\xc3(", b"\x00" * 8, b"\xed\xa0\x80", b"\x1f\x8b", b"PAR1", b"\x80\x04."]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**400,
    1e308,
    math.nan,
    math.inf,
    "",
    "x",
    "\x00",
    "1",
    [],
    {},
    [[]],
    {"a": 1},
    [1, 2],
    ["x"],
    "é" * 300,
    "../../x",
    "\ud800",
    -(2**63),
    2**64,
]


def mutated(rng: random.Random, content: bytes) -> bytes:
    """Return bytes with one to three changes: of bits, of tokens, of lines, or of the end."""
    for _ in range(rng.randint(1, 3) if ENABLED else 0):
        lines = content.split(b"\n")
        at, line = rng.randrange(len(content) + 1), rng.randrange(len(lines))
        end = min(len(content), at + rng.randint(1, 20))
        match rng.randrange(8):
            case 0:
                content = flipped(rng, content)
            case 1:
                content = content[:at] + content[end:]
            case 2:
                content = content[:at] + rng.choice(NASTY).encode(errors="replace") + content[at:]
            case 3:
                content = content[:at] + rng.choice(RAW) + content[end:]
            case 4:
                content = b"\n".join([*lines[:line], lines[line], *lines[line:]])
            case 5:
                content = content[:at]
            case 6:
                tokens = re.split(rb"(\W+)", content)
                tokens[rng.randrange(len(tokens))] = rng.choice(NASTY).encode(errors="replace")
                content = b"".join(tokens)
            case 7:
                other = rng.randrange(len(lines))
                lines[line], lines[other] = lines[other], lines[line]
                content = b"\n".join(lines)
    return content


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Return bytes with one bit flipped."""
    if not content or not ENABLED:
        return content
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def restructured(rng: random.Random, value: Any) -> Any:
    """Return a value of JSON with one part replaced, removed or renamed."""
    if not ENABLED:
        return value
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice([*value])
        match rng.randrange(6):
            case 0:
                return {key: part for key, part in value.items() if key != name}
            case 1:
                return value | {rng.choice(["x", "", name.upper(), "kind"]): rng.choice(VALUES)}
            case _:
                return value | {name: restructured(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], restructured(rng, value[at]), *value[at + 1 :]]
    return rng.choice(VALUES)


def damage(rng: random.Random, path: Path, *, flip: bool = False) -> None:
    """Damage a file in place, a JSON file by its structure half the time."""
    content = path.read_bytes()
    if flip:
        content = flipped(rng, content)
    elif path.suffix == ".json" and rng.random() < 0.5:
        content = json.dumps(restructured(rng, json.loads(content))).encode(errors="replace")
    else:
        content = mutated(rng, content)
    path.write_bytes(content)


def damage_any(rng: random.Random, folder: Path, pattern: str = "*", *, flip: bool = False) -> None:
    """Damage a file of a folder, or remove it now and then."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    path = rng.choice(files)
    if ENABLED and not flip and rng.random() < 0.1:
        path.unlink()
    else:
        damage(rng, path, flip=flip)


# Reading.


def stored(collection: Collection, candidates: Run, folder: Path) -> dict[str, Any]:
    """Return what a store holds after all candidates are scored in it."""
    from retrodistill.stages.scoring import score_candidates

    store = score_candidates(collection, candidates, Teacher(), folder, shard_pairs=16)
    run = store.run()
    return {"scores": run.to_dict(), "scale": run.scale}


def hits(folder: Path) -> list[tuple[str, float]]:
    """Return what an index finds."""
    from retrodistill.stages.searching import Searcher

    searcher = Searcher.open(folder, precision="float32", with_texts=False)
    return [
        (hit.doc_id, round(hit.score, 4)) for row in searcher.search_many(QUERIES, 5) for hit in row
    ]


def texts_of(place: Place, name: str) -> bool:
    folder = place.copy("data")
    damage(place.rng, folder / name)
    collection = load_collection(f"beir:{folder}")
    collection.docs.full_texts()
    for split in collection.splits:
        collection.query_ids(split)
        collection.relevant(split)
    collection.queries.full_texts()
    return True


def run_of(place: Place, name: str, suffix: str) -> bool:
    path = place.written(f"run.{suffix}", mutated(place.rng, place.base.files[name]))
    return readable(Run.read(path))


def readable(run: Run) -> bool:
    """Tell whether a run holds what a run may hold."""
    scores = [score for _, _, scores in run.lists() for score in scores.tolist()]
    return all(map(math.isfinite, scores)) and "" not in run.query_ids


def parquet_run(place: Place) -> bool:
    rng, count = place.rng, 6
    kinds: list[Callable[[], pa.Array]] = [
        lambda: pa.array([f"q{n}" for n in range(count)]),
        lambda: pa.array(range(count)),
        lambda: pa.array([n / 2 for n in range(count)]),
        lambda: pa.array([True, False] * 3),
        lambda: pa.array(range(count), pa.timestamp("s")),
        lambda: pa.array(range(count), pa.duration("s")),
        lambda: pa.array(range(count)).cast(pa.decimal128(30, 2)),
        lambda: pa.array([None, *range(count - 1)]),
        lambda: pa.array([[1]] * count),
        lambda: pa.array([b"\xff"] * count).view(pa.string()),
        lambda: pa.array([{"a": 1}] * count),
        lambda: pa.array([math.nan, math.inf, *range(count - 2)], pa.float64()),
        lambda: pa.array([f"q{n}" for n in range(count)]).dictionary_encode(),
        lambda: pa.nulls(count),
    ]
    usual = {"query_id": kinds[0], "doc_id": kinds[0], "score": kinds[2]}
    columns = {
        name: (rng.choice(kinds) if rng.random() < 0.4 else kind)()
        for name, kind in usual.items()
        if rng.random() < 0.97
    }
    pq.write_table(pa.table(columns), place.folder / "run.parquet")
    if rng.random() < 0.3:
        damage(rng, place.folder / "run.parquet")
    run = Run.read(place.folder / "run.parquet")
    wrong = (pa.types.is_boolean, pa.types.is_timestamp, pa.types.is_duration)
    return readable(run) and not any(test(columns["score"].type) for test in wrong)


def yaml_config(place: Place) -> bool:
    rng = place.rng
    config = rng.choice(COMMANDS)
    names = list(config.__dataclass_fields__)
    settings = dict.fromkeys(required_settings(config), "x")
    values = ["x", "3", "0.5", "[a, b]", "*b", *(NASTY if rng.random() < 0.6 else ())]
    settings |= {rng.choice(names): rng.choice(values) for _ in range(rng.randint(0, 2))}
    lines = [f"{name.rstrip('_')}: {value}" for name, value in settings.items()]
    bomb = "a0: &b [x]\n" if rng.random() < 0.1 else ""
    text = (bomb + "\n".join(lines)).encode(errors="replace")
    text = mutated(rng, text) if rng.random() < 0.5 else text
    path = place.written("settings.yaml", text)
    parse(config, ["--config", str(path), "--print-config"], "verb", "About.")
    return True


def required_settings(config: Any) -> list[str]:
    """Return settings that a command may not lack."""
    chosen = {
        "ScoreConfig": ["data", "teacher", "candidates"],
        "SearchConfig": ["query"],
        "EvaluateConfig": ["run", "data"],
        "ReportConfig": ["data"],
    }
    fields = dataclasses.fields(config)
    names = [
        item.name
        for item in fields
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    return [*names, *chosen.get(config.__name__, [])]


PLAN = b"""datasets: {a: "beir:x", b: {data: "beir:y", split: dev}}
systems:
  bm25: {retriever: bm25}
  small: {model: students/kl, index: hnsw, recall: 0.95, dimensions: 128}
  reranked: {rerank: "cross-encoder:m", of: bm25, depth: 30, option: [a=1]}
"""


def plan(place: Place) -> bool:
    from retrodistill.stages.pipelines.benchmark.plan import read_plan

    read_plan(place.written("plan.yaml", mutated(place.rng, PLAN)))
    return True


def where(place: Place) -> bool:
    from fakes.conditions import truth

    from retrodistill.data.filters import Attributes, parse_where

    rng = place.rng
    rows = [
        {
            "year": rng.choice([None, 2019, 2020, 2021]),
            "lang": rng.choice([None, "de", "en"]),
            "stars": rng.choice([None, 1.5, 3.0]),
            "open": rng.choice([None, True, False]),
        }
        for _ in range(8)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    text = condition(rng)
    if rng.random() < 0.6:
        text = mutated(rng, text.encode()).decode(errors="surrogateescape")
    expression = parse_where(text)
    found = Attributes.from_columns(columns).matching(expression).tolist()
    again = Attributes.from_columns(columns).matching(parse_where(str(expression))).tolist()
    return bool(found == again == [truth(expression, row) is True for row in rows])


def condition(rng: random.Random, depth: int = 0) -> str:
    """Return a condition that is in order."""
    if depth < 3 and rng.random() < 0.5:
        joint = rng.choice(["and", "or"])
        text = f"{condition(rng, depth + 1)} {joint} {condition(rng, depth + 1)}"
        return rng.choice([f"({text})", f"not ({text})", text])
    return rng.choice(
        [
            f"year {rng.choice(['=', '!=', '<', '<=', '>', '>='])} {rng.randint(2018, 2022)}",
            "lang in ('de', 'en')",
            "lang = 'de'",
            "year between 2019 and 2020",
            "stars > 1.5",
            "year is missing",
            "not open = true",
            "open = false",
            "lang not in ('en')",
        ]
    )


def objective(place: Place) -> bool:
    from retrodistill.objectives.objective import parse_objective

    rng = place.rng
    names = ["listwise-kl", "contrastive", "margin-mse", "ranknet", "leaf", "infonce", "math:sqrt"]
    numbers = ["1", "0.5", "0", "-1", "1e400", "nan", "1e-3", "x", "true", ""]
    settings = ["temperature", "student_temperature", "teacher_temperature", "averaged", "tau"]
    terms = []
    for _ in range(rng.randint(1, 3)):
        pairs = [f"{rng.choice(settings)}={rng.choice(numbers)}" for _ in range(rng.randint(0, 2))]
        bracket = f"({','.join(pairs)})" if pairs else ""
        weight = f"{rng.choice(numbers)}*" if rng.random() < 0.6 else ""
        terms.append(weight + rng.choice(names) + bracket)
    text = " + ".join(terms)
    if rng.random() < 0.3:
        text = mutated(rng, text.encode()).decode(errors="surrogateescape")
    parsed = parse_objective(text)
    values = [value for term in parsed for value in term.settings.values()]
    return all(0 < term.weight < math.inf for term in parsed) and all(
        math.isfinite(value) for value in values if isinstance(value, float)
    )


def sets(place: Place) -> bool:
    from retrodistill.data.rankings.sets import evaluate_sets

    rng = place.rng
    words = ["vitamin", '"vitamin D"', "AND", "OR", "NOT", "(", ")", '" "', '""', "and", "asthma"]
    text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 8)))
    if rng.random() < 0.4:
        text = mutated(rng, text.encode()).decode(errors="surrogateescape")
    asked: list[str] = []

    def search(texts: list[str], depth: int) -> list[dict[str, float]]:
        asked.extend(texts)
        return [{f"d{len(text) % 7}": 1.0, f"d{len(text) % 5}": 0.5} for text in texts]

    found = evaluate_sets(text, search, 3)
    operators = re.search(r'(^|[\s()"])(AND|OR|NOT)($|[\s()"])', text)
    return bool(found) >= 0 and (not operators or all(part.strip() for part in asked))


def flags(place: Place) -> bool:
    rng = place.rng
    config = rng.choice(COMMANDS)
    names = ["--" + name.rstrip("_").replace("_", "-") for name in config.__dataclass_fields__]
    words = [word for name in required_settings(config) for word in (f"--{name}", "x")]
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(names)
        if rng.random() < 0.2:
            name = mutated(rng, name.encode()).decode(errors="surrogateescape")
        words += [name, rng.choice([*NASTY[:40], "3", "0.5", "x", "a,b", "1,2"])]
    parse(config, [word.replace("\x00", "") for word in words], "verb", "About.")
    return True


ATTRIBUTES = {
    "csv": b'_id,year,lang,day\nd0,2019,"de",2020-01-31\nd1,,en,\nd2,2021,"a,b",2021-05-01\n',
    "tsv": b"_id\tyear\tlang\nd0\t2019\tde\nd1\t\ten\nd2\t2021\tfr\n",
    "jsonl": b'{"_id": "d0", "year": 2019, "metadata": {"lang": "de"}}\n{"_id": "d1", "year": 1}\n',
}


def attributes(place: Place) -> bool:
    rng, ids = place.rng, ["d0", "d1", "d2"]
    suffix = rng.choice([*ATTRIBUTES, "parquet"])
    path = place.folder / f"attributes.{suffix}"
    if suffix == "parquet":
        own_ids = [ids, [0, 1, 2], [b"\xff", b"a", b"b"], [None, "d1", "d2"]]
        values = [[1, 2, 3], [None] * 3, [[1]] * 3, ["a", "b", "c"]]
        columns = {"_id": rng.choice(own_ids), "x": rng.choice(values)}
        arrays = {name: pa.array(column) for name, column in columns.items()}
        if rng.random() < 0.2:
            arrays["_id"] = pa.array([b"\xff", b"a", b"b"]).view(pa.string())
        pq.write_table(pa.table(arrays), path)
        if rng.random() < 0.5:
            damage(rng, path)
    else:
        path.write_bytes(mutated(rng, ATTRIBUTES[suffix]))
    table = read_attributes(path, ids)
    table.to_pylist()
    return table.num_rows == 3


def recipe(place: Place) -> bool:
    from retrodistill.objectives.recipes import load_recipe, recipe_names

    name = place.rng.choice(recipe_names())
    load_recipe(mutated(place.rng, name.encode()).decode(errors="surrogateescape"))
    return True


def qrels(place: Place) -> bool:
    from retrodistill.data.qrels import read_qrels

    read_qrels(place.written("qrels", mutated(place.rng, place.base.files["trec qrels"])))
    return True


def triples(place: Place) -> bool:
    from retrodistill.data.store.triples import candidates_from_triples

    path = place.written("t.tsv", mutated(place.rng, place.base.files["id triples"]))
    return readable(candidates_from_triples(path))


def score_format(place: Place) -> bool:
    from retrodistill.data.store.formats import guess_format, read_scores

    name = place.rng.choice(FILE_FORMATS)
    path = place.written(f"f.{name}", mutated(place.rng, place.base.files[name]))
    if place.rng.random() < 0.2:
        guess_format(path)
    return readable(read_scores(path, name, place.base.collection).run)


def card(place: Place) -> bool:
    from retrodistill.reproduce import main

    path = place.written("card.yaml", mutated(place.rng, place.base.files["card"]))
    os.chdir(place.folder)
    sys.exit(status) if (status := main([str(path)])) else None
    return True


def manifest(place: Place) -> bool:
    from retrodistill.base.manifest import Manifest
    from retrodistill.data.store.scores import ScoreStore

    name = place.rng.choice(["run", "scores"])
    folder = place.copy(name)
    damage(place.rng, folder / "manifest.json")
    Manifest.read(folder)
    run = Run.read(folder) if name == "run" else ScoreStore.open(folder).run()
    expected = place.base.candidates.to_dict() if name == "run" else place.base.scores["scores"]
    return bool(run.to_dict() == expected)


def index(place: Place, pattern: str = "*", *, flip: bool = False) -> bool:
    name = place.rng.choice(["flat", "hnsw"])
    folder = place.copy(name)
    files = [path for path in folder.glob(pattern) if path.name != "model"]
    chosen = place.rng.choice(sorted(files))
    damage(place.rng, chosen, flip=flip) if chosen.is_file() else damage_any(
        place.rng, chosen, flip=flip
    )
    return hits(folder) == place.base.hits[name]


def index_model(place: Place, *, flip: bool = False) -> bool:
    folder = place.copy("flat")
    damage_any(place.rng, folder / "model", flip=flip)
    return hits(folder) == place.base.hits["flat"]


def student(place: Place, *, flip: bool = False) -> bool:
    from retrodistill.models.students.dense import DenseEncoder

    folder = place.copy("student")
    damage_any(place.rng, folder, flip=flip)
    vectors = DenseEncoder(folder, precision="float32").encode_docs(QUERIES)
    return vectors.shape == place.base.encoded.shape and np.allclose(
        vectors, place.base.encoded, atol=1e-5
    )


def store(place: Place, pattern: str = "*", *, flip: bool = False) -> bool:
    """Damage a store whose last shard is missing, and score in it again."""
    folder = place.copy("scores")
    sorted((folder / "shards").glob("*.parquet"))[-1].unlink()
    damage_any(place.rng, folder, pattern, flip=flip)
    base = place.base
    return stored(base.collection, base.candidates, folder) == base.scores


def run_file(place: Place, name: str) -> bool:
    folder = place.copy("run")
    damage(place.rng, folder / name, flip=True)
    run = Run.read(folder)
    expected = place.base.candidates
    return run.to_dict() == expected.to_dict() and run.scale == expected.scale


def cached(place: Place, pattern: str) -> bool:
    """Flip a bit in the cache of vectors or texts, and read them again."""
    from retrodistill.data.store.vectors import doc_vectors

    cache = shutil.copytree(place.base.folder / "small-cache", os.environ["RETRODISTILL_CACHE"])
    damage_any(place.rng, Path(cache), pattern, flip=True)
    collection = load_collection(f"beir:{place.base.data}")
    expected = place.base.collection
    same = collection.docs.full_texts() == expected.docs.full_texts()
    same &= collection.docs.rows(expected.docs.ids()).tolist() == [*range(len(expected.docs))]
    return (
        same
        and collection.docs.ids() == expected.docs.ids()
        and np.array_equal(doc_vectors(Encoder(), collection.docs), place.base.vectors)
    )


KINDS = [
    Kind("beir corpus.jsonl", 340, lambda place: texts_of(place, "corpus.jsonl")),
    Kind("trec run", 290, lambda place: run_of(place, "trec", "trec")),
    Kind("jsonl run", 290, lambda place: run_of(place, "jsonl", "jsonl")),
    Kind("yaml config", 540, yaml_config),
    Kind("benchmark plan", 440, plan),
    Kind("--where", 1540, where),
    Kind("--objective", 540, objective),
    Kind("--sets", 640, sets),
    Kind("flags", 640, flags),
    Kind("attributes", 600, attributes),
    Kind("beir queries.jsonl", 200, lambda place: texts_of(place, "queries.jsonl")),
    Kind("recipe name", 60, recipe),
    Kind("parquet run", 200, parquet_run),
    Kind("beir qrels", 200, lambda place: texts_of(place, "qrels/test.tsv")),
    Kind("trec qrels", 200, qrels),
    Kind("id triples", 200, triples),
    Kind("score formats", 530, score_format),
    Kind("result card", 250, card, "card"),
    Kind("manifest.json", 220, manifest, "store"),
    Kind("index folder", 200, index, "model"),
    Kind("score store", 150, store, "store"),
    Kind("index model", 150, index_model, "model"),
    Kind("student", 200, student, "model"),
    Kind("flip: score shard", 60, lambda place: store(place, "*.parquet", flip=True), "store"),
    Kind("flip: score plan", 100, lambda place: store(place, "plans/*", flip=True), "store"),
    Kind("flip: store manifest", 60, lambda place: store(place, "manif*", flip=True), "store"),
    Kind("flip: run.parquet", 60, lambda place: run_file(place, "run.parquet")),
    Kind("flip: run manifest", 60, lambda place: run_file(place, "manifest.json")),
    Kind("flip: vectors cache", 100, lambda place: cached(place, "vectors/**/*.npy"), "cache"),
    Kind("flip: docs.arrow", 100, lambda place: cached(place, "docs.arrow"), "cache"),
    Kind("flip: docs.ids.npy", 60, lambda place: cached(place, "docs.ids.npy"), "cache"),
    Kind("flip: index file", 60, lambda place: index(place, "*", flip=True), "model"),
    Kind("flip: index model", 60, lambda place: index_model(place, flip=True), "model"),
    Kind("flip: student", 60, lambda place: student(place, flip=True), "model"),
]
