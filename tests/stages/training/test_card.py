"""A student's card loads on the hub, its code runs, and it reveals no path of its author."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.corpus import save_small_collection
from fakes.encoders import save_tiny_late_interaction, save_tiny_sparse
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from huggingface_hub import ModelCard

from retrodistill.base.config import MineSettings, TrainSettings, as_dict
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import load_collection
from retrodistill.data.rankings import Fusion
from retrodistill.data.store.lineage import lineage_of
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder
from retrodistill.stages.mining import mine_candidates
from retrodistill.stages.scoring import load_teacher, score_candidates
from retrodistill.stages.scoring.ensembles import store_ensemble
from retrodistill.stages.training import train_student
from retrodistill.stages.training.card import is_hub_id, model_card, shown, teachers_of, write_card


def manifest(**changes: Any) -> Manifest:
    settings = TrainSettings(objective="margin-mse + 0.1*contrastive", batch_size=8)
    config = as_dict(settings) | {"student": "org/small", "split": "train"} | changes
    return Manifest(
        kind="student",
        fingerprint="f" * 64,
        inputs={"collection": "c" * 64, "scores": "5" * 64},
        config=config,
        details={
            "queries": 12345,
            "steps": 1200,
            "seconds": 61.5,
            "dtype": "float32",
            "losses": [{"step": 60, "margin-mse": 2.5}, {"step": 1200, "margin-mse": 0.25}],
            "development": {"split": "dev", "metric": "ndcg@10", "step": 900, "value": 0.71234},
        },
    )


def test_the_card_loads_as_one_of_the_hub() -> None:
    """A header that the hub rejects, or files under no library and no task."""
    card = ModelCard(model_card(manifest(), name="kl", teachers=["cross-encoder:org/big"]))
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert card.data.base_model == "org/small"
    assert {"sentence-transformers", "sentence-similarity", "retrodistill"} <= {*card.data.tags}
    for expected in (
        "12,345",
        "1,200",
        "2.5000",
        "0.2500",
        "0.7123",
        "step 900",
        "c" * 64,
        "5" * 64,
        "cross-encoder:org/big",
        "arXiv:2010.02666",
        "{2010.02666}",
    ):
        assert expected in card.text
    assert f"torch {torch.__version__.partition('+')[0]}" in card.text


def test_a_value_of_a_part_of_the_documents_is_called_optimistic() -> None:
    """A value of a search in some hundred documents that reads like one of the collection."""
    whole, pooled = manifest(), manifest()
    for of_docs, docs in ((whole, "all"), (pooled, "scored")):
        of_docs.details["development"]["docs"] = docs
    assert "optimistic" not in model_card(whole, name="kl")
    assert "optimistic" in model_card(pooled, name="kl")


def test_the_share_of_each_term_is_in_the_card() -> None:
    """A card of two losses of which one was never trained, and nobody can see it."""
    made = manifest()
    made.details["gradient_shares"] = {"margin-mse": 0.992, "contrastive": 0.008}
    text = model_card(made, name="kl")
    assert "| margin-mse | `99.2%` |" in text
    assert "| contrastive | `0.8%` |" in text
    assert "share of the gradient" not in model_card(manifest(), name="kl")


def test_the_settings_that_are_not_the_defaults_are_told() -> None:
    """A card from which the training cannot be repeated."""
    text = model_card(manifest(width=128, query_prompt="find: ", dims=[64, 32]), name="kl")
    assert "| width | `128` |" in text
    assert "| query\\_prompt | `find:` |" in text
    assert "| dims | `64,32` |" in text
    assert "weight\\_decay" not in text


def test_no_path_of_the_computer_is_in_the_card(tmp_path: Path) -> None:
    """A published card with a user's name, client or folders in it."""
    secret = tmp_path / "client-x"
    (secret / "start").mkdir(parents=True)
    card = model_card(
        manifest(
            student=str(secret / "start"),
            data=f"beir:{secret}/nq",
            scores=str(secret / "scores" / "ce"),
            vectors=f"{secret}/teacher/",
            doc_student="C:\\client-x\\docs",
            out=str(secret / "students" / "kl"),
        ),
        name="kl",
        teachers=[f"cross-encoder:{secret}/big"],
    )
    assert "client-x" not in card
    assert str(tmp_path) not in card
    for name in ("start", "beir:nq", "ce", "teacher", "docs", "cross-encoder:big"):
        assert f"`{name}`" in card
    assert "base_model" not in card


def test_names_are_shown_as_their_users_know_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local folder that is linked to a stranger's model of the same name on the hub."""
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("org/small")
    (tmp_path / "org" / "small").mkdir(parents=True)
    assert not is_hub_id("org/small")
    assert shown("org/small") == "small"
    assert shown("irds:beir/scifact/train") == "irds:beir/scifact/train"
    assert shown("hf:BeIR/scifact") == "hf:BeIR/scifact"
    assert shown("bi-encoder:a/b/c") == "bi-encoder:c"
    assert shown("~/x/y") == "y"


