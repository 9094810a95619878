"""HTTP transport to the exchange, and interpretation of its answers as data or failure."""

import re
import ssl
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, Protocol

import aiohttp
import msgspec
from yarl import URL

from app.adapters.kucoin.fields import number_from_text
from app.adapters.kucoin.limiter import Endpoint, KucoinLimits, QuotaHeaders
from app.foundation.errors import (
    BadResponseError,
    Code,
    ExchangeTimeoutError,
    RefusedError,
    ServiceError,
    UnavailableError,
)


class RetryAction(Enum):
    """Recovery action for a failed request."""

    NONE = auto()
    BACKOFF = auto()
    SHORT_PAUSE = auto()  # the system is busy, our quota is not used up
    POOL = auto()  # wait for the quota's reset
    ENDPOINT = auto()  # pause this endpoint
    BAN = auto()  # pause all requests


class HealthEvidence(Enum):
    """Evidence of an outcome about the exchange's health, for the circuit breaker."""

    ALIVE = auto()
    SICK = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class RequestSuccess:
    """Data of a successful answer."""

    data: object


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Error of a failed request with its recovery action."""

    error: ServiceError
    remedy: RetryAction
    health: HealthEvidence


@dataclass(frozen=True, slots=True)
class ExchangeResponse:
    """HTTP answer with its decompressed body."""

    status: int
    quota: QuotaHeaders
    body: bytes


SUCCESS: Final = "200000"
_BUSY: Final = frozenset({"429000", "429001", "429002"})
_QUERY_SCOPE: Final = re.compile(r"level|scope", re.IGNORECASE)
_BAN_PAGE: Final = re.compile(rb"\b1015\b")
_CODE: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_EXACT: Final = msgspec.json.Decoder(float_hook=number_from_text)
_FLOATS: Final = msgspec.json.Decoder()


def interpret_response(
    answer: ExchangeResponse, endpoint: Endpoint
) -> RequestSuccess | RequestFailure:
    """Data of a success, else a failure; `data` is read only after `code`."""
    try:
        envelope = _decode_json(answer.body, exact=endpoint.exact)
    except (ValueError, RecursionError):
        return _html_page(answer)
    if not isinstance(envelope, dict):
        return _malformed_response(answer, "the answer is not an envelope", "code")
    code = envelope.get("code")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return _malformed_response(answer, "the answer has no code", "code")
    if code != SUCCESS or answer.status != 200:
        return _failure(code, envelope.get("msg"), answer, endpoint)
    if envelope.get("data") is None:
        # The exchange works and only lacks this data: no failure for the breaker.
        fault = bad_response("a success without data", "data")
        return RequestFailure(fault, RetryAction.NONE, HealthEvidence.ALIVE)
    return RequestSuccess(envelope["data"])


def _decode_json(body: bytes, *, exact: bool) -> object:
    """Decode JSON; raises ValueError or RecursionError."""
    if not exact:
        # One number beyond all floats fails the whole body: read exactly, it spoils only its row.
        with suppress(ValueError):
            return _FLOATS.decode(body)
    return _EXACT.decode(body)


def _failure(
    code: str, message: object, answer: ExchangeResponse, endpoint: Endpoint
) -> RequestFailure:
    if code in _BUSY or (answer.status == 429 and code not in {"200002", "1015"}):
        left = answer.quota.remaining
        return busy() if left is not None and left >= endpoint.weight else quota_used()
    if code == "200002" and not (isinstance(message, str) and _QUERY_SCOPE.search(message)):
        return endpoint_pause()
    if code in _FAULTS:
        return _FAULTS[code](code, endpoint)
    if answer.status >= 500:
        return server_failure(answer.status)
    if code == SUCCESS:
        return _malformed_response(answer, f"a success with HTTP status {answer.status}", "status")
    error = UnavailableError(
        Code.EXCHANGE_REFUSED,
        f"the exchange answered with code {code}",
        facts={"exchange_code": code},
    )
    return RequestFailure(error, RetryAction.NONE, HealthEvidence.ALIVE)


def _html_page(answer: ExchangeResponse) -> RequestFailure:
    """Failure for a non-JSON body: a page of a proxy before the exchange, or a broken body."""
    blocked = answer.status in {403, 429, 503} or b"cloudflare" in answer.body.lower()
    if blocked and _BAN_PAGE.search(answer.body):
        return banned()
    if answer.status == 429:
        return quota_used()
    return _malformed_response(answer, "the answer is not JSON", "body")


def _malformed_response(answer: ExchangeResponse, reason: str, name: str) -> RequestFailure:
    if answer.status >= 500:
        return server_failure(answer.status)
    if 300 <= answer.status < 400:
        return RequestFailure(
            BadResponseError(
                Code.EXCHANGE_REDIRECTED,
                "the exchange redirects to another address, which is not followed",
                facts={"field": "status"},
            ),
            RetryAction.NONE,
            HealthEvidence.SICK,
        )
    return RequestFailure(bad_response(reason, name), RetryAction.NONE, HealthEvidence.SICK)


def _permanent_refusal(code: str, endpoint: Endpoint) -> RequestFailure:
    """Failure that no retry can cure."""
    meaning = Code.SYMBOL_UNKNOWN if code == "200003" else Code.EXCHANGE_REFUSED
    error = RefusedError(
        meaning,
        f"the exchange refuses the request to {endpoint.path} (code {code})",
        facts={"exchange_code": code},
    )
    return RequestFailure(error, RetryAction.NONE, HealthEvidence.ALIVE)


def _no_route(code: str, endpoint: Endpoint) -> RequestFailure:
    reason = f"the exchange no longer knows the route {endpoint.path} (code {code})"
    return RequestFailure(bad_response(reason, "route"), RetryAction.NONE, HealthEvidence.ALIVE)


def _region(code: str, _: Endpoint) -> RequestFailure:
    error = UnavailableError(
        Code.EXCHANGE_UNAVAILABLE,
        "the exchange does not serve this region",
        facts={"exchange_code": code},
    )
    return RequestFailure(error, RetryAction.NONE, HealthEvidence.SICK)


def bad_response(reason: str, name: str) -> BadResponseError:
    return BadResponseError(Code.EXCHANGE_BAD_RESPONSE, reason, facts={"field": name})


def broken(reason: str) -> RequestFailure:
    """Failure for a body that ended early or could not be decompressed; a retry may succeed."""
    return RequestFailure(bad_response(reason, "body"), RetryAction.BACKOFF, HealthEvidence.SICK)


def too_big(limit: int) -> RequestFailure:
    error = bad_response(f"the answer is larger than {limit} bytes", "body")
    return RequestFailure(error, RetryAction.NONE, HealthEvidence.SICK)


def server_failure(status: int) -> RequestFailure:
    error = UnavailableError(
        Code.EXCHANGE_UNAVAILABLE, f"internal error of the exchange (HTTP status {status})"
    )
    return RequestFailure(error, RetryAction.BACKOFF, HealthEvidence.SICK)


def timed_out() -> RequestFailure:
    error = ExchangeTimeoutError(
        Code.EXCHANGE_TIMEOUT, "the exchange did not answer within the time allowed"
    )
    return RequestFailure(error, RetryAction.BACKOFF, HealthEvidence.SICK)


def unreachable(reason: str) -> RequestFailure:
    error = UnavailableError(Code.EXCHANGE_UNAVAILABLE, f"the exchange cannot be reached: {reason}")
    return RequestFailure(error, RetryAction.BACKOFF, HealthEvidence.SICK)


def quota_used() -> RequestFailure:
    error = UnavailableError(Code.EXCHANGE_RATE_LIMITED, "the exchange's request quota is used up")
    return RequestFailure(error, RetryAction.POOL, HealthEvidence.ALIVE)


def busy() -> RequestFailure:
    error = UnavailableError(
        Code.EXCHANGE_RATE_LIMITED, "the exchange is too busy to answer", retry_after_s=1.0
    )
    return RequestFailure(error, RetryAction.SHORT_PAUSE, HealthEvidence.ALIVE)


def endpoint_pause() -> RequestFailure:
    error = UnavailableError(
        Code.EXCHANGE_RATE_LIMITED, "the exchange asked for a pause on this endpoint"
    )
    return RequestFailure(error, RetryAction.ENDPOINT, HealthEvidence.ALIVE)


def banned() -> RequestFailure:
    error = UnavailableError(
        Code.EXCHANGE_BANNED, "the exchange's front end has blocked this address for a while"
    )
    return RequestFailure(error, RetryAction.BAN, HealthEvidence.UNKNOWN)


_Judgement = Callable[[str, Endpoint], RequestFailure]
_FAULTS: Final[Mapping[str, _Judgement]] = MappingProxyType(
    dict.fromkeys(
        ("100001", "100003", "200001", "200002", "200003", "300000", "400100", "415000"),
        _permanent_refusal,
    )
    | dict.fromkeys(("404", "404000"), _no_route)
    | dict.fromkeys(("40010", "400301", "400302", "400303", "400304"), _region)
    | {
        "1015": lambda _code, _endpoint: banned(),
        "500000": lambda _code, _endpoint: server_failure(500),
    }
)


_SHORTEST_S: Final = 0.001  # zero would mean: no limit
_CHUNK: Final = 64 * 1024
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_PLAIN: Final = frozenset({"", "identity"})
_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "gzip"}


class _TooBigError(Exception):
    pass


class _BrokenBodyError(Exception):
    pass


class HttpTransport(Protocol):
    """Sends one request; `AiohttpTransport` or a decorator of it."""

    async def ask(
        self, method: str, path: str, params: Mapping[str, str], within_s: float
    ) -> ExchangeResponse | RequestFailure: ...


class AiohttpTransport:
    """HTTP client of the one host of `base_url`; it follows no redirect."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, limits: KucoinLimits) -> None:
        self._session = session
        self._base = URL(base_url)
        self._limits = limits

    async def ask(
        self, method: str, path: str, params: Mapping[str, str], within_s: float
    ) -> ExchangeResponse | RequestFailure:
        """Send one request and read its answer up to the cap, within `within_s` seconds in all."""
        limits = self._limits
        timeout = aiohttp.ClientTimeout(
            total=max(_SHORTEST_S, min(limits.total_timeout_s, within_s)),
            sock_connect=limits.connect_timeout_s,
            sock_read=limits.read_timeout_s,
        )
        # Only path and query vary: scheme, host, port and path prefix are those of the base.
        url = self._base.with_path(self._base.path.rstrip("/") + path).with_query(params)
        try:
            async with self._session.request(
                method, url, timeout=timeout, allow_redirects=False, headers=_HEADERS
            ) as response:
                quota = QuotaHeaders.from_headers(response.headers)
                return ExchangeResponse(response.status, quota, await self._body(response))
        except TimeoutError:
            return timed_out()
        except _TooBigError:
            return too_big(limits.body_bytes)
        except (_BrokenBodyError, aiohttp.ClientPayloadError, zlib.error):
            return broken("the answer ended early or cannot be decompressed")
        except aiohttp.ClientResponseError:
            return broken("the answer is not HTTP")
        except (aiohttp.ClientError, OSError) as error:
            return unreachable(_reason(error))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """Decompress the body here, so that the cap applies to the decompressed size."""
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _PACKED | _PLAIN:
            raise _BrokenBodyError
        unpack = zlib.decompressobj(_GZIP_OR_ZLIB) if encoding in _PACKED else None
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            room = self._limits.body_bytes - len(body) + 1
            body += chunk if unpack is None else unpack.decompress(chunk, room)
            if len(body) > self._limits.body_bytes:
                response.close()
                raise _TooBigError
        if unpack is not None and body and not unpack.eof:
            raise _BrokenBodyError
        return bytes(body)


_REASONS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted"),
    (aiohttp.ClientSSLError, "the TLS handshake fails"),
    (ssl.SSLError, "the TLS handshake fails"),
    (aiohttp.ClientConnectorDNSError, "its name cannot be resolved"),
    (aiohttp.ClientConnectorError, "the connection is refused"),
    (aiohttp.ServerDisconnectedError, "it closes the connection without an answer"),
)


def _reason(error: BaseException) -> str:
    return next((text for kind, text in _REASONS if isinstance(error, kind)), "no connection")


def open_session(limits: KucoinLimits) -> aiohttp.ClientSession:
    """Create a session without cookies, environment proxies or automatic decompression."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limits.connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )
