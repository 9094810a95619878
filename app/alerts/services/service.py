"""Evaluates, lists and changes alerts, and changes the alert rules."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog

from app.alerts.domain.events import alert_raised, alert_resolved
from app.alerts.domain.facts import PortfolioFacts, SystemFacts
from app.alerts.domain.lifecycle import Evaluation, Key, ResolvedAlert, evaluate
from app.alerts.domain.models import Alert, AlertRule, AlertState, Resolution, ThresholdSide
from app.alerts.domain.rules import RULES, ActiveRule, in_force
from app.alerts.services.facts import (
    PairCorrelations,
    ScoreHistory,
    UnknownSystem,
    correlations,
    facts_at,
    past_of,
    portfolio_facts,
)
from app.alerts.storage.alerts import LOOK_BACK, AlertMark, AlertRepository
from app.configuration.domain.document import Complaint, ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Severity
from app.configuration.services.current import ConfigurationChanges
from app.foundation.concurrency import SingleFlight
from app.foundation.errors import Code, ConflictError, RefusedError, UnavailableError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.memoize import ViewCache
from app.foundation.ports import NewId
from app.foundation.sql.database import BULK_STATEMENT_S, Database, UnitOfWork
from app.market.domain.models import Interval
from app.portfolio.domain.models import Portfolio
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.state_cache import PortfolioState
from app.portfolio.services.tradeability import DataFacts, describe_data
from app.portfolio.storage.portfolio import PortfolioRepository


@dataclass(frozen=True, slots=True)
class AlertBook:
    """Stored alerts and the score history of the members."""

    active: tuple[Alert, ...]
    ended: Mapping[Key, ResolvedAlert]
    past: ScoreHistory

    @classmethod
    async def load(
        cls,
        unit: UnitOfWork,
        portfolio: Portfolio,
        context: DecisionContext,
        before: ScoreHistory | None = None,
    ) -> "AlertBook":
        """Load the book in a transaction; `before` as in `past_of`."""
        return cls(
            await unit.get(AlertRepository).active(),
            await unit.get(AlertRepository).ended(context.at - LOOK_BACK),
            await past_of(unit, portfolio, context.configuration, before),
        )

    def ended_since(self, since: datetime) -> dict[Key, ResolvedAlert]:
        """Ends after `since`; the book may be older than that."""
        return {key: end for key, end in self.ended.items() if end.at > since}


@dataclass(slots=True)
class AlertBookCache:
    """Newest alert book, read again only after one of its tables has changed.

    Where no other process can write, a count of own commits avoids asking; otherwise one statement
    gives the mark of the tables.
    """

    _cached: tuple[int | None, AlertMark, PortfolioState, AlertBook] | None = None
    _views: ViewCache = field(default_factory=ViewCache)

    async def load(
        self, database: Database, state: PortfolioState, context: DecisionContext
    ) -> AlertBook:
        """Book with every commit before the call. Raises UnavailableError."""
        # Counted before reading: a commit during the read makes the next call read again.
        commits, cached = database.commits, self._cached
        is_of_state = cached is not None and cached[2] is state
        if cached is not None and is_of_state and commits is not None and cached[0] == commits:
            return cached[3]
        async with database.read() as unit:
            mark = await unit.get(AlertRepository).mark()
            if cached is not None and is_of_state and cached[1] == mark:
                book = cached[3]
            else:
                before = cached[3].past if cached is not None and is_of_state else None
                book = await AlertBook.load(unit, state.portfolio, context, before)
        self._cached = (commits, mark, state, book)
        return book

    def pairs(self, state: PortfolioState, context: DecisionContext) -> PairCorrelations:
        """Cached correlations of the members; they cost as much as all other facts together."""
        portfolio, panel = state.portfolio, context.market.panel(Interval.DAY)
        key = (portfolio.members, panel, context.configuration)
        return self._views.get("pairs", key, lambda: correlations(portfolio, context))


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


_log = structlog.get_logger("alerts")

LONGEST_SNOOZE: Final = timedelta(days=30)
ACTIVE: Final = frozenset(AlertState) - {AlertState.RESOLVED}


class SystemFactSource(Protocol):
    """Port to facts about the service and its exchange."""

    def look(self, context: DecisionContext) -> SystemFacts: ...


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Filter of alerts; None matches any."""

    state: AlertState = AlertState.OPEN
    rule: AlertRule | None = None
    severity: Severity | None = None
    symbol: str | None = None  # in any spelling


