"""Alerts of the moment, computed when they are asked for."""

from dataclasses import dataclass

from app.domain.alerts import Alert, MemberFacts, Rule, Severity, judge
from app.domain.portfolio import Portfolio
from app.services.grounds import Grounds, GroundsNow
from app.services.trading import DataFacts, facts_of
from app.storage.database import Database


@dataclass(frozen=True, slots=True)
class AlertService:
    """The rules over the present members."""

    database: Database
    grounds: GroundsNow

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
        found = tuple(
            alert
            for alert in alerts_of(portfolio, grounds)
            if rule in {None, alert.rule}
            and severity in {None, alert.severity}
            and (wanted is None or wanted in alert.symbols)
        )
        return found, facts_of(grounds)


def alerts_of(portfolio: Portfolio, grounds: Grounds) -> tuple[Alert, ...]:
    symbols = tuple(member.symbol for member in portfolio.members)
    facts = [
        MemberFacts(
            symbol=member.symbol,
            status=grounds.status_of(member.symbol).value,
            is_open=grounds.is_open(member.symbol),
            score=grounds.score(member.symbol),
            performance=grounds.since_inclusion(member).performance,
        )
        for member in portfolio.members
    ]
    rules = grounds.configuration.correlation
    pairs = grounds.correlations(symbols, rules.days)
    as_of = grounds.market.as_of() or grounds.at
    return judge(facts, pairs, grounds.configuration, as_of)
