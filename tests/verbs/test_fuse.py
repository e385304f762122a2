"""The fuse command, as it is typed, and the second stage in one step."""

from pathlib import Path

import numpy as np
import pytest
from fakes.corpus import save_small_collection

import retrodistill as rd
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Pairs, Unit
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.fuse import main

TUNE = ["--tune", "x", "--tune", "y", "--qrels", "q"]
STORES = {
    "": "z",
    "--norm none": "unknown",
    "--norm percentiles": "percentiles",
    "--norm min-max": "min-max",
    "--method rrf": "rrf",
    "--weight 1 --weight 0": "z",
    "--query-weight confidence": "z",
    "--query-weight agreement": "z",
}
"""Flags of a store -> its scale."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the test and dev runs of a good and a useless system."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    docs = [f"d{number}" for number in range(12)]
    for split, count in (("test", 4), ("dev", 120)):
        tables: dict[str, dict[str, dict[str, float]]] = {"good": {}, "useless": {}}
        lines = []
        for number in range(count):
            query, truth = f"{split}{number}", rng.normal(size=12)
            lines.append(f"{query} 0 {docs[int(truth.argmax())]} 1\n")
            for name, noise in (("good", 0.3), ("useless", 30.0)):
                scores = truth + noise * rng.normal(size=12)
                tables[name][query] = dict(zip(docs, scores.tolist(), strict=True))
        for name, table in tables.items():
            Run.from_dict(table).write(folder / f"{split}-{name}")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def typed(folder: Path, split: str, flag: str) -> list[str]:
    return [
        word for name in ("good", "useless") for word in (flag, str(folder / f"{split}-{name}"))
    ]


def test_given_weights_are_used_and_kept(runs: Path, tmp_path: Path) -> None:
    """A run that does not say what it was made of, or that was made with equal weights."""
    out = tmp_path / "out"
    words = [
        *typed(runs, "test", "--run"),
        "--weight",
        "3",
        "--weight",
        "1",
        "--norm",
        "z",
        "--depth",
        "5",
    ]
    assert main([*words, "--out", str(out)]) == 0
    members = [Run.read(runs / f"test-{name}") for name in ("good", "useless")]
    wanted = rd.fuse_runs(members, weights=[3, 1], norm="z").top(5)
    assert Run.read(out).fingerprint == wanted.fingerprint
    manifest = Manifest.read(out)
    assert manifest.inputs == {
        "run 1": members[0].fingerprint,
        "run 2": members[1].fingerprint,
    }
    assert manifest.config["weight"] == [3.0, 1.0]


def test_tuned_weights_are_told_and_kept(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that nobody can check: what single runs, equal and tuned weights did is not told."""
    out = tmp_path / "out"
    words = [*typed(runs, "test", "--run"), *typed(runs, "dev", "--tune")]
    assert (
        main([*words, "--qrels", str(runs / "dev.txt"), "--metric", "mrr", "--out", str(out)]) == 0
    )
    printed = capsys.readouterr().out
    for text in ("120 judged queries", "dev-good", "equal weights", "too high", "the other"):
        assert text in printed
    tuning = Manifest.read(out).details["tuning"]
    assert tuning["weights"][0] > 0.8
    assert tuning["singles"][0] > tuning["equal"] > tuning["singles"][1]
    assert tuning["fitted"] >= tuning["held_out"] > tuning["equal"]
    assert tuning["metric"] == "mrr"
    members = [Run.read(runs / f"test-{name}") for name in ("good", "useless")]
    again = rd.fuse_runs(members, weights=tuning["weights"], norm=tuning["norm"])
    assert Run.read(out).fingerprint == again.fingerprint


