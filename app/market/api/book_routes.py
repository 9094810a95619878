"""Routes of one symbol's order book: its levels, and the price impact of an order."""

from decimal import Decimal
from typing import Annotated, Final, Self

from fastapi import Query
from pydantic import Field

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.foundation.http.dependencies import Provided
from app.foundation.http.errors import invalid, problems
from app.foundation.http.permissions import requires
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    BasisPointString,
    Freshness,
    Lots,
    Out,
    Price,
    Quantity,
    QueryDecimal,
    QueryInt,
    RawString,
    Seconds,
    ShareString,
    SymbolPath,
)
from app.foundation.principals import Role
from app.market.domain.liquidity import MarketImpact, OrderSide, market_impact
from app.market.domain.models import Contract, Level
from app.market.domain.symbols import SymbolEntry, base_quantity
from app.market.services.service import MarketData
from app.market.services.snapshot import AgedBook
from app.market.services.symbol_registry import Registry

router = api_router("market", "/market")
_ERRORS: Final = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.EXCHANGE_UNAVAILABLE)
_NO_BOOK: Final = "No order book of this symbol has been received."
_MAX_LEVELS: Final = 100  # of a polled book


class BookLevelOut(Out):
    """Price level of an order book."""

    price: Price = Field(description="Price of the level.")
    lots: Lots = Field(description="Lots on offer at this price.")
    quantity: Quantity = Field(description="Base coins.")

    @classmethod
    def of(cls, level: Level, contract: Contract) -> Self:
        return cls(
            price=level.price,
            lots=level.lots,
            quantity=base_quantity(contract, level.lots, level.price),
        )


class BookOut(Freshness):
    """Order book, best levels first; null without a known book. `as_of` is its time."""

    symbol: str
    contract: str
    sequence: int | None = Field(description="Number of the exchange; it rises with each change.")
    age_s: Seconds | None = Field(description="Seconds since the book was last known to be true.")
    levels_known: int | None = Field(description="Known levels of the thinner side.")
    bids: list[BookLevelOut] | None = Field(description="Bids, best first.")
    asks: list[BookLevelOut] | None = Field(description="Asks, best first.")
    reason: str | None = Field(description="Why no book is known; null with one.")


@router.get("/{symbol}/book", summary="Order book", responses=problems(*_ERRORS))
@requires(Role.VIEWER)
async def get_order_book(
    registry: Provided[Registry],
    market: Provided[MarketData],
    symbol: SymbolPath,
    levels: Annotated[
        QueryInt, Query(ge=1, le=_MAX_LEVELS, description="Levels a side, as far as known.")
    ] = 20,
) -> BookOut:
    """Levels that the service holds, without a request to the exchange.

    The newest book has 20 levels a side. A polled one of 100 levels, which is older, is returned if
    more are asked for.
    """
    entry = registry.resolve(symbol)
    books = market.moment().books(entry)
    chosen = next(
        (one for one in books if _depth(one) >= levels), max(books, key=_depth, default=None)
    )
    if chosen is None:
        return BookOut(
            symbol=entry.symbol,
            contract=entry.contract.code,
            sequence=None,
            age_s=None,
            levels_known=None,
            bids=None,
            asks=None,
            reason=_NO_BOOK,
            as_of=None,
            data_source=market.source,
            data_status=DataStatus.UNAVAILABLE,
        )
    top = chosen.book.top(levels)
    return BookOut(
        symbol=entry.symbol,
        contract=entry.contract.code,
        sequence=chosen.book.sequence,
        age_s=_age(chosen),
        levels_known=_depth(chosen),
        bids=[BookLevelOut.of(one, entry.contract) for one in top.bids],
        asks=[BookLevelOut.of(one, entry.contract) for one in top.asks],
        reason=None,
        as_of=chosen.at,
        data_source=market.source,
        data_status=chosen.aged.status,
    )


