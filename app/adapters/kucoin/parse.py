"""Parses decoded answers to tickers, books, funding, candles, marks, time and status.

All functions are pure. An answer of a wrong shape raises BadResponseError with the field; a bad
record of a list becomes a Rejection and leaves the others alone.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import Final, TypeVar, cast

import numpy as np

from app.adapters.kucoin.fields import (
    DIGITS,
    YEAR_2015_S,
    YEAR_2100_S,
    FieldReader,
    InvalidFieldError,
    Reader,
    UnreadableError,
    code,
    decimal,
    instant_ms,
    is_absent,
    lots,
    magnitude,
    not_negative,
    positive,
    some_lots,
    text,
    whole,
)
from app.foundation.errors import BadResponseError, Code
from app.market.domain.models import (
    Book,
    CandleSeries,
    Contract,
    CurrentFunding,
    ExchangeStatus,
    Floats,
    Funding,
    Ints,
    Level,
    MarkPrice,
    Rejection,
    Ticker,
    TickerListing,
)

T = TypeVar("T")

HOUR_MS: Final = 3_600_000
# Possible funding intervals; any other distance of two settlements is a gap.
_INTERVALS_MS: Final = frozenset(hours * HOUR_MS for hours in (1, 2, 4, 6, 8, 12, 24))


def malformed_answer(name: str, reason: str) -> BadResponseError:
    """Create the error for a malformed answer; it never echoes a value."""
    return BadResponseError(
        Code.EXCHANGE_BAD_RESPONSE,
        f"the exchange's answer is invalid at {name}: {reason}",
        facts={"field": name},
    )


def whole_answer(read: Callable[[], T]) -> T:
    """Parse a single object; any field that fails, fails the answer."""
    try:
        return read()
    except InvalidFieldError as error:
        raise malformed_answer(error.field, error.reason) from None


def items(data: object) -> Sequence[object]:
    if not isinstance(data, list):
        raise malformed_answer("data", "not a list")
    return data


def key_of(item: object, position: int) -> str:
    """Name of a record in a rejection: its contract code, else its position."""
    symbol = item.get("symbol") if isinstance(item, dict) else None
    try:
        return code(symbol)
    except UnreadableError:
        return f"#{position}"


def rejection(item: object, position: int, error: InvalidFieldError) -> Rejection:
    return Rejection(key_of(item, position), error.field, error.reason)


def refuse_repeated(name: str, accepted: Container[str]) -> None:
    """Keep the first record of each contract and reject repeated ones."""
    if name in accepted:
        raise InvalidFieldError("symbol", "repeated")


def server_time(data: object) -> int:
    """Epoch milliseconds of the exchange's clock, from any unit."""
    try:
        return instant_ms(data)
    except UnreadableError as error:
        raise malformed_answer("data", str(error)) from None


def status(data: object) -> ExchangeStatus:
    def read() -> ExchangeStatus:
        word = FieldReader.from_value(data, "data").need("status", text)
        try:
            return ExchangeStatus(word)
        except ValueError:
            raise InvalidFieldError("status", "unknown word") from None

    return whole_answer(read)


def ticker(data: object, requested: str) -> Ticker:
    """Ticker of `requested`; an answer about another contract is refused."""
    answer = whole_answer(lambda: _ticker(data))
    if answer.code != requested:
        raise malformed_answer("symbol", "an answer about another contract")
    return answer


def tickers(data: object) -> TickerListing:
    accepted: dict[str, Ticker] = {}
    rejections: list[Rejection] = []
    for position, item in enumerate(items(data)):
        try:
            one = _ticker(item)
            refuse_repeated(one.code, accepted)
            accepted[one.code] = one
        except InvalidFieldError as error:
            rejections.append(rejection(item, position, error))
    return TickerListing(tuple(accepted.values()), tuple(rejections))


def _ticker(item: object) -> Ticker:
    record = FieldReader.from_value(item, "data")
    answer = Ticker(
        code=record.need("symbol", code),
        last=record.need("price", positive),
        last_lots=record.maybe("size", lots),
        bid=record.maybe("bestBidPrice", not_negative) or None,  # zero: no bid
        bid_lots=record.maybe("bestBidSize", lots),
        ask=record.maybe("bestAskPrice", not_negative) or None,
        ask_lots=record.maybe("bestAskSize", lots),
        traded_ms=record.need("ts", instant_ms),
    )
    # An unreadable quote must not pass for an empty side of the book.
    for fault in record.faults:
        raise fault
    return answer


def book(data: object, requested: str) -> Book:
    """Book with levels sorted best first; levels without size are dropped, a side may be empty."""

    def read() -> Book:
        record = FieldReader.from_value(data, "data")
        if record.need("symbol", code) != requested:
            raise InvalidFieldError("symbol", "an answer about another contract")
        bids, asks = _levels(record, "bids"), _levels(record, "asks")
        return Book(
            code=requested,
            sequence=record.need("sequence", whole),
            bids=tuple(sorted(bids, key=lambda level: level.price, reverse=True)),
            asks=tuple(sorted(asks, key=lambda level: level.price)),
            stamped_ms=record.need("ts", instant_ms),
        )

    return whole_answer(read)


