"""Late-interaction scores are the library's, whatever shares their call."""

import json
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.encoders import save_tiny_late_interaction
from fakes.models import WORDS, save_tiny_body
from safetensors.torch import save_file
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertModel

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Doc, Pairs, Teacher
from retrodistill.models.inference.options import ModelOptions
from retrodistill.models.students.late_interaction import TokenVectors
from retrodistill.models.students.maxsim import QueryTokens, maxsim
from retrodistill.models.teachers import late_interaction
from retrodistill.models.teachers.late_interaction import LateInteractionTeacher

COLBERT = {
    "query_expansion": {"strategy": "fixed", "length": 14},
    "document_length": 40,
    "skip": [",", ".", "the"],
    "prompts": {"query": "[Q] ", "document": "[D] "},
}
MODELS: dict[str, dict[str, Any]] = {
    "colbert": COLBERT,
    "expanded at least": {
        "query_expansion": {"strategy": "min", "length": 8, "attend": True},
        "query_length": 12,
    },
    "plain": {},
    "mean": {"similarity": "meanmaxsim", "prompts": {"query": "query: "}},
    "not normalised": {"normalise": False, "skip": ["cell"]},
}


def made_pairs(count: int = 300) -> Pairs:
    """Return pairs of 20 queries and 30 documents of very different lengths, in random order."""
    rng = random.Random(0)
    queries = [
        Doc(f"q{i}", "", " ".join(rng.choices(WORDS, k=rng.randint(1, 20)))) for i in range(20)
    ]
    docs = [
        Doc(f"d{i}", rng.choice(WORDS), ", ".join(rng.choices(WORDS, k=rng.randint(0, 60))))
        for i in range(30)
    ]
    docs[0] = Doc("d0", "", "")
    return Pairs.of(rng.choices(queries, k=count), rng.choices(docs, k=count))


def library_scores(model: MultiVectorEncoder, pairs: Pairs) -> np.ndarray:
    """Return the scores that the library's documentation leads to."""
    queries = model.encode_query([query.full_text for query in pairs.queries])
    docs = model.encode_document([doc.full_text for doc in pairs.docs])
    return model.similarity(queries, docs).numpy()[pairs.query_rows, pairs.doc_rows]


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return made_pairs()


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_late_interaction(tmp_path_factory.mktemp("colbert"), **COLBERT))


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_library(name: str, tmp_path: Path, pairs: Pairs) -> None:
    """Markers, expansion, skipped words or a limit lost on the way rank nearly as well."""
    path = str(save_tiny_late_interaction(tmp_path, **MODELS[name]))
    expected = library_scores(MultiVectorEncoder(path, device="cpu"), pairs)
    for batch_tokens in (100, 4096):
        teacher = LateInteractionTeacher(
            path, ModelOptions(batch_tokens=batch_tokens, precision="float32")
        )
        assert isinstance(teacher, Teacher)
        assert (teacher.scale, teacher.unit) == (
            "cosine" if name == "mean" else "maxsim",
            "document",
        )
        values = teacher.score(pairs)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, atol=1e-4, rtol=1e-5)
    assert np.ptp(expected) > 0.1


def test_a_score_stands_alone(colbert: str, pairs: Pairs) -> None:
    """A score that depends on its neighbours, so that a resume changes the table."""
    teacher = LateInteractionTeacher(colbert, ModelOptions(precision="float32"))
    scores = teacher.score(pairs)
    assert (teacher.score(pairs) == scores).all()
    for i in range(5):
        query, doc = pairs.queries[pairs.query_rows[i]], pairs.docs[pairs.doc_rows[i]]
        np.testing.assert_allclose(teacher.score(Pairs.of([query], [doc])), scores[i], atol=1e-5)


def test_each_text_is_encoded_once(colbert: str, pairs: Pairs) -> None:
    """A document that is encoded for each of its queries: ten times the cost."""
    teacher = LateInteractionTeacher(colbert, ModelOptions(batch_tokens=256))
    batches: list[torch.Size] = []
    teacher._encoder.model[1].register_forward_pre_hook(
        lambda head, inputs: batches.append(inputs[0]["token_embeddings"].shape[:2])
    )
    teacher.score(pairs)
    assert sum(rows for rows, _ in batches) == len(pairs.queries) + len(pairs.docs)
    assert max(rows * tokens for rows, tokens in batches) <= 256


