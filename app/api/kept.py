"""Answers from memory, given again as they are while nothing has changed that they are made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.errors import ServiceError
from app.services.standing import Stand, Standing

STANDING: Final = "standing"  # in the state of the lifespan; without it nothing is kept
_MOST: Final = 256  # answers
_LARGEST: Final = 256 * 1024  # bytes of a body
_LONGEST: Final = 1024  # bytes of what is asked
_TAGS: Final = b"if-none-match"
# With these an answer is another one, or not only an answer.
_BESIDE: Final = frozenset({b"origin", b"content-length", b"transfer-encoding", b"prefer"})

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_HAS_COMMITTED: Final[dict[Callable[..., Any], bool]] = {}


def of_memory(endpoint: Endpoint) -> Endpoint:
    """Marks what answers by path, query and `If-None-Match` alone, out of what a Stand holds."""
    _HAS_COMMITTED[endpoint] = True
    return endpoint


def of_market(endpoint: Endpoint) -> Endpoint:
    """The same of market and scores alone: what is committed has no part in it."""
    _HAS_COMMITTED[endpoint] = False
    return endpoint


def _nothing() -> None:
    """Where no route has answered."""


@dataclass(frozen=True, slots=True)
class _Kept:
    stand: Stand
    has_committed: bool
    route: object
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


_Key = tuple[str, bytes, bytes]


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """Inside of all that refuses, outside of all that works an answer out.

    Everybody is told the same: once callers are told apart, who asks belongs into the key.
    """

    app: ASGIApp
    _kept: dict[_Key, _Kept] = field(default_factory=dict, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        standing: Standing | None = scope.get("state", {}).get(STANDING)
        key = None if standing is None else _key(scope)
        if standing is None or key is None:
            await self.app(scope, receive, send)
            return
        kept = self._kept.get(key)
        stand = await _present(standing, is_asking=kept is not None and kept.has_committed)
        if (
            kept is not None
            and stand is not None
            and kept.stand.serves(stand, has_committed=kept.has_committed)
        ):
            scope["route"] = kept.route
            head = {"status": kept.status, "headers": list(kept.headers)}
            await send({"type": "http.response.start", **head})
            await send({"type": "http.response.body", "body": kept.body})
            return
        heard = _Heard(send)
        await self.app(scope, receive, heard)
        route = scope.get("route")
        has_committed = _HAS_COMMITTED.get(getattr(route, "endpoint", None) or _nothing)
        if heard.is_whole and stand is not None and has_committed is not None:
            told = (heard.status, heard.headers, heard.body)
            self._keep(key, _Kept(stand, has_committed, route, *told))

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
        elif self.status in {200, 304}:
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
