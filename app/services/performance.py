"""Performance: results booked once, and what the notional portfolio earned since it began."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np

from app.domain.attribution import Attribution, of_booked, of_index, total
from app.domain.equity import Curve, Day, Position, Step, Valuation, days, steps, walk
from app.domain.errors import Code, ConflictError, RefusedError
from app.domain.history import Draft, EventType, instant_text, number_text
from app.domain.market import Interval
from app.domain.membership import Change
from app.domain.performance import BookedResult, SinceInclusion, Trade
from app.domain.portfolio import Member, Portfolio
from app.services.changes import Ledger
from app.services.grounds import Grounds, GroundsNow
from app.services.once import Command, Once, Outcome, Render
from app.services.trading import DataFacts, facts_of
from app.storage.database import Database
from app.storage.types import plain
from app.storage.unit_of_work import UnitOfWork

_AHEAD = timedelta(minutes=5)  # clocks of two machines may differ by this


@dataclass(frozen=True, slots=True)
class Claim:
    """What the trading engine says of one result."""

    trade_id: str
    pnl: Decimal
    currency: str
    fees: Decimal
    funding: Decimal
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class HeldPosition:
    """A member's notional position in units of the index, and what was booked for it."""

    member: Member
    position: Position | None  # None where it has no weight, or marks were not known
    mark: Decimal | None
    unrealized: Decimal | None  # since weights were last set
    since_inclusion: Decimal | None
    figures: SinceInclusion
    realized: Decimal | None  # None where nothing was booked
    currency: str
    reason: str | None  # why a figure is not known


@dataclass(frozen=True, slots=True)
class Track:
    """The curve and what it was made of."""

    portfolio: Portfolio
    changes: tuple[Step, ...]
    valuations: tuple[Valuation, ...]
    curve: Curve
    grounds: Grounds

    @property
    def days(self) -> tuple[Day, ...]:
        return days(self.curve)

    @property
    def facts(self) -> DataFacts:
        return facts_of(self.grounds)

    def sector(self, symbol: str) -> str:
        quote = self.grounds.market.quote(symbol)
        return "unknown" if quote is None else quote.sector