def _levels(record: FieldReader, name: str) -> list[Level]:
    side = record.values.get(name)
    if is_absent(side):
        return []
    if not isinstance(side, list):
        raise InvalidFieldError(name, "not a list")
    levels = [_level(row, f"{name}[{position}]") for position, row in enumerate(side)]
    return [level for level in levels if level.lots > 0]


def _level(row: object, name: str) -> Level:
    if not isinstance(row, list) or len(row) < 2:
        raise InvalidFieldError(name, "not a pair of price and size")
    try:
        return Level(positive(row[0]), lots(row[1]))
    except UnreadableError as error:
        raise InvalidFieldError(name, str(error)) from None


def mark_price(data: object, requested: str) -> MarkPrice:
    def read() -> MarkPrice:
        record = FieldReader.from_value(data, "data")
        if record.need("symbol", code) != requested:
            raise InvalidFieldError("symbol", "an answer about another contract")
        answer = MarkPrice(
            code=requested,
            mark=record.need("value", positive),
            index=record.maybe("indexPrice", positive),
            stamped_ms=record.need("timePoint", instant_ms),
        )
        for fault in record.faults:
            raise fault
        return answer

    return whole_answer(read)


def funding_now(data: object, requested: str) -> CurrentFunding:
    """Funding of the running interval; `timePoint` is the settlement that began it.

    The next settlement is `fundingTime`; older answers lack it, there it is one interval later.
    """

    def read() -> CurrentFunding:
        record = FieldReader.from_value(data, "data")
        started = record.need("timePoint", instant_ms)
        interval = record.need("granularity", some_lots)
        settles = started + interval
        if not is_absent(record.values.get("fundingTime")):
            settles = record.need("fundingTime", instant_ms)
        return CurrentFunding(requested, record.need("value", decimal), interval, started, settles)

    return whole_answer(read)


def funding_rows(data: object, requested: str) -> tuple[list[Funding], list[Rejection]]:
    """Settled rates in their order, without intervals; the caller pages, sorts and links them."""
    rows: list[Funding] = []
    rejections: list[Rejection] = []
    for position, item in enumerate(items(data)):
        try:
            rows.append(_funding(item, requested))
        except InvalidFieldError as error:
            rejections.append(rejection(item, position, error))
    return rows, rejections


def _funding(item: object, requested: str) -> Funding:
    record = FieldReader.from_value(item, "data")
    if record.need("symbol", code) != requested:
        raise InvalidFieldError("symbol", "a record of another contract")
    moment = record.need("timepoint", instant_ms)
    return Funding(moment, record.need("fundingRate", decimal), interval_ms=None)


def link_settlements(rows: Sequence[Funding]) -> tuple[Funding, ...]:
    """Sort and deduplicate settlements, and set the interval that each one closed.

    The interval is the distance to the previous settlement. It is None for the first one and
    after a gap, so a later change alters no past value.
    """
    ordered = sorted({row.settled_ms: row for row in rows}.values(), key=lambda row: row.settled_ms)
    answer: list[Funding] = []
    for position, row in enumerate(ordered):
        distance = row.settled_ms - ordered[position - 1].settled_ms if position else 0
        known = distance if distance in _INTERVALS_MS else None
        answer.append(Funding(row.settled_ms, row.rate, known))
    return tuple(answer)


_FIRST_MS: Final = YEAR_2015_S * 1000
_END_MS: Final = YEAR_2100_S * 1000
_LEAST: Final = 10.0**-DIGITS
_TOO_MUCH: Final = 10.0 ** (DIGITS + 1)
_OPEN, _HIGH, _LOW, _CLOSE, _LOTS, _TURNOVER = range(6)


@dataclass(frozen=True, slots=True)
class CandleRows:
    """Candle rows of an answer: `opened_ms` (T,), `values` (6, T).

    The values are open, high, low, close, volume in lots, and turnover; NaN for an absent one.
    """

    opened_ms: Ints
    values: Floats

    def __len__(self) -> int:
        return len(self.opened_ms)


def join_rows(pages: Sequence[CandleRows]) -> CandleRows:
    """Rows of all pages in their order; empty without pages."""
    nothing = _table([])
    return CandleRows(
        np.concatenate([page.opened_ms for page in (nothing, *pages)]),
        np.concatenate([page.values for page in (nothing, *pages)], axis=1),
    )


