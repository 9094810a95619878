"""Answers from memory, given again as they are while nothing has changed that they are made of."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.responses import answer, json_bytes
from app.domain.errors import ServiceError
from app.services.standing import Stand, Standing

STANDING: Final = "standing"  # in the state of the lifespan; without it nothing is kept
_MOST: Final = 256  # answers
_LARGEST: Final = 256 * 1024  # bytes of a body
_LONGEST: Final = 1024  # bytes of what is asked
_KEPT: Final = frozenset({200, 304})  # statuses
_TAGS: Final = b"if-none-match"
# With these an answer is another one, or not only an answer.
_BESIDE: Final = frozenset({b"origin", b"content-length", b"transfer-encoding", b"prefer"})

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Again = Callable[[], Awaitable[Response]]


def of_memory(endpoint: Endpoint) -> Endpoint:
    """Marks what answers by path, query and `If-None-Match` alone, out of what a Stand holds."""
    marked: Endpoint = _marked(endpoint, has_committed=True)
    return marked


def of_market(endpoint: Endpoint) -> Endpoint:
    """The same of market and scores alone: what is committed has no part in it."""
    marked: Endpoint = _marked(endpoint, has_committed=False)
    return marked


@dataclass(slots=True)
class _Making:
    """What the endpoint says of itself while its answer is made for the first time."""

    has_committed: bool | None = None  # None: it is not one of those whose answers are kept
    again: Again | None = None  # None: it needs the request itself


_MAKING: Final[ContextVar[_Making | None]] = ContextVar("making", default=None)


def _marked(endpoint: Callable[..., Any], *, has_committed: bool) -> Any:
    async def told(**given: Any) -> Response:
        made = await endpoint(**given)
        return answer(json_bytes(made)) if isinstance(made, BaseModel) else made

    @wraps(endpoint)
    async def noted(**given: Any) -> Response:
        making = _MAKING.get()
        if making is not None:
            making.has_committed = has_committed
            # The path, the query and the tags are in the key: what was read of them is the same.
            if not any(isinstance(one, HTTPConnection | Response) for one in given.values()):
                making.again = partial(told, **given)
        return await told(**given)

    return noted


@dataclass(frozen=True, slots=True)
class _Kept:
    standing: Standing
    stand: Stand
    has_committed: bool
    again: Again | None
    route: object
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


_Key = tuple[str, bytes, bytes]


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """Inside of all that refuses, outside of all that works an answer out.

    What has changed is asked of the endpoint that answered before, with what it was given then:
    finding it and reading the request anew takes longer than most answers. Everybody is told the
    same: once callers are told apart, who asks belongs into the key.
    """

    app: ASGIApp
    _kept: dict[_Key, _Kept] = field(default_factory=dict, init=False)
    _busy: dict[_Key, asyncio.Event] = field(default_factory=dict, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing: Standing | None = scope.get("state", {}).get(STANDING)
        key = None if standing is None else _key(scope)
        if standing is None or key is None:
            await self.app(scope, receive, send)
            return
        kept = self._kept.get(key)
        while True:
            stand = await _present(standing, is_asking=kept is not None and kept.has_committed)
            kept, busy = self._kept.get(key), self._busy.get(key)
            if kept is None or stand is None or kept.standing is not standing:
                given = None
                break
            if kept.stand.serves(stand, has_committed=kept.has_committed):
                given = kept
                break
            if busy is None:
                given = await self._remade(key, kept, stand)
                break
            await busy.wait()  # for the answer of somebody else, if it still holds then
        if given is None:
            await self._found(key, standing, stand, scope, receive, send)
            return
        scope["route"] = given.route
        start = {"status": given.status, "headers": list(given.headers)}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": given.body})

    async def _remade(self, key: _Key, kept: _Kept, stand: Stand) -> _Kept | None:
        """What the same endpoint says now; None for what only the whole way can say."""
        if kept.again is None:
            return None
        busy = self._busy[key] = asyncio.Event()
        made: Response | None = None
        try:
            with suppress(Exception):  # then the whole way fails as well, and says it as a problem
                made = await kept.again()
            if made is None:
                return None
            body = bytes(made.body)
            fresh = replace(
                kept,
                stand=stand,
                status=made.status_code,
                headers=tuple(made.raw_headers),
                body=body,
            )
            if fresh.status in _KEPT and len(body) <= _LARGEST:
                self._keep(key, fresh)
        finally:
            del self._busy[key]
            busy.set()
        return fresh

    async def _found(
        self,
        key: _Key,
        standing: Standing,
        stand: Stand | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """The whole way: the route is looked for, and the request read."""
        heard, making = _Heard(send), _Making()
        token = _MAKING.set(making)
        try:
            await self.app(scope, receive, heard)
        finally:
            _MAKING.reset(token)
        if heard.is_whole and stand is not None and making.has_committed is not None:
            self._keep(
                key,
                _Kept(
                    standing,
                    stand,
                    making.has_committed,
                    making.again,
                    scope.get("route"),
                    heard.status,
                    heard.headers,
                    heard.body,
                ),
            )

    def _keep(self, key: _Key, answer: _Kept) -> None:
        self._kept.pop(key, None)
        if len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]  # the one that was made first
        self._kept[key] = answer


class _Heard:
    """Passes an answer on and remembers it, if it is one that can be given again."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.body = b""
        self.is_whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], tuple(message["headers"])
        elif self.status in _KEPT:
            self.body = message.get("body", b"")
            self.is_whole = not message.get("more_body") and len(self.body) <= _LARGEST
            self.status = self.status if self.is_whole else 0
        await self._send(message)


async def _present(standing: Standing, *, is_asking: bool) -> Stand | None:
    """The stand before the answer is made: what changes meanwhile makes it another one."""
    try:
        stand = standing.now()
        return await standing.asked() if stand.committed is None and is_asking else stand
    except ServiceError:
        return None  # the route says it in its own words


def _key(scope: Scope) -> _Key | None:
    """What an answer depends on besides the stand; None for a request that has more to it."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    held = b""
    for name, value in scope["headers"]:
        if name in _BESIDE:
            return None
        if name == _TAGS:
            held += b"," + value
    path, query = scope["path"], scope["query_string"]
    return None if len(path) + len(query) + len(held) > _LONGEST else (path, query, held)
