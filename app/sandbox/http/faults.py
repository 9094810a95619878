"""Injected faults: a board of armed faults, and the change of an answer for each kind.

| kind | parameters | effect |
|---|---|---|
| delay | seconds | the answer is delayed |
| hang | | no answer until the client leaves or the fault is disarmed |
| reset | | the connection is cut without an answer |
| status | status, code?, message? | that HTTP status with KuCoin's failure envelope |
| error | code, message? | that code with HTTP 200 |
| too_many | | code 200002, HTTP 200, the business limit |
| overload | | HTTP 429, code 429000, no gw-ratelimit headers, pool untouched |
| cloudflare | status? | Cloudflare's 1015 page, text/html, default HTTP 429 |
| html | status? | an HTML page, default HTTP 200 |
| redirect | location, status? | redirect, default 302 |
| empty | | HTTP 200 without a body |
| truncate | fraction? | the body is cut, default to a half |
| garbage | | bytes that are not UTF-8 |
| content_type | value | another content type around the right body |
| oversize | bytes? | the right body followed by blanks, default 16 MiB |
| gzip_bomb | bytes? | zeros that inflate to that size, default 64 MiB |
| drip | pieces?, seconds? | the body in pieces with a pause before each |
| malformed | symbol?, field, value or remove or raw | a field of the records (of that symbol) \
replaced, removed, or replaced by raw JSON text; a field may be an index of a row |
| scalar | value | `data` replaced |
| no_data | message? | code 200000 with a message and no data |
| vanish | share or symbols | those contracts missing from a list |
| gap | begin, end | candles opened between the two (ms, both included) are missing |
| empty_list | | `data` is [] |
| duplicate | | every row of a list twice |
| unordered | | the rows of a list shuffled |
| clock_skew | ms?, unit? | timestamp off by ms, in unit ms, s or ns |
| exchange_status | status, message? | status open, close, cancelonly |
| headers | set | headers added to or (null) taken from the answer |

Kinds named stream_... act on the stream, see stream.faults.

A fault also has `path` (glob on the request path, default every public path), `times` (number of
requests to act on, default unlimited) and `skip` (number of requests to pass first).
"""

import asyncio
import fnmatch
import gzip
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from aiohttp import web

from app.sandbox.http.responses import JSON_TYPE, encode_error, respond

Params = dict[str, Any]
RAW = "\ue000raw\ue000"

CLOUDFLARE = b"""<!DOCTYPE html><html><head><title>Access denied | api-futures.kucoin.com used \
Cloudflare to restrict access</title></head><body><h1>Error 1015</h1>\
<p>You are being rate limited</p></body></html>"""
PAGE = b"<!DOCTYPE html><html><body><h1>Welcome</h1><p>This is not the exchange.</p></body></html>"


def _plain(body: bytes, status: int, content_type: str = JSON_TYPE) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": content_type})


def _status(_: web.Request, params: Params) -> web.Response:
    status = int(params.get("status", 500))
    code = str(params.get("code", {404: "404000", 429: "429000"}.get(status, "500000")))
    return _plain(encode_error(code, str(params.get("message", "Internal Server Error"))), status)


def _error(_: web.Request, params: Params) -> web.Response:
    code = str(params.get("code", "100001"))
    return _plain(encode_error(code, str(params.get("message", "error"))), 200)


def _too_many(_: web.Request, __: Params) -> web.Response:
    text = "Too many requests in a short period of time, please retry later"
    return _plain(encode_error("200002", text), 200)


def _overload(_: web.Request, __: Params) -> web.Response:
    text = "Too many requests. System-level rate limit exceeded."
    return _plain(encode_error("429000", text), 429)


def _cloudflare(_: web.Request, params: Params) -> web.Response:
    return _plain(CLOUDFLARE, int(params.get("status", 429)), "text/html; charset=UTF-8")


def _html(_: web.Request, params: Params) -> web.Response:
    return _plain(PAGE, int(params.get("status", 200)), "text/html; charset=UTF-8")


def _redirect(_: web.Request, params: Params) -> web.Response:
    response = _plain(b"", int(params.get("status", 302)))
    response.headers["Location"] = str(params.get("location", "http://127.0.0.1:9/"))
    return response


def _no_data(_: web.Request, params: Params) -> web.Response:
    text = str(params.get("message", "Position does not exist"))
    return _plain(msgspec.json.encode({"code": "200000", "msg": text}), 200)


INSTEAD: dict[str, Callable[[web.Request, Params], web.Response]] = {
    "status": _status,
    "error": _error,
    "too_many": _too_many,
    "overload": _overload,
    "cloudflare": _cloudflare,
    "html": _html,
    "redirect": _redirect,
    "no_data": _no_data,
    "empty": lambda _, __: _plain(b"", 200),
    "garbage": lambda _, __: _plain(b'{"code":"200000","data":"\xff\xfe\x80"}', 200),
}

Headers = dict[str, str]
Wire = Callable[[bytes, int, str, Headers, Params], web.Response]


