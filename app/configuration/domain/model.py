"""Business settings of one version, with their defaults and bounds; decisions name the version."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.configuration.domain.fields import between, setting
from app.configuration.domain.sections import (
    AlertSettings,
    Family,
    FeedRules,
    NotificationRules,
    Policies,
    QualityRules,
    RetentionRules,
    ScoringRules,
    SignalRules,
    SizingRules,
    Source,
)

FULL_PERCENT: Final = Decimal(100)
_MICRO: Final = 1_000_000  # micro-percent in one per cent
_DAY_S: Final = 86_400


class WeightingMethod(StrEnum):
    """How the members' shares are found before the bounds are applied."""

    SCORE_TILTED = "score_tilted"
    INVERSE_VOLATILITY = "inverse_volatility"
    RISK_PARITY = "risk_parity"
    HRP = "hrp"  # hierarchical risk parity
    EQUAL = "equal"
    FIXED = "fixed"


class CorrelationBasis(StrEnum):
    """What is correlated: returns after removing the market factor, or returns as they are."""

    RESIDUAL = "residual"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class CorrelationRules:
    """Correlation of members, measured on daily returns."""

    limit: float = setting(0.7, 0.0, 1.0)  # above it an addition is refused
    alert: float = setting(0.8, 0.0, 1.0)
    days: int = setting(30, 2, 365)  # window of the alert
    addition_days: int = setting(90, 2, 365)  # window of the limit
    min_common: int = setting(30, 3, 365)  # fewer common returns: unknown
    basis: CorrelationBasis = CorrelationBasis.RESIDUAL


@dataclass(frozen=True, slots=True)
class ReplacementRules:
    """When a weak member gives way: its rival must be better by more than noise and cost."""

    # k, of the noise of both z: on real candles the median threshold is .56
    # (benchmarks.replacement_threshold).
    noise_multiple: float = setting(1.45, 0.0, 10.0)
    noise_default: float = setting(0.0, 0.0, 10.0)  # z, where noise is not known yet; 0: none
    return_per_z: float = setting(4.0, 0.01, 1_000.0)  # b, basis points a day
    horizon_days: float = setting(28.0, 0.1, 365.0)  # H, over which a swap must pay
    confirmations: int = setting(3, 1, 100)  # m, consecutive evaluations on distinct boards
    confirmation_interval: int = setting(28_800, 0, 30 * _DAY_S)  # seconds between two counted ones
    minimum_holding: int = setting(7 * _DAY_S, 0, 365 * _DAY_S)  # seconds
    cooling_off: int = setting(_DAY_S, 0, 365 * _DAY_S)  # seconds after any swap
    max_pause: int = setting(_DAY_S, 0, 365 * _DAY_S)  # seconds that a contract may be paused
    # Seconds that the seat of a member that was forced out to cash waits for a newcomer.
    vacancy_max_age: int = setting(_DAY_S, 0, 365 * _DAY_S)
    min_confidence: float = setting(0.6, 0.0, 1.0)  # of the rival's score
    max_per_cycle: int = setting(2, 0, 100)
    max_per_sector: int = setting(4, 1, 100)  # nobody comes in beyond it
    # What a leg of a swap is worth, in quote currency: so much sweeps the book. The default is the
    # largest position (20 %) of an account of 10 000; 0 leaves the impact out.
    impact_value: float = setting(2_000.0, 0.0, 1_000_000_000.0)
    count_funding: bool = setting(default=True)  # the rival's dearer funding is a cost as well
    auto_forced: bool = setting(default=True)  # members that cannot be traded any more
    auto_discretionary: bool = setting(default=False)  # confirmed improvements


