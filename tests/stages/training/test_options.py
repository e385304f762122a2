"""Every way to make and train a student, through `train_student`, and every recipe."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.models import save_tiny_cross_encoder, save_tiny_model
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from retrodistill import train as verb
from retrodistill.base.config import TrainConfig, TrainSettings
from retrodistill.base.errors import ConfigError, DataError
from retrodistill.base.manifest import Manifest
from retrodistill.data.datasets import Collection
from retrodistill.data.store.runs import Run
from retrodistill.models.students.dense import DenseEncoder, load_bi_encoder
from retrodistill.models.students.towers import SIDES, side_modules
from retrodistill.objectives.objective import inputs_of, parse_objective
from retrodistill.objectives.recipes import load_recipe, recipe_names
from retrodistill.stages.scoring import compare_candidates, load_teacher
from retrodistill.stages.training import train_student
from retrodistill.stages.training.building import start_student

SHORT = TrainSettings(
    candidates_per_query=4,
    batch_size=4,
    max_steps=3,
    query_tokens=16,
    doc_tokens=32,
    learning_rate=1e-3,
    objective="listwise-kl + contrastive",
)
TEXTS = ["blood pressure", "a drug for asthma"]


def test_adapters_are_merged_into_a_plain_student(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Adapters that are saved beside the model, so that others load the untrained weights."""
    pytest.importorskip("peft", reason="pip install peft")
    settings = dataclasses.replace(SHORT, lora_rank=2, learning_rate=1e-2)
    out = train_student(collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings)
    start, end = (load_bi_encoder(str(of), torch.device("cpu")) for of in (tiny_model, out))
    assert start.state_dict().keys() == end.state_dict().keys()
    assert np.abs(start.encode(TEXTS) - end.encode(TEXTS)).max() > 1e-4


def test_a_new_head_learns_beside_adapters(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A cross-encoder with adapters whose random head stays random."""
    pytest.importorskip("peft", reason="pip install peft")
    settings = dataclasses.replace(SHORT, lora_rank=2, student_kind="cross-encoder", max_steps=1)
    model = start_student(str(tiny_model), settings, collection, torch.device("cpu"))
    heads = [layer for layer in model.modules() if getattr(layer, "out_features", 0) == 1]
    assert heads
    assert all(weight.requires_grad for layer in heads for weight in layer.parameters())
    train_student(collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings)


def test_a_frozen_tower_stays_and_the_other_is_trained(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Documents served by a teacher whose vectors have moved during the training."""
    teacher = save_tiny_model(tmp_path / "teacher", seed=1)
    settings = dataclasses.replace(SHORT, doc_student=str(teacher), freeze="document")
    out = train_student(collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings)
    towers, query, doc = DenseEncoder(out), DenseEncoder(tiny_model), DenseEncoder(teacher)
    np.testing.assert_allclose(towers.encode_docs(TEXTS), doc.encode_docs(TEXTS), atol=1e-6)
    assert np.abs(towers.encode_queries(TEXTS) - query.encode_queries(TEXTS)).max() > 1e-4


def test_each_tower_is_cut_by_its_own_option(
    collection: Collection, tiny_model: Path, tmp_path: Path
) -> None:
    """--keep-layers that cuts one tower of two without a word, or a teacher that is served."""
    teacher = save_tiny_model(tmp_path / "teacher", seed=1)
    settings = dataclasses.replace(SHORT, doc_student=str(teacher), keep_layers=(0, 3))

    def depths(settings: TrainSettings) -> list[int]:
        model = start_student(str(tiny_model), settings, collection, torch.device("cpu"))
        bodies = [side_modules(model, side)[0].auto_model for side in SIDES]
        return [len(body.encoder.layer) for body in bodies]

    assert depths(settings) == [2, 6]
    assert depths(dataclasses.replace(settings, doc_keep_layers=(1,))) == [2, 1]
    with pytest.raises(ConfigError, match="--doc-keep-layers needs --doc-student"):
        TrainSettings(doc_keep_layers=(1,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"average": "sma", "average_start": 1.0}, "--average-start must be below 1"),
        ({"average": "sma", "average_start": -0.1}, "--average-start must be at least 0"),
        ({"average_start": 0.1}, "--average-start needs --average sma"),
        ({"average": "ema", "average_decay": 1.0}, "--average-decay must be below 1"),
        ({"dev_split": "dev", "patience": 1, "min_delta": -1.0}, "--min-delta must be at least"),
        ({"dev_split": "dev", "min_delta": 0.1}, "--min-delta needs --patience"),
    ],
)
def test_settings_of_averages_and_patience_are_checked_before_anything_is_loaded(
    changes: dict[str, object], message: str
) -> None:
    """A number out of its range that is found when the model and the data are in memory."""
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**changes)  # type: ignore[arg-type]


