"""The operator's watch list: where each symbol stands and what keeps it out, at one moment."""

from dataclasses import dataclass

from app.foundation.decimal_math import to_millionths
from app.portfolio.domain.candidate_selection import Refused, refuse
from app.portfolio.domain.controls import Lock
from app.portfolio.domain.models import Portfolio
from app.portfolio.services.decision_context import Grounds
from app.portfolio.services.replacement_candidates import correlation_of
from app.trading.services.position_sizing import DataFacts, facts_of


@dataclass(frozen=True, slots=True)
class Watched:
    """One symbol; None is not known."""

    lock: Lock
    score: float | None
    confidence: float | None
    rank: int | None  # on the board
    entry_score: (
        float  # needed to come in: the threshold, or the weakest member of a full portfolio
    )
    is_member: bool
    refused: Refused | None  # why it could not come in beside the members; None for a member

    @property
    def distance(self) -> float | None:
        """How much score is missing; 0 or less: none is."""
        return None if self.score is None else self.entry_score - self.score


@dataclass(frozen=True, slots=True)
class WatchList:
    lines: tuple[Watched, ...]  # by symbol
    facts: DataFacts


def watch_list(portfolio: Portfolio, grounds: Grounds) -> WatchList:
    """Every watched symbol against the board and the members of the moment."""
    locks = grounds.controls.watched()
    members = tuple(member.symbol for member in portfolio.members)
    settings = grounds.configuration
    known = correlation_of(
        tuple(dict.fromkeys((*members, *(lock.symbol for lock in locks)))),
        grounds,
        settings.correlation.addition_days,
    )
    entry, sectors = _entry_score(members, grounds), tuple(map(grounds.sector, members))
    lines = []
    for lock in locks:
        card, inside = grounds.card(lock.symbol), lock.symbol in members
        candidate = grounds.candidate(lock.symbol)
        lines.append(
            Watched(
                lock=lock,
                score=grounds.score(lock.symbol),
                confidence=grounds.confidence(lock.symbol),
                rank=None if card is None else card.rank,
                entry_score=entry,
                is_member=inside,
                refused=None if inside else refuse(candidate, members, known, settings, sectors),
            )
        )
    return WatchList(tuple(lines), facts_of(grounds))


def _entry_score(members: tuple[str, ...], grounds: Grounds) -> float:
    settings = grounds.configuration
    if len(members) < settings.max_portfolio_symbols:
        return settings.enter_score
    scores = [score for name in members if (score := grounds.score(name)) is not None]
    weakest = min(scores, default=settings.enter_score, key=to_millionths)
    return max(settings.enter_score, weakest, key=to_millionths)