def test_measuring_what_was_tuned_on_is_warned_of(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report of the very queries that the weights were chosen for."""
    words = [*typed(runs, "dev", "--run"), *typed(runs, "dev", "--tune"), "--method", "rrf"]
    assert main([*words, "--qrels", str(runs / "dev.txt"), "--out", str(tmp_path / "out")]) == 0
    assert "120 queries of --run were tuned on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weight", "1", "--weight", "x"], "'x'"),
        (["--weight", "1"], "1 --weight for 2 --run"),
        (["--weight", "1", "--weight", "-1"], "none negative"),
        (["--method", "rrf", "--norm", "z"], "omit the norm"),
        (["--norm", "theoretical"], "Give minima"),
        (
            ["--norm", "theoretical", "--minimum", "0", "--minimum", "0"],
            "below its lowest possible",
        ),
        (["--tune", "x"], "1 --tune for 2 --run"),
        (["--tune", "x", "--tune", "y"], "--tune needs judgements"),
        (["--query-weight", "agreement"], "agreement needs judgements"),
        (["--data", "beir:x"], "--data needs --tune"),
        (["--qrels", "q"], "--qrels needs --tune"),
        (["--as-store"], "--as-store needs --data"),
        (["--as-store", "--data", "beir:x", "--overwrite"], "A score store resumes"),
        (["--method", "rrf", "--pairs", "shared"], "omit pairs"),
        (["--queries", "q"], "--queries needs --as-store"),
        ([*TUNE, "--weight", "1", "--weight", "1"], "omit --weight"),
        ([*TUNE, "--query-weight", "confidence"], "omit --query-weight"),
        ([*TUNE, "--pairs", "shared"], "omit --pairs shared"),
        ([*TUNE, "--as-store"], "--tune writes a run"),
        ([*TUNE, "--data", "beir:x"], "give either --data"),
    ],
)
def test_mistakes_end_with_status_2(
    words: list[str], message: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or a flag without effect."""
    assert main([*typed(runs, "test", "--run"), *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_runs_of_other_queries_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of the dev split beside one of the test split: two halves under one name, no fusion."""
    words = ["--run", str(runs / "test-good"), "--run", str(runs / "dev-good")]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "test-good has no query in common with the other runs (as in 'test0', 'dev0')" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_a_store_takes_norms_weights_and_judgements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag without effect, a wrong scale in the manifest, or no advice on the temperature."""
    monkeypatch.chdir(tmp_path)
    save_small_collection(tmp_path / "data")
    first = rd.mine_candidates(
        rd.load_collection("beir:data"), "train", settings=rd.MineSettings(depth=8)
    )
    first.write(Path("first"))
    rng = np.random.default_rng(0)
    columns = (first.table["query_id"], first.table["doc_id"])
    Run.from_columns(*columns, rng.normal(size=len(first))).write(Path("other"))
    stores = {}
    for number, (flags, scale) in enumerate(STORES.items()):
        out = Path(f"scores/{number}")
        line = f"--run first --run other --data beir:data --as-store {flags} --out {out}"
        assert main(line.split()) == 0
        assert "teacher_temperature" in capsys.readouterr().err
        manifest = Manifest.read(out)
        assert (manifest.kind, manifest.details["scale"]) == ("scores", scale), flags
        assert manifest.config["run"] == ["first", "other"]
        stores[flags] = Run.read(out)
        assert len(stores[flags]) == len(first)
    assert len({store.fingerprint for store in stores.values()}) == len(STORES)
    assert main(line.split()) == 0  # again: nothing is missing
    order = [doc for _, docs, _ in stores["--weight 1 --weight 0"].lists() for doc in docs]
    assert sorted(order) == sorted(doc for _, docs, _ in first.lists() for doc in docs)


class Lengths:
    """A teacher that likes documents with an odd number of letters, then later ids."""

    fingerprint, scale = "lengths", "unknown"
    unit: Unit = "pair"

    def __init__(self) -> None:
        self.asked = 0

    def score(self, pairs: Pairs) -> np.ndarray:  # type: ignore[type-arg]
        self.asked += len(pairs)
        docs = [pairs.docs[row] for row in pairs.doc_rows]
        scores = [len(doc.full_text) % 2 + int(doc.id[1:]) / 1000 for doc in docs]
        return np.array(scores, np.float32)


def test_a_second_stage_in_one_step_is_that_of_two(collection: Collection, tmp_path: Path) -> None:
    """Pairs scored below the depth, a tail that is lost, or another order than by the commands."""
    first, teacher = (
        rd.mine_candidates(collection, "test", settings=rd.MineSettings(depth=20)),
        Lengths(),
    )
    found = rd.rerank(first, collection, teacher, 5)
    assert teacher.asked == len(first.top(5)) < len(first) == len(found)
    rd.score_candidates(collection, first.top(5), teacher, tmp_path / "scores")
    first.write(tmp_path / "first")
    words = ["--method", "rerank", "--run", str(tmp_path / "first")]
    assert main([*words, "--run", str(tmp_path / "scores"), "--out", str(tmp_path / "out")]) == 0
    assert Run.read(tmp_path / "out").fingerprint == found.fingerprint
    with pytest.raises(ConfigError, match="at least 1"):
        rd.rerank(first, collection, teacher, 0)
