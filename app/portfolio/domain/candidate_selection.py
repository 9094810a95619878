"""Selects new members by score within the correlation and sector limits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from app.configuration.domain.model import Configuration
from app.foundation.decimal_math import is_above
from app.market.domain.return_statistics import NotApplicable
from app.market.domain.sectors import UNCLASSIFIED


class CandidateRefusal(StrEnum):
    """Reason that keeps a candidate out."""

    NOT_TRADEABLE = "not_tradeable"
    STALE = "stale"
    NO_SCORE = "no_score"
    LOW_SCORE = "low_score"
    CORRELATION_UNKNOWN = "correlation_unknown"
    CORRELATION_LIMIT = "correlation_limit"
    SECTOR_LIMIT = "sector_limit"


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """Scored symbol of the board at this moment."""

    symbol: str
    is_tradeable: bool
    is_fresh: bool
    score: float | None
    sector: str = UNCLASSIFIED


@dataclass(frozen=True, slots=True)
class RefusedCandidate:
    """Refused candidate; `conflicting_symbol` is the member that it correlates with."""

    symbol: str
    score: float | None
    reason: CandidateRefusal
    conflicting_symbol: str | None
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Selected symbols in order, and the refused candidates."""

    chosen: tuple[str, ...]
    refused: tuple[RefusedCandidate, ...]


Correlation = Callable[[str, str], float | NotApplicable | None]  # None is unknown


def select_candidates(
    candidates: Iterable[ScoredCandidate],
    correlation: Correlation,
    size: int,
    configuration: Configuration,
) -> Selection:
    """Select up to `size` of the candidates, which are given best first."""
    chosen: list[str] = []
    sectors: list[str] = []
    refused: list[RefusedCandidate] = []
    for candidate in candidates:
        if len(chosen) >= size:
            break
        refusal = find_refusal(candidate, chosen, correlation, configuration, sectors)
        if refusal is None:
            chosen.append(candidate.symbol)
            sectors.append(candidate.sector)
        else:
            refused.append(refusal)
    return Selection(tuple(chosen), tuple(refused))


def find_refusal(
    candidate: ScoredCandidate,
    members: Iterable[str],
    correlation: Correlation,
    configuration: Configuration,
    sectors: Iterable[str] = (),
) -> RefusedCandidate | None:
    """Reason that the candidate may not join `members` of `sectors`; None if it may."""
    score = candidate.score
    own = (
        (not candidate.is_tradeable, CandidateRefusal.NOT_TRADEABLE),
        (not candidate.is_fresh, CandidateRefusal.STALE),
        (score is None, CandidateRefusal.NO_SCORE),
        (
            score is not None and is_above(configuration.entry_score, score),
            CandidateRefusal.LOW_SCORE,
        ),
    )
    for applies, reason in own:
        if applies:
            return RefusedCandidate(candidate.symbol, score, reason, None, None)
    if exceeds_sector_limit(candidate.sector, sectors, configuration):
        return RefusedCandidate(candidate.symbol, score, CandidateRefusal.SECTOR_LIMIT, None, None)
    return find_conflicting_member(candidate.symbol, score, members, correlation, configuration)


def exceeds_sector_limit(sector: str, sectors: Iterable[str], configuration: Configuration) -> bool:
    """True if one more of `sector` beside `sectors` exceeds the sector limit.

    Unclassified symbols are a sector of their own, so that none escapes the limit.
    """
    present = sum(other == sector for other in sectors)
    return present >= configuration.replacement.max_per_sector


def find_conflicting_member(
    symbol: str,
    score: float | None,
    members: Iterable[str],
    correlation: Correlation,
    configuration: Configuration,
) -> RefusedCandidate | None:
    """First member with a correlation above the limit or unknown; None without one.

    A pair of which a correlation cannot be asked for blocks nothing.
    """
    for member in members:
        rho = correlation(symbol, member)
        if isinstance(rho, NotApplicable):
            continue
        if rho is None:
            return RefusedCandidate(
                symbol, score, CandidateRefusal.CORRELATION_UNKNOWN, member, None
            )
        if is_above(rho, configuration.correlation.limit):
            return RefusedCandidate(symbol, score, CandidateRefusal.CORRELATION_LIMIT, member, rho)
    return None
