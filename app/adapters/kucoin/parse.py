"""From a decoded answer to domain values: tickers, books, funding, marks, time and status.

All functions are pure. An answer whose shape is wrong raises BadResponseError that names the
field; a bad record of a list becomes a Rejection and leaves the others alone.
"""

from collections.abc import Callable, Container, Sequence
from typing import Final, TypeVar

from app.adapters.kucoin.fields import (
    FieldError,
    Record,
    UnreadableError,
    code,
    decimal,
    instant_ms,
    is_absent,
    lots,
    not_negative,
    positive,
    some_lots,
    text,
    whole,
)
from app.foundation.errors import BadResponseError, Code
from app.market.domain.models import (
    Book,
    ExchangeStatus,
    Funding,
    FundingNow,
    Level,
    MarkPrice,
    Rejection,
    Ticker,
    TickerListing,
)

T = TypeVar("T")

HOUR_MS: Final = 3_600_000
# What a funding interval may be; the distance of two settlements is one of these, or a hole.
_INTERVALS_MS: Final = frozenset(hours * HOUR_MS for hours in (1, 2, 4, 6, 8, 12, 24))


def bad(name: str, reason: str) -> BadResponseError:
    """The typed error for an answer that is not one; never echoes a value."""
    return BadResponseError(
        Code.EXCHANGE_BAD_RESPONSE,
        f"the exchange's answer makes no sense at {name}: {reason}",
        facts={"field": name},
    )


def whole_answer(read: Callable[[], T]) -> T:
    """Run a reader of a single object: a field that fails, fails the answer."""
    try:
        return read()
    except FieldError as error:
        raise bad(error.field, error.reason) from None


def items(data: object) -> Sequence[object]:
    if not isinstance(data, list):
        raise bad("data", "not a list")
    return data


def key_of(item: object, position: int) -> str:
    """What to call a record in a rejection: its contract code, else where it stood."""
    symbol = item.get("symbol") if isinstance(item, dict) else None
    try:
        return code(symbol)
    except UnreadableError:
        return f"#{position}"


def rejection(item: object, position: int, error: FieldError) -> Rejection:
    return Rejection(key_of(item, position), error.field, error.reason)


def refuse_repeated(name: str, kept: Container[str]) -> None:
    """One contract, one record: of two, the first is kept and the second refused."""
    if name in kept:
        raise FieldError("symbol", "repeated")


def server_time(data: object) -> int:
    """Epoch milliseconds of the exchange's clock, whatever unit it was sent in."""
    try:
        return instant_ms(data)
    except UnreadableError as error:
        raise bad("data", str(error)) from None


def status(data: object) -> ExchangeStatus:
    def read() -> ExchangeStatus:
        word = Record.of(data, "data").need("status", text)
        try:
            return ExchangeStatus(word)
        except ValueError:
            raise FieldError("status", "unknown word") from None

    return whole_answer(read)


def ticker(data: object, asked: str) -> Ticker:
    """The ticker of `asked`; an answer about another contract is refused."""
    answer = whole_answer(lambda: _ticker(data))
    if answer.code != asked:
        raise bad("symbol", "an answer about another contract")
    return answer


def tickers(data: object) -> TickerListing:
    kept: dict[str, Ticker] = {}
    rejections: list[Rejection] = []
    for position, item in enumerate(items(data)):
        try:
            one = _ticker(item)
            refuse_repeated(one.code, kept)
            kept[one.code] = one
        except FieldError as error:
            rejections.append(rejection(item, position, error))
    return TickerListing(tuple(kept.values()), tuple(rejections))


def _ticker(item: object) -> Ticker:
    record = Record.of(item, "data")
    answer = Ticker(
        code=record.need("symbol", code),
        last=record.need("price", positive),
        last_lots=record.maybe("size", lots),
        bid=record.maybe("bestBidPrice", not_negative) or None,  # zero: nobody bids
        bid_lots=record.maybe("bestBidSize", lots),
        ask=record.maybe("bestAskPrice", not_negative) or None,
        ask_lots=record.maybe("bestAskSize", lots),
        traded_ms=record.need("ts", instant_ms),
    )
    # A quote that cannot be read must not pass for an empty side of the book.
    for fault in record.faults:
        raise fault
    return answer


