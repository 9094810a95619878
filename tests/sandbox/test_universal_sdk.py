"""KuCoin's own client works against the exchange, over REST and over its stream.

Its models are strict about types: what it reads must be what the exchange says elsewhere. It works
in threads of its own, so it is called beside the loop in which the exchange answers.
"""

import asyncio
import json
import queue
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from tests.sandbox.conftest import START_MS, Shop, data

Client = TestClient[Any, Any]
SYMBOL = "ETHUSDTM"
PATIENCE_S = 60.0
pytestmark = [
    pytest.mark.xdist_group("sdk"),
    # It is made for an older pydantic.
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]


def part(name: str) -> Any:
    """A module of the client: none of it before a test asks, for the whole takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_module(f"kucoin_universal_sdk.{name}")


@pytest.fixture
def sdk(few_client: Client) -> Any:
    """KuCoin's client with the exchange as its endpoint."""
    api, model = part("api"), part("model")
    base = str(few_client.make_url("")).rstrip("/")
    options = model.ClientOptionBuilder().set_key("").set_secret("").set_passphrase("")
    options = options.set_futures_endpoint(base).set_spot_endpoint(base).set_broker_endpoint(base)
    options = options.set_transport_option(model.TransportOptionBuilder().build())
    options = options.set_websocket_client_option(model.WebSocketClientOptionBuilder().build())
    return api.DefaultClient(options.build())


def asking(name: str, **fields: Any) -> Any:
    """A request of the client about the symbol."""
    building = getattr(part("generate.futures.market"), f"{name}Builder")().set_symbol(SYMBOL)
    for field, value in fields.items():
        building = getattr(building, f"set_{field}")(value)
    return building.build()


@pytest.fixture
def market(sdk: Any) -> Iterator[Any]:
    api = sdk.rest_service().get_futures_service().get_market_api()
    yield api
    api.transport.close()


def said(answer: Any) -> Any:
    """What the client read, without what it did not know or was not told."""
    document = json.loads(answer.to_json())
    document.pop("common_response", None)
    read = {name: value for name, value in document.items() if value is not None}
    return read["data"] if set(read) == {"data"} else read


def agrees(read: Any, given: Any) -> None:
    """All that the client read is what was given; it leaves out what it has no name for."""
    if isinstance(read, list):
        assert len(read) == len(given)
        for one, other in zip(read, given, strict=True):
            agrees(one, other)
    elif isinstance(read, dict):
        for name, value in read.items():
            if value is not None:
                agrees(value, given[name])
    else:
        assert read == given


FROM_MS = START_MS - 10 * 3_600_000
REST: list[tuple[str, str | None, dict[str, Any], str, dict[str, Any], str]] = [
    ("get_all_symbols", None, {}, "contracts/active", {}, "symbol multiplier lotSize tickSize"),
    ("get_symbol", "GetSymbolReq", {}, f"contracts/{SYMBOL}", {}, "multiplier status"),
    ("get_all_tickers", None, {}, "allTickers", {}, "symbol price bestBidPrice bestAskPrice ts"),
    ("get_ticker", "GetTickerReq", {}, "ticker", {"symbol": SYMBOL}, "price sequence ts"),
    (
        "get_klines",
        "GetKlinesReq",
        {"granularity": 60, "from_": FROM_MS, "to": START_MS},
        "kline/query",
        {"symbol": SYMBOL, "granularity": 60, "from": FROM_MS, "to": START_MS},
        "",
    ),
    (
        "get_part_order_book",
        "GetPartOrderBookReq",
        {"size": "20"},
        "level2/depth20",
        {"symbol": SYMBOL},
        "bids asks sequence ts",
    ),
    (
        "get_full_order_book",
        "GetFullOrderBookReq",
        {},
        "level2/snapshot",
        {"symbol": SYMBOL},
        "bids asks sequence ts",
    ),
    (
        "get_mark_price",
        "GetMarkPriceReq",
        {},
        f"mark-price/{SYMBOL}/current",
        {},
        "value indexPrice granularity",
    ),
    (
        "get_trade_history",
        "GetTradeHistoryReq",
        {},
        "trade/history",
        {"symbol": SYMBOL},
        "price size side ts",
    ),
    ("get_server_time", None, {}, "timestamp", {}, ""),
    ("get_service_status", None, {}, "status", {}, "status"),
]


