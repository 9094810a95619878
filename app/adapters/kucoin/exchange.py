"""Public market data of KuCoin futures as domain values: the `Exchange` port."""

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Final, Self, TypeVar

import aiohttp

from app.adapters.kucoin import limiter as routes
from app.adapters.kucoin import parse, parse_contracts
from app.adapters.kucoin.fields import is_code
from app.adapters.kucoin.limiter import Endpoint, KucoinLimits, PoolShare, RandomSource, whole_pool
from app.adapters.kucoin.parse import CandleRows
from app.adapters.kucoin.rest import OnRequest, RestApi, RestClient, RestDependencies
from app.adapters.kucoin.stream import protocol
from app.adapters.kucoin.stream.market_stream import KucoinStream
from app.adapters.kucoin.stream.protocol import StreamLimits, StreamTicket
from app.adapters.kucoin.transport import AiohttpTransport, open_session
from app.foundation.data_status import DataSource
from app.foundation.errors import BadResponseError, Code, RefusedError
from app.market.domain.models import (
    Book,
    CandleSeries,
    Contract,
    ContractListing,
    CurrentFunding,
    ExchangeLink,
    ExchangeStatus,
    Funding,
    Interval,
    MarkPrice,
    Rejection,
    Ticker,
    TickerListing,
)

_DAY_MS: Final = 86_400_000
_LONGEST_INTERVAL_MS: Final = 8 * 3_600_000


