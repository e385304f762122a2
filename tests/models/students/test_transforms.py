"""Pooling, prompts, towers and projections give what they say, on both sides, and are saved."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_body, save_tiny_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import Encoder
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.models.students.soups import soup
from retrodistill.models.students.towers import side_modules
from retrodistill.models.students.transforms import pooled, prompted, two_towers, with_projection

TEXTS = ["vitamin and asthma", "print a list of files in the home of the group", "", "cancer"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> SentenceTransformer:
    return SentenceTransformer(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    """A model of other weights, depth, limits and prompts than the first."""
    prompts = {"query": "search query: ", "document": "the document: "}
    folder = tmp_path_factory.mktemp("other")
    path = save_tiny_model(folder, layers=2, max_tokens=8, prompts=prompts, seed=5)
    return SentenceTransformer(str(path), device="cpu")


@pytest.fixture(scope="module")
def towers(model: SentenceTransformer, other: SentenceTransformer) -> SentenceTransformer:
    return two_towers(other, model)


def token_vectors(model: SentenceTransformer, text: str) -> torch.Tensor:
    """Return a text's token vectors, read alone: nothing is padded."""
    with torch.inference_mode():
        return model[0](model.preprocess([text]))["token_embeddings"][0]


@pytest.mark.parametrize(
    ("how", "read"),
    [("mean", lambda v: v.mean(0)), ("cls", lambda v: v[0]), ("last", lambda v: v[-1])],
)
@pytest.mark.parametrize("padding", ["right", "left"])
def test_pooling_by_hand(model: SentenceTransformer, how, read, padding: str) -> None:
    """The last place of a padded row is padding: every short text would get its vector."""
    changed = pooled(model, how)
    changed.tokenizer.padding_side = padding
    expected = torch.stack([read(token_vectors(model, text)) for text in TEXTS])
    expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    vectors = DenseEncoder(changed, precision="float32").encode_docs(TEXTS)
    if padding == "right":  # BERT counts places from the left, so padding there moves them
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(vectors, changed.encode(TEXTS), atol=1e-5)
    assert model[1].pooling_mode == "mean"


