"""Books results, values the notional portfolio and records valuation snapshots."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.decimal_math import total
from app.foundation.errors import Code, ConflictError, RefusedError
from app.foundation.hash_chain import instant_text
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.schema import plain
from app.performance.domain.attribution import (
    ActiveReturn,
    Attribution,
    attribution_from_curve,
    attribution_from_results,
)
from app.performance.domain.equity_curve import Position, ValuationSnapshot
from app.performance.services.active_return import compute_active_return
from app.performance.services.equity_reader import EquityHistory, EquityQuery, load_equity
from app.performance.storage.snapshots import ValuationSnapshotRepository
from app.portfolio.domain.event_log import Draft, EventType, number_text
from app.portfolio.domain.membership import PortfolioChange
from app.portfolio.domain.models import Member, Portfolio
from app.portfolio.domain.returns import BookedResult, BookedTotal, SinceInclusion, Trade
from app.portfolio.services.change_recorder import ChangeRecorder
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.trades import TradeRepository

_MAX_CLOCK_SKEW = timedelta(minutes=5)  # tolerated clock difference


@dataclass(frozen=True, slots=True)
class ResultSubmission:
    """Result reported by the trading engine."""

    trade_id: str
    pnl: Decimal
    currency: str
    fees: Decimal
    funding: Decimal
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class PositionPerformance:
    """Notional position of a member in units of the index, with its booked results."""

    member: Member
    position: Position | None  # None without weight or known marks
    mark: Decimal | None
    unrealized: Decimal | None  # since weights were last set
    since_inclusion: Decimal | None
    figures: SinceInclusion
    realized: Decimal | None  # None without booked results
    booked: BookedTotal | None  # since inclusion; None without booked results
    currency: str
    reason: str | None  # reason for an unknown figure


@dataclass(frozen=True, slots=True)
class Performance:
    """Use cases of results, positions, equity and attribution."""

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    recorder: ChangeRecorder

    async def book(
        self,
        text: str,
        claim: ResultSubmission,
        reason: str,
        command: Command,
        render: Render[Trade] | None = None,
    ) -> CommandResult[Trade]:
        """Books a result once per trade id; a repetition changes nothing.

        Raises RefusedError for an unknown symbol, another currency than the contract's, or a time
        in the future or before the first membership; ConflictError (trade_id_reused, and
        symbol_not_in_portfolio if it never was a member).
        """

        async def change(unit: UnitOfWork) -> Trade:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            # Under the lock the cached state does not change.
            cached = self.contexts.memory.known(self.database)
            context = self.contexts(
                await unit.get(ConfigurationRepository).current()
                if cached is None
                else cached.configuration
            )
            result = _result(text, claim, context)
            booked = await unit.get(TradeRepository).find(result.trade_id)
            if booked is not None:
                if booked.result != result:
                    raise ConflictError(
                        Code.TRADE_ID_REUSED, "This trade id already belongs to another result."
                    )
                return booked
            command.require_version(portfolio.version)
            _require_member(result, await _find_inclusion(unit, portfolio, result))
            draft = Draft(EventType.PERFORMANCE, result.symbol, None, _payload(result), reason)
            done = PortfolioChange(portfolio, ()).then(draft, context.at)
            events = await self.recorder.commit(unit, portfolio, done, context, command)
            trade = Trade(result, events[-1].seq, context.at)
            await unit.get(TradeRepository).book(trade)
            return trade

        return await self.idempotency.run(command, change, render)

    async def trades(
        self,
        before_seq: int | None,
        limit: int,
        *,
        symbol: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[Trade, ...]:
        """Returns booked results, newest first. Raises RefusedError for an unknown symbol."""
        async with self.database.read() as unit:
            symbol_id = None
            if symbol is not None:
                context = self.contexts(await unit.get(ConfigurationRepository).current())
                symbol_id = context.resolve(symbol).symbol_id
            return await unit.get(TradeRepository).page(
                before_seq, limit, symbol_id=symbol_id, since=since, until=until
            )

    async def load_history(self, since: datetime | None = None) -> EquityHistory:
        """Loads the equity at daily closes and current marks; earlier values may be missing."""
        async with self.database.read() as unit:
            return await load_equity(unit, self.contexts, EquityQuery(since))

    async def positions(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> tuple[tuple[PositionPerformance, ...], EquityHistory]:
        """Returns positions of the current members with the results booked in the period."""
        known = await self.contexts.memory.newest(self.database)
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            begun = min((one.included_at for one in portfolio.members), default=None)
            history = await load_equity(
                unit, self.contexts, EquityQuery(gains_since=begun, has_days=False)
            )
            realized = await load_realized(unit, portfolio, since, until)
            booked = await unit.get(TradeRepository).since_inclusion(
                history.portfolio.members, known.booked
            )
        return tuple(
            position_performance(one, history, realized, booked.totals)
            for one in history.portfolio.members
        ), history

    async def attribution(
        self, days: int
    ) -> tuple[tuple[Attribution, ...], ActiveReturn, DataFacts]:
        """Returns the attribution of the index and of each booked currency over the last `days`.

        Includes the active return of the index against the universe.
        """
        async with self.database.read() as unit:
            begin = self.contexts.clock() - timedelta(days=days)
            query = EquityQuery(days_since=begin, gains_since=begin)
            history = await load_equity(unit, self.contexts, query)
            end = history.context.at
            ledgers = await attribution_ledgers(unit, history, end - timedelta(days=days), end)
        # In a thread, because a universe of many days would block the event loop.
        active = await asyncio.to_thread(
            compute_active_return, history, end - timedelta(days=days), end
        )
        return ledgers, active, history.facts


async def attribution_ledgers(
    unit: UnitOfWork, history: EquityHistory, since: datetime, until: datetime
) -> tuple[Attribution, ...]:
    """Returns the ledgers of a period: the index, then one per currency."""
    weights = {member.symbol: member.weight_u for member in history.portfolio.members}
    late = [one.result for one in await unit.get(TradeRepository).between(since, None)]
    after = [one for one in late if one.occurred_at > since]
    totals = await unit.get(TradeRepository).totals()
    return (
        attribution_from_curve(history.curve.points, since, until, weights, history.sector),
        *attribution_from_results(totals, after, since, until, weights, history.sector),
    )


async def load_realized(
    unit: UnitOfWork, portfolio: Portfolio, since: datetime | None, until: datetime | None
) -> dict[str, Decimal]:
    """Loads the realised results of the period by symbol id; without a period all of them."""
    if since is None and until is None:
        return await unit.get(TradeRepository).realized()
    realized: dict[str, Decimal] = {}
    for trade in await unit.get(TradeRepository).between(since, until):
        result = trade.result
        known = realized.get(result.symbol_id, Decimal(0))
        realized[result.symbol_id] = total((known, result.net))
    return realized


def _result(text: str, claim: ResultSubmission, context: DecisionContext) -> BookedResult:
    entry = context.resolve(text)
    if claim.currency != entry.contract.settle:
        raise RefusedError(
            Code.VALIDATION_FAILED,
            f"`currency` must be {entry.contract.settle}: {entry.symbol} settles in it.",
            field="currency",
        )
    if claim.occurred_at > context.at + _MAX_CLOCK_SKEW:
        now = f"{context.at:%Y-%m-%dT%H:%M:%SZ}"
        raise RefusedError(
            Code.VALIDATION_FAILED,
            f"`occurred_at` is more than five minutes after the current time {now}.",
            facts={"field": "occurred_at"},
            field="occurred_at",
        )
    return BookedResult(
        trade_id=claim.trade_id,
        symbol_id=entry.symbol_id,
        symbol=entry.symbol,
        contract=entry.contract.code,
        # In the form read from the database, so that the first response equals later ones.
        pnl=plain(claim.pnl),
        currency=claim.currency,
        fees=plain(claim.fees),
        funding=plain(claim.funding),
        occurred_at=claim.occurred_at,
    )


async def _find_inclusion(
    unit: UnitOfWork, portfolio: Portfolio, result: BookedResult
) -> datetime | None:
    """Inclusion of the membership at the result's time, else the first one; None without any."""
    for member in portfolio.members:
        if member.symbol_id == result.symbol_id and member.included_at <= result.occurred_at:
            return member.included_at
    past = await unit.get(PortfolioRepository).memberships(result.symbol_id)
    return min((membership.member.included_at for membership in past), default=None)