def candle_rows(data: object) -> tuple[CandleRows, list[Rejection]]:
    """Valid candle rows, in the order of the answer.

    Columns are time, open, high, low, close, lots and, since 2025, turnover. A row is rejected
    for a value that is no number, a price that is not positive, or a high and low that do not
    enclose open and close.
    """
    sent = items(data)
    whole = _parse_vectorized(sent)
    if whole is not None:
        return whole, []
    accepted: list[_Row] = []
    rejections: list[Rejection] = []
    for position, item in enumerate(sent):
        try:
            accepted.append(_row(item))
        except InvalidFieldError as error:
            rejections.append(Rejection(f"#{position}", error.field, error.reason))
    return _table(accepted), rejections


def _parse_vectorized(sent: Sequence[object]) -> CandleRows | None:
    """Parse all rows in one numpy call, an order of magnitude faster than one by one.

    None unless every row holds plain numbers in the usual form: `_row` alone decides restarted
    rows and gives their reasons.
    """
    if set(map(type, sent)) != {list}:
        return None
    try:
        columns = list(zip(*cast("Sequence[list[object]]", sent), strict=True))
        numbers = columns[1:7]
        kinds = set(map(type, chain.from_iterable(numbers)))
        if set(map(type, columns[0])) != {int} or not kinds <= {int, float} or len(numbers) < 5:
            return None
        opened = np.array(columns[0], dtype=np.int64)
        values = np.full((6, len(opened)), np.nan)
        values[: len(numbers)] = numbers
    except (ValueError, OverflowError, IndexError):  # ragged, empty, or beyond what fits
        return None
    said = values[: len(numbers)]
    sizes = np.abs(said)
    sound = (
        np.all((opened >= _FIRST_MS) & (opened < _END_MS))
        and np.all((sizes == 0) | ((sizes >= _LEAST) & (sizes < _TOO_MUCH)))
        and np.all(values[_LOW] > 0)
        and np.all(values[_LOW] <= np.minimum(values[_OPEN], values[_CLOSE]))
        and np.all(values[_HIGH] >= np.maximum(values[_OPEN], values[_CLOSE]))
        and np.all(values[_LOTS] >= 0)
    )
    if not sound:
        return None
    values[_TURNOVER] = np.abs(values[_TURNOVER])  # its sign is a quirk
    return CandleRows(opened, values)


_Row = tuple[int, tuple[float, float, float, float, float, float]]


def _table(found: Sequence[_Row]) -> CandleRows:
    opened = np.array([moment for moment, _ in found], dtype=np.int64)
    values = np.array([cells for _, cells in found], dtype=np.float64).reshape(len(found), 6)
    return CandleRows(opened, values.T)


def _row(item: object) -> _Row:
    if not isinstance(item, list) or len(item) < 6:
        raise InvalidFieldError("row", "fewer than six columns")
    opened = _cell(item, 0, "time", instant_ms)
    first, high, low, last = (
        float(_cell(item, column, name, positive))
        for column, name in enumerate(("open", "high", "low", "close"), 1)
    )
    if not low <= min(first, last) <= max(first, last) <= high:
        raise InvalidFieldError("high", "high and low do not enclose open and close")
    lots = float(_cell(item, 5, "volume", not_negative))
    silent = len(item) < 7 or item[6] is None
    turnover = np.nan if silent else float(_cell(item, 6, "turnover", magnitude))
    return opened, (first, high, low, last, lots, turnover)


def _cell(item: Sequence[object], column: int, name: str, read: Reader[T]) -> T:
    value = item[column]
    try:
        return read(Decimal(repr(value)) if isinstance(value, float) else value)
    except UnreadableError as error:
        raise InvalidFieldError(name, str(error)) from None


def candle_series(
    found: CandleRows, contract: Contract, grid_ms: int, start_ms: int, end_ms: int
) -> CandleSeries:
    """Candles opened in [start_ms, end_ms), oldest first, one per opening time; arrays (T,).

    A repeated opening time keeps the later row, which is newer. Rows off the grid of `grid_ms`
    or outside the range are dropped. Volume becomes base coins for linear and USD for inverse
    contracts. Turnover is in quote currency as sent. Where it is absent (six columns) or in
    base coins (inverse), it is volume times close for linear and the volume itself for inverse
    contracts.
    """
    moments = found.opened_ms
    wanted = (moments >= start_ms) & (moments < end_ms) & (moments % grid_ms == 0)
    # Latest first: np.unique keeps the first of equal times.
    backwards = np.flatnonzero(wanted)[::-1]
    opened, chosen = np.unique(moments[backwards], return_index=True)
    values = found.values[:, backwards[chosen]]
    volume = values[_LOTS] * float(contract.multiplier)
    close = values[_CLOSE]
    if contract.is_inverse:
        turnover = volume.copy()
    else:
        given = values[_TURNOVER]
        turnover = np.where(np.isnan(given), volume * close, given)
    return CandleSeries(
        opened_ms=opened,
        open=values[_OPEN].copy(),
        high=values[_HIGH].copy(),
        low=values[_LOW].copy(),
        close=close.copy(),
        volume=volume,
        turnover=turnover,
    )
