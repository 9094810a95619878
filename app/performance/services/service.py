"""Books results, measures the notional portfolio and records valuation snapshots."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.decimal_math import total
from app.foundation.errors import Code, ConflictError, RefusedError
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
from app.performance.services.active_return import active_return
from app.performance.services.equity_reader import EquityHistory, EquityQuery, load_equity
from app.performance.storage.snapshots import ValuationSnapshotRepository
from app.portfolio.domain.event_log import Draft, EventType, instant_text, number_text
from app.portfolio.domain.membership import PortfolioChange
from app.portfolio.domain.models import Member, Portfolio
from app.portfolio.domain.returns import BookedResult, SinceInclusion, Trade
from app.portfolio.services.change_recorder import ChangeRecorder
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.trades import TradeRepository

_AHEAD = timedelta(minutes=5)  # tolerated clock difference


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
        """Book a result once per trade id; a repetition changes nothing.

        Raises RefusedError for an unknown symbol, another currency than the contract's, or a time
        in the future or before the first membership; ConflictError (trade_id_reused, and
        symbol_not_in_portfolio if it never was a member).
        """

        async def change(unit: UnitOfWork) -> Trade:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            # Under the lock the known state does not change.
            known = self.contexts.memory.known(self.database)
            context = self.contexts(
                await unit.get(ConfigurationRepository).current()
                if known is None
                else known.configuration
            )
            result = _result(text, claim, context)
            booked = await unit.get(TradeRepository).find(result.trade_id)
            if booked is not None:
                if booked.result != result:
                    raise ConflictError(
                        Code.TRADE_ID_REUSED, "This trade id belongs to another result already."
                    )
                return booked
            command.require_version(portfolio.version)
            _require_held(result, await _came_in(unit, portfolio, result))
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
        """Booked results, newest first. Raises RefusedError for an unknown symbol."""
        async with self.database.read() as unit:
            wanted = None
            if symbol is not None:
                context = self.contexts(await unit.get(ConfigurationRepository).current())
                wanted = context.resolve(symbol).symbol_id
            return await unit.get(TradeRepository).page(
                before_seq, limit, symbol_id=wanted, since=since, until=until
            )

    async def track(self, since: datetime | None = None) -> EquityHistory:
        """Equity at daily closes and at current marks; values before `since` may be missing."""
        async with self.database.read() as unit:
            return await load_equity(unit, self.contexts, EquityQuery(since))

    async def positions(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> tuple[tuple[PositionPerformance, ...], EquityHistory]:
        """Positions of the current members with the results booked in the period."""
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            begun = min((one.included_at for one in portfolio.members), default=None)
            track = await load_equity(
                unit, self.contexts, EquityQuery(gains_since=begun, has_days=False)
            )
            realized = await realized_in(unit, portfolio, since, until)
        return tuple(
            position_performance(one, track, realized) for one in track.portfolio.members
        ), track

    async def attribution(
        self, days: int
    ) -> tuple[tuple[Attribution, ...], ActiveReturn, DataFacts]:
        """Attribution of the index and of each booked currency over the last `days`.

        Includes the active return of the index against the universe.
        """
        async with self.database.read() as unit:
            begin = self.contexts.clock() - timedelta(days=days)
            need = EquityQuery(days_since=begin, gains_since=begin)
            track = await load_equity(unit, self.contexts, need)
            end = track.context.at
            ledgers = await attribution_ledgers(unit, track, end - timedelta(days=days), end)
        # The universe of many days takes too long for the event loop.
        beside = await asyncio.to_thread(active_return, track, end - timedelta(days=days), end)
        return ledgers, beside, track.facts


async def attribution_ledgers(
    unit: UnitOfWork, track: EquityHistory, since: datetime, until: datetime
) -> tuple[Attribution, ...]:
    """Ledgers of a period: the index, then one per currency."""
    weights = {member.symbol: member.weight_u for member in track.portfolio.members}
    late = [one.result for one in await unit.get(TradeRepository).between(since, None)]
    after = [one for one in late if one.occurred_at > since]
    totals = await unit.get(TradeRepository).totals()
    return (
        attribution_from_curve(track.curve.points, since, until, weights, track.sector),
        *attribution_from_results(totals, after, since, until, weights, track.sector),
    )


async def realized_in(
    unit: UnitOfWork, portfolio: Portfolio, since: datetime | None, until: datetime | None
) -> dict[str, Decimal]:
    """Realised results of the period by symbol id; without a period all of them."""
    if since is None and until is None:
        return await unit.get(TradeRepository).realized()
    found: dict[str, Decimal] = {}
    for trade in await unit.get(TradeRepository).between(since, until):
        one = trade.result
        found[one.symbol_id] = total((found.get(one.symbol_id, Decimal(0)), one.net))
    return found


def _result(text: str, claim: ResultSubmission, context: DecisionContext) -> BookedResult:
    entry = context.resolve(text)
    if claim.currency != entry.contract.settle:
        raise RefusedError(
            Code.VALIDATION_FAILED, f"{entry.symbol} settles in {entry.contract.settle}."
        )
    if claim.occurred_at > context.at + _AHEAD:
        now = f"{context.at:%Y-%m-%dT%H:%M:%SZ}"
        raise RefusedError(
            Code.VALIDATION_FAILED,
            f"`occurred_at` is in the future: it is {now}, and clocks may differ by five minutes.",
            facts={"field": "occurred_at"},
        )
    return BookedResult(
        trade_id=claim.trade_id,
        symbol_id=entry.symbol_id,
        symbol=entry.symbol,
        contract=entry.contract.code,
        # As read from the database, so that the first response equals later ones.
        pnl=plain(claim.pnl),
        currency=claim.currency,
        fees=plain(claim.fees),
        funding=plain(claim.funding),
        occurred_at=claim.occurred_at,
    )


async def _came_in(unit: UnitOfWork, portfolio: Portfolio, result: BookedResult) -> datetime | None:
    """Inclusion of the membership begun by `at`, else the first one; None if never a member."""
    for one in portfolio.members:
        if one.symbol_id == result.symbol_id and one.included_at <= result.occurred_at:
            return one.included_at
    stays = await unit.get(PortfolioRepository).memberships(result.symbol_id)
    return min((stay.member.included_at for stay in stays), default=None)


def _require_held(result: BookedResult, came_in: datetime | None) -> None:
    """Raises ConflictError for a symbol that never was a member, RefusedError before it was one."""
    if came_in is None:
        raise ConflictError(Code.SYMBOL_NOT_IN_PORTFOLIO, f"{result.symbol} never was a member.")
    if result.occurred_at < came_in:
        said = instant_text(came_in)
        raise RefusedError(
            Code.VALIDATION_FAILED,
            f"{result.symbol} came into the portfolio at {said}: `occurred_at` is before that.",
            facts={"field": "occurred_at", "included_at": said},
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
    member: Member, track: EquityHistory, realized: Mapping[str, Decimal]
) -> PositionPerformance:
    """A member's position now, with what was realised, by symbol id."""
    curve, mark = track.curve, track.context.mark(member.symbol)
    position = None if curve.broken else curve.positions.get(member.symbol)
    entry = track.context.market.resolve(member.symbol)
    unlike = None
    if position is not None and mark is not None:
        changes = track.context.redenominations(member.symbol)
        unlike = position.redenominated(changes, track.context.at, mark)
    reasons = (
        (curve.broken is not None, curve.broken),
        (mark is None, "its mark is not known"),
        (unlike is not None, f"it {unlike}"),
    )
    is_unpriced = position is not None and (mark is None or unlike is not None)
    unknown = curve.broken is not None or is_unpriced
    unrealized = None
    if position is not None and mark is not None and unlike is None:
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
        figures=track.context.since_inclusion(member),
        realized=realized.get(member.symbol_id),
        currency=entry.contract.settle,
        reason=next((why for applies, why in reasons if applies), None),
    )