@dataclass(frozen=True, slots=True)
class Performance:
    """Books results and measures; nothing here decides."""

    database: Database
    grounds: GroundsNow
    once: Once
    ledger: Ledger

    async def book(
        self,
        text: str,
        claim: Claim,
        reason: str,
        command: Command,
        render: Render[Trade] | None = None,
    ) -> Outcome[Trade]:
        """The result in the history, once per trade id; the same content again changes nothing.

        Raises RefusedError for an unknown symbol, another currency than the contract's, or a time
        to come; ConflictError (trade_id_reused, symbol_not_in_portfolio if it never was a member).
        """

        async def change(unit: UnitOfWork) -> Trade:
            portfolio = await unit.portfolio.load(for_update=True)
            grounds = self.grounds(await unit.configuration.current())
            result = _result(text, claim, grounds)
            booked = await unit.trades.find(result.trade_id)
            if booked is not None:
                if booked.result != result:
                    raise ConflictError(
                        Code.TRADE_ID_REUSED, "This trade id belongs to another result already."
                    )
                return booked
            command.require_version(portfolio.version)
            if not await unit.portfolio.memberships(result.symbol_id):
                raise ConflictError(
                    Code.SYMBOL_NOT_IN_PORTFOLIO, f"{result.symbol} never was a member."
                )
            draft = Draft(EventType.PERFORMANCE, result.symbol, None, _payload(result), reason)
            done = Change(portfolio, ()).then(draft, grounds.at)
            events = await self.ledger.commit(unit, portfolio, done, grounds, command)
            trade = Trade(result, events[-1].seq, grounds.at)
            await unit.trades.book(trade)
            return trade

        return await self.once.run(command, change, render)

    async def trades(
        self,
        before_seq: int | None,
        limit: int,
        *,
        symbol: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> tuple[Trade, ...]:
        """Last booked first; raises RefusedError for a symbol that is not known."""
        async with self.database.read() as unit:
            wanted = None
            if symbol is not None:
                grounds = self.grounds(await unit.configuration.current())
                wanted = grounds.resolve(symbol).symbol_id
            return await unit.trades.page(
                before_seq, limit, symbol_id=wanted, since=since, until=until
            )

    async def track(self) -> Track:
        """The equity from the first member on, valued at closes of days and at the marks of now."""
        async with self.database.read() as unit:
            return await self.load(unit)

    async def positions(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> tuple[tuple[HeldPosition, ...], Track]:
        """Of the present members; booked results of those that occurred in the period."""
        async with self.database.read() as unit:
            track = await self.load(unit)
            booked = [trade.result for trade in await unit.trades.between(since, until)]
        return tuple(held(one, track, booked) for one in track.portfolio.members), track

    async def attribution(self, days: int) -> tuple[tuple[Attribution, ...], DataFacts]:
        """The index and each currency that results were booked in, over the last `days`."""
        async with self.database.read() as unit:
            track = await self.load(unit)
            booked = [trade.result for trade in await unit.trades.between(None, None)]
        end = track.grounds.at
        return attributed(track, booked, end - timedelta(days=days), end), track.facts

    async def load(self, unit: UnitOfWork) -> Track:
        """The same within a transaction of the caller."""
        portfolio = await unit.portfolio.load()
        changes = steps(await unit.history.all())
        grounds = self.grounds(await unit.configuration.current())
        symbols = {symbol for change in changes for symbol in change.weights}
        now = Valuation(grounds.at, _marks(symbols, grounds))
        valuations = (*_closes(symbols, grounds), now)
        return Track(portfolio, changes, valuations, walk(changes, valuations), grounds)


def attributed(
    track: Track, booked: Sequence[BookedResult], since: datetime, until: datetime
) -> tuple[Attribution, ...]:
    """The ledgers of a period: the index, then one for each currency."""
    weights = {member.symbol: member.weight_u for member in track.portfolio.members}
    return (
        of_index(track.curve.points, since, until, weights, track.sector),
        *of_booked(booked, since, until, weights, track.sector),
    )


def _result(text: str, claim: Claim, grounds: Grounds) -> BookedResult:
    entry = grounds.resolve(text)
    if claim.currency != entry.contract.settle:
        raise RefusedError(
            Code.VALIDATION_FAILED, f"{entry.symbol} settles in {entry.contract.settle}."
        )
    if claim.occurred_at > grounds.at + _AHEAD:
        raise RefusedError(Code.VALIDATION_FAILED, "A result that is still to come is no result.")
    return BookedResult(
        trade_id=claim.trade_id,
        symbol_id=entry.symbol_id,
        symbol=entry.symbol,
        contract=entry.contract.code,
        # As the database gives them back, so that the first answer is like the later ones.
        pnl=plain(claim.pnl),
        currency=claim.currency,
        fees=plain(claim.fees),
        funding=plain(claim.funding),
        occurred_at=claim.occurred_at,
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


def held(member: Member, track: Track, booked: Sequence[BookedResult]) -> HeldPosition:
    """A member's position now, with what `booked` has of it."""
    curve, mark = track.curve, track.grounds.mark(member.symbol)
    position = None if curve.broken else curve.positions.get(member.symbol)
    own = [one for one in booked if one.symbol_id == member.symbol_id]
    entry = track.grounds.market.resolve(member.symbol)
    reasons = (
        (curve.broken is not None, curve.broken),
        (mark is None, "its mark is not known"),
    )
    unknown = curve.broken is not None or (position is not None and mark is None)
    unrealized = None
    if position is not None and mark is not None:
        unrealized = position.at_price(mark) - position.notional
    gains = total(
        point.gains.get(member.symbol, Decimal(0))
        for point in curve.points
        if point.at > member.included_at
    )
    return HeldPosition(
        member=member,
        position=position,
        mark=mark,
        unrealized=unrealized,
        since_inclusion=None if unknown else gains,
        figures=track.grounds.since_inclusion(member),
        realized=total(one.net for one in own) if own else None,
        currency=entry.contract.settle,
        reason=next((why for applies, why in reasons if applies), None),
    )


def _marks(symbols: set[str], grounds: Grounds) -> dict[str, Decimal]:
    marks = {symbol: grounds.mark(symbol) for symbol in symbols}
    return {symbol: mark for symbol, mark in marks.items() if mark is not None and mark > 0}


def _closes(symbols: set[str], grounds: Grounds) -> tuple[Valuation, ...]:
    """The close of every day of the panel that is over, for the symbols that have one."""
    panel = grounds.market.panel(Interval.DAY)
    if panel is None:
        return ()
    columns = [(name, at) for at, name in enumerate(panel.symbols) if name in symbols]
    epoch = datetime.fromtimestamp(0, grounds.at.tzinfo)
    found = []
    for row, opened in enumerate(panel.opened_ms.tolist()):
        at = epoch + timedelta(milliseconds=opened + panel.interval.ms)
        closes = ((name, float(panel.close[row, column])) for name, column in columns)
        prices = {
            name: Decimal(repr(close)) for name, close in closes if np.isfinite(close) and close > 0
        }
        if at < grounds.at:
            found.append(Valuation(at, prices))
    return tuple(found)
