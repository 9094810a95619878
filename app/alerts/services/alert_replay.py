"""Stores the inputs of opened alerts, and replays the opening of an alert from them."""

from dataclasses import dataclass

from app.alerts.domain.facts import Facts
from app.alerts.domain.lifecycle import Evaluation, Key, ResolvedAlert, evaluate
from app.alerts.domain.models import Alert, AlertRule
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import load_configuration
from app.foundation.decision_log import (
    DecisionKind,
    DecisionLog,
    DecisionReplay,
    compare_replay,
    decode_inputs,
    load_decision,
)
from app.foundation.sql.database import Database, UnitOfWork


@dataclass(frozen=True, slots=True)
class AlertSnapshot:
    """Every input of the opening of one alert; settings are those of `configuration_version`.

    `former` is the alert before the evaluation, `ended` the last end of one with its rule and
    subject; None where there is none.
    """

    configuration_version: int
    alert_id: str
    rule: AlertRule
    subject: str
    facts: Facts
    former: Alert | None
    ended: ResolvedAlert | None


def open_from_snapshot(given: AlertSnapshot, configuration: Configuration) -> Alert | None:
    """Evaluates the rules again; None if the alert does not open. A function of its arguments."""
    key: Key = (given.rule, given.subject)
    evaluation = evaluate(
        () if given.former is None else (given.former,),
        given.facts,
        configuration,
        {} if given.ended is None else {key: given.ended},
        lambda: given.alert_id,
    )
    return next((alert for alert in evaluation.raised if alert.key == key), None)


@dataclass(frozen=True, slots=True)
class EvaluationInputs:
    """Inputs of one evaluation of all rules."""

    active: tuple[Alert, ...]
    facts: Facts
    ended: dict[Key, ResolvedAlert]
    configuration_version: int


async def record_alerts(
    unit: UnitOfWork, log: DecisionLog, evaluation: Evaluation, inputs: EvaluationInputs
) -> None:
    """Stores the inputs of each alert that the evaluation has opened."""
    former = {alert.key: alert for alert in inputs.active}
    for alert in evaluation.raised:
        given = AlertSnapshot(
            inputs.configuration_version,
            alert.id,
            alert.rule,
            alert.subject,
            inputs.facts,
            former.get(alert.key),
            inputs.ended.get(alert.key),
        )
        # An alert that wakes from a snooze keeps the inputs of its opening.
        await log.record(unit, DecisionKind.ALERT, alert.id, inputs.facts.at, given, alert)


@dataclass(frozen=True, slots=True)
class AlertReplayer:
    """Replays the opening of stored alerts; nothing is written."""

    database: Database

    async def replay(self, alert_id: str) -> DecisionReplay:
        """Evaluates the rules again on the facts at the opening.

        Raises NotFoundError without its inputs, ConflictError (algorithm_version).
        """
        kind = DecisionKind.ALERT
        async with self.database.read() as unit:
            stored = await load_decision(unit, kind, alert_id)
            given = decode_inputs(stored, AlertSnapshot)
            settings = await load_configuration(unit, given.configuration_version)
        return compare_replay(kind, stored, lambda: open_from_snapshot(given, settings))
