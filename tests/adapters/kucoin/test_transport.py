"""The table of answers: what each code, status and page means and what may help."""

import pytest

from app.adapters.kucoin.limiter import KLINE, QuotaHeaders
from app.adapters.kucoin.transport import (
    ExchangeResponse,
    HealthEvidence,
    RequestFailure,
    RetryAction,
    interpret_response,
)
from app.foundation.errors import Code

CLOUDFLARE = b"<html><title>Cloudflare</title><h1>Error 1015</h1></html>"
PLAIN = b"<html>hello, 1015 visitors</html>"
LIMITED, REFUSED = Code.EXCHANGE_RATE_LIMITED, Code.EXCHANGE_REFUSED
GONE, BAD = Code.EXCHANGE_UNAVAILABLE, Code.EXCHANGE_BAD_RESPONSE
ELSEWHERE = Code.EXCHANGE_REDIRECTED
A, S, U = HealthEvidence.ALIVE, HealthEvidence.SICK, HealthEvidence.UNKNOWN
NONE = RetryAction.NONE


def failure(code: str, message: str = "no") -> bytes:
    return f'{{"msg":"{message}","code":"{code}"}}'.encode()


@pytest.mark.parametrize(
    ("status", "body", "remaining", "code", "remedy", "health"),
    [
        (429, failure("429000"), 0, LIMITED, RetryAction.POOL, A),
        (429, failure("429000"), 2, LIMITED, RetryAction.POOL, A),  # not enough for a weight of 3
        (429, failure("429000"), 3, LIMITED, RetryAction.SHORT_PAUSE, A),
        (429, failure("429000"), None, LIMITED, RetryAction.POOL, A),
        (200, failure("429001"), None, LIMITED, RetryAction.POOL, A),
        (200, failure("429002"), 99, LIMITED, RetryAction.SHORT_PAUSE, A),
        (429, failure("200002"), 0, LIMITED, RetryAction.ENDPOINT, A),
        (200, failure("200002", "Too many requests"), None, LIMITED, RetryAction.ENDPOINT, A),
        (200, failure("200002", "The query scope for Level 3"), None, REFUSED, NONE, A),
        (429, failure("555555"), None, LIMITED, RetryAction.POOL, A),
        (429, b"<html>slow down</html>", None, LIMITED, RetryAction.POOL, A),
        (200, failure("1015"), None, Code.EXCHANGE_BANNED, RetryAction.BAN, U),
        (429, failure("1015"), None, Code.EXCHANGE_BANNED, RetryAction.BAN, U),
        (429, CLOUDFLARE, None, Code.EXCHANGE_BANNED, RetryAction.BAN, U),
        (403, CLOUDFLARE, None, Code.EXCHANGE_BANNED, RetryAction.BAN, U),
        (503, b"error code: 1015", None, Code.EXCHANGE_BANNED, RetryAction.BAN, U),
        (200, CLOUDFLARE, None, Code.EXCHANGE_BANNED, RetryAction.BAN, U),
        (200, PLAIN, None, BAD, NONE, S),
        (403, b"<html>forbidden</html>", None, BAD, NONE, S),
        (404, b"not found", None, BAD, NONE, S),
        (302, b"", None, ELSEWHERE, NONE, S),
        (502, b"<html>bad gateway</html>", None, GONE, RetryAction.BACKOFF, S),
        (500, failure("500000"), None, GONE, RetryAction.BACKOFF, S),
        (200, failure("500000"), None, GONE, RetryAction.BACKOFF, S),
        (503, failure("123456"), None, GONE, RetryAction.BACKOFF, S),
        (500, b'{"code":"200000","data":1}', None, GONE, RetryAction.BACKOFF, S),
        (404, failure("404000"), None, BAD, NONE, A),
        (404, failure("404"), None, BAD, NONE, A),
        (200, failure("200003"), None, Code.SYMBOL_UNKNOWN, NONE, A),
        (400, failure("400100"), None, REFUSED, NONE, A),
        (200, failure("100001"), None, REFUSED, NONE, A),
        (200, failure("415000"), None, REFUSED, NONE, A),
        (403, failure("400302"), None, GONE, NONE, S),
        (200, failure("40010"), None, GONE, NONE, S),
        (200, failure("987654"), None, REFUSED, NONE, A),
        (400, b'{"code":"200000","data":1}', None, BAD, NONE, S),
        (200, b'{"code":"200000","msg":"Position does not exist"}', None, BAD, NONE, A),
        (200, b'{"code":"200000","data":null}', None, BAD, NONE, A),
        (200, b'{"code":"2e5","data":1}', None, BAD, NONE, S),
    ],
)
def test_a_fault_is_recognised(
    status: int,
    body: bytes,
    remaining: int | None,
    code: Code,
    remedy: RetryAction,
    health: HealthEvidence,
) -> None:
    outcome = interpret_response(
        ExchangeResponse(status, QuotaHeaders(None, remaining, None), body), KLINE
    )
    assert isinstance(outcome, RequestFailure)
    assert (outcome.error.code, outcome.remedy, outcome.health) == (code, remedy, health)


def test_messages_of_the_exchange_are_not_passed_on() -> None:
    outcome = interpret_response(
        ExchangeResponse(200, QuotaHeaders(None, None, None), failure("100001", "secret")), KLINE
    )
    assert isinstance(outcome, RequestFailure)
    assert "secret" not in outcome.error.detail
