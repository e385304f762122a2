"""Mistakes in flags end a command at once: exit status 2, a sentence, nothing heavy imported."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from retrodistill.__main__ import VERBS

HEAVY = ("torch", "transformers", "sentence_transformers", "ranx", "numba", "faiss", "scipy")

SCRIPT = """
import contextlib, importlib, io, json, sys
answers = []
for verb, words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = importlib.import_module("retrodistill." + verb).main(words)
    answers.append([status, said.getvalue()])
print(json.dumps([answers, list(sys.modules)]))
"""

MINE = "--data beir:none --out new"
SCORE = "--data beir:none --candidates run.trec --out new"
TRAIN = "--data beir:none --student students/kl --out new"
EMBED = "--data beir:none --model students/kl --out new"
ROUNDS = "--data beir:none --student students/kl --out new --recipe listwise-kl"
DISTIL = "--data beir:none --student students/kl --out new"
JUDGE = "--data beir:none --run run.trec --out new"
EXPORT = "--data beir:none --model students/kl --out new"
MEASURE = "--qrels run.trec --run run.trec"
SERVED = "--data beir:none --endpoint"
NOBODY = "http://127.0.0.1:9"

MISTAKES: dict[str, list[tuple[str, str]]] = {
    "distil": [
        ("--data beir:none --out run.trec", "run.trec"),
        (f"{DISTIL} --teacher bm52", "Did you mean 'bm25'?"),
        (f"{DISTIL} --teacher bi-encoder:students/kll", "Did you mean 'students/kl'?"),
        (f"{DISTIL} --student students/kll", "Did you mean 'students/kl'?"),
        (f"{DISTIL} --writer title", "Did you mean 'titles'?"),
        (f"{DISTIL} --writer none --writer titles", "--writer none goes with no other"),
        (f"{DISTIL} --judge openai:m", "Did you mean 'llm'?"),
        (f"{DISTIL} --index hsnw", "Did you mean 'hnsw'?"),
        (f"{DISTIL} --keep-layer 0,2", "Did you mean '--keep-layers'?"),
        (f"{DISTIL} --perplexity 1", "--perplexity must be above 1"),
        ("--data beir:none --out a,b", "has a comma"),
        ("--data beir:none --out students", "exists already, and no pipeline has written it"),
    ],
    "generate": [
        ("--data beir:none --out there", "there exists already"),
        (f"{MINE} --writer title", "Did you mean 'titles'?"),
        (f"{MINE} --writer titles --writer titles", "--writer titles is given twice"),
        (f"{MINE} --writer causal-lm:students/kll", "Did you mean 'students/kl'?"),
        (f"{MINE} --writer llm:m --option pric_in=3", "Did you mean 'price_in'?"),
        (f"{MINE} --writer causal-lm:students/kl --option top_p=x", "top_p must be of type float"),
        (f"{MINE} --writer llm:m --kind questions", "Did you mean 'question'?"),
        (f"{MINE} --writer llm:m --prompts none", "--prompts none does not exist"),
        (f"{MINE} --kind claim", "--kind and --prompts are for language models"),
        (f"{MINE} --teacher bm52 --min-score 1", "Did you mean 'bm25'?"),
        (f"{MINE} --teacher bm25 --min-score 1 --teacher-option x=1", "--option 'x=1'"),
        (f"{MINE} --round-trip 5 --retriever bm52", "Did you mean 'bm25'?"),
        (f"{MINE} --max-words 1", "--max-words must be at least 2"),
        (f"{MINE} --near-duplicates 2", "--near-duplicates must be at most 1"),
    ],
    "mine": [
        ("--data beir:none --out there", "there exists already"),
        ("--data beir:none --out run.trec/new", "run.trec/new cannot be written"),
        (f"{MINE} --retriever dens:m", "Did you mean 'dense'?"),
        (f"{MINE} --retriever splade:m", "Did you mean 'sparse'?"),
        (f"{MINE} --retriever dense:students/kll", "Did you mean 'students/kl'?"),
        (f"{MINE} --retrievers bm25", "Did you mean '--retriever'?"),
        (f"{MINE} --retriever endpoint:localhost", "must be as http://localhost:8080/v1"),
        (f"{MINE} --retriever endpoint:{NOBODY}", "127.0.0.1:9/v1/embeddings cannot be reached"),
    ],
    "score": [
        (f"{SCORE} --teacher crossencoder:m", "Did you mean 'cross-encoder'?"),
        (f"{SCORE} --teacher bi-encoder:./none", "there is no folder ./none"),
        (f"{SCORE} --teacher run:none", "none does not exist"),
        (f"{SCORE} --teacher llm:m --option modl=3", "--option 'modl=3'"),
        ("--status --out none", "--out none does not exist"),
    ],
    "audit": [
        ("--data beir:none --candidates none --teacher bm25", "--candidates none does not"),
        ("--data beir:none --candidates run.trec --teacher bm52", "Did you mean 'bm25'?"),
        (
            "--data beir:none --candidates run.trec --teacher bm25 --student students/kll",
            "--student: there is no folder students/kll. Did you mean 'students/kl'?",
        ),
    ],
    "leakage": [
        ("--data beir:none --json there", "--json: there is a folder"),
        ("--data beir:none --threshhold 1", "Did you mean '--threshold'?"),
        ("--data beir:none --test-split train", "two different splits"),
    ],
    "train": [
        ("--data beir:none --student students/kll --out new", "Did you mean 'students/kl'?"),
        ("--data beir:none --student students/kl --out there", "there exists already"),
        ("--data beir:none --student students/kl --out run.trec/new", "cannot be written"),
        (f"{TRAIN} --objective infonce", "Did you mean 'contrastive'?"),
        (f"{TRAIN} --objective kl+0.1*mse", "Did you mean 'listwise-kl'?"),
        (f"{TRAIN} --objective 'listwise-kl(teacher_temprature=1)'", "'teacher_temperature'?"),
        (f"{TRAIN} --objective 'listwise-kl(teacher_temperature=-1)'", "must be above 0"),
        (f"{TRAIN} --negative-sampling simms", "Did you mean 'simans'?"),
        (f"{TRAIN} --recipe simlm", "Did you mean 'simlm-kd'?"),
        (f"{TRAIN} --scores none", "--scores none does not exist"),
        (TRAIN, "needs teacher scores: give --scores"),
        (f"{TRAIN} --objective contrastive", "beir:none: there is no such folder"),
        (f"{TRAIN} --vectors package:all-MiniLM-L6-v2", "Did you mean 'packaged'?"),
        (f"{TRAIN} --objective batch-kl", "needs a live teacher: give --teacher"),
        (f"{TRAIN} --teacher late-interactoin:m", "Did you mean 'late-interaction'?"),
        (f"{TRAIN} --teacher bi-encoder:students/kll", "Did you mean 'students/kl'?"),
        (f"{TRAIN} --teacher bm25", "cannot score while the student trains"),
        (f"{TRAIN} --teacher old=bi-encoder:students/kll", "Did you mean 'students/kl'?"),
        (
            f"{TRAIN} --objective 'batch-kl(teacher_batch_scores=old.batch_scores)'",
            "asks for old.batch_scores: give --teacher old=TEACHER",
        ),
        (
            f"{TRAIN} --objective batch-kl" + 2 * " --teacher sparse:students/kl",
            "two sources of teacher are given",
        ),
        (
            f"{TRAIN} --objective contrastive --teacher bi-encoder:students/kl",
            "learns nothing from a live teacher",
        ),
        (
            f"{TRAIN} --recipe tct-colbert --teacher cross-encoder:students/kl",
            "96 x 192 = 18,432 pairs a step, above --teacher-pairs 4,096",
        ),
        (f"{TRAIN} --dev-split dev --dev-metric ndgc@10", "Did you mean 'ndcg'?"),
        (f"{TRAIN} --batchsize 3", "unknown setting '--batchsize'. Did you mean '--batch-size'?"),
    ],
    "rounds": [
        (f"{ROUNDS} --out students --teacher bm25", "exists already, and no pipeline"),
        (f"{ROUNDS} --teacher bm52", "Did you mean 'bm25'?"),
        (f"{ROUNDS} --teacher bi-encoder:students/kll", "Did you mean 'students/kl'?"),
        (f"{ROUNDS} --student students/kll", "Did you mean 'students/kl'?"),
        (f"{ROUNDS} --recipe listwise", "Did you mean 'listwise-kl'?"),
        (f"{ROUNDS} --first-retriever bm52", "Did you mean 'bm25'?"),
        (f"{ROUNDS} --teacher bm25 --set max_step=3", "Did you mean 'max_steps'?"),
        (f"{ROUNDS} --teacher bm25 --option x=1", "--option 'x=1'"),
        (f"{ROUNDS} --metric ndgc@10", "Did you mean 'ndcg'?"),
        (f"{ROUNDS}", "recipe 'listwise-kl' needs scores: give --teacher TEACHER"),
        (f"{ROUNDS} --dev-split train", "--dev-split train is trained on"),
    ],
    "embed": [
        ("--data beir:none --model there --out new", "the folder there holds no model"),
        ("--data beir:none --model packaged:all-MiniLM-L6 --out new", "'all-MiniLM-L6-v2'?"),
        (f"{EMBED} --index hsnw", "unknown index 'hsnw'. Did you mean 'hnsw'?"),
        (f"{EMBED} --memory lots", "--memory must be a size"),
        (f"{EMBED} --workload none", "none"),
    ],
    "search": [
        ("--index none x", "--index none does not exist"),
        ("--index there x", "there is not an index folder"),
        ("--index index x --where 'year >'", "year >"),
        ("--index index --sets 'x AND'", "is not understood at 'its end'"),
        ("--index index --sets '\" \" NOT x'", "holds an empty text"),
        ("--index index --data beir:none --out there", "there exists already"),
        ("--index index x --query-model students/kll", "Did you mean 'students/kl'?"),
        ("--data beir:none x --model students/kl --query-model students/kl", "needs --index"),
    ],
    "serve": [
        ("", "there is nothing to serve"),
        ("--index none", "--index none does not exist"),
        ("--index there", "there is not an index folder"),
        ("--index index --index index", "two are called 'index'"),
        ("--index index --model index=students/kl", "two are called 'index'"),
        ("--index 'a b=index'", "unlike 'a b': write NAME=FOLDER"),
        ("--model students/kll", "Did you mean 'students/kl'?"),
        ("--index index --reranker cross-encoder:students/kll", "Did you mean 'students/kl'?"),
        ("--index index --reranker crossencoder:m", "Did you mean 'cross-encoder'?"),
        ("--index index --host 0.0.0.0", "--host 0.0.0.0 can be reached from other machines"),
        ("--index index --api-key-file none", "--api-key-file none does not exist"),
        ("--index index --api-key-file short.txt", "key 1 is not one"),
        ("--index index --api-key-file empty.txt", "holds no key"),
        ("--index index --port 65536", "--port must be from 0 to 65535"),
        ("--index index --body lots", "--body must be a size"),
        ("--index index --host 192.0.2.1 --no-key", "192.0.2.1 --port 8080 cannot be listened at"),
        ("--model students/kl --changes changes", "--changes is for the documents of an index"),
        ("--index index --idnex index", "Did you mean '--index'?"),
    ],
    "reproduce": [
        ("", "needs one card"),
        ("none.yaml", "card none.yaml does not exist"),
        ("run.trec --from-scratch", "--from-scratch needs --out"),
        ("run.trec --out run.trec/new", "run.trec/new cannot be written"),
        ("run.trec --qrels none", "--qrels none does not exist"),
    ],
    "export": [
        ("--data beir:none --model students/kl --out there", "there exists already"),
        ("--data beir:none --model students/kll --out new", "Did you mean 'students/kl'?"),
        (f"{EXPORT} --format onnx --precision int8-static", "is written in float32, int8, but"),
        (f"{EXPORT} --precision int4", "invalid choice: 'int4'"),
        (f"{EXPORT} --max-docs 0", "--max-docs must be at least 1"),
        (f"{EXPORT} --push mine", "--push must name a repository as in ORGANISATION/NAME"),
        ("--data beir:none --model towers --out new", "is a model of two towers"),
    ],
    "convert": [
        ("--data beir:none --out new --import run.trec --format trek", "Did you mean 'trec'?"),
        ("--data beir:none --out run.trec/s --import run.trec", "run.trec/s/shards cannot be"),
        ("--data beir:none --out run.trec --import run.trec", "run.trec/shards cannot be written"),
        ("--data beir:none --out new --import runn.trec", "Did you mean 'run.trec'?"),
        ("--out run.trec --export run.trec --format jsonl", "run.trec exists already"),
        ("--out new --export run.trc --format jsonl", "Did you mean 'run.trec'?"),
        ("--clicks none.csv --out there", "there exists already"),
        ("--clicks none.csv --out run.trec", "run.trec exists already"),
        ("--clicks none.csv --out new.tsv", "none.csv"),
    ],
    "fuse": [
        ("--run run.trec --data beir:none --as-store --out run.trec", "run.trec/shards cannot be"),
        ("--run run.trec --runs run.trec --out new", "Did you mean '--run'?"),
        ("--run run.trec --run run.trek --out new", "Did you mean 'run.trec'?"),
        ("--run run.trec --run run.trec --out there", "there exists already"),
        (
            "--run run.trec --run run.trec --tune run.trec --tune run.trec --qrels run.trec "
            "--metric ndgc --out new",
            "Did you mean 'ndcg'?",
        ),
    ],
    "judge": [
        ("--data beir:none --run run.trec --judge llm:m --out there", "there exists already"),
        ("--data beir:none --run none --judge llm:m --out new", "--run none does not exist"),
        ("--data beir:none --run run.trec --run index --judge llm:m --out new", "kind 'index'"),
        ("--data beir:none --run a --run b --judge llm:m --out new", "from two collections"),
        (f"{JUDGE} --judge openai:m", "Did you mean 'llm'?"),
        (f"{JUDGE} --judge llm", "llm:NAME"),
        (f"{JUDGE} --judge llm:m --option modl=3", "--option 'modl=3'"),
        (f"{JUDGE} --judge llm:m --rubric none", "--rubric none does not exist"),
        (f"{JUDGE} --judge llm:m --rubric run.trec", "must say what the grades"),
        (f"{JUDGE} --judge llm-pairwise:m --grades 0.5", "compares the documents of a list"),
        (f"{JUDGE} --judge cross-encoder:students/kll --grades 0.5", "'students/kl'?"),
        (f"{JUDGE} --judge cross-encoder:students/kl", "say from which score on"),
        (f"{JUDGE} --judge run:run.trec --grades 0.5", "is one of the runs"),
    ],
    "evaluate": [
        (f"{MEASURE} --metrics ndgc@10", "Did you mean 'ndcg'?"),
        (f"{MEASURE} --run none", "--run none does not exist"),
        (f"{MEASURE} --teacher none", "--teacher none does not exist"),
        (f"{MEASURE} --json there", "--json: there is a folder"),
        (f"{MEASURE} --card run.trec/card.yaml", "run.trec/card.yaml cannot be written"),
        (f"{SERVED} {NOBODY}", "127.0.0.1:9/v1/embeddings cannot be reached: Connection refused"),
        (f"{SERVED} {NOBODY}/search,method=bm52", "method must be one of"),
        (f"{SERVED} kl={NOBODY} --endpoint kl={NOBODY}/search", "two endpoints are called 'kl'"),
        (f"{SERVED} {NOBODY} --against students/kll", "Did you mean 'students/kl'?"),
        (f"{SERVED} {NOBODY} --card kl.yaml", "search --retriever endpoint:URL --out FOLDER"),
        (f"--qrels run.trec --endpoint {NOBODY}", "--endpoint needs --data"),
        (f"{MEASURE} --against students/kl", "--against is for an --endpoint"),
        (f"{SERVED} {NOBODY} --min-cosine 0.9", "--min-cosine needs --against"),
    ],
    "report": [
        (f"{MEASURE} --out there", "there exists already"),
        (f"{MEASURE} --metrics ndgc@10", "Did you mean 'ndcg'?"),
        (f"{MEASURE} --index none", "--index none does not exist"),
    ],
    "benchmark": [
        ("--plan none.yaml", "none.yaml cannot be read"),
        ("--plan plan.yaml", "plan.yaml: system 'x': unknown index 'hsnw'"),
        ("--plan plan.yaml --metrics ndgc", "Did you mean 'ndcg'?"),
    ],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, a run, an index' manifest, a plan, and a folder `there`."""
    place = tmp_path_factory.mktemp("place")
    (place / "there").mkdir()
    (place / "students" / "kl").mkdir(parents=True)
    (place / "students" / "kl" / "modules.json").write_text("[]")
    (place / "towers").mkdir()
    (place / "towers" / "modules.json").write_text('[{"type": "a.modules.router.Router"}]')
    (place / "short.txt").write_text("# keys\nsecret\n")
    (place / "empty.txt").write_text("# keys\n\n")
    (place / "run.trec").write_text("q1 Q0 d1 1 1.0 tag\n")
    (place / "index").mkdir()
    manifest = {"kind": "index", "fingerprint": "ab", "versions": {}}
    (place / "index" / "manifest.json").write_text(json.dumps(manifest))
    for name in ("a", "b"):  # runs of two collections
        (place / name).mkdir()
        run = {"kind": "run", "fingerprint": name, "inputs": {"collection": name}, "versions": {}}
        (place / name / "manifest.json").write_text(json.dumps(run))
    (place / "plan.yaml").write_text(
        "datasets: {a: 'beir:none'}\nsystems: {x: {model: m, index: hsnw}}\n"
    )
    return place


