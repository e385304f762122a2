"""From a result card back to its numbers, by a whole chain of tiny models."""

import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from fakes.corpus import save_small_collection
from fakes.models import save_tiny_model

from retrodistill.base.manifest import Manifest
from retrodistill.data.store.runs import Run
from retrodistill.evaluate import main as evaluate
from retrodistill.reproduce import main
from retrodistill.stages.pipelines.reproduce.card_files import read_card

CHAIN = (
    "mine --data beir:data --depth 8 --add-positives --out runs/train",
    "score --data beir:data --candidates runs/train --teacher bm25 --out scores/bm25",
    "train --data beir:data --scores scores/bm25 --student tiny/model --keep-layers 0,2 "
    "--max-steps 2 --batch-size 4 --out students/kl",
    "embed --data beir:data --model students/kl --out indexes/kl",
    "search --index indexes/kl --data beir:data --k 20 --out runs/kl",
    "mine --data beir:data --split test --depth 20 --out runs/bm25",
    "fuse --run runs/bm25 --run runs/kl --out runs/both",
    "evaluate --data beir:data --run runs/both --run runs/kl --card card.yaml",
)
NEEDED = [
    "runs/bm25",
    "runs/train",
    "scores/bm25",
    "students/kl",
    "indexes/kl",
    "runs/kl",
    "runs/both",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the chain has run, with its card."""
    folder = tmp_path_factory.mktemp("chain") / "made"
    save_small_collection(folder / "data")
    save_tiny_model(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in CHAIN:
            verb, *words = line.split()
            assert import_module(f"retrodistill.{verb}").main(words) == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to work in."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def reproduce(capsys: pytest.CaptureFixture[str], words: str = "", *, status: int = 0) -> str:
    """Return all that the command prints and logs."""
    exit_status = main(["card.yaml", *words.split()])
    streams = capsys.readouterr()
    assert exit_status == status, streams.err
    return streams.out + streams.err


def edit(path: str, was: str, becomes: str) -> None:
    text = Path(path).read_text(encoding="utf-8")
    assert was in text
    Path(path).write_text(text.replace(was, becomes, 1), encoding="utf-8")


def test_a_card_records_the_whole_chain(work: Path) -> None:
    """A number whose student nobody can make again, because one step is missing."""
    card = read_card(Path("card.yaml"))
    assert [origin.artifact for origin in card.chain] == NEEDED
    assert not any(origin.cannot for origin in card.chain)
    student = card.chain[3]
    assert student.settings["max_steps"] == 2
    assert student.number_type
    assert [(source.name, source.kind) for source in student.inputs] == [
        ("scores/bm25", "scores"),
        ("tiny/model", "folder"),
    ]
    assert student.fingerprints["scores"] == card.chain[2].fingerprint
    assert card.chain[2].fingerprints["candidates"] == card.chain[1].fingerprint


def test_measuring_again_is_exact(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A card that rounds, so that its own run differs from it."""
    output = reproduce(capsys, "--tolerance 0")
    assert output.count("+0 ") == 8
    assert "made again" not in output


def test_what_was_deleted_is_made_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers that only one folder on one machine can give."""
    for folder in ("runs/kl", "runs/both", "indexes/kl"):
        shutil.rmtree(folder)
    output = reproduce(capsys, status=2)
    assert "indexes/kl, search -> runs/kl, fuse -> runs/both. Give --out" in output
    output = reproduce(capsys, "--out again")
    assert output.count("equal") == 3
    wanted = read_card(Path("card.yaml")).runs[0].fingerprint
    assert Run.read(Path("again/runs/both")).fingerprint == wanted
    assert not Path("indexes/kl").exists()


def test_the_whole_chain_is_made_from_scratch(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training that comes out otherwise on the same machine, with the same seed."""
    output = reproduce(capsys, "--out again --from-scratch")
    assert output.count("equal") == len(NEEDED)
    again = Manifest.read(Path("again/students/kl"))
    assert again.config["scores"] == ["again/scores/bm25"]
    assert again.fingerprint == Manifest.read(Path("students/kl")).fingerprint
    output = reproduce(capsys, "--out again --from-scratch")
    assert output.count("up to date") == len(NEEDED)
    assert "exists already, and no pipeline has" in reproduce(
        capsys, "--out runs --from-scratch", status=2
    )


def test_code_of_others_runs_only_when_asked(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card from a stranger that names any function as its teacher, and it is called."""
    Path("theirs.py").write_text("def Teacher(*_, **__): open('ran', 'w')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(work))
    edit("card.yaml", "    teacher: bm25", "    teacher: theirs:Teacher")
    output = reproduce(capsys, "--out again --from-scratch", status=2)
    assert "'theirs:Teacher' is code that is not part of retrodistill" in output
    assert not Path("ran").exists()


def test_a_moved_collection_is_found(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A card that works only where the author's disk is mounted."""
    Path("data").rename("elsewhere")
    shutil.rmtree("runs/kl")
    assert "+0 " in reproduce(capsys, "--data beir:elsewhere --out again")
    assert Manifest.read(Path("again/kl")).config["data"] == "beir:elsewhere"


def test_another_judgement_is_reported(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers against corrected judgements, compared with those against the old ones."""
    edit("data/qrels/test.tsv", "q24\td24\t1", "q24\td25\t1")
    output = reproduce(capsys, status=2)
    assert (
        "not reproduced. the judgements of beir:data test differ from the card's: 8 of 8 queries"
        in output
    )
    shutil.rmtree("runs/kl")
    assert "nothing is made again" in reproduce(capsys, "--out again", status=2)


def test_another_document_is_reported(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A corpus that was cleaned since, under the same name."""
    edit("data/corpus.jsonl", '"text": "', '"text": "new ')
    output = reproduce(capsys, status=2)
    assert "the documents of beir:data differ from the card's: 60, the card has 60" in output


def test_another_number_is_reported(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number that was made a little better in the card."""
    card = yaml.safe_load(Path("card.yaml").read_text())
    card["runs"][1]["measures"]["ndcg@10"] += 0.01
    Path("card.yaml").write_text(yaml.safe_dump(card))
    output = reproduce(capsys, status=2)
    assert "not reproduced. kl: ndcg@10 is " in output
    assert "-0.01" in output
    assert "both: " not in output.partition("not reproduced.")[2]
    reproduce(capsys, "--tolerance 0.02")


def test_a_missing_or_changed_model_is_reported(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An hour of mining and scoring before the training finds no model to start from."""
    weights = next(Path("tiny/model").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    assert "needs tiny/model (--student) as it was" in reproduce(
        capsys, "--out again --from-scratch", status=2
    )
    shutil.rmtree("tiny/model")
    output = reproduce(capsys, "--out again --from-scratch", status=2)
    assert (
        "step 4 (train -> students/kl) needs tiny/model (--student), which does not exist here"
        in output
    )
    assert not Path("again").exists()


def test_a_replaced_student_is_no_part_of_the_chain(work: Path) -> None:
    """A card that names the student of today for the index of yesterday."""
    weights = next(Path("students/kl").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    manifest = Manifest.read(Path("students/kl"))
    replace(manifest, fingerprint="0" * 64).write(Path("students/kl"))
    words = "--data beir:data --run runs/kl --metrics mrr --card new.yaml"
    assert evaluate(words.split()) == 0
    chain = read_card(Path("new.yaml")).chain
    assert [origin.artifact for origin in chain] == ["indexes/kl", "runs/kl"]
    assert chain[0].cannot == "students/kl (--model) has changed since"


def test_a_run_from_python_cannot_be_repeated(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guess at settings that nobody has written down."""
    Run.read(Path("runs/kl")).write(Path("runs/own"))
    assert (
        evaluate(
            ["--data", "beir:data", "--run", "runs/own", "--metrics", "mrr", "--card", "card.yaml"]
        )
        == 0
    )
    reproduce(capsys)
    shutil.rmtree("runs/own")
    output = reproduce(capsys, "--out again", status=2)
    assert "step 1 (? -> runs/own) cannot be repeated: its manifest does not hold" in output


def test_a_file_is_measured_again_and_no_more(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A card that promises to make what another tool has made."""
    Run.read(Path("runs/kl")).to_trec(Path("kl.trec"))
    words = "--qrels data/qrels/test.tsv --run kl.trec --metrics mrr --card card.yaml"
    assert evaluate(words.split()) == 0
    card = read_card(Path("card.yaml"))
    assert card.collection is None
    assert card.chain == []
    assert len(card.runs[0].file) == 64
    assert "can only measure it again" in card.runs[0].note
    reproduce(capsys)
    assert "nothing to make from scratch" in reproduce(
        capsys, "--from-scratch --out again", status=2
    )
    edit("kl.trec", " retrodistill\n", " retrodistill\nq24 Q0 d999 1 99 x\n")
    assert "kl.trec is not the card's run" in reproduce(capsys, status=2)
    Path("kl.trec").unlink()
    assert "kl.trec does not exist here. Made by another tool" in reproduce(capsys, status=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "needs one card"),
        ("card.yaml other.yaml", "needs one card"),
        ("card.yaml --data beir:x --qrels q.txt", "either --data or --qrels"),
        ("card.yaml --from-scratch", "--from-scratch needs --out"),
        ("card.yaml --tolerance -1", "--tolerance must be at least 0"),
        ("card.yml", "card card.yml does not exist"),
    ],
)
def test_settings_are_checked_first(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chain that is made for an hour before a mistake in a flag is reported."""
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err
