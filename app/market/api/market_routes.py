"""Routes of one symbol's market: quote, funding, open interest, book with ages, and candles."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final, Self

from fastapi import Query
from pydantic import Field

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.foundation.http.dependencies import CursorsDep, Provided
from app.foundation.http.errors import invalid, problems
from app.foundation.http.permissions import requires
from app.foundation.http.response_cache import cacheable
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    BasisPoints,
    CursorText,
    Freshness,
    Limit,
    Lots,
    Out,
    Price,
    Quantity,
    QueryTime,
    QuoteAmount,
    RawString,
    Seconds,
    Share,
    ShareString,
    SymbolPath,
    UtcTime,
)
from app.foundation.principals import Role
from app.foundation.state_version import Input
from app.market.domain.models import CandleSeries, Interval
from app.market.services.exchange_clock import instant
from app.market.services.quality import QualityService, ReferencePriceView
from app.market.services.service import MarketData
from app.market.services.snapshot import Aged, QuoteView
from app.market.services.state import CANDLE_SOURCE
from app.market.services.symbol_registry import Registry


class ReferenceOut(Out):
    """Price at another exchange: it confirms KuCoin's prices, and is never scored or traded."""

    source: str = Field(description="Exchange and currency.", examples=["binance USDT"])
    price: Price = Field(description="Price at the other exchange.")
    at: UtcTime = Field(description="Time at the other exchange.")
    is_fresh: bool = Field(description="Fresh enough to confirm a price.")

    @classmethod
    def of(cls, view: ReferencePriceView | None) -> Self | None:
        if view is None:
            return None
        return cls(source=view.source, price=view.price, at=view.at, is_fresh=view.is_fresh)


router = api_router("market", "/market")
_SYMBOL: Final = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.EXCHANGE_UNAVAILABLE)
_LATEST_MS: Final = 4_102_444_800_000  # 2100: no candle opens later


class CandleInterval(StrEnum):
    HOUR = "1h"
    DAY = "1d"


_INTERVALS: Final = {CandleInterval.HOUR: Interval.HOUR, CandleInterval.DAY: Interval.DAY}


class AgeOut(Out):
    """Age of one input, with its freshness."""

    age_s: Seconds | None = Field(description="Seconds since it was last known to be true.")
    status: DataStatus = Field(description="Freshness of the input by its age.")

    @classmethod
    def of(cls, aged: Aged) -> Self:
        return cls(age_s=None if aged.age_s is None else round(aged.age_s, 3), status=aged.status)


class QuoteOut(Freshness):
    """Market of one symbol; null is unknown. `ages` has the age of each part."""

    symbol: str = Field(examples=["BTCUSDT"])
    contract: str = Field(examples=["XBTUSDTM"])
    last_price: Price | None = Field(description="Price of the last trade.")
    bid: Price | None = Field(description="Best bid.")
    ask: Price | None = Field(description="Best ask.")
    mark_price: Price | None = Field(description="Mark price of the contract at KuCoin.")
    index_price: Price | None = Field(description="Index price at KuCoin.")
    change_24h: Share | None = Field(description="Return of the last price over 24 hours.")
    turnover_24h: Price | None = Field(description="Quote currency.")
    volume_24h: RawString | None = Field(description="Base coins; USD for inverse contracts.")
    funding_rate: ShareString | None = Field(description="Fraction per interval; longs pay if > 0.")
    predicted_funding_rate: ShareString | None = Field(
        description="Predicted rate of the next settlement, per interval."
    )
    funding_interval_ms: int | None
    next_funding_at: UtcTime | None = Field(
        description="UTC time of the next settlement of funding; null without funding."
    )
    open_interest_lots: Lots | None = Field(description="Open interest.")
    open_interest: Quantity | None = Field(description="Base coins.")
    spread_bp: BasisPoints | None = Field(description="(ask - bid) / mid in basis points.")
    depth_50bp: QuoteAmount | None = Field(description="Quote currency near mid, thinner side.")
    ages: dict[Source, AgeOut] = Field(description="Age of each part by source.")
    reference: ReferenceOut | None = Field(
        description="Price at another exchange, also while KuCoin is unavailable."
    )

    @classmethod
    def of(cls, view: QuoteView, source: DataSource, reference: ReferenceOut | None) -> Self:
        change = view.change_24h
        return cls(
            symbol=view.entry.symbol,
            contract=view.entry.contract.code,
            last_price=view.last,
            bid=view.bid,
            ask=view.ask,
            mark_price=view.mark,
            index_price=view.index,
            change_24h=None if change is None else float(change),
            turnover_24h=view.turnover_24h,
            volume_24h=view.volume_24h,
            funding_rate=view.funding_rate,
            predicted_funding_rate=view.predicted_funding_rate,
            funding_interval_ms=view.funding_interval_ms,
            next_funding_at=view.next_funding,
            open_interest_lots=view.open_interest_lots,
            open_interest=view.open_interest,
            spread_bp=view.spread_bp,
            depth_50bp=view.depth,
            ages={name: AgeOut.of(aged) for name, aged in view.ages.items()},
            reference=reference,
            as_of=view.as_of,
            data_source=source,
            data_status=view.status,
        )


