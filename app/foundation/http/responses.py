"""JSON responses as bytes: new ones, stored ones and entity tags."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from starlette.responses import Response

from app.foundation.health import Mode
from app.foundation.http.protocol import MODE
from app.foundation.idempotency import CommandResult, StoredResponse

Header: TypeAlias = tuple[bytes, bytes]

REPLAYED: Final = "Idempotency-Replayed"
_API_CSP: Final = b"default-src 'none'; frame-ancestors 'none'"
# Browsers warn about names that they do not know: these are the standard ones.
_NO_FEATURES: Final = (
    b"camera=(), display-capture=(), fullscreen=(), geolocation=(), microphone=(), payment=(),"
    b" usb=()"
)
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _API_CSP),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    (b"permissions-policy", _NO_FEATURES),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
MORE_HEADERS: Final = "more_headers"  # in the state of a request: Headers of this response alone
TRANSPORT_SECURITY: Final = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_MODE_HEADERS: Final = {mode: (MODE, mode.value.encode()) for mode in Mode}
_NO_NUMBERS: Final = ("NaN", "Infinity")  # pydantic's encoder writes these for such numbers


class CompleteHeaders(tuple[Header, ...]):
    """Headers of a response, the security headers and the service mode among them."""

    __slots__ = ()

    @classmethod
    def of(cls, headers: Iterable[Header], mode: Mode | None) -> "CompleteHeaders":
        """A security header that the response sets itself stays; no mode before the start."""
        given = tuple(headers)
        present = {name.lower() for name, _ in given}
        missing = [pair for pair in SECURITY_HEADERS if pair[0] not in present]
        return cls((*given, *missing, *(() if mode is None else (_MODE_HEADERS[mode],))))


def json_bytes(model: BaseModel) -> bytes:
    """Returns the body of a response. Raises ValueError for NaN and Infinity."""
    text = model.model_dump_json()
    if any(word in text for word in _NO_NUMBERS):  # a number, or a part of a text
        document: Any = model.model_dump(mode="json")
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


async def large_json_bytes(build: Callable[[], BaseModel]) -> bytes:
    """Returns the body of a large response, built and encoded in a thread off the event loop.

    `build` may only read immutable values.
    """
    return await asyncio.to_thread(lambda: json_bytes(build()))


def answer(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a JSON response of encoded bytes."""
    return Response(body, status, headers=dict(headers or {}), media_type="application/json")


def replayed(body: bytes, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a stored response, byte for byte, marked as a replay."""
    return answer(body, status, {**(headers or {}), REPLAYED: "true"})


def keep(
    model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> StoredResponse:
    """Returns the response of a change as the bytes that are stored and replayed on a retry."""
    return StoredResponse(status, dict(headers or {}), json_bytes(model))


def sent(outcome: CommandResult[Any]) -> Response:
    """Returns the response of a change, a replay with its mark. Raises LookupError without one."""
    stored = outcome.answer
    if stored is None:
        raise LookupError("the change was carried out without a renderer")
    render = replayed if outcome.is_replay else answer
    return render(stored.body, stored.status, stored.headers)


def etag(version: object) -> str:
    """Returns a strong entity tag of a version: `etag(12)` is `"12"`."""
    return f'"{version}"'


def not_modified(tag: str) -> Response:
    """Returns a 304: the caller has this version already."""
    return Response(status_code=304, headers={"ETag": tag})
