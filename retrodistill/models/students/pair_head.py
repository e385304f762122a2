"""A head that scores a query's and a document's vector together, kept beside its bi-encoder."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from retrodistill.base.errors import ConfigError

FILE = Path("pair_head") / "model.safetensors"
"""Path of the head in its student's folder."""


class PairHead(nn.Module):
    """A hidden layer over (u, v, |u - v|, u * v), and one score.

    Source of the features: Barkan et al. 2019, arXiv:1908.05161; the layer's width is ours.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4 * dimension, dimension)
        self.score = nn.Linear(dimension, 1)

    def forward(self, queries: Tensor, docs: Tensor) -> Tensor:
        """Return scores of vectors (..., D); the shapes before D are broadcast."""
        product = queries * docs
        u, v = queries.expand_as(product), docs.expand_as(product)
        features = torch.cat([u, v, (u - v).abs(), product], dim=-1)
        scores: Tensor = self.score(self.hidden(features).relu())[..., 0]
        return scores

    def save(self, student: Path) -> None:
        """Write the head into its student's folder."""
        path = student / FILE
        path.parent.mkdir(exist_ok=True)
        save_file({name: weight.contiguous() for name, weight in self.state_dict().items()}, path)


def load_pair_head(student: Path) -> PairHead:
    """Return the head of a student's folder.

    Raises:
        ConfigError: the student has none, or it cannot be read.

    """
    path = Path(student) / FILE
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{student} has no head over pairs of vectors ({error}): "
            "train one with the objective dse."
        ) from None
    head = PairHead(weights["hidden.weight"].shape[0])
    head.load_state_dict(weights)
    return head.eval()