def test_trackers_call_the_run_as_its_folder(
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten trainings in wandb under names of temporary folders."""
    names = []

    class Tracker(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            names.append(args.run_name)

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "noted", Tracker)
    settings = dataclasses.replace(SHORT, max_steps=1, tracker=("noted",))
    train_student(collection, tiny_model, tmp_path / "kl-4", sources=[scores], settings=settings)
    assert names == ["kl-4"]


def test_the_start_of_an_average_and_the_min_delta_reach_the_training(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Settings that are accepted and never looked at."""

    def trained(name: str, **changes: object) -> Path:
        settings = dataclasses.replace(SHORT, max_steps=6, **changes)  # type: ignore[arg-type]
        return train_student(
            collection, tiny_model, tmp_path / name, sources=[scores], settings=settings
        )

    early, late = (trained(f"sma{start}", average="sma", average_start=start) for start in (0, 0.9))
    vectors = [DenseEncoder(folder).encode_docs(TEXTS) for folder in (early, late)]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-5
    gains: dict[str, Any] = {"dev_split": "test", "eval_steps": 1, "patience": 2}
    out = trained("patient", min_delta=2.0, **gains)
    assert Manifest.read(out).details["losses"][-1]["step"] == 3


def test_a_student_is_cut_pruned_and_prompted_before_training(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """An option of the student that is read and then ignored."""
    settings = dataclasses.replace(
        SHORT,
        keep_layers=(0, 3),
        width=16,
        prune_vocabulary=True,
        pooling="cls",
        query_prompt="query: ",
        doc_prompt="",
    )
    out = train_student(collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings)
    model = load_bi_encoder(str(out), torch.device("cpu"))
    assert model.encode(TEXTS).shape == (2, 16)
    assert model[0].auto_model.config.num_hidden_layers == 2
    start = load_bi_encoder(str(tiny_model), torch.device("cpu"))
    assert len(model.tokenizer) < len(start.tokenizer)
    assert model[1].pooling_mode == "cls"
    assert model.prompts["query"] == "query: "


def test_the_best_weights_on_the_dev_split_are_kept(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """A dev value that is logged while the last weights are saved."""
    settings = dataclasses.replace(
        SHORT, dev_split="test", eval_steps=1, learning_rate=0.1, average="ema", average_decay=0.5
    )
    out = train_student(collection, tiny_model, tmp_path / "s", sources=[scores], settings=settings)
    development = Manifest.read(out).details["development"]
    assert development["split"] == "test"
    assert 0 <= development["value"] <= 1
    assert development["values"][-1][0] == Manifest.read(out).details["steps"]
    assert development["value"] == max(value for _, value in development["values"])
    from retrodistill.stages.training.development import Development, Reading

    measure = Development(collection, "test", "ndcg@10", reading=Reading(max_tokens=32))
    model = load_bi_encoder(str(out), torch.device("cpu"))
    assert measure(model) == pytest.approx(development["value"], abs=1e-6)
    assert "ndcg@10" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "objective"),
    [
        (
            {"query_order": "clusters", "clusters": 3, "negative_sampling": "margin-bins"},
            "margin-mse",
        ),
        ({"query_order": "hard-first", "negative_sampling": "importance(keep=0.5)"}, "sampled-kl"),
        (
            {
                "negative_sampling": "simans(a=0.5)",
                "drop_weak_queries": 0.25,
                "false_negatives": 0.9,
            },
            "listwise-kl-in-batch + contrastive",
        ),
    ],
)
def test_orders_draws_and_filters_reach_the_training(
    changes: dict[str, object],
    objective: str,
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    """A sampler that is chosen on the command line and never asked."""
    settings = dataclasses.replace(SHORT, **changes)  # type: ignore[arg-type]
    folders = [
        train_student(
            collection,
            tiny_model,
            tmp_path / name,
            sources=[scores],
            settings=dataclasses.replace(used, objective=objective),
        )
        for name, used in (("changed", settings), ("plain", SHORT))
    ]
    changed, plain = (Manifest.read(out).details["losses"] for out in folders)
    assert changed != plain
    assert all(np.isfinite(list(row.values())).all() for row in changed)


def test_preferences_teach_a_student(
    collection: Collection, scores: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Preferences of other documents than those of the list, or none at all."""
    duo = load_teacher(f"pairwise:{save_tiny_cross_encoder(tmp_path / 'duo')}", collection)
    store = compare_candidates(collection, scores.top(5), duo, tmp_path / "p", opponents=2)
    settings = dataclasses.replace(
        SHORT,
        pool=4,
        candidates_per_query=5,
        max_steps=30,
        batch_size=8,
        dropout=0.0,
        objective="preference-kl(student_temperature=0.05)",
    )
    out = train_student(
        collection, tiny_model, tmp_path / "s", sources=[scores, store], settings=settings
    )
    losses = Manifest.read(out).details["losses"]
    assert losses[-1]["preference-kl"] < losses[0]["preference-kl"]
    few = dataclasses.replace(settings, batch_size=1, max_steps=len(scores.query_ids))
    preferences = compare_candidates(
        collection, scores.select(["q3"]).top(5), duo, tmp_path / "one", opponents=2
    )
    out = train_student(
        collection, tiny_model, tmp_path / "f", sources=[scores, preferences], settings=few
    )
    rare = [row["preference-kl"] for row in Manifest.read(out).details["losses"]]
    assert min(rare) == 0 < max(rare)
    unpreferred = scores.select(query for query in scores.query_ids if query != "q3")
    with pytest.raises(DataError, match="compare no two candidates"):
        train_student(
            collection,
            tiny_model,
            tmp_path / "n",
            sources=[unpreferred, preferences],
            settings=settings,
        )
    with pytest.raises(ConfigError, match="needs preferences: give --preferences"):
        train_student(
            collection,
            tiny_model,
            tmp_path / "t",
            sources=[scores],
            settings=TrainSettings(objective="preference-kl"),
        )


@pytest.mark.parametrize(
    ("objective", "rare"),
    [
        ("listwise-kl + 0.1*contrastive", {"contrastive"}),
        ("ranknet + lambdarank + approx-ndcg", {"ranknet", "lambdarank", "approx-ndcg"}),
        ("soft-nn + passage-centric + fused-kl", {"soft-nn", "passage-centric"}),
        (
            "arm(in_batch=false) + decayed-contrastive + mixed-negatives",
            {"arm", "decayed-contrastive", "mixed-negatives"},
        ),
    ],
)
def test_a_batch_without_labels_or_order_does_not_end_a_training(
    objective: str,
    rare: set[str],
    collection: Collection,
    scores: Run,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The main job, many queries and few labels: lost at the first batch that has none of them.

    So it is with a teacher of grades, of which a batch holds only equal ones.
    """
    few = Collection(
        "few",
        docs=collection.docs,
        queries=collection.queries,
        judgements={"train": lambda: {"q3": {"d3": 1}}},
    )
    table = scores.table.to_pandas()
    table.loc[table["query_id"] != "q3", "score"] = 1.0
    grades = Run.from_columns(*(table[name].tolist() for name in ("query_id", "doc_id", "score")))
    settings = dataclasses.replace(SHORT, max_steps=-1, objective=objective)
    out = train_student(few, tiny_model, tmp_path / "s", sources=[grades], settings=settings)
    details = Manifest.read(out).details
    assert details["steps"] == 6
    assert details["steps_without_signal"] == dict.fromkeys(rare, 5)
    assert all(np.isfinite(list(row.values())).all() for row in details["losses"])
    assert all(max(row[name] for row in details["losses"]) > 0 for name in rare)
    text = capsys.readouterr().err
    assert all(f"{name} had no signal in 5 of 6 steps" in text for name in rare)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_settings_that_exist(name: str) -> None:
    """A recipe with a misspelt setting, found out by the one who uses it."""
    recipe = load_recipe(name)
    assert recipe.about
    assert recipe.source
    assert len({stage.name for stage in recipe.stages}) == len(recipe.stages)
    for stage in recipe.stages:
        settings = TrainSettings(**{"objective": "", **stage.settings})
        assert stage.about
        assert {"objective"} <= set(stage.settings)
        inputs_of(parse_objective(settings.objective))
        fields = {item.name for item in dataclasses.fields(TrainConfig)}
        assert set(stage.settings) <= fields


def test_a_stage_is_trained_by_its_name(
    folder: Path,
    collection: Collection,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second stage that trains as the first, or a first that passes for the whole method."""
    docs = collection.docs.ids()[:4]
    values = dict(zip(docs, (0.95, 0.05, 0.04, 0.5), strict=True))
    Run.from_dict(dict.fromkeys(collection.query_ids("train"), values)).write(tmp_path / "scores")
    words = f"--recipe pair --data beir:{folder} --student {tiny_model} --max-steps 1 "
    words += f"--batch-size 2 --doc-tokens 24 --scores {tmp_path / 'scores'}"
    assert verb.main([*words.split(), "--out", str(tmp_path / "s")]) == 2
    expected = "recipe 'pair' has stages, in order: passage-centric, query-centric. Name one with"
    assert expected in capsys.readouterr().err
    assert verb.main([*words.split(), "--stage", "query-cent", "--out", str(tmp_path / "s")]) == 2
    assert "Did you mean 'query-centric'?" in capsys.readouterr().err
    for stage, losses in (
        ("passage-centric", {"contrastive", "passage-centric"}),
        ("query-centric", {"contrastive"}),
    ):
        out = tmp_path / stage
        assert verb.main([*words.split(), "--stage", stage, "--out", str(out)]) == 0
        manifest = Manifest.read(out)
        assert manifest.config["stage"] == stage
        assert set(manifest.details["losses"][0]) == {"step", *losses}
        assert f"| stage | `{stage}` |" in (out / "README.md").read_text()


def test_a_stage_of_no_recipe_is_refused(
    folder: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A --stage without effect: the method's only training, or none at all."""
    words = f"--data beir:{folder} --student {tiny_model} --out {tmp_path / 's'} --stage first"
    assert verb.main(words.split()) == 2
    assert "--stage needs --recipe" in capsys.readouterr().err
    assert verb.main([*words.split(), "--recipe", "simlm-kd"]) == 2
    assert "recipe 'simlm-kd' has no stages: omit --stage first" in capsys.readouterr().err


def test_a_recipe_is_overridden_by_flags(
    folder: Path, scores: Run, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe that wins over the flag beside it."""
    scores.write(tmp_path / "scores")
    words = f"--recipe simlm-kd --data beir:{folder} --scores {tmp_path / 'scores'} "
    words += f"--student {tiny_model} --out {tmp_path / 's'} --max-steps 1 --batch-size 2 "
    words += "--doc-tokens 24"
    assert verb.main(words.split()) == 0
    config = Manifest.read(tmp_path / "s").config
    assert config["candidates_per_query"] == 24
    assert config["doc_tokens"] == 24
    assert config["recipe"] == "simlm-kd"
    assert verb.main([*words.split(), "--recipe", "simlm"]) == 2
    assert "Did you mean 'simlm-kd'" in capsys.readouterr().err


def test_the_recipes_are_listed_with_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    """A list that leaves the user to find out that a method needs another teacher's vectors."""
    assert verb.main(["--list"]) == 0
    text = capsys.readouterr().out
    assert all(name.split("-")[0] in text for name in recipe_names())
    assert "--vectors" in text
    assert "--stage query-centric: from the student of the first stage" in text
    assert "--preferences" in text
    assert "notes: The baseline that every distilled student has to beat." in text
