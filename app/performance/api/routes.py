"""Routes of booked results, positions, equity, trades and attribution."""

from decimal import Decimal
from typing import Annotated, Any, Self

from fastapi import Query
from pydantic import Field
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import EXPENSIVE, CommandDep, CursorsDep, Provided, by
from app.foundation.http.errors import problems
from app.foundation.http.pagination import (
    Cursors,
    From,
    Page,
    To,
    after,
    cut,
    moment,
    named_period,
    require_order,
)
from app.foundation.http.permissions import requires
from app.foundation.http.representations import rows_in
from app.foundation.http.request_body import DecimalIn
from app.foundation.http.response_cache import cacheable
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DEFAULT_REASON,
    NAMES,
    ChangeRequest,
    CursorText,
    Freshness,
    IndexUnits,
    Limit,
    Out,
    Price,
    QueryInt,
    SymbolPath,
    TimeIn,
    UtcTime,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role
from app.foundation.state_version import Input
from app.performance.api.schemas import (
    LATE_MARKS,
    ActiveOut,
    DayOut,
    LateMarkOut,
    LedgerOut,
    PositionOut,
    TradeOut,
)
from app.performance.domain.equity_curve import ValuationSnapshot
from app.performance.services.service import Performance, ResultSubmission, ValuationSnapshots
from app.portfolio.api.schemas import freshness
from app.portfolio.domain.returns import Trade

router = api_router("portfolio", "/portfolio")

Amount = Annotated[DecimalIn, Field(ge=-(10**15), le=10**15, decimal_places=18)]


class ResultIn(ChangeRequest):
    """Realised result; amounts are in the settlement currency of the contract."""

    trade_id: str = Field(
        pattern=r"^[\x21-\x7e]{1,128}$",
        examples=["fill-20260301-17"],
        description="Identifier of the trade, visible ASCII; it is booked once.",
    )
    pnl: Amount = Field(description="Price P&L before fees and funding.")
    currency: str = Field(
        pattern=r"^[A-Za-z0-9]{1,16}$",
        examples=["USDT"],
        description="Settlement currency of the contract.",
    )
    fees: Amount = Field(Decimal(0), description="Fees paid; a rebate is negative.")
    funding: Amount = Field(Decimal(0), description="Received; paid funding is negative.")
    occurred_at: TimeIn = Field(description="Time of the trade, with a time zone.")


class PositionsOut(Freshness):
    version: int = Field(description="Portfolio version.")
    positions: list[PositionOut] = Field(description="Positions by rank.")


class EquityOut(Freshness):
    """Equity of the notional index, which starts at 1 with the first member."""

    items: list[DayOut] = Field(description="Points of the curve, oldest first.")
    next_cursor: str | None = Field(description="Pass as `cursor` to get the next page.")
    late_marks: list[LateMarkOut] = Field(description=LATE_MARKS)


class AttributionOut(Freshness):
    """Ledgers of the notional index and of each currency with booked results."""

    days: int = Field(description="Length of the period, in days.")
    ledgers: list[LedgerOut] = Field(
        description="Ledgers: the index, then each currency with booked results."
    )
    active: ActiveOut = Field(description="Active return against the equal-weighted universe.")


@router.post(
    "/symbols/{symbol}/performance",
    summary="Book a realised result",
    status_code=201,
    response_model=TradeOut,
    responses=problems(Code.SYMBOL_NOT_IN_PORTFOLIO, Code.TRADE_ID_REUSED, *NAMES, *CHANGES),
)
@requires(Role.TRADER)
async def book_trade(
    performance: Provided[Performance], command: CommandDep, symbol: SymbolPath, body: ResultIn
) -> Response:
    """Book a result once per trade id; a repetition gives the same response, other content 409.

    The symbol is or was a member. The history records a PERFORMANCE event. A time before the
    inclusion of the member, or more than five minutes in the future, is refused: 422
    `validation_failed` with `field` and, for the former, `included_at`.
    """
    claim = ResultSubmission(
        body.trade_id, body.pnl, body.currency, body.fees, body.funding, body.occurred_at
    )

    def render(trade: Trade) -> StoredResponse:
        return keep(TradeOut.of(trade), 201)

    return sent(
        await performance.book(
            symbol, claim, body.reason or DEFAULT_REASON, by(command, body.user), render
        )
    )


@router.get("/positions", summary="Positions")
@rows_in("positions")
@requires(Role.VIEWER)
async def list_positions(
    performance: Provided[Performance], since: From = None, to: To = None
) -> PositionsOut:
    """Notional positions at current mark prices with the results booked in the period."""
    require_order(since, to)
    held, history = await performance.positions(since, to)
    return PositionsOut(
        version=history.portfolio.version,
        positions=[PositionOut.of(one) for one in held],
        **freshness(history.facts),
    )


