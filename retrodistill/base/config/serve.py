"""Settings of `serve`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from retrodistill.base.config.base import Precision, at_least
from retrodistill.base.config.search import parse_bytes
from retrodistill.base.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """Settings of `create_app`."""

    GROUPS: ClassVar[Mapping[str, str]] = {
        "what to serve": "index",
        "models": "precision",
        "load": "queue",
    }

    index: tuple[str, ...] = ()
    """Index folder written by `retrodistill.embed`, or NAME=FOLDER; repeatable. The first is the
    default of searches; each one's model serves embeddings too."""

    model: tuple[str, ...] = ()
    """Bi-encoder to serve embeddings of without an index, or NAME=MODEL; repeatable."""

    reranker: str | None = None
    """Teacher that orders documents, as in cross-encoder:MODEL, or NAME=TEACHER."""

    data: str | None = None
    """Collection whose texts the first index shows (default: the one that it was made from)."""

    changes: Path | None = None
    """Folder for documents that are put and deleted while the server runs; without it, none can
    be."""

    precision: Precision = "auto"
    """Number type of the models' bodies."""

    batch_tokens: int = 4096
    """Padded tokens of a forward pass."""

    max_tokens: int | None = None
    """Longest text of --model and --reranker, in tokens (default: the model's own limit, and 512 of
    a reranker)."""

    queue: int = 4096
    """Texts that may wait at a time, of all requests together; more are refused with 429. What a
    second is served times the seconds that a client may wait is a good choice."""

    request_tokens: int = 300_000
    """Most tokens of a request for embeddings."""

    body: str = "16MB"
    """Most bytes of a request's body."""

    timeout: float = 60.0
    """Seconds after which a request is given up."""

    def __post_init__(self) -> None:
        if not self.index and not self.model and self.reranker is None:
            raise ConfigError(
                "there is nothing to serve: give --index FOLDER (made by embed), --model MODEL or "
                "--reranker TEACHER."
            )
        at_least(self, 1, "batch_tokens", "queue", "request_tokens")
        at_least(self, 4, "max_tokens")
        if not self.timeout > 0:
            raise ConfigError(f"--timeout must be above 0 seconds, but it is {self.timeout}.")
        parse_bytes(self.body, "--body")
        models = named(self.model, "--model")
        for name in named(self.index, "--index"):
            if name in models:
                raise ConfigError(
                    f"--index and --model: two are called {name!r}: write NAME={models[name]}."
                )
        if self.changes is not None and not self.index:
            raise ConfigError("--changes is for the documents of an index: give --index FOLDER.")
        if self.data is not None and not self.index:
            raise ConfigError("--data has the texts of an index: give --index FOLDER.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig(ServeSettings):
    """Settings of `python -m retrodistill.serve`."""

    GROUPS: ClassVar[Mapping[str, str]] = {"address and access": "host"}

    host: str = "127.0.0.1"
    """Address to listen at. Beyond this machine a key is needed, or --no-key."""

    port: int = 8080
    """Port to listen at; 0 is any free one."""

    api_key_file: Path | None = None
    """File of keys that clients must send, one a line; the environment variable
    RETRODISTILL_API_KEY may hold one as well."""

    key: bool = True
    """Refuse to listen beyond this machine without a key; with --no-key, whoever reaches the port
    may ask."""

    allow_origin: tuple[str, ...] = ()
    """Origin of web pages that may call the server from a browser, as in https://example.org;
    repeatable."""

    def __post_init__(self) -> None:
        ServeSettings.__post_init__(self)
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be from 0 to 65535, but it is {self.port}.")


def named(specs: Sequence[str], flag: str) -> dict[str, str]:
    """Return what NAME=VALUE and VALUE stand for: VALUE by its NAME, or by its last part.

    Raises:
        ConfigError: two have one name, or a name cannot stand in a URL.

    """
    values: dict[str, str] = {}
    for spec in specs:
        name, equals, value = spec.partition("=")
        if not equals or "/" in name:
            name, value = Path(spec.partition("@")[0]).name.rpartition(":")[2], spec
        if not name or not all(letter.isalnum() or letter in "-_." for letter in name):
            raise ConfigError(
                f"{flag} {spec}: a name has letters, digits, - _ and dots, unlike {name!r}: write "
                "NAME=FOLDER."
            )
        if name in values:
            raise ConfigError(f"{flag}: two are called {name!r}: write NAME=FOLDER.")
        values[name] = value
    return values
