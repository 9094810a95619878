"""Answers while the database is away and the service cannot start: alive, not ready, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.http.errors import problem_response
from app.foundation.http.protocol import PREFIX
from app.foundation.mode import Mode

OPENING: Final = "opening"
_RETRY_S: Final = 5.0
_TRY_AGAIN: Final = 1013  # close code of a WebSocket
_ANSWERED: Final = frozenset({f"{PREFIX}/health"})


@dataclass(slots=True)
class Opening:
    """What requests find in their state: `stands` is what the service yields once it is there."""

    before: Mapping[str, Any]  # state that answers health and metrics until then
    stands: Mapping[str, Any] | None = None

    def state(self) -> Mapping[str, Any]:
        return self.before if self.stands is None else self.stands

    def mode(self) -> Mode:
        if self.stands is None:
            return Mode.FROZEN
        now: Callable[[], Mode] = self.stands["mode"]
        return now()


@dataclass(frozen=True, slots=True)
class OpeningGuard:
    """Answers for the service until it stands; probes, health, metrics and the docs are there.

    A service that stood at once has no `Opening` in its state, and nothing is done here.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opening: Opening | None = scope.get("state", {}).get(OPENING)
        if opening is None or scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        if opening.stands is None and path.startswith(PREFIX + "/") and path not in _ANSWERED:
            await _refuse(scope, receive, send)
            return
        scope["state"].update(opening.state())
        await self.app(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _TRY_AGAIN})
        return
    refused = problem_response(
        Request(scope),
        503,
        Code.DATABASE_UNAVAILABLE,
        "The database does not answer, so that the service has not begun; it goes on trying.",
        retry_after_s=_RETRY_S,
    )
    await refused(scope, receive, send)
