"""Program of `my-symbols serve`: the HTTP server with its signals; `demo` uses it too."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.supervisors import ChangeReload

from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_error
from app.cli.output import Output, report_errors
from app.cli.programs.recording import halve_quota, record_beside, refuse_existing
from app.cli.programs.settings import read_settings
from app.container.runtime_values import new_id
from app.foundation.errors import ServiceError
from app.foundation.http.certificate import CertificateError, ServerCertificate
from app.foundation.http.permissions import UndeclaredRouteError
from app.foundation.http.server import (
    LoopErrorHandler,
    ServerLimits,
    ServerLoop,
    raise_descriptor_limit,
    server_config,
)
from app.main import create_app, tune_interpreter
from app.settings import ProcessRole, Settings
from app.workers.gauges import dump_stack_when_blocked

_log = structlog.get_logger("service")
_CODE = Path(__file__).parents[2]  # the package `app`
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The parent (make, timeout, a terminal) may deliver one request twice.
SAME_REQUEST_S = 1.0


class Server(uvicorn.Server):
    """uvicorn server with own signals: the first stops it in order, a later one kills it.

    `exit_process` ends the process like kill -9, which loses no data; cancelling all tasks would be
    slow and noisy. It does not return.
    """

    def __init__(
        self, config: uvicorn.Config, url: str, exit_process: Callable[[int], object] = os._exit
    ) -> None:
        super().__init__(config)
        self.url = url
        self.exit_process = exit_process
        self.interrupted = False
        self.on_interrupt: Callable[[], None] | None = None  # of the first stop signal
        self._first_signal_s: float | None = None
        self.failure: Exception | None = None  # error of a failed start
        self.settled = asyncio.Event()  # requests are answered, or the start has failed
        self.ending = asyncio.Event()  # a stop was requested

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn would end the process without a reason
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
        """Replaces uvicorn's handlers, which re-raise the signal: a stop has exit code 0."""
        loop = asyncio.get_running_loop()
        for name in _SIGNALS:
            loop.add_signal_handler(name, self._on_signal)
        yield
        for name in _SIGNALS:
            loop.remove_signal_handler(name)

    def stop(self) -> None:
        self.should_exit = True
        self.ending.set()

    def _on_signal(self) -> None:
        self.handle_signal(asyncio.get_running_loop().time())

    def handle_signal(self, now_s: float) -> None:
        """Handles a stop signal at `now_s` of a monotonic clock."""
        if self._first_signal_s is None:
            self._first_signal_s = now_s
            self.interrupted = True
            if self.on_interrupt is not None:
                self.on_interrupt()
            self.stop()
        elif now_s - self._first_signal_s > SAME_REQUEST_S:
            sys.stderr.write("interrupted: ended at once by the second request\n")
            sys.stderr.flush()
            self.exit_process(ExitCode.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of `serve` that override the settings."""

    host: str | None
    port: int | None
    role: str | None
    logfile: Path | None

    def read(self) -> Settings:
        """Returns the settings with these options. Raises CommandError for an invalid one."""
        address: dict[str, Any] = {"host": self.host, "port": self.port}
        parts = {"http": address, "log": {"file": self.logfile}}
        return read_settings(parts, None if self.role is None else ProcessRole(self.role))


def serve(
    *,
    host: str | None,
    port: int | None,
    role: str | None,
    tape: Path | None,
    logfile: Path | None,
    reload: bool,
) -> None:
    """Runs the service until a signal; options override the settings."""
    options = ServeOptions(host, port, role, logfile)
    with report_errors(as_json=False) as output:
        settings = options.read()
        if tape is not None:
            refuse_existing(tape)
            settings = halve_quota(settings)
        with listening(settings.http.host, settings.http.port) as listener:
            if reload:
                output.notes.print(f"restarts when a file below {_CODE} changes", markup=False)
                _restart_on_changes(options, listener)
            else:
                run(
                    settings, listener, lambda server: _wait_for_end(server, settings, tape, output)
                )


async def _wait_for_end(
    server: Server, settings: Settings, tape: Path | None, output: Output
) -> None:
    if output.notes.is_terminal:
        output.notes.print(
            f"My Symbols at {server.url}, docs at {server.url}/docs; "
            f"exchange {settings.kucoin.base_url}; Ctrl-C stops it"
        )
    if tape is None:
        await server.ending.wait()
    else:
        await record_beside(tape, settings, server.ending)


def _restart_on_changes(options: ServeOptions, listener: socket.socket) -> None:
    """Runs the service in a child process until a signal; a change of the code starts another.

    A child that ends by itself, such as by a syntax error, is replaced at the next change. The
    address stays bound meanwhile, so requests wait.
    """
    config = uvicorn.Config("none:none", reload=True, reload_dirs=[str(_CODE)], log_config=None)
    ChangeReload(config, target=partial(_serve_child, options), sockets=[listener]).run()


def _serve_child(options: ServeOptions, sockets: list[socket.socket] | None) -> None:
    """Runs the service on the socket of the parent process."""
    try:
        with report_errors(as_json=False) as output:
            settings = options.read()
            listener = (sockets or [])[0]
            run(settings, listener, lambda server: _wait_for_end(server, settings, None, output))
    except typer.Exit as end:
        raise SystemExit(end.exit_code) from None


def run(
    settings: Settings, listener: socket.socket, companion: Callable[[Server], Awaitable[None]]
) -> None:
    """Serves on `listener` and runs `companion` in the same loop; the end of one ends the other."""
    host, port = listener.getsockname()[:2]
    certificate = _load_certificate(settings)
    scheme = "http" if certificate is None else "https"
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    app = _create_app(settings)
    app.state.certificate = certificate
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
        certificate=certificate,
    )
    server = Server(config, url)
    _record_failures(app, server)

    def give_up(error: Exception) -> None:
        server.failure = error
        server.stop()

    app.state.give_up = give_up

    async def run_companion() -> None:
        await server.settled.wait()
        try:
            if server.started:
                await companion(server)
        finally:
            server.stop()

    async def run_both() -> None:
        asyncio.get_running_loop().set_exception_handler(LoopErrorHandler())
        async with asyncio.TaskGroup() as group:
            watchdog = group.create_task(dump_stack_when_blocked(sys.stderr))
            results = await asyncio.gather(
                server.serve(sockets=[listener]), run_companion(), return_exceptions=True
            )
            watchdog.cancel()
        if server.failure is not None:
            raise _not_started(server.failure)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    try:
        tune_interpreter()
        timeout_s = settings.http.read_timeout_s
        with asyncio.Runner(loop_factory=lambda: ServerLoop(timeout_s)) as runner:
            runner.run(run_both())
    except CommandError as error:
        if server.interrupted:
            raise CommandError(
                ExitCode.INTERRUPTED, "interrupted", "Stopped by a signal."
            ) from error
        raise


def _load_certificate(settings: Settings) -> ServerCertificate | None:
    """Returns the certificate; None without TLS. Raises CommandError (78) for unusable files."""
    files = settings.http.certificate_files
    try:
        return None if files is None else ServerCertificate(files)
    except CertificateError as error:
        raise CommandError(ExitCode.CONFIGURATION, "certificate_unusable", f"{error}.") from None


def _create_app(settings: Settings) -> Starlette:
    """Returns the application.

    Raises CommandError for an unusable log file, or a route without a permission.
    """
    try:
        return create_app(settings)
    except OSError as error:
        detail = f"{settings.log.file} cannot be written ({error.strerror})."
        raise CommandError(ExitCode.CONFIGURATION, "logfile_unusable", detail) from None
    except UndeclaredRouteError as error:
        raise CommandError(ExitCode.INTERNAL, "route_undeclared", str(error)) from None


def _record_failures(app: Starlette, server: Server) -> None:
    """Records the error of a failed lifespan: the server protocol reports only the failure."""
    original = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(api: Starlette) -> AsyncIterator[Any]:
        try:
            async with original(api) as state:
                yield state
        except Exception as error:
            server.failure = error
            raise

    app.router.lifespan_context = lifespan


def _without_traceback(app: ASGIApp) -> ASGIApp:
    """Removes the traceback from a failed start, so that the server does not log it.

    An expected failure is one line; this program logs an unexpected one once.
    """

    async def starting(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without_traceback(message: Message) -> None:
            has_failed = message["type"] == "lifespan.startup.failed"
            await send({"type": message["type"]} if has_failed else message)

        await app(scope, receive, send_without_traceback)

    def serving(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (starting if scope["type"] == "lifespan" else app)(scope, receive, send)

    return serving


def _not_started(error: Exception) -> CommandError:
    if isinstance(error, ServiceError):
        return CommandError(exit_code_of_error(error), str(error.code), error.detail)
    _log.error("not_started", exc_info=error)
    return CommandError(ExitCode.INTERNAL, "service_not_started", "The log above has the reason.")


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listens on the address until the block ends. Raises CommandError if it is not available."""
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
            f"{host}:{port} is not available ({error.strerror}); choose another --port.",
        ) from None