def candle_pages(
    start_ms: int, end_ms: int, step_ms: int, size: int, grid_ms: int | None = None
) -> Iterator[tuple[int, int]]:
    """Opening times (first, last) of pages of at most `size` candles in [start, end).

    Opening times are multiples of `grid_ms`, by default of `step_ms`. On a finer grid a page
    covers the times from its first to one step after its last.
    """
    grid = grid_ms or step_ms
    first = -(-start_ms // grid) * grid
    while first < end_ms:
        last = first + min(size - 1, (end_ms - 1 - first) // step_ms) * step_ms
        yield first, last
        first = last + step_ms


def find_gap(
    rows: CandleRows, first_ms: int, last_ms: int, step_ms: int, *, is_age_known: bool = True
) -> tuple[int, int] | None:
    """Span from the first to the last candle missing between two opening times.

    The listing time may be unknown, so no candle counts as missing before the first one
    received.
    """
    known = set(rows.opened_ms.tolist())
    if not is_age_known:
        first_ms = max(first_ms, min(known, default=last_ms + step_ms))
    missing = [moment for moment in range(first_ms, last_ms + 1, step_ms) if moment not in known]
    return (missing[0], missing[-1]) if missing else None


def funding_pages(start_ms: int, end_ms: int, days: int) -> Iterator[tuple[int, int]]:
    """Windows of `days` days that cover [start, end], both ends included."""
    first = start_ms
    while first <= end_ms:
        last = min(first + days * _DAY_MS - 1, end_ms)
        yield first, last
        first = last + 1


def next_older_ms(rows: Sequence[Funding], first_ms: int, asked_until_ms: int) -> int | None:
    """End of the next request; None when the answer cannot have left settlements out.

    KuCoin does not document the row limit. While one more settlement fits before the oldest
    row, it is requested. An answer without an older row ends the paging.
    """
    moments = sorted({row.settled_ms for row in rows if row.settled_ms <= asked_until_ms})
    if not moments:
        return None
    gaps = [after - before for before, after in pairwise(moments)]
    spacing = min(gaps, default=_LONGEST_INTERVAL_MS)
    return moments[0] - 1 if moments[0] - spacing >= first_ms else None


T = TypeVar("T")
OnRejection = Callable[[str, Rejection], None]  # path, the record refused
# path, symbol asked for ("" for a whole list), every record of the answer that was refused
OnAnswer = Callable[[str, str, Sequence[Rejection]], None]

_NO_PARAMS: Mapping[str, str] = {}


def ignore_request(path: str, outcome: str, seconds: float) -> None:
    """Observer of requests that does nothing."""


def ignore_rejection(path: str, rejection: Rejection) -> None:
    """Observer of rejected records that does nothing."""


def ignore_answer(path: str, symbol: str, refused: Sequence[Rejection]) -> None:
    """Observer of answers that does nothing."""


class KucoinExchange:
    """The `Exchange` port over KuCoin's public futures REST interface.

    Every method raises only errors of `foundation.errors`. A call waits for its turn up to its
    patience; `patient(seconds)` returns a view of the same exchange with another patience.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        base_url: str,
        source: DataSource,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        dice: RandomSource,
        limits: KucoinLimits | None = None,
        on_request: OnRequest = ignore_request,
        on_rejection: OnRejection = ignore_rejection,
        on_answer: OnAnswer = ignore_answer,
        share: Callable[[], PoolShare] = whole_pool,
        rest: RestApi | None = None,
    ) -> None:
        self._limits = limits or KucoinLimits()
        around = RestDependencies(now, monotonic, sleep, dice, on_request, share)
        wire = AiohttpTransport(session, base_url, self._limits)
        self._rest = rest or RestClient(wire, self._limits, around)
        self._session, self._base_url = session, base_url
        self._monotonic, self._dice = monotonic, dice
        self._source = source
        self._now = now
        self._on_rejection = on_rejection
        self._on_answer = on_answer
        self.patience_s = self._limits.patience_s

    def patient(self, patience_s: float) -> Self:
        """The same exchange (quota, breaker, link) for callers with another patience in seconds."""
        view = copy.copy(self)
        view.patience_s = patience_s
        return view

    async def ticket(self) -> StreamTicket:
        """Request endpoint and token for one stream connection."""
        read = partial(protocol.parse_ticket, base_url=self._base_url)
        return await self._get(routes.BULLET, read)

    def stream(self, terms: StreamLimits | None = None) -> KucoinStream:
        """Market stream of the exchange, beside its REST answers."""
        return KucoinStream(
            self.ticket,
            terms=terms or StreamLimits(),
            monotonic=self._monotonic,
            dice=self._dice,
        )

    @property
    def source(self) -> DataSource:
        return self._source

    def link(self) -> ExchangeLink:
        return self._rest.link()

    async def server_time_ms(self) -> int:
        return await self._get(routes.TIMESTAMP, parse.server_time)

    async def status(self) -> ExchangeStatus:
        return await self._get(routes.STATUS, parse.status)

    async def contracts(self) -> ContractListing:
        read = partial(parse_contracts.contracts, received_ms=self._now_ms())
        listing = await self._get(routes.CONTRACTS, read)
        self._report(routes.CONTRACTS, listing.rejections)
        return listing

    async def contract(self, code: str) -> ContractListing:
        read = partial(parse_contracts.contract, requested=code, received_ms=self._now_ms())
        listing = await self._get(routes.CONTRACT, read, symbol=code)
        self._report(routes.CONTRACT, listing.rejections, code)
        return listing

    async def tickers(self) -> TickerListing:
        listing = await self._get(routes.TICKERS, parse.tickers)
        self._report(routes.TICKERS, listing.rejections)
        return listing

    async def ticker(self, code: str) -> Ticker:
        read = partial(parse.ticker, requested=code)
        return await self._get(routes.TICKER, read, {"symbol": code}, symbol=code)

    async def book(self, code: str) -> Book:
        """Order book with up to 100 levels a side."""
        read = partial(parse.book, requested=code)
        return await self._get(routes.DEPTH100, read, {"symbol": code}, symbol=code)

    async def funding_now(self, code: str) -> CurrentFunding:
        read = partial(parse.funding_now, requested=code)
        return await self._get(routes.FUNDING_NOW, read, symbol=code)

    async def mark_price(self, code: str) -> MarkPrice:
        read = partial(parse.mark_price, requested=code)
        return await self._get(routes.MARK_PRICE, read, symbol=code)

    async def candles(
        self, contract: Contract, interval: Interval, start_ms: int, end_ms: int
    ) -> CandleSeries:
        """Candles opened in [start_ms, end_ms), the running one included if it is in range.

        Requests pages of at most 200 candles. The span of missing closed candles is
        requested once more; candles missing then are absent from the series, because the
        exchange publishes no candle for a time without trades.
        """
        step, grid = interval.ms, interval.grid_ms
        found: list[parse.CandleRows] = []
        listed_ms = contract.listed_ms or 0  # in a candle that opened up to one step before
        begin = max(start_ms, (listed_ms - step + grid) // grid * grid)
        for first, last in candle_pages(begin, end_ms, step, self._limits.candles_per_page, grid):
            rows = await self._candle_page(contract.code, interval, first, last)
            until, is_age_known = min(last, self._now_ms() - step), contract.listed_ms is not None
            # On a finer grid only the candles themselves show when the exchange opens one.
            is_regular = grid == step and is_age_known
            missing = find_gap(rows, first, until, step, is_age_known=is_regular)
            found.append(rows)
            if missing is not None:
                found.append(await self._candle_page(contract.code, interval, *missing))
        return parse.candle_series(parse.join_rows(found), contract, grid, start_ms, end_ms)

    async def _candle_page(
        self, code: str, interval: Interval, first_ms: int, last_ms: int
    ) -> parse.CandleRows:
        # `to` ends just before the next opening: whether the exchange takes it as inclusive or
        # not, the page holds the same candles.
        params = {
            "symbol": code,
            "granularity": str(interval.value),
            "from": str(first_ms),
            "to": str(last_ms + interval.ms - 1),
        }
        rows, rejections = await self._get(routes.KLINE, parse.candle_rows, params, symbol=code)
        self._report(routes.KLINE, rejections, code)
        return rows

    async def funding_history(self, code: str, start_ms: int, end_ms: int) -> tuple[Funding, ...]:
        """Settled rates in [start_ms, end_ms], oldest first, paged backwards."""
        found: list[Funding] = []
        read = partial(parse.funding_rows, requested=code)
        for first, last in funding_pages(start_ms, end_ms, self._limits.funding_page_days):
            until: int | None = last
            while until is not None:
                params = {"symbol": code, "from": str(first), "to": str(until)}
                rows, rejections = await self._get(
                    routes.FUNDING_HISTORY, read, params, symbol=code
                )
                self._report(routes.FUNDING_HISTORY, rejections, code)
                found += rows
                until = next_older_ms(rows, first, until)
        return parse.link_settlements(
            [row for row in found if start_ms <= row.settled_ms <= end_ms]
        )

    async def _get(
        self,
        endpoint: Endpoint,
        read: Callable[[object], T],
        params: Mapping[str, str] = _NO_PARAMS,
        *,
        symbol: str = "",
    ) -> T:
        if symbol and not is_code(symbol):
            raise RefusedError(Code.SYMBOL_UNKNOWN, "the exchange has no contract of this name")
        unreadable: list[Rejection] = []

        def judged(data: object) -> T:
            try:
                return read(data)
            except BadResponseError as error:
                name = str(error.facts.get("field", "data"))
                unreadable.append(Rejection(symbol or "?", name, "the answer is invalid"))
                raise

        try:
            answer = await self._rest.get(
                endpoint, judged, params, symbol=symbol, patience_s=self.patience_s
            )
        except BadResponseError:
            if unreadable:
                self._on_answer(endpoint.path, symbol, unreadable)
            raise
        self._on_answer(endpoint.path, symbol, ())
        return answer

    def _report(
        self, endpoint: Endpoint, rejections: Sequence[Rejection], symbol: str = ""
    ) -> None:
        """Report the rejected records of an answer that counted as a success."""
        if rejections:
            self._on_answer(endpoint.path, symbol, rejections)
        for rejection in rejections:
            self._on_rejection(endpoint.path, rejection)

    def _now_ms(self) -> int:
        return int(self._now().timestamp() * 1000)


@asynccontextmanager
async def open_exchange(
    *,
    base_url: str,
    source: DataSource,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    dice: RandomSource,
    limits: KucoinLimits | None = None,
    on_request: OnRequest = ignore_request,
    on_rejection: OnRejection = ignore_rejection,
    on_answer: OnAnswer = ignore_answer,
    share: Callable[[], PoolShare] = whole_pool,
) -> AsyncIterator[KucoinExchange]:
    """Open the exchange with its own HTTP session, closed on exit."""
    numbers = limits or KucoinLimits()
    async with open_session(numbers) as session:
        yield KucoinExchange(
            session,
            base_url=base_url,
            source=source,
            now=now,
            monotonic=monotonic,
            sleep=sleep,
            dice=dice,
            limits=numbers,
            on_request=on_request,
            on_rejection=on_rejection,
            on_answer=on_answer,
            share=share,
        )