def test_many_queries_are_taken_in_turn(
    colbert: str, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that land on the pairs of another turn."""
    teacher = LateInteractionTeacher(colbert, ModelOptions(precision="float32"))
    expected = teacher.score(pairs)
    monkeypatch.setattr(late_interaction, "QUERIES_AT_ONCE", 7)
    np.testing.assert_allclose(teacher.score(pairs), expected, atol=1e-5)


def test_no_pairs(colbert: str) -> None:
    assert LateInteractionTeacher(colbert).score(Pairs.of([], [])).shape == (0,)


def test_documents_are_cut_and_queries_are_not(colbert: str, pairs: Pairs) -> None:
    """A limit meant for documents that cuts queries, or that lengthens what the model allows."""
    model = MultiVectorEncoder(colbert, device="cpu")
    model[0].document_length = 10
    values = LateInteractionTeacher(
        colbert, ModelOptions(max_tokens=10, precision="float32")
    ).score(pairs)
    np.testing.assert_allclose(values, library_scores(model, pairs), atol=1e-4)
    whole = [
        LateInteractionTeacher(colbert, ModelOptions(max_tokens=n)).score(pairs) for n in (40, 256)
    ]
    assert (whole[0] == whole[1]).all()
    assert np.abs(whole[0] - values).max() > 0.1


@pytest.mark.parametrize("block", [(1, 1), (2, 16), (64, 4096)])
def test_maxsim_against_plain_loops(
    block: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A masked token that wins where all real products are negative; sums over a wrong query."""
    monkeypatch.setattr("retrodistill.models.students.maxsim.BLOCK_PAIRS", block[0])
    monkeypatch.setattr("retrodistill.models.students.maxsim.BLOCK_TOKENS", block[1])
    rng = np.random.default_rng(0)
    sizes, owned = rng.integers(1, 9, 12), np.array([3, 0, 7, 1, 5])
    rows = rng.integers(0, 12, owned.sum())
    queries = [rng.normal(size=(size, 4)) for size in sizes]
    docs = rng.normal(size=(5, 6, 4)) - 3
    mask = rng.random((5, 6)) < 0.5
    mask[[0, 3]], mask[2, 4] = False, True
    mask[0, 5] = True
    vectors = torch.tensor(np.concatenate(queries), dtype=torch.float32)
    tokens = QueryTokens(vectors, np.cumsum(sizes) - sizes, sizes)
    batch = TokenVectors(np.arange(5), torch.tensor(docs).float(), torch.from_numpy(mask))
    expected = [
        (queries[row] @ docs[doc][mask[doc]].T).max(1).sum()
        if mask[doc].any()
        else -np.linalg.norm(queries[row], axis=1).sum()
        for row, doc in zip(rows, np.repeat(np.arange(5), owned), strict=True)
    ]
    np.testing.assert_allclose(maxsim(tokens, rows, batch, owned), expected, rtol=1e-5)


def test_a_document_without_a_token_keeps_to_the_scale(tmp_path: Path) -> None:
    """A margin of a billion, which margin-mse squares."""
    model = str(save_tiny_late_interaction(tmp_path, skip=["."]))
    model_pairs = Pairs.of(
        [Doc("q", "", "blood and heart")] * 2, [Doc("a", "", "a test"), Doc("b", "", "")]
    )
    teacher = LateInteractionTeacher(model, ModelOptions(precision="float32"))
    real = teacher._encoder.encode_docs

    def nothing_counts(texts: Sequence[str]) -> Iterator[TokenVectors]:
        for batch in real(texts):
            empty = torch.tensor([texts[position] == "" for position in batch.positions])
            yield TokenVectors(batch.positions, batch.vectors, batch.mask & ~empty[:, None])

    teacher._encoder.encode_docs = nothing_counts  # type: ignore[method-assign]
    scores = teacher.score(model_pairs)
    (tokens,) = teacher._encoder.encode_queries(["blood and heart"])
    assert scores[1] == pytest.approx(-float(tokens.mask.sum()), rel=1e-5)  # of length 1 each
    assert scores[1] <= scores[0]


def test_maxsim_by_hand() -> None:
    """Query tokens (1,0) and (0,2); document tokens (3,1) and (1,2): 3 + 4 = 7."""
    queries = QueryTokens(torch.tensor([[1.0, 0], [0, 2]]), np.array([0]), np.array([2]))
    vectors = torch.tensor([[[3.0, 1], [1, 2], [9, 9]]])
    docs = TokenVectors(np.array([0]), vectors, torch.tensor([[True, True, False]]))
    assert maxsim(queries, np.array([0]), docs, np.array([1])).tolist() == [7.0]


def test_only_the_transformer_is_narrow(colbert: str, pairs: Pairs) -> None:
    """Products in bfloat16 leave a few dozen different scores, and ties between candidates."""
    whole = LateInteractionTeacher(colbert, ModelOptions(precision="float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        teacher = LateInteractionTeacher(colbert, ModelOptions(precision="bfloat16"))
    assert teacher.fingerprint != whole.fingerprint
    values = teacher.score(pairs)
    assert 1e-4 < np.abs(values - whole.score(pairs)).max() < 0.5
    narrow = torch.from_numpy(values).bfloat16().float().numpy()
    assert len(set(values.tolist())) > 2 * len(set(narrow.tolist()))


def test_the_fingerprint_is_that_of_the_scores(tmp_path: Path, colbert: str) -> None:
    """Scores with punctuation taken for scores without, for the weights are the same."""
    variants = [
        {"skip": [","]},
        {"prompts": {"query": "[Q] "}},
        {"similarity": "meanmaxsim"},
        {"query_expansion": {"strategy": "min", "length": 14}},
        {"seed": 1},
    ]
    prints = {
        LateInteractionTeacher(
            colbert, ModelOptions(max_tokens=12, precision="float32")
        ).fingerprint
    }
    for number, variant in enumerate(variants):
        path = save_tiny_late_interaction(tmp_path / str(number), **COLBERT | variant)
        prints.add(LateInteractionTeacher(str(path), ModelOptions(precision="float32")).fingerprint)
    fingerprint = LateInteractionTeacher(colbert, ModelOptions(precision="float32")).fingerprint
    assert len(prints | {fingerprint}) == len(variants) + 2
    MultiVectorEncoder(colbert, device="cpu").save(str(tmp_path / "copy"), create_model_card=False)
    copy = LateInteractionTeacher(
        str(tmp_path / "copy"), ModelOptions(batch_tokens=9, precision="float32")
    )
    assert copy.fingerprint == fingerprint


def test_a_stanford_checkpoint_is_read(tmp_path: Path, pairs: Pairs) -> None:
    """ColBERTv2's own layout, its projection among the transformer's weights."""
    body = BertModel.from_pretrained(save_tiny_body(tmp_path / "body", layers=1))
    weights = {f"bert.{name}": value for name, value in body.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights["linear.weight"] = torch.randn(16, 32, generator=generator)
    save_file(weights, tmp_path / "body" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "body" / "config.json").read_text())
    config["architectures"] = ["HF_ColBERT"]
    (tmp_path / "body" / "config.json").write_text(json.dumps(config))
    settings = {"query_maxlen": 10, "doc_maxlen": 30, "mask_punctuation": False}
    (tmp_path / "body" / "artifact.metadata").write_text(json.dumps(settings))
    teacher = LateInteractionTeacher(str(tmp_path / "body"), ModelOptions(precision="float32"))
    expected = library_scores(MultiVectorEncoder(str(tmp_path / "body"), device="cpu"), pairs)
    np.testing.assert_allclose(teacher.score(pairs), expected, atol=1e-4)
    linear = teacher._encoder.model[1].linear.weight
    assert torch.equal(linear, weights["linear.weight"])


def test_models_without_a_projection_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    """A head that the library draws at random scores without a word, each time differently."""
    for model in (str(save_tiny_body(tmp_path / "body")), str(tiny_model)):
        with pytest.raises(ConfigError, match="saved without a projection of token vectors"):
            LateInteractionTeacher(model)
    body = Transformer(str(tmp_path / "body"))
    projected = SentenceTransformer(modules=[body, Pooling(32), Dense(32, 8)], device="cpu")
    projected.save(str(tmp_path / "projected"), create_model_card=False)
    assert LateInteractionTeacher(str(tmp_path / "projected")).scale == "maxsim"


def test_models_that_are_not_there_are_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="late-interaction needs a model"):
        LateInteractionTeacher("")
    with pytest.raises(ConfigError, match="'nowhere/at-all' cannot be loaded"):
        LateInteractionTeacher("nowhere/at-all")


def test_a_pickled_projection_is_refused(tmp_path: Path) -> None:
    """The library reads a pickle for a projection whose safetensors file is missing."""
    path = save_tiny_late_interaction(tmp_path)
    (path / "1_Dense" / "model.safetensors").unlink()
    torch.save({}, path / "1_Dense" / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="1_Dense are only in a pickle.* safetensors"):
        LateInteractionTeacher(str(path))
