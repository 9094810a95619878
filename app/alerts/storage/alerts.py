"""Stores active and resolved alerts."""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, Text, and_, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from app.alerts.domain.lifecycle import MANUAL_COOLDOWN_S, ResolvedAlert
from app.alerts.domain.models import Alert, AlertRule, AlertState, Resolution
from app.alerts.storage.tables import alerts as table
from app.configuration.domain.sections import Severity
from app.foundation.errors import Code, NotFoundError
from app.foundation.sql.key_value import KeyValueRepository
from app.foundation.sql.statements import upsert
from app.foundation.sql.tables import service_facts
from app.portfolio.storage.tables import PORTFOLIO_ID, portfolio, replacement_confirmations
from app.scoring.storage.tables import IS_PROVISIONAL, scoring_runs, symbol_scores
from app.security.storage.audit import BURSTS

# Longest cooldown of the settings plus the pause after a manual resolution.
LOOKBACK: Final = timedelta(days=7, seconds=MANUAL_COOLDOWN_S)


_SAVES: Final = "alerts.saves"  # counts the changes of stored alerts
_confirmed = and_(
    replacement_confirmations.c.portfolio_id == portfolio.c.id,
    replacement_confirmations.c.is_confirmed,
)
_MARK: Final = (
    select(
        select(service_facts.c.value)
        .where(service_facts.c.key == _SAVES)
        .scalar_subquery()
        .label("saves"),
        select(service_facts.c.value)
        .where(service_facts.c.key == BURSTS)
        .scalar_subquery()
        .label("bursts"),
        select(func.max(scoring_runs.c.calculated_at))
        .where(~IS_PROVISIONAL)
        .scalar_subquery()
        .label("scored_at"),
        replacement_confirmations.c.symbol,
        replacement_confirmations.c.candidate,
    )
    .select_from(portfolio.outerjoin(replacement_confirmations, _confirmed))
    .where(portfolio.c.id == PORTFOLIO_ID)
)


@dataclass(frozen=True, slots=True)
class AlertMark:
    """Version mark: equal marks mean no new alert, board, confirmed replacement or burst."""

    saves: int | None
    bursts: Any  # stored fact of bursts of failed authentications
    scored_at: datetime | None
    candidates: frozenset[tuple[str, str]]  # member and candidate


