"""The wheel installs and runs outside the checkout."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, without a network."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    assert len(list(out.glob("*.tar.gz"))) == 1
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_package_and_its_data_only(wheel: Path) -> None:
    """Recipes, styles or the licence left at home; tests that land in site-packages."""
    names = zipfile.ZipFile(wheel).namelist()
    for ending in (
        "retrodistill/py.typed",
        "objectives/recipes/simlm-kd.yaml",
        "models/writers/prompts/question.txt",
        "reporting/page.css",
        "reporting/page.js",
        "licenses/LICENSE",
    ):
        assert any(name.endswith(ending) for name in names), ending
    roots = {name.split("/")[0] for name in names}
    assert roots == {"retrodistill", next(name for name in roots if name.endswith(".dist-info"))}


def test_an_installed_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """A package that runs where it was written, because the checkout lies beside it."""
    venv.create(tmp_path / "venv", with_pip=False)
    scripts = tmp_path / "venv" / "bin"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
    # The dependencies are those of this environment; its editable install must not come along.
    libraries = sysconfig.get_paths()["purelib"]
    (site / "libraries.pth").write_text(f"import sys; sys.path.append({libraries!r})\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "mount.txt").write_text("Mount a file system read only with mount -r.")
    (tmp_path / "docs" / "copy.txt").write_text("Copy files and folders with cp.")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(scripts / "python"), "-P", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    where = run("-c", "import retrodistill; print(retrodistill.__file__)")
    assert where.stdout.startswith(str(site)), where.stderr
    assert run("-m", "retrodistill", "--version").stdout.strip() != "0+unknown"
    assert "torch" in run("-m", "retrodistill", "doctor").stdout
    search = run(
        "-m",
        "retrodistill",
        "search",
        "--data",
        "docs:docs",
        "--retriever",
        "bm25",
        "mount read only",
        "--k",
        "1",
    )
    assert search.returncode == 0, search.stderr
    assert "mount.txt" in search.stdout