def test_every_verb_that_takes_a_path_is_tried() -> None:
    """A new verb would otherwise pass by not being here."""
    assert {*MISTAKES} == {*VERBS} - {"quickstart", "doctor"}


@pytest.mark.parametrize("verb", MISTAKES)
def test_a_mistake_is_a_sentence_before_anything_heavy_is_imported(verb: str, place: Path) -> None:
    """A typo answered after a minute of imports and loading, or after the training itself."""
    before = sorted(place.rglob("*"))
    calls = [(verb, shlex.split(words)) for words, _ in MISTAKES[verb]]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    answers, modules = json.loads(done.stdout)
    for (words, message), (status, said) in zip(MISTAKES[verb], answers, strict=True):
        assert status == 2, words
        assert message in said
        assert said.startswith(f"retrodistill.{verb}: ")
        assert said.count("\n") == 1, said
    assert not {*HEAVY} & {*modules}
    assert sorted(place.rglob("*")) == before


def test_the_command_itself_exits_with_2(place: Path) -> None:
    """A check that `main` makes and the command does not."""
    words = shlex.split(f"{TRAIN} --objective infonce")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "retrodistill.train", *words],
        capture_output=True,
        text=True,
        cwd=place,
    )
    assert done.returncode == 2
    assert "retrodistill.train: unknown objective 'infonce'" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {*HEAVY} & imported
    assert "retrodistill.stages.preflight" in imported