class CandleOut(Out):
    """Closed candle."""

    opened_at: UtcTime = Field(description="UTC time at which the candle opens.")
    open: Price = Field(description="First price.")
    high: Price = Field(description="Highest price.")
    low: Price = Field(description="Lowest price.")
    close: Price = Field(description="Last price.")
    volume: RawString = Field(description="Base coins; USD for inverse contracts.")
    turnover: Price = Field(description="Quote currency.")


class CandlePage(Freshness):
    """Closed candles, oldest first; a time without trades has none.

    `as_of` is the closing time of the newest known one.
    """

    symbol: str
    interval: CandleInterval = Field(description="Length of a candle.")
    items: list[CandleOut]
    next_cursor: str | None = Field(description="Pass as `cursor` to get the next page.")


@router.get("/{symbol}", summary="Quote of one symbol", responses=problems(*_SYMBOL))
@cacheable(depends_on=Input.MARKET)
@requires(Role.VIEWER)
async def get_market_quote(
    registry: Provided[Registry],
    quality: Provided[QualityService],
    market: Provided[MarketData],
    symbol: SymbolPath,
) -> QuoteOut:
    """Ticker, mark, index, funding, open interest, spread and depth, with the age of each."""
    entry = registry.resolve(symbol)
    reference = ReferenceOut.of(quality.reference_price(entry))
    return QuoteOut.of(market.view(entry), market.source, reference)


@router.get("/{symbol}/candles", summary="Closed candles", responses=problems(*_SYMBOL))
@requires(Role.VIEWER)
async def list_candles(
    registry: Provided[Registry],
    market: Provided[MarketData],
    cursors: CursorsDep,
    symbol: SymbolPath,
    interval: Annotated[CandleInterval, Query(description="Length of a candle.")],
    from_: Annotated[
        QueryTime | None, Query(alias="from", description="Opened at or after.")
    ] = None,
    to: Annotated[QueryTime | None, Query(description="Opened before.")] = None,
    limit: Limit = 100,
    cursor: CursorText = None,
) -> CandlePage:
    """Stored candles opened in [from, to); without `from` the newest `limit` of them."""
    entry = registry.resolve(symbol)
    bar = _INTERVALS[interval]
    moment = market.moment()
    running_ms = moment.server_ms // bar.ms * bar.ms
    end_ms = running_ms if to is None else _stamp(to.timestamp())
    newest_ms = min(end_ms, running_ms)  # candles after the running one do not exist yet
    start_ms = newest_ms - limit * bar.ms if from_ is None else _stamp(from_.timestamp())
    if to is not None and start_ms > end_ms:
        raise invalid("query", "from", "range", "The range ends before it begins.")
    scope = {
        "symbol": entry.symbol_id,
        "interval": interval.value,
        "from": None if from_ is None else start_ms,
        "to": None if to is None else end_ms,
    }
    position = cursors.decode("candles", scope, cursor)
    if position is not None:
        start_ms = int(position[0]) + 1
    series = await market.candles(entry, bar, start_ms, end_ms, limit + 1)
    rows = _rows(series)[:limit]
    has_more = len(series) > limit
    aged = moment.ages(entry)[CANDLE_SOURCE[bar]]
    return CandlePage(
        symbol=entry.symbol,
        interval=interval,
        items=rows,
        next_cursor=(
            cursors.encode("candles", scope, (int(series.opened_ms[limit - 1]),))
            if has_more
            else None
        ),
        as_of=None if aged.age_s is None else instant(moment.server_ms - round(aged.age_s * 1e3)),
        data_source=market.source,
        # candles stored before this start are not confirmed yet
        data_status=DataStatus.STALE if rows and aged.age_s is None else aged.status,
    )


def _rows(series: CandleSeries) -> list[CandleOut]:
    return [
        CandleOut(
            opened_at=instant(int(stamp)),
            open=_exact(series.open[row]),
            high=_exact(series.high[row]),
            low=_exact(series.low[row]),
            close=_exact(series.close[row]),
            volume=_exact(series.volume[row]),
            turnover=_exact(series.turnover[row]),
        )
        for row, stamp in enumerate(series.opened_ms)
    ]


def _exact(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def _stamp(seconds: float) -> int:
    return min(max(int(seconds * 1000), 0), _LATEST_MS)