@pytest.mark.parametrize(("name", "asked", "fields", "path", "query", "needed"), REST)
async def test_rest(
    market: Any,
    few_client: Client,
    few: Shop,
    name: str,
    asked: str | None,
    fields: dict[str, Any],
    path: str,
    query: dict[str, Any],
    needed: str,
) -> None:
    few.exchange.clock.set(few.exchange.clock.now_ms(), 0.0)
    requests = [] if asked is None else [asking(asked, **fields)]
    read = said(await asyncio.to_thread(getattr(market, name), *requests))
    agrees(read, await data(few_client, f"/api/v1/{path}", **query))
    first = read[0] if isinstance(read, list) else read
    for field in needed.split():
        assert first[field] is not None, field


async def test_an_unknown_symbol_is_its_error(market: Any) -> None:
    asked = asking("GetTickerReq", symbol="NOSUCHUSDTM")
    with pytest.raises(part("model.common").RestError):
        await asyncio.to_thread(market.get_ticker, asked)


async def test_stream(sdk: Any, few_client: Client, few: Shop) -> None:
    exchange = few.exchange
    exchange.clock.set(exchange.clock.now_ms(), 0.0)  # one instant: what REST says is what is sent
    told: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def hear(channel: str) -> Callable[[str, str, Any], None]:
        return lambda _topic, _subject, event: told.put((channel, event))

    stream = sdk.ws_service().new_futures_public_ws()
    await asyncio.to_thread(stream.start)
    try:
        await asyncio.to_thread(stream.ticker_v2, SYMBOL, hear("ticker"))
        await asyncio.to_thread(stream.instrument, SYMBOL, hear("instrument"))
        await asyncio.to_thread(stream.klines, SYMBOL, "1hour", hear("candle"))
        await asyncio.to_thread(stream.orderbook_level5, SYMBOL, hear("level5"))
        await asyncio.to_thread(stream.orderbook_level50, SYMBOL, hear("level50"))
        await asyncio.to_thread(stream.symbol_snapshot, SYMBOL, hear("snapshot"))
        wanted = {"ticker", "instrument", "candle", "level5", "level50", "snapshot"}
        heard: dict[str, Any] = {}
        async with asyncio.timeout(PATIENCE_S):
            while wanted - heard.keys():
                channel, event = await asyncio.to_thread(told.get, timeout=PATIENCE_S)
                heard.setdefault(channel, event)
        ticker = await data(few_client, "/api/v1/ticker", symbol=SYMBOL)
        agrees({**said(heard["ticker"]), "ts": None}, ticker)
        book = await data(few_client, "/api/v1/level2/depth20", symbol=SYMBOL)
        for side in ("bids", "asks"):
            for channel, levels in (("level5", 5), ("level50", 20)):
                lines = getattr(heard[channel], side)[:levels]
                given = [(float(price), lots) for price, lots in book[side][:levels]]
                assert [(float(price), lots) for price, lots in lines] == given
        mark = await data(few_client, f"/api/v1/mark-price/{SYMBOL}/current")
        assert heard["instrument"].mark_price == mark["value"]
        assert heard["instrument"].index_price == mark["indexPrice"]
        (*_, bar) = await data(few_client, "/api/v1/kline/query", symbol=SYMBOL, granularity=60)
        opened, first, high, low, close, *_ = bar
        start, *prices = heard["candle"].candles[:5]  # open, close, high, low: not REST's order
        assert int(start) * 1000 == opened
        assert list(map(float, prices)) == [first, close, high, low]
        contract = await data(few_client, f"/api/v1/contracts/{SYMBOL}")
        assert heard["snapshot"].last_price == contract["lastTradePrice"]
    finally:
        await asyncio.to_thread(stream.stop)
