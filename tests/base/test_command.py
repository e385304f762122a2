"""Command lines: flags, YAML underneath, messages, exit statuses."""

import dataclasses
import errno
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from retrodistill import train
from retrodistill.base import config as configs
from retrodistill.base.command import parse, run
from retrodistill.base.config import (
    AuditConfig,
    BenchmarkConfig,
    ConvertConfig,
    DistilConfig,
    DoctorConfig,
    EmbedConfig,
    EvaluateConfig,
    ExportConfig,
    FuseConfig,
    GenerateConfig,
    JudgeConfig,
    LeakageConfig,
    MineConfig,
    QuickstartConfig,
    ReportConfig,
    ReproduceConfig,
    RoundsConfig,
    ScoreConfig,
    SearchConfig,
    ServeConfig,
    TrainConfig,
    as_dict,
)
from retrodistill.base.config.reading import as_declared, read_yaml
from retrodistill.base.errors import ConfigError, DataError

WORDS: dict[type, str] = {
    DistilConfig: "--data docs:x --out app --keep-layers 0,2 --teacher bm25 --teacher run:y",
    GenerateConfig: "--data docs:x --out q --writer titles --writer my:Mine --near-duplicates 1",
    MineConfig: "--data beir:x --out run --retriever bm25 --retriever dense:m --rrf-k 1e-3",
    ScoreConfig: "--data beir:x --candidates run --teacher bm25 --out s --option a=1 --option b=2",
    AuditConfig: "--data beir:x --candidates run --teacher bm25 --teacher bi-encoder:m",
    LeakageConfig: "--data beir:x --test-split dev --threshold 0.7 --shingle 4",
    TrainConfig: "--data beir:x --student m --out s --learning-rate 3e-5 --resume",
    RoundsConfig: "--data x --recipe r --out o --teacher a=bm25 --set a=1 --set b.c=2 --depth 9",
    EmbedConfig: "--data beir:x --model m --out i --max-tokens 200 --recall 0.9 --memory 2GB",
    SearchConfig: "--index i 'two words' 007 --k 3 --where 'year >= 2020' --explain",
    ExportConfig: "--data beir:x --model m --out e --precision int8 --min-cosine 0.9 --no-weights",
    ServeConfig: "--index kl=i --index j --reranker bm25 --port 0 --timeout 1e-3 --no-key",
    EvaluateConfig: "--run a --run b --qrels q --test fisher --no-per-query",
    FuseConfig: "--run a --run b --out run --weight 0.4 --weight 0.6 --norm z",
    JudgeConfig: "--data beir:x --run a --run b --judge llm:m --out j --max-failed 0.1",
    ReportConfig: "--run a --run b --qrels q --latency a=3.5 --queries 5",
    BenchmarkConfig: "--plan p.yaml --k 10 --timed 5 --price-per-hour 0.4 --metrics map",
    QuickstartConfig: "--out here",
    ReproduceConfig: "card.yaml --out again --from-scratch --tolerance 0.01",
    DoctorConfig: "--json",
    ConvertConfig: "--clicks log.csv --out q.tsv --min-clicks 2 --grades clicks",
}
"""For each config class, words that set fields of every form."""


def read(config_class: type, *words: object) -> Any:
    return parse(config_class, [str(word) for word in words], "verb", "About.")


def yaml_file(folder: Path, **settings: object) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def test_every_config_is_tried() -> None:
    """A new verb would otherwise pass these tests by not being in them."""
    assert set(WORDS) == {
        value
        for name, value in vars(configs).items()
        if name.endswith("Config") and dataclasses.is_dataclass(value)
    }


@pytest.mark.parametrize("config_class", WORDS, ids=lambda c: c.__name__)
def test_printed_config_gives_the_same_config(
    config_class: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A manifest's settings that do not run again are no provenance."""
    words = shlex.split(WORDS[config_class])
    expected = read(config_class, *words)
    assert read(config_class, *words, "--print-config") is None
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out, encoding="utf-8")
    assert read(config_class, "--config", printed) == expected


