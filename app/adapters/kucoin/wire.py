"""Sends one request and brings back the bytes, or says what went wrong; never decides."""

import ssl
import zlib
from collections.abc import Mapping
from typing import Final, Protocol

import aiohttp
from yarl import URL

from app.adapters.kucoin.answers import Answer, Fault, broken, timed_out, too_big, unreachable
from app.adapters.kucoin.limiter import Quota
from app.adapters.kucoin.limits import KucoinLimits

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


class Asks(Protocol):
    """Sends one request as `Wire` does, whatever else it does beside."""

    async def ask(
        self, method: str, path: str, params: Mapping[str, str], within_s: float
    ) -> Answer | Fault: ...


class Wire:
    """One host, given as `base_url`: no request leaves for another one, no redirect is followed."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, limits: KucoinLimits) -> None:
        self._session = session
        self._base = URL(base_url)
        self._limits = limits

    async def ask(
        self, method: str, path: str, params: Mapping[str, str], within_s: float
    ) -> Answer | Fault:
        """The answer to one request, read up to the cap; at most `within_s` seconds in all."""
        limits = self._limits
        timeout = aiohttp.ClientTimeout(
            total=max(_SHORTEST_S, min(limits.total_timeout_s, within_s)),
            sock_connect=limits.connect_timeout_s,
            sock_read=limits.read_timeout_s,
        )
        # Only path and query vary: scheme, host, port and path prefix stay those of the base.
        url = self._base.with_path(self._base.path.rstrip("/") + path).with_query(params)
        try:
            async with self._session.request(
                method, url, timeout=timeout, allow_redirects=False, headers=_HEADERS
            ) as response:
                quota = Quota.of(response.headers)
                return Answer(response.status, quota, await self._body(response))
        except TimeoutError:
            return timed_out()
        except _TooBigError:
            return too_big(limits.body_bytes)
        except (_BrokenBodyError, aiohttp.ClientPayloadError, zlib.error):
            return broken("the answer broke off or cannot be unpacked")
        except aiohttp.ClientResponseError:
            return broken("the answer is not HTTP")
        except (aiohttp.ClientError, OSError) as error:
            return unreachable(_reason(error))

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """The body unpacked by ourselves, so that the cap holds for what a bomb unpacks to."""
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
    (aiohttp.ClientSSLError, "no secure connection comes about"),
    (ssl.SSLError, "no secure connection comes about"),
    (aiohttp.ClientConnectorDNSError, "its name cannot be resolved"),
    (aiohttp.ClientConnectorError, "the connection is refused"),
    (aiohttp.ServerDisconnectedError, "it hangs up without an answer"),
)


def _reason(error: BaseException) -> str:
    return next((text for kind, text in _REASONS if isinstance(error, kind)), "no connection")


def open_session(limits: KucoinLimits) -> aiohttp.ClientSession:
    """A session without cookies, proxies from the environment or unpacking behind our back."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limits.connections),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )
