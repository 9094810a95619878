"""Gathers what the alert rules look at: the portfolio, the exchange, the market, the jobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from app.domain.alert_facts import (
    Facts,
    JobFacts,
    MemberFacts,
    PortfolioFacts,
    RefusedRecords,
    SystemFacts,
)
from app.domain.configuration import Configuration
from app.domain.market import ContractStatus, ExchangeLink
from app.domain.portfolio import Portfolio
from app.services.exchange_watch import ExchangeWatch
from app.services.grounds import Grounds
from app.services.market_clock import ServerClock
from app.services.registry import Known, Registry
from app.services.status import TaskFacts


@dataclass(frozen=True, slots=True)
class SystemView:
    """Where the facts about the service and its exchange come from; nothing here waits."""

    link: Callable[[], ExchangeLink]
    watch: ExchangeWatch
    registry: Registry
    clock: ServerClock
    tasks: Callable[[], tuple[TaskFacts, ...]]

    def look(self, grounds: Grounds) -> SystemFacts:
        synced = self.registry.last_sync
        known = self.registry.known
        settings = grounds.configuration
        market = grounds.market
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
            clock_offset_s=self.clock.certain_offset_s(),
            jobs=tuple(_job(task, settings, grounds.at) for task in self.tasks()),
        )


@dataclass(frozen=True, slots=True)
class Nothing:
    """No service around the portfolio: every fact about it is unknown."""

    def look(self, grounds: Grounds) -> SystemFacts:
        return SystemFacts(data_source=grounds.market.source)


def portfolio_facts(portfolio: Portfolio, grounds: Grounds) -> PortfolioFacts:
    """What the rules about the members look at."""
    symbols = tuple(member.symbol for member in portfolio.members)
    members = tuple(
        MemberFacts(
            symbol=member.symbol,
            status=grounds.status_of(member.symbol).value,
            is_open=grounds.is_open(member.symbol),
            score=grounds.score(member.symbol),
            performance=grounds.since_inclusion(member).performance,
            is_fresh=_is_fresh(member.symbol, grounds),
        )
        for member in portfolio.members
    )
    days = grounds.configuration.correlation.days
    return PortfolioFacts(members, grounds.correlations(symbols, days))


def facts_at(portfolio: Portfolio, grounds: Grounds, system: SystemFacts) -> Facts:
    """Everything at the moment of `grounds`."""
    as_of = grounds.market.as_of() or grounds.at
    return Facts(grounds.at, as_of, portfolio_facts(portfolio, grounds), system)


def _is_fresh(symbol: str, grounds: Grounds) -> bool | None:
    """A contract that is closed has no quotes any more: it is not stale, it is gone."""
    quote = grounds.market.quote(symbol)
    if quote is None or not grounds.is_open(symbol):
        return None
    return quote.is_fresh


def _refused(watch: ExchangeWatch, registry: Registry) -> tuple[RefusedRecords, ...]:
    """By endpoint and field: one change of the exchange's schema is one thing, not hundreds."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for path, code, record in watch.refused():
        if _is_gone(
            code, registry.known
        ):  # nobody asks for it again: it cannot be answered rightly
            continue
        found.setdefault((path, record.field), []).append((code, record.reason))
    for record in registry.refused_names:
        found.setdefault(("contract names", record.field), []).append((record.key, record.reason))
    return tuple(
        RefusedRecords(
            endpoint,
            field,
            seen[0][1],
            len(seen),
            tuple(sorted({_symbol(code, registry.known) for code, _ in seen} - {""})),
        )
        for (endpoint, field), seen in sorted(found.items())
    )


def _symbol(code: str, known: Known) -> str:
    """The standard symbol of a contract code; "" for what is none that we know."""
    record = known.by_code.get(code)
    return "" if record is None else record.symbol


def _is_gone(code: str, known: Known) -> bool:
    record = known.by_code.get(code)
    return record is not None and record.vanished_at is not None


def _job(task: TaskFacts, settings: Configuration, at: datetime) -> JobFacts:
    interval = _intervals(settings).get(task.name)
    late = None
    if interval is not None and task.last_success is not None:
        late = round((at - task.last_success).total_seconds() / interval, 1)
    return JobFacts(task.name, task.failures, task.last_error, late)


def _intervals(settings: Configuration) -> Mapping[str, float]:
    """Seconds between two successes that each task should have at most."""
    every = settings.cadences
    return {
        "market": every.market,
        "forced_replacement": every.market,
        "candles": every.hourly_candles,
        "books": every.books,
        "funding": every.funding,
        "scoring": every.scoring,
        "rebalance_check": every.rebalance_check,
        "replacement_check": every.replacement_check,
        "alerts": every.alerts,
    }
