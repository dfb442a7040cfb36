"""What captions will cost and how long they take, told before the first is asked for."""

from dataclasses import dataclass

from studio.captions.ledger import Prices
from studio.captions.limits import Limits
from studio.domain.datasets import counted

_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`num_pictures` are to be asked for; the tokens are those of one. `cost` is in dollars, `minutes` by the limits
    alone, None where there are none."""

    num_pictures: int
    tokens: tuple[int, int]
    cost: float
    minutes: float | None

    @property
    def summary(self) -> str:
        """A sentence or two."""
        asked, answered = self.tokens
        told = (
            f"{counted(self.num_pictures, 'picture')} to ask for, about {asked:,} + {answered:,} tokens each: "
            f"about ${self.cost:.2f}"
        )
        return f"{told}." if self.minutes is None else f"{told}, and {_span(self.minutes)} by the limits that are set."


def plan_of(num_pictures: int, tokens: tuple[int, int], prices: Prices, limits: Limits) -> Plan:
    """What so many pictures take, of so many tokens each, asked and answered."""
    each = sum(tokens)
    by_day = [
        limits.requests_per_minute * _DAY_MINUTES,
        limits.requests_per_day,
        limits.tokens_per_minute * _DAY_MINUTES // each,
        limits.tokens_per_day // each,
    ]
    given = (limits.requests_per_minute, limits.requests_per_day, limits.tokens_per_minute, limits.tokens_per_day)
    least = min((count for count, limit in zip(by_day, given, strict=True) if limit), default=None)
    return Plan(
        num_pictures=num_pictures,
        tokens=tokens,
        cost=prices.of(num_pictures * tokens[0], num_pictures * tokens[1]),
        minutes=None if least is None else num_pictures / max(1, least) * _DAY_MINUTES,
    )


def _span(minutes: float) -> str:
    if minutes < 90:
        return f"{max(1, round(minutes))} min"
    hours = minutes / 60
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:,.0f} days"