@dataclass(frozen=True, slots=True)
class AlertService:
    """Use cases of alerts.

    Evaluations in one process are serialized; across processes each is repeated under the
    portfolio's lock before it is saved, so that it sees what the others saved.
    """

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    new_id: NewId
    system: SystemFactSource = field(default_factory=UnknownSystem)
    _books: AlertBookCache = field(default_factory=AlertBookCache)
    _looking: SingleFlight[tuple[tuple[Alert, ...], DecisionContext]] = field(
        default_factory=SingleFlight
    )

    async def look(self) -> tuple[tuple[Alert, ...], DecisionContext]:
        """Evaluate all rules, store changes and return the unresolved alerts.

        If the database cannot be written, the result is returned and stored the next time.
        Calls during an evaluation share the next one.
        """
        return await self._looking(self._look)

    async def _look(self) -> tuple[tuple[Alert, ...], DecisionContext]:
        state, context = await self.contexts.present(self.database)
        book = await self._books.load(self.database, state, context)
        pairs = self._books.pairs(state, context)
        members = portfolio_facts(state.portfolio, context, book.past, pairs)
        seen = self._seen(book, members, context)
        if not seen.is_news:
            return seen.active, context
        try:
            seen, context = await self.database.run(self._kept)
        except (ConflictError, UnavailableError) as error:
            _log.warning("alerts_not_kept", cause=str(error.code))
            return seen.active, context
        for alert in seen.raised:
            _log.warning("alert_raised", **_said(alert))
        for alert in seen.ended:
            _log.info("alert_ended", **_said(alert))
        return seen.active, context

    async def list(self, criteria: AlertFilter) -> tuple[tuple[Alert, ...], DataFacts]:
        """Active alerts of one state, critical first.

        Raises RefusedError for an unknown symbol.
        """
        active, context = await self.look()
        wanted = _symbol(criteria, context)
        found = tuple(
            alert
            for alert in active
            if alert.state is criteria.state
            and criteria.rule in {None, alert.rule}
            and criteria.severity in {None, alert.severity}
            and (wanted is None or wanted in alert.symbols)
        )
        return found, describe_data(context)

    async def past(
        self, criteria: AlertFilter, limit: int, before: tuple[datetime, str] | None = None
    ) -> tuple[tuple[Alert, ...], DataFacts]:
        """Resolved alerts, newest first. Raises RefusedError for an unknown symbol."""
        _, context = await self.look()
        wanted = _symbol(criteria, context)
        async with self.database.read() as unit:
            found = await unit.get(AlertRepository).resolved(
                limit, before, criteria.rule, criteria.severity, wanted
            )
        return found, describe_data(context)

    async def get(self, alert_id: str) -> Alert:
        """Return one alert. Raises NotFoundError."""
        active, _ = await self.look()
        for alert in active:  # newer than the stored row
            if alert.id == alert_id:
                return alert
        async with self.database.read() as unit:
            return await unit.get(AlertRepository).get(alert_id)

    async def acknowledge(
        self, alert_id: str, command: Command, render: Render[Alert] | None = None
    ) -> CommandResult[Alert]:
        """Acknowledge an alert. Raises NotFoundError, ConflictError(alert_state)."""
        return await self._move(
            alert_id, command, lambda alert, now: alert.acknowledged(now, command.actor), render
        )

    async def snooze(
        self,
        alert_id: str,
        until: datetime | timedelta,
        command: Command,
        render: Render[Alert] | None = None,
    ) -> CommandResult[Alert]:
        """Snooze an alert until a time or for a duration; it reopens while its cause lasts.

        Raises RefusedError for an end in the past or more than 30 days ahead,
        NotFoundError, ConflictError(alert_state).
        """

        def snoozed(alert: Alert, now: datetime) -> Alert:
            end = now + until if isinstance(until, timedelta) else until
            if not now < end <= now + LONGEST_SNOOZE:
                raise RefusedError(
                    Code.VALIDATION_FAILED, "A snooze ends in the future, within 30 days."
                )
            return alert.snoozed(end, command.actor)

        return await self._move(alert_id, command, snoozed, render)

    async def resolve(
        self, alert_id: str, command: Command, render: Render[Alert] | None = None
    ) -> CommandResult[Alert]:
        """Resolve an alert; while its cause lasts it reopens after the cooldown.

        Raises NotFoundError, ConflictError(alert_state).
        """
        return await self._move(
            alert_id,
            command,
            lambda alert, now: alert.resolved(now, Resolution.OPERATOR, command.actor),
            render,
        )

    async def forget_old(self, keep: timedelta) -> int:
        """Delete alerts resolved longer ago than `keep`; return their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(AlertRepository).forget(self.contexts.clock() - keep)

    async def _move(
        self,
        alert_id: str,
        command: Command,
        move: Callable[[Alert, datetime], Alert],
        render: Render[Alert] | None,
    ) -> CommandResult[Alert]:
        async def change(unit: UnitOfWork) -> Alert:
            await unit.get(PortfolioRepository).load(for_update=True)
            alert = await unit.get(AlertRepository).get(alert_id)
            now = self.contexts.clock()
            moved = move(alert, now)
            if moved != alert:
                await unit.get(AlertRepository).save([moved])
            if moved.resolution is not None:
                unit.announce(alert_resolved(moved, moved.resolution, now))
            return moved

        return await self.idempotency.run(command, change, render)

    async def _evaluated(self, unit: UnitOfWork) -> tuple[Evaluation, DecisionContext]:
        portfolio = await unit.get(PortfolioRepository).load()
        context = await self.contexts.of(unit)
        book = await AlertBook.load(unit, portfolio, context)
        members = portfolio_facts(portfolio, context, book.past)
        return self._seen(book, members, context), context

    def _seen(
        self, book: AlertBook, members: PortfolioFacts, context: DecisionContext
    ) -> Evaluation:
        ended = book.ended_since(context.at - LOOK_BACK)
        facts = facts_at(members, context, self.system.look(context), ended)
        return evaluate(book.active, facts, context.configuration, ended, self.new_id)

    async def _kept(self, unit: UnitOfWork) -> tuple[Evaluation, DecisionContext]:
        await unit.get(PortfolioRepository).load(for_update=True)
        seen, context = await self._evaluated(unit)
        await unit.get(AlertRepository).drop(seen.dropped)
        await unit.get(AlertRepository).save(seen.saved)
        for alert in seen.raised:
            unit.announce(alert_raised(alert, context.at))
        for alert in seen.ended:
            if alert.resolution is not None:
                unit.announce(alert_resolved(alert, alert.resolution, context.at))
        return seen, context


def _symbol(criteria: AlertFilter, context: DecisionContext) -> str | None:
    return None if criteria.symbol is None else context.resolve(criteria.symbol).symbol


def _said(alert: Alert) -> dict[str, str]:
    return {
        "rule": alert.rule.value,
        "subject": alert.subject,
        "severity": alert.severity.value,
        "id": alert.id,
    }