def book(data: object, asked: str) -> Book:
    """Levels sorted best first; levels without size dropped; a side may be empty."""

    def read() -> Book:
        record = Record.of(data, "data")
        if record.need("symbol", code) != asked:
            raise FieldError("symbol", "an answer about another contract")
        bids, asks = _levels(record, "bids"), _levels(record, "asks")
        return Book(
            code=asked,
            sequence=record.need("sequence", whole),
            bids=tuple(sorted(bids, key=lambda level: level.price, reverse=True)),
            asks=tuple(sorted(asks, key=lambda level: level.price)),
            stamped_ms=record.need("ts", instant_ms),
        )

    return whole_answer(read)


def _levels(record: Record, name: str) -> list[Level]:
    side = record.values.get(name)
    if is_absent(side):
        return []
    if not isinstance(side, list):
        raise FieldError(name, "not a list")
    levels = [_level(row, f"{name}[{position}]") for position, row in enumerate(side)]
    return [level for level in levels if level.lots > 0]


def _level(row: object, name: str) -> Level:
    if not isinstance(row, list) or len(row) < 2:
        raise FieldError(name, "not a pair of price and size")
    try:
        return Level(positive(row[0]), lots(row[1]))
    except UnreadableError as error:
        raise FieldError(name, str(error)) from None


def mark_price(data: object, asked: str) -> MarkPrice:
    def read() -> MarkPrice:
        record = Record.of(data, "data")
        if record.need("symbol", code) != asked:
            raise FieldError("symbol", "an answer about another contract")
        answer = MarkPrice(
            code=asked,
            mark=record.need("value", positive),
            index=record.maybe("indexPrice", positive),
            stamped_ms=record.need("timePoint", instant_ms),
        )
        for fault in record.faults:
            raise fault
        return answer

    return whole_answer(read)


def funding_now(data: object, asked: str) -> FundingNow:
    """The running interval. `timePoint` is the settlement that began it.

    The next settlement is `fundingTime`; older answers lack it, there it is one interval later.
    """

    def read() -> FundingNow:
        record = Record.of(data, "data")
        started = record.need("timePoint", instant_ms)
        interval = record.need("granularity", some_lots)
        settles = started + interval
        if not is_absent(record.values.get("fundingTime")):
            settles = record.need("fundingTime", instant_ms)
        return FundingNow(asked, record.need("value", decimal), interval, started, settles)

    return whole_answer(read)


def funding_rows(data: object, asked: str) -> tuple[list[Funding], list[Rejection]]:
    """Settled rates as they came, without intervals; the caller pages, sorts and links them."""
    rows: list[Funding] = []
    rejections: list[Rejection] = []
    for position, item in enumerate(items(data)):
        try:
            rows.append(_funding(item, asked))
        except FieldError as error:
            rejections.append(rejection(item, position, error))
    return rows, rejections


def _funding(item: object, asked: str) -> Funding:
    record = Record.of(item, "data")
    if record.need("symbol", code) != asked:
        raise FieldError("symbol", "a record of another contract")
    moment = record.need("timepoint", instant_ms)
    return Funding(moment, record.need("fundingRate", decimal), interval_ms=None)


def linked(rows: Sequence[Funding]) -> tuple[Funding, ...]:
    """Sorted by time, deduplicated, each with the interval that it closed.

    The interval is the distance to the settlement before; None for the first one and after a
    hole (a distance that is no funding interval), so a later change alters no past value.
    """
    ordered = sorted({row.settled_ms: row for row in rows}.values(), key=lambda row: row.settled_ms)
    answer: list[Funding] = []
    for position, row in enumerate(ordered):
        distance = row.settled_ms - ordered[position - 1].settled_ms if position else 0
        known = distance if distance in _INTERVALS_MS else None
        answer.append(Funding(row.settled_ms, row.rate, known))
    return tuple(answer)
