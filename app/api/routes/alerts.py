"""Alerts: what needs attention now."""

from typing import Annotated, Self

from fastapi import Query
from pydantic import Field

from app.api.deps import CursorsDep, ServiceDep
from app.api.errors import problems
from app.api.members import NAMES, freshness
from app.api.paging import after
from app.api.routing import api_router
from app.api.schemas import CursorText, Freshness, Limit, Out, UtcTime, finite
from app.domain.alert_settings import Severity
from app.domain.alerts import Alert, Rule, gravity

router = api_router("alerts", "/alerts")


class AlertOut(Out):
    """A rule that holds for a subject now."""

    id: str = Field(description="Rule and subject.", examples=["low_score:BTCUSDT"])
    rule: Rule
    subject: str = Field(description="A symbol, a pair A-B, an endpoint, a task: what it is about.")
    symbols: list[str]
    severity: Severity
    state: str = Field(examples=["open"])
    value: float | None
    limit: float | None
    message: str
    since: UtcTime = Field(description="Time of the data that it rests on.")

    @classmethod
    def of(cls, alert: Alert) -> Self:
        return cls(
            id=f"{alert.rule.value}:{alert.subject}",
            rule=alert.rule,
            subject=alert.subject,
            symbols=list(alert.symbols),
            severity=alert.severity,
            state="open",
            value=finite(alert.value),
            limit=alert.limit,
            message=alert.message,
            since=alert.since,
        )


class AlertsOut(Freshness):
    items: list[AlertOut]
    next_cursor: str | None


@router.get("", summary="Open alerts", responses=problems(*NAMES))
async def alerts(
    service: ServiceDep,
    cursors: CursorsDep,
    severity: Annotated[Severity | None, Query(description="One severity.")] = None,
    rule: Annotated[Rule | None, Query(description="One rule.")] = None,
    symbol: Annotated[
        str | None, Query(max_length=64, description="In any spelling, or the UUID.")
    ] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> AlertsOut:
    """Computed when asked: of the members, of the exchange and of the service itself."""
    chosen = {
        "severity": None if severity is None else severity.value,
        "rule": None if rule is None else rule.value,
        "symbol": symbol,
    }
    start = cursors.decode("alerts", chosen, cursor)
    found, facts = await service.alerts.current(rule, severity, symbol)
    page, last = after(
        found, limit, lambda one: (gravity(one.severity), one.rule.value, one.subject), start
    )
    return AlertsOut(
        items=[AlertOut.of(alert) for alert in page],
        next_cursor=None if last is None else cursors.encode("alerts", chosen, last),
        **freshness(facts),
    )
