"""Search an index with another model's queries: a student that shares the document tower."""

from pathlib import Path
from typing import TYPE_CHECKING

from retrodistill.base.config import Precision
from retrodistill.base.errors import ConfigError
from retrodistill.models.indexes.folder import MODEL

if TYPE_CHECKING:
    from retrodistill.base.manifest import Manifest
    from retrodistill.models.students.dense import DenseEncoder


def query_encoder(
    model: str | Path, folder: Path, manifest: "Manifest", precision: Precision
) -> "DenseEncoder":
    """Return the encoder of a model whose document side made the vectors of an index folder.

    It has the token limit that the documents were embedded with. Its queries run in `precision`,
    whatever number type the documents have, as those of the index's own model do. An older index
    does not record its document side, so that its own model is loaded for the comparison.

    Raises:
        ConfigError: the model cannot be loaded, or its document side is another one.

    """
    from retrodistill.models.students.dense import DenseEncoder

    max_tokens = manifest.details["max_tokens"]
    encoder = DenseEncoder(model, max_tokens=max_tokens, precision=precision)
    dtype = manifest.details.get("dtype", str(encoder.dtype))
    expected = manifest.inputs.get("doc_encoder")
    if expected is None:
        own = DenseEncoder(folder / MODEL, max_tokens=max_tokens, precision=precision)
        expected = own.doc_fingerprint_in(dtype)
    if encoder.doc_fingerprint_in(dtype) != expected:
        own_name = manifest.details.get("model", f"{folder / MODEL}")
        raise ConfigError(
            f"--query-model {model} does not read documents as {own_name} does, whose vectors "
            f"{folder} holds: their document weights, tokenizers, prompts, token limits or "
            "dimensions differ. Give a student whose document tower is that model, or embed the "
            f"collection again with --model {model}."
        )
    return encoder
