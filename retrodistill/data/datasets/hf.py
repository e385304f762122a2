"""`hf:ID`: a data set of the Hugging Face hub in the BEIR layout, or a local copy of one.

Documents and queries are the configurations `corpus` and `queries` (columns `_id`, `title`,
`text`); judgements are the configuration `qrels` or `default` (columns `query-id`, `corpus-id`,
`score`; its splits are the splits), or the data set `ID-qrels`. In a local folder, subfolders of
these names serve as configurations. A data set's own code is never run.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from retrodistill.base.errors import DataError, MissingExtra
from retrodistill.data.datasets.cache import cached_texts
from retrodistill.data.datasets.collection import Collection
from retrodistill.data.datasets.records import doc_from, fields_from, query_from
from retrodistill.data.datasets.texts import TextSource
from retrodistill.data.qrels import Judgements, judgements

Parsed = TypeVar("Parsed")
Configuration = tuple[str, str | None]
"""Path or id of a data set, and its configuration."""

COLUMNS = ("query-id", "corpus-id", "score")


def load(id: str) -> Collection:
    """Return the collection of a hub id or folder.

    Raises:
        DataError: a configuration or column is missing, or a record is malformed.
        MissingExtra: datasets is not installed.

    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(f"hf:{id} needs datasets. Install it: pip install datasets") from error
    folder = Path(id).expanduser()
    id = str(folder) if folder.is_dir() else id  # no slash at the end: `-qrels` is appended
    configurations = _names(id)
    corpus, asked = _named(id, configurations, "corpus"), _named(id, configurations, "queries")
    if corpus is None or asked is None:
        raise DataError(
            f"hf:{id} needs the configurations corpus and queries, but it has: "
            f"{', '.join(configurations) or 'none'}. Is it in the BEIR layout, as mteb/scifact is?"
        )
    name = folder.name if folder.is_dir() else id
    docs, queries = cached_texts(
        name,
        docs=TextSource(
            partial(_records, corpus, doc_from),
            lambda row: f"hf:{id}, corpus row {row}",
            partial(_records, corpus, fields_from),
        ),
        queries=TextSource(
            partial(_records, asked, query_from),
            lambda row: f"hf:{id}, queries row {row}",
            partial(_records, asked, fields_from),
        ),
        key=[
            "hf",
            *(datasets.load_dataset_builder(*config).cache_dir for config in (corpus, asked)),
        ],
    )
    splits = _judged(id, configurations)
    return Collection(
        name,
        docs=docs,
        queries=queries,
        judgements={split: partial(_judgements, rows) for split, rows in splits.items()},
    )


def _names(id: str) -> list[str]:
    import datasets

    folder = Path(id)
    try:
        if folder.is_dir() and not (folder / "README.md").is_file():
            return sorted(path.name for path in folder.iterdir() if path.is_dir())
        return list(datasets.get_dataset_config_names(id))
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"hf:{id} cannot be read: {error}") from error


def _named(id: str, configurations: list[str], name: str) -> Configuration | None:
    if name not in configurations:
        return None
    plain = Path(id).is_dir() and not (Path(id) / "README.md").is_file()
    return (str(Path(id) / name), None) if plain else (id, name)


def _judged(id: str, configurations: list[str]) -> dict[str, Any]:
    """Return the judgement rows of each split."""
    import datasets

    config = _named(id, configurations, "qrels") or _named(id, configurations, "default")
    try:
        return dict(datasets.load_dataset(*(config or (f"{id}-qrels", None))))
    except (FileNotFoundError, ConnectionError, datasets.exceptions.DatasetNotFoundError):
        if config is not None:
            raise
        return {}


def _records(config: Configuration, parse: Callable[[Any], Parsed]) -> Iterator[Parsed]:
    import datasets

    row = 0
    for rows in datasets.load_dataset(*config).values():
        for batch in rows.iter(batch_size=1000):
            for values in zip(*batch.values(), strict=True):
                try:
                    yield parse(dict(zip(batch, values, strict=True)))
                except DataError as error:
                    raise DataError(
                        f"{' '.join(filter(None, config))} row {row}: {error}"
                    ) from None
                row += 1


def _judgements(rows: Any) -> Judgements:
    absent = [column for column in COLUMNS if column not in rows.column_names]
    if absent:
        raise DataError(
            f"judgements need the columns {', '.join(COLUMNS)}, but they have: "
            f"{', '.join(rows.column_names)}."
        )
    return judgements(
        (str(query), str(doc), int(grade))
        for batch in rows.iter(batch_size=1000)
        for query, doc, grade in zip(*(batch[column] for column in COLUMNS), strict=True)
    )
