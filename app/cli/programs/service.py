"""Program of `my-symbols serve`: the HTTP server with its signals; `demo` runs it too."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import report_errors
from app.cli.programs.recording import halve_quota, record_beside, refuse_existing
from app.cli.programs.settings import read_settings
from app.container.runtime_values import new_id
from app.foundation.errors import ServiceError
from app.foundation.http.server import (
    LoopErrorHandler,
    ServerLimits,
    raise_descriptor_limit,
    server_config,
)
from app.main import create_app, tune_interpreter
from app.settings import Role, Settings
from app.workers.gauges import dump_stack_when_blocked

_log = structlog.get_logger("service")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What starts us (make, timeout, a terminal) may pass one request on twice.
SAME_REQUEST_S = 1.0


class Server(uvicorn.Server):
    """uvicorn's server with our signals: the first asks it to finish, a later one ends it at once.

    At once is as by kill -9, which loses nothing; cancelling everything that runs is neither quick
    nor quiet. `leave` does not return.
    """

    def __init__(
        self, config: uvicorn.Config, url: str, leave: Callable[[int], object] = os._exit
    ) -> None:
        super().__init__(config)
        self.url = url
        self.leave = leave
        self.interrupted = False
        self._asked_at_s: float | None = None
        self.failure: Exception | None = None  # why it did not start
        self.settled = asyncio.Event()  # requests are answered, or never will be
        self.ending = asyncio.Event()  # somebody asked it to stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn would leave the process without a reason
            self.should_exit = True
        self.settled.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self.settled.set()
            self.ending.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own way dies by the signal in the end; ours ends with exit code 0."""
        loop = asyncio.get_running_loop()
        for name in _SIGNALS:
            loop.add_signal_handler(name, self._asked_to_stop)
        yield
        for name in _SIGNALS:
            loop.remove_signal_handler(name)

    def stop(self) -> None:
        self.should_exit = True
        self.ending.set()

    def _asked_to_stop(self) -> None:
        self.asked_to_stop(asyncio.get_running_loop().time())

    def asked_to_stop(self, now_s: float) -> None:
        """A signal at `now_s` of a clock that only goes forward."""
        if self._asked_at_s is None:
            self._asked_at_s = now_s
            self.interrupted = True
            self.stop()
        elif now_s - self._asked_at_s > SAME_REQUEST_S:
            sys.stderr.write("interrupted: ended at once, on the second request\n")
            sys.stderr.flush()
            self.leave(ExitCode.INTERRUPTED)


def serve(host: str | None, port: int | None, role: str | None, tape: Path | None) -> None:
    """Runs the service until a signal; options override the settings."""
    with report_errors(as_json=False) as output:
        settings = read_settings(
            {"http": {"host": host, "port": port}}, None if role is None else Role(role)
        )
        if tape is not None:
            refuse_existing(tape)
            settings = halve_quota(settings)

        async def announce(server: Server) -> None:
            if output.notes.is_terminal:
                output.notes.print(
                    f"My Symbols at {server.url}, docs at {server.url}/docs; "
                    f"exchange {settings.kucoin.base_url}; Ctrl-C stops it"
                )
            if tape is None:
                await server.ending.wait()
            else:
                await record_beside(tape, settings, server.ending)

        with listening(settings.http.host, settings.http.port) as listener:
            run(settings, listener, announce)


def run(
    settings: Settings, listener: socket.socket, beside: Callable[[Server], Awaitable[None]]
) -> None:
    """Serves on `listener`, runs `beside` in the same loop; when either ends, so does the other."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    app = create_app(settings)
    evictions = app.state.metrics.stream_evictions
    config = server_config(
        _without_traceback(app),
        host=host,
        port=port,
        new_id=new_id,
        limits=ServerLimits.within(
            raise_descriptor_limit(),
            read_timeout_s=settings.http.read_timeout_s,
            connections=settings.http.max_connections,
            connections_per_address=settings.http.max_connections_per_address,
            trusted_proxies=settings.http.trusted_proxies,
        ),
        on_stalled=lambda transport: evictions.labels(transport).inc(),
    )
    server = Server(config, url)
    _note_failures(app, server)

    def give_up(error: Exception) -> None:
        server.failure = error
        server.stop()

    app.state.give_up = give_up

    async def accompany() -> None:
        await server.settled.wait()
        try:
            if server.started:
                await beside(server)
        finally:
            server.stop()

    async def both() -> None:
        asyncio.get_running_loop().set_exception_handler(LoopErrorHandler())
        async with asyncio.TaskGroup() as group:
            watchdog = group.create_task(dump_stack_when_blocked())
            ends = await asyncio.gather(
                server.serve(sockets=[listener]), accompany(), return_exceptions=True
            )
            watchdog.cancel()
        if server.failure is not None:
            raise _not_started(server.failure)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    try:
        tune_interpreter()
        asyncio.run(both())
    except CommandError as error:
        if server.interrupted:
            raise CommandError(
                ExitCode.INTERRUPTED, "interrupted", "Stopped by a signal."
            ) from error
        raise


def _note_failures(app: Starlette, server: Server) -> None:
    """Keeps what the lifespan raised: the server protocol only says that it did."""
    opened = app.router.lifespan_context

    @asynccontextmanager
    async def noting(api: Starlette) -> AsyncIterator[Any]:
        try:
            async with opened(api) as state:
                yield state
        except Exception as error:
            server.failure = error
            raise

    app.router.lifespan_context = noting


def _without_traceback(app: ASGIApp) -> ASGIApp:
    """The application, but a failed start carries no traceback for the server to log: what is
    expected ends as one line, what is not is logged once, by us.
    """

    async def starting(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_traceback(message: Message) -> None:
            failed = message["type"] == "lifespan.startup.failed"
            await send({"type": message["type"]} if failed else message)

        await app(scope, receive, send_without_traceback)

    def serving(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (starting if scope["type"] == "lifespan" else app)(scope, receive, send)

    return serving


def _not_started(error: Exception) -> CommandError:
    if isinstance(error, ServiceError):
        return CommandError(exit_code_of_error(error), str(error.code), error.detail)
    _log.error("not_started", exc_info=error)
    return CommandError(
        ExitCode.INTERNAL, "service_not_started", "The reason stands in the log above."
    )


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """The address taken, given free on the way out. Raises CommandError if it cannot be had."""
    with _listener(host, port) as listener:
        yield listener


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise CommandError(
            ExitCode.UNAVAILABLE,
            "address_not_available",
            f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port.",
        ) from None
