"""Collections that a language model writes: relevant texts of each query, and wrong ones."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import GenerateSettings
from retrodistill.base.errors import DataError
from retrodistill.base.files import new_folder
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest, digest, digest_file, digest_files
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.data.store.words import jaccard, words_of
from retrodistill.models.teachers import load_teacher
from retrodistill.models.writers import check_options
from retrodistill.stages.generating.writing import kinds_of, sampled, written

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

KIND = "texts"
SPLIT = "train"
"""Split of the judgements."""

REPEATS = "nearly equal to what it was written for"
CONTRADICTED = "wrong, but equal to a relevant one"
REFUTED = "relevant, but below --min-score: judged not relevant"
CONFIRMED = "wrong, but not below --min-score"
LONELY = "without a relevant text"


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """A text that a writer wrote, and what for."""

    doc: Doc
    writer: str
    kind: str
    source: str
    """Id of the query, or of the document, that it was first written for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedTexts:
    """A collection: sources as queries, and as documents what was written for them."""

    sources: Sequence[Doc]
    texts: Sequence[GeneratedText]
    labelled: Sequence[Doc] = ()
    """Documents of the collection that its own labels call relevant to a source."""

    grades: Mapping[str, Mapping[str, int]]
    """Source -> text or labelled document -> 1 if relevant, 0 if wrong."""

    dropped: Mapping[str, int] = field(default_factory=dict)
    """Filter -> number of texts that it dropped, or judged otherwise than they were written."""

    inputs: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def count(self, grade: int) -> int:
        """Return how many judgements are of a grade."""
        return sum(each == grade for grades in self.grades.values() for each in grades.values())

    def write(
        self, out: Path, *, config: Mapping[str, Any] | None = None, overwrite: bool = False
    ) -> None:
        """Write corpus.jsonl, queries.jsonl, qrels/train.tsv and the manifest: a `beir:` folder.

        Raises:
            ConfigError: the folder exists and `overwrite` is not set, or it cannot be written.

        """
        with new_folder(Path(out), overwrite=overwrite) as folder:
            metadata = {
                text.doc.id: {"writer": text.writer, "kind": text.kind, "source": text.source}
                for text in self.texts
            }
            docs = [*self.labelled, *(text.doc for text in self.texts)]
            corpus = [
                {"_id": doc.id, "title": doc.title, "text": doc.text}
                | ({"metadata": metadata[doc.id]} if doc.id in metadata else {})
                for doc in docs
            ]
            queries = [{"_id": source.id, "text": source.full_text} for source in self.sources]
            for name, rows in (("corpus", corpus), ("queries", queries)):
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
                (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
            (folder / "qrels").mkdir()
            (folder / "qrels" / f"{SPLIT}.tsv").write_text(_qrels(self.grades), encoding="utf-8")
            files = {
                path.relative_to(folder).as_posix(): digest_file(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            counts = {"sources": len(queries), "texts": len(self.texts)}
            counts |= {"labelled": len(self.labelled)}
            counts |= {"relevant": self.count(1), "not_relevant": self.count(0)}
            Manifest(
                kind=KIND,
                fingerprint=digest_files(folder),
                inputs=self.inputs,
                config=config or {},
                files=files,
                details={**counts, "dropped": dict(self.dropped)},
            ).write(folder)


def generate_texts(collection: "Collection", settings: GenerateSettings) -> GeneratedTexts:
    """Return passages for the queries of a split, or descriptions of documents, with judgements.

    Kinds of `settings.kind` are relevant to what they were written for, those of
    `settings.wrong_kind` are not. With a teacher, a relevant text that scores below `min_score`
    is judged not relevant, and a wrong one that does not is dropped. The documents that the split
    labels as relevant to a query join its passages.

    Raises:
        ConfigError: a writer, a kind or the split is unknown.
        DataError: there is nothing to write for, or nothing relevant is left.

    """
    check_options(settings.writer, settings.option)
    passages = settings.write == "passages"
    texts = collection.queries if passages else collection.docs
    ids = collection.query_ids(settings.split) if passages else texts.ids()
    if not ids:
        raise DataError(f"{collection.name} has no {'queries' if passages else 'documents'}.")
    rows = texts.rows(ids)[sampled(len(ids), settings.docs, seed=settings.seed)]
    sources = {doc.id: doc for doc in (texts[row] for row in rows.tolist())}
    teacher = None
    if settings.teacher is not None:
        options, precision = settings.teacher_option, settings.precision
        teacher = load_teacher(settings.teacher, collection, options=options, precision=precision)

    dropped: Counter[str] = Counter()
    found, grades = _graded([*sources.values()], sources, collection, settings, dropped)
    if teacher is not None and found:
        _verify(found, grades, sources, teacher, settings, dropped)
    labelled = _labelled(collection, settings.split, grades) if passages else {}
    usable = {source: judged for source, judged in grades.items() if 1 in judged.values()}
    dropped[LONELY] += len(grades) - len(usable)
    judged = {doc for docs in usable.values() for doc in docs}
    result = GeneratedTexts(
        sources=[sources[source] for source in usable],
        texts=[text for id, text in found.items() if id in judged],
        labelled=[doc for id, doc in labelled.items() if id in judged],
        grades=usable,
        dropped=dropped,
        inputs={"collection": collection.fingerprint},
    )
    counts = ", ".join(f"{count:,} {why}" for why, count in dropped.items() if count) or "none"
    log.info(
        f"{len(result.sources):,} queries with {result.count(1):,} relevant and "
        f"{result.count(0):,} wrong texts; dropped: {counts}."
    )
    if not len(result):
        raise DataError(
            f"no text is left of {collection.name}: {counts}. Loosen the filters, or take another "
            "writer."
        )
    return result


def _graded(
    docs: Sequence[Doc],
    sources: Mapping[str, Doc],
    collection: "Collection",
    settings: GenerateSettings,
    dropped: Counter[str],
) -> tuple[dict[str, GeneratedText], dict[str, dict[str, int]]]:
    """Return the texts by id, and the grades of each source's; equal texts are one."""
    texts = collection.queries if settings.write == "passages" else collection.docs
    _, wrong = kinds_of(settings)
    ids: dict[str, str] = {}
    distinct: dict[str, GeneratedText] = {}
    grades: dict[str, dict[str, int]] = {source: {} for source in sources}
    drafts = written(docs, texts, settings, dropped)
    drafts.sort(key=lambda each: each[2].kind in wrong)  # relevant ones first; the order else stays
    for spec, fingerprint, draft in drafts:
        words = words_of(draft.text)
        if jaccard({*words}, {*words_of(sources[draft.source].full_text)}) >= (
            settings.near_duplicates
        ):
            dropped[REPEATS] += 1
            continue
        name = f"t-{digest(fingerprint, draft.source, draft.kind, draft.text)[:16]}"
        id = ids.setdefault(" ".join(words), name)
        doc = Doc(id, "", " ".join(draft.text.split()))
        distinct.setdefault(id, GeneratedText(doc, spec, draft.kind, draft.source))
        grade = int(draft.kind not in wrong)
        if grades[draft.source].setdefault(id, grade) != grade:
            dropped[CONTRADICTED] += 1
    return distinct, grades


def _verify(
    found: Mapping[str, GeneratedText],
    grades: dict[str, dict[str, int]],
    sources: Mapping[str, Doc],
    teacher: Teacher,
    settings: GenerateSettings,
    dropped: Counter[str],
) -> None:
    """Change grades to what a teacher says: refuted texts become wrong, good wrong ones go."""
    assert settings.min_score is not None
    pairs = [(source, id) for source, judged in grades.items() for id in judged]
    asked, read = [sources[source] for source, _ in pairs], [found[id].doc for _, id in pairs]
    if settings.write == "descriptions":  # a description is what is searched with
        asked, read = read, asked
    scores = teacher.score(Pairs.of(asked, read))
    for (source, id), score in zip(pairs, scores.tolist(), strict=True):
        good = score >= settings.min_score
        if grades[source][id] and not good:
            dropped[REFUTED] += 1
            grades[source][id] = 0
        elif good and not grades[source][id]:
            dropped[CONFIRMED] += 1
            del grades[source][id]


def _labelled(
    collection: "Collection", split: str, grades: dict[str, dict[str, int]]
) -> dict[str, Doc]:
    """Add the documents that a split labels as relevant to the grades, and return them by id."""
    relevant = collection.relevant(split) if split in collection.splits else {}
    for source, judged in grades.items():
        judged.update(dict.fromkeys(relevant.get(source, ()), 1))
    ids = list(dict.fromkeys(doc for source in grades for doc in relevant.get(source, ())))
    rows = collection.docs.rows(ids).tolist()
    return {id: collection.docs[row] for id, row in zip(ids, rows, strict=True)}


def _qrels(grades: Mapping[str, Mapping[str, int]]) -> str:
    """Return the judgements as BEIR writes them."""
    stream = io.StringIO()
    table = csv.writer(stream, delimiter="\t", lineterminator="\n")
    table.writerow(["query-id", "corpus-id", "score"])
    for source, judged in grades.items():
        table.writerows([source, doc, grade] for doc, grade in judged.items())
    return stream.getvalue()