def _truncate(
    body: bytes, status: int, content_type: str, headers: Headers, params: Params
) -> web.Response:
    cut = body[: int(len(body) * float(params.get("fraction", 0.5)))]
    return web.Response(body=cut, status=status, headers=headers | {"Content-Type": content_type})


def _oversize(
    body: bytes, status: int, content_type: str, headers: Headers, params: Params
) -> web.Response:
    size = int(params.get("bytes", 16 << 20))
    padded = body + b" " * max(0, size - len(body))
    return web.Response(
        body=padded, status=status, headers=headers | {"Content-Type": content_type}
    )


def _gzip_bomb(
    _: bytes, status: int, content_type: str, headers: Headers, params: Params
) -> web.Response:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"0" * (1 << 20)
    parts = [packer.compress(block) for _ in range(int(params.get("bytes", 64 << 20)) >> 20)]
    bomb = b"".join([*parts, packer.flush()])
    return web.Response(
        body=bomb,
        status=status,
        headers=headers | {"Content-Type": content_type, "Content-Encoding": "gzip"},
    )


WIRE: dict[str, Wire] = {"truncate": _truncate, "oversize": _oversize, "gzip_bomb": _gzip_bomb}


def _records(data: Any) -> list[Any]:
    """Records of a body: its list, or the single object in one."""
    return data if isinstance(data, list) else [data]


def _malformed(_: str, data: Any, params: Params) -> Any:
    name = params.get("field")
    for record in _records(data):
        if isinstance(record, dict) and fnmatch.fnmatch(
            str(record.get("symbol", "")), str(params.get("symbol", "*"))
        ):
            if params.get("remove"):
                record.pop(name, None)
            else:
                record[name] = RAW if "raw" in params else params.get("value")
        elif isinstance(record, list) and isinstance(name, int) and name < len(record):
            record[name] = RAW if "raw" in params else params.get("value")
    return data


def _vanish(_: str, data: Any, params: Params) -> Any:
    if not isinstance(data, list):
        return data
    gone = set(params.get("symbols", ()))
    kept = [record for record in data if record.get("symbol") not in gone]
    # From the end, so that illiquid contracts vanish first.
    return kept[: len(kept) - round(len(kept) * float(params.get("share", 0.0)))]


def _gap(_: str, data: Any, params: Params) -> Any:
    if not isinstance(data, list):
        return data
    begin, end = int(params.get("begin", 0)), int(params.get("end", 0))
    return [row for row in data if not isinstance(row, list) or not begin <= row[0] <= end]


def _unordered(_: str, data: Any, __: Params) -> Any:
    if not isinstance(data, list) or len(data) < 2:
        return data
    order = np.random.default_rng(len(data)).permutation(len(data)).tolist()
    if order == sorted(order):
        order.reverse()
    return [data[index] for index in order]


