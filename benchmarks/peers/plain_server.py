"""The server that most teams write first: FastAPI, and `encode` of a SentenceTransformer.

    python benchmarks/peers/plain_server.py MODEL PORT [RERANKER]

Routes are functions that FastAPI runs in its threads, as its tutorial has it.
"""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder, SentenceTransformer

app = FastAPI()
models: dict[str, Any] = {}


class Embeddings(BaseModel):
    """OpenAI's request, as far as it is used."""

    input: str | list[str]
    model: str = ""
    encoding_format: str = "float"


class Rerank(BaseModel):
    """Cohere's request, as far as it is used."""

    query: str
    documents: list[str]


@app.post("/v1/embeddings")
def embeddings(body: Embeddings) -> dict[str, Any]:
    texts = [body.input] if isinstance(body.input, str) else body.input
    vectors = models["encoder"].encode(texts)
    data = [
        {"object": "embedding", "index": row, "embedding": vector}
        for row, vector in enumerate(vectors.tolist())
    ]
    return {"object": "list", "data": data, "model": body.model, "usage": {}}


@app.post("/rerank")
def rerank(body: Rerank) -> dict[str, Any]:
    pairs = [(body.query, text) for text in body.documents]
    scores = models["reranker"].predict(pairs).tolist()
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return {"results": [{"index": row, "relevance_score": scores[row]} for row in order]}


if __name__ == "__main__":
    models["encoder"] = SentenceTransformer(sys.argv[1], device="cpu")
    if len(sys.argv) > 3:
        models["reranker"] = CrossEncoder(sys.argv[3], device="cpu")
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
