"""The settings of the alerts as they are read and written over HTTP."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from app.alerts.domain.models import Rule
from app.configuration.domain.model import WeightingMethod
from app.configuration.domain.sections import AlertRules, Policy, Severity
from app.foundation.http.request_body import Body, DecimalIn
from app.foundation.http.schemas import Out, Score


class StateRuleOut(Out):
    """A rule about a state: it holds for `duration_s` before it is an alert."""

    enabled: bool
    severity: Severity
    duration_s: int
    cooldown_s: int = Field(description="Seconds after its end in which it does not open again.")


class MarginRuleOut(StateRuleOut):
    """A rule about a number whose limit is a setting of its own."""

    clear_margin: float = Field(description="How far back beyond the limit it ends.")


class LimitRuleOut(MarginRuleOut):
    """A rule about a number."""

    limit: float


RuleOut = Annotated[LimitRuleOut | MarginRuleOut | StateRuleOut, Field(union_mode="left_to_right")]


def _by_name(rules: Any) -> Any:
    if isinstance(rules, AlertRules):
        return {rule: getattr(rules, rule.value) for rule in Rule}
    return rules


class AlertSettingsOut(Out):
    """Limits of the members' rules, and every rule by its name."""

    low_score: float
    poor_performance: float
    score_drop_runs: int = Field(description="Boards back that a score is compared with.")
    rules: Annotated[dict[Rule, RuleOut], BeforeValidator(_by_name)]


class RuleIn(Body):
    enabled: bool | None = None
    severity: str | None = None
    duration_s: int | None = None
    cooldown_s: int | None = None
    clear_margin: float | None = None
    limit: float | None = None


class AlertSettingsIn(Body):
    low_score: float | None = None
    poor_performance: float | None = None
    score_drop_runs: int | None = None
    rules: dict[str, RuleIn] | None = None


class FeedOut(Out):
    """Of the streaming feed; seconds unless said otherwise."""

    tickers: int = Field(description="A quote is told of or confirmed so often.")
    contracts: int = Field(description="In streaming mode, in place of `cadences.market`.")
    books: int = Field(description="In streaming mode, in place of `cadences.books`.")
    fallback_after: int = Field(description="Without a stream for so long it polls instead.")
    candidates: int = Field(description="Of the best, with books and marks besides the members.")
    move_volatilities: float = Field(
        description="A member that has moved by so many of its hourly volatilities since it was "
        "scored is scored again; 0: never."
    )
    move_bp: float = Field(description="The same in basis points; 0: never.")
    rescoring_pause: int = Field(description="Between two scorings that prices bring about.")


class FeedIn(Body):
    tickers: int | None = None
    contracts: int | None = None
    books: int | None = None
    fallback_after: int | None = None
    candidates: int | None = None
    move_volatilities: float | None = None
    move_bp: float | None = None
    rescoring_pause: int | None = None


class LimitOut(Out):
    """Of one kind of notice."""

    per_hour: int = Field(description="Told by themselves in any hour; 0: only in one piece.")
    cooldown_s: int = Field(
        description="Seconds until the same thing is told again, and the rest in one piece."
    )


class NotificationSettingsOut(Out):
    """Limits of channels to people; webhooks get everything."""

    error: LimitOut
    trade: LimitOut
    status: LimitOut
    per_minute: int = Field(
        description="Over one channel, of all kinds; a third is kept free for what is critical."
    )


class LimitIn(Body):
    per_hour: int | None = None
    cooldown_s: int | None = None


class NotificationSettingsIn(Body):
    error: LimitIn | None = None
    trade: LimitIn | None = None
    status: LimitIn | None = None
    per_minute: int | None = None


class PolicyOut(Out):
    """What the schedule may do by itself: observe, propose, or carry out."""

    rebalance: Policy
    replacement: Policy = Field(
        description="Of swaps that `replacement.auto_forced` and `auto_discretionary` hold back."
    )
    expires_after: int = Field(description="Seconds that a proposal is open.")


class PolicyIn(Body):
    rebalance: str | None = None
    replacement: str | None = None
    expires_after: int | None = None


