"""Cache of encoded responses in front of FastAPI, keyed by request and state version."""

import asyncio
import gzip
import re
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Final, TypeAlias, TypeVar, cast

from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.foundation.errors import ServiceError
from app.foundation.health import Mode
from app.foundation.http.permissions import may_use
from app.foundation.http.representations import CSV_TYPE, JSON_TYPE, negotiate
from app.foundation.http.responses import CompleteHeaders, Header, answer, json_bytes
from app.foundation.state_version import Input, StateVersion, VersionSource

VERSIONS: Final = "state_versions"  # key of the VersionSource in the state of the lifespan
MAX_BYTES: Final = 16 * 1024 * 1024  # of all cached responses together
MIN_GZIP_BYTES: Final = 4096  # below, compression costs more than it saves
_GZIP_LEVEL: Final = 6
_ENTRY_BYTES: Final = 1024  # of an entry beside its body and its key
_MAX_KEY_BYTES: Final = 1024
_MAX_ACCEPT_BYTES: Final = 255
_CACHED_STATUSES: Final = frozenset({200, 304})
# A request with one of these headers may get another response, or start more than a response.
_BYPASS_HEADERS: Final = frozenset(
    {b"origin", b"content-length", b"transfer-encoding", b"prefer", b"cookie"}
)
_KINDS: Final = (JSON_TYPE, CSV_TYPE)
_CODING: Final = re.compile(r"([!#$%&'*+.^_`|~0-9a-z\-]+)(?:\s*;\s*q=([01](?:\.[0-9]{0,3})?))?")

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
# Path, query, If-None-Match, accepts gzip, wants CSV.
Key: TypeAlias = tuple[str, bytes, bytes, bool, bool]


@dataclass(slots=True)
class _Recording:
    """Cache declaration of the running endpoint, filled in while it runs."""

    source: VersionSource
    mode: Callable[[], Mode] | None  # None: responses carry no mode
    depends_on: Input | None = None  # None: the response must not be cached
    version: StateVersion | None = None
    version_mode: Mode | None = None  # mode that is a part of the version
    has_gzip: bool = False

    def present_mode(self) -> Mode | None:
        return None if self.mode is None else self.mode()


_RECORDING: Final[ContextVar[_Recording | None]] = ContextVar("recording", default=None)