@dataclass(frozen=True, slots=True)
class RebalancingRules:
    """How targets are made and when weights go there, besides drift and interval."""

    method: WeightingMethod = WeightingMethod.SCORE_TILTED
    fixed_weights: Mapping[str, Decimal] = field(default_factory=lambda: MappingProxyType({}))
    # How far prices may carry a weight beyond its bounds before that alone is a reason, in pp:
    # a member whose target is the maximum would else be traded at every tick.
    bound_tolerance: Decimal = field(default=Decimal("0.5"), metadata=between("0", "100"))
    volatility_target: float = setting(0.0, 0.0, 10.0)  # annualised fraction; 0: none
    band_by_cost: bool = setting(default=False)  # a dearer symbol may drift further
    risk_aversion: float = setting(3.0, 0.1, 100.0)  # of the band by cost

    @property
    def bound_tolerance_u(self) -> int:
        return int(self.bound_tolerance * _MICRO)

    @property
    def fixed_weights_u(self) -> Mapping[str, int]:
        return {symbol: int(weight * _MICRO) for symbol, weight in self.fixed_weights.items()}


@dataclass(frozen=True, slots=True)
class EligibilityFloors:
    """What a contract must offer before it is scored."""

    min_turnover: Decimal = field(
        default=Decimal(5000000), metadata=between("0", "1000000000000")
    )  # quote/day
    min_daily_bars: int = setting(90, 2, 1_000)
    quotes: tuple[str, ...] = ("USDT",)


@dataclass(frozen=True, slots=True)
class Cadences:
    """Seconds between two runs of each background activity."""

    market: int = setting(60, 1, _DAY_S)
    books: int = setting(300, 1, _DAY_S)
    funding: int = setting(3_600, 1, _DAY_S)
    hourly_candles: int = setting(3_600, 1, _DAY_S)
    daily_candles: int = setting(_DAY_S, 1, 7 * _DAY_S)
    scoring: int = setting(300, 1, _DAY_S)
    rebalance_check: int = setting(3_600, 1, _DAY_S)
    replacement_check: int = setting(3_600, 1, _DAY_S)
    alerts: int = setting(60, 1, _DAY_S)
    performance_marks: int = setting(3_600, 1, _DAY_S)
    # Candles are asked for so soon after their bar has closed; until then asking costs nothing.
    candles_look: int = setting(30, 1, _DAY_S)
    books_step: int = setting(15, 1, _DAY_S)  # a rotation through all books is cut into these
    retention: int = setting(3_600, 60, 7 * _DAY_S)  # what has outlived its promise is dropped
    signals: int = setting(2, 1, _DAY_S)  # those that could not be judged as they came
    signal_sources: int = setting(15, 1, _DAY_S)  # our own are asked so soon after a new board
    signal_outcomes: int = setting(600, 1, _DAY_S)  # what came of them; prices are hourly

    @property
    def candles_tick(self) -> int:
        return min(self.candles_look, self.hourly_candles)

    @property
    def book_age_limit_s(self) -> float:
        """A book of two rotations ago is too old for scoring."""
        return 2.0 * self.books

    @property
    def books_tick(self) -> int:
        return min(self.books_step, self.books)


def _default_family_weights() -> Mapping[Family, float]:
    return MappingProxyType(
        {
            Family.TECHNICAL: 0.15,
            Family.FUNDAMENTAL: 0.20,
            Family.MARKET_STRUCTURE: 0.25,
            Family.RISK: 0.40,
        }
    )


