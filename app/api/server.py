"""The HTTP server around the application: limits, and problem+json before any request exists."""

import json
import sys
from collections.abc import Callable
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp

from app.api.problems import PROBLEM_JSON
from app.api.protocols import MAX_MESSAGE_BYTES, STUCK_S, PatientHttp, socket_protocol
from app.domain.errors import Code

# Above our own limits (middleware.py), which answer in more detail; beyond this h11 gives up.
_MAX_HEAD_BYTES: Final = 256 * 1024
_KEEP_ALIVE_S: Final = 5
_GRACE_S: Final = 10
_MALFORMED: Final = (400, Code.BAD_REQUEST, "Bad Request", "That is not a well-formed request.")
_TOO_LARGE: Final = (
    431,
    Code.HEADERS_TOO_LARGE,
    "Request Header Fields Too Large",
    "The head of the request is too large.",
)


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
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
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
        def send_400_response(self, msg: str) -> None:
            del msg
            # Called while h11's refusal is being handled; its hint tells size from nonsense.
            hint = getattr(sys.exception(), "error_status_hint", 400)
            status, code, title, detail = _TOO_LARGE if hint == _TOO_LARGE[0] else _MALFORMED
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
            headers = [
                (b"content-type", PROBLEM_JSON.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"cache-control", b"no-store"),
                (b"x-request-id", request_id.encode("ascii", "replace")),
                (b"connection", b"close"),
            ]
            head = h11.Response(status_code=status, headers=headers, reason=title.encode())
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    ProblemProtocol.stuck_s, ProblemProtocol.on_stuck = stuck_s, staticmethod(on_stuck)
    return ProblemProtocol