@given(
    data=st.text(),
    out=st.text(st.characters(exclude_characters="\0", codec="utf-8")).map(Path),
    retriever=st.lists(st.text(), max_size=3).map(tuple),
    depth=st.integers(min_value=1),
    ratio=st.none() | st.floats(min_value=0, allow_nan=False),
)
def test_any_config_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory,
    data: str,
    out: Path,
    retriever: tuple[str, ...],
    depth: int,
    ratio: float | None,
) -> None:
    """YAML reads no, 1e3, ~ and 007 as other things than the strings that they were."""
    config = MineConfig(
        data=data, out=out, retriever=retriever, depth=depth, false_negative_ratio=ratio
    )
    path = yaml_file(tmp_path_factory.mktemp("yaml"), **as_dict(config))
    assert read(MineConfig, "--config", path) == config


@pytest.mark.parametrize("config_class", WORDS, ids=lambda c: c.__name__)
def test_help_says_something_about_every_flag(
    config_class: type, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field without a string below it is a flag without a word of help."""
    assert read(config_class, "--help") is None
    text = capsys.readouterr().out
    for field in dataclasses.fields(config_class):
        if field.metadata.get("file_only"):
            continue
        name = field.name if field.metadata.get("positional") else "--" + field.name.rstrip("_")
        assert f"\n  {name.replace('_', '-')}" in text
    assert "About." in text


def test_repeated_flag_keeps_its_order() -> None:
    """Weights belong to stores by position; a set or the last one would swap or drop them."""
    config = read(EvaluateConfig, "--run", "b", "--run", "a", "--run", "b", "--qrels", "q")
    assert config.run == (Path("b"), Path("a"), Path("b"))


def test_positional_words_may_stand_anywhere() -> None:
    """A query in front of its flags is how people type it."""
    assert read(SearchConfig, "why", "--index", "i").query == ("why",)
    assert read(SearchConfig, "--index", "i", "why", "--k", "2", "how").query == ("why", "how")


def test_flags_win_over_yaml(tmp_path: Path) -> None:
    """A flag that the file overrides would be ignored without a word."""
    path = yaml_file(tmp_path, data="beir:x", out="run", depth=7, retriever=["a", "b"])
    config = read(MineConfig, "--config", path, "--depth", "9", "--retriever", "c")
    assert (config.data, config.depth, config.retriever) == ("beir:x", 9, ("c",))


def test_yaml_takes_a_flag_s_spelling_and_one_value_for_many(tmp_path: Path) -> None:
    """`add-positives:` and `retriever: bm25` are what a reader of `--help` writes."""
    path = yaml_file(
        tmp_path, **{"data": "d", "out": 2024, "add-positives": True, "retriever": "x"}
    )
    config = read(MineConfig, "--config", path)
    assert (config.out, config.add_positives, config.retriever) == (Path("2024"), True, ("x",))


def test_yaml_number_without_a_point_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 reads 3e-5 as a string."""
    path = tmp_path / "settings.yaml"
    path.write_text("{data: d, student: s, out: o, learning_rate: 3e-5}")
    assert read(TrainConfig, "--config", path).learning_rate == 3e-5


def test_empty_yaml_is_no_setting(tmp_path: Path) -> None:
    """A file with everything commented out is a usual start."""
    path = tmp_path / "settings.yaml"
    path.write_text("# depth: 3\n")
    assert read(QuickstartConfig, "--config", path) == QuickstartConfig()


def test_unknown_flag_names_the_nearest() -> None:
    """`--batchsize 4` that is taken for something else, or dropped, trains another model."""
    with pytest.raises(ConfigError, match=r"'--batchsize'.*Did you mean '--batch-size'"):
        read(TrainConfig, *shlex.split(WORDS[TrainConfig]), "--batchsize=4")


def test_a_flag_is_not_abbreviated() -> None:
    """`--dep 5` would change its meaning on the day that --deploy is added."""
    with pytest.raises(ConfigError, match="Did you mean '--depth'"):
        read(MineConfig, "--data", "d", "--out", "o", "--dep", "5")


def test_unknown_key_of_yaml_names_file_and_nearest(tmp_path: Path) -> None:
    """A mistyped key that is ignored is a run with other settings than its file says."""
    path = yaml_file(tmp_path, data="d", out="o", dpeth=5)
    with pytest.raises(ConfigError, match=r"settings\.yaml.*'dpeth'.*Did you mean 'depth'"):
        read(MineConfig, "--config", path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": "many"}, "depth must be of type int"),
        ({"depth": 2.5}, "depth must be a whole number"),
        ({"depth": True}, "depth must be of type int"),
        ({"depth": None}, "depth must be of type int"),
        ({"depth": [1]}, "depth must be of type int"),
        ({"depth": {"a": 1}}, "depth must be of type int"),
        ({"overwrite": "no"}, "overwrite must be of type bool"),
        ({"rrf_k": "x"}, "rrf_k must be of type float"),
        ({"retriever": [None]}, "retriever must be of type str"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"depth": 0}, "--depth must be at least 1"),
        ({"rrf_k": float("nan")}, "--rrf-k must be at least 0"),
        ({"false_negative_ratio": -1}, "--false-negative-ratio must be at least 0"),
        ({"add_positives": True, "drop_positives": True}, "exclude each other"),
    ],
)
def test_wrong_value_of_yaml(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """What YAML lets through as another type fails hours later, or not at all."""
    path = yaml_file(tmp_path, data="d", out="o", **settings)
    with pytest.raises(ConfigError, match=message):
        read(MineConfig, "--config", path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--depth", "many"], "--depth.*'many'"),
        (["--depth", "2.5"], "--depth.*'2.5'"),
        (["--precision", "float16"], "--precision.*'float16'"),
        (["--depth"], "--depth.*expected one argument"),
        (["--rrf-k", "nan"], "--rrf-k must be at least 0"),
        (["stray"], "unknown setting 'stray'"),
    ],
)
def test_wrong_value_of_a_flag(words: list[str], message: str) -> None:
    """Argparse would exit by itself, from Python too, with a page of usage."""
    with pytest.raises(ConfigError, match=message):
        read(MineConfig, "--data", "d", "--out", "o", *words)


