"""Business settings of one version with defaults and bounds; every decision names its version."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.configuration.domain.fields import MONEY, setting
from app.configuration.domain.sections import (
    AlertSettings,
    AutomationSettings,
    Family,
    FeedSettings,
    NotificationCategory,
    NotificationPriority,
    NotificationSettings,
    QualitySettings,
    RetentionSettings,
    ScoringSettings,
    SignalSettings,
    SizingSettings,
    Source,
    default_priorities,
    empty_map,
)

FULL_PERCENT: Final = Decimal(100)
_MICRO: Final = 1_000_000  # micro-percent in one per cent
_DAY_S: Final = 86_400


class WeightingMethod(StrEnum):
    """Method that computes the members' shares before the bounds apply."""

    SCORE_TILTED = "score_tilted"
    INVERSE_VOLATILITY = "inverse_volatility"
    RISK_PARITY = "risk_parity"
    HRP = "hrp"  # hierarchical risk parity
    EQUAL = "equal"
    FIXED = "fixed"


class CorrelationBasis(StrEnum):
    """Returns to correlate: without the market factor, or raw."""

    RESIDUAL = "residual"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class CorrelationSettings:
    """Correlation of members, measured on daily returns."""

    limit: float = setting(0.7, "Correlation above which an addition is refused.", 0.0, 1.0)
    alert: float = setting(0.8, "Correlation of two members above which an alert opens.", 0.0, 1.0)
    days: int = setting(30, "Window of the alert.", 2, 365, unit="days")
    addition_days: int = setting(90, "Window of the limit.", 2, 365, unit="days")
    min_common: int = setting(
        30, "Number of common returns below which a correlation is unknown.", 3, 365
    )
    basis: CorrelationBasis = setting(CorrelationBasis.RESIDUAL, "Returns that are correlated.")


@dataclass(frozen=True, slots=True)
class ReplacementSettings:
    """Replacement of a weak member by a candidate that is better by more than noise and cost."""

    # On real candles the median threshold is .56 with this k (benchmarks.replacement_threshold).
    noise_multiple: float = setting(
        1.45, "Factor k of the noise of both scores in the threshold.", 0.0, 10.0
    )
    noise_default: float = setting(
        0.0, "Noise of a score where it is not known yet; 0: none.", 0.0, 10.0, unit="z"
    )
    return_per_z: float = setting(
        4.0, "Expected daily return per unit of composite z.", 0.01, 1_000.0, unit="bp"
    )
    horizon_days: float = setting(
        28.0, "Time over which a replacement must pay.", 0.1, 365.0, unit="days"
    )
    confirmations: int = setting(
        3, "Number of consecutive evaluations on distinct boards that confirm.", 1, 100
    )
    confirmation_interval_s: int = setting(
        28_800, "Shortest time between two evaluations that count.", 0, 30 * _DAY_S, unit="s"
    )
    min_holding_s: int = setting(
        7 * _DAY_S, "Shortest time that a member is held.", 0, 365 * _DAY_S, unit="s"
    )
    cooldown_s: int = setting(
        _DAY_S, "Time without replacements after one.", 0, 365 * _DAY_S, unit="s"
    )
    max_pause_s: int = setting(
        _DAY_S,
        "Time after which a member whose contract is Paused or CancelOnly is replaced; until then"
        " it keeps its weight.",
        0,
        365 * _DAY_S,
        unit="s",
    )
    vacancy_max_age_s: int = setting(
        _DAY_S,
        "Longest time that the seat of a member forced out to cash waits for a newcomer.",
        0,
        365 * _DAY_S,
        unit="s",
    )
    min_confidence: float = setting(0.6, "Smallest confidence of the candidate's score.", 0.0, 1.0)
    max_per_cycle: int = setting(2, "Largest number of replacements in one evaluation.", 0, 100)
    max_per_sector: int = setting(
        4, "Number of members of a sector beyond which no candidate enters.", 1, 100
    )
    # The default is the largest position (20 %) of an account of 10 000.
    impact_notional: float = setting(
        2_000.0,
        "Value of one leg of a replacement whose price impact is a cost; 0: half the spread alone.",
        0.0,
        1_000_000_000.0,
        unit=MONEY,
    )
    count_funding: bool = setting(
        default=True,
        description="Whether dearer funding over the horizon is a cost; without known funding no"
        " replacement takes place.",
    )
    auto_execute_forced: bool = setting(
        default=True,
        description="Whether members that cannot be traded any more are replaced at once.",
    )
    auto_execute_confirmed: bool = setting(
        default=False, description="Whether confirmed improvements are executed at once."
    )