class ImpactOut(Freshness):
    """Cost of taking liquidity from one side of the known book; nothing is extrapolated.

    `as_of` is the time of the book. Prices and slippage are null where the book does not show them;
    `reason` says why.
    """

    symbol: str
    contract: str
    side: OrderSide = Field(description="Side of the order.")
    notional: RawString = Field(description="Value of the order: quote currency, USD for inverse.")
    is_complete: bool = Field(description="True if the known levels fill the whole order.")
    filled_share: ShareString | None = Field(
        description="Fraction of the order that the known levels fill, rounded down to 6 decimals."
    )
    levels_used: int | None = Field(description="Number of levels that the order would use.")
    levels_known: int | None = Field(description="Known levels of the swept side.")
    notional_known: RawString | None = Field(description="Value of these levels.")
    mid_price: Price | None = Field(description="Mean of best bid and best ask.")
    best_price: Price | None = Field(description="Best price on the other side of the book.")
    worst_price: Price | None = Field(description="Price of the last level used.")
    average_price: Price | None = Field(description="Null unless the order is complete.")
    slippage_bp: BasisPointString | None = Field(
        description="Average price against mid in basis points; positive is a cost."
    )
    age_s: Seconds | None = Field(description="Seconds since the book was last known to be true.")
    reason: str | None = Field(description="Why a value is null; null if none is.")

    @classmethod
    def of(
        cls,
        entry: SymbolEntry,
        side: OrderSide,
        found: tuple[AgedBook, MarketImpact],
        source: DataSource,
    ) -> Self:
        aged, impact = found
        return cls(
            symbol=entry.symbol,
            contract=entry.contract.code,
            side=side,
            notional=impact.requested,
            is_complete=impact.is_complete,
            filled_share=impact.filled_share,
            levels_used=impact.levels_used,
            levels_known=impact.levels_known,
            notional_known=impact.known,
            mid_price=impact.mid_price,
            best_price=impact.best_price,
            worst_price=impact.worst_price,
            average_price=impact.average_price,
            slippage_bp=None if impact.slippage_bp is None else float(impact.slippage_bp),
            age_s=_age(aged),
            reason=_reason(impact),
            as_of=aged.at,
            data_source=source,
            data_status=aged.aged.status,
        )


@router.get("/{symbol}/impact", summary="Price impact of an order", responses=problems(*_ERRORS))
@requires(Role.VIEWER)
async def get_price_impact(
    registry: Provided[Registry],
    market: Provided[MarketData],
    symbol: SymbolPath,
    notional: Annotated[
        QueryDecimal,
        Query(description="Value of the order: quote currency, USD for inverse contracts."),
    ],
    side: Annotated[
        OrderSide, Query(description="A buy takes from the asks, a sell from the bids.")
    ],
) -> ImpactOut:
    """Average price and slippage of an order that takes the known levels of the book.

    The newest book that fills the order is used, else the deepest one. An order beyond the known
    levels is marked: `is_complete` is false, and it has neither average price nor slippage.
    """
    if notional <= 0:
        raise invalid("query", "notional", "greater_than", "The notional must be greater than 0.")
    entry = registry.resolve(symbol)
    found = [
        (one, market_impact(one.book, entry.contract, side, notional))
        for one in market.moment().books(entry)
    ]
    chosen = next((one for one in found if one[1].is_complete), None) or max(
        found, key=lambda one: one[1].known, default=None
    )
    if chosen is not None:
        return ImpactOut.of(entry, side, chosen, market.source)
    return ImpactOut(
        symbol=entry.symbol,
        contract=entry.contract.code,
        side=side,
        notional=notional,
        is_complete=False,
        filled_share=None,
        levels_used=None,
        levels_known=None,
        notional_known=None,
        mid_price=None,
        best_price=None,
        worst_price=None,
        average_price=None,
        slippage_bp=None,
        age_s=None,
        reason=_NO_BOOK,
        as_of=None,
        data_source=market.source,
        data_status=DataStatus.UNAVAILABLE,
    )


def _reason(impact: MarketImpact) -> str | None:
    if not impact.is_complete:
        return (
            f"The {impact.levels_known} known levels hold {_text(impact.known)} of the"
            f" {_text(impact.requested)} asked for; the rest of the book is unknown."
        )
    if impact.slippage_bp is None:
        return "The book is crossed, locked or one-sided, so that it has no mid price."
    return None


def _text(value: Decimal) -> str:
    return format(value.normalize(), "f")


def _depth(one: AgedBook) -> int:
    return min(len(one.book.bids), len(one.book.asks))


def _age(one: AgedBook) -> float | None:
    return None if one.aged.age_s is None else round(one.aged.age_s, 3)
