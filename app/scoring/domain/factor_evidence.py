"""Evidence of factors, families and the composite: their measured relation to later returns.

Evidence informs; it never changes a weight in force. Research measures it, scoring keeps it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final

from app.configuration.domain.sections import Family


class EvidenceSource(StrEnum):
    """Origin of the scores: stored boards of the service, or a backtest over a history."""

    LIVE = "live"
    BACKTEST = "backtest"


class ScoreLevel(StrEnum):
    """Level of a score: the composite, a family or a factor."""

    COMPOSITE = "composite"
    FAMILY = "family"
    FACTOR = "factor"


class EvidenceLabel(StrEnum):
    """Judgement of a factor by its rank correlations with later returns."""

    PROVEN = "proven"  # t of 3 in most periods, and nowhere significantly wrong
    WEAK = "weak"  # t of 2 in most periods
    UNPROVEN = "unproven"
    HARMFUL = "harmful"  # t of -2 or less in most periods


@dataclass(frozen=True, slots=True)
class EvidenceMeasurement:
    """Period, data and algorithm of one measurement of all scores."""

    source: EvidenceSource
    algorithm: str
    algorithm_version: int  # of the newest board; of the settings in a backtest
    horizon: int  # days of a return
    first_day: date  # UTC, of the first board
    last_day: date  # UTC, inclusive
    measured_at: datetime
    as_of: datetime | None  # close of the newest candle in use
    data_source: str  # name of the exchange or of the history
    data_hash: str
    trials: int  # backtests that were run before
    board_days: int
    versions: tuple[int, ...]  # of the algorithm that scored the boards


@dataclass(frozen=True, slots=True)
class FactorEvidence:
    """Evidence of one score over one period; None is unknown, and `reason` says why.

    `spread` is the return a day of the fifth with the highest scores less that of the lowest.
    """

    measurement: EvidenceMeasurement
    level: ScoreLevel
    name: str
    days: int  # with an information coefficient (IC)
    ic: float | None  # mean rank correlation with the returns that followed
    ic_error: float | None  # standard error of `ic` by Newey and West
    ic_t: float | None
    spread: float | None
    spread_t: float | None
    turnover: float | None  # share of the best fifth that leaves, per horizon
    coverage: float | None  # share of the symbols with a return that have this score
    decay: tuple[tuple[int, float], ...]  # delay in days, IC; empty where not measured
    label: EvidenceLabel | None
    reason: str | None


_LEVELS: Final = tuple(ScoreLevel)
_FAMILIES: Final = tuple(Family)


def order_evidence(found: Iterable[FactorEvidence]) -> tuple[FactorEvidence, ...]:
    """Returns evidence in the order composite, families, factors by name."""

    def key(one: FactorEvidence) -> tuple[int, int, str]:
        is_family = one.level is ScoreLevel.FAMILY and one.name in _FAMILIES
        place = _FAMILIES.index(Family(one.name)) if is_family else 0
        return _LEVELS.index(one.level), place, one.name

    return tuple(sorted(found, key=key))