def test_pooling_is_saved(model: SentenceTransformer, tmp_path: Path) -> None:
    changed = pooled(model, "last")
    changed.save(str(tmp_path), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_array_equal(reloaded.encode(TEXTS), changed.encode(TEXTS))
    assert np.abs(reloaded.encode(TEXTS) - model.encode(TEXTS)).max() > 1e-2


def test_pooling_that_cannot_be_set(model: SentenceTransformer, tmp_path: Path) -> None:
    """A Dense that reads two poolings, behind one, fails in the first batch, less clearly."""
    with pytest.raises(ConfigError, match="mean, cls, last, but got 'max'"):
        pooled(model, "max")  # type: ignore[arg-type]
    body = Transformer(str(save_tiny_body(tmp_path, layers=1)))
    modules = [body, Pooling(32, ("cls", "mean")), Dense(64, 8)]
    with pytest.raises(ConfigError, match="reads 64 dimensions, .* there would be 32"):
        pooled(SentenceTransformer(modules=modules, device="cpu"), "cls")
    with pytest.raises(ConfigError, match="does not pool"):
        pooled(SentenceTransformer(modules=[body], device="cpu"), "cls")


def test_prompts_by_hand(model: SentenceTransformer, tmp_path: Path) -> None:
    """A prompt on the wrong side, or lost when saved, costs quality and gives no error."""
    changed = prompted(model, query="query: ")
    DenseEncoder(changed).save(tmp_path)
    encoder = DenseEncoder(tmp_path, precision="float32")
    expected = model.encode([f"query: {text}" for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_docs(TEXTS), model.encode(TEXTS), atol=1e-5)
    assert not any(model.prompts.values())


def test_a_prompt_can_be_kept_and_taken_away(other: SentenceTransformer) -> None:
    changed = prompted(other, document="")
    assert (changed.prompts["query"], changed.prompts["document"]) == ("search query: ", "")


@pytest.mark.parametrize("saved", [False, True])
def test_towers_equal_their_models(
    towers: SentenceTransformer,
    model: SentenceTransformer,
    other: SentenceTransformer,
    saved: bool,
    tmp_path: Path,
) -> None:
    """A query read by the documents' tower, or with its limit or prompt, still gives a ranking."""
    encoder = DenseEncoder(towers, precision="float32")
    if saved:
        encoder.save(tmp_path)
        encoder = DenseEncoder(tmp_path, precision="float32")
    queries = DenseEncoder(other, precision="float32").encode_queries(TEXTS)
    docs = DenseEncoder(model, precision="float32").encode_docs(TEXTS)
    np.testing.assert_array_equal(encoder.encode_queries(TEXTS), queries)
    np.testing.assert_array_equal(encoder.encode_docs(TEXTS), docs)
    np.testing.assert_allclose(queries, encoder.model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(docs, encoder.model.encode_document(TEXTS), atol=1e-5)
    assert isinstance(encoder, Encoder)
    assert encoder.normalised
    assert encoder.dimension == 32
    assert encoder.count_tokens(TEXTS[:1]).tolist() == [5]


def test_towers_share_nothing(model: SentenceTransformer) -> None:
    """Training one tower must not move the other, nor the model that both came from."""
    before = model.encode(TEXTS)
    pair = two_towers(model, model)
    encoder = DenseEncoder(pair, precision="float32")
    fingerprint, docs = encoder.fingerprint, encoder.encode_docs(TEXTS)
    for module in side_modules(pair, "query"):
        for weights in module.parameters():
            weights.data.zero_()
    np.testing.assert_array_equal(encoder.encode_docs(TEXTS), docs)
    np.testing.assert_array_equal(model.encode(TEXTS), before)
    assert DenseEncoder(pair).fingerprint != fingerprint


def test_the_fingerprint_covers_both_towers(
    towers: SentenceTransformer, model: SentenceTransformer, other: SentenceTransformer
) -> None:
    """Two models that differ in the second tower's words or limits alone must not be one."""
    before = DenseEncoder(towers).fingerprint
    assert DenseEncoder(two_towers(other, model)).fingerprint == before
    assert DenseEncoder(two_towers(model, other)).fingerprint != before
    for side in ("query", "document"):
        changed = two_towers(other, model)
        side_modules(changed, side)[0].max_seq_length = 7
        assert DenseEncoder(changed).fingerprint != before
        changed = two_towers(other, model)
        side_modules(changed, side)[0].tokenizer.add_tokens(["vitamins"])
        assert DenseEncoder(changed).fingerprint != before


def test_limits_are_each_towers(towers: SentenceTransformer) -> None:
    with pytest.raises(ConfigError, match=r"300 is more .* 256 tokens"):
        DenseEncoder(towers, max_tokens=300)
    long = ["cell blood bone skin heart liver brain", "cell blood bone skin"]
    docs = DenseEncoder(towers, max_tokens=6, precision="float32").encode_docs(long)
    np.testing.assert_allclose(docs[0], docs[1], atol=1e-6)


def test_towers_of_two_sizes_are_refused(model: SentenceTransformer, tmp_path: Path) -> None:
    """The inner product of their vectors fails in the first search, after all the encoding."""
    small = SentenceTransformer(str(save_tiny_model(tmp_path, dimension=16)), device="cpu")
    with pytest.raises(ConfigError, match="16 dimensions .* documents 32 dimensions"):
        two_towers(small, model)
    modules = Router.for_query_document(list(small), list(model))
    with pytest.raises(ConfigError, match="queries have 16 dimensions and documents 32"):
        DenseEncoder(SentenceTransformer(modules=[modules], device="cpu"))


def test_routes_are_those_of_the_library(model: SentenceTransformer) -> None:
    """A route by another name than its side's would be read as the default one."""
    mapped = Router(
        {"short": list(model), "long": list(model)},
        route_mappings={("query", None): "short", ("document", "text"): "long"},
    )
    routed = SentenceTransformer(modules=[mapped], device="cpu")
    assert side_modules(routed, "query") == list(mapped.sub_modules["short"])
    assert side_modules(routed, "document") == list(mapped.sub_modules["long"])
    lost = SentenceTransformer(modules=[Router({"image": list(model)})], device="cpu")
    with pytest.raises(ConfigError, match="routes for image, but none for a query"):
        DenseEncoder(lost)


def test_projection_by_hand(
    towers: SentenceTransformer, model: SentenceTransformer, tmp_path: Path
) -> None:
    """A student that learned to match through a projection is another model without it."""
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(0))
    for start, side in ((model, "encode_docs"), (towers, "encode_queries")):
        whole = with_projection(start, weight)
        whole.save(str(tmp_path / side), create_model_card=False)
        encoder = DenseEncoder(tmp_path / side, precision="float32")
        before = getattr(DenseEncoder(start, precision="float32"), side)(TEXTS)
        moved = before @ weight.numpy().T
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        np.testing.assert_allclose(getattr(encoder, side)(TEXTS), moved, atol=1e-5)
        assert encoder.dimension == 24
        assert encoder.normalised
    assert len(model) == 3
    with pytest.raises(ConfigError, match="takes 32 dimensions, but the model has 24"):
        with_projection(whole, weight)


def test_projection_keeps_lengths_of_unnormalised_models(tmp_path: Path) -> None:
    model = SentenceTransformer(str(save_tiny_model(tmp_path, normalise=False)), device="cpu")
    whole = with_projection(model, 2 * torch.eye(32))
    assert not isinstance(whole[-1], Normalize)
    np.testing.assert_allclose(whole.encode(TEXTS), 2 * model.encode(TEXTS), rtol=1e-4)


def test_soup_by_hand(tiny_model: Path, tmp_path: Path) -> None:
    """Three models: a running mean of pairs would weigh the last one half."""
    paths = [tiny_model, *(save_tiny_model(tmp_path / str(s), seed=s) for s in (1, 2))]
    states = [SentenceTransformer(str(path), device="cpu").state_dict() for path in paths]
    mean = soup(paths)
    for name, weights in mean.state_dict().items():
        torch.testing.assert_close(weights, sum(state[name] for state in states) / 3)
    mean.save(str(tmp_path / "soup"), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path / "soup"), device="cpu")
    np.testing.assert_array_equal(reloaded.encode(TEXTS), mean.encode(TEXTS))


def test_soup_of_one_is_that_one(tiny_model: Path, model: SentenceTransformer) -> None:
    np.testing.assert_array_equal(soup([tiny_model] * 2).encode(TEXTS), model.encode(TEXTS))


def test_soup_names_the_first_difference(tiny_model: Path, tmp_path: Path) -> None:
    """The mean of two poolings' or two prompts' models is a model of neither."""
    narrow = save_tiny_model(tmp_path / "narrow", dimension=16)
    with pytest.raises(ConfigError, match=r"the shape of .*word_embeddings.*, 32\) in the"):
        soup([tiny_model, narrow])
    shallow = save_tiny_model(tmp_path / "shallow", layers=2)
    with pytest.raises(ConfigError, match=r"layer.2.* None in the second"):
        soup([tiny_model, shallow])
    plain = save_tiny_model(tmp_path / "plain", normalise=False)
    with pytest.raises(ConfigError, match="number of modules: 3 in the first, 2"):
        soup([tiny_model, plain])
    asked = save_tiny_model(tmp_path / "asked", prompts={"query": "q: "})
    with pytest.raises(ConfigError, match="the prompts: .*'q: '"):
        soup([tiny_model, asked])
    first_token = pooled(SentenceTransformer(str(tiny_model), device="cpu"), "cls")
    first_token.save(str(tmp_path / "cls"), create_model_card=False)
    with pytest.raises(ConfigError, match="module 1: .*mean.*cls"):
        soup([tiny_model, tmp_path / "cls"])
    config = json.loads((tiny_model / "config.json").read_text(encoding="utf-8"))
    bent = shutil.copytree(tiny_model, tmp_path / "bent")
    (bent / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(ConfigError, match="setting hidden_act: 'gelu' in the first, 'relu'"):
        soup([tiny_model, bent])
    with pytest.raises(ConfigError, match="at least one model"):
        soup([])
