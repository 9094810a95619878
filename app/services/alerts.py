"""Alerts of the moment, computed when they are asked for."""

from dataclasses import dataclass, field
from typing import Protocol

from app.domain.alert_facts import SystemFacts
from app.domain.alert_rules import judge
from app.domain.alert_settings import Severity
from app.domain.alerts import Alert, Rule
from app.services.alert_facts import Nothing, facts_at
from app.services.grounds import Grounds, GroundsNow
from app.services.trading import DataFacts, facts_of
from app.storage.database import Database


class System(Protocol):
    """The service and its exchange, as they are now."""

    def look(self, grounds: Grounds) -> SystemFacts: ...


@dataclass(frozen=True, slots=True)
class AlertService:
    """The rules over the members, the exchange and the service itself."""

    database: Database
    grounds: GroundsNow
    system: System = field(default_factory=Nothing)

    async def current(
        self,
        rule: Rule | None = None,
        severity: Severity | None = None,
        symbol: str | None = None,
    ) -> tuple[tuple[Alert, ...], DataFacts]:
        """Alerts that hold now, critical first; of one rule, severity or symbol if wanted.

        Raises RefusedError for a symbol that is not known.
        """
        async with self.database.read() as unit:
            portfolio = await unit.portfolio.load()
            grounds = await self.grounds.of(unit)
        wanted = None if symbol is None else grounds.resolve(symbol).symbol
        facts = facts_at(portfolio, grounds, self.system.look(grounds))
        found = tuple(
            alert
            for alert in judge(facts, grounds.configuration)
            if rule in {None, alert.rule}
            and severity in {None, alert.severity}
            and (wanted is None or wanted in alert.symbols)
        )
        return found, facts_of(grounds)
