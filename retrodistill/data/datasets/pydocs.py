"""Query-document pairs from the docstrings of installed Python packages, read without importing.

The query is the summary of a docstring; the document is the signature and the description below
the summary. Pairs come from public functions, methods and classes whose docstrings have both.
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
"""The standard library, and packages that retrodistill's dependencies install."""

CUT = {STDLIB: 700, "numpy": 300, "scipy": 400, "sklearn": 400, "networkx": 400, "pandas": 300}
"""Package -> number of its documents in the small collection."""

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
        """The query; its id is `q:` and the document's."""
        return Doc(f"q:{self.module}:{self.name}", "", self.summary)

    @property
    def attributes(self) -> dict[str, str]:
        """Package and module of the document, such as `numpy` and `numpy.linalg`."""
        return {"package": self.module.partition(".")[0], "module": self.module}


def group(doc_id: str) -> str:
    """Return package and first submodule of a document; all documents of a group share a split."""
    return ".".join(doc_id.partition(":")[0].split(".")[:2])


def split(doc_id: str) -> str:
    """Return `train`, `dev` or `test` by the group's hash: about 80, 8 and 12 % of the groups."""
    share = int.from_bytes(sha256(group(doc_id).encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.80 else "dev" if share < 0.88 else "test"


def pairs(*, cut: bool) -> Iterator[Pair]:
    """Yield the pairs of all installed packages, without duplicates.

    With `cut`, modules are read in the order of their hashes until the package's share of `CUT` is
    reached, with at most CUT_PER_MODULE pairs of each, so that many modules are represented.
    """
    seen: set[str] = set()
    for package in PACKAGES:
        limit = CUT.get(package, 0) if cut else None
        modules = sorted(module_files(package), key=lambda item: sha256(item[0].encode()).digest())
        taken = 0
        for module, path in modules:
            if limit is not None and taken >= limit:
                break
            fresh = _unseen(module_pairs(module, path), seen)
            for pair in fresh if limit is None else _few(fresh, CUT_PER_MODULE):
                taken += 1
                yield pair


def module_files(package: str) -> Iterator[tuple[str, Path]]:
    """Yield the modules of an installed package with their files, without tests.

    `stdlib` means all packages and modules of the standard library.
    """
    # Folders and files to look in.
    if package == STDLIB:
        root = Path(sysconfig.get_paths()["stdlib"])
        tops = sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))
        roots = [root / name for name in tops] + [root / f"{name}.py" for name in tops]
    else:
        spec = importlib.util.find_spec(package)
        roots = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []
    # Their Python files, sorted, by module name.
    for top in roots:
        files = [top] if top.suffix == ".py" else sorted(top.rglob("*.py"))
        for path in files:
            parts = path.relative_to(top.parent).with_suffix("").parts
            if path.is_file() and SKIPPED.isdisjoint(parts) and not parts[-1].startswith("test_"):
                yield ".".join(parts).removesuffix(".__init__"), path


def module_pairs(module: str, path: Path) -> Iterator[Pair]:
    """Yield the pairs of one file; none if the file cannot be parsed as Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for name, node in _definitions(tree, ""):
        sections = summary_and_rest(ast.get_docstring(node, clean=False) or "")
        if sections is not None:
            summary, description = sections
            document = f"{_cut(signature(node), SIGNATURE_WORDS)}\n{_cut(description, KEPT_WORDS)}"
            if _plain(summary) not in _plain(document):
                yield Pair(module, name, summary, document)


def summary_and_rest(docstring: str) -> tuple[str, str] | None:
    """Return summary line and description of a docstring, or None if either is unsuitable.

    Unsuitable are summaries with markup, code or a length out of SUMMARY_WORDS, and descriptions of
    less than REST_WORDS words.
    """
    head, _, description = inspect.cleandoc(docstring).partition("\n\n")
    summary, description = " ".join(head.split()), description.strip()
    marked = any(mark in head for mark in (">>>", "::", "---", "===", ":param", "@"))
    letters = sum(character.isalpha() or character.isspace() for character in summary)
    wordy = len(summary.split()) in SUMMARY_WORDS and letters >= 0.8 * len(summary)
    if marked or not wordy or len(description.split()) < REST_WORDS:
        return None
    return summary, description


def signature(node: Definition) -> str:
    """Return the head of a definition: `def name(arguments)` or `class Name(bases)`."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{start} {node.name}({ast.unparse(node.args)})"


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definition]]:
    """Yield public functions and classes with qualified names, except those within functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            if not child.name.startswith("_"):
                yield f"{prefix}{child.name}", child
                if isinstance(child, ast.ClassDef):
                    yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            yield from _definitions(child, prefix)


def _unseen(candidates: Iterable[Pair], seen: set[str]) -> Iterator[Pair]:
    """Yield the pairs whose name, summary and description are all new, and add them to `seen`."""
    for pair in candidates:
        description = pair.document.partition("\n")[2]
        keys = {pair.doc.id, _plain(pair.summary), _plain(description)}
        if seen.isdisjoint(keys):
            yield pair
        seen |= keys


def _few(candidates: Iterable[Pair], count: int) -> list[Pair]:
    """Return the pairs with the lowest hashes of their names."""
    return sorted(candidates, key=lambda pair: sha256(pair.name.encode()).digest())[:count]


def _cut(text: str, words: int) -> str:
    """Return the first `words` words of a text, with its line breaks and indents."""
    lines: list[str] = []
    for line in text.splitlines():
        size = len(line.split())
        if size > words:
            return "\n".join([*lines, " ".join(line.split()[:words])]).rstrip()
        lines.append(line.rstrip())
        words -= size
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return the words in lower case, without punctuation, for comparing texts."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
