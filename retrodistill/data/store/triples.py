"""MS MARCO's training triples, read as streams: by ids, or as texts.

A line is `query <tab> relevant <tab> not relevant`, of ids or of texts. Only distinct values are
kept in memory: id pairs, or a 16-byte digest for each text and pair.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrodistill.base.errors import DataError
from retrodistill.base.files import new_folder
from retrodistill.base.manifest import Manifest, digest_files
from retrodistill.data.lines import decoded, first_line, numbered_lines
from retrodistill.data.store.lineage import Lineage
from retrodistill.data.store.runs import SCHEMA, Run

CANDIDATES = "candidates.parquet"
ROW_GROUP = 1 << 16


def is_triples(path: Path) -> bool:
    """Tell whether a file's first line has three columns, as triples have and runs lack."""
    path = Path(path)
    if path.is_dir() or {".parquet", ".jsonl"} & set(path.suffixes):
        return False
    line = first_line(path)
    return 3 in (len(line.split()), len(line.split(b"\t")))


def read_id_triples(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (query id, relevant document id, other document id) for each line.

    Raises:
        DataError: a line without exactly three columns, with its number.

    """
    path = Path(path)
    for number, line in numbered_lines(path):
        parts = line.split()
        if len(parts) != 3:
            hint = (
                " They look like texts: collection_from_text_triples makes a collection of them."
                if len(line.split(b"\t")) == 3
                else ""
            )
            raise DataError(
                f"{path}:{number}: a line of id triples is `query positive negative`, 3 columns, "
                f"but this one has {len(parts)}: {line[:80]!r}.{hint}"
            )
        query, positive, negative = decoded(f"{path}:{number}", *parts)
        yield query, positive, negative


def candidates_from_triples(path: Path) -> Run:
    """Return each distinct (query, document) pair of a file of id triples, at score 0."""
    docs: dict[str, dict[str, float]] = {}
    for query, positive, negative in read_id_triples(path):
        docs.setdefault(query, {}).update({positive: 0.0, negative: 0.0})
    lineage = Lineage(unrecorded=(path.name,))
    return Run.from_dict(docs, source=str(path), lineage=lineage)


def text_triples(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (query, relevant passage, other passage) for each line, as texts.

    Raises:
        DataError: a line without exactly three tab-separated texts, with its number.

    """
    path = Path(path)
    for number, line in numbered_lines(path):
        parts = [text.strip() for text in line.split(b"\t")]
        if len(parts) != 3 or not all(parts):
            raise DataError(
                f"{path}:{number}: a line of text triples is `query<tab>positive<tab>negative`, "
                f"3 texts, but this one has {sum(map(bool, parts))}: {line[:80]!r}."
            )
        query, positive, negative = decoded(f"{path}:{number}", *parts)
        yield query, positive, negative


def collection_from_text_triples(path: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Make a BEIR folder of text triples; return the run of candidates inside it.

    Each distinct text is written once, under an id that is a hash of it; a query's relevant
    passages go to `qrels/train.tsv`, and all its passages, at score 0, to the candidates.

    Raises:
        ConfigError: `out` exists already and `overwrite` is not set.
        DataError: a line is malformed, or there is none.

    """
    path = Path(path)
    with new_folder(out, overwrite=overwrite) as folder:
        counts = _write_beir(path, folder)
        if not counts["queries"]:
            raise DataError(f"{path} holds no triples. Give `query<tab>positive<tab>negative`.")
        Manifest(
            kind="collection",
            fingerprint=digest_files(folder),
            config={"triples": str(path)},
            details=counts,
        ).write(folder)
    return Path(out) / CANDIDATES


def _write_beir(path: Path, folder: Path) -> dict[str, int]:
    """Stream triples into a BEIR folder; return the counts."""
    queries, docs, positives, pairs = (set[bytes]() for _ in range(4))
    (folder / "qrels").mkdir()
    with ExitStack() as stack:
        corpus, questions, qrels = (
            stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
            for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv")
        )
        writer = stack.enter_context(pq.ParquetWriter(folder / CANDIDATES, SCHEMA))
        candidates: list[tuple[str, str]] = []
        qrels.write("query-id\tcorpus-id\tscore\n")
        for query, positive, negative in text_triples(path):
            q = _digest(query)
            if _is_new(q, queries):
                line = {"_id": q.hex(), "text": query}
                questions.write(json.dumps(line, ensure_ascii=False) + "\n")
            for text, relevant in ((positive, True), (negative, False)):
                d = _digest(text)
                if _is_new(d, docs):
                    line = {"_id": d.hex(), "title": "", "text": text}
                    corpus.write(json.dumps(line, ensure_ascii=False) + "\n")
                pair = _digest(q + d)
                if relevant and _is_new(pair, positives):
                    qrels.write(f"{q.hex()}\t{d.hex()}\t1\n")
                if _is_new(pair, pairs):
                    candidates.append((q.hex(), d.hex()))
            if len(candidates) >= ROW_GROUP:
                writer.write_table(_at_zero(candidates))
                candidates.clear()
        writer.write_table(_at_zero(candidates))
    return {"queries": len(queries), "docs": len(docs), "candidates": len(pairs)}


def _digest(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return blake2b(raw, digest_size=16).digest()


def _is_new(key: bytes, seen: set[bytes]) -> bool:
    """Tell whether a key was not seen before, and remember it."""
    if key in seen:
        return False
    seen.add(key)
    return True


def _at_zero(pairs: list[tuple[str, str]]) -> pa.Table:
    query_ids, doc_ids = [q for q, _ in pairs], [d for _, d in pairs]
    return pa.table([query_ids, doc_ids, [0.0] * len(pairs)], schema=SCHEMA)