@dataclass(frozen=True, slots=True)
class Configuration:
    """Every business setting of one version; defaults are version 1."""

    version: int = 1
    max_portfolio_symbols: int = setting(10, 1, 100)
    min_weight_percentage: Decimal = field(default=Decimal(5), metadata=between("0", "100"))
    max_weight_percentage: Decimal = field(default=Decimal(20), metadata=between("0.000001", "100"))
    family_weights: Mapping[Family, float] = field(default_factory=_default_family_weights)
    enter_score: float = setting(0.60, 0.0, 1.0)  # a member is traded from here up ...
    leave_score: float = setting(0.55, 0.0, 1.0)  # ... until it falls below this
    score_tilt: float = setting(0.5, 0.0, 5.0)  # kappa of the weights
    rebalance_threshold: Decimal = field(
        default=Decimal(1), metadata=between("0", "100")
    )  # pp, strict
    rebalance_interval: int = setting(_DAY_S, 60, 365 * _DAY_S)  # seconds
    # The threshold once the interval has passed.
    rebalance_interval_threshold: Decimal = field(
        default=Decimal("0.5"), metadata=between("0", "100")
    )  # pp, strict
    # Seconds from one rebalance to the next one that nothing but drift calls for.
    rebalance_min_spacing: int = setting(3_600, 0, 30 * _DAY_S)
    replacement_candidates: int = setting(2, 0, 100)
    liquidity_share: float = setting(0.01, 0.000001, 1.0)  # of 24 h turnover, per position
    age_limit_cadences: float = setting(3.0, 1.0, 100.0)  # age limit and half-life of a source
    correlation: CorrelationRules = CorrelationRules()
    eligibility: EligibilityFloors = EligibilityFloors()
    cadences: Cadences = Cadences()
    alerts: AlertSettings = field(default=AlertSettings())
    replacement: ReplacementRules = ReplacementRules()
    rebalancing: RebalancingRules = RebalancingRules()
    policy: Policies = field(default_factory=Policies)
    sizing: SizingRules = field(default_factory=SizingRules)
    notifications: NotificationRules = field(default_factory=NotificationRules)
    retention: RetentionRules = field(default_factory=RetentionRules)
    quality: QualityRules = field(default_factory=QualityRules)
    signals: SignalRules = field(default_factory=SignalRules)
    feed: FeedRules = field(default_factory=FeedRules)
    scoring: ScoringRules = field(default_factory=ScoringRules)

    @property
    def min_weight_u(self) -> int:
        return int(self.min_weight_percentage * _MICRO)

    @property
    def max_weight_u(self) -> int:
        return int(self.max_weight_percentage * _MICRO)

    @property
    def rebalance_threshold_u(self) -> int:
        return int(self.rebalance_threshold * _MICRO)

    @property
    def rebalance_interval_threshold_u(self) -> int:
        return int(self.rebalance_interval_threshold * _MICRO)

    def age_limit_s(self, source: Source, *, streaming: bool = False) -> float:
        """How old an input of `source` may be, in seconds; its half-life is the same number."""
        return self.age_limit_cadences * self.cadence_s(source, streaming=streaming)

    def cadence_s(self, source: Source, *, streaming: bool = False) -> int:
        """How often a source is heard of, in seconds; a stream never makes that more seldom."""
        asked_s = _cadence_s(self.cadences, source)
        return min(asked_s, _told_s(self.feed, source) or asked_s) if streaming else asked_s

    def quote_span_s(self, *, streaming: bool = False) -> float:
        """How far the quotes of one scoring may be apart, in seconds.

        Those that are asked for come in one answer. Of a stream the quiet ones are confirmed twice
        in the time in which a quote has to be heard of: they are so much older by design.
        """
        pause_s = self.cadence_s(Source.TICKERS, streaming=True) / 2 if streaming else 0.0
        return self.quality.run_span + pause_s

    def warnings(self) -> tuple[str, ...]:
        """What the settings allow but the operator may not have meant."""
        most = self.max_weight_percentage * self.max_portfolio_symbols
        cash = FULL_PERCENT - most
        capped = (
            symbol
            for symbol, weight in self.rebalancing.fixed_weights.items()
            if weight > self.max_weight_percentage
        )
        return (
            *((f"cash_remainder_at_least: {cash:.6f}",) if cash > 0 else ()),
            *(f"fixed_weight_above_maximum: {symbol}" for symbol in capped),
        )


def _told_s(rules: FeedRules, source: Source) -> int | None:
    """None for what is asked for in either mode."""
    return {
        Source.CONTRACTS: rules.contracts,
        Source.TICKERS: rules.tickers,
        Source.BOOKS: rules.books,
    }.get(source)


def _cadence_s(cadences: Cadences, source: Source) -> int:
    return {
        Source.CONTRACTS: cadences.market,
        Source.TICKERS: cadences.market,
        Source.BOOKS: cadences.books,
        Source.FUNDING: cadences.funding,
        Source.DAILY_CANDLES: cadences.daily_candles,
        Source.HOURLY_CANDLES: cadences.hourly_candles,
    }[source]
