"""Observers of events, adapters and storage: update metrics and write logs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.foundation.errors import Code
from app.foundation.metrics import Metrics
from app.market.domain.models import Rejection
from app.portfolio.domain.events import PortfolioChanged
from app.scoring.domain.events import ScoresUpdated
from app.signals.domain.events import SignalChanged, SignalOutcomesBooked


@dataclass(frozen=True, slots=True)
class Meter:
    """Counts committed events."""

    metrics: Metrics

    def on_event(self, event: object) -> None:
        """Updates the metrics of an event; ignores events without a metric."""
        match event:
            case ScoresUpdated():
                self.metrics.scoring_runs.inc()
                self.metrics.scoring_scores.inc(event.scored)
                self.metrics.scoring_seconds.observe(event.duration_s)
            case PortfolioChanged():
                for entry in event.history:
                    self.metrics.portfolio_changes.labels(entry.type).inc()
            case SignalChanged():
                self.metrics.signals.labels(event.state).inc()
            case SignalOutcomesBooked():
                for result in ("outperformed", "underperformed", "unknown"):
                    self.metrics.signal_outcomes.labels(result).inc(getattr(event, result))
            case _:
                pass


_log = structlog.get_logger("observers")


class SlowSql(Protocol):
    """Statement slower than the limit, without its parameters."""

    @property
    def sql(self) -> str: ...

    @property
    def seconds(self) -> float: ...


def slow_statement(metrics: Metrics) -> Callable[[SlowSql], None]:
    def observe(slow: SlowSql) -> None:
        metrics.database_slow_statements.inc()
        _log.warning("slow_statement", sql=slow.sql, seconds=round(slow.seconds, 3))

    return observe


def log_statement(sql: str, seconds: float) -> None:
    """Logs one SQL statement, without its parameters."""
    _log.info("statement", sql=sql, seconds=round(seconds, 6))


def job_ended(metrics: Metrics) -> Callable[[str, str], None]:
    """Returns an observer of kind and outcome ("done" or an error code)."""

    def observe(kind: str, outcome: str) -> None:
        metrics.jobs_ended.labels(kind, outcome).inc()

    return observe


def exchange_request(metrics: Metrics) -> Callable[[str, str, float], None]:
    """Returns an observer of path template, outcome ("ok" or an error code) and seconds."""

    def observe(path: str, outcome: str, seconds: float) -> None:
        metrics.exchange_requests.labels(path, outcome).inc()
        metrics.exchange_request_seconds.labels(path).observe(seconds)

    return observe


def decision(metrics: Metrics) -> Callable[[str, str], None]:
    """Returns an observer of the kind of a decision and its outcome, `decided` or an error code."""
    # Looking up a labelled metric takes longer than counting.
    counters: dict[tuple[str, str], Callable[[], None]] = {}

    def observe(kind: str, outcome: str) -> None:
        count = counters.get((kind, outcome))
        if count is None:
            count = counters[kind, outcome] = metrics.decisions.labels(kind, outcome).inc
        count()

    return observe


def refused_decision(metrics: Metrics) -> Callable[[Code], None]:
    """Returns an observer of the problem code, or of the reason for a negative decision."""

    def observe(code: Code) -> None:
        metrics.decisions_refused.labels(code.value).inc()

    return observe


def rejected_record(metrics: Metrics) -> Callable[[str, Rejection], None]:
    def observe(path: str, rejection: Rejection) -> None:
        metrics.exchange_rejected_records.labels(path, rejection.field).inc()
        _log.warning("record_rejected", endpoint=path, key=rejection.key, field=rejection.field)

    return observe
