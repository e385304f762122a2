"""Views of the small collection: a language whose words are spelled backwards, after an x."""

import json
from collections.abc import Sequence
from pathlib import Path


def backwards(text: str) -> str:
    """Return each word of a text spelled backwards, after an x: `level` is no word of both."""
    return " ".join(f"x{word[::-1]}" for word in text.split())


def save_view(
    data: Path, name: str, *, sides: Sequence[str] = ("queries", "corpus"), mark: str = ""
) -> None:
    """Write files of a view beside those of a collection, their lines in the opposite order.

    With `mark`, each text ends with this word, so that several views differ.
    """
    for side in sides:
        rows = [json.loads(line) for line in (data / f"{side}.jsonl").read_text().splitlines()]
        texts = [
            {"_id": row["_id"], "title": "", "text": f"{backwards(_whole(row))} {mark}".strip()}
            for row in rows
        ]
        lines = [json.dumps(row) + "\n" for row in reversed(texts)]
        (data / f"{side}.{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _whole(row: dict[str, str]) -> str:
    return f"{row.get('title', '')} {row['text']}".strip()