def test_text_of_the_user_cannot_break_the_card() -> None:
    """A name that ends the header, a table or a code block, or runs as HTML."""
    bad = "a|b`c``\n---\n# <script>x</script> [z](y) {x: 'y'}\"\\"
    card = ModelCard(model_card(manifest(query_prompt=bad, data=bad, student=bad), name=bad))
    assert card.data.library_name == "sentence-transformers"
    lines = card.text.splitlines()
    assert not [line for line in lines if line.strip() == "---" or line.startswith("# <")]
    for line in lines:
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 4), line
        outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)
        assert not re.search(r"(?<!\\)<script>", outside) or line.startswith("model = "), line


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")  # torch's
@pytest.mark.parametrize(
    ("kind", "save"),
    [
        ("bi-encoder", save_tiny_model),
        ("sparse", save_tiny_sparse),
        ("late-interaction", save_tiny_late_interaction),
        ("cross-encoder", save_tiny_cross_encoder),
    ],
)
def test_the_lines_of_use_run(
    kind: str, save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lines to copy that fail at the second."""
    folder = save(tmp_path / "m")
    write_card(folder, manifest(student_kind=kind), name=folder.name)
    text = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    assert len(code.splitlines()) == 3
    monkeypatch.chdir(folder.parent)
    variables: dict[str, Any] = {}
    exec(code, variables)
    assert torch.isfinite(torch.as_tensor(variables["scores"])).all()
    assert torch.as_tensor(variables["scores"]).numel() == 1


def test_the_teachers_are_found_in_the_stores(tmp_path: Path) -> None:
    """Scores of an ensemble whose members nobody can name any more."""
    collection = load_collection(f"beir:{save_small_collection(tmp_path / 'data')}")
    candidates = mine_candidates(collection, "test", settings=MineSettings(depth=4))
    model = save_tiny_model(tmp_path / "m", layers=1)
    stores = []
    for spec in ("bm25", f"bi-encoder:{model}"):
        stores.append(tmp_path / spec.partition(":")[0])
        score_candidates(
            collection,
            candidates,
            load_teacher(spec, collection),
            stores[-1],
            config={"teacher": spec},
        )
    assert teachers_of(stores[1]) == ["bi-encoder:model"]
    both = tmp_path / "both"
    fusion = Fusion(norm="z", pairs="shared")
    scores = fusion.fuse([Run.read(store) for store in stores])
    config = {"run": [str(store) for store in stores]}
    store_ensemble(collection, scores, both, fusion=fusion, config=config)
    assert teachers_of(both) == ["bm25", "bi-encoder:model"]
    assert teachers_of(tmp_path / "nothing") == []


def test_the_card_names_all_training_and_the_dev_value_without_what_was_seen(
    tmp_path: Path, tiny_model: Path
) -> None:
    """A dev value of queries that the teacher has learned by heart, on a card that is published."""
    collection = load_collection(f"beir:{save_small_collection(tmp_path / 'data')}")
    settings = TrainSettings(
        objective="contrastive", max_steps=1, batch_size=2, dev_split="test", precision="float32"
    )
    start = train_student(collection, tiny_model, tmp_path / "first", settings=settings)
    made = Manifest.read(start)
    assert made.details["development"]["unseen"][1] == {
        "name": "documents unseen in training",
        "queries": 8,
        "value": pytest.approx(made.details["development"]["value"], abs=1e-6),
    }
    text = (start / "README.md").read_text()
    assert "| documents unseen in training | `8` | `" in text
    assert "| trained on, by first | `24 queries of data, train` |" in text
    assert f"| training not recorded | `{tiny_model.name}` |" in text

    second = replace(settings, dev_split="train")
    train_student(collection, start, tmp_path / "second", split="test", settings=second)
    text = (tmp_path / "second" / "README.md").read_text()
    assert "| trained on, by first | `24 queries of data, train` |" in text
    assert "| trained on, by second | `8 queries of data, test` |" in text
    assert "| documents unseen in training | `0` | `no query` |" in text


def test_a_training_of_texts_alone_records_its_queries_and_no_document(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Documents that only lent their text are taken for ones that were called relevant."""
    collection = load_collection(f"beir:{save_small_collection(tmp_path / 'data')}")
    settings = TrainSettings(objective="embed-distill", max_steps=1, batch_size=2)
    teacher = DenseEncoder(tiny_model)
    out = train_student(
        collection, tiny_model, tmp_path / "s", sources=[teacher], settings=settings
    )
    [record] = lineage_of(out).records
    assert (len(record.table), record.documents) == (24, 0)  # no query of the test split


def test_settings_of_an_older_version_do_not_break_the_card() -> None:
    """A student's folder that cannot be read because two of its settings have other names now."""
    card = model_card(manifest(draw="simans", order="clusters"), name="kl")
    assert "margin-mse" in card
