"""Routes of alerts and of the alert rules."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from fastapi import Path, Query, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from app.alerts.domain.models import (
    Alert,
    AlertRule,
    AlertState,
    Resolution,
    ThresholdSide,
    sort_key,
)
from app.alerts.domain.rules import ActiveRule, activate_rule
from app.alerts.services.alert_replay import AlertReplayer
from app.alerts.services.service import AlertFilter, AlertRuleService, AlertService
from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Severity
from app.foundation.errors import Code, FieldFault
from app.foundation.http.dependencies import (
    EXPENSIVE,
    CommandDep,
    CursorsDep,
    Provided,
    UnversionedDep,
    by,
)
from app.foundation.http.errors import load_request_shape, problem_response, problems
from app.foundation.http.pagination import after, cut, moment_and_id
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, NameText
from app.foundation.http.responses import etag, keep, sent
from app.foundation.http.route_limits import limited_by
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DEFAULT_REASON,
    NAMES,
    REPLAYS,
    ChangeRequest,
    CursorText,
    DecisionReplayOut,
    Freshness,
    IdPath,
    Limit,
    Out,
    Raw,
    TimeIn,
    UtcTime,
    example,
    finite,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role, RouteLimit
from app.portfolio.api.schemas import freshness

router = api_router("alerts", "/alerts")
_TRANSITION_ERRORS = (
    Code.NOT_FOUND,
    Code.ALERT_STATE,
    Code.IDEMPOTENCY_IN_PROGRESS,
    Code.IDEMPOTENCY_KEY_REUSED,
)


class AlertOut(Out):
    """Alert of one rule for one subject, with its history."""

    id: str = Field(description="Identifier of the alert.")
    rule: AlertRule = Field(description="Rule that opened the alert.")
    subject: str = Field(
        description="Subject of the alert: a symbol, a pair A-B, an endpoint or a task.",
        examples=["BTCUSDT"],
    )
    symbols: list[str] = Field(
        description="Symbols that the alert is about; empty if it is about the service."
    )
    severity: Severity = Field(description="Severity of the rule when the alert opened.")
    state: AlertState = Field(description="State in the life cycle; `resolved` is final.")
    value: Raw | None = Field(description="Value at the last evaluation; null for a state.")
    limit: Raw | None = Field(
        description="Limit of the rule, in the unit of `value`; null for a state."
    )
    message: str = Field(description="Finding with value, limit and unit.")
    since: UtcTime = Field(description="Start of the condition.")
    last_seen_at: UtcTime = Field(description="UTC time at which the condition last held.")
    opened_at: UtcTime | None = Field(description="Null for a pending alert.")
    acknowledged_at: UtcTime | None = Field(
        description="UTC time of the acknowledgement; null before it."
    )
    acknowledged_by: str | None = Field(description="Principal that acknowledged the alert.")
    snoozed_until: UtcTime | None = Field(
        description="UTC time at which the snooze ends; null without one."
    )
    snoozed_by: str | None = Field(description="Principal that snoozed the alert.")
    resolved_at: UtcTime | None = Field(
        description="UTC time at which the alert ended; null before it."
    )
    resolution: Resolution | None = Field(description="Reason for the end.")
    resolved_by: str | None = Field(description="Principal or condition that ended the alert.")

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


class TransitionIn(Body):
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class SnoozeIn(TransitionIn):
    """Length of a snooze: either `until` or `seconds`."""

    model_config = example({"seconds": 3600})

    until: TimeIn | None = Field(
        None, description="UTC time at which the snooze ends, at most 30 days from now."
    )
    seconds: int | None = Field(
        None, ge=1, le=30 * 86_400, description="Length of the snooze, at most 30 days."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.until is None) == (self.seconds is None):
            raise ValueError("give either until or seconds")
        return self

    def end(self) -> datetime | timedelta:
        return self.until if self.until is not None else timedelta(seconds=self.seconds or 0)


def _alert_response(alert: Alert) -> StoredResponse:
    return keep(AlertOut.of(alert))


@router.get("", summary="Alerts, the open ones by default", responses=problems(*NAMES))
@requires(Role.VIEWER)
async def list_alerts(
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
    """Evaluates the rules and returns alerts about members, exchange and service.

    Order: critical first, then by rule and subject; `resolved` alerts newest first. The condition
    of a `pending` alert has not held for `duration_s` yet, or recurs within `cooldown_s`.
    """
    chosen = {
        "state": state.value,
        "severity": None if severity is None else severity.value,
        "rule": None if rule is None else rule.value,
        "symbol": symbol,
    }
    criteria = AlertFilter(state, rule, severity, symbol)
    start = cursors.decode("alerts", chosen, cursor)
    if state is AlertState.RESOLVED:
        before = moment_and_id(start)
        resolved, facts = await alerts.load_resolved(criteria, limit + 1, before)
        page, last = cut(resolved, limit, _resolved_position)
    else:
        active, facts = await alerts.list(criteria)
        page, last = after(active, limit, sort_key, start)
    return AlertsOut(
        items=[AlertOut.of(alert) for alert in page],
        next_cursor=None if last is None else cursors.encode("alerts", chosen, last),
        **freshness(facts),
    )


def _resolved_position(alert: Alert) -> tuple[str, str]:
    return (alert.resolved_at or alert.since).isoformat(), alert.id


@router.get("/{alert_id}", summary="One alert", responses=problems(Code.NOT_FOUND))
@requires(Role.VIEWER)
async def get_alert(alerts: Provided[AlertService], alert_id: IdPath) -> AlertOut:
    """Returns one alert in any state."""
    return AlertOut.of(await alerts.get(alert_id))


@router.post(
    "/{alert_id}/replay",
    summary="Replay the opening of an alert from its stored inputs",
    dependencies=EXPENSIVE,
    responses=problems(*REPLAYS),
)
@requires(Role.TRADER)
@limited_by(RouteLimit.HEAVY)
async def replay_alert(replayer: Provided[AlertReplayer], alert_id: IdPath) -> DecisionReplayOut:
    """Evaluates the rules again on the facts at the opening; nothing is written.

    Inputs are stored for `retention.decision_inputs_days`. Another version of the algorithm answers
    409 `algorithm_version` with the version of the service that can replay the alert.
    """
    return DecisionReplayOut.from_replay(await replayer.replay(alert_id))


@router.post(
    "/{alert_id}/acknowledge",
    summary="Acknowledge an alert",
    response_model=AlertOut,
    responses=problems(*_TRANSITION_ERRORS),
)
@requires(Role.OPERATOR)
async def acknowledge_alert(
    alerts: Provided[AlertService],
    command: UnversionedDep,
    alert_id: IdPath,
    body: TransitionIn | None = None,
) -> Response:
    """Acknowledges an alert, which stays active until its cause ends; repeatable."""
    actor = by(command, None if body is None else body.user)
    return sent(await alerts.acknowledge(alert_id, actor, _alert_response))


@router.post(
    "/{alert_id}/snooze",
    summary="Snooze an alert",
    response_model=AlertOut,
    responses=problems(*_TRANSITION_ERRORS),
)
@requires(Role.OPERATOR)
async def snooze_alert(
    alerts: Provided[AlertService], command: UnversionedDep, alert_id: IdPath, body: SnoozeIn
) -> Response:
    """Snoozes an alert for at most 30 days; it then reopens while its cause lasts."""
    actor = by(command, body.user)
    return sent(await alerts.snooze(alert_id, body.end(), actor, _alert_response))


@router.post(
    "/{alert_id}/resolve",
    summary="Resolve an alert",
    response_model=AlertOut,
    responses=problems(*_TRANSITION_ERRORS),
)
@requires(Role.OPERATOR)
async def resolve_alert(
    alerts: Provided[AlertService],
    command: UnversionedDep,
    alert_id: IdPath,
    body: TransitionIn | None = None,
) -> Response:
    """Resolves an alert; while its cause lasts it reopens after at least 10 minutes."""
    actor = by(command, None if body is None else body.user)
    return sent(await alerts.resolve(alert_id, actor, _alert_response))


rule_router = api_router("alerts", "/alerts/rules")


class AlertRuleOut(Out):
    """Active alert rule."""

    name: AlertRule = Field(description="Name of the rule.")
    comparison: str = Field(description="`state`, or `above` or `below` the limit.")
    enabled: bool = Field(description="False: the rule opens no alert.")
    severity: Severity = Field(description="Severity of the alerts of this rule.")
    limit: Raw | None = Field(description="Null for a state.")
    clear_limit: Raw | None = Field(description="Value beyond which an alert ends.")
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
    version: int = Field(description="Version of the configuration.")
    rules: list[AlertRuleOut] = Field(description="Rules in their fixed order.")


class AlertRuleIn(ChangeRequest):
    """Change of an alert rule; omitted fields keep their value."""

    model_config = example({"cooldown_s": 3600, "reason": "fewer repeats"})

    enabled: bool | None = Field(
        None, description="False: the rule opens no alert, and its open ones end."
    )
    severity: Literal["info", "warning", "critical"] | None = Field(
        None, description="Severity of the alerts of this rule."
    )
    limit: Raw | None = Field(
        None, description="Value beyond which the condition holds, in the unit of the rule."
    )
    clear_limit: Raw | None = Field(
        None, description="Value at which an open alert ends, in the unit of the rule."
    )
    duration_s: int | None = Field(
        None, description="Time that the condition must hold before an alert opens."
    )
    cooldown_s: int | None = Field(
        None, description="Time after the end of an alert in which it does not reopen."
    )

    def changes(self) -> dict[str, Any]:
        return self.model_dump(exclude_unset=True, exclude={"reason", "user"})


_SIDES = {ThresholdSide.STATE: "state", ThresholdSide.ABOVE: "above", ThresholdSide.BELOW: "below"}


@rule_router.get("", summary="Alert rules")
@requires(Role.VIEWER)
async def list_alert_rules(alert_rules: Provided[AlertRuleService]) -> AlertRulesOut:
    """Returns all rules, including disabled ones, with the version of the configuration."""
    rules, version = await alert_rules.all()
    return AlertRulesOut(version=version, rules=[AlertRuleOut.of(rule) for rule in rules])


@rule_router.put(
    "/{name}",
    summary="Change an alert rule",
    response_model=AlertRuleOut,
    responses=problems(*CHANGES),
)
@requires(Role.ADMIN)
async def update_alert_rule(
    request: Request,
    alert_rules: Provided[AlertRuleService],
    command: CommandDep,
    name: Annotated[AlertRule, Path(description="One of `GET /alerts/rules`.")],
    body: AlertRuleIn,
) -> Response:
    """Changes a rule as a new version of the configuration; `If-Match` is the current version."""

    def render(settings: Configuration) -> StoredResponse:
        changed = AlertRuleOut.of(activate_rule(name, settings))
        return keep(changed, headers={"ETag": etag(settings.version)})

    actor, reason = by(command, body.user), body.reason or DEFAULT_REASON
    try:
        result = await alert_rules.change(name, body.changes(), reason, actor, render)
    except ConfigurationRefusedError as refused:
        places = [
            FieldFault(("body", one.loc.rsplit(".", 1)[-1]), one.type, one.message)
            for one in refused.complaints
        ]
        await load_request_shape(request)
        return problem_response(request, 422, refused.code, refused.detail, errors=places)
    return sent(result)
