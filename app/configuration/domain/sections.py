"""Sections of the business settings: alerts, feed, quality, signals, sizing, automation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from app.configuration.domain.fields import between, setting

_DAY_S: Final = 86_400


class Policy(StrEnum):
    OBSERVE = "observe"  # only write down what would be done
    PROPOSE = "propose"  # wait for an approval
    AUTO = "auto"  # do it


@dataclass(frozen=True, slots=True)
class Policies:
    """What the schedule may do; a request of an operator is carried out in any case.

    `replacement` is for the swaps that `replacement.auto_forced` and
    `replacement.auto_discretionary` do not let happen by themselves.
    """

    rebalance: Policy = Policy.AUTO
    replacement: Policy = Policy.PROPOSE
    expires_after: int = setting(_DAY_S, 60, 30 * _DAY_S)  # seconds that a proposal is open


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class StateRule:
    """A rule about a state: it holds or it does not.

    What holds for `duration_s` becomes an alert; what ended less than `cooldown_s` ago waits.
    """

    enabled: bool = setting(default=True)
    severity: Severity = Severity.WARNING
    duration_s: int = setting(0, 0, _DAY_S)
    cooldown_s: int = setting(0, 0, 7 * _DAY_S)


@dataclass(frozen=True, slots=True)
class MarginRule(StateRule):
    """A rule about a number whose limit is another setting.

    An alert ends only where the number is back by `clear_margin` beyond the limit.
    """

    clear_margin: float = setting(0.0, 0.0, 1_000_000.0)


@dataclass(frozen=True, slots=True)
class LimitRule(MarginRule):
    """A rule about a number with a limit of its own."""

    limit: float = setting(0.0, -1_000_000.0, 1_000_000.0)


_CALM_S: Final = 600  # a number that plays around its limit is news once in so long
_CRITICAL: Final = StateRule(severity=Severity.CRITICAL)
_WARNING: Final = StateRule()


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Every rule by its name; the order is that of GET /alerts/rules."""

    # of the portfolio
    not_tradeable: StateRule = _CRITICAL
    low_score: MarginRule = MarginRule(cooldown_s=_CALM_S, clear_margin=0.02)
    high_correlation: MarginRule = MarginRule(cooldown_s=_CALM_S, clear_margin=0.03)
    high_raw_correlation: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.9, clear_margin=0.02)
    poor_performance: MarginRule = MarginRule(cooldown_s=_CALM_S, clear_margin=0.02)
    support_lost: StateRule = _CRITICAL
    quarantined: StateRule = _WARNING
    delisting_announced: StateRule = _CRITICAL
    score_dropped: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.15, clear_margin=0.05)
    drawdown: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.25, clear_margin=0.02)
    weight_out_of_bounds: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.5, clear_margin=0.1)
    portfolio_below_size: LimitRule = LimitRule(severity=Severity.INFO, limit=3.0)
    sector_concentration: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.6, clear_margin=0.05)
    var_above_limit: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.1, clear_margin=0.01)
    funding_extreme: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=0.001, clear_margin=0.0002)
    price_anomaly: LimitRule = LimitRule(cooldown_s=_CALM_S, limit=6.0, clear_margin=1.0)
    replacement_recommended: StateRule = StateRule(severity=Severity.INFO)
    rebalance_done: LimitRule = LimitRule(severity=Severity.INFO, limit=900.0)  # seconds shown
    # of the service and its exchange
    exchange_banned: StateRule = _CRITICAL
    exchange_disconnected: StateRule = _WARNING
    redirect_refused: StateRule = _CRITICAL
    universe_anomaly: StateRule = _WARNING
    schema_drift: StateRule = _WARNING
    unknown_contract_status: StateRule = _WARNING
    data_stale: StateRule = _WARNING
    clock_offset: LimitRule = LimitRule(limit=1.0, clear_margin=0.2)  # seconds
    job_late: LimitRule = LimitRule(limit=3.0)  # intervals
    job_failing: LimitRule = LimitRule(limit=2.0)  # failures in a row
    config_drift: StateRule = StateRule(duration_s=30)  # a rolling restart takes its time
    recovered: LimitRule = LimitRule(severity=Severity.INFO, limit=900.0)  # seconds shown


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Limits that were settings of their own from the start, and the rules."""

    low_score: float = setting(0.5, 0.0, 1.0)  # a member below it is reported
    poor_performance: float = setting(-0.2, -1.0, 0.0)  # fraction since inclusion
    score_drop_runs: int = setting(12, 1, 1_000)  # boards back that a score is compared with
    rules: AlertRules = AlertRules()


_FEED_RULES_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class FeedRules:
    """Seconds, unless said otherwise.

    The first three take the place of the polling cadences, where they are shorter: times
    `age_limit_cadences` they are the age limits of a market that streams.
    """

    tickers: int = setting(10, 1, _FEED_RULES_DAY_S)  # a quote is told of or confirmed so often
    contracts: int = setting(60, 1, _FEED_RULES_DAY_S)
    books: int = setting(300, 1, _FEED_RULES_DAY_S)
    fallback_after: int = setting(30, 1, 3_600)  # so long without a stream: ask instead
    candidates: int = setting(30, 0, 200)  # of the best, with books and marks besides the members
    # A member whose price has moved by so much since it was scored is scored again; 0: never.
    move_volatilities: float = setting(2.0, 0.0, 100.0)  # times that of its hourly returns
    move_bp: float = setting(0.0, 0.0, 100_000.0)  # basis points
    rescoring_pause: int = setting(30, 1, 3_600)  # between two scorings that prices bring about


@dataclass(frozen=True, slots=True)
class Limit:
    """So many of a kind in any hour, and the same thing again only after `cooldown_s`.

    What is held back is told in one piece after `cooldown_s`; with 0 an hour everything is.
    """

    per_hour: int = setting(10, 0, 10_000)
    cooldown_s: int = setting(300, 1, _DAY_S)


@dataclass(frozen=True, slots=True)
class NotificationRules:
    """A limit of each kind by its name; what is critical knows only `per_minute`."""

    error: Limit = Limit(10, 300)
    trade: Limit = Limit(50, 60)
    status: Limit = Limit(5, 600)
    per_minute: int = setting(30, 1, 1_000)  # over one channel, of all kinds, digests too

    @property
    def for_ordinary(self) -> int:
        """The part of `per_minute` that is not kept free for what is critical."""
        return max(1, self.per_minute - self.per_minute // 3)


@dataclass(frozen=True, slots=True)
class QualityRules:
    """Limits of what is believed; deviations are fractions, times are seconds."""

    last_off_mark: float = setting(0.10, 0.001, 10.0)  # last trade against the mark price
    mark_off_index: float = setting(0.05, 0.001, 10.0)  # mark price against the index
    jump: float = setting(0.50, 0.01, 10.0)  # between two readings, where no index confirms it
    jump_window: int = setting(120, 1, 3_600)  # readings further apart are not compared
    confirmations: int = setting(3, 1, 100)  # readings in a row that end a quarantine ...
    confirmation_gap: int = setting(10, 0, 3_600)  # ... at least so far apart
    lot_change: float = setting(0.20, 0.001, 10.0)  # value of a lot, when its size has changed
    max_spread: float = setting(0.05, 0.0001, 1.0)  # of mid; a wider quote is none
    turnover_off_price: float = setting(0.10, 0.001, 10.0)  # turnover / volume beyond low and high
    volume_jump: float = setting(100.0, 2.0, 1e6)  # of an hour over the median of that hour ...
    min_volume: float = setting(1_000.0, 0.0, 1e12)  # turnover of a day in quote currency
    max_gap: int = setting(5, 0, 400)  # hourly candles in a row that may be missing
    frozen_after: int = setting(1_800, 60, 86_400)  # without a trade ...
    frozen_index_move: float = setting(0.02, 0.0001, 1.0)  # ... while the index moved by so much
    divergence: float = setting(0.005, 0.0001, 1.0)  # a told quote against an answered one ...
    divergence_after: int = setting(10, 0, 3_600)  # ... for so long: then neither is believed
    run_span: int = setting(5, 1, 3_600)  # quotes of one scoring may be so far apart
    history_days: int = setting(30, 1, 365)  # verdicts are kept for so long ...
    history_rows: int = setting(200, 1, 10_000)  # ... and so many of a symbol
    # A scoring looks 250 days back: what was said of those bars before stays as long.
    revision_days: int = setting(400, 251, 3_650)


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """Days since the end. History, its proofs and booked trades are kept for ever.

    A rebalance that set weights is an event of the history; its run tells how it came to that.
    """

    # The longest cooldown of a rule is counted from the end of its last alert: a week.
    alerts_days: int = setting(90, 8, 3_650)
    jobs_days: int = setting(14, 1, 365)
    notifications_days: int = setting(30, 1, 365)  # delivered ones; dead ones stay
    rebalance_runs_days: int = setting(365, 8, 3_650)
    signals_days: int = setting(30, 1, 3_650)  # rejected, expired and failed ones


@dataclass(frozen=True, slots=True)
class ScoringRules:
    """`factor_weights` by name are shares of a family; who is not named has that of the table."""

    impact_notional: float = setting(20_000.0, 1.0, 1e9)  # quote currency, swept at once
    # Share of the eligible symbols that each exchange source must cover before a board decides.
    min_coverage: float = setting(0.9, 0.0, 1.0)
    factor_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class SignalRules:
    """Thresholds are 0..1; an age is in seconds."""

    min_strength: float = setting(0.5, 0.0, 1.0)  # below it a signal is rejected unjudged
    min_confidence: float = setting(0.5, 0.0, 1.0)
    min_consensus: float = setting(0.6, 0.5, 1.0)  # pooled probability that it is right
    strong_consensus: float = setting(0.75, 0.5, 1.0)
    quorum: float = setting(0.5, 0.0, 1.0)  # share of the agents' weight that must have voted
    horizon_days: float = setting(1.0, 0.1, 90.0)  # to prove right in; or its own timeframe
    min_outcomes: int = setting(50, 1, 100_000)  # from which on skill is known
    veto_volatility: float = setting(3.0, 0.1, 20.0)  # annualised; above it risk forbids buying
    veto_drawdown: float = setting(0.8, 0.0, 1.0)  # a fall within 90 days beyond which as well
    expires_after: int = setting(_DAY_S, 60, 30 * _DAY_S)  # where the source names no end
    policy: Policy = Policy.PROPOSE  # how far an approved signal may go by itself
    # The same for single types of signals, in the words of their sources.
    policies: Mapping[str, Policy] = field(default_factory=lambda: MappingProxyType({}))
    source_strength: float = setting(0.6, 0.0, 1.0)  # below it our own sources say nothing
    source_confidence: float = setting(0.7, 0.0, 1.0)
    # Our own sources by name; one that is not named is on.
    sources: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    agent_timeout: float = setting(2.0, 0.01, 60.0)  # seconds for agents from outside; then none
    most_pending: int = setting(10_000, 1, 1_000_000)  # beyond it intake answers 429


@dataclass(frozen=True, slots=True)
class SizingRules:
    """Limits of one position and of all of them together; 0 switches one off where 0 is allowed."""

    max_gross_leverage: float = setting(3.0, 0.01, 100.0)  # value of all members over equity
    depth_share: float = setting(0.10, 0.000001, 1.0)  # of what the book shows within the band
    depth_band: float = setting(25.0, 1.0, 1_000.0)  # basis points from mid
    # How far liquidation must be away, in daily standard deviations of the symbol; 0: anywhere.
    liquidation_sigmas: float = setting(3.0, 0.0, 20.0)
    var_limit: float = setting(0.10, 0.0, 1.0)  # one-day loss as fraction of equity; 0: none
    var_level: float = setting(0.95, 0.5, 0.999)  # of that loss
    volatility_target: float = setting(0.0, 0.0, 10.0)  # of the portfolio, annualised; 0: none
    kelly_fraction: float = setting(0.25, 0.0, 1.0)  # of the Kelly stake, where a record is given
    kelly_prior: float = setting(10.0, 1.0, 10_000.0)  # wins, and as many losses, seen beforehand
    # Equity that changes of weights are judged by where a request names none; 0: none is known.
    reference_balance: Decimal = field(
        default=Decimal(0), metadata=between("0", "1000000000000")
    )  # quote currency
    min_notional: Decimal = field(
        default=Decimal(5), metadata=between("0", "1000000")
    )  # quote currency; a smaller change is not traded


class Family(StrEnum):
    TECHNICAL = "technical"
    FUNDAMENTAL = "fundamental"
    MARKET_STRUCTURE = "market_structure"
    RISK = "risk"


class Source(StrEnum):
    """Where an input comes from; each has an age limit and a half-life of its own."""

    CONTRACTS = "contracts"
    TICKERS = "tickers"
    BOOKS = "books"
    FUNDING = "funding"
    DAILY_CANDLES = "daily_candles"
    HOURLY_CANDLES = "hourly_candles"
