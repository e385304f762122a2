"""The settings of an endpoint and of the questions to it."""

from dataclasses import dataclass

from retrodistill.base.errors import ConfigError


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """What every teacher of this kind can be set to."""

    url: str = ""
    """Base address of the endpoint, as `http://localhost:8000/v1` (default: $OPENAI_BASE_URL,
    else OpenAI's own). The key is read from $OPENAI_API_KEY alone."""

    temperature: float = 0.0
    """Sampling temperature; answers are cached, so that a question keeps its answer."""

    answer_tokens: int = 16
    """Longest answer, in tokens; a model that reasons first needs thousands."""

    words: int = 300
    """Words of a text to read; the rest is cut."""

    instruction: str = ""
    """Sentence that defines relevance, instead of the template's own."""

    concurrency: int = 8
    """Requests at the same time."""

    requests_per_minute: int = 0
    """Requests that may start in a minute, evenly spaced (0: no limit)."""

    retries: int = 5
    """How often a question is asked again after an error or an unusable answer."""

    undecided: bool = False
    """Take a question that the endpoint refuses (a content filter, say), or never answers usably,
    as undecided instead of stopping: log-odds 0, the middle grade 5, or the present order."""

    timeout: float = 60.0
    """Longest silence of the endpoint, in seconds."""

    max_cost: float = 0.0
    """Most that one run of one process may spend, in the currency of the prices (0: no limit)."""

    price_in: float = 0.0
    """Price of a million tokens in questions."""

    price_out: float = 0.0
    """Price of a million tokens in answers."""

    def __post_init__(self) -> None:
        self.temperature = float(self.temperature)  # 0 and 0.0 are one question
        self.check_least(1, "answer_tokens", "words", "concurrency")
        self.check_least(0.001, "timeout")
        self.check_least(0, "temperature", "requests_per_minute", "retries")
        self.check_least(0, "max_cost", "price_in", "price_out")
        if self.max_cost and not (self.price_in or self.price_out):
            raise ConfigError("max_cost needs price_in and price_out, per million tokens.")

    def check_least(self, low: float, *names: str) -> None:
        """Raise ConfigError unless each of these settings is at least `low`."""
        for name in names:
            value = getattr(self, name)
            if not value >= low:  # NaN too
                raise ConfigError(f"option {name} must be at least {low:g}, but it is {value}.")
