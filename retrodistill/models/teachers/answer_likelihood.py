"""Generators as teachers: log-likelihood of a query's answer, given the query and the document."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from retrodistill.base.errors import DataError
from retrodistill.base.manifest import digest
from retrodistill.base.types import Pairs, Reads, Rows
from retrodistill.models.inference.options import DEFAULTS, ModelOptions
from retrodistill.models.teachers.generator import GeneratorTeacher

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection

TEMPLATE = "Passage: {doc} Question: {query} Answer:"
FIELDS = ("answer", "answers")
"""Fields of a query, also within its `metadata`, that hold what it is answered with."""


class AnswerTeacher(GeneratorTeacher):
    """Log-likelihood of the tokens of a query's answer given query and document, in nats.

    A document is worth what it helps the generator to answer, not what it has in common with the
    query. The answer is the field `answer` of a query, or the first of its `answers`. An
    encoder-decoder reads `template` and writes the answer; a causal model continues with it. The
    score is the sum over the answer's tokens, so that a softmax over documents is their share in
    answering, or the mean with `per_token=true`.

    Source: Wan et al. 2023, arXiv:2305.10149 (MAKER), from its abstract; the template is our own.
    """

    reads: Reads = "id"
    given = ("doc", "query")
    target = "answer"

    def __init__(
        self,
        model: str,
        collection: "Collection",
        options: ModelOptions = DEFAULTS,
        *,
        template: str = TEMPLATE,
        per_token: bool = False,
    ) -> None:
        self._answers = read_answers(collection)
        super().__init__(model, options, template=template, per_token=per_token)
        answers = sorted(self._answers.items())
        self.fingerprint = digest(
            self.fingerprint, "answer", *(text for pair in answers for text in pair)
        )

    def texts(self, pairs: Pairs) -> Mapping[str, tuple[Sequence[str], Rows]]:
        """Return the texts of each slot, with the answers.

        Raises:
            DataError: a query has no answer.

        """
        absent = [query.id for query in pairs.queries if query.id not in self._answers]
        if absent:
            raise DataError(
                f"{len(absent):,} of {len(pairs.queries):,} queries have no answer, such as "
                f"{absent[0]!r}. {REMEDY}"
            )
        answers = [self._answers[query.id] for query in pairs.queries]
        return {**super().texts(pairs), "answer": (answers, pairs.query_rows)}


REMEDY = (
    'Give each an answer in queries.jsonl, {"_id": "q1", "text": "...", "answer": "..."}, or score '
    "with a teacher that needs none, such as generator:MODEL."
)


def read_answers(collection: "Collection") -> dict[str, str]:
    """Return the answer of each query that has one, by the query's id.

    Raises:
        DataError: the queries have no such field.

    """
    queries = collection.queries
    columns = []
    for name in FIELDS:
        try:
            columns.append(queries.attributes([name])[name].to_pylist())
        except DataError:
            continue
    if not columns:
        raise DataError(f"the queries of {collection.name} have no field `answer`. {REMEDY}")
    answers: dict[str, str] = {}
    for column in columns:
        for query, value in zip(queries.ids(), column, strict=True):
            answer = value[0] if isinstance(value, list) and value else value
            if isinstance(answer, str) and answer.strip():
                answers.setdefault(query, " ".join(answer.split()))
    return answers
