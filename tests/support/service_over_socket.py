"""The whole service behind a real socket, on a thread of its own, for callers that block."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import uvicorn

from app.container.runtime_values import new_id
from app.foundation.http.server import server_config
from app.main import create_app
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.settings import HttpVariables
from tests.support.service_in_process import settings_for

PATIENCE_S = 120.0
FILE = "served.sqlite3"


@dataclass
class Caller:
    """Blocking requests to one address."""

    url: str
    session: requests.Session

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(method, f"{self.url}{path}", timeout=PATIENCE_S, **more)

    def done(self, method: str, path: str, **more: Any) -> Any:
        """The document of an answer that must be a success."""
        answer = self.ask(method, path, **more)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        return self.done("GET", path)


@contextmanager
def serving(room: Path, *, contracts: int = 80, **http: Any) -> Iterator[str]:
    """The address of a service over its own local exchange, as `my-symbols serve` runs it.

    Its SQLite file is FILE in `room`; `http` are values of HttpVariables. Raises TimeoutError
    when it does not come up.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
        started, ending = threading.Event(), threading.Event()
        thread = threading.Thread(
            target=lambda: asyncio.run(_serve(room, contracts, http, listening, started, ending))
        )
        thread.start()
        try:
            if not started.wait(PATIENCE_S):
                raise TimeoutError("the service did not come up")
            yield f"http://127.0.0.1:{port}"
        finally:
            ending.set()
            thread.join()


async def _serve(
    room: Path,
    contracts: int,
    http_values: Mapping[str, Any],
    listening: socket.socket,
    started: threading.Event,
    ending: threading.Event,
) -> None:
    options = SandboxOptions(contracts=contracts, quota=100_000)
    async with serve_exchange(options, time.time) as exchange:
        settings = settings_for(exchange, f"sqlite+aiosqlite:///{room / FILE}")
        http = HttpVariables(**http_values)
        app = create_app(settings.model_copy(update={"http": http}))
        config = server_config(app, host="127.0.0.1", port=0, new_id=new_id)
        server = uvicorn.Server(config)
        running = asyncio.ensure_future(server.serve([listening]))
        while not server.started and not running.done():
            await asyncio.sleep(0.01)
        started.set()
        await asyncio.to_thread(ending.wait)
        server.should_exit = True
        await running