def _require_member(result: BookedResult, included_at: datetime | None) -> None:
    """Raises ConflictError for a symbol without membership, RefusedError before the first one."""
    if included_at is None:
        raise ConflictError(
            Code.SYMBOL_NOT_IN_PORTFOLIO, f"{result.symbol} has never been a member."
        )
    if result.occurred_at < included_at:
        text = instant_text(included_at)
        raise RefusedError(
            Code.VALIDATION_FAILED,
            f"`occurred_at` is before the inclusion of {result.symbol} at {text}.",
            facts={"field": "occurred_at", "included_at": text},
            field="occurred_at",
        )


def _payload(result: BookedResult) -> dict[str, object]:
    return {
        "trade": {
            "trade_id": result.trade_id,
            "symbol_id": result.symbol_id,
            "contract": result.contract,
            "pnl": number_text(result.pnl),
            "currency": result.currency,
            "fees": number_text(result.fees),
            "funding": number_text(result.funding),
            "net": number_text(result.net),
            "occurred_at": instant_text(result.occurred_at),
        }
    }


def position_performance(
    member: Member,
    history: EquityHistory,
    realized: Mapping[str, Decimal],
    booked: Mapping[str, BookedTotal],
) -> PositionPerformance:
    """Returns a member's position now.

    `realized` holds realised results of a period, `booked` those since inclusion, by symbol id.
    """
    curve, mark = history.curve, history.context.mark(member.symbol)
    position = None if curve.broken else curve.positions.get(member.symbol)
    entry = history.context.market.resolve(member.symbol)
    redenominated = None
    if position is not None and mark is not None:
        changes = history.context.redenominations(member.symbol)
        redenominated = position.redenominated(changes, history.context.at, mark)
    reasons = (
        (curve.broken is not None, curve.broken),
        (mark is None, "its mark price is unknown"),
        (redenominated is not None, f"it {redenominated}"),
    )
    is_unpriced = position is not None and (mark is None or redenominated is not None)
    unknown = curve.broken is not None or is_unpriced
    unrealized = None
    if position is not None and mark is not None and redenominated is None:
        unrealized = position.at_price(mark) - position.notional
    gains = total(
        point.gains.get(member.symbol, Decimal(0))
        for point in curve.points
        if point.at > member.included_at
    )
    return PositionPerformance(
        member=member,
        position=position,
        mark=mark,
        unrealized=unrealized,
        since_inclusion=None if unknown else gains,
        figures=history.context.since_inclusion(member),
        realized=realized.get(member.symbol_id),
        booked=booked.get(member.symbol_id),
        currency=entry.contract.settle,
        reason=next((reason for applies, reason in reasons if applies), None),
    )


