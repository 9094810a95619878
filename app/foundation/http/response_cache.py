"""Answers from memory, given again as they are while nothing has changed that they are made of."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, Final, Generic, TypeVar, cast

from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.foundation.errors import ServiceError
from app.foundation.http.packing import Form, Packer, packed_from
from app.foundation.http.responses import answer, json_bytes
from app.operations.services.response_version import Rests, Stand, Standing

MOST: Final = 256  # answers
BUDGET: Final = 32 * 1024 * 1024  # bytes of all bodies

T = TypeVar("T")


@dataclass(slots=True)
class Shelf(Generic[T]):
    """The answers that were made last; the one that was made first gives way."""

    size_of: Callable[[T], int]  # bytes
    most: int = MOST
    budget: int = BUDGET
    _kept: dict[Hashable, T] = field(default_factory=dict, init=False)
    _size: int = field(default=0, init=False)

    def get(self, key: Hashable) -> T | None:
        return self._kept.get(key)

    def put(self, key: Hashable, answer: T) -> None:
        """What is larger than all the room there is, is not kept."""
        self.drop(key)
        size = self.size_of(answer)
        if size > self.budget:
            return
        self._kept[key] = answer
        self._size += size
        while self._size > self.budget or len(self._kept) > self.most:
            self.drop(next(iter(self._kept)))

    def drop(self, key: Hashable) -> None:
        answer = self._kept.pop(key, None)
        if answer is not None:
            self._size -= self.size_of(answer)


STANDING: Final = "standing"  # in the state of the lifespan; without it nothing is kept
_LONGEST: Final = 1024  # bytes of what is asked
_KEPT: Final = frozenset({200, 304})  # statuses
_TAGS: Final = b"if-none-match"
_FORMS: Final = b"accept-encoding"
# With these an answer is another one, or not only an answer.
_BESIDE: Final = frozenset({b"origin", b"content-length", b"transfer-encoding", b"prefer"})

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Again = Callable[[], Awaitable[Response]]


def of_memory(endpoint: Endpoint) -> Endpoint:
    """Marks what answers by path, query and `If-None-Match` alone, out of what a Stand holds."""
    return _marked(endpoint, Rests.COMMITTED | Rests.QUOTES)


def of_market(endpoint: Endpoint) -> Endpoint:
    """The same of market and scores alone: what is committed has no part in it."""
    return _marked(endpoint, Rests.QUOTES)


def of_scores(endpoint: Endpoint) -> Endpoint:
    """The same of scores alone; of the market it says at most how old that is."""
    return _marked(endpoint, Rests.SCORES)


def of_record(endpoint: Endpoint) -> Endpoint:
    """The same of what is committed alone, though it may have to be read for that."""
    return _marked(endpoint, Rests.COMMITTED)


@dataclass(slots=True)
class _Making:
    """What the endpoint says of itself while its answer is made for the first time."""

    rests_on: Rests | None = None  # None: it is not one of those whose answers are kept
    again: Again | None = None  # None: it needs the request itself


_MAKING: Final[ContextVar[_Making | None]] = ContextVar("making", default=None)


def _marked(endpoint: Endpoint, rests_on: Rests) -> Endpoint:
    async def told(**given: Any) -> Response:
        made = await endpoint(**given)
        return answer(json_bytes(made)) if isinstance(made, BaseModel) else made

    @wraps(endpoint)
    async def noted(**given: Any) -> Response:
        making = _MAKING.get()
        if making is not None:
            making.rests_on = rests_on
            # The path, the query and the tags are in the key: what was read of them is the same.
            if not any(isinstance(one, HTTPConnection | Response) for one in given.values()):
                making.again = partial(told, **given)
        return await told(**given)

    return cast("Endpoint", noted)  # it takes what the endpoint takes


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, what it was made of, and how it is made again."""

    standing: Standing
    stand: Stand
    rests_on: Rests
    again: Again | None
    route: object
    form: Form


