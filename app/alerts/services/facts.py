"""Collects the inputs of the alert rules: portfolio, exchange, market and jobs."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

import numpy as np

from app.alerts.domain.facts import (
    Correlations,
    ExitFacts,
    Facts,
    JobFacts,
    MemberFacts,
    PortfolioFacts,
    RefusedRecords,
    SystemFacts,
)
from app.alerts.domain.lifecycle import ResolvedAlert
from app.alerts.domain.models import AlertRule, Resolution
from app.alerts.domain.portfolio_rules import EXIT_SHOWN
from app.alerts.storage.alerts import AlertRepository
from app.configuration.domain.model import Configuration, CorrelationBasis
from app.foundation.health import TaskFacts
from app.foundation.sql.database import UnitOfWork
from app.market.domain.models import (
    DELISTED,
    Contract,
    ContractKind,
    ContractStatus,
    ExchangeLink,
    Interval,
)
from app.market.domain.segments import contiguous, find_crossed_change, log_returns, newest_close
from app.market.services.exchange_clock import ServerClock
from app.market.services.health_facts import EndpointErrors
from app.market.services.symbol_registry import KnownContracts, Registry
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.domain.models import FULL, Member, Portfolio
from app.portfolio.domain.risk import value_at_risk
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.security.domain.bursts import Burst


@dataclass(frozen=True, slots=True)
class SystemView:
    """Source of facts about the service and its exchange, all in memory."""

    link: Callable[[], ExchangeLink]
    watch: EndpointErrors
    registry: Registry
    clock: ServerClock
    tasks: Callable[[], tuple[TaskFacts, ...]]
    drifted: Callable[[], tuple[str, ...] | None] = lambda: None

    def collect(self, context: DecisionContext) -> SystemFacts:
        synced = self.registry.last_sync
        known = self.registry.known
        settings = context.configuration
        market = context.market
        return SystemFacts(
            link=self.link(),
            redirected=self.watch.redirected(),
            refused=_refused(self.watch, self.registry),
            universe_known=synced is not None,
            anomaly=self.registry.anomaly,
            odd_status=tuple(
                entry.symbol
                for entry in known.index.entries
                if entry.contract.status is ContractStatus.UNKNOWN
            ),
            data_source=market.source,
            data_status=market.status() if market.is_filled() else None,
            clock_offset_s=self.clock.min_offset_s(),
            drifted=self.drifted(),
            jobs=tuple(job_facts(task, settings) for task in self.tasks()),
        )


@dataclass(frozen=True, slots=True)
class UnknownSystem:
    """Source without a service: every fact is unknown."""

    def collect(self, context: DecisionContext) -> SystemFacts:
        return SystemFacts(data_source=context.market.source)


def collect_facts(
    portfolio: PortfolioFacts,
    context: DecisionContext,
    system: SystemFacts,
    ended: Mapping[tuple[AlertRule, str], ResolvedAlert],
    bursts: tuple[Burst, ...],
) -> Facts:
    """Returns all facts at the time of the decision context."""
    as_of = context.market.as_of() or context.at
    with_recoveries = replace(system, recoveries=_recoveries(ended), bursts=bursts)
    return Facts(context.at, as_of, portfolio, with_recoveries)


def _recoveries(
    ended: Mapping[tuple[AlertRule, str], ResolvedAlert],
) -> tuple[tuple[str, str, datetime], ...]:
    """Problems of the service or its exchange that ended by themselves."""
    return tuple(
        (rule.value, subject, end.at)
        for (rule, subject), end in sorted(ended.items())
        if rule in _RECOVERS and end.resolution is Resolution.CLEARED
    )


# Rules whose end is announced as a recovery.
_RECOVERS: Final = frozenset(
    {
        AlertRule.EXCHANGE_BANNED,
        AlertRule.EXCHANGE_DISCONNECTED,
        AlertRule.REDIRECT_REFUSED,
        AlertRule.UNIVERSE_ANOMALY,
        AlertRule.SCHEMA_DRIFT,
        AlertRule.DATA_STALE,
        AlertRule.CLOCK_OFFSET,
        AlertRule.JOB_LATE,
        AlertRule.JOB_FAILING,
    }
)


# Minimum interval: a shortened one takes effect late, and a run takes time.
_MIN_INTERVAL_S: Final = 20.0


def _refused(watch: EndpointErrors, registry: Registry) -> tuple[RefusedRecords, ...]:
    """Refused records grouped by endpoint and field, so that one schema change is one alert."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path, code, record in watch.refused():
        if _is_delisted(code, registry.known):  # never requested again
            continue
        groups.setdefault((path, record.field), []).append((code, record.reason))
    for record in registry.rejected_names:
        groups.setdefault(("contract names", record.field), []).append((record.key, record.reason))
    return tuple(
        RefusedRecords(
            endpoint,
            field,
            records[0][1],
            len(records),
            tuple(sorted({_symbol(code, registry.known) for code, _ in records} - {""})),
        )
        for (endpoint, field), records in sorted(groups.items())
    )


