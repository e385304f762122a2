"""What kind of model a folder or a hub id holds, by what it was saved as."""

from retrodistill.base.errors import ConfigError

USES = {
    "SparseEncoder": "a sparse encoder: mine with --retriever sparse:{model}, score with "
    "--teacher sparse:{model}, train it further with --student-kind sparse",
    "MultiVectorEncoder": "a late-interaction model: score with --teacher "
    "late-interaction:{model}, train it further with --student-kind late-interaction",
    "CrossEncoder": "a cross-encoder: score with --teacher cross-encoder:{model}, train it further "
    "with --student-kind cross-encoder",
}
USES["ColBERT"] = USES["MultiVectorEncoder"]  # as PyLate saves it
RANKING_HEAD = "ForSequenceClassification"


def check_bi_encoder(model: str) -> None:
    """Refuse a model that is made for something else than one vector for a text.

    sentence-transformers converts it: its body with mean pooling, whose vectors nobody trained.

    Raises:
        ConfigError: the model was saved as another kind.

    """
    from retrodistill.models.inference import saved_settings

    kind = saved_settings(model, "config_sentence_transformers.json").get("model_type", "")
    bare = not saved_settings(model, "modules.json")
    heads = saved_settings(model, "config.json").get("architectures") or ()
    if bare and any(name.endswith(RANKING_HEAD) for name in heads):
        kind = "CrossEncoder"
    if kind in USES:
        raise ConfigError(
            f"model {model!r} does not make one vector for a text. It is "
            f"{USES[kind].format(model=model)}."
        )
