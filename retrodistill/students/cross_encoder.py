"""Cross-encoders: models that read a query and a document together."""

from typing import TYPE_CHECKING

from retrodistill.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder


def load_cross_encoder(model: str, device: "torch.device") -> "CrossEncoder":
    """Return a cross-encoder with one score and a float32 head, from a folder or a hub id.

    A folder of a bi-encoder, or of a bare transformer, gives its body and a new head.

    Raises:
        ConfigError: there is no such model, or it gives several numbers for a pair.

    """
    import torch
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity, Linear

    from retrodistill.inference import loading

    with loading(model):
        loaded: CrossEncoder = CrossEncoder(
            model,
            activation_fn=Identity(),
            device=str(device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    if loaded.num_labels != 1:
        raise ConfigError(
            f"cross-encoder {model!r} gives {loaded.num_labels} numbers for a pair, "
            "but a ranker must give one score."
        )
    heads = [name for name, part in loaded.named_modules() if isinstance(part, Linear)]
    heads = [name for name in heads if loaded.get_submodule(name).out_features == 1]
    loaded.set_keep_in_fp32_modules(heads[-1:])
    return loaded
