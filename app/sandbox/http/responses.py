"""Response envelopes, error codes and compression of the local exchange."""

import gzip
from typing import Any

import msgspec
from aiohttp import web

JSON_TYPE = "application/json"
GZIP_FROM = 1_024


class ResponseBody:
    """Body that is compressed at most once for all clients."""

    def __init__(self, plain: bytes) -> None:
        self.plain = plain
        self._packed: bytes | None = None

    def packed(self) -> bytes:
        """The body, gzipped."""
        if self._packed is None:
            self._packed = gzip.compress(self.plain, compresslevel=1, mtime=0)
        return self._packed


class ExchangeError(Exception):
    """Answer with one of KuCoin's codes; most have HTTP 200, so test the code."""

    def __init__(self, code: str, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def parameter_error(message: str) -> ExchangeError:
    """400100: a parameter is missing or invalid."""
    return ExchangeError("400100", message, 400)


def unknown_symbol() -> ExchangeError:
    """200003: unknown contract or index."""
    return ExchangeError("200003", "The symbol parameter is invalid.")


def no_funding() -> ExchangeError:
    """415000: dated and unknown contracts have no funding rate."""
    return ExchangeError("415000", "The funding rate is not supported")


def encode_success(data: Any) -> bytes:
    """Encode the success envelope around `data`."""
    return msgspec.json.encode({"code": "200000", "data": data})


def encode_error(code: str, message: str) -> bytes:
    """Encode the failure envelope: no data."""
    return msgspec.json.encode({"msg": message, "code": code})


def respond(
    request: web.Request,
    body: bytes | ResponseBody,
    status: int = 200,
    content_type: str = JSON_TYPE,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """Create a response, compressed if the client accepts gzip and the body is large."""
    extra = dict(headers or {})
    extra["Content-Type"] = content_type
    payload = body if isinstance(body, ResponseBody) else ResponseBody(body)
    content = payload.plain
    if len(content) >= GZIP_FROM and "gzip" in request.headers.get("Accept-Encoding", ""):
        content = payload.packed()
        extra["Content-Encoding"] = "gzip"
    return web.Response(body=content, status=status, headers=extra)
