"""Opens the service and retries while the database server is unavailable (B01)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random  # noqa: TID251  # source of randomness of the program
from typing import Any, Final, NoReturn

from app.container.application import request_state
from app.container.assembly import Services, assemble
from app.container.runtime_values import code_version, utc_now
from app.foundation.backoff import full_jitter
from app.foundation.data_status import DataStatus
from app.foundation.errors import CorruptDatabaseError, UnavailableError
from app.foundation.http.certificate import ServerCertificate
from app.foundation.http.dependencies import CURSORS, USE_CASES, UseCases
from app.foundation.http.pagination import Cursors
from app.foundation.http.response_cache import VERSIONS
from app.foundation.http.startup_guard import STARTUP_STATE, StartupState
from app.foundation.metrics import Metrics
from app.foundation.sql.database import DataSourceMismatchError
from app.foundation.sql.engines import parse_database_url
from app.foundation.sql.file_lock import DatabaseInUseError
from app.market.domain.models import ExchangeLink, LinkState
from app.market.services.health_facts import MarketFacts
from app.market.services.service_mode import CurrentMode, MarketLevel
from app.market.services.state import NOT_STARTED
from app.operations.services.health import StatusService
from app.security.api.rate_limiting import COUNT_EXCHANGE, SHARED_WINDOWS
from app.security.services.peppers import UnsafeStartError
from app.settings import Settings
from app.workers.supervisor import Heartbeat, Supervisor

# Errors that need an operator; a retry does not help.
_NEED_OPERATOR: Final = (
    DatabaseInUseError, DataSourceMismatchError, CorruptDatabaseError, UnsafeStartError,
)  # fmt: skip
_TASK: Final = "opening"


@asynccontextmanager
async def open_service(
    settings: Settings,
    metrics: Metrics,
    give_up: Callable[[Exception], None],
    certificate: ServerCertificate | None = None,
) -> AsyncIterator[dict[str, Any]]:
    """Yields the state of requests; closes the service on the way out.

    While a database server is unavailable, the state reports that, and becomes the state of the
    service once it is open. `give_up` receives an error that a retry cannot solve. Raises the
    errors of `assemble` if a retry cannot help, or for an SQLite file.
    """
    async with AsyncExitStack() as stack:
        retry: _StartupRetry | None = None
        try:
            services = await stack.enter_async_context(assemble(settings, metrics, certificate))
        except UnavailableError as error:
            if not _is_recoverable(error, settings):
                raise
            retry = _StartupRetry(settings, metrics, give_up, error, certificate)
        if retry is None:
            yield dict(_state(services))
            return
        stack.push_async_callback(retry.supervisor.stop)
        retry.supervisor.start(_TASK, retry.run, lambda: float("inf"))
        yield {STARTUP_STATE: retry.startup, "mode": retry.startup.mode}


@dataclass(slots=True)
class _StartupRetry:
    """Retries the opening; the service lives in one task, from its opening to its end."""

    settings: Settings
    metrics: Metrics
    give_up: Callable[[Exception], None]
    error: UnavailableError
    certificate: ServerCertificate | None = None
    startup: StartupState = field(init=False)
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        dice = Random()  # noqa: S311  # jitter needs no secrecy
        self.supervisor = Supervisor(utc_now, lambda: full_jitter(dice.random))
        self.startup = StartupState({USE_CASES: UseCases({StatusService: self._status()})})

    async def run(self, beat: Heartbeat) -> None:
        try:
            async with assemble(self.settings, self.metrics, self.certificate) as services:
                beat()
                self.startup.stands = _state(services)
                await asyncio.Event().wait()  # until the task is cancelled
        except UnavailableError as error:
            self.error = error
            if _is_recoverable(error, self.settings):
                raise
            self.give_up(error)

    def _status(self) -> StatusService:
        source = self.settings.kucoin.data_source
        status, no_age = DataStatus.UNAVAILABLE, dict[str, float | None]()
        nothing = MarketFacts(
            source, status, None, 0, 0, 0, NOT_STARTED.stage, 0, 0, ages_s=no_age
        )  # fmt: skip
        untried = ExchangeLink(LinkState.UNTRIED, utc_now(), None, None, None, None)
        return StatusService(
            started_at=utc_now(),
            version=code_version(),
            clock=utc_now,
            ping_database=self._raise_error,
            exchange_link=lambda: untried,
            market_facts=lambda: nothing,
            scoring_facts=lambda: None,
            portfolio_facts=self._raise_error,
            task_facts=self.supervisor.facts,
            mode=CurrentMode(lambda: MarketLevel(status, 0), lambda: True),
        )

    async def _raise_error(self) -> NoReturn:
        raise self.error


def _state(services: Services) -> Mapping[str, Any]:
    return {
        **request_state(services.my_symbols),
        "mode": services.mode,
        VERSIONS: services.versions,
        CURSORS: Cursors(services.cursor_secret),
        SHARED_WINDOWS: services.shared_windows,
        COUNT_EXCHANGE: services.count_exchange,
    }


def _is_recoverable(error: UnavailableError, settings: Settings) -> bool:
    """Returns True for a database server; an unusable file needs an operator."""
    is_file = parse_database_url(settings.database.url).get_backend_name() == "sqlite"
    return not is_file and not isinstance(error, _NEED_OPERATOR)