def _symbol(code: str, known: KnownContracts) -> str:
    """Standard symbol of a contract code; empty for an unknown one."""
    record = known.by_code.get(code)
    return "" if record is None else record.symbol


def _is_delisted(code: str, known: KnownContracts) -> bool:
    record = known.by_code.get(code)
    return record is not None and record.vanished_at is not None


def job_facts(task: TaskFacts, settings: Configuration) -> JobFacts:
    """Returns facts of a background task; lateness is monotonic, in units of its interval."""
    interval = _intervals(settings).get(task.name)
    late = None
    if interval is None and task.limit_s is not None:
        beyond_s = max(0.0, task.silent_s - task.rest_s)
        late = round(beyond_s * _BEATS / (task.limit_s - task.rest_s), 1)
    if interval is not None and task.since_success_s is not None:
        late = round(task.since_success_s / max(interval, _MIN_INTERVAL_S), 1)
    return JobFacts(task.name, max(task.failures, task.crashes), task.last_error, late)


# Interval of a task without a schedule, as a part of its allowed silence beyond its rest: with the
# default limit the task is late at half of that, before the supervisor ends it.
_BEATS: Final = 6


def _intervals(settings: Configuration) -> Mapping[str, float]:
    """Expected seconds between two successes, by task."""
    intervals = settings.intervals
    return {
        "market": intervals.market_s,
        "forced_replacement": intervals.market_s,
        "candles": intervals.hourly_candles_s,
        "books": intervals.order_books_s,
        "funding": intervals.funding_s,
        "scoring": intervals.scoring_s,
        "rebalance_check": intervals.rebalance_check_s,
        "replacement_check": intervals.replacement_check_s,
        "alerts": intervals.alerts_s,
        "performance_marks": intervals.valuation_snapshots_s,
    }


_MICRO: Final = 1_000_000  # micro-percent in one percentage point
_FUNDING_HOURS: Final = 8
_DAYS: Final = 30  # returns that estimate the daily volatility
_MIN_DAYS: Final = 20
_LEVEL: Final = 0.95
_MAX_EXITS: Final = 100  # of each kind; a portfolio has at most that many members


@dataclass(frozen=True, slots=True)
class ScoreHistory:
    """Former scores, confirmed replacements, the last rebalance (event and time) and exits."""

    scores: Mapping[str, float]
    candidates: Mapping[str, str]
    rebalanced: tuple[int, datetime] | None
    was_formed: bool
    run_id: str | None  # board of the scores
    exits: tuple[ExitFacts, ...] = ()  # of the last EXIT_SHOWN before the portfolio changed last


async def load_score_history(
    unit: UnitOfWork,
    portfolio: Portfolio,
    configuration: Configuration,
    at: datetime,
    before: ScoreHistory | None = None,
) -> ScoreHistory:
    """Loads the score history of the members, and the exits up to `at`.

    `before` is an earlier result for the same portfolio; only changed parts are read again.
    """
    symbols = [member.symbol for member in portfolio.members]
    run_id = await unit.get(AlertRepository).former_run(configuration.alerts.score_drop_runs)
    counts = await unit.get(ReplacementRepository).confirmation_counts()
    candidates = {count.symbol: count.candidate for count in counts.values() if count.is_confirmed}
    if before is not None and before.run_id == run_id:
        return before if before.candidates == candidates else replace(before, candidates=candidates)
    scores = {} if run_id is None else await unit.get(AlertRepository).load_scores(run_id, symbols)
    if before is not None:
        return replace(before, candidates=candidates, scores=scores, run_id=run_id)
    last = await unit.get(HistoryRepository).page(None, 1, kind=EventType.REBALANCE)
    return ScoreHistory(
        scores,
        candidates,
        (last[0].seq, last[0].occurred_at) if last else None,
        bool(await unit.get(HistoryRepository).page(None, 1, kind=EventType.ADD)),
        run_id,
        await _load_exits(unit, at),
    )


async def _load_exits(unit: UnitOfWork, at: datetime) -> tuple[ExitFacts, ...]:
    """Loads the members that left in the last EXIT_SHOWN, oldest first."""
    events = [
        event
        for kind in (EventType.REMOVE, EventType.REPLACE)
        for event in await unit.get(HistoryRepository).page_by_time(
            None, _MAX_EXITS, kind=kind, since=at - EXIT_SHOWN
        )
    ]
    return tuple(_exit(event) for event in sorted(events, key=lambda event: event.seq))


def _exit(event: PortfolioEvent) -> ExitFacts:
    is_replacement = event.type is EventType.REPLACE
    facts = event.payload.get("old_facts", {}) if is_replacement else event.payload
    performance = facts.get("performance")
    return ExitFacts(
        event.seq,
        str(event.other_symbol if is_replacement else event.symbol),
        None if performance is None else float(performance),
        event.occurred_at,
    )


@dataclass(frozen=True, slots=True)
class PairCorrelations:
    """Correlations of the members on the configured basis (`own`) and raw."""

    own: Correlations
    raw: Correlations


