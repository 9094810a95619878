"""The HTTP server around the application: limits, and problem+json before any request exists."""

import json
from collections.abc import Callable
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from app.foundation.errors import Code
from app.foundation.http.protocol import PROBLEM_JSON
from app.foundation.http.server import (
    BAD_REQUEST,
    MAX_MESSAGE_BYTES,
    STUCK_S,
    TOO_LARGE,
    PatientHttp,
    socket_protocol,
)

_KEEP_ALIVE_S: Final = 5
_GRACE_S: Final = 10
_REFUSALS: Final = {
    BAD_REQUEST: (Code.BAD_REQUEST, "Bad Request", "That is not a well-formed request."),
    TOO_LARGE: (
        Code.HEADERS_TOO_LARGE,
        "Request Header Fields Too Large",
        "The head of the request is too large.",
    ),
}


def server_config(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    new_id: Callable[[], str],
    stuck_s: float = STUCK_S,
    on_stuck: Callable[[str], None] = lambda _: None,
) -> uvicorn.Config:
    """How uvicorn serves us: own log line per request, bounded head, no server banner.

    A client that takes nothing of what is sent to it for `stuck_s` is cut off, and `on_stuck` is
    told how it was connected.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=problem_protocol(new_id, stuck_s, on_stuck),
        ws=socket_protocol(stuck_s, on_stuck),
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )


def problem_protocol(
    new_id: Callable[[], str],
    stuck_s: float = STUCK_S,
    on_stuck: Callable[[str], None] = lambda _: None,
) -> type[PatientHttp]:
    """uvicorn's protocol, but what is not HTTP is answered with problem+json as well."""

    class ProblemProtocol(PatientHttp):
        def refuse(self, status: int) -> None:
            code, title, detail = _REFUSALS[status]
            request_id = new_id()
            body = json.dumps(
                {
                    "type": f"urn:my-symbols:problem:{code.value}",
                    "title": title,
                    "status": status,
                    "code": code.value,
                    "detail": detail,
                    "instance": "about:blank",
                    "request_id": request_id,
                }
            ).encode()
            head = (
                f"HTTP/1.1 {status} {title}\r\n"
                f"content-type: {PROBLEM_JSON}\r\n"
                f"content-length: {len(body)}\r\n"
                "x-content-type-options: nosniff\r\n"
                "cache-control: no-store\r\n"
                f"x-request-id: {request_id}\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii", "replace") + body)
            self.transport.close()

    ProblemProtocol.stuck_s, ProblemProtocol.on_stuck = stuck_s, staticmethod(on_stuck)
    return ProblemProtocol
