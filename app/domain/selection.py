"""Who may come in: best first, within the correlation limit, each refusal with its reason."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from app.domain.configuration import Configuration


class Refusal(StrEnum):
    """Why a candidate does not come in."""

    NOT_TRADABLE = "not_tradable"
    STALE = "stale"
    NO_SCORE = "no_score"
    LOW_SCORE = "low_score"
    CORRELATION_UNKNOWN = "correlation_unknown"
    CORRELATION_LIMIT = "correlation_limit"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One symbol of the board, as it stands now."""

    symbol: str
    is_tradable: bool
    is_fresh: bool
    score: float | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A candidate that was passed over; `against` is the member it is too close to."""

    symbol: str
    score: float | None
    reason: Refusal
    against: str | None
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Symbols in the order in which they come in, and the refusals met on the way."""

    chosen: tuple[str, ...]
    refused: tuple[Refused, ...]


Correlation = Callable[[str, str], float | None]  # None is unknown


def choose(
    candidates: Iterable[Candidate],
    correlation: Correlation,
    size: int,
    configuration: Configuration,
) -> Selection:
    """Up to `size` candidates, which come best first; fewer is right when no more qualify."""
    chosen: list[str] = []
    refused: list[Refused] = []
    for candidate in candidates:
        if len(chosen) >= size:
            break
        refusal = refuse(candidate, chosen, correlation, configuration)
        if refusal is None:
            chosen.append(candidate.symbol)
        else:
            refused.append(refusal)
    return Selection(tuple(chosen), tuple(refused))


def refuse(
    candidate: Candidate,
    members: Iterable[str],
    correlation: Correlation,
    configuration: Configuration,
) -> Refused | None:
    """Why the candidate may not join `members` by itself; None if it may."""
    score = candidate.score
    own = (
        (not candidate.is_tradable, Refusal.NOT_TRADABLE),
        (not candidate.is_fresh, Refusal.STALE),
        (score is None, Refusal.NO_SCORE),
        (score is not None and score < configuration.enter_score, Refusal.LOW_SCORE),
    )
    for applies, reason in own:
        if applies:
            return Refused(candidate.symbol, score, reason, None, None)
    return too_close(candidate.symbol, score, members, correlation, configuration)


def too_close(
    symbol: str,
    score: float | None,
    members: Iterable[str],
    correlation: Correlation,
    configuration: Configuration,
) -> Refused | None:
    """The first member with which the correlation is above the limit or not known."""
    for member in members:
        rho = correlation(symbol, member)
        if rho is None:
            return Refused(symbol, score, Refusal.CORRELATION_UNKNOWN, member, None)
        if rho > configuration.correlation.limit:
            return Refused(symbol, score, Refusal.CORRELATION_LIMIT, member, rho)
    return None
