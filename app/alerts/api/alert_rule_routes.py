"""Routes to read and change the alert rules."""

from typing import Annotated, Any, Literal, Self

from fastapi import Path, Request
from pydantic import Field
from starlette.responses import Response

from app.alerts.domain.models import AlertRule, ThresholdSide
from app.alerts.domain.rules import ActiveRule, in_force
from app.alerts.services.rule_settings import AlertRuleService
from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Severity
from app.foundation.http.dependencies import CommandDep, Provided, by
from app.foundation.http.errors import problem_response, problems
from app.foundation.http.responses import etag, keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import CHANGES, DEFAULT_REASON, ChangeRequest, Out
from app.foundation.idempotency import StoredResponse

router = api_router("alerts", "/alerts/rules")


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


@router.get("", summary="The alert rules in force")
async def alert_rules(alert_rules: Provided[AlertRuleService]) -> AlertRulesOut:
    """All rules, disabled ones included, with the version of the configuration."""
    rules, version = await alert_rules.all()
    return AlertRulesOut(version=version, rules=[AlertRuleOut.of(rule) for rule in rules])


@router.put(
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
