"""Settings of the market feed while it is told of the market instead of asking for it."""

from dataclasses import dataclass

from app.configuration.domain.fields import setting

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class FeedRules:
    """Seconds, unless said otherwise.

    The first three take the place of the polling cadences, where they are shorter: times
    `age_limit_cadences` they are the age limits of a market that streams.
    """

    tickers: int = setting(10, 1, _DAY_S)  # a quote is told of or confirmed so often
    contracts: int = setting(60, 1, _DAY_S)
    books: int = setting(300, 1, _DAY_S)
    fallback_after: int = setting(30, 1, 3_600)  # so long without a stream: ask instead
    candidates: int = setting(30, 0, 200)  # of the best, with books and marks besides the members
    # A member whose price has moved by so much since it was scored is scored again; 0: never.
    move_volatilities: float = setting(2.0, 0.0, 100.0)  # times that of its hourly returns
    move_bp: float = setting(0.0, 0.0, 100_000.0)  # basis points
    rescoring_pause: int = setting(30, 1, 3_600)  # between two scorings that prices bring about