class QualitySettingsOut(Out):
    """Deviations are fractions, times are seconds."""

    last_off_mark: float = Field(description="Last trade against the mark price.")
    mark_off_index: float = Field(description="Mark price against the index.")
    jump: float = Field(description="Between two readings that no index confirms.")
    jump_window: int = Field(description="Readings further apart are not compared.")
    confirmations: int = Field(description="Readings in a row that end a quarantine.")
    confirmation_gap: int = Field(description="They count at least so far apart.")
    max_spread: float = Field(description="Of mid; a wider quote is none.")
    turnover_off_price: float = Field(description="Turnover / volume beyond low and high.")
    volume_jump: float = Field(description="Of an hour over the median of that hour of the day.")
    min_volume: float = Field(description="Turnover of a day, in quote currency.")
    max_gap: int = Field(description="Hourly candles in a row that may be missing.")
    frozen_after: int = Field(description="Without a trade while the index moves.")
    frozen_index_move: float
    lot_change: float = Field(description="Of a lot's value, when its size has changed.")
    divergence: float = Field(description="A quote that is told against one that is answered.")
    divergence_after: int = Field(description="They differ for so long: neither is believed.")
    run_span: int = Field(
        description="Quotes of one scoring may be so far apart, beside the pause between two looks."
    )
    history_days: int = Field(description="Verdicts are kept for so long.")
    history_rows: int = Field(description="And so many of a symbol.")
    revision_days: int = Field(description="Former words on a closed candle are kept for so long.")


class QualitySettingsIn(Body):
    last_off_mark: float | None = None
    mark_off_index: float | None = None
    jump: float | None = None
    jump_window: int | None = None
    confirmations: int | None = None
    confirmation_gap: int | None = None
    max_spread: float | None = None
    turnover_off_price: float | None = None
    volume_jump: float | None = None
    min_volume: float | None = None
    max_gap: int | None = None
    frozen_after: int | None = None
    frozen_index_move: float | None = None
    lot_change: float | None = None
    divergence: float | None = None
    divergence_after: int | None = None
    run_span: int | None = None
    history_days: int | None = None
    history_rows: int | None = None
    revision_days: int | None = None


class RebalancingOut(Out):
    """Weights in per cent, the tolerance in percentage points, volatility as annual fraction."""

    method: WeightingMethod
    fixed_weights: dict[str, float]
    bound_tolerance: float
    volatility_target: float = Field(
        description="Annualised; weights shrink together until the portfolio is that calm. 0: none."
    )
    band_by_cost: bool = Field(
        description="A symbol that is dear to trade may drift further, and drift moves only "
        "the members that have left their band and as few others as add up."
    )
    risk_aversion: float = Field(description="Of that band: (1.5/g w^2 (1-w)^2 cost)^(1/3).")


class RebalancingIn(Body):
    method: str | None = None
    fixed_weights: dict[str, DecimalIn] | None = None
    bound_tolerance: DecimalIn | None = None
    volatility_target: float | None = None
    band_by_cost: bool | None = None
    risk_aversion: float | None = None


class ReplacementSettingsOut(Out):
    """Times in seconds, noise in composite z, the return in basis points a day."""

    noise_multiple: float
    noise_default: float = Field(description="Where noise is not known yet; 0: none.")
    return_per_z: float
    horizon_days: float
    confirmations: int
    confirmation_interval: int = Field(
        description="Evaluations within so many seconds of a counted one are not counted."
    )
    minimum_holding: int
    cooling_off: int
    max_pause: int = Field(
        description="A member whose contract is Paused or CancelOnly for longer is replaced; "
        "until then it keeps its weight."
    )
    vacancy_max_age: int = Field(
        description="Seconds that the seat of a member that was forced out to cash waits for a "
        "newcomer; after that the seat stays empty."
    )
    min_confidence: float
    max_per_cycle: int
    max_per_sector: int
    impact_value: float = Field(
        description="Quote currency that a leg of a swap sweeps the book with, as a part of its "
        "cost; 0: half the spread alone."
    )
    count_funding: bool = Field(
        description="Whether the difference of the funding that longs pay over the horizon is a "
        "part of the cost; where it is not known there is no swap."
    )
    auto_forced: bool
    auto_discretionary: bool


class ReplacementSettingsIn(Body):
    noise_multiple: float | None = None
    noise_default: float | None = None
    return_per_z: float | None = None
    horizon_days: float | None = None
    confirmations: int | None = None
    confirmation_interval: int | None = None
    minimum_holding: int | None = None
    cooling_off: int | None = None
    max_pause: int | None = None
    vacancy_max_age: int | None = None
    min_confidence: float | None = None
    max_per_cycle: int | None = None
    max_per_sector: int | None = None
    impact_value: float | None = None
    count_funding: bool | None = None
    auto_forced: bool | None = None
    auto_discretionary: bool | None = None


