"""OpenAI's official client against a real server: its encodings, sides and errors."""

import asyncio
import base64
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("openai", reason="the extra `llm` is not installed")

import openai

from retrodistill.models.students.dense import DenseEncoder

KEY = "a-key-of-the-tests"
TEXTS = ["insulin in the blood", "a guide to the heart", "salt and water"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Serve a model with two prompts to whoever has the key."""
    from fakes.models import save_tiny_model
    from fakes.notes_server import running

    from retrodistill.base.config.serve import ServeSettings
    from retrodistill.stages.serving.app import create_app

    prompts = {"query": "query: ", "document": "body of the document: "}
    model = save_tiny_model(tmp_path_factory.mktemp("student"), prompts=prompts)
    settings = ServeSettings(model=(f"kl={model}",), precision="float32")
    with running(create_app(settings, keys=[KEY])) as url:
        yield SimpleNamespace(
            settings={"base_url": f"{url}v1", "api_key": KEY, "max_retries": 0},
            encoder=DenseEncoder(model, precision="float32"),
        )


@pytest.fixture
def client(served: SimpleNamespace) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**served.settings) as client:
        yield client


def test_both_encodings_hold_the_vectors_of_the_side(
    served: SimpleNamespace, client: openai.OpenAI
) -> None:
    """Bytes of another order or type, which the client decodes to other numbers without a word."""
    expected = {
        "query": served.encoder.encode_queries(TEXTS),
        "document": served.encoder.encode_docs(TEXTS),
    }
    assert np.abs(expected["query"] - expected["document"]).max() > 1e-3
    for side, vectors in expected.items():
        for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            answer = client.embeddings.create(model=f"kl:{side}", input=TEXTS, **encoding)
            rows = [entry.embedding for entry in answer.data]
            if encoding.get("encoding_format") == "base64":
                rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
            np.testing.assert_allclose(np.array(rows), vectors, atol=1e-5)
            assert [entry.index for entry in answer.data] == [0, 1, 2]
            assert answer.usage.total_tokens > len(TEXTS)


def test_the_client_may_say_the_side(served: SimpleNamespace, client: openai.OpenAI) -> None:
    """An `input_type` that is ignored as a field that the server does not know."""
    body = {"input_type": "query"}
    answer = client.embeddings.create(model="kl", input=TEXTS[0], extra_body=body)
    expected = served.encoder.encode_queries(TEXTS[:1])[0]
    np.testing.assert_allclose(answer.data[0].embedding, expected, atol=1e-5)


def test_many_at_once(served: SimpleNamespace) -> None:
    """The answers of two requests in one batch, swapped."""
    texts = [f"{text} {number}" for number in range(8) for text in TEXTS]

    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(**served.settings) as client:
            answers = await asyncio.gather(
                *(client.embeddings.create(model="kl", input=text) for text in texts)
            )
            return [answer.data[0].embedding for answer in answers]

    vectors = np.array(asyncio.run(ask()))
    np.testing.assert_allclose(vectors, served.encoder.encode_docs(texts), atol=1e-5)


def test_models_are_listed(client: openai.OpenAI) -> None:
    """A list that the client cannot read, so that no tool offers the model."""
    assert [model.id for model in client.models.list()] == ["kl"]
    assert client.models.retrieve("kl").owned_by == "retrodistill"


def test_errors_are_those_of_openai(served: SimpleNamespace, client: openai.OpenAI) -> None:
    """Errors that the client cannot tell apart, or whose message it loses."""
    with pytest.raises(openai.NotFoundError, match="kl") as unknown:
        client.embeddings.create(model="text-embedding-3-small", input="text")
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="token ids") as ids:
        client.embeddings.create(model="kl", input=[[1, 2, 3]])
    assert ids.value.code == "token_ids"
    with pytest.raises(openai.BadRequestError, match="32"):
        client.embeddings.create(model="kl", input="text", dimensions=7)
    with (
        openai.OpenAI(**served.settings | {"api_key": "another-key-of-16"}) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.embeddings.create(model="kl", input="text")