def _clock_skew(path: str, data: Any, params: Params) -> Any:
    if not path.endswith("/timestamp"):
        return data
    shifted = int(data) + int(params.get("ms", 0))
    unit = params.get("unit", "ms")
    return {"s": shifted // 1000, "ns": shifted * 1_000_000}.get(unit, shifted)


def _exchange_status(path: str, data: Any, params: Params) -> Any:
    if not path.endswith("/status"):
        return data
    return {"msg": str(params.get("message", "")), "status": str(params.get("status", "close"))}


BODY: dict[str, Callable[[str, Any, Params], Any]] = {
    "malformed": _malformed,
    "scalar": lambda _, __, params: params.get("value"),
    "vanish": _vanish,
    "gap": _gap,
    "empty_list": lambda _, __, ___: [],
    "duplicate": lambda _, data, __: (
        [row for row in data for _ in range(2)] if isinstance(data, list) else data
    ),
    "unordered": _unordered,
    "clock_skew": _clock_skew,
    "exchange_status": _exchange_status,
}


def rewrite_body(path: str, body: bytes, kind: str, params: Params) -> bytes:
    """Change the data of a body as a fault demands; failure envelopes stay as they are."""
    envelope = msgspec.json.decode(body)
    if "data" not in envelope:
        return body
    envelope["data"] = BODY[kind](path, envelope["data"], params)
    text = msgspec.json.encode(envelope)
    if "raw" in params:
        text = text.replace(msgspec.json.encode(RAW), str(params["raw"]).encode())
    return text


Answer = Callable[[web.Request], Awaitable[web.Response]]
# Kinds of the stream, see stream.faults; their path is a topic.
STREAM = frozenset(
    {
        *("stream_silence", "stream_half_open", "stream_duplicate", "stream_reorder"),
        *("stream_gap", "stream_garbage", "stream_expired_token", "stream_no_welcome"),
        *("stream_no_ack", "stream_refuse", "stream_early"),
    }
)
TIMED = frozenset({"delay", "hang", "reset", "drip", "headers", "content_type"})
KINDS = STREAM | TIMED | frozenset(INSTEAD) | frozenset(WIRE) | frozenset(BODY)


@dataclass(slots=True)
class InjectedFault:
    """Armed fault with its counters."""

    id: int
    kind: str
    path: str = "*"
    times: int | None = None
    skip: int = 0
    hits: int = 0
    params: Params = field(default_factory=dict)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def meets(self, path: str) -> bool:
        """Count a request and return whether the fault acts on it."""
        if not fnmatch.fnmatch(path, self.path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


class FaultBoard:
    """Armed faults, in order of arming."""

    def __init__(self) -> None:
        self._faults: list[InjectedFault] = []
        self._next = 1
        self.streaming = False

    def arm(
        self, kind: str, path: str, times: int | None, skip: int, params: Params
    ) -> InjectedFault:
        """Arm a fault; ValueError for an unknown kind."""
        if kind not in KINDS:
            raise ValueError(f"unknown fault kind {kind!r}; known: {', '.join(sorted(KINDS))}")
        # Without a count, a gap would be silence.
        times = 1 if kind == "stream_gap" and times is None else times
        fault = InjectedFault(self._next, kind, path, times, skip, params=params)
        self._next += 1
        self._faults.append(fault)
        self.streaming = self.streaming or kind in STREAM
        return fault

    def disarm(self, fault_id: int | None = None) -> None:
        """Disarm one fault, or all of them."""
        for fault in self._faults:
            if fault_id is None or fault.id == fault_id:
                fault.released.set()
        self._faults = [fault for fault in self._faults if not fault.released.is_set()]
        self.streaming = any(fault.kind in STREAM for fault in self._faults)

    def listed(self) -> list[InjectedFault]:
        """Armed faults as a list."""
        return list(self._faults)

    def meeting(self, path: str) -> list[InjectedFault]:
        """Faults that act on a request now; each is counted."""
        answers = [fault for fault in self._faults if fault.kind not in STREAM]
        return [fault for fault in answers if fault.meets(path)]


async def respond_with_faults(
    request: web.Request, answer: Answer, board: FaultBoard, headers: dict[str, str]
) -> web.StreamResponse:
    """Answer a request with the matching faults applied."""
    faults = board.meeting(request.path)
    if not faults:
        response = await answer(request)
        response.headers.update(headers)
        return response
    if await _end_early(request, faults):
        return web.Response()
    instead = next((fault for fault in faults if fault.kind in INSTEAD), None)
    if instead is not None:
        response = INSTEAD[instead.kind](request, instead.params)
        # An overloaded gateway answers before the rate limit.
        response.headers.update(headers if instead.kind != "overload" else {})
    else:
        response = await answer(request)
        response.headers.update(headers)
        response = _alter_response(request, response, faults)
    for fault in faults:
        if fault.kind == "headers":
            _set_headers(response, fault.params)
        if fault.kind == "drip":
            return await _drip(request, response, fault.params)
    return response


async def _end_early(request: web.Request, faults: list[InjectedFault]) -> bool:
    """Delay, hang or cut the connection; True after a cut."""
    for fault in faults:
        if fault.kind == "delay":
            await asyncio.sleep(float(fault.params.get("seconds", 1.0)))
        if fault.kind == "hang":
            await fault.released.wait()
        if fault.kind == "reset":
            if request.transport is not None:
                request.transport.abort()
            return True
    return False


def _set_headers(response: web.Response, params: Params) -> None:
    for name, value in params.get("set", {}).items():
        response.headers.pop(name, None)
        if value is not None:
            response.headers[name] = str(value)


def _alter_response(
    request: web.Request, response: web.Response, faults: list[InjectedFault]
) -> web.Response:
    """Change the data or the bytes of the right answer."""
    body = response.body if isinstance(response.body, bytes) else b""
    kept = dict(response.headers.items())
    if kept.pop("Content-Encoding", None) == "gzip":
        body = gzip.decompress(body)
    content_type = kept.pop("Content-Type")
    kept.pop("Content-Length", None)
    for fault in faults:
        if fault.kind in BODY:
            body = rewrite_body(request.path, body, fault.kind, fault.params)
        if fault.kind == "content_type":
            content_type = str(fault.params.get("value", "text/html"))
    for fault in faults:
        if fault.kind in WIRE:
            return WIRE[fault.kind](body, response.status, content_type, kept, fault.params)
    return respond(request, body, response.status, content_type, kept)


async def _drip(request: web.Request, response: web.Response, params: Params) -> web.StreamResponse:
    """Send the body in pieces with a pause before each."""
    body = response.body if isinstance(response.body, bytes) else b""
    pieces = max(1, int(params.get("pieces", 10)))
    pause = float(params.get("seconds", 0.5))
    headers = {k: v for k, v in response.headers.items() if k != "Content-Length"}
    stream = web.StreamResponse(status=response.status, headers=headers)
    stream.content_length = len(body)
    await stream.prepare(request)
    size = -(-len(body) // pieces) or 1
    for start in range(0, len(body), size):
        await asyncio.sleep(pause)
        if request.transport is None or request.transport.is_closing():
            break
        await stream.write(body[start : start + size])
    return stream
