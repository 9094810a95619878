"""Sections of the business settings: alerts, feed, quality, signals, sizing, automation."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from app.configuration.domain.fields import MONEY, setting

_DAY_S: Final = 86_400
_FRACTION: Final = "fraction"


def empty_map() -> Mapping[str, Any]:
    """Returns the default of a map with free keys."""
    return MappingProxyType({})


class AutomationMode(StrEnum):
    """Degree to which the service acts by itself."""

    OBSERVE = "observe"  # record the decision only
    PROPOSE = "propose"  # wait for an approval
    AUTO = "auto"  # carry the decision out


@dataclass(frozen=True, slots=True)
class AutomationSettings:
    """Automation of scheduled decisions; requests of an operator are always executed."""

    rebalance: AutomationMode = setting(AutomationMode.AUTO, "Automation of scheduled rebalances.")
    replacement: AutomationMode = setting(
        AutomationMode.PROPOSE,
        "Automation of replacements that `replacement.auto_execute_forced` and"
        " `replacement.auto_execute_confirmed` do not execute.",
    )
    proposal_ttl_s: int = setting(
        _DAY_S, "Time that a proposal stays open.", 60, 30 * _DAY_S, unit="s"
    )


class Severity(StrEnum):
    """Urgency of an alert."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class StateRule:
    """Alert rule about a state that holds or does not hold."""

    enabled: bool = setting(default=True, description="Whether the rule is evaluated.")
    severity: Severity = setting(Severity.WARNING, "Severity of its alerts.")
    duration_s: int = setting(
        0, "Time that the condition must hold before an alert opens.", 0, _DAY_S, unit="s"
    )
    cooldown_s: int = setting(
        0, "Time after the end of an alert in which it does not reopen.", 0, 7 * _DAY_S, unit="s"
    )


@dataclass(frozen=True, slots=True)
class MarginRule(StateRule):
    """Alert rule about a number whose limit is another setting."""

    clear_margin: float = setting(
        0.0, "Distance from the limit at which an alert ends.", 0.0, 1_000_000.0
    )


@dataclass(frozen=True, slots=True)
class LimitRule(MarginRule):
    """Alert rule about a number with a limit of its own."""

    limit: float = setting(
        0.0, "Value beyond which the condition holds.", -1_000_000.0, 1_000_000.0
    )


_COOLDOWN_S: Final = 600  # a number that oscillates around its limit alerts once in this time
_CRITICAL: Final = StateRule(severity=Severity.CRITICAL)
_WARNING: Final = StateRule()