def test_missing_settings_are_named_together() -> None:
    """One message, not one run for each missing flag."""
    with pytest.raises(ConfigError, match="needs --data, --out"):
        read(MineConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "must hold `setting: value` lines"),
        (b"a: [", "is not YAML"),
        (b"data: d\n\xff\xfe\xff", "line 2 is not UTF-8 text"),
    ],
)
def test_damaged_yaml(tmp_path: Path, content: bytes, message: str) -> None:
    """A user's damaged file is a message about that file."""
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read(MineConfig, "--config", path)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """YAML takes the last one without a word, which may not be the one that was just edited."""
    path = tmp_path / "settings.yaml"
    path.write_text("data: d\nout: o\ndepth: 5\ndata: e\n")
    with pytest.raises(
        ConfigError, match=r"settings\.yaml, line 4: duplicate key 'data', first on line 1"
    ):
        read(MineConfig, "--config", path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("split: 1.10", "split must be a text, but it is the number 1.1: quote it"),
        ("data: *bomb", "data must be of type str, but it is"),
        ("retriever: *bomb", "retriever must be of type str, but it is"),
        ("depth: *bomb", "depth must be of type int, but it is"),
        ("rrf_k: 1" + "0" * 400, "rrf_k must be of type float"),
        ("out: *bomb", "out must be of type Path, but it is"),
        ('out: "a\\0b"', "out must not hold a null character"),
    ],
)
def test_a_yaml_value_that_no_setting_can_be(tmp_path: Path, line: str, message: str) -> None:
    """A split `1.10` read as `1.1`; a traceback; or a message of 9^9 words, never finished."""
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    bomb = ["a0: &a0 [x]", *levels, "bomb: &bomb [*a8]"]
    path = tmp_path / "settings.yaml"
    path.write_text("\n".join([*bomb, line]))
    content = read_yaml(path, "f")
    with pytest.raises(ConfigError, match=message) as raised:
        as_declared({name: content[name] for name in [line.partition(":")[0]]}, MineConfig)
    assert len(str(raised.value)) < 1000


