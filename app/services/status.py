"""Is it alive, can it serve, may it decide: what each component says of itself."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.domain.errors import Code, ServiceError
from app.domain.market import DataSource, DataStatus
from app.services.mode import MarketLevel, Mode, mode_of
from app.services.ports import Clock, ExchangeLink, LinkState

_NOBODY_SCORED: Final = "nobody_scored"


class ComponentState(StrEnum):
    UP = "up"
    STARTING = "starting"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """One component: its state, since when, why, and what happens next."""

    name: str
    state: ComponentState
    since: datetime | None
    cause: str | None
    detail: str | None
    last_success: datetime | None
    next_step: str | None


@dataclass(frozen=True, slots=True)
class Health:
    status: ComponentState
    mode: Mode
    components: tuple[ComponentHealth, ...]
    data_source: DataSource
    data_status: DataStatus
    as_of: datetime | None


@dataclass(frozen=True, slots=True)
class MarketFacts:
    """What the market data service says of itself."""

    data_source: DataSource
    data_status: DataStatus
    as_of: datetime | None
    contracts: int
    eligible: int
    stale_symbols: int
    stage: str  # the step of the first fill that runs, or "complete"
    done: int
    total: int
    ages_s: Mapping[str, float | None]  # source -> age of its oldest fresh-kept value


@dataclass(frozen=True, slots=True)
class ScoringFacts:
    run_id: str
    as_of: datetime
    calculated_at: datetime
    scored: int
    unavailable: int
    data_status: DataStatus


@dataclass(frozen=True, slots=True)
class PortfolioFacts:
    version: int
    size: int
    max_size: int
    cash_u: int


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One background task: when it last succeeded and what went wrong since."""

    name: str
    running: bool
    last_success: datetime | None
    last_error: str | None
    failures: int


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    started_at: datetime
    version: str
    mode: Mode
    market: MarketFacts
    scoring: ScoringFacts | None
    portfolio: PortfolioFacts
    tasks: tuple[TaskFacts, ...]


@dataclass(slots=True)
class Status:
    """Asks each component; a component that cannot answer is down, never left out."""

    started_at: datetime
    version: str
    clock: Clock
    ping_database: Callable[[], Awaitable[None]]
    exchange_link: Callable[[], ExchangeLink]
    market_facts: Callable[[], MarketFacts]
    scoring_facts: Callable[[], ScoringFacts | None]
    portfolio_facts: Callable[[], Awaitable[PortfolioFacts]]
    task_facts: Callable[[], tuple[TaskFacts, ...]]
    _down_since: dict[str, datetime] = field(default_factory=dict)

    async def ready(self) -> ComponentHealth:
        """Can reads be served: does the database answer."""
        return await self._database()

    def is_database_down(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return "database" in self._down_since

    async def health(self) -> Health:
        market = self.market_facts()
        components = (
            await self._database(),
            self._exchange(),
            self._market(market),
            self._scoring(),
            *(self._task(task) for task in self.task_facts()),
        )
        return Health(
            status=_worst(components),
            mode=mode_of(
                MarketLevel(market.data_status, market.stale_symbols),
                is_database_down=self.is_database_down(),
            ),
            components=components,
            data_source=market.data_source,
            data_status=market.data_status,
            as_of=market.as_of,
        )

    async def status(self) -> ServiceStatus:
        health = await self.health()
        return ServiceStatus(
            started_at=self.started_at,
            version=self.version,
            mode=health.mode,
            market=self.market_facts(),
            scoring=self.scoring_facts(),
            portfolio=await self.portfolio_facts(),
            tasks=self.task_facts(),
        )

    async def _database(self) -> ComponentHealth:
        try:
            await self.ping_database()
        except ServiceError as error:
            return ComponentHealth(
                "database",
                ComponentState.DOWN,
                self._down_since.setdefault("database", self.clock()),
                str(error.code),
                error.detail,
                None,
                "each request tries again; nothing is changed until it answers",
            )
        self._down_since.pop("database", None)
        return ComponentHealth("database", ComponentState.UP, None, None, None, self.clock(), None)

    def _exchange(self) -> ComponentHealth:
        link = self.exchange_link()
        again = None if link.retry_in_s is None else f"tries again in {link.retry_in_s:.0f} s"
        return ComponentHealth(
            "exchange",
            _LINK_STATES[link.state],
            link.since,
            link.cause,
            link.detail,
            link.last_success,
            again if link.state is LinkState.DOWN else None,
        )

    def _market(self, market: MarketFacts) -> ComponentHealth:
        filling = market.stage != "complete"
        state = ComponentState.STARTING if filling else _DATA_STATES[market.data_status]
        detail = (
            f"first fill: {market.stage} {market.done}/{market.total}"
            if filling
            else f"{market.stale_symbols} of {market.contracts} symbols stale"
        )
        return ComponentHealth("market_data", state, None, None, detail, market.as_of, None)

    def _scoring(self) -> ComponentHealth:
        board = self.scoring_facts()
        if board is None:
            return ComponentHealth(
                "scoring", ComponentState.STARTING, None, "no_board_yet", None, None,
                "scores as soon as market data has arrived",
            )  # fmt: skip
        cause = None
        if board.data_status is not DataStatus.FRESH:
            cause = str(Code.MARKET_DATA_STALE)
        elif not board.scored:
            cause = _NOBODY_SCORED
        return ComponentHealth(
            "scoring",
            ComponentState.UP if cause is None else ComponentState.DEGRADED,
            None,
            cause,
            f"run {board.run_id}",
            board.calculated_at,
            None if cause is None else "scores again by itself",
        )

    def _task(self, task: TaskFacts) -> ComponentHealth:
        state = ComponentState.DEGRADED if task.last_error else ComponentState.UP
        next_step = "restarts by itself" if task.last_error else None
        return ComponentHealth(
            f"task:{task.name}",
            state if task.running else ComponentState.DOWN,
            None,
            task.last_error,
            None,
            task.last_success,
            next_step,
        )


_LINK_STATES = {
    LinkState.UNTRIED: ComponentState.STARTING,
    LinkState.UP: ComponentState.UP,
    LinkState.DOWN: ComponentState.DOWN,
}
_DATA_STATES = {
    DataStatus.FRESH: ComponentState.UP,
    DataStatus.STALE: ComponentState.DEGRADED,
    DataStatus.UNAVAILABLE: ComponentState.DOWN,
}
_SEVERITY = (
    ComponentState.UP,
    ComponentState.STARTING,
    ComponentState.DEGRADED,
    ComponentState.DOWN,
)


def _worst(components: tuple[ComponentHealth, ...]) -> ComponentState:
    return max((component.state for component in components), key=_SEVERITY.index)
