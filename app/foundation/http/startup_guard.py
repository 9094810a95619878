"""Answers while the database is away and the service cannot start: alive, not ready, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.foundation.errors import Code
from app.foundation.health import Mode
from app.foundation.http.errors import problem_response
from app.foundation.http.protocol import PREFIX

STARTUP_STATE: Final = "opening"
_RETRY_S: Final = 5.0
_TRY_AGAIN: Final = 1013  # close code of a WebSocket
_ANSWERED: Final = frozenset({f"{PREFIX}/health"})


@dataclass(slots=True)
class StartupState:
    """State of requests while the service starts; `stands` is the state of the started service."""

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
class StartupGuard:
    """Answers for the service until it stands; probes, health, metrics and the docs are there.

    A service that stood at once has no StartupState, and requests pass unchanged.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opening: StartupState | None = scope.get("state", {}).get(STARTUP_STATE)
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