@dataclass(frozen=True, slots=True)
class ValuationSnapshots:
    """Records scheduled valuations; times without a running service stay without one."""

    performance: Performance

    async def note(self, slot: datetime) -> ValuationSnapshot | None:
        """Valuation of a scheduled time, recorded now unless it exists.

        None without a portfolio, and for a time before its first member.
        """
        async with self.performance.database.write() as unit:
            begun = await unit.get(HistoryRepository).first_move_at()
            if begun is None or slot < begun:
                return None
            context = self.performance.contexts
            # Only the moment of now is asked for: the history is read from the last weighing on.
            track = await load_equity(unit, context, EquityQuery(has_days=False))
            if not track.days:
                return None
            now = track.days[-1]
            marks = {one.symbol: track.context.mark(one.symbol) for one in track.portfolio.members}
            mark = ValuationSnapshot(
                slot=slot,
                at=track.context.at,
                version=track.portfolio.version,
                equity=now.equity,
                reason=now.reason,
                prices={symbol: price for symbol, price in marks.items() if price is not None},
            )
            await unit.get(ValuationSnapshotRepository).note(mark)
        return mark

    async def page(
        self,
        limit: int,
        after: datetime | None,
        since: datetime | None,
        until: datetime | None,
    ) -> tuple[ValuationSnapshot, ...]:
        """Oldest first."""
        async with self.performance.database.read() as unit:
            return await unit.get(ValuationSnapshotRepository).page(limit, after, since, until)
