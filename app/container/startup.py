"""Opens the service; retries while the server of its database is away (B01)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random  # noqa: TID251  # chance enters the program here
from typing import Any, Final, NoReturn

from app.container.application import state_of
from app.container.assembly import Services, assemble
from app.container.runtime_values import code_version, utc_now
from app.foundation.backoff import full_jitter
from app.foundation.data_status import DataStatus
from app.foundation.errors import CorruptDatabaseError, UnavailableError
from app.foundation.http.dependencies import CURSORS, USE_CASES, UseCases
from app.foundation.http.pagination import Cursors
from app.foundation.http.response_cache import VERSIONS
from app.foundation.http.startup_guard import STARTUP_STATE, StartupState
from app.foundation.metrics import Metrics
from app.foundation.sql.database import DataSourceMismatchError
from app.foundation.sql.engines import url_of
from app.foundation.sql.file_lock import DatabaseInUseError
from app.market.domain.models import ExchangeLink, LinkState
from app.market.services.health_facts import MarketFacts
from app.market.services.service_mode import MarketLevel, ModeNow
from app.market.services.state import NOT_STARTED
from app.operations.services.health import StatusService
from app.security.services.peppers import UnsafeStartError
from app.settings import Settings
from app.workers.supervisor import Heartbeat, Supervisor

# Trying again does not help against these.
_TO_BE_CHANGED: Final = (
    DatabaseInUseError, DataSourceMismatchError, CorruptDatabaseError, UnsafeStartError,
)  # fmt: skip
_TASK: Final = "opening"


@asynccontextmanager
async def open_service(
    settings: Settings, metrics: Metrics, give_up: Callable[[Exception], None]
) -> AsyncIterator[dict[str, Any]]:
    """The state of requests; closed on the way out.

    Where a database server does not answer, the state is one that says so, and becomes that of
    the service as soon as it stands. `give_up` gets the error if it never will. Raises what
    `assemble` does where trying again would not help, or a file is the database.
    """
    async with AsyncExitStack() as stack:
        waiting: _Waiting | None = None
        try:
            services = await stack.enter_async_context(assemble(settings, metrics))
        except UnavailableError as error:
            if not _comes_back(error, settings):
                raise
            waiting = _Waiting(settings, metrics, give_up, error)
        if waiting is None:
            yield dict(_state(services))
            return
        stack.push_async_callback(waiting.tries.stop)
        waiting.tries.start(_TASK, waiting.run, lambda: float("inf"))
        yield {STARTUP_STATE: waiting.opening, "mode": waiting.opening.mode}


@dataclass(slots=True)
class _Waiting:
    """Tries again and again; the service lives in one task, from its opening to its end."""

    settings: Settings
    metrics: Metrics
    give_up: Callable[[Exception], None]
    error: UnavailableError
    opening: StartupState = field(init=False)
    tries: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        dice = Random()  # noqa: S311  # jitter needs no secrecy
        self.tries = Supervisor(utc_now, lambda: full_jitter(dice.random))
        self.opening = StartupState({USE_CASES: UseCases({StatusService: self._status()})})

    async def run(self, beat: Heartbeat) -> None:
        try:
            async with assemble(self.settings, self.metrics) as services:
                beat()
                self.opening.stands = _state(services)
                await asyncio.Event().wait()  # until the task is cancelled
        except UnavailableError as error:
            self.error = error
            if _comes_back(error, self.settings):
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
            ping_database=self._refused,
            exchange_link=lambda: untried,
            market_facts=lambda: nothing,
            scoring_facts=lambda: None,
            portfolio_facts=self._refused,
            task_facts=self.tries.facts,
            mode=ModeNow(lambda: MarketLevel(status, 0), lambda: True),
        )

    async def _refused(self) -> NoReturn:
        raise self.error


def _state(services: Services) -> Mapping[str, Any]:
    return {
        **state_of(services.my_symbols),
        "mode": services.mode,
        VERSIONS: services.versions,
        CURSORS: Cursors(services.cursor_secret),
    }


def _comes_back(error: UnavailableError, settings: Settings) -> bool:
    """True for a database server; a file that cannot be used needs an operator."""
    is_file = url_of(settings.database.url).get_backend_name() == "sqlite"
    return not is_file and not isinstance(error, _TO_BE_CHANGED)
