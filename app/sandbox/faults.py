"""Faults on demand: a board of armed faults, and how each alters an answer.

| kind | parameters | effect |
|---|---|---|
| delay | seconds | the answer comes late |
| hang | | no answer until the client leaves or the fault is taken back |
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

Those named stream_... act on the stream, see stream.faults.

A fault has also `path` (glob on the request path, default every public path), `times` (how many
requests it meets, default without end) and `skip` (how many it lets pass first).
"""

import asyncio
import fnmatch
import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from app.sandbox.altering import BODY, INSTEAD, WIRE, rewritten
from app.sandbox.answers import respond

Params = dict[str, Any]
Answer = Callable[[web.Request], Awaitable[web.Response]]
# Those of the stream, see stream.faults; their path is a topic.
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
class Fault:
    """One armed fault."""

    id: int
    kind: str
    path: str = "*"
    times: int | None = None
    skip: int = 0
    hits: int = 0
    params: Params = field(default_factory=dict)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def meets(self, path: str) -> bool:
        """Whether it acts on this request; counts it."""
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
    """The armed faults, in the order they were armed."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._next = 1
        self.streaming = False

    def arm(self, kind: str, path: str, times: int | None, skip: int, params: Params) -> Fault:
        """Arm a fault; ValueError for an unknown kind."""
        if kind not in KINDS:
            raise ValueError(f"unknown fault kind {kind!r}; known: {', '.join(sorted(KINDS))}")
        # Without a number, a gap would be silence.
        times = 1 if kind == "stream_gap" and times is None else times
        fault = Fault(self._next, kind, path, times, skip, params=params)
        self._next += 1
        self._faults.append(fault)
        self.streaming = self.streaming or kind in STREAM
        return fault

    def disarm(self, fault_id: int | None = None) -> None:
        """Take one fault back, or all of them."""
        for fault in self._faults:
            if fault_id is None or fault.id == fault_id:
                fault.released.set()
        self._faults = [fault for fault in self._faults if not fault.released.is_set()]
        self.streaming = any(fault.kind in STREAM for fault in self._faults)

    def listed(self) -> list[Fault]:
        """The armed faults."""
        return list(self._faults)

    def meeting(self, path: str) -> list[Fault]:
        """Those that act on a request now."""
        answers = [fault for fault in self._faults if fault.kind not in STREAM]
        return [fault for fault in answers if fault.meets(path)]


async def faulty(
    request: web.Request, answer: Answer, board: FaultBoard, headers: dict[str, str]
) -> web.StreamResponse:
    """Answer a request as the faults that meet it say."""
    faults = board.meeting(request.path)
    if not faults:
        response = await answer(request)
        response.headers.update(headers)
        return response
    if await _stopped(request, faults):
        return web.Response()
    instead = next((fault for fault in faults if fault.kind in INSTEAD), None)
    if instead is not None:
        response = INSTEAD[instead.kind](request, instead.params)
        # An overloaded gateway answers before the pool is looked at.
        response.headers.update(headers if instead.kind != "overload" else {})
    else:
        response = await answer(request)
        response.headers.update(headers)
        response = _altered(request, response, faults)
    for fault in faults:
        if fault.kind == "headers":
            _set_headers(response, fault.params)
        if fault.kind == "drip":
            return await _drip(request, response, fault.params)
    return response


async def _stopped(request: web.Request, faults: list[Fault]) -> bool:
    """Delay, hang or cut the connection; True when there is nobody left to answer."""
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


def _altered(request: web.Request, response: web.Response, faults: list[Fault]) -> web.Response:
    """The right answer with its data or its bytes changed."""
    body = response.body if isinstance(response.body, bytes) else b""
    kept = dict(response.headers.items())
    if kept.pop("Content-Encoding", None) == "gzip":
        body = gzip.decompress(body)
    content_type = kept.pop("Content-Type")
    kept.pop("Content-Length", None)
    for fault in faults:
        if fault.kind in BODY:
            body = rewritten(request.path, body, fault.kind, fault.params)
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
