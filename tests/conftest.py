"""Settings and fixtures that every test shares."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when a test module imports huggingface_hub


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real test data beside the checkout (or $RETRODISTILL_SHARED_DATA)."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RETRODISTILL_SHARED_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder} (set RETRODISTILL_SHARED_DATA to one)")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, for a module: while it runs, a thread's `asyncio.run` is refused."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no program `chromium` on the PATH")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test fills the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETRODISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def number_type() -> Iterator[None]:
    """Let `--precision auto` be what $RETRODISTILL_TEST_BFLOAT16 says (on, off), else measured.

    `make test` must pass with both: no test may depend on what a processor is fast at.
    """
    forced = os.environ.get("RETRODISTILL_TEST_BFLOAT16", "")
    if forced not in ("", "on", "off"):
        raise ValueError(f"RETRODISTILL_TEST_BFLOAT16 must be on or off, got {forced!r}.")
    with pytest.MonkeyPatch.context() as patch:
        if forced:
            devices = "retrodistill.models.inference.devices"
            speedup = float("inf") if forced == "on" else 0.0
            patch.setattr(f"{devices}.bfloat16_speedup", lambda device: speedup)
        if forced == "on":
            patch.setattr(f"{devices}.has_bfloat16", lambda device: True)
        yield


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that batches do not change: in bfloat16 the last digits depend on a text's company."""
    monkeypatch.setattr("retrodistill.models.inference.devices.bfloat16_speedup", lambda _: 0.0)


@pytest.fixture(autouse=True)
def messages() -> None:
    """Let the package's messages go to stderr, as its commands do."""
    from retrodistill.base.logging import log_to_stderr

    log_to_stderr()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 6-layer, 32-dimensional bi-encoder in sentence-transformers format."""
    from fakes.models import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BEIR folder of the small collection; one for each test module."""
    from fakes.corpus import save_small_collection

    return save_small_collection(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture(scope="module")
def collection(folder: Path) -> "Collection":
    """Return the small collection."""
    from retrodistill.data.datasets import load_collection

    return load_collection(f"beir:{folder}")
