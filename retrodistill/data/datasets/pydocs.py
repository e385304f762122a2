"""Documentation search over installed Python source, read with `ast`: nothing is imported.

The query is the summary of a docstring; the document is the signature and the rest of the
docstring, without the summary. Public functions, methods and classes whose docstrings have both
are taken.
"""

import ast
import importlib.util
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from retrodistill.base.types import Doc

SUMMARY_WORDS = range(4, 31)
REST_WORDS = 30
KEPT_WORDS = 120
SIGNATURE_WORDS = 40
SKIPPED = {"test", "tests", "testing", "_vendor", "vendor", "externals", "extern"} | {
    "site-packages",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "ensurepip",
    "conftest",
}

STDLIB = "stdlib"
PACKAGES = (
    STDLIB,
    "numpy",
    "scipy",
    "sklearn",
    "networkx",
    "pandas",
    "matplotlib",
    "torch",
    "transformers",
    "sentence_transformers",
    "datasets",
    "huggingface_hub",
    "sympy",
    "numba",
    "joblib",
    "fsspec",
)
"""The standard library, and packages that come with retrodistill's own dependencies."""

CUT = {STDLIB: 700, "numpy": 300, "scipy": 400, "sklearn": 400, "networkx": 400, "pandas": 300}
"""Documents to take of each package for the small collection."""

CUT_PER_MODULE = 8

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the document that answers it."""

    module: str
    name: str
    summary: str
    document: str

    @property
    def doc(self) -> Doc:
        """The document; its title is the qualified name."""
        return Doc(f"{self.module}:{self.name}", f"{self.module}.{self.name}", self.document)

    @property
    def query(self) -> Doc:
        """The query; its id is made of the document's."""
        return Doc(f"q:{self.module}:{self.name}", "", self.summary)

    @property
    def attributes(self) -> dict[str, str]:
        """Where the document comes from: `numpy` and `numpy.linalg`."""
        return {"package": self.module.partition(".")[0], "module": self.module}


def group(doc_id: str) -> str:
    """Return top-level package and first submodule of a document: siblings share a split."""
    return ".".join(doc_id.partition(":")[0].split(".")[:2])


def split(doc_id: str) -> str:
    """Return `train`, `dev` or `test`, about 80, 8 and 12 in 100 groups, by the group's hash."""
    share = int.from_bytes(sha256(group(doc_id).encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.80 else "dev" if share < 0.88 else "test"


def pairs(*, cut: bool) -> Iterator[Pair]:
    """Yield the pairs of all packages that are installed; of two alike, the first.

    The cut reads modules in the order of their hashes until a package has given its share, and
    takes few pairs of one module, so that many are touched.
    """
    seen: set[str] = set()
    for package in PACKAGES:
        wanted = CUT.get(package, 0) if cut else None
        modules = sorted(module_files(package), key=lambda item: sha256(item[0].encode()).digest())
        taken = 0
        for module, path in modules:
            if wanted is not None and taken >= wanted:
                break
            fresh = _unseen(module_pairs(module, path), seen)
            for pair in fresh if wanted is None else _few(fresh, CUT_PER_MODULE):
                taken += 1
                yield pair


def module_files(package: str) -> Iterator[tuple[str, Path]]:
    """Yield the modules of an installed package with their files, tests left out.

    `stdlib` stands for all packages and modules of the standard library.
    """
    if package == STDLIB:
        root = Path(sysconfig.get_paths()["stdlib"])
        tops = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
        roots = [root / name for name in tops] + [root / f"{name}.py" for name in tops]
    else:
        found = importlib.util.find_spec(package)
        roots = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    for top in roots:
        files = [top] if top.suffix == ".py" else sorted(top.rglob("*.py"))
        for path in files:
            parts = path.relative_to(top.parent).with_suffix("").parts
            if path.is_file() and SKIPPED.isdisjoint(parts) and not parts[-1].startswith("test_"):
                yield ".".join(parts).removesuffix(".__init__"), path


def module_pairs(module: str, path: Path) -> Iterator[Pair]:
    """Yield the pairs of one file; a file that is no Python source gives none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for name, node in _definitions(tree, ""):
        parted = summary_and_rest(ast.get_docstring(node, clean=False) or "")
        if parted is not None:
            summary, rest = parted
            document = f"{_cut(signature(node), SIGNATURE_WORDS)}\n{_cut(rest, KEPT_WORDS)}"
            if _plain(summary) not in _plain(document):
                yield Pair(module, name, summary, document)


def summary_and_rest(docstring: str) -> tuple[str, str] | None:
    """Return the first paragraph as one line, and all below it; None if either is unfit."""
    head, _, rest = inspect.cleandoc(docstring).partition("\n\n")
    summary, rest = " ".join(head.split()), rest.strip()
    marked = any(mark in head for mark in (">>>", "::", "---", "===", ":param", "@"))
    letters = sum(character.isalpha() or character.isspace() for character in summary)
    wordy = len(summary.split()) in SUMMARY_WORDS and letters >= 0.8 * len(summary)
    if marked or not wordy or len(rest.split()) < REST_WORDS:
        return None
    return summary, rest


def signature(node: Definition) -> str:
    """Return the line that opens a definition: `def name(arguments)` or `class Name(bases)`."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{start} {node.name}({ast.unparse(node.args)})"


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Yield public functions and classes with their qualified names, but none inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            if not child.name.startswith("_"):
                yield f"{prefix}{child.name}", child
                if isinstance(child, ast.ClassDef):
                    yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _definitions(child, prefix)


def _unseen(found: Iterable[Pair], seen: set[str]) -> Iterator[Pair]:
    """Yield pairs whose name, summary and rest did not come before."""
    for pair in found:
        rest = pair.document.partition("\n")[2]
        keys = {pair.doc.id, _plain(pair.summary), _plain(rest)}
        if seen.isdisjoint(keys):
            yield pair
        seen |= keys


def _few(found: Iterable[Pair], count: int) -> list[Pair]:
    """Return the pairs with the lowest hashes of their names."""
    return sorted(found, key=lambda pair: sha256(pair.name.encode()).digest())[:count]


def _cut(text: str, words: int) -> str:
    """Return the text up to a number of words, its line breaks and indents as they are."""
    kept: list[str] = []
    for line in text.splitlines():
        size = len(line.split())
        if size > words:
            return "\n".join([*kept, " ".join(line.split()[:words])]).rstrip()
        kept.append(line.rstrip())
        words -= size
    return "\n".join(kept)


def _plain(text: str) -> str:
    """Return the words alone, in lower case, for telling whether two texts say the same."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
