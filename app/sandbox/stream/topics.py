"""Public topics of the stream and the errors of an invalid subscription."""

from collections.abc import Callable
from dataclasses import dataclass

# Minutes of each candle; a month has no fixed length.
CANDLES: dict[str, int | None] = {
    "1min": 1,
    "3min": 3,
    "5min": 5,
    "15min": 15,
    "30min": 30,
    "1hour": 60,
    "2hour": 120,
    "4hour": 240,
    "8hour": 480,
    "12hour": 720,
    "1day": 1440,
    "1week": 10080,
    "1month": None,
}
ANNOUNCEMENT = "/contract/announcement"
CANDLE = "/contractMarket/limitCandle"
PUBLIC = frozenset(
    {
        "/contractMarket/tickerV2",
        "/contractMarket/ticker",
        "/contractMarket/execution",
        "/contractMarket/level2",
        "/contractMarket/level2Depth5",
        "/contractMarket/level2Depth50",
        "/contractMarket/snapshot",
        "/contract/instrument",
        CANDLE,
        ANNOUNCEMENT,
    }
)
PRIVATE = frozenset(
    {
        "/contractMarket/tradeOrders",
        "/contractMarket/advancedOrders",
        "/contractAccount/wallet",
        "/contract/position",
        "/contract/positionAll",
        "/contract/marginMode",
        "/contract/crossLeverage",
    }
)


class StreamError(Exception):
    """Error frame: an integer code, and the text under `data`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class MarketTopic:
    """Topic of one contract, or of all (`row` None); `candle` is a name of CANDLES."""

    channel: str
    symbol: str | None
    row: int | None
    candle: str | None = None

    @property
    def name(self) -> str:
        """Topic name in a subscription."""
        tail = "" if self.candle is None else f"_{self.candle}"
        return self.channel if self.symbol is None else f"{self.channel}:{self.symbol}{tail}"


def parse_topics(text: object, find_row: Callable[[str], int | None]) -> list[MarketTopic]:
    """Topics of a comma-separated list, in its order, without duplicates.

    `find_row` gives the row of a contract that can be subscribed. StreamError for the first
    unknown topic: the whole message is refused. KuCoin's documents allow two readings; this is
    the stricter one for a client.
    """
    if not isinstance(text, str) or not text:
        raise StreamError(406, "topic is required")
    channel, colon, tail = text.partition(":")
    if channel in PRIVATE:
        raise StreamError(403, "login is required")
    if channel not in PUBLIC:
        raise StreamError(404, f"topic {text} is not found")
    if not colon and channel == ANNOUNCEMENT:
        return [MarketTopic(channel, None, None)]
    names = tail.split(",")
    if not all(names):
        raise StreamError(400, "topic is invalid")
    return list(dict.fromkeys(_parse_topic(channel, name, find_row) for name in names))


def _parse_topic(channel: str, name: str, find_row: Callable[[str], int | None]) -> MarketTopic:
    symbol, _, candle = name.rpartition("_") if channel == CANDLE else (name, "", "")
    row = find_row(symbol)
    if row is None or (channel == CANDLE and candle not in CANDLES):
        raise StreamError(404, f"topic {channel}:{name} is not found")
    return MarketTopic(channel, symbol, row, candle or None)
