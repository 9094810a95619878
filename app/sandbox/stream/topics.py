"""The public topics: what a client may ask for, and what it is told when it may not."""

from collections.abc import Callable
from dataclasses import dataclass

# Minutes of each candle; months have no length of their own.
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
    """An error frame: an integer code, and the text under `data`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of one contract, or of all (`row` None); `candle` is a name of CANDLES."""

    channel: str
    symbol: str | None
    row: int | None
    candle: str | None = None

    @property
    def name(self) -> str:
        """The topic as it is asked for."""
        tail = "" if self.candle is None else f"_{self.candle}"
        return self.channel if self.symbol is None else f"{self.channel}:{self.symbol}{tail}"


def topics(asked: object, listed: Callable[[str], int | None]) -> list[Topic]:
    """The topics of a comma list, in its order and each once.

    `listed` gives the row of a contract that can be subscribed. StreamError for the first that
    there is not: nothing of such a message is subscribed, of two readings of the documents the
    one that is harder on a client.
    """
    if not isinstance(asked, str) or not asked:
        raise StreamError(406, "topic is required")
    channel, colon, tail = asked.partition(":")
    if channel in PRIVATE:
        raise StreamError(403, "login is required")
    if channel not in PUBLIC:
        raise StreamError(404, f"topic {asked} is not found")
    if not colon and channel == ANNOUNCEMENT:
        return [Topic(channel, None, None)]
    names = tail.split(",")
    if not all(names):
        raise StreamError(400, "topic is invalid")
    return list(dict.fromkeys(_topic(channel, name, listed) for name in names))


def _topic(channel: str, name: str, listed: Callable[[str], int | None]) -> Topic:
    symbol, _, candle = name.rpartition("_") if channel == CANDLE else (name, "", "")
    row = listed(symbol)
    if row is None or (channel == CANDLE and candle not in CANDLES):
        raise StreamError(404, f"topic {channel}:{name} is not found")
    return Topic(channel, symbol, row, candle or None)
