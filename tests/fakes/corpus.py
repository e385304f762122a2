"""A small collection in BEIR layout, made of the words that the tiny tokenizer knows."""

import json
import random
from pathlib import Path

from fakes.models import WORDS

NOUNS = [word for word in WORDS if len(word) > 4]


def save_small_collection(folder: Path, *, docs: int = 60, train: int = 24, test: int = 8) -> Path:
    """Write documents of twelve words, each query four words of its relevant document."""
    rng = random.Random(0)
    (folder / "qrels").mkdir(parents=True)
    texts = {f"d{number}": rng.sample(NOUNS, 12) for number in range(docs)}
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for doc, words in texts.items():
            row = {"_id": doc, "title": words[0], "text": " ".join(words[1:])}
            corpus.write(json.dumps(row) + "\n")
    queries = [f"q{number}" for number in range(train + test)]
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as stream:
        for number, query in enumerate(queries):
            words = rng.sample(texts[f"d{number}"], 4)
            stream.write(json.dumps({"_id": query, "text": " ".join(words)}) + "\n")
    for split, members in (("train", queries[:train]), ("test", queries[train:])):
        rows = ["query-id\tcorpus-id\tscore"]
        rows += [f"{query}\td{query[1:]}\t1" for query in members]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def save_titled_corpus(folder: Path, *, docs: int = 80, titles: bool = True) -> Path:
    """Write documents with titles of three of their words, without queries and judgements."""
    rng = random.Random(1)
    folder.mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for number in range(docs):
            words = rng.sample(NOUNS, 14)
            title = " ".join(words[:3]) if titles else ""
            row = {"_id": f"d{number}", "title": title, "text": " ".join(words[2:])}
            corpus.write(json.dumps(row) + "\n")
    return folder
