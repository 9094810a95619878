"""The settings of the alerts as they are read and written over HTTP."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from app.alerts.domain.models import Rule
from app.configuration.domain.sections import AlertRules, Severity
from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Out


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
