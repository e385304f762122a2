"""One worker of `score`: fills or verifies the store that the settings name."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from retrodistill.base.config import ScoreConfig, as_dict
from retrodistill.base.errors import ConfigError
from retrodistill.base.manifest import FILE, Manifest
from retrodistill.data.datasets import load_collection
from retrodistill.data.store.scores import ScoreStore
from retrodistill.models.teachers import load_teacher, takes
from retrodistill.stages.scoring.candidates import read_candidates
from retrodistill.stages.scoring.fill_store import compare_candidates, score_candidates
from retrodistill.stages.scoring.verification import Verification, verify_scores

if TYPE_CHECKING:
    from retrodistill.data.datasets import Collection


def fill(config: ScoreConfig) -> None:
    """Fill the store at --out with scores, or preferences, for all --candidates.

    Raises:
        RetrodistillError: an input of the settings is missing or malformed.

    """
    assert config.candidates is not None
    candidates = read_candidates(config.candidates)
    requested, config = config, with_precision(config)
    collection, teacher = _load(config)
    if with_precision(requested) != config:  # another worker has begun the store meanwhile
        config = with_precision(requested)
        collection, teacher = _load(config)
    settings: dict[str, Any] = {"shard_pairs": config.shard_pairs, "config": as_dict(config)}
    if config.preferences:
        settings["opponents"] = config.opponents
        compare_candidates(collection, candidates, teacher, config.out, **settings)
    else:
        score_candidates(collection, candidates, teacher, config.out, **settings)


def verify(config: ScoreConfig) -> Verification:
    """Score --verify pairs of the store again, and return how far they differ.

    Raises:
        RetrodistillError: an input of the settings is missing or malformed.

    """
    ScoreStore.open(config.out)
    config = with_precision(config)
    assert config.verify is not None
    collection, teacher = _load(config)
    return verify_scores(
        collection, teacher, config.out, sample=config.verify, config=as_dict(config)
    )


def with_precision(config: ScoreConfig) -> ScoreConfig:
    """Return the settings with a number type in place of `auto`.

    It is the type that the store was begun with, or else the faster one here. Measured again on
    each machine, `auto` could mean another teacher on each.

    Raises:
        ConfigError: the store was begun in a type that this machine only emulates.

    """
    assert config.teacher is not None
    if config.precision != "auto" or not takes(config.teacher, "precision"):
        return config
    from retrodistill.models.inference.devices import has_bfloat16, pick_device, prefers_bfloat16

    device, stored = pick_device(), None
    if (config.out / FILE).exists():
        stored = Manifest.read(config.out).config.get("precision")
    if stored == "bfloat16" and not has_bfloat16(device):
        raise ConfigError(
            f"{config.out} was begun in bfloat16, which this {device.type} only emulates, hundreds "
            "of times slower. Score on a machine like the first, give another --out, or give "
            "--precision bfloat16 to score here all the same."
        )
    if stored == "float32" or stored == "bfloat16":
        return replace(config, precision=stored)
    return replace(config, precision="bfloat16" if prefers_bfloat16(device) else "float32")


def _load(config: ScoreConfig) -> tuple["Collection", Any]:
    assert config.data is not None
    assert config.teacher is not None
    collection = load_collection(config.data, queries=config.queries)
    teacher = load_teacher(
        config.teacher,
        collection,
        options=config.option,
        max_tokens=config.max_tokens,
        batch_tokens=config.batch_tokens,
        precision=config.precision,
    )
    return collection, teacher
