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
from app.alerts.domain.rules import RULES, ActiveRule, activate_rule
from app.alerts.services.alert_replay import EvaluationInputs, record_alerts
from app.alerts.services.facts import (
    PairCorrelations,
    ScoreHistory,
    UnknownSystem,
    collect_facts,
    load_pair_correlations,
    load_score_history,
    portfolio_facts,
)
from app.alerts.storage.alerts import LOOKBACK, AlertMark, AlertRepository
from app.configuration.domain.document import Complaint, ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import Severity
from app.configuration.services.current import ConfigurationChanges
from app.foundation.concurrency import SingleFlight
from app.foundation.decision_log import DecisionLog
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
from app.security.domain.audit import SecurityEventKind
from app.security.domain.bursts import Burst
from app.security.storage.audit import SecurityEventRepository


@dataclass(frozen=True, slots=True)
class AlertBook:
    """Stored alerts and the score history of the members."""

    active: tuple[Alert, ...]
    ended: Mapping[Key, ResolvedAlert]
    history: ScoreHistory
    bursts: tuple[Burst, ...]  # of failed authentications

    @classmethod
    async def load(
        cls,
        unit: UnitOfWork,
        portfolio: Portfolio,
        context: DecisionContext,
        before: ScoreHistory | None = None,
    ) -> "AlertBook":
        """Loads the book in a transaction; `before` as in `load_score_history`."""
        return cls(
            await unit.get(AlertRepository).active(),
            await unit.get(AlertRepository).ended(context.at - LOOKBACK),
            await load_score_history(unit, portfolio, context.configuration, context.at, before),
            await unit.get(SecurityEventRepository).bursts(),
        )

    def ended_since(self, since: datetime) -> dict[Key, ResolvedAlert]:
        """Ends after `since`; the book may be older than that."""
        return {key: end for key, end in self.ended.items() if end.at > since}


@dataclass(slots=True)
class AlertBookCache:
    """Cache of the newest alert book, read again only after one of its tables has changed.

    Without other processes, a count of own commits avoids queries; otherwise one statement reads
    the mark of the tables.
    """

    _cached: tuple[int | None, AlertMark, PortfolioState, AlertBook] | None = None
    _views: ViewCache = field(default_factory=ViewCache)

    async def load(
        self, database: Database, state: PortfolioState, context: DecisionContext
    ) -> AlertBook:
        """Loads the book with every commit before the call. Raises UnavailableError."""
        # Counted before reading, so that a commit during the read invalidates the cache.
        commits, cached = database.commits, self._cached
        is_of_state = cached is not None and cached[2] is state
        if cached is not None and is_of_state and commits is not None and cached[0] == commits:
            return cached[3]
        async with database.read() as unit:
            mark = await unit.get(AlertRepository).mark()
            if cached is not None and is_of_state and cached[1] == mark:
                book = cached[3]
            else:
                before = cached[3].history if cached is not None and is_of_state else None
                book = await AlertBook.load(unit, state.portfolio, context, before)
        self._cached = (commits, mark, state, book)
        return book

    def pairs(self, state: PortfolioState, context: DecisionContext) -> PairCorrelations:
        """Returns cached correlations of the members, as costly as all other facts together."""
        portfolio, panel = state.portfolio, context.market.panel(Interval.DAY)
        key = (portfolio.members, panel, context.configuration)
        return self._views.get("pairs", key, lambda: load_pair_correlations(portfolio, context))


@dataclass(frozen=True, slots=True)
class AlertRuleService:
    """Use cases of alert rules; a change is a new version of the business settings."""

    configuration: ConfigurationChanges

    async def all(self) -> tuple[tuple[ActiveRule, ...], int]:
        """Returns every rule and the version of the settings."""
        settings = await self.configuration.current()
        return tuple(activate_rule(rule, settings) for rule in AlertRule), settings.version

    async def change(
        self,
        rule: AlertRule,
        wanted: Mapping[str, object],
        reason: str,
        command: Command,
        render: Render[Configuration] | None = None,
    ) -> CommandResult[Configuration]:
        """Changes a rule.

        `wanted` may name enabled, severity, duration_s, cooldown_s, limit and clear_limit.

        Raises ConfigurationRefusedError for invalid values, and the errors of a settings change.
        """
        present = await self.configuration.current()
        changes = settings_change(rule, wanted, present)
        return await self.configuration.put(changes, reason, command, render)


def settings_change(
    rule: AlertRule, wanted: Mapping[str, object], present: Configuration
) -> dict[str, Any]:
    """Converts a rule change to a settings change; a clear limit becomes a clear margin."""
    own = dict(wanted)
    active_rule = activate_rule(rule, present)
    numeric = [name for name in ("limit", "clear_limit") if name in own]
    if (
        active_rule.side is ThresholdSide.STATE
        and not hasattr(active_rule.settings, "limit")
        and numeric
    ):
        raise _refused(numeric[0], "unknown_key", f"{rule.value} is a state and has no limit")
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
        own["clear_margin"] = _margin(
            active_rule, limit if limit is not None else active_rule.limit, clear
        )
    if own:
        changes.setdefault("alerts", {})["rules"] = {rule.value: own}
    return changes