@dataclass(frozen=True, slots=True)
class ValuationSnapshots:
    """Records scheduled valuations; times without a running service have none."""

    performance: Performance

    async def record(self, slot: datetime) -> ValuationSnapshot | None:
        """Returns the valuation of a scheduled time, recorded now unless it exists.

        Returns None without a portfolio, and for a time before its first member.
        """
        async with self.performance.database.write() as unit:
            begun = await unit.get(HistoryRepository).first_move_at()
            if begun is None or slot < begun:
                return None
            context = self.performance.contexts
            # Without days, so that the history is read from the last rebalance on.
            history = await load_equity(unit, context, EquityQuery(has_days=False))
            if not history.days:
                return None
            now = history.days[-1]
            marks = {
                one.symbol: history.context.mark(one.symbol) for one in history.portfolio.members
            }
            snapshot = ValuationSnapshot(
                slot=slot,
                at=history.context.at,
                version=history.portfolio.version,
                equity=now.equity,
                reason=now.reason,
                prices={symbol: price for symbol, price in marks.items() if price is not None},
            )
            await unit.get(ValuationSnapshotRepository).record(snapshot)
        return snapshot

    async def page(
        self,
        limit: int,
        after: datetime | None,
        since: datetime | None,
        until: datetime | None,
    ) -> tuple[ValuationSnapshot, ...]:
        """Returns snapshots, oldest first, after the slot `after`, in [since, until)."""
        async with self.performance.database.read() as unit:
            return await unit.get(ValuationSnapshotRepository).page(limit, after, since, until)