def test_absent_yaml(tmp_path: Path) -> None:
    """A mistyped path of --config must not fall back to the defaults."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read(MineConfig, "--config", tmp_path / "absent.yaml")


def fail_with(error: BaseException) -> Callable[[object], None]:
    def stage(config: object) -> None:
        raise error

    return stage


@pytest.mark.parametrize(
    ("error", "status"),
    [(DataError("line 3"), 2), (ConfigError("--k"), 2), (KeyboardInterrupt(), 130)],
)
def test_run_turns_errors_into_statuses(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script tells a mistake from an interrupt by the status alone."""
    assert run(DoctorConfig, fail_with(error), verb="v", about="About.", words=[]) == status
    assert capsys.readouterr().err.startswith("retrodistill.v: ")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "a/b: Permission denied. "),
        (FileExistsError(errno.EEXIST, "File exists", "a", None, "b"), 2, "a -> b: File exists"),
        (OSError(errno.EROFS, "Read-only file system", "a"), 2, "a: Read-only file system"),
        (FileNotFoundError(errno.ENOENT, "Failed to open local file 'x'"), 2, "local file 'x'"),
        (OSError(errno.EIO, "Input/output error", "a"), 1, "Check the disk"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), 1, "no space left to write"),
    ],
)
def test_errors_of_files_are_sentences(
    error: OSError, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback, and status 1, for a folder that the user may not write to."""
    assert run(DoctorConfig, fail_with(error), verb="v", about="About.", words=[]) == status
    assert message in capsys.readouterr().err


def test_run_lets_an_error_without_a_path_through() -> None:
    """A defect of the network code that is printed as a mistake in a path."""
    with pytest.raises(ConnectionResetError):
        run(
            DoctorConfig,
            fail_with(ConnectionResetError(104, "reset")),
            verb="v",
            about="",
            words=[],
        )


TERMINATED = """
import os, signal, sys
from retrodistill.base.command import run
from retrodistill.base.config import DoctorConfig

def stage(config):
    try:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        print("goes on")
    finally:
        print("tidied up")

signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(run(DoctorConfig, stage, verb="doctor", about="About.", words=[]))
"""


@pytest.mark.parametrize(
    ("name", "status", "printed"),
    [("SIGTERM", 143, "tidied up\n"), ("SIGHUP", 0, "goes on\ntidied up\n")],
)
def test_a_request_to_end_tidies_up(name: str, status: int, printed: str) -> None:
    """Workers, hidden folders and GPU memory that outlive `docker stop` or a scheduler's signal.

    A signal that nohup has switched off stays so.
    """
    words = [sys.executable, "-c", TERMINATED, name]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, printed), done.stderr
    assert ("ended by SIGTERM" in done.stderr) == (status == 143)


def test_run_lets_a_crash_through() -> None:
    """A defect that is printed as the user's mistake hides its traceback."""
    with pytest.raises(ZeroDivisionError):
        run(DoctorConfig, fail_with(ZeroDivisionError()), verb="v", about="About.", words=[])


def test_a_flag_that_shows_something_is_among_the_flags_of_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`train --list`, which only README knew of."""
    assert train.main(["--help"]) == 0
    assert "\n  --list " in capsys.readouterr().out


CRASH = """
import sys
from retrodistill.base.command import run
from retrodistill.base.config import DoctorConfig
sys.exit(run(DoctorConfig, lambda config: 1 / 0, verb="doctor", about="About."))
"""


@pytest.mark.parametrize(
    ("words", "status", "traceback"),
    [
        (["-m", "retrodistill.doctor", "--help"], 0, False),
        (["-m", "retrodistill", "doctor", "--help"], 0, False),
        (["-m", "retrodistill.doctor", "--jsonn"], 2, False),
        (["-m", "retrodistill.mine"], 2, False),
        (["-m", "retrodistill", "mien"], 2, False),
        (["-c", CRASH], 1, True),
    ],
)
def test_exit_status(words: list[str], status: int, traceback: bool) -> None:
    """Shell scripts and schedulers see nothing but this number."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert ("Traceback" in done.stderr) == traceback
