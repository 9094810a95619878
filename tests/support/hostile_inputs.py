"""Bodies and query values that nobody sends by mistake."""

import random
from collections.abc import Callable

SEEDS = (
    b'{"symbol":"BTCUSDT","reason":"because","amount":"12.5","weight":0.25,"lots":3}',
    b'{"symbol":"XBTUSDTM","firm":false,"at":"2026-01-01T00:00:00Z"}',
    b'{"symbol":"A","weight":1e-7,"lots":0,"amount":5}',
    b'{"a":{"b":[{"c":[1,2,{"d":null}]}]},"e":[true,false]}',
    b'{"symbol_id":"6f0b6c1e-6d8e-4a55-9f4b-6f8f0b4f2a10","user":"ana"}',
    b'{"old_symbol":"BTCUSDT","new_symbol":"ETHUSDT","reason":"because"}',
    b'{"symbols":["BTCUSDT","ETH/USDT:USDT","nonsense"]}',
    b'{"dry_run":true,"size":5,"account_balance":"1000.50"}',
    b'{"max_portfolio_symbols":12,"weights":{"technical":0.2,"risk":0.4}}',
)
SNIPPETS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"1e-400", b"9" * 400, b'"\\ud800"', b'"\\u0000"',
    b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", "\u202e".encode(), b"[" * 40, b"]" * 40, b"{" * 40,
    b'"symbol":"B",', b"null", b"\\", b'"', b",", b":", b"\x00", b"-0", b"-", b"0x1", b"'", b"\r\n",
    b'"\\u00e9"', "\U0001f600".encode(), b"1" * 5000, b" " * 3000, b"{}", b"[]", b"true",
)  # fmt: skip
VALUES = (
    "", "0", "-1", "1", "5", "501", "1e3", "1_0", "NaN", "Infinity", "true", "false", "null", "''",
    "%", "_", "(a+)+$", "../..", "%00", "\u0661", "\U0001f600", "x" * 300, "9" * 40, "0.1", "-0.5",
    "2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "BTCUSDT", "XBTUSDTM", "BTC/USDT:USDT", "1hour", "1day", "HOUR", "DAY", "COMPOSITE", "ADD",
    "6f0b6c1e-6d8e-4a55-9f4b-6f8f0b4f2a10", "1.7976931348623157e308", "99999999999999999999",
)  # fmt: skip


def mutated(rng: random.Random) -> bytes:
    """One of the seeds, changed in up to five places."""
    body = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randrange(6)):
        at, end = sorted((rng.randrange(len(body) + 1), rng.randrange(len(body) + 1)))
        rng.choice(_CHANGES)(body, at, end, rng)
    return bytes(body)


def _insert(body: bytearray, at: int, _: int, rng: random.Random) -> None:
    body[at:at] = rng.choice(SNIPPETS)


def _delete(body: bytearray, at: int, end: int, rng: random.Random) -> None:
    del body[at : min(end, at + rng.randrange(1, 12))]


def _flip(body: bytearray, at: int, _: int, rng: random.Random) -> None:
    if at < len(body):
        body[at] = rng.randrange(256)


def _copy(body: bytearray, at: int, end: int, _: random.Random) -> None:
    body[at:at] = body[at:end]


def _cut(body: bytearray, at: int, _: int, rng: random.Random) -> None:
    if rng.random() < 0.3:
        del body[at:]


_CHANGES: tuple[Callable[[bytearray, int, int, random.Random], None], ...] = (
    _insert, _insert, _delete, _flip, _copy, _cut,
)  # fmt: skip
