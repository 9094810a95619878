"""The table of answers: what each code, status and page means and what may help."""

import pytest

from app.adapters.kucoin.limiter import Quota
from app.adapters.kucoin.limits import KLINE
from app.adapters.kucoin.transport import Answer, Fault, Health, Remedy, judge
from app.foundation.errors import Code

CLOUDFLARE = b"<html><title>Cloudflare</title><h1>Error 1015</h1></html>"
PLAIN = b"<html>hello, 1015 visitors</html>"
LIMITED, REFUSED = Code.EXCHANGE_RATE_LIMITED, Code.EXCHANGE_REFUSED
GONE, BAD = Code.EXCHANGE_UNAVAILABLE, Code.EXCHANGE_BAD_RESPONSE
ELSEWHERE = Code.EXCHANGE_REDIRECTED
A, S, U = Health.ALIVE, Health.SICK, Health.UNTOLD
NONE = Remedy.NONE


def failure(code: str, message: str = "no") -> bytes:
    return f'{{"msg":"{message}","code":"{code}"}}'.encode()


@pytest.mark.parametrize(
    ("status", "body", "remaining", "code", "remedy", "health"),
    [
        (429, failure("429000"), 0, LIMITED, Remedy.POOL, A),
        (429, failure("429000"), 2, LIMITED, Remedy.POOL, A),  # not enough for a weight of 3
        (429, failure("429000"), 3, LIMITED, Remedy.SHORT_PAUSE, A),
        (429, failure("429000"), None, LIMITED, Remedy.POOL, A),
        (200, failure("429001"), None, LIMITED, Remedy.POOL, A),
        (200, failure("429002"), 99, LIMITED, Remedy.SHORT_PAUSE, A),
        (429, failure("200002"), 0, LIMITED, Remedy.ENDPOINT, A),
        (200, failure("200002", "Too many requests"), None, LIMITED, Remedy.ENDPOINT, A),
        (200, failure("200002", "The query scope for Level 3"), None, REFUSED, NONE, A),
        (429, failure("555555"), None, LIMITED, Remedy.POOL, A),
        (429, b"<html>slow down</html>", None, LIMITED, Remedy.POOL, A),
        (200, failure("1015"), None, Code.EXCHANGE_BANNED, Remedy.BAN, U),
        (429, failure("1015"), None, Code.EXCHANGE_BANNED, Remedy.BAN, U),
        (429, CLOUDFLARE, None, Code.EXCHANGE_BANNED, Remedy.BAN, U),
        (403, CLOUDFLARE, None, Code.EXCHANGE_BANNED, Remedy.BAN, U),
        (503, b"error code: 1015", None, Code.EXCHANGE_BANNED, Remedy.BAN, U),
        (200, CLOUDFLARE, None, Code.EXCHANGE_BANNED, Remedy.BAN, U),
        (200, PLAIN, None, BAD, NONE, S),
        (403, b"<html>forbidden</html>", None, BAD, NONE, S),
        (404, b"not found", None, BAD, NONE, S),
        (302, b"", None, ELSEWHERE, NONE, S),
        (502, b"<html>bad gateway</html>", None, GONE, Remedy.BACKOFF, S),
        (500, failure("500000"), None, GONE, Remedy.BACKOFF, S),
        (200, failure("500000"), None, GONE, Remedy.BACKOFF, S),
        (503, failure("123456"), None, GONE, Remedy.BACKOFF, S),
        (500, b'{"code":"200000","data":1}', None, GONE, Remedy.BACKOFF, S),
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
    status: int, body: bytes, remaining: int | None, code: Code, remedy: Remedy, health: Health
) -> None:
    outcome = judge(Answer(status, Quota(None, remaining, None), body), KLINE)
    assert isinstance(outcome, Fault)
    assert (outcome.error.code, outcome.remedy, outcome.health) == (code, remedy, health)


def test_messages_of_the_exchange_are_not_passed_on() -> None:
    outcome = judge(Answer(200, Quota(None, None, None), failure("100001", "secret")), KLINE)
    assert isinstance(outcome, Fault)
    assert "secret" not in outcome.error.detail