@dataclass(frozen=True, slots=True)
class AlertRepository:
    """Repository of alerts; writes require the portfolio's lock, which serializes evaluations."""

    connection: AsyncConnection

    async def mark(self) -> AlertMark:
        """Current version mark; it validates a cached book where other processes may commit."""
        rows = (await self.connection.execute(_MARK)).all()
        rivals = frozenset((row.symbol, row.candidate) for row in rows if row.symbol is not None)
        return AlertMark(rows[0].saves, rows[0].bursts, rows[0].scored_at, rivals)

    async def active(self) -> tuple[Alert, ...]:
        """Unresolved alerts, pending ones included."""
        wanted = select(table).where(table.c.state != AlertState.RESOLVED.value)
        return tuple(map(_alert, await self.connection.execute(wanted)))

    async def get(self, alert_id: str) -> Alert:
        """Returns one alert. Raises NotFoundError."""
        wanted = select(table).where(table.c.id == alert_id)
        row = (await self.connection.execute(wanted)).first()
        if row is None:
            raise NotFoundError(Code.NOT_FOUND, "There is no alert with this id.")
        return _alert(row)

    async def ended(self, since: datetime) -> dict[tuple[AlertRule, str], ResolvedAlert]:
        """Last end of each rule and subject after `since`."""
        wanted = (
            select(table.c.rule, table.c.subject, table.c.resolved_at, table.c.resolution)
            .where(table.c.resolved_at > since)
            .order_by(table.c.resolved_at)
        )
        return {
            (AlertRule(row.rule), row.subject): ResolvedAlert(
                row.resolved_at, Resolution(row.resolution)
            )
            for row in await self.connection.execute(wanted)
        }

    async def former_run(self, runs: int) -> str | None:
        """Id of the complete board `runs` boards before the newest; None without one."""
        order = (scoring_runs.c.calculated_at.desc(), scoring_runs.c.run_id.desc())
        complete = select(scoring_runs.c.run_id).where(~IS_PROVISIONAL)
        before = complete.order_by(*order).offset(runs).limit(1)
        run_id: str | None = (await self.connection.execute(before)).scalar()
        return run_id

    async def load_scores(self, run_id: str, symbols: Collection[str]) -> dict[str, float]:
        """Composite scores of a board, which never change."""
        lines = symbol_scores
        wanted = select(lines.c.symbol, lines.c.composite).where(
            lines.c.run_id == run_id,
            lines.c.symbol.in_(symbols),
            lines.c.composite.is_not(None),
        )
        return {row.symbol: row.composite for row in await self.connection.execute(wanted)}

    async def save(self, alerts: Iterable[Alert]) -> None:
        """Inserts or updates alerts. Raises ConflictError if the same key is already active."""
        changed = list(alerts)
        for alert in changed:
            await self.connection.execute(upsert(self.connection, table), _row(alert))
        if changed:
            await self._count_change()

    async def drop(self, ids: Iterable[str]) -> None:
        """Deletes pending alerts that never opened."""
        wanted = list(ids)
        if wanted:
            await self.connection.execute(
                table.delete().where(
                    table.c.id.in_(wanted), table.c.state == AlertState.PENDING.value
                )
            )
            await self._count_change()

    async def _count_change(self) -> None:
        """Increments the change counter; the portfolio's lock prevents lost updates."""
        facts = KeyValueRepository(self.connection)
        await facts.put(_SAVES, (await facts.get(_SAVES) or 0) + 1)

    async def delete_old(self, before: datetime) -> int:
        """Deletes alerts resolved before `before`; returns their number."""
        deleted = await self.connection.execute(table.delete().where(table.c.resolved_at < before))
        return deleted.rowcount

    async def resolved(
        self,
        limit: int,
        before: tuple[datetime, str] | None = None,
        rule: AlertRule | None = None,
        severity: Severity | None = None,
        symbol: str | None = None,
    ) -> tuple[Alert, ...]:
        """Resolved alerts, newest first, from the position `before` on."""
        wanted = select(table).where(table.c.resolved_at.is_not(None))
        if before is not None:
            at, alert_id = before
            same = (table.c.resolved_at == at) & (table.c.id < alert_id)
            wanted = wanted.where((table.c.resolved_at < at) | same)
        if rule is not None:
            wanted = wanted.where(table.c.rule == rule.value)
        if severity is not None:
            wanted = wanted.where(table.c.severity == severity.value)
        if symbol is not None:
            # `symbols` is a JSON list as text, in which a symbol is quoted
            listed = type_coerce(table.c.symbols, Text)
            wanted = wanted.where(listed.contains(f'"{symbol}"', autoescape=True))
        newest = wanted.order_by(table.c.resolved_at.desc(), table.c.id.desc()).limit(limit)
        return tuple(map(_alert, await self.connection.execute(newest)))


def _row(alert: Alert) -> dict[str, Any]:
    row = asdict(alert)
    row["limit_value"] = row.pop("limit")
    row["symbols"] = list(alert.symbols)
    row["rule"], row["severity"] = alert.rule.value, alert.severity.value
    row["state"] = alert.state.value
    row["resolution"] = None if alert.resolution is None else alert.resolution.value
    return row


def _alert(row: Row[Any]) -> Alert:
    return Alert(
        id=row.id,
        rule=AlertRule(row.rule),
        subject=row.subject,
        symbols=tuple(row.symbols),
        severity=Severity(row.severity),
        state=AlertState(row.state),
        value=row.value,
        limit=row.limit_value,
        message=row.message,
        since=row.since,
        last_seen_at=row.last_seen_at,
        opened_at=row.opened_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        snoozed_until=row.snoozed_until,
        snoozed_by=row.snoozed_by,
        resolved_at=row.resolved_at,
        resolution=None if row.resolution is None else Resolution(row.resolution),
        resolved_by=row.resolved_by,
    )
