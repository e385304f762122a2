"""What retrievers with a model share: the model, and documents that are encoded when needed."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from retrodistill.base.errors import ConfigError
from retrodistill.base.types import RetrieverOptions

if TYPE_CHECKING:
    from retrodistill.data.datasets import Texts


class EncodedRetriever(ABC):
    """A model, and the documents that it is to encode; without documents, one that was saved.

    Raises:
        ConfigError: no model is named, or it cannot be used.

    """

    name: ClassVar[str]
    """In RETRIEVERS."""

    fingerprint: str

    def __init__(self, argument: str, docs: "Texts | None", options: RetrieverOptions) -> None:
        if not argument:
            raise ConfigError(
                f"retriever {self.name} needs a model: {self.name}:FOLDER or {self.name}:HUB_ID."
            )
        self.encoder = self._encoder_class()(
            argument,
            max_tokens=options.max_tokens,
            batch_tokens=options.batch_tokens,
            precision=options.precision,
        )
        self.fingerprint = self.encoder.fingerprint
        self._given, self._options = docs, options

    @staticmethod
    @abstractmethod
    def _encoder_class() -> Any:
        """Return the class of the encoder; what it imports is imported then."""

    @property
    def _docs(self) -> "Texts":
        assert self._given is not None, "a saved retriever has its documents in its folder"
        return self._given