@dataclass(frozen=True, slots=True)
class RebalancingSettings:
    """Target weights, and reasons to rebalance besides drift and interval."""

    method: WeightingMethod = setting(WeightingMethod.SCORE_TILTED, "Weighting method.")
    fixed_weights: Mapping[str, Decimal] = setting(
        empty_map,
        "Weights of the method `fixed` by symbol; an unnamed symbol has none.",
        0,
        100,
        unit="%",
        keys="symbols",
    )
    # Without it a member whose target is the maximum would be traded at every tick.
    weight_bound_tolerance: Decimal = setting(
        Decimal("0.5"),
        "Distance beyond its bounds at which a weight alone is a reason to rebalance.",
        0,
        100,
        unit="pp",
    )
    volatility_target: float = setting(
        0.0,
        "Largest annualised volatility, reached by lower weights and more cash; 0: none.",
        0.0,
        10.0,
        unit="fraction",
    )
    cost_based_no_trade_band: bool = setting(
        default=False,
        description="Whether the no-trade band widens with trading cost; drift then moves only the"
        " members outside their band and as few others as add up.",
    )
    risk_aversion: float = setting(
        3.0, "Risk aversion g of that band: (1.5/g w^2 (1-w)^2 cost)^(1/3).", 0.1, 100.0
    )

    @property
    def weight_bound_tolerance_u(self) -> int:
        return int(self.weight_bound_tolerance * _MICRO)

    @property
    def fixed_weights_u(self) -> Mapping[str, int]:
        return {symbol: int(weight * _MICRO) for symbol, weight in self.fixed_weights.items()}


@dataclass(frozen=True, slots=True)
class EligibilitySettings:
    """Requirements that a contract must meet before it is scored."""

    min_turnover: Decimal = setting(
        Decimal(5000000),
        "Smallest turnover of a day.",
        0,
        1_000_000_000_000,
        unit=MONEY,
    )
    min_daily_bars: int = setting(90, "Smallest number of daily candles.", 2, 1_000)
    quotes: tuple[str, ...] = setting(("USDT",), "Quote currencies of scored contracts.")


def _interval(default_s: int, description: str, low: int = 1, high: int = _DAY_S) -> int:
    interval: int = setting(default_s, description, low, high, unit="s")
    return interval