def load_pair_correlations(portfolio: Portfolio, context: DecisionContext) -> PairCorrelations:
    """Computes the correlation of each pair of members, which changes once a day."""
    symbols = tuple(member.symbol for member in portfolio.members)
    days = context.configuration.correlation.days
    return PairCorrelations(
        context.correlations(symbols, days),
        context.correlations(symbols, days, CorrelationBasis.RAW),
    )


def portfolio_facts(
    portfolio: Portfolio,
    context: DecisionContext,
    past: ScoreHistory,
    pairs: PairCorrelations | None = None,
) -> PortfolioFacts:
    """Returns the facts of the portfolio now; `pairs` are cached correlations."""
    known = load_pair_correlations(portfolio, context) if pairs is None else pairs
    marked = context.at_current_prices(portfolio)
    weights = {member.symbol: member.weight_u / FULL for member in marked.members}
    daily = context.market.panel(Interval.DAY)
    return PortfolioFacts(
        members=tuple(_member(member, context, past) for member in marked.members),
        correlations=known.own,
        raw_correlations=known.raw,
        was_formed=past.was_formed,
        sectors=_sectors(marked, context),
        # Without weights there is no risk to report.
        value_at_risk=value_at_risk(daily, weights, _LEVEL) if any(weights.values()) else None,
        rebalanced=past.rebalanced,
        exits=past.exits,
    )


def _member(member: Member, context: DecisionContext, past: ScoreHistory) -> MemberFacts:
    symbol = member.symbol
    quote = context.market.quote(symbol)
    status, figures = context.status_of(symbol), context.since_inclusion(member)
    contract = None if quote is None else quote.contract
    is_open = context.is_open(symbol)
    frozen = "no trades while its index moves" if context.is_frozen(symbol) else None
    doubt = context.doubt(symbol) or frozen
    return MemberFacts(
        symbol=symbol,
        status=status.value,
        is_open=is_open,
        score=context.score(symbol),
        performance=figures.performance,
        # A closed contract has no quotes; it is delisted rather than stale.
        is_fresh=quote.is_fresh if quote is not None and is_open else None,
        is_delisted=None if contract is None else status in DELISTED,
        is_ending=None if contract is None else _is_ending(contract),
        former_score=past.scores.get(symbol),
        drawdown=figures.max_drawdown,
        excess=_excess(member, context.configuration),
        funding=None if quote is None else _funding(quote.funding_rate, quote.contract),
        jump=_jump(symbol, context),
        candidate=past.candidates.get(symbol),
        is_doubted=None if quote is None else doubt is not None,
        doubt=doubt,
    )


def _is_ending(contract: Contract) -> bool:
    """True if a perpetual contract has an expiry or is being settled."""
    ends = contract.kind is ContractKind.PERPETUAL and contract.expires_ms is not None
    return contract.status is ContractStatus.BEING_SETTLED or (
        ends and contract.status not in DELISTED
    )


def _excess(member: Member, settings: Configuration) -> float:
    """Percentage points beyond the bounds; a target of zero has no lower bound."""
    over = member.weight_u - settings.max_weight_u
    under = settings.min_weight_u - member.weight_u if member.target_weight_u > 0 else 0
    return max(0, over, under) / _MICRO


def _funding(rate: Decimal | None, contract: Contract) -> float | None:
    interval = contract.funding_interval_ms
    if rate is None or interval is None or interval <= 0:
        return None
    return float(rate) * _FUNDING_HOURS * Interval.HOUR.ms / interval


def _jump(symbol: str, context: DecisionContext) -> float | None:
    """Move since the last close in deviations; None without a fresh mark or enough closes.

    None also where the unit of the price has changed since that close.
    """
    panel, mark = context.market.panel(Interval.DAY), context.mark(symbol)
    if panel is None or mark is None or mark <= 0 or symbol not in panel.symbols:
        return None
    newest = newest_close(panel, symbol)
    changes = context.redenominations(symbol)
    if newest is None or find_crossed_change(changes, newest, (context.at, mark)) is not None:
        return None
    prices, column = contiguous(panel), panel.symbols.index(symbol)
    returns = log_returns(prices, _DAYS)[:, column]
    returns = returns[np.isfinite(returns)]
    last = float(prices.close[-1, column])
    usual = float(np.std(returns, ddof=1)) if len(returns) >= _MIN_DAYS else 0.0
    if usual <= 0.0 or not math.isfinite(last):
        return None
    return round(abs(math.log(float(mark) / last)) / usual, 2)


def _sectors(portfolio: Portfolio, context: DecisionContext) -> dict[str, float]:
    """Share of each sector in the invested weight; unclassified symbols are one of their own."""
    by_sector: dict[str, int] = {}
    for member in portfolio.members:
        sector = context.sector(member.symbol)
        by_sector[sector] = by_sector.get(sector, 0) + member.weight_u
    invested = sum(by_sector.values())
    return {sector: weight / invested for sector, weight in by_sector.items()} if invested else {}
