"""Many threads get the answers of one: a server searches and encodes in all of them at once."""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.language_models import pairs_of, texts
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from sentence_transformers import SentenceTransformer

from retrodistill.models.indexes import index_kind
from retrodistill.models.inference import fused
from retrodistill.models.inference.fused import FEW, fused_layers
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.dense import DenseEncoder, evaluating
from retrodistill.models.students.late_interaction import LateInteractionEncoder
from retrodistill.models.students.sparse import SparseTextEncoder
from retrodistill.models.teachers.cross_encoder import CrossEncoderTeacher
from retrodistill.stages.searching import Searcher

THREADS = 32
PROMPTS = {"query": "search for a query : ", "document": "the document : "}
TEXTS = texts(60, words=40)


@pytest.fixture(autouse=True)
def eager_switches() -> Iterator[None]:
    """Let threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


def prompted(folder: Path) -> DenseEncoder:
    """A model with prompts, and another limit for queries than for documents."""
    model = SentenceTransformer(str(save_tiny_model(folder, layers=2, prompts=PROMPTS)))
    model[0].query_length, model[0].document_length = 12, 30
    return DenseEncoder(model, precision="float32")


@pytest.mark.parametrize("kind", ["exact", "flat", "ivf", "hnsw", "binary"])
def test_searches_of_many_threads_are_those_of_one(kind: str, tmp_path: Path) -> None:
    """Queries cut at the length of another call's texts: 83 of 1,200 answers wrong, no error."""
    encoder = prompted(tmp_path)
    index = index_kind(kind)(encoder.dimension)
    index.add([f"d{row}" for row in range(len(TEXTS))], encoder.encode_docs(TEXTS))
    searcher = Searcher(encoder, index)

    def ask(number: int) -> Any:
        if number % 7 == 0:
            return encoder.encode_docs([TEXTS[number % len(TEXTS)]]).tolist()
        hits = searcher.search(TEXTS[number % len(TEXTS)], 5)
        return [(hit.doc_id, hit.score) for hit in hits]

    numbers = range(3 * len(TEXTS))
    assert in_threads(ask, numbers) == [ask(number) for number in numbers]


@pytest.mark.parametrize("kind", ["sparse", "late-interaction", "cross-encoder"])
def test_other_models_may_be_asked_by_threads_too(kind: str, tmp_path: Path) -> None:
    """A server that reranks, with texts cut at the length of another request."""
    lengths = {"query_length": 12, "document_length": 30}
    if kind == "sparse":
        sparse = SparseTextEncoder(
            str(save_tiny_sparse(tmp_path, prompts=PROMPTS, **lengths)), precision="float32"
        )

        def ask(number: int) -> Any:
            encode = sparse.encode_docs if number % 2 else sparse.encode_queries
            return encode([TEXTS[number % len(TEXTS)]]).toarray().tolist()

    elif kind == "late-interaction":
        late = LateInteractionEncoder(
            str(save_tiny_late_interaction(tmp_path, prompts=PROMPTS, **lengths)),
            precision="float32",
        )

        def ask(number: int) -> Any:
            encode = late.encode_docs if number % 2 else late.encode_queries
            return [batch.vectors.tolist() for batch in encode([TEXTS[number % len(TEXTS)]])]

    else:
        folder = str(save_tiny_cross_encoder(tmp_path))
        teachers = [
            CrossEncoderTeacher(folder, ModelOptions(max_tokens=n, precision="float32"))
            for n in (9, 30)
        ]
        teachers[1]._model = teachers[0]._model  # one tokenizer, two lengths

        def ask(number: int) -> Any:
            return teachers[number % 2].score(pairs_of(1, 2, seed=number % 20)).tolist()

    numbers = range(2 * len(TEXTS))
    assert in_threads(ask, numbers) == [ask(number) for number in numbers]


def test_a_model_in_training_mode_stays_in_evaluation_while_any_thread_encodes(
    tmp_path: Path,
) -> None:
    """The first thread that ends switches dropout on under all others."""
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2)).train()
    first, second = evaluating(model), evaluating(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not model.training
    assert not model[0].training
    second.__exit__(None, None, None)
    assert model.training
    assert model[0].training


def test_fused_layers_are_for_the_thread_that_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training beside a large batch of documents: layers without a gradient."""
    from fakes.models import save_tiny_body
    from transformers import AutoModel

    if fused._product() is None:
        pytest.skip("this build of PyTorch has no oneDNN")
    monkeypatch.setattr(fused, "one_operation_is_faster", lambda dtype: True)
    body = AutoModel.from_pretrained(save_tiny_body(tmp_path, layers=1)).eval()
    ids = torch.arange(FEW).reshape(8, -1) % 100 + 5

    def train() -> bool:
        loss = body(input_ids=ids).last_hidden_state.square().mean()
        loss.backward()
        return body.encoder.layer[0].output.dense.weight.grad is not None

    with (
        ThreadPoolExecutor(1) as other,
        torch.inference_mode(),
        fused_layers(body, ids, torch.float32),
    ):
        assert other.submit(train).result()
        assert other.submit(nested, body, ids).result()
        assert any("forward" in part.__dict__ for part in body.modules())
    assert not any("forward" in part.__dict__ for part in body.modules())


def nested(body: Any, ids: torch.Tensor) -> bool:
    """Encode in a second thread, which ends first."""
    with torch.inference_mode(), fused_layers(body, ids, torch.float32):
        return bool(np.isfinite(body(input_ids=ids).last_hidden_state.numpy()).all())
