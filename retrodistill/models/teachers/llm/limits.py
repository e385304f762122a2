"""The limit on what requests may cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from retrodistill.base.errors import ConfigError


class Account:
    """Requests and cost of this teacher, and the limit on the cost.

    Prices are per million tokens; a limit of 0 means no limit.
    """

    def __init__(self, limit: float, price_in: float, price_out: float) -> None:
        self._limit = limit
        self._prices = price_in / 1e6, price_out / 1e6
        self._reserved = 0.0
        self._lock = Lock()
        self.answers = self.tokens_in = self.tokens_out = self.hits = 0
        self.lost = self.skipped = 0
        self.spent = 0.0

    @contextmanager
    def reserved(self, tokens_in: int, tokens_out: int) -> Iterator[Callable[..., None]]:
        """Reserve the price of these tokens; the block gets a function that pays the real ones.

        Its `answered` is off for a request that was sent and never answered: the reserved price
        counts as spent.

        Raises:
            ConfigError: together with what is spent and reserved, this would exceed the limit.

        """
        estimate = self._price(tokens_in, tokens_out)
        with self._lock:
            if self._limit and self.spent + self._reserved + estimate > self._limit:
                raise ConfigError(
                    f"one more request, of about {estimate:.2g}, would exceed max_cost="
                    f"{self._limit:g}: {self.spent:.6g} is spent on {self.answers:,} answers, "
                    f"{self._reserved:.2g} on its way. All answers are kept: run it again with "
                    "a higher max_cost, and only the rest is paid."
                )
            self._reserved += estimate
        try:
            yield self._pay
        finally:
            with self._lock:
                self._reserved -= estimate

    def _pay(self, tokens_in: int, tokens_out: int, *, answered: bool = True) -> None:
        with self._lock:
            self.answers += answered
            self.lost += not answered
            self.tokens_in += tokens_in
            self.tokens_out += tokens_out
            self.spent += self._price(tokens_in, tokens_out)

    def hit(self) -> None:
        """Count a cached answer, which cost nothing."""
        with self._lock:
            self.hits += 1

    def undecided(self) -> None:
        """Count a question without an answer."""
        with self._lock:
            self.skipped += 1

    @property
    def asked(self) -> int:
        """How many requests were sent, and questions given up, by this teacher."""
        return self.answers + self.lost + self.skipped

    @property
    def has_answers(self) -> bool:
        """Whether the endpoint has answered anything, now or before."""
        return self.answers + self.hits > 0

    def summary(self) -> str:
        """Return the account as sentences."""
        cost = f", {self.spent:.6g} spent" if any(self._prices) else ""
        lost = (
            f" {self.lost:,} requests were sent and never answered: they count as paid in full."
            if self.lost
            else ""
        )
        skipped = (
            f" {self.skipped:,} questions have no answer, and count as undecided."
            if self.skipped
            else ""
        )
        return (
            f"{self.answers:,} answers so far, {self.tokens_in:,} tokens read and "
            f"{self.tokens_out:,} written{cost}; {self.hits:,} more were kept from before."
            f"{lost}{skipped}"
        )

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return tokens_in * self._prices[0] + tokens_out * self._prices[1]