def cacheable(*, depends_on: Input, compress: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Marks an endpoint whose responses depend on path, query, If-None-Match and state alone.

    Its models are encoded here, without a second validation. `compress` sends large responses with
    gzip to clients that accept it. Their entity tags become weak, so a tag that If-Match needs
    must not be compressed.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        @wraps(endpoint)
        async def run(**arguments: Any) -> Any:
            recording = _RECORDING.get()
            if recording is not None:
                # Before the endpoint runs: a change during the run makes the response outdated.
                recording.version = await _version(recording.source, depends_on)
                recording.version_mode = recording.present_mode()
                recording.depends_on, recording.has_gzip = depends_on, compress
            result = await endpoint(**arguments)
            return answer(json_bytes(result)) if isinstance(result, BaseModel) else result

        return cast("Endpoint", run)  # same arguments as the endpoint

    return mark


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """Response as sent, and the version of the state that it was built from."""

    status: int
    headers: tuple[Header, ...]
    body: bytes
    route: object
    source: VersionSource
    depends_on: Input
    version: StateVersion

    def start(self) -> Message:
        return {
            "type": "http.response.start",
            "status": self.status,
            "headers": self.headers,
        }

    def is_surely_current(self, source: VersionSource) -> bool:
        """True if no statement is needed to know that the state has not changed."""
        try:
            return self.source is source and self.version == source.version(self.depends_on)
        except ServiceError:
            return False


@dataclass(slots=True)
class LruCache:
    """Responses by key, bounded in bytes; evicts the least recently used one first."""

    max_bytes: int = MAX_BYTES
    size: int = field(default=0, init=False)  # bytes
    _entries: OrderedDict[Key, CachedResponse] = field(default_factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> CachedResponse | None:
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: Key, response: CachedResponse) -> None:
        """Replaces the response of the key; skips one larger than the whole cache."""
        self._drop(key)
        size = _size(key, response)
        if size > self.max_bytes:
            return
        self._entries[key] = response
        self.size += size
        while self.size > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        dropped = self._entries.pop(key, None)
        if dropped is not None:
            self.size -= _size(key, dropped)


def _size(key: Key, response: CachedResponse) -> int:
    path, query, tags, _, _ = key
    return len(response.body) + len(path) + len(query) + len(tags) + _ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class _Flight:
    """Running request that renews a cached response; later requests of its version wait."""

    version: StateVersion
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class ResponseCacheMiddleware:
    """Returns a cached response while the state that it depends on has the same version.

    It is behind every layer that refuses requests but the routes, so it checks the permission of
    the cached route. All clients that have it get the same response; a permission that changes a
    response must become a part of the key.
    """

    app: ASGIApp
    cache: LruCache = field(default_factory=LruCache)
    _flights: dict[Key, _Flight] = field(default_factory=dict, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source: VersionSource | None = scope.get("state", {}).get(VERSIONS)
        key = None if source is None else key_of(scope)
        if source is None or key is None:
            await self.app(scope, receive, send)
            return
        cached = self.cache.get(key)
        if cached is not None and not may_use(cached.route, scope):
            await self.app(scope, receive, send)  # refuses with its own problem
        elif cached is not None and cached.is_surely_current(source):
            scope["route"] = cached.route  # for the metrics of the request
            await send(cached.start())
            await send({"type": "http.response.body", "body": cached.body})
        else:
            await self._renew(key, cached, source, scope, receive, send)

    async def _renew(
        self,
        key: Key,
        cached: CachedResponse | None,
        source: VersionSource,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Repeats the cached response if its version is confirmed, else asks the application."""
        flight = None
        if cached is not None and cached.source is source:
            version = await _version(source, cached.depends_on)
            is_current = version is not None and cached.version == version
            if not is_current and version is not None:
                flight = self._flights.get(key)
                if flight is not None and flight.version == version:
                    await flight.done.wait()
                    cached, flight = self.cache.get(key), None
                    is_current = cached is not None and cached.version == version
                else:  # this request renews the response; later ones wait for it
                    flight = self._flights[key] = _Flight(version)
            if is_current and cached is not None:
                scope["route"] = cached.route  # for the metrics of the request
                await _send(cached, send)
                return
        try:
            await self._ask_app(key, source, scope, receive, send)
        finally:
            if flight is not None:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.done.set()

    async def _ask_app(
        self, key: Key, source: VersionSource, scope: Scope, receive: Receive, send: Send
    ) -> None:
        recording = _Recording(source, scope["state"].get("mode"))
        recorder = _Recorder(send, recording)
        token = _RECORDING.set(recording)
        try:
            await self.app(scope, receive, recorder)
        finally:
            _RECORDING.reset(token)
        start, depends_on, version = recorder.start, recording.depends_on, recording.version
        if start is None or depends_on is None:
            return
        response = CachedResponse(
            start["status"],
            tuple(start["headers"]),
            recorder.body,
            scope.get("route"),
            source,
            depends_on,
            () if version is None else version,
        )
        if recording.has_gzip:
            response = await _encoded(response, accepts_gzip=key[3])
        mode = recording.present_mode()
        response = replace(response, headers=CompleteHeaders.of(response.headers, mode))
        if version is not None and mode is recording.version_mode:
            self.cache.put(key, response)
        await _send(response, send)


async def _send(response: CachedResponse, send: Send) -> None:
    await send(response.start())
    await send({"type": "http.response.body", "body": response.body})


@dataclass(slots=True)
class _Recorder:
    """Withholds a complete response that can be cached; forwards any other one."""

    send: Send
    recording: _Recording
    start: Message | None = None  # of the withheld response
    body: bytes = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            is_cached = message["status"] in _CACHED_STATUSES
            if is_cached and self.recording.depends_on is not None:
                self.start = message
                return
        elif self.start is not None:
            if not message.get("more_body"):
                self.body = message.get("body", b"")
                return
            start, self.start = self.start, None  # a stream is not cached
            await self.send(start)
        await self.send(message)


async def _version(source: VersionSource, depends_on: Input) -> StateVersion | None:
    """Returns the version; None if it cannot be read: the endpoint then reports the error."""
    try:
        version = source.version(depends_on)
        return await source.load_version(depends_on) if version is None else version
    except ServiceError:
        return None


def key_of(scope: Scope) -> Key | None:
    """Returns the key of a GET request; None for a request that must reach its endpoint."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    tags = accepted = kinds = b""
    for name, value in scope["headers"]:
        if name in _BYPASS_HEADERS:
            return None
        if name == b"if-none-match":
            tags += b"," + value
        elif name == b"accept-encoding":
            accepted += b"," + value
        elif name == b"accept" and value != b"*/*":
            kinds += b"," + value
    kind = negotiate(kinds.decode("latin-1"), _KINDS) if kinds else JSON_TYPE
    if kind is None:
        return None  # the route refuses it, or has another type
    path, query = scope["path"], scope["query_string"]
    if len(path) + len(query) + len(tags) > _MAX_KEY_BYTES:
        return None
    return path, query, tags, bool(accepted) and accepts_gzip(accepted), kind == CSV_TYPE


def accepts_gzip(accepted: bytes) -> bool:
    """Returns True if Accept-Encoding allows gzip and does not prefer the plain body."""
    if len(accepted) > _MAX_ACCEPT_BYTES or (b"gzip" not in accepted and b"*" not in accepted):
        return False
    weights: dict[str, float] = {}
    for part in accepted.decode("latin-1").lower().split(","):
        found = _CODING.fullmatch(part.strip())
        if found is not None:
            weights[found.group(1)] = float(found.group(2) or 1)
    other = weights.get("*", 0.0)
    weight = weights.get("gzip", weights.get("x-gzip", other))
    return 0 < weight <= 1 and weights.get("identity", 0.0) <= weight


async def _encoded(response: CachedResponse, *, accepts_gzip: bool) -> CachedResponse:
    """Returns the response in the client's encoding; only the plain body has a strong tag."""
    body = response.body
    is_packed = accepts_gzip and (response.status == 304 or len(body) >= MIN_GZIP_BYTES)
    headers = [
        (name, b"W/" + value)
        if is_packed and name.lower() == b"etag" and not value.startswith(b"W/")
        else (name, value)
        for name, value in response.headers
    ]
    if is_packed and body:
        # In a thread: 0.5 MB take several milliseconds.
        body = await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL, mtime=0)
        headers = [one for one in headers if one[0].lower() != b"content-length"]
        headers += [(b"content-length", b"%d" % len(body)), (b"content-encoding", b"gzip")]
    headers.append((b"vary", b"Accept-Encoding"))
    return replace(response, headers=tuple(headers), body=body)
