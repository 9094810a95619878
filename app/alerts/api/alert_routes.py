"""Routes of alerts and of the alert rules."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from fastapi import Depends, Path, Query, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from app.alerts.domain.models import Alert, AlertRule, AlertState, Resolution, ThresholdSide, rank
from app.alerts.domain.rules import ActiveRule, in_force
from app.alerts.services.service import AlertFilter, AlertRuleService, AlertService
from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Severity
from app.foundation.errors import Code
from app.foundation.http.dependencies import (
    UNNAMED,
    CommandDep,
    CursorsDep,
    IdempotencyDep,
    Provided,
    RequestIdDep,
    by,
)
from app.foundation.http.errors import problem_response, problems
from app.foundation.http.pagination import after, cut, moment_and_id
from app.foundation.http.request_body import Body, NameText
from app.foundation.http.responses import etag, keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DEFAULT_REASON,
    NAMES,
    ChangeRequest,
    CursorText,
    Freshness,
    IdPath,
    Limit,
    Out,
    TimeIn,
    UtcTime,
    finite,
)
from app.foundation.idempotency import Command, StoredResponse
from app.portfolio.api.schemas import freshness

router = api_router("alerts", "/alerts")
_MOVES = (
    Code.NOT_FOUND,
    Code.ALERT_STATE,
    Code.IDEMPOTENCY_IN_PROGRESS,
    Code.IDEMPOTENCY_KEY_REUSED,
)


class AlertOut(Out):
    """Alert of one rule for one subject, with its history."""

    id: str
    rule: AlertRule
    subject: str = Field(
        description="Subject of the alert: a symbol, a pair A-B, an endpoint or a task.",
        examples=["BTCUSDT"],
    )
    symbols: list[str]
    severity: Severity
    state: AlertState
    value: float | None = Field(description="At the last evaluation; null for a state.")
    limit: float | None
    message: str
    since: UtcTime = Field(description="Start of the condition.")
    last_seen_at: UtcTime
    opened_at: UtcTime | None = Field(description="Null while it is pending.")
    acknowledged_at: UtcTime | None
    acknowledged_by: str | None
    snoozed_until: UtcTime | None
    snoozed_by: str | None
    resolved_at: UtcTime | None
    resolution: Resolution | None = Field(description="Reason for the end.")
    resolved_by: str | None

    @classmethod
    def of(cls, alert: Alert) -> Self:
        return cls(
            id=alert.id,
            rule=alert.rule,
            subject=alert.subject,
            symbols=list(alert.symbols),
            severity=alert.severity,
            state=alert.state,
            value=finite(alert.value),
            limit=alert.limit,
            message=alert.message,
            since=alert.since,
            last_seen_at=alert.last_seen_at,
            opened_at=alert.opened_at,
            acknowledged_at=alert.acknowledged_at,
            acknowledged_by=alert.acknowledged_by,
            snoozed_until=alert.snoozed_until,
            snoozed_by=alert.snoozed_by,
            resolved_at=alert.resolved_at,
            resolution=alert.resolution,
            resolved_by=alert.resolved_by,
        )


class AlertsOut(Freshness):
    items: list[AlertOut]
    next_cursor: str | None


class MoveIn(Body):
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class SnoozeIn(MoveIn):
    """Length of a snooze: either `until` or `seconds`."""

    until: TimeIn | None = None
    seconds: int | None = Field(None, ge=1, le=30 * 86_400)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.until is None) == (self.seconds is None):
            raise ValueError("give either until or seconds")
        return self

    def end(self) -> datetime | timedelta:
        return self.until if self.until is not None else timedelta(seconds=self.seconds or 0)


def _unversioned(request_id: RequestIdDep, idempotency_key: IdempotencyDep) -> Command:
    """Command without a version: alerts have a state only."""
    return Command(actor=UNNAMED, request_id=request_id, idempotency_key=idempotency_key)


MoveDep = Annotated[Command, Depends(_unversioned)]


def _alert(done: Alert) -> StoredResponse:
    return keep(AlertOut.of(done))


@router.get("", summary="Alerts, the open ones by default", responses=problems(*NAMES))
async def alerts(
    alerts: Provided[AlertService],
    cursors: CursorsDep,
    state: Annotated[AlertState, Query(description="One state.")] = AlertState.OPEN,
    severity: Annotated[Severity | None, Query(description="One severity.")] = None,
    rule: Annotated[AlertRule | None, Query(description="One rule.")] = None,
    symbol: Annotated[
        str | None, Query(max_length=64, description="In any spelling, or the UUID.")
    ] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> AlertsOut:
    """Alerts about members, exchange and service, evaluated at the request.

    Order: critical first, then by rule and subject; `resolved` ones newest first. `pending` ones
    have not held for `duration_s` yet, or recur within the `cooldown_s` of their rule.
    """
    chosen = {
        "state": state.value,
        "severity": None if severity is None else severity.value,
        "rule": None if rule is None else rule.value,
        "symbol": symbol,
    }
    wanted = AlertFilter(state, rule, severity, symbol)
    start = cursors.decode("alerts", chosen, cursor)
    if state is AlertState.RESOLVED:
        before = moment_and_id(start)
        past, facts = await alerts.past(wanted, limit + 1, before)
        page, last = cut(past, limit, _ended)
    else:
        found, facts = await alerts.list(wanted)
        page, last = after(found, limit, rank, start)
    return AlertsOut(
        items=[AlertOut.of(alert) for alert in page],
        next_cursor=None if last is None else cursors.encode("alerts", chosen, last),
        **freshness(facts),
    )


def _ended(alert: Alert) -> tuple[str, str]:
    return (alert.resolved_at or alert.since).isoformat(), alert.id


@router.get("/{alert_id}", summary="One alert", responses=problems(Code.NOT_FOUND))
async def alert(alerts: Provided[AlertService], alert_id: IdPath) -> AlertOut:
    """One alert in any state."""
    return AlertOut.of(await alerts.get(alert_id))


@router.post(
    "/{alert_id}/acknowledge",
    summary="Acknowledge an alert",
    response_model=AlertOut,
    responses=problems(*_MOVES),
)
async def acknowledge(
    alerts: Provided[AlertService], command: MoveDep, alert_id: IdPath, body: MoveIn | None = None
) -> Response:
    """Acknowledge an alert; it stays active until its cause ends. A repetition changes nothing."""
    who = by(command, None if body is None else body.user)
    return sent(await alerts.acknowledge(alert_id, who, _alert))


@router.post(
    "/{alert_id}/snooze",
    summary="Snooze an alert",
    response_model=AlertOut,
    responses=problems(*_MOVES),
)
async def snooze(
    alerts: Provided[AlertService], command: MoveDep, alert_id: IdPath, body: SnoozeIn
) -> Response:
    """Snooze an alert for at most 30 days; it reopens then while its cause lasts."""
    who = by(command, body.user)
    return sent(await alerts.snooze(alert_id, body.end(), who, _alert))


@router.post(
    "/{alert_id}/resolve",
    summary="Resolve an alert",
    response_model=AlertOut,
    responses=problems(*_MOVES),
)
async def resolve(
    alerts: Provided[AlertService], command: MoveDep, alert_id: IdPath, body: MoveIn | None = None
) -> Response:
    """Resolve an alert; while its cause lasts it reopens after a cooldown of 10 minutes or more."""
    who = by(command, None if body is None else body.user)
    return sent(await alerts.resolve(alert_id, who, _alert))


rule_router = api_router("alerts", "/alerts/rules")


class AlertRuleOut(Out):
    """Active alert rule."""

    name: AlertRule
    comparison: str = Field(description="`state`, or `above` or `below` the limit.")
    enabled: bool
    severity: Severity
    limit: float | None = Field(description="Null for a state.")
    clear_limit: float | None = Field(description="Value beyond which an alert ends.")
    duration_s: int = Field(description="Time that the condition must hold before an alert opens.")
    cooldown_s: int = Field(description="Time after an end in which it does not reopen.")

    @classmethod
    def of(cls, rule: ActiveRule) -> Self:
        return cls(
            name=rule.rule,
            comparison=_SIDES[rule.side],
            enabled=rule.settings.enabled,
            severity=rule.settings.severity,
            limit=rule.limit,
            clear_limit=rule.clear_limit,
            duration_s=rule.settings.duration_s,
            cooldown_s=rule.settings.cooldown_s,
        )


class AlertRulesOut(Out):
    version: int = Field(description="Of the configuration that they are part of.")
    rules: list[AlertRuleOut]


class AlertRuleIn(ChangeRequest):
    """Change of an alert rule; omitted fields keep their value."""

    enabled: bool | None = None
    severity: Literal["info", "warning", "critical"] | None = None
    limit: float | None = None
    clear_limit: float | None = None
    duration_s: int | None = None
    cooldown_s: int | None = None

    def changes(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude={"reason", "user"})


_SIDES = {ThresholdSide.STATE: "state", ThresholdSide.ABOVE: "above", ThresholdSide.BELOW: "below"}


@rule_router.get("", summary="The alert rules in force")
async def alert_rules(alert_rules: Provided[AlertRuleService]) -> AlertRulesOut:
    """All rules, disabled ones included, with the version of the configuration."""
    rules, version = await alert_rules.all()
    return AlertRulesOut(version=version, rules=[AlertRuleOut.of(rule) for rule in rules])


@rule_router.put(
    "/{name}",
    summary="Change an alert rule",
    response_model=AlertRuleOut,
    responses=problems(*CHANGES),
)
async def put_alert_rule(
    request: Request,
    alert_rules: Provided[AlertRuleService],
    command: CommandDep,
    name: Annotated[AlertRule, Path(description="One of `GET /alerts/rules`.")],
    body: AlertRuleIn,
) -> Response:
    """Change a rule as a new version of the configuration; `If-Match` names the current one."""

    def render(settings: Configuration) -> StoredResponse:
        shown = AlertRuleOut.of(in_force(name, settings))
        return keep(shown, headers={"ETag": etag(settings.version)})

    who, reason = by(command, body.user), body.reason or DEFAULT_REASON
    try:
        done = await alert_rules.change(name, body.changes(), reason, who, render)
    except ConfigurationRefusedError as refused:
        places = [(("body", one.loc.rsplit(".", 1)[-1]), one.type) for one in refused.complaints]
        return problem_response(request, 422, refused.code, refused.detail, errors=places)
    return sent(done)
