"""Gathers what the alert rules look at: the portfolio, the exchange, the market, the jobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from app.alerts.domain.facts import Facts, JobFacts, PortfolioFacts, RefusedRecords, SystemFacts
from app.alerts.domain.lifecycle import Ended
from app.alerts.domain.models import Resolution, Rule
from app.configuration.domain.model import Configuration
from app.market.domain.models import ContractStatus, ExchangeLink
from app.market.services.exchange_clock import ServerClock
from app.market.services.exchange_errors import ExchangeWatch
from app.market.services.symbol_registry import Known, Registry
from app.operations.services.health import TaskFacts
from app.portfolio.services.decision_context import Grounds


@dataclass(frozen=True, slots=True)
class SystemView:
    """Where the facts about the service and its exchange come from; nothing here waits."""

    link: Callable[[], ExchangeLink]
    watch: ExchangeWatch
    registry: Registry
    clock: ServerClock
    tasks: Callable[[], tuple[TaskFacts, ...]]
    drifted: Callable[[], tuple[str, ...] | None] = lambda: None

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
            drifted=self.drifted(),
            jobs=tuple(job_facts(task, settings, grounds.at) for task in self.tasks()),
        )


@dataclass(frozen=True, slots=True)
class Nothing:
    """No service around the portfolio: every fact about it is unknown."""

    def look(self, grounds: Grounds) -> SystemFacts:
        return SystemFacts(data_source=grounds.market.source)


def facts_at(
    portfolio: PortfolioFacts,
    grounds: Grounds,
    system: SystemFacts,
    ended: Mapping[tuple[Rule, str], Ended],
) -> Facts:
    """Everything at the moment of `grounds`."""
    as_of = grounds.market.as_of() or grounds.at
    seen = replace(system, recoveries=_recoveries(ended))
    return Facts(grounds.at, as_of, portfolio, seen)


def _recoveries(
    ended: Mapping[tuple[Rule, str], Ended],
) -> tuple[tuple[str, str, datetime], ...]:
    """What was wrong with the service or its exchange and ended by itself."""
    return tuple(
        (rule.value, subject, end.at)
        for (rule, subject), end in sorted(ended.items())
        if rule in _RECOVERS and end.how is Resolution.CLEARED
    )


# Whose end is news.
_RECOVERS: Final = frozenset(
    {
        Rule.EXCHANGE_BANNED,
        Rule.EXCHANGE_DISCONNECTED,
        Rule.REDIRECT_REFUSED,
        Rule.UNIVERSE_ANOMALY,
        Rule.SCHEMA_DRIFT,
        Rule.DATA_STALE,
        Rule.CLOCK_OFFSET,
        Rule.JOB_LATE,
        Rule.JOB_FAILING,
    }
)


# A shorter interval takes effect after the old one, and work takes its time.
_LEAST_INTERVAL_S: Final = 20.0


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


def job_facts(task: TaskFacts, settings: Configuration, at: datetime) -> JobFacts:
    interval = _intervals(settings).get(task.name)
    late = None
    if interval is None and task.limit_s is not None:
        late = round(task.silent_s * _BEATS / task.limit_s, 1)
    if interval is not None and task.last_success is not None:
        least = max(interval, _LEAST_INTERVAL_S)
        late = round((at - task.last_success).total_seconds() / least, 1)
    return JobFacts(task.name, max(task.failures, task.crashes), task.last_error, late)


# Of a task without a cadence the interval is such a part of the silence that it is allowed: with
# the usual limit of the rule it is late at half of it, and looked at before it is ended.
_BEATS: Final = 6


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
        "performance_marks": every.performance_marks,
    }
