"""The board: all scores of one scoring run, one card per symbol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from app.configuration.domain.sections import Family
from app.foundation.data_status import DataSource
from app.foundation.decimal_math import to_millionths
from app.scoring.domain.historical_moments import DayMoments, HistoricMoments

CLOCK_TOLERANCE: Final = timedelta(seconds=60)  # between the wall clocks of two processes


class CardStatus(StrEnum):
    SCORED = "scored"
    UNAVAILABLE = "unavailable"


class FactorReading(NamedTuple):  # cheaper than a dataclass: 12,000 instances per run
    """One factor of one symbol. `contribution` is its exact share of the composite z."""

    name: str
    family: Family
    raw: float | None
    unit: str
    z: float | None
    weight: float
    contribution: float | None
    reason: str | None  # set where raw is None
    supporting: Mapping[str, Any] | None = None  # supporting data of a plug-in


@dataclass(frozen=True, slots=True)
class Confidence:
    """Four factors in 0..1; `reliability` is None while unknown and is then left out."""

    completeness: float
    freshness: float
    sample: float
    reliability: float | None

    @property
    def level(self) -> float:
        known = self.completeness * self.freshness * self.sample
        return known if self.reliability is None else known * self.reliability


@dataclass(frozen=True, slots=True)
class Card:
    """Scores of one symbol on a board: 0..1; None is unavailable, with `reason`."""

    symbol: str
    status: CardStatus
    reason: str | None
    families: Mapping[Family, float | None]
    composite: float | None
    z: float | None  # composite z after shrinking by confidence; score = Phi(z)
    confidence: Confidence | None
    rank: int | None
    volatility: float | None  # EWMA, annualised fraction: the sigma of the weights
    factors: tuple[FactorReading, ...]
    detail: str | None = None  # the failed rule, or the heaviest reason among the factors
    noise: float | None = None  # of z over a week, before shrinking
    # Parts of z by exposure and `ranking`, beside the contributions; empty without neutralisation.
    neutralisation: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Board:
    """Immutable result of one run: scored cards by rank, then the unavailable ones by symbol."""

    run_id: str
    algorithm: str
    algorithm_version: int
    configuration_version: int
    as_of: datetime  # exchange time up to which live data was known
    calculated_at: datetime
    duration_ms: float
    data_source: DataSource
    input_hash: str
    universe_size: int  # ranked symbols
    coverage: Mapping[str, float]  # factor -> share of eligible symbols with a value
    cards: tuple[Card, ...]
    # Moments of earlier boards used in place of ranks; by factor, family or `composite`.
    moments: Mapping[str, HistoricMoments] = field(default_factory=dict)
    # Exchange source -> covered share of the eligible symbols.
    source_coverage: Mapping[str, float] = field(default_factory=dict)
    is_provisional: bool = False  # a source covered too few symbols: no decision uses the board
    # Order of the stored runs, because timestamps may repeat or go back; 0 if not stored.
    seq: int = field(default=0, compare=False)

    _by_symbol: dict[str, Card] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_symbol.update({card.symbol: card for card in self.cards})

    def card(self, symbol: str) -> Card | None:
        return self._by_symbol.get(symbol)

    def valid_span(self, limit: timedelta) -> tuple[datetime, datetime]:
        """Returns the first and the last time at which the age is known and at most `limit`.

        A wrong clock stamped a board from the future.
        """
        return self.calculated_at - CLOCK_TOLERANCE, self.calculated_at + limit

    def is_within(self, limit: timedelta, at: datetime) -> bool:
        """True if the board is at most `limit` old at `at`; False if its age is unknown."""
        first, last = self.valid_span(limit)
        return first <= at <= last


@dataclass(frozen=True, slots=True)
class BoardDraft:
    """Result of scoring: a board without the metadata of its run."""

    as_of: datetime
    input_hash: str
    universe_size: int
    coverage: Mapping[str, float]
    cards: tuple[Card, ...]
    moments: Mapping[str, HistoricMoments]  # used in place of ranks
    day_moments: Mapping[str, DayMoments]  # of this board, for later ones
    source_coverage: Mapping[str, float]

    def is_provisional(self, min_coverage: float) -> bool:
        """True if an exchange source covers less than `min_coverage` of the eligible symbols."""
        least = to_millionths(min_coverage)
        return any(to_millionths(share) < least for share in self.source_coverage.values())

    def to_board(
        self,
        *,
        run_id: str,
        algorithm: str,
        algorithm_version: int,
        configuration_version: int,
        calculated_at: datetime,
        duration_ms: float,
        data_source: DataSource,
        is_provisional: bool,
    ) -> Board:
        return Board(
            run_id=run_id,
            algorithm=algorithm,
            algorithm_version=algorithm_version,
            configuration_version=configuration_version,
            as_of=self.as_of,
            calculated_at=calculated_at,
            duration_ms=duration_ms,
            data_source=data_source,
            input_hash=self.input_hash,
            universe_size=self.universe_size,
            coverage=self.coverage,
            cards=self.cards,
            source_coverage=self.source_coverage,
            is_provisional=is_provisional,
            moments=self.moments,
        )