@dataclass(frozen=True, slots=True)
class IntervalSettings:
    """Interval between two runs of each background activity."""

    market_s: int = _interval(60, "Poll of contracts and tickers.")
    order_books_s: int = _interval(300, "Poll of all order books.")
    funding_s: int = _interval(3_600, "Poll of funding rates.")
    hourly_candles_s: int = _interval(3_600, "Poll of hourly candles.")
    daily_candles_s: int = _interval(_DAY_S, "Poll of daily candles.", 1, 7 * _DAY_S)
    scoring_s: int = _interval(300, "Scoring of all contracts.")
    rebalance_check_s: int = _interval(3_600, "Evaluation of a rebalance.")
    replacement_check_s: int = _interval(3_600, "Evaluation of replacements.")
    alerts_s: int = _interval(60, "Evaluation of alert rules.")
    valuation_snapshots_s: int = _interval(3_600, "Valuation snapshots of the portfolio.")
    candle_poll_s: int = _interval(30, "Delay after the close of a candle before it is polled.")
    order_book_batch_s: int = _interval(
        15, "Batches into which the poll of all order books is divided."
    )
    retention_s: int = _interval(3_600, "Deletion of expired records.", 60, 7 * _DAY_S)
    signals_s: int = _interval(2, "Evaluation of signals that could not be evaluated on arrival.")
    signal_sources_s: int = _interval(15, "Check of built-in sources for a new board.")
    signal_outcomes_s: int = _interval(600, "Measurement of signal outcomes from hourly prices.")
    daily_digest_s: int = _interval(3_600, "Check whether the daily digest is due.", 60)
    score_validation_s: int = _interval(
        3_600, "Check whether the daily evidence of the live scores is due.", 60
    )

    @property
    def candle_check_s(self) -> int:
        return min(self.candle_poll_s, self.hourly_candles_s)

    @property
    def order_book_max_age_s(self) -> float:
        """Age limit of an order book for scoring: two rotations."""
        return 2.0 * self.order_books_s

    @property
    def order_book_check_s(self) -> int:
        return min(self.order_book_batch_s, self.order_books_s)


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
    """Every business setting of one version; the defaults are version 1."""

    version: int = 1
    max_portfolio_symbols: int = setting(10, "Largest number of members.", 1, 100)
    min_weight_percentage: Decimal = setting(
        Decimal(5), "Smallest weight of a member.", 0, 100, unit="%"
    )
    max_weight_percentage: Decimal = setting(
        Decimal(20), "Largest weight of a member.", Decimal("0.000001"), 100, unit="%"
    )
    family_weights: Mapping[Family, float] = setting(
        _default_family_weights,
        "Share of the composite score by family; together 1.",
        0.0,
        1.0,
        unit="fraction",
    )
    entry_score: float = setting(0.60, "Score from which a symbol starts to be traded.", 0.0, 1.0)
    exit_score: float = setting(
        0.55, "Score below which a traded symbol stops being traded.", 0.0, 1.0
    )
    score_tilt: float = setting(
        0.5, "Strength kappa of the tilt of weights towards higher scores.", 0.0, 5.0
    )
    rebalance_threshold: Decimal = setting(
        Decimal(1),
        "Half-width of the no-trade band: drift of a weight above which the portfolio rebalances.",
        0,
        100,
        unit="pp",
    )
    rebalance_interval_s: int = setting(
        _DAY_S,
        "Time since the last rebalance after which the lower threshold applies.",
        60,
        365 * _DAY_S,
        unit="s",
    )
    rebalance_interval_threshold: Decimal = setting(
        Decimal("0.5"), "Drift threshold once the interval has passed.", 0, 100, unit="pp"
    )
    rebalance_min_spacing_s: int = setting(
        3_600,
        "Shortest time between two rebalances caused by drift alone.",
        0,
        30 * _DAY_S,
        unit="s",
    )
    replacement_candidates: int = setting(
        2, "Number of weakest members that are replacement candidates.", 0, 100
    )
    liquidity_share: float = setting(
        0.01, "Largest position as a share of 24 h turnover.", 0.000001, 1.0, unit="fraction"
    )
    max_age_intervals: float = setting(
        3.0, "Age limit and half-life of each source, in its intervals.", 1.0, 100.0
    )
    correlation: CorrelationSettings = setting(CorrelationSettings(), "Correlation limits.")
    eligibility: EligibilitySettings = setting(EligibilitySettings(), "Eligibility of contracts.")
    intervals: IntervalSettings = setting(IntervalSettings(), "Intervals of background activities.")
    alerts: AlertSettings = setting(AlertSettings(), "Alert thresholds and rules.")
    replacement: ReplacementSettings = setting(ReplacementSettings(), "Replacement of members.")
    rebalancing: RebalancingSettings = setting(
        RebalancingSettings, "Target weights and rebalancing."
    )
    automation: AutomationSettings = setting(
        AutomationSettings(), "Automation of scheduled decisions."
    )
    sizing: SizingSettings = setting(SizingSettings(), "Position sizing.")
    notifications: NotificationSettings = setting(
        NotificationSettings(), "Limits of notifications."
    )
    notification_priorities: Mapping[NotificationCategory, NotificationPriority] = setting(
        default_priorities, "Priority of a notification by its category."
    )
    retention: RetentionSettings = setting(RetentionSettings(), "Retention of records.")
    quality: QualitySettings = setting(QualitySettings(), "Plausibility of market data.")
    signals: SignalSettings = setting(SignalSettings, "Signals.")
    feed: FeedSettings = setting(FeedSettings(), "Streaming feed.")
    scoring: ScoringSettings = setting(ScoringSettings, "Scoring.")

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
        """Returns the maximum age of an input in seconds, which is also its half-life."""
        return self.max_age_intervals * self.update_interval_s(source, streaming=streaming)

    def update_interval_s(self, source: Source, *, streaming: bool = False) -> int:
        """Returns the update interval of a source in seconds; streaming only shortens it."""
        polling_s = _polling_interval_s(self.intervals, source)
        return (
            min(polling_s, _streamed_interval_s(self.feed, source) or polling_s)
            if streaming
            else polling_s
        )

    def quote_span_s(self, *, streaming: bool = False) -> float:
        """Returns the maximum time between the quotes of one scoring, in seconds.

        Polled quotes come in one response. In a stream, quiet quotes are confirmed twice per update
        interval, so they may be older by half of it.
        """
        pause_s = self.update_interval_s(Source.TICKERS, streaming=True) / 2 if streaming else 0.0
        return self.quality.max_quote_time_spread_s + pause_s

    def warnings(self) -> tuple[str, ...]:
        """Returns warnings about valid but unusual combinations."""
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


def _streamed_interval_s(rules: FeedSettings, source: Source) -> int | None:
    """Returns the streamed interval; None for data that is polled in either mode."""
    match source:  # hashing members of an enum takes several times as long
        case Source.CONTRACTS:
            return rules.contracts_s
        case Source.TICKERS:
            return rules.tickers_s
        case Source.BOOKS:
            return rules.order_books_s
        case _:
            return None


def _polling_interval_s(intervals: IntervalSettings, source: Source) -> int:
    match source:
        case Source.CONTRACTS | Source.TICKERS:
            return intervals.market_s
        case Source.BOOKS:
            return intervals.order_books_s
        case Source.FUNDING:
            return intervals.funding_s
        case Source.DAILY_CANDLES:
            return intervals.daily_candles_s
        case Source.HOURLY_CANDLES:
            return intervals.hourly_candles_s