@dataclass(frozen=True, slots=True)
class AlertRules:
    """Alert rules by name, in the order of GET /alerts/rules."""

    # portfolio
    not_tradeable: StateRule = setting(_CRITICAL, "A member is not tradeable.")
    low_score: MarginRule = setting(
        MarginRule(cooldown_s=_COOLDOWN_S, clear_margin=0.02),
        "The score of a member is below `alerts.low_score`.",
    )
    high_correlation: MarginRule = setting(
        MarginRule(cooldown_s=_COOLDOWN_S, clear_margin=0.03),
        "The correlation of two members exceeds `correlation.alert`.",
    )
    high_raw_correlation: LimitRule = setting(
        LimitRule(cooldown_s=_COOLDOWN_S, limit=0.9, clear_margin=0.02),
        "The correlation of the raw returns of two members exceeds the limit.",
    )
    poor_performance: MarginRule = setting(
        MarginRule(cooldown_s=_COOLDOWN_S, clear_margin=0.02),
        "The return of a member is below `alerts.poor_performance`.",
    )
    contract_delisted: StateRule = setting(
        _CRITICAL, "KuCoin no longer lists the contract of a member."
    )
    quarantined: StateRule = setting(_WARNING, "The prices of a member are quarantined.")
    delisting_announced: StateRule = setting(
        _CRITICAL, "KuCoin has announced the delisting of a member."
    )
    score_dropped: LimitRule = setting(
        LimitRule(cooldown_s=_COOLDOWN_S, limit=0.15, clear_margin=0.05),
        "The score of a member fell by more than the limit over `alerts.score_drop_runs` boards.",
    )
    drawdown: LimitRule = setting(
        LimitRule(cooldown_s=_COOLDOWN_S, limit=0.25, clear_margin=0.02),
        "The drawdown of a member since inclusion exceeds the limit (a fraction).",
    )
    weight_out_of_bounds: LimitRule = setting(
        LimitRule(cooldown_s=_COOLDOWN_S, limit=0.5, clear_margin=0.1),
        "A weight is outside its bounds by more than the limit (percentage points).",
    )
    portfolio_below_size: LimitRule = setting(
        LimitRule(severity=Severity.INFO, limit=3.0),
        "The portfolio has fewer members than the limit.",
    )
    sector_concentration: LimitRule = setting(
        LimitRule(cooldown_s=_COOLDOWN_S, limit=0.6, clear_margin=0.05),
        "The weight of one sector exceeds the limit (a fraction).",
    )
    var_above_limit: LimitRule = setting(
        LimitRule(cooldown_s=_COOLDOWN_S, limit=0.1, clear_margin=0.01),
        "The value at risk of the portfolio exceeds the limit (a fraction of equity).",
    )
    funding_extreme: LimitRule = setting(
        LimitRule(cooldown_s=_COOLDOWN_S, limit=0.001, clear_margin=0.0002),
        "The funding rate of a member exceeds the limit in either direction.",
    )
    price_anomaly: LimitRule = setting(
        LimitRule(cooldown_s=_COOLDOWN_S, limit=6.0, clear_margin=1.0),
        "The price of a member moved by more standard deviations than the limit.",
    )
    replacement_recommended: StateRule = setting(
        StateRule(severity=Severity.INFO), "A replacement is recommended."
    )
    large_loss: LimitRule = setting(
        LimitRule(limit=0.1),
        "A member left with a loss since its inclusion above the limit (a fraction).",
    )
    profitable_exit: LimitRule = setting(
        LimitRule(severity=Severity.INFO, limit=0.05),
        "A member left with a gain since its inclusion above the limit (a fraction).",
    )
    rebalance_done: LimitRule = setting(
        LimitRule(severity=Severity.INFO, limit=900.0),
        "A rebalance was executed; the alert stays open for the limit (seconds).",
    )
    # service and exchange
    exchange_banned: StateRule = setting(_CRITICAL, "KuCoin has banned the address of the service.")
    exchange_disconnected: StateRule = setting(_WARNING, "KuCoin does not answer.")
    redirect_refused: StateRule = setting(_CRITICAL, "KuCoin redirected a request; it was refused.")
    universe_anomaly: StateRule = setting(
        _WARNING, "The list of contracts changed more than is plausible."
    )
    schema_drift: StateRule = setting(_WARNING, "KuCoin answered in an unknown format.")
    unknown_contract_status: StateRule = setting(_WARNING, "A contract has an unknown status.")
    data_stale: StateRule = setting(_WARNING, "Market data are older than their age limit.")
    clock_offset: LimitRule = setting(
        LimitRule(limit=1.0, clear_margin=0.2),
        "The clocks of service and exchange differ by more than the limit (seconds).",
    )
    job_late: LimitRule = setting(
        LimitRule(limit=3.0), "A scheduled job is late by more intervals than the limit."
    )
    job_failing: LimitRule = setting(
        LimitRule(limit=2.0), "A scheduled job failed more often in a row than the limit."
    )
    config_drift: StateRule = setting(  # a rolling restart takes its time
        StateRule(duration_s=30), "Processes run with different environment settings."
    )
    authentication_burst: LimitRule = setting(
        LimitRule(limit=10.0),
        "More authentications than the limit failed within a minute, from one address or in all.",
    )
    recovered: LimitRule = setting(
        LimitRule(severity=Severity.INFO, limit=900.0),
        "The service recovered from a degraded mode; the alert stays open for the limit (seconds).",
    )


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Alert thresholds of members, and every alert rule by its name."""

    low_score: float = setting(0.5, "Score below which a member is reported.", 0.0, 1.0)
    poor_performance: float = setting(
        -0.2, "Return since inclusion below which a member is reported.", -1.0, 0.0, unit=_FRACTION
    )
    score_drop_runs: int = setting(
        12, "Number of boards over which the fall of a score is measured.", 1, 1_000
    )
    rules: AlertRules = setting(AlertRules(), "Alert rules by name.")


class ExecutionScope(StrEnum):
    """Contracts whose executed trades are streamed."""

    CLOSEST = "closest"  # those of members, watched symbols and best candidates
    ALL = "all"  # every open contract


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """Streaming feed.

    The first three replace the polling intervals while the market streams, where they are shorter:
    times `max_age_intervals` they are the age limits of streamed data.
    """

    tickers_s: int = setting(
        10, "Longest time between two updates or confirmations of a quote.", 1, _DAY_S, unit="s"
    )
    contracts_s: int = setting(
        60, "Interval of contract updates, in place of `intervals.market_s`.", 1, _DAY_S, unit="s"
    )
    order_books_s: int = setting(
        300,
        "Interval of order book updates, in place of `intervals.order_books_s`.",
        1,
        _DAY_S,
        unit="s",
    )
    polling_fallback_after_s: int = setting(
        30, "Time without a stream after which the service polls instead.", 1, 3_600, unit="s"
    )
    candidates: int = setting(
        30, "Number of best candidates whose order books and marks are streamed.", 0, 200
    )
    executions: ExecutionScope = setting(
        ExecutionScope.CLOSEST,
        "Contracts whose executed trades are streamed for the factors of trade flow: `closest`"
        " are members, watched symbols and the candidates above; `all` costs a topic and the"
        " reading of each trade for every contract.",
    )
    rescore_move_volatilities: float = setting(
        2.0,
        "Price move since the last scoring, in hourly volatilities, that scores a member again;"
        " 0: never.",
        0.0,
        100.0,
    )
    rescore_move_bp: float = setting(
        0.0,
        "Price move since the last scoring that scores a member again; 0: never.",
        0.0,
        100_000.0,
        unit="bp",
    )
    rescore_min_interval_s: int = setting(
        30, "Shortest time between two scorings caused by price moves.", 1, 3_600, unit="s"
    )


@dataclass(frozen=True, slots=True)
class NotificationLimit:
    """Rate limit of one kind of notification."""

    per_hour: int = setting(
        10, "Notifications sent one by one in any hour; 0: only as a digest.", 0, 10_000
    )
    cooldown_s: int = setting(
        300,
        "Time before the same notification repeats and suppressed ones are sent as a digest.",
        1,
        _DAY_S,
        unit="s",
    )


class NotificationCategory(StrEnum):
    """Subject of a notification, which decides its kind and its priority."""

    CRITICAL_ERROR = "critical_error"
    ERROR = "error"
    LARGE_LOSS = "large_loss"
    TRADE = "trade"
    PROFITABLE_EXIT = "profitable_exit"
    STATUS_UPDATE = "status_update"


class NotificationPriority(StrEnum):
    """Priority of a notification to people, the first one first."""

    IMMEDIATE = "immediate"  # exempt from the limits per hour and the cooldown
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def default_priorities() -> Mapping[NotificationCategory, NotificationPriority]:
    """Returns the default priority of each category."""
    return MappingProxyType(
        {
            NotificationCategory.CRITICAL_ERROR: NotificationPriority.IMMEDIATE,
            NotificationCategory.ERROR: NotificationPriority.HIGH,
            NotificationCategory.LARGE_LOSS: NotificationPriority.HIGH,
            NotificationCategory.TRADE: NotificationPriority.NORMAL,
            NotificationCategory.PROFITABLE_EXIT: NotificationPriority.NORMAL,
            NotificationCategory.STATUS_UPDATE: NotificationPriority.LOW,
        }
    )


@dataclass(frozen=True, slots=True)
class DailyDigestSettings:
    """Daily digest: portfolio, changes, best and worst member, alerts and data quality."""

    enabled: bool = setting(default=True, description="Send one message a day.")
    hour: int = setting(7, "Hour of the day (UTC) from which it is sent.", 0, 23)


@dataclass(frozen=True, slots=True)
class NotificationSettings:
    """Limits of channels to people, and the daily digest; webhooks receive every event."""

    error: NotificationLimit = setting(NotificationLimit(10, 300), "Limit of errors.")
    trade: NotificationLimit = setting(NotificationLimit(50, 60), "Limit of trades.")
    status: NotificationLimit = setting(NotificationLimit(5, 600), "Limit of status messages.")
    per_minute: int = setting(
        30,
        "Notifications a minute over one channel, digests included; a third is reserved for"
        " immediate ones.",
        1,
        1_000,
    )
    daily_digest: DailyDigestSettings = setting(DailyDigestSettings(), "Daily digest.")

    @property
    def ordinary_per_minute(self) -> int:
        """Part of `per_minute` that is not reserved for immediate notifications."""
        return max(1, self.per_minute - self.per_minute // 3)


@dataclass(frozen=True, slots=True)
class QualitySettings:
    """Plausibility limits of market data."""

    max_last_vs_mark_deviation: float = setting(
        0.10, "Deviation of the last trade from the mark price.", 0.001, 10.0, unit=_FRACTION
    )
    max_mark_vs_index_deviation: float = setting(
        0.05, "Deviation of the mark price from the index.", 0.001, 10.0, unit=_FRACTION
    )
    max_price_jump: float = setting(
        0.50,
        "Price move between two readings that the index does not confirm.",
        0.01,
        10.0,
        unit=_FRACTION,
    )
    price_jump_window_s: int = setting(
        120, "Longest time between two readings that are compared.", 1, 3_600, unit="s"
    )
    confirmations: int = setting(
        3, "Number of plausible readings in a row that end a quarantine.", 1, 100
    )
    confirmation_gap_s: int = setting(
        10, "Shortest time between two readings that count.", 0, 3_600, unit="s"
    )
    max_contract_size_change: float = setting(
        0.20,
        "Change of the value of one lot when the contract size changes.",
        0.001,
        10.0,
        unit=_FRACTION,
    )
    max_spread: float = setting(
        0.05, "Widest spread of a usable quote, relative to mid.", 0.0001, 1.0, unit=_FRACTION
    )
    max_turnover_price_deviation: float = setting(
        0.10,
        "Distance of turnover / volume beyond the low and high of a candle.",
        0.001,
        10.0,
        unit=_FRACTION,
    )
    max_volume_jump: float = setting(
        100.0, "Volume of an hour over the median of that hour of the day.", 2.0, 1e6
    )
    min_volume: float = setting(1_000.0, "Smallest turnover of a day.", 0.0, 1e12, unit=MONEY)
    max_gap: int = setting(5, "Number of hourly candles in a row that may be missing.", 0, 400)
    stale_trade_after_s: int = setting(
        1_800, "Time without a trade, while the index moves.", 60, 86_400, unit="s"
    )
    stale_trade_index_move: float = setting(
        0.02, "Index move in that time that makes the price stale.", 0.0001, 1.0, unit=_FRACTION
    )
    max_quote_divergence: float = setting(
        0.005, "Difference between streamed and polled quote.", 0.0001, 1.0, unit=_FRACTION
    )
    quote_divergence_after_s: int = setting(
        10, "Time of such a difference after which neither quote is used.", 0, 3_600, unit="s"
    )
    max_quote_time_spread_s: int = setting(
        5,
        "Largest time between the quotes of one scoring, beside the pause between two polls.",
        1,
        3_600,
        unit="s",
    )
    history_days: int = setting(30, "Retention of quality verdicts.", 1, 365, unit="days")
    history_rows: int = setting(200, "Number of quality verdicts stored per symbol.", 1, 10_000)
    # A scoring reads 250 days of candles: their revisions are stored as long.
    revision_days: int = setting(
        400, "Retention of earlier versions of closed candles.", 251, 3_650, unit="days"
    )


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """Retention after the end of a record; history, its proofs and trades are stored for ever.

    A rebalance that set weights is an event of the history; its run has the details.
    """

    # The longest cooldown of a rule, a week, counts from the end of its last alert.
    alerts_days: int = setting(90, "Retention of resolved alerts.", 8, 3_650, unit="days")
    # A board that a decision used is stored with its inputs as long as the decision.
    boards_days: int = setting(
        7, "Retention of all boards; after that one an hour stays.", 1, 90, unit="days"
    )
    hourly_boards_days: int = setting(
        90, "Retention of hourly boards; after that one a day stays.", 1, 3_650, unit="days"
    )
    board_inputs_days: int = setting(
        1, "Retention of the inputs of boards that no decision used.", 1, 90, unit="days"
    )
    decision_inputs_days: int = setting(
        365,
        "Retention of the inputs of rebalances, replacements, verdicts and alerts for replays.",
        1,
        3_650,
        unit="days",
    )
    jobs_days: int = setting(14, "Retention of ended jobs.", 1, 365, unit="days")
    notifications_days: int = setting(
        30, "Retention of delivered notifications; dead ones stay.", 1, 365, unit="days"
    )
    rebalance_runs_days: int = setting(
        365, "Retention of rebalance runs with their steps.", 8, 3_650, unit="days"
    )
    security_events_days: int = setting(
        400, "Retention of security events; at most a million are stored.", 30, 3_650, unit="days"
    )
    signals_days: int = setting(
        30,
        "Retention of rejected, expired and failed signals; at most 100,000 of them are stored.",
        1,
        3_650,
        unit="days",
    )


class Neutralisation(StrEnum):
    """Exposures that the composite is made independent of."""

    NONE = "none"
    VOLATILITY = "volatility"
    VOLATILITY_AND_BTC_BETA = "volatility_and_btc_beta"


@dataclass(frozen=True, slots=True)
class ScoringSettings:
    """Scoring, beside the weights of the families."""

    impact_notional: float = setting(
        20_000.0, "Order value whose price impact is measured.", 1.0, 1e9, unit=MONEY
    )
    min_coverage: float = setting(
        0.9,
        "Share of the eligible symbols that each exchange source must cover before decisions use a"
        " board.",
        0.0,
        1.0,
        unit=_FRACTION,
    )
    factor_weights: Mapping[str, float] = setting(
        empty_map,
        "Share of its family by factor; an unnamed factor has its built-in share.",
        0.0,
        1.0,
        unit=_FRACTION,
        keys="factors",
    )
    neutralise: Neutralisation = setting(
        Neutralisation.NONE,
        "Exposures whose linear part is taken out of the composite before it is ranked; a symbol"
        " that lacks one of them has no score.",
    )


@dataclass(frozen=True, slots=True)
class SignalSettings:
    """Intake, evaluation and expiry of signals."""

    min_strength: float = setting(
        0.5, "Strength below which a signal is rejected without evaluation.", 0.0, 1.0
    )
    min_confidence: float = setting(
        0.5, "Confidence below which a signal is rejected without evaluation.", 0.0, 1.0
    )
    min_consensus: float = setting(
        0.6, "Pooled probability of success that approves a signal.", 0.5, 1.0
    )
    strong_consensus: float = setting(
        0.75, "Pooled probability of success that is a strong consensus.", 0.5, 1.0
    )
    quorum: float = setting(
        0.5, "Share of the weight of all agents that must have voted.", 0.0, 1.0
    )
    horizon_days: float = setting(
        1.0, "Time to the outcome of a signal without a timeframe.", 0.1, 90.0, unit="days"
    )
    min_outcomes: int = setting(
        50, "Number of outcomes from which the skill of an agent is measured.", 1, 100_000
    )
    veto_volatility: float = setting(
        3.0,
        "Annualised volatility above which the risk agent forbids buying.",
        0.1,
        20.0,
        unit=_FRACTION,
    )
    veto_drawdown: float = setting(
        0.8,
        "Drawdown within 90 days above which the risk agent forbids buying.",
        0.0,
        1.0,
        unit=_FRACTION,
    )
    ttl_s: int = setting(
        _DAY_S, "Lifetime of a signal whose source names no expiry.", 60, 30 * _DAY_S, unit="s"
    )
    automation: AutomationMode = setting(AutomationMode.PROPOSE, "Automation of approved signals.")
    automation_by_type: Mapping[str, AutomationMode] = setting(
        empty_map, "Automation by `signal_type`.", keys="types of signals"
    )
    source_strength: float = setting(
        0.6, "Strength below which a built-in source sends no signal.", 0.0, 1.0
    )
    source_confidence: float = setting(
        0.7, "Confidence below which a built-in source sends no signal.", 0.0, 1.0
    )
    sources: Mapping[str, bool] = setting(
        empty_map,
        "Built-in sources by name, `technical` and `fundamental` among them; an unnamed one is on.",
        keys="sources of signals",
    )
    agent_timeout_s: float = setting(
        2.0, "Time limit of an external agent; a later vote does not count.", 0.01, 60.0, unit="s"
    )
    max_pending: int = setting(
        10_000, "Number of pending signals beyond which the intake answers 429.", 1, 1_000_000
    )


@dataclass(frozen=True, slots=True)
class SizingSettings:
    """Limits of one position and of all positions together."""

    max_gross_leverage: float = setting(
        3.0, "Largest value of all positions over equity.", 0.01, 100.0
    )
    max_depth_share: float = setting(
        0.10,
        "Largest share of the order book depth within the band.",
        0.000001,
        1.0,
        unit=_FRACTION,
    )
    depth_band_bp: float = setting(
        25.0, "Width of that band on either side of mid.", 1.0, 1_000.0, unit="bp"
    )
    liquidation_sigmas: float = setting(
        3.0,
        "Smallest distance to liquidation in daily standard deviations of the symbol; 0: any.",
        0.0,
        20.0,
    )
    var_limit: float = setting(
        0.10,
        "Largest one-day value at risk of the portfolio; 0: none.",
        0.0,
        1.0,
        unit=_FRACTION,
    )
    var_level: float = setting(
        0.95, "Confidence level of that value at risk.", 0.5, 0.999, unit=_FRACTION
    )
    volatility_target: float = setting(
        0.0,
        "Largest annualised volatility of the portfolio; 0: none.",
        0.0,
        10.0,
        unit=_FRACTION,
    )
    kelly_fraction: float = setting(
        0.25, "Share of the Kelly stake, where a track record is given.", 0.0, 1.0, unit=_FRACTION
    )
    kelly_prior: float = setting(
        10.0, "Number of wins, and of losses, assumed before the track record.", 1.0, 10_000.0
    )
    confidence_exponent: float = setting(
        1.0,
        "Exponent of the confidence that scales a position or its Kelly stake; 2 squares it.",
        0.1,
        10.0,
    )
    reference_balance: Decimal = setting(
        Decimal(0),
        "Equity by which a rebalance judges its smallest change where the request names no"
        " `account_balance`; 0: unknown.",
        0,
        1_000_000_000_000,
        unit=MONEY,
    )
    min_notional: Decimal = setting(
        Decimal(5),
        "Smallest value of a change that is traded; less than one lot is never traded.",
        0,
        1_000_000,
        unit=MONEY,
    )


class Family(StrEnum):
    """Family of factors."""

    TECHNICAL = "technical"
    FUNDAMENTAL = "fundamental"
    MARKET_STRUCTURE = "market_structure"
    RISK = "risk"


class Source(StrEnum):
    """Source of market data; each has an age limit and a half-life of its own."""

    CONTRACTS = "contracts"
    TICKERS = "tickers"
    BOOKS = "books"
    FUNDING = "funding"
    DAILY_CANDLES = "daily_candles"
    HOURLY_CANDLES = "hourly_candles"