Key = tuple[str, bytes, bytes, int | None]  # path, query, tags, size from which it is packed


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """Inside of all that refuses, outside of all that works an answer out.

    What has changed is asked of the endpoint that answered before, with what it was given then:
    finding it and reading the request anew takes longer than most answers. Everybody is told the
    same: once callers are told apart, who asks belongs into the key.
    """

    app: ASGIApp
    packer: Packer = field(default_factory=Packer)
    _kept: Shelf[Kept] = field(default_factory=lambda: Shelf(_size), init=False)
    _busy: dict[Key, asyncio.Event] = field(default_factory=dict, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing: Standing | None = scope.get("state", {}).get(STANDING)
        key = None if standing is None else key_of(scope)
        if standing is None or key is None:
            await self.app(scope, receive, send)
            return
        kept = self._kept.get(key)
        while True:
            stand = await _present(
                standing, is_asking=kept is not None and _is_committed(kept.rests_on)
            )
            kept, busy = self._kept.get(key), self._busy.get(key)
            if kept is None or stand is None or kept.standing is not standing:
                given = None
                break
            if kept.stand.serves(stand, kept.rests_on):
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
        await _send(given.form, send)

    async def _remade(self, key: Key, kept: Kept, stand: Stand) -> Kept | None:
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
            form = Form(made.status_code, tuple(made.raw_headers), bytes(made.body))
            if form.status in _KEPT and not _is_committed(kept.rests_on):
                form = await self._formed(form, key)
            fresh = replace(kept, stand=stand, form=form)
            if form.status in _KEPT:
                self._kept.put(key, fresh)
        finally:
            del self._busy[key]
            busy.set()
        return fresh

    async def _found(
        self,
        key: Key,
        standing: Standing,
        stand: Stand | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """The whole way: the route is looked for, and the request read."""
        making = _Making()
        heard = _Heard(send, making)
        token = _MAKING.set(making)
        try:
            await self.app(scope, receive, heard)
        finally:
            _MAKING.reset(token)
        form, rests_on = heard.whole, making.rests_on
        if form is None:
            return
        if rests_on is not None and not _is_committed(rests_on):
            form = await self._formed(form, key)
        await _send(form, send)
        if stand is not None and rests_on is not None:
            kept = Kept(standing, stand, rests_on, making.again, scope.get("route"), form)
            self._kept.put(key, kept)

    async def _formed(self, form: Form, key: Key) -> Form:
        """As the caller wants it; tags of committed state are versions, and stay what they are."""
        return await self.packer.formed(form, key[3], key[2])


def _is_committed(rests_on: Rests) -> bool:
    return Rests.COMMITTED in rests_on


def _size(kept: Kept) -> int:
    return len(kept.form.body)


async def _send(form: Form, send: Send) -> None:
    start = {"status": form.status, "headers": list(form.headers)}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": form.body})


class _Heard:
    """Holds an answer back that can be given again, for its form; passes on any other one."""

    def __init__(self, send: Send, making: _Making) -> None:
        self._send = send
        self._making = making
        self._start: Message | None = None  # held back
        self.whole: Form | None = None  # it has not been sent

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            is_kept = self._making.rests_on is not None and message["status"] in _KEPT
            self._start = message if is_kept else None
            if is_kept:
                return
        elif self._start is not None:
            start, self._start = self._start, None
            body = message.get("body", b"")
            if not message.get("more_body") and len(body) <= BUDGET:
                self.whole = Form(start["status"], tuple(start["headers"]), body)
                return
            await self._send(start)
        await self._send(message)


async def _present(standing: Standing, *, is_asking: bool) -> Stand | None:
    """The stand before the answer is made: what changes meanwhile makes it another one."""
    try:
        stand = standing.now()
        return await standing.asked() if stand.committed is None and is_asking else stand
    except ServiceError:
        return None  # the route says it in its own words


def key_of(scope: Scope) -> Key | None:
    """What an answer depends on besides the stand; None for a request that has more to it."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    held = accepted = b""
    for name, value in scope["headers"]:
        if name in _BESIDE:
            return None
        if name == _TAGS:
            held += b"," + value
        elif name == _FORMS:
            accepted += b"," + value
    path, query = scope["path"], scope["query_string"]
    if len(path) + len(query) + len(held) > _LONGEST:
        return None
    return path, query, held, packed_from(accepted) if accepted else None
