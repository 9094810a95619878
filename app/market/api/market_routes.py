"""Routes of one symbol's market: quote with ages, candles, history of funding and open interest."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from fastapi import Query
from pydantic import Field

from app.configuration.domain.sections import Source
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.foundation.http.dependencies import CursorsDep, Provided
from app.foundation.http.errors import invalid, problems
from app.foundation.http.pagination import Cursors, Filter, Key
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
from app.market.domain.models import CandleSeries, Contract, Interval
from app.market.services.exchange_clock import instant
from app.market.services.history import HistoryPage, MarketHistory
from app.market.services.quality import QualityService, ReferencePriceView
from app.market.services.service import MarketData
from app.market.services.snapshot import Aged, QuoteView
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
# Errors of values that are fetched from the exchange for a caller.
_ON_DEMAND: Final = (
    *(Code.SYMBOL_NOT_TRADABLE, Code.EXCHANGE_REFUSED, Code.EXCHANGE_RATE_LIMITED),
    *(Code.EXCHANGE_TIMEOUT, Code.EXCHANGE_BAD_RESPONSE),
)
_LATEST_MS: Final = 4_102_444_800_000  # 2100: no candle opens later


_DEFAULT_DAYS: Final = 7  # of funding and open interest without `from`


class CandleInterval(StrEnum):
    """Lengths of the exchange; 1h and 1d of scored symbols are stored, others are fetched."""

    MINUTE = "1m"
    MINUTES_5 = "5m"
    MINUTES_15 = "15m"
    MINUTES_30 = "30m"
    HOUR = "1h"
    HOURS_2 = "2h"
    HOURS_4 = "4h"
    HOURS_8 = "8h"
    HOURS_12 = "12h"
    DAY = "1d"
    WEEK = "1w"


_INTERVALS: Final = {one: Interval[one.name] for one in CandleInterval}


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
    age_s: Seconds | None = Field(
        description="Seconds since the exchange sent the oldest part of the page, which is cached"
        " for at most an hour. Null for stored candles."
    )
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


@router.get(
    "/{symbol}/candles",
    summary="Closed candles",
    responses=problems(*_SYMBOL, *_ON_DEMAND),
)
@requires(Role.VIEWER)
async def list_candles(
    registry: Provided[Registry],
    history: Provided[MarketHistory],
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
    """Closed candles opened in [from, to); without `from` the newest `limit` of them.

    Hours and days of scored symbols are stored. Others are fetched from the exchange within a
    part of its request quota; 503 `exchange_rate_limited` says when there is room again. A page of
    them may be short or empty while `next_cursor` names more.
    """
    entry = registry.resolve(symbol)
    bar = _INTERVALS[interval]
    # Candles after the running one do not exist yet.
    running_ms = market.server_clock.now_ms() // bar.grid_ms * bar.grid_ms
    span = _span(from_, to, running_ms, limit * bar.ms)
    scope = {"symbol": entry.symbol_id, "interval": interval.value, **_scope(from_, to)}
    start_ms = _start(cursors.decode("candles", scope, cursor), span)
    page = await history.candles(entry, bar, start_ms, span[1], limit)
    return CandlePage(
        symbol=entry.symbol,
        interval=interval,
        items=_rows(page.value, entry.contract),
        age_s=_rounded(page.age_s),
        **_page(page, cursors, "candles", scope, market.source),
    )


class FundingOut(Out):
    """Settled funding rate."""

    settled_at: UtcTime = Field(description="UTC time of the settlement.")
    rate: ShareString = Field(description="Fraction of the notional; longs pay if > 0.")
    interval_ms: int | None = Field(
        description="Milliseconds since the settlement before; null where that is not known."
    )


class FundingPage(Freshness):
    """Settled funding rates, oldest first; `as_of` is the time up to which they are known."""

    symbol: str
    items: list[FundingOut]
    age_s: Seconds | None = Field(
        description="Seconds since the exchange sent the oldest part of the page; null without any."
    )
    next_cursor: str | None = Field(description="Pass as `cursor` to get the next page.")


@router.get(
    "/{symbol}/funding",
    summary="Settled funding rates",
    responses=problems(*_SYMBOL, *_ON_DEMAND),
)
@requires(Role.VIEWER)
async def list_funding_rates(
    registry: Provided[Registry],
    history: Provided[MarketHistory],
    market: Provided[MarketData],
    cursors: CursorsDep,
    symbol: SymbolPath,
    from_: Annotated[
        QueryTime | None, Query(alias="from", description="Settled at or after.")
    ] = None,
    to: Annotated[QueryTime | None, Query(description="Settled before.")] = None,
    limit: Limit = 100,
    cursor: CursorText = None,
) -> FundingPage:
    """Rates settled in [from, to); without `from` those of seven days.

    Rates of the last days of scored symbols are in memory, others are fetched as candles are. A
    dated contract pays no funding and has none.
    """
    entry = registry.resolve(symbol)
    span = _span(from_, to, market.server_clock.now_ms(), _DEFAULT_DAYS * Interval.DAY.ms)
    scope = {"symbol": entry.symbol_id, **_scope(from_, to)}
    start_ms = _start(cursors.decode("funding", scope, cursor), span)
    page = await history.funding(entry, start_ms, span[1], limit)
    return FundingPage(
        symbol=entry.symbol,
        items=[
            FundingOut(
                settled_at=instant(one.settled_ms), rate=one.rate, interval_ms=one.interval_ms
            )
            for one in page.value
        ],
        age_s=_rounded(page.age_s),
        **_page(page, cursors, "funding", scope, market.source),
    )


class OpenInterestOut(Out):
    """Hourly snapshot; null is unknown."""

    taken_at: UtcTime = Field(description="UTC time of the snapshot.")
    open_interest: Quantity | None = Field(description="Base coins.")
    mark_price: Price | None = Field(description="Mark price of the contract at KuCoin.")
    turnover_24h: Price | None = Field(description="Quote currency.")


class OpenInterestPage(Freshness):
    """Hourly snapshots of open interest, oldest first; `as_of` is the time of the newest one.

    The exchange keeps no history: the snapshots begin when this service began to record them.
    """

    symbol: str
    items: list[OpenInterestOut]
    next_cursor: str | None = Field(description="Pass as `cursor` to get the next page.")


@router.get(
    "/{symbol}/open-interest", summary="Recorded open interest", responses=problems(*_SYMBOL)
)
@requires(Role.VIEWER)
async def list_open_interest(
    registry: Provided[Registry],
    history: Provided[MarketHistory],
    market: Provided[MarketData],
    cursors: CursorsDep,
    symbol: SymbolPath,
    from_: Annotated[
        QueryTime | None, Query(alias="from", description="Taken at or after.")
    ] = None,
    to: Annotated[QueryTime | None, Query(description="Taken before.")] = None,
    limit: Limit = 100,
    cursor: CursorText = None,
) -> OpenInterestPage:
    """Snapshots taken in [from, to), one an hour; without `from` those of seven days."""
    entry = registry.resolve(symbol)
    span = _span(from_, to, market.server_clock.now_ms(), _DEFAULT_DAYS * Interval.DAY.ms)
    scope = {"symbol": entry.symbol_id, **_scope(from_, to)}
    start_ms = _start(cursors.decode("open-interest", scope, cursor), span)
    page = await history.open_interest(entry, start_ms, span[1], limit)
    return OpenInterestPage(
        symbol=entry.symbol,
        items=[
            OpenInterestOut(
                taken_at=instant(one.taken_ms),
                open_interest=_exact_or_none(one.open_interest),
                mark_price=_exact_or_none(one.mark_price),
                turnover_24h=_exact_or_none(one.turnover_24h),
            )
            for one in page.value
        ],
        **_page(page, cursors, "open-interest", scope, market.source),
    )


Span = tuple[int, int]  # first and end, milliseconds


def _span(from_: datetime | None, to: datetime | None, newest_ms: int, default_ms: int) -> Span:
    """Returns the asked span; without `from` it begins `default_ms` before `to` or `newest_ms`.

    Raises RequestError (422) for a span that ends before it begins.
    """
    end_ms = _LATEST_MS if to is None else _stamp(to.timestamp())
    if from_ is None:
        return min(end_ms, newest_ms) - default_ms, end_ms
    start_ms = _stamp(from_.timestamp())
    if to is not None and start_ms > end_ms:
        raise invalid("query", "from", "range", "The range ends before it begins.")
    return start_ms, end_ms


def _scope(from_: datetime | None, to: datetime | None) -> dict[str, int | None]:
    """Returns the filter that a cursor belongs to."""
    return {
        "from": None if from_ is None else _stamp(from_.timestamp()),
        "to": None if to is None else _stamp(to.timestamp()),
    }


def _start(position: Key | None, span: Span) -> int:
    return span[0] if position is None else int(position[0])


def _page(
    page: HistoryPage[Any], cursors: Cursors, listing: str, scope: Filter, source: DataSource
) -> dict[str, Any]:
    """Returns next cursor and freshness of a page."""
    next_ms = page.next_ms
    return {
        "next_cursor": None if next_ms is None else cursors.encode(listing, scope, (next_ms,)),
        "as_of": None if page.known_ms is None else instant(page.known_ms),
        "data_source": source,
        "data_status": page.status,
    }


def _rows(series: CandleSeries, contract: Contract) -> list[CandleOut]:
    return [
        CandleOut(
            opened_at=instant(int(stamp)),
            open=_exact(series.open[row]),
            high=_exact(series.high[row]),
            low=_exact(series.low[row]),
            close=_exact(series.close[row]),
            volume=contract.exact_volume(float(series.volume[row])),
            turnover=_exact(series.turnover[row]),
        )
        for row, stamp in enumerate(series.opened_ms)
    ]


def _exact(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def _exact_or_none(value: float | None) -> Decimal | None:
    return None if value is None else _exact(value)


def _rounded(age_s: float | None) -> float | None:
    return None if age_s is None else round(age_s, 3)


def _stamp(seconds: float) -> int:
    return min(max(int(seconds * 1000), 0), _LATEST_MS)
