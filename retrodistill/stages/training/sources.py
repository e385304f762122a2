"""What a student is trained from, and whether it fits together: checked before any heavy work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.logging import log
from retrodistill.base.manifest import Manifest
from retrodistill.base.types import Reads
from retrodistill.data.store.form import PREFERENCES, SCORES, Form
from retrodistill.data.store.shards import current_rows
from retrodistill.data.store.text_keys import text_keys

if TYPE_CHECKING:
    from pathlib import Path

    from retrodistill.base.config import TrainSettings
    from retrodistill.base.types import Encoder
    from retrodistill.data.datasets import Collection
    from retrodistill.data.store.runs import Run
    from retrodistill.data.store.scores import PreferenceStore
    from retrodistill.objectives.objective import LossTerm

REMEDY = (
    "Score the candidates on this collection, or pass --other-texts if the ids name other texts "
    "on purpose, such as translations."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """A collection, and what teachers say of its texts."""

    collection: "Collection"
    split: str = "train"
    scores: "Run | None" = None
    preferences: "PreferenceStore | None" = None
    vectors: "Encoder | None" = None

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each thing that there is, by its role."""
        prints = {"collection": self.collection.fingerprint}
        if self.scores is not None:
            prints["scores"] = self.scores.fingerprint
        if self.preferences is not None:
            prints["preferences"] = self.preferences.manifest.fingerprint
        if self.vectors is not None:
            prints["vectors"] = self.vectors.fingerprint
        return prints

    def check_texts(self) -> None:
        """Check that scores and preferences were made from the texts that the collection has.

        A score store keeps a key of the texts of each row, and the folder of a run the
        collection's fingerprint; other files have neither, which is logged. Runs that were made
        in memory are not checked.

        Raises:
            DataError: they were made from other texts.

        """
        if self.preferences is not None:
            self._compare(self.preferences.folder, PREFERENCES, self.preferences.edges())
        if self.scores is None or self.scores.origin is None:
            return
        origin = self.scores.origin
        manifest = Manifest.read(origin) if origin.is_dir() else None
        if manifest is not None and manifest.kind == SCORES.kind:
            lists = manifest.details.get("unit") == "list"
            self._compare(origin, SCORES, self.scores.table, lists=lists)
        elif manifest is None or "collection" not in manifest.inputs:
            log.info(
                f"{origin} does not say which texts its ids name: that they are those of "
                f"{self.collection.name} cannot be checked."
            )
        elif manifest.inputs["collection"] != self.collection.fingerprint:
            raise DataError(
                f"{origin} was made from another collection than {self.collection.name}, or from "
                f"an earlier state of it, so its ids may name other texts. {REMEDY}"
            )

    def _compare(self, folder: "Path", form: Form, used: pa.Table, *, lists: bool = False) -> None:
        """Raise DataError if a row of a store has another key than the collection's texts."""
        table = current_rows(folder, form, lists=lists)
        queries = pc.unique(used["query_id"]).cast(table["query_id"].type)
        table = table.filter(pc.is_in(table["query_id"], value_set=queries))
        stored = table["key"].to_numpy()
        changed = np.arange(len(table))
        for reads in get_args(Reads):  # the manifest does not say what of a text the teacher reads
            keys = text_keys(self.collection, form.ids, reads=reads)(table)
            changed = min(changed, np.flatnonzero(keys != stored), key=len)
            if not len(changed):
                return
        query, doc = (table[name][int(changed[0])].as_py() for name in form.ids[:2])
        raise DataError(
            f"{folder} was made from other texts than those of {self.collection.name}: "
            f"{len(changed):,} of {len(table):,} rows, such as query {query!r} with document "
            f"{doc!r}. {REMEDY}"
        )


def check_settings(
    terms: "Sequence[LossTerm]",
    settings: "TrainSettings",
    split: str,
    *,
    scores: bool,
    preferences: bool,
    vectors: bool,
) -> None:
    """Check that the objective and the other settings have what they learn from.

    `scores`, `preferences` and `vectors` say which of them there are.

    Raises:
        ConfigError: something is absent, or a setting does not fit.

    """
    from retrodistill.objectives.objective import inputs_of
    from retrodistill.stages.training.sampling import parse_draw

    given = {
        "--scores": ("teacher scores", scores),
        "--preferences": ("preferences", preferences),
        "--vectors": ("a teacher's vectors", vectors),
    }
    needed = inputs_of(terms)
    for flag, (what, there) in given.items():
        if flag in needed and not there:
            raise ConfigError(f"objective {settings.objective!r} needs {what}: give {flag}.")
    parse_draw(settings.draw)
    for flag in settings.flags_of_scores:
        if not scores:
            raise ConfigError(f"{flag} goes by teacher scores: give --scores.")
    if settings.order == "clusters" and settings.student_kind != "bi-encoder":
        raise ConfigError("--order clusters needs a bi-encoder, whose vectors tell the topics.")
    if settings.dev_split == split:
        raise ConfigError(f"--dev-split {split} is trained on: measure on another split.")


def check_labels(
    terms: "Sequence[LossTerm]", settings: "TrainSettings", split: str, labelled: int, queries: int
) -> None:
    """Check that there is a label, if the objective learns from labels; log how many lack one.

    Raises:
        DataError: none of the queries has a labelled positive.

    """
    from retrodistill.objectives.objective import inputs_of

    if "labels" not in inputs_of(terms):
        return
    if not labelled:
        raise DataError(
            f"objective {settings.objective!r} learns from labels, but none of {queries:,} queries "
            f"has a relevant document in split {split!r}. Drop what needs labels, or take the "
            "teacher's best document for the positive: --positives teacher."
        )
    if labelled < queries:
        log.info(
            f"{labelled:,} of {queries:,} queries have labels; the others learn from the teacher."
        )


def needs_lists(terms: "Sequence[LossTerm]") -> bool:
    """Tell whether an objective looks at queries' lists of documents, not at vectors alone."""
    vectors = ("query_vectors", "doc_vectors", "queue_vectors")
    return not all(signal.endswith(vectors) for term in terms for signal in term.signals)


def follows_vectors(terms: "Sequence[LossTerm]") -> bool:
    """Tell whether an objective brings the student's vectors to those of a teacher."""
    return any(signal.startswith("matched_") for term in terms for signal in term.signals)
