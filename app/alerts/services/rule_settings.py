"""Reads and changes the alert rules as part of the settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.alerts.domain.models import AlertRule, ThresholdSide
from app.alerts.domain.rules import RULES, ActiveRule, in_force
from app.configuration.domain.document import Complaint, ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.configuration.services.changes import ConfigurationChanges
from app.foundation.errors import Code
from app.foundation.idempotency import Command, CommandResult, Render


@dataclass(frozen=True, slots=True)
class AlertRuleService:
    """Use cases of alert rules; a change is a new version of the business settings."""

    configuration: ConfigurationChanges

    async def all(self) -> tuple[tuple[ActiveRule, ...], int]:
        """Every active rule and the version of the settings."""
        settings = await self.configuration.current()
        return tuple(in_force(rule, settings) for rule in AlertRule), settings.version

    async def change(
        self,
        rule: AlertRule,
        wanted: Mapping[str, object],
        reason: str,
        command: Command,
        render: Render[Configuration] | None = None,
    ) -> CommandResult[Configuration]:
        """Change a rule.

        `wanted` may name enabled, severity, duration_s, cooldown_s, limit and clear_limit.

        Raises ConfigurationRefusedError for invalid values, and the errors of a settings change.
        """
        present = await self.configuration.current()
        changes = changes_of(rule, wanted, present)
        return await self.configuration.put(changes, reason, command, render)


def changes_of(
    rule: AlertRule, wanted: Mapping[str, object], present: Configuration
) -> dict[str, Any]:
    """Convert a rule change to a settings change; a clear limit becomes a clear margin."""
    own = dict(wanted)
    force = in_force(rule, present)
    numeric = [name for name in ("limit", "clear_limit") if name in own]
    if force.side is ThresholdSide.STATE and not hasattr(force.settings, "limit") and numeric:
        raise _refused(numeric[0], "unknown_key", f"{rule.value} is about a state: it has no limit")
    changes: dict[str, Any] = {}
    limit = own.pop("limit", None)
    if limit is not None:
        place = RULES[rule].limit_at
        if place is None:
            own["limit"] = limit
        else:
            group, name = place
            changes[group] = {name: limit}
    clear = own.pop("clear_limit", None)
    if clear is not None:
        own["clear_margin"] = _margin(force, limit if limit is not None else force.limit, clear)
    if own:
        changes.setdefault("alerts", {})["rules"] = {rule.value: own}
    return changes


def _margin(force: ActiveRule, limit: object, clear: object) -> float:
    numbers = [float(one) for one in (limit, clear) if isinstance(one, int | float)]
    if len(numbers) < 2:
        raise _refused("clear_limit", "number_type", "clear_limit must be a number")
    beyond = (
        numbers[0] - numbers[1] if force.side is ThresholdSide.ABOVE else numbers[1] - numbers[0]
    )
    if beyond < 0.0:
        side = "above" if force.side is ThresholdSide.ABOVE else "below"
        raise _refused("clear_limit", "order", f"clear_limit must not lie {side} limit")
    return round(beyond, 9)


def _refused(loc: str, kind: str, message: str) -> ConfigurationRefusedError:
    return ConfigurationRefusedError(Code.VALIDATION_FAILED, (Complaint(loc, kind, message),))
