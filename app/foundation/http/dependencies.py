"""Dependencies of routes: use cases, caller, conditions, idempotency, cursors."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Final, TypeVar, cast

from fastapi import Depends, Header, Request
from starlette.requests import HTTPConnection

from app.foundation.errors import Code, PreconditionFailedError, UnavailableError
from app.foundation.http.errors import invalid
from app.foundation.http.pagination import Cursors
from app.foundation.http.permissions import ActorDep
from app.foundation.idempotency import Command

_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_TAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"', re.ASCII)
_VERSION: Final = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
USE_CASES: Final = "use_cases"  # in the state of the lifespan
_RETRY_S: Final = 2.0
CURSORS: Final = "cursors"  # in the state of the lifespan: what all processes sign with

T = TypeVar("T")


@dataclass(slots=True)
class ExpensiveRequests:
    """Semaphore of the requests that compute for long; the number of waiting ones is bounded."""

    running: int = 2  # at once: as many as a small machine has cores
    waiting: int = 32
    _slots: asyncio.Semaphore = field(init=False)
    _waiting: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.running)

    async def acquire(self) -> None:
        """Raises UnavailableError (overloaded) where too many requests wait already."""
        if self._slots.locked() and self._waiting >= self.waiting:
            raise UnavailableError(
                Code.OVERLOADED,
                "Too many expensive requests are under way; try again later.",
                retry_after_s=_RETRY_S,
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1

    def release(self) -> None:
        self._slots.release()


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The key that the caller chose and what exactly it stands for."""

    key: str
    fingerprint: str  # SHA-256 of method, route, path parameters and canonical body


class UseCases:
    """Registry of the use cases, one per type; the container fills it."""

    def __init__(self, by_type: Mapping[type, object]) -> None:
        self._by_type = by_type

    def get(self, kind: type[T]) -> T:
        """The use case of that type. Raises KeyError for a type that was not provided."""
        return cast("T", self._by_type[kind])


if TYPE_CHECKING:
    Provided = Annotated[T, "a use case"]
else:

    class Provided:
        """`Provided[Rebalancing]` injects the use case of that type into a route."""

        def __class_getitem__(cls, kind: type) -> object:
            async def provide(connection: HTTPConnection) -> object:
                use_cases: UseCases = connection.scope["state"][USE_CASES]
                return use_cases.get(kind)

            return Annotated[kind, Depends(provide)]


async def get_request_id(request: Request) -> str:
    """The id that the middleware gave to or accepted for this request."""
    return str(request.state.request_id)


async def get_cursors(request: Request) -> Cursors:
    """The signer of paging cursors: that of the service once it stands, else the application's."""
    cursors: Cursors = request.scope["state"].get(CURSORS) or request.app.state.cursors
    return cursors


def _single(request: Request, name: str) -> str | None:
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise invalid("header", name, "repeated", "A header is given twice.")
    return values[0] if values else None


async def get_idempotency(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="1 to 255 visible ASCII characters; the same key gives one effect.",
            json_schema_extra={"pattern": "^[!-~]{1,255}$"},
        ),
    ] = None,
) -> Idempotency | None:
    """None without the header; 422 for one that is empty, long or not visible ASCII."""
    del idempotency_key  # declared for the documentation; read below, where twice is seen
    key = _single(request, "idempotency-key")
    if key is None:
        return None
    if not _VISIBLE.fullmatch(key):
        raise invalid("header", "Idempotency-Key", "idempotency_key", "The key is not well formed.")
    return Idempotency(key, fingerprint(request))


def fingerprint(request: Request) -> str:
    """SHA-256 in hex of what a request asks for; the spelling of the JSON does not matter."""
    parts = [
        request.method,
        request.scope["route"].path_format,
        request.path_params,
        sorted(request.query_params.multi_items()),
        request.scope["state"].get("document"),
    ]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


async def get_if_match(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description='The version, as the ETag gave it: "12".',
            json_schema_extra={"pattern": r'^(\*|"[0-9]{1,18}")$'},
        ),
    ] = None,
) -> int | None:
    """The version that the caller decided on; None if it does not care (`*` or no header)."""
    del if_match
    text = _single(request, "if-match")
    if text is None or text.strip() == "*":
        return None
    if not _TAG.fullmatch(text.strip()):
        raise invalid("header", "If-Match", "etag", 'One entity tag is needed, such as "12".')
    version = text.strip().strip('"')
    if not _VERSION.fullmatch(version):  # well formed, but no version of ours (or a weak one)
        raise PreconditionFailedError(Code.PRECONDITION_FAILED, "That is not the present version.")
    return int(version)


async def get_if_none_match(
    request: Request,
    if_none_match: Annotated[
        str | None,
        Header(alias="If-None-Match", description="Entity tags that the caller holds already."),
    ] = None,
) -> frozenset[str]:
    """Tags without their W/ prefix (weak comparison); `*` stands for any."""
    del if_none_match
    text = ",".join(request.headers.getlist("if-none-match"))
    if text.strip() == "*":
        return frozenset({"*"})
    return frozenset(found.group().removeprefix("W/") for found in _TAG.finditer(text))


def holds(tags: frozenset[str], tag: str) -> bool:
    """True if the caller holds `tag`, so that 304 is the answer."""
    return "*" in tags or tag in tags


async def get_command(
    actor: ActorDep,
    request_id: Annotated[str, Depends(get_request_id)],
    if_match: Annotated[int | None, Depends(get_if_match)],
    idempotency: Annotated[Idempotency | None, Depends(get_idempotency)],
) -> Command:
    """Principal and conditions of a change; `by` adds the person that a body names."""
    return Command(
        actor=actor, request_id=request_id, if_match=if_match, idempotency_key=idempotency
    )


async def get_unversioned_command(
    actor: ActorDep,
    request_id: Annotated[str, Depends(get_request_id)],
    idempotency: Annotated[Idempotency | None, Depends(get_idempotency)],
) -> Command:
    """Principal and idempotency key of a change to something without a version."""
    return Command(actor=actor, request_id=request_id, idempotency_key=idempotency)


def by(command: Command, claimed: str | None) -> Command:
    """The same command with the person that the body names in `user` as a note."""
    return replace(command, note=claimed)


async def limit_expensive(request: Request) -> AsyncIterator[None]:
    """Hold one slot of the application's ExpensiveRequests while the endpoint runs."""
    expensive: ExpensiveRequests = request.app.state.expensive
    await expensive.acquire()
    try:
        yield
    finally:
        expensive.release()


# "function": the slot is free before the response is sent, so a slow client holds none.
EXPENSIVE: Final = [Depends(limit_expensive, scope="function")]
RequestIdDep = Annotated[str, Depends(get_request_id)]
CursorsDep = Annotated[Cursors, Depends(get_cursors)]
IdempotencyDep = Annotated[Idempotency | None, Depends(get_idempotency)]
CommandDep = Annotated[Command, Depends(get_command)]
UnversionedDep = Annotated[Command, Depends(get_unversioned_command)]
IfMatchDep = Annotated[int | None, Depends(get_if_match)]
IfNoneMatchDep = Annotated[frozenset[str], Depends(get_if_none_match)]
