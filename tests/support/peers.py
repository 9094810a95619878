"""Requests from any peer address, also from those that a test cannot have."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.harness import PREFIX


@dataclass
class PeerAnswer:
    """Answer of the application; `closed` is the close code of a WebSocket that it refused."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    closed: int | None = None

    @property
    def document(self) -> Any:
        return json.loads(self.body)


async def ask_from(
    peer: str,
    api: Any,
    state: Mapping[str, Any],
    *headers: tuple[str, str],
    token: str | None = None,
    path: str = PREFIX + "/who",
    method: str = "GET",
    kind: str = "http",
    extensions: Any = None,
    query: str = "",
) -> PeerAnswer:
    """Calls the application as the server does, with `peer` as the address of the client."""
    sent: list[Any] = []
    named = [*headers, *([] if token is None else [("authorization", f"Bearer {token}")])]
    scope = {
        "type": kind, "method": method, "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in named],
        "server": ("127.0.0.1", 80), "client": (peer, 1), "root_path": "",
        "state": dict(state), "extensions": extensions or {},
    }  # fmt: skip
    if kind == "websocket":
        del scope["method"]

    async def receive() -> Any:
        return {"type": "http.request" if kind == "http" else "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await api(scope, receive, send)
    first = sent[0]
    if first["type"] == "websocket.close":
        return PeerAnswer(403, {}, closed=first["code"])
    if first["type"] == "websocket.accept":
        return PeerAnswer(101, {})
    pairs = {name.decode(): value.decode() for name, value in first["headers"]}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return PeerAnswer(first["status"], pairs, body)
