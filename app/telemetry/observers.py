"""Observers of adapters and storage: count and log their events."""

from collections.abc import Callable
from typing import Protocol

import structlog

from app.foundation.errors import Code
from app.foundation.metrics import Metrics
from app.market.domain.models import Rejection

_log = structlog.get_logger("observers")


class Slow(Protocol):
    """A statement over the limit, without its parameters."""

    @property
    def sql(self) -> str: ...

    @property
    def seconds(self) -> float: ...


def slow_statement(metrics: Metrics) -> Callable[[Slow], None]:
    def observe(slow: Slow) -> None:
        metrics.database_slow_statements.inc()
        _log.warning("slow_statement", sql=slow.sql, seconds=round(slow.seconds, 3))

    return observe


def job_ended(metrics: Metrics) -> Callable[[str, str], None]:
    """Kind, outcome ("done" or an error code)."""

    def observe(kind: str, outcome: str) -> None:
        metrics.jobs_ended.labels(kind, outcome).inc()

    return observe


def exchange_request(metrics: Metrics) -> Callable[[str, str, float], None]:
    """Path template, outcome ("ok" or an error code), seconds."""

    def observe(path: str, outcome: str, seconds: float) -> None:
        metrics.exchange_requests.labels(path, outcome).inc()
        metrics.exchange_request_seconds.labels(path).observe(seconds)

    return observe


def refused_decision(metrics: Metrics) -> Callable[[Code], None]:
    """The code of the problem, or of the reason where the answer was a plain no."""

    def observe(code: Code) -> None:
        metrics.decisions_refused.labels(code.value).inc()

    return observe


def rejected_record(metrics: Metrics) -> Callable[[str, Rejection], None]:
    def observe(path: str, rejection: Rejection) -> None:
        metrics.exchange_rejected_records.labels(path, rejection.field).inc()
        _log.warning("record_rejected", endpoint=path, key=rejection.key, field=rejection.field)

    return observe
