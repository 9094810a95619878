"""Rows E07 and E10: floods of log lines, and bodies that are expensive to read."""

import io
import json
import logging
import time
from contextlib import suppress
from decimal import Decimal
from itertools import count

import pytest
import structlog
from pydantic import TypeAdapter, ValidationError

from app.foundation.http.errors import RequestError
from app.foundation.http.request_body import MAX_BODY_BYTES, MAX_EXPONENT, DecimalIn, parse
from app.telemetry.logging import LogSampler, configure_logging

FLOOD = 5_000
_DECIMALS: TypeAdapter[Decimal] = TypeAdapter(DecimalIn)


def test_E07_a_flood_of_one_event_is_sampled_and_the_rest_is_counted() -> None:
    now = 10.0
    sampler = LogSampler(lambda: now)
    admitted = [sampler.admit("task_failed", is_warning=True) for _ in range(FLOOD)]
    assert sum(one is not None for one in admitted) == sampler.warnings_per_second
    assert sampler.admit("another", is_warning=True) == 0  # each event has its own share
    now = 11.0
    assert sampler.admit("task_failed", is_warning=True) == FLOOD - sampler.warnings_per_second
    assert sampler.admit("task_failed", is_warning=True) == 0


def test_E07_a_flood_of_different_events_takes_bounded_memory() -> None:
    seconds = count()
    sampler = LogSampler(lambda: next(seconds) // 50, warnings_per_second=0)
    for number in range(FLOOD):
        sampler.admit(f"{number} {'x' * 1_000}", is_warning=True)
    assert len(sampler._suppressed) <= 1_000
    assert len(sampler._counts) <= 50


@pytest.mark.parametrize("is_own", [True, False], ids=["structlog", "standard-library"])
def test_E07_both_ways_of_logging_are_sampled(is_own: bool) -> None:
    stream = io.StringIO()
    configure_logging(level="info", form="json", stream=stream)
    try:
        for _ in range(FLOOD):
            if is_own:
                structlog.get_logger("x").warning("flood", value=1)
            else:
                logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    finally:
        logging.getLogger().handlers.clear()
        structlog.reset_defaults()
    lines = stream.getvalue().splitlines()
    assert 0 < len(lines) < FLOOD / 10
    assert json.loads(lines[0])["level"] == "warning"


def _sized(unit: bytes) -> bytes:
    return unit * (MAX_BODY_BYTES // len(unit))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MAX_BODY_BYTES,
        _sized(b'{"a":'),
        b'"' + b"\\" * (MAX_BODY_BYTES - 1),
        _sized(b'"\\"'),
        b'{"a":"' + _sized(b"\\u0000")[:-20] + b'"}',
        b"[" + b"1" * (MAX_BODY_BYTES - 2) + b"]",
        b"[1e" + b"9" * (MAX_BODY_BYTES - 4) + b"]",
        b"[0." + b"0" * (MAX_BODY_BYTES - 5) + b"1]",
        b"{" + b",".join(b'"%d":1' % number for number in range(5_000)) + b',"1":2}',
    ],
    ids=["deep", "deep-objects", "backslashes", "quotes", "nulls", "digits", "exponent", "small",
         "duplicate"],
)  # fmt: skip
def test_E10_a_hostile_body_of_full_size_costs_no_more_than_a_harmless_one(body: bytes) -> None:
    harmless = json.dumps({f"key-{number}": "x" * 20 for number in range(1_500)}).encode()
    spent = []
    for one in (harmless, body[:MAX_BODY_BYTES]):
        begun = time.thread_time()
        for _ in range(5):
            with suppress(RequestError):
                parse(one)
        spent.append(time.thread_time() - begun)
    assert spent[1] < 50 * spent[0] + 0.05  # quadratic work would be thousands of times as much


@pytest.mark.parametrize("number", [1e41, -1e300, 1e-41, 5e-324, 10**41])
def test_E10_a_decimal_has_at_most_forty_places_before_or_behind_the_point(number: float) -> None:
    with pytest.raises(ValidationError, match="not a decimal number"):
        _DECIMALS.validate_python(number)


@pytest.mark.parametrize("number", [0.0, 1e40, -1e-40, 123.45, 7])
def test_E10_other_decimals_are_read_as_they_are_written(number: float) -> None:
    assert _DECIMALS.validate_python(number) == Decimal(repr(number))
    assert MAX_EXPONENT == 40


@pytest.mark.parametrize("text", ["1e5", "9" * 19, "0." + "1" * 19, "NaN", "1_0", "１"])
def test_E10_text_of_a_decimal_has_no_exponent_and_bounded_digits(text: str) -> None:
    with pytest.raises(ValidationError, match="not a decimal number"):
        _DECIMALS.validate_python(text)