@router.get("/equity", summary="Equity curve and daily P&L", dependencies=EXPENSIVE)
@requires(Role.VIEWER)
async def get_equity_curve(
    performance: Provided[Performance],
    cursors: CursorsDep,
    since: From = None,
    to: To = None,
    limit: Limit = 500,
    cursor: CursorText = None,
) -> EquityOut:
    """Equity at the start, at the end of every day and now, oldest first."""
    require_order(since, to)
    chosen = named_period(since, to)
    start = cursors.decode("portfolio_equity", chosen, cursor)
    history = await performance.load_history(since)
    inside = history.within(since, to)
    page, last = after(inside, limit, lambda day: (day.at.isoformat(),), start)
    return EquityOut(
        items=[DayOut.of(day) for day in page],
        next_cursor=_next(cursors, "portfolio_equity", chosen, last),
        late_marks=[LateMarkOut.of(one) for one in history.late_within(since, to)],
        **freshness(history.facts),
    )


@router.get("/trades", summary="Booked results", responses=problems(*NAMES))
@cacheable(depends_on=Input.PORTFOLIO | Input.SYMBOLS)
@requires(Role.VIEWER)
async def list_trades(
    performance: Provided[Performance],
    cursors: CursorsDep,
    since: From = None,
    to: To = None,
    symbol: Annotated[
        str | None, Query(max_length=64, description="In any spelling, or the UUID.")
    ] = None,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[TradeOut]:
    """Booked results, newest first; the period refers to the time they occurred."""
    require_order(since, to)
    chosen = {**named_period(since, to), "symbol": symbol}
    start = cursors.decode("portfolio_trades", chosen, cursor)
    before = None if start is None else int(start[0])
    found = await performance.trades(before, limit + 1, symbol=symbol, since=since, until=to)
    page, last = cut(found, limit, lambda trade: (trade.event_seq,))
    return Page(
        items=[TradeOut.of(trade) for trade in page],
        next_cursor=_next(cursors, "portfolio_trades", chosen, last),
    )


@router.get("/performance-attribution", summary="Performance attribution", dependencies=EXPENSIVE)
@requires(Role.VIEWER)
async def get_performance_attribution(
    performance: Provided[Performance],
    days: Annotated[QueryInt, Query(ge=1, le=3650, description="Length of the period.")] = 30,
) -> AttributionOut:
    """Attribution by symbol and sector; it adds up exactly to the change of equity.

    `active` explains the return of the index by the Brinson model over the whole days of the
    period, linked by the Carino method: allocation, selection and interaction of the sectors
    add up exactly to the active return.
    """
    ledgers, active, facts = await performance.attribution(days)
    return AttributionOut(
        days=days,
        ledgers=[LedgerOut.of(one) for one in ledgers],
        active=ActiveOut.of(active),
        **freshness(facts),
    )


def _next(cursors: Cursors, listing: str, chosen: Any, last: Any) -> str | None:
    return None if last is None else cursors.encode(listing, chosen, last)


class ValuationSnapshotOut(Out):
    """Valuation at one scheduled time; later revisions of prices do not change it."""

    slot: UtcTime = Field(description="Scheduled UTC time of the valuation.")
    at: UtcTime = Field(description="Time of the valuation.")
    version: int = Field(description="Of the portfolio then.")
    equity: IndexUnits | None = Field(
        description="Equity of the notional index, which starts at 1."
    )
    reason: str | None = Field(description="Reason for an unknown equity.")
    prices: dict[str, Price] = Field(description="Mark prices of the members that had one.")

    @classmethod
    def of(cls, mark: ValuationSnapshot) -> Self:
        return cls.model_validate(mark)


@router.get("/marks", summary="Hourly valuations of the portfolio")
@requires(Role.VIEWER)
async def list_portfolio_marks(
    performance_marks: Provided[ValuationSnapshots],
    cursors: CursorsDep,
    since: From = None,
    to: To = None,
    limit: Limit = 500,
    cursor: CursorText = None,
) -> Page[ValuationSnapshotOut]:
    """Valuations as recorded, oldest first; times without a running service are missing."""
    require_order(since, to)
    chosen = named_period(since, to)
    start = cursors.decode("portfolio_marks", chosen, cursor)
    last_seen = moment(start)
    found = await performance_marks.page(limit + 1, last_seen, since, to)
    page, last = cut(found, limit, lambda mark: (mark.slot.isoformat(),))
    return Page(
        items=[ValuationSnapshotOut.of(mark) for mark in page],
        next_cursor=None if last is None else cursors.encode("portfolio_marks", chosen, last),
    )