def _margin(active_rule: ActiveRule, limit: object, clear: object) -> float:
    numbers = [float(value) for value in (limit, clear) if isinstance(value, int | float)]
    if len(numbers) < 2:
        raise _refused("clear_limit", "number_type", "clear_limit must be a number")
    margin = (
        numbers[0] - numbers[1]
        if active_rule.side is ThresholdSide.ABOVE
        else numbers[1] - numbers[0]
    )
    if margin < 0.0:
        side = "above" if active_rule.side is ThresholdSide.ABOVE else "below"
        raise _refused("clear_limit", "order", f"clear_limit must not be {side} limit")
    return round(margin, 9)


def _refused(loc: str, kind: str, message: str) -> ConfigurationRefusedError:
    return ConfigurationRefusedError(Code.VALIDATION_FAILED, (Complaint(loc, kind, message),))


_log = structlog.get_logger("alerts")

MAX_SNOOZE: Final = timedelta(days=30)
ACTIVE: Final = frozenset(AlertState) - {AlertState.RESOLVED}


class SystemFactSource(Protocol):
    """Port to facts about the service and its exchange."""

    def collect(self, context: DecisionContext) -> SystemFacts: ...


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

    Evaluations in one process are serialized. Before saving, an evaluation is repeated under the
    portfolio's lock, so that it includes changes of other processes.
    """

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    new_id: NewId
    system: SystemFactSource = field(default_factory=UnknownSystem)
    decisions: DecisionLog = DecisionLog()  # noqa: RUF009  # the default is frozen
    _books: AlertBookCache = field(default_factory=AlertBookCache)
    _single_flight: SingleFlight[tuple[tuple[Alert, ...], DecisionContext]] = field(
        default_factory=SingleFlight
    )

    async def evaluate(self) -> tuple[tuple[Alert, ...], DecisionContext]:
        """Evaluates all rules, stores changes and returns the unresolved alerts.

        If the database cannot be written, the result is returned and stored by the next evaluation.
        Calls during an evaluation share the next one.
        """
        return await self._single_flight(self._evaluate_once)

    async def _evaluate_once(self) -> tuple[tuple[Alert, ...], DecisionContext]:
        state, context = await self.contexts.present(self.database)
        book = await self._books.load(self.database, state, context)
        pairs = self._books.pairs(state, context)
        members = portfolio_facts(state.portfolio, context, book.history, pairs)
        evaluation, _ = self._evaluate_facts(book, members, context)
        if not evaluation.has_changes:
            return evaluation.active, context
        try:
            evaluation, context = await self.database.run(self._evaluate_and_save)
        except (ConflictError, UnavailableError) as error:
            _log.warning("alerts_not_saved", cause=str(error.code))
            return evaluation.active, context
        for alert in evaluation.raised:
            _log.warning("alert_raised", **_log_fields(alert))
        for alert in evaluation.ended:
            _log.info("alert_ended", **_log_fields(alert))
        return evaluation.active, context

    async def list(self, criteria: AlertFilter) -> tuple[tuple[Alert, ...], DataFacts]:
        """Returns active alerts of one state, critical first.

        Raises RefusedError for an unknown symbol.
        """
        active, context = await self.evaluate()
        symbol = _symbol(criteria, context)
        alerts = tuple(
            alert
            for alert in active
            if alert.state is criteria.state
            and criteria.rule in {None, alert.rule}
            and criteria.severity in {None, alert.severity}
            and (symbol is None or symbol in alert.symbols)
        )
        return alerts, describe_data(context)

    async def load_resolved(
        self, criteria: AlertFilter, limit: int, before: tuple[datetime, str] | None = None
    ) -> tuple[tuple[Alert, ...], DataFacts]:
        """Returns resolved alerts, newest first. Raises RefusedError for an unknown symbol."""
        _, context = await self.evaluate()
        symbol = _symbol(criteria, context)
        async with self.database.read() as unit:
            alerts = await unit.get(AlertRepository).resolved(
                limit, before, criteria.rule, criteria.severity, symbol
            )
        return alerts, describe_data(context)

    async def get(self, alert_id: str) -> Alert:
        """Returns one alert. Raises NotFoundError."""
        active, _ = await self.evaluate()
        for alert in active:  # newer than the stored row
            if alert.id == alert_id:
                return alert
        async with self.database.read() as unit:
            return await unit.get(AlertRepository).get(alert_id)

    async def acknowledge(
        self, alert_id: str, command: Command, render: Render[Alert] | None = None
    ) -> CommandResult[Alert]:
        """Acknowledges an alert. Raises NotFoundError, ConflictError(alert_state)."""
        return await self._transition(
            alert_id,
            command,
            "acknowledged",
            lambda alert, now: alert.acknowledge(now, command.author),
            render,
        )

    async def snooze(
        self,
        alert_id: str,
        until: datetime | timedelta,
        command: Command,
        render: Render[Alert] | None = None,
    ) -> CommandResult[Alert]:
        """Snoozes an alert until a time or for a duration; it reopens while its cause lasts.

        Raises RefusedError for an end in the past or more than 30 days ahead,
        NotFoundError, ConflictError(alert_state).
        """

        def apply_snooze(alert: Alert, now: datetime) -> Alert:
            end = now + until if isinstance(until, timedelta) else until
            if not now < end <= now + MAX_SNOOZE:
                raise RefusedError(
                    Code.VALIDATION_FAILED,
                    "A snooze must end in the future, within 30 days.",
                    field="until",
                )
            return alert.snooze(end, command.author)

        return await self._transition(alert_id, command, "snoozed", apply_snooze, render)

    async def resolve(
        self, alert_id: str, command: Command, render: Render[Alert] | None = None
    ) -> CommandResult[Alert]:
        """Resolves an alert; while its cause lasts it reopens after the cooldown.

        Raises NotFoundError, ConflictError(alert_state).
        """
        return await self._transition(
            alert_id,
            command,
            "resolved",
            lambda alert, now: alert.resolve(now, Resolution.OPERATOR, command.author),
            render,
        )

    async def delete_old(self, max_age: timedelta) -> int:
        """Deletes alerts resolved longer ago than `max_age`; returns their number."""
        async with self.database.write(BULK_STATEMENT_S) as unit:
            return await unit.get(AlertRepository).delete_old(self.contexts.clock() - max_age)

    async def _transition(
        self,
        alert_id: str,
        command: Command,
        code: str,
        transition: Callable[[Alert, datetime], Alert],
        render: Render[Alert] | None,
    ) -> CommandResult[Alert]:
        async def change(unit: UnitOfWork) -> Alert:
            await unit.get(PortfolioRepository).load(for_update=True)
            alert = await unit.get(AlertRepository).get(alert_id)
            now = self.contexts.clock()
            changed = transition(alert, now)
            if changed != alert:
                await unit.get(AlertRepository).save([changed])
            if changed.resolution is not None:
                unit.publish_after_commit(alert_resolved(changed, changed.resolution, now))
            return changed

        audited = command.audited(
            SecurityEventKind.ALERT_CHANGED,
            code,
            alert_id,
            lambda alert: {"rule": alert.rule.value, "subject": alert.subject},
        )
        return await self.idempotency.run(audited, change, render)

    async def _evaluate_stored(
        self, unit: UnitOfWork
    ) -> tuple[Evaluation, EvaluationInputs, DecisionContext]:
        portfolio = await unit.get(PortfolioRepository).load()
        context = await self.contexts.of(unit)
        book = await AlertBook.load(unit, portfolio, context)
        members = portfolio_facts(portfolio, context, book.history)
        return *self._evaluate_facts(book, members, context), context

    def _evaluate_facts(
        self, book: AlertBook, members: PortfolioFacts, context: DecisionContext
    ) -> tuple[Evaluation, EvaluationInputs]:
        ended = book.ended_since(context.at - LOOKBACK)
        facts = collect_facts(members, context, self.system.collect(context), ended, book.bursts)
        settings = context.configuration
        evaluation = evaluate(book.active, facts, settings, ended, self.new_id)
        return evaluation, EvaluationInputs(book.active, facts, ended, settings.version)

    async def _evaluate_and_save(self, unit: UnitOfWork) -> tuple[Evaluation, DecisionContext]:
        await unit.get(PortfolioRepository).load(for_update=True)
        evaluation, inputs, context = await self._evaluate_stored(unit)
        await unit.get(AlertRepository).drop(evaluation.dropped)
        await unit.get(AlertRepository).save(evaluation.saved)
        await record_alerts(unit, self.decisions, evaluation, inputs)
        for alert in evaluation.raised:
            unit.publish_after_commit(alert_raised(alert, context.at))
        for alert in evaluation.ended:
            if alert.resolution is not None:
                unit.publish_after_commit(alert_resolved(alert, alert.resolution, context.at))
        return evaluation, context


def _symbol(criteria: AlertFilter, context: DecisionContext) -> str | None:
    return None if criteria.symbol is None else context.resolve(criteria.symbol).symbol


def _log_fields(alert: Alert) -> dict[str, str]:
    return {
        "rule": alert.rule.value,
        "subject": alert.subject,
        "severity": alert.severity.value,
        "id": alert.id,
    }