class RetentionOut(Out):
    """Days since the end; history and trades are kept for ever."""

    alerts_days: int = Field(description="Alerts that are resolved.")
    jobs_days: int = Field(description="Jobs that have ended.")
    notifications_days: int = Field(description="Notifications that were delivered.")
    rebalance_runs_days: int = Field(description="Runs of rebalances, with their steps.")
    signals_days: int = Field(description="Signals that were rejected, expired or have failed.")


class RetentionIn(Body):
    alerts_days: int | None = None
    jobs_days: int | None = None
    notifications_days: int | None = None
    rebalance_runs_days: int | None = None
    signals_days: int | None = None


class SignalsOut(Out):
    """What is taken, how it is judged, and how long it waits."""

    min_strength: Score = Field(description="Below it a signal is rejected unjudged.")
    min_confidence: Score
    min_consensus: Score = Field(description="Pooled probability that a signal is right.")
    strong_consensus: Score
    quorum: Score = Field(description="Share of the agents' weight that must have voted.")
    horizon_days: float = Field(
        description="Over which a signal is to prove right that names no timeframe."
    )
    min_outcomes: int = Field(description="Outcomes from which on skill is known.")
    veto_volatility: float = Field(description="Annualised; above it risk forbids buying.")
    veto_drawdown: Score = Field(description="A fall within 90 days beyond which as well.")
    expires_after: int = Field(description="Seconds, where the source names no end.")
    policy: Policy = Field(description="How far an approved signal may go by itself.")
    policies: dict[str, Policy] = Field(description="The same by `signal_type`.")
    source_strength: Score = Field(description="Below it our own sources say nothing.")
    source_confidence: Score
    sources: dict[str, bool] = Field(
        description="Our own sources by name, `technical` and `fundamental` among them; false "
        "switches one off."
    )
    agent_timeout: float = Field(description="Seconds for agents from outside; late is no vote.")
    most_pending: int = Field(description="Beyond it intake answers 429.")


class SignalsIn(Body):
    min_strength: float | None = None
    min_confidence: float | None = None
    min_consensus: float | None = None
    strong_consensus: float | None = None
    quorum: float | None = None
    horizon_days: float | None = None
    min_outcomes: int | None = None
    veto_volatility: float | None = None
    veto_drawdown: float | None = None
    expires_after: int | None = None
    policy: str | None = None
    policies: dict[str, str] | None = None
    source_strength: float | None = None
    source_confidence: float | None = None
    sources: dict[str, bool] | None = None
    agent_timeout: float | None = None
    most_pending: int | None = None


class SizingOut(Out):
    """Shares, losses and volatility as fractions."""

    max_gross_leverage: float = Field(description="Value of all members over equity.")
    depth_share: float = Field(description="Of what the book shows within the band.")
    depth_band: float = Field(description="Basis points from mid.")
    liquidation_sigmas: float = Field(
        description="Daily standard deviations of the symbol that liquidation must be away; 0: any."
    )
    var_limit: float = Field(description="One-day value at risk of the portfolio; 0: none.")
    var_level: float
    volatility_target: float = Field(description="Of the portfolio, annualised; 0: none.")
    kelly_fraction: float = Field(description="Of the Kelly stake, where a record is given.")
    kelly_prior: float = Field(description="Wins, and as many losses, seen beforehand.")
    reference_balance: float = Field(
        description="Equity in the quote currency by which a rebalance judges its smallest change "
        "where the request names no `account_balance`; 0: none is known."
    )
    min_notional: float = Field(
        description="Quote currency; a change that is worth less, or less than one lot, is not "
        "traded."
    )


class SizingIn(Body):
    max_gross_leverage: float | None = None
    depth_share: float | None = None
    depth_band: float | None = None
    liquidation_sigmas: float | None = None
    var_limit: float | None = None
    var_level: float | None = None
    volatility_target: float | None = None
    kelly_fraction: float | None = None
    kelly_prior: float | None = None
    reference_balance: DecimalIn | None = None
    min_notional: DecimalIn | None = None
