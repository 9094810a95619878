"""Health names every component, its cause and what happens next."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from app.alerts.services.monitor import AlertingHeartbeat
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.health import Mode, TaskFacts
from app.market.domain.models import ExchangeLink, LinkState
from app.market.services.health_facts import MarketFacts
from app.market.services.service_mode import CACHE_S, CachedMarketLevel, CurrentMode, MarketLevel
from app.operations.services.health import StatusService
from app.operations.services.health_checks import ComponentState, PortfolioStatus, ScoringFacts
from app.signals.domain.track_record import SignalQueue

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
FRESH = MarketFacts(
    data_source=DataSource.SANDBOX,
    data_status=DataStatus.FRESH,
    as_of=NOW,
    contracts=556,
    eligible=250,
    stale_symbols=0,
    stage="complete",
    done=0,
    total=0,
    ages_s={},
)
BOARD = ScoringFacts("run-1", NOW, NOW, 250, 306, DataStatus.FRESH)
LINK = ExchangeLink(LinkState.UP, NOW, None, None, NOW, None)


class World:
    """Facts of the components; each test changes one of them."""

    def __init__(self) -> None:
        self.now = NOW
        self.step = timedelta()  # by which the wall clock was set
        self.database_error: UnavailableError | None = None
        self.link = LINK
        self.market = FRESH
        self.board: ScoringFacts | None = BOARD
        self.tasks: tuple[TaskFacts, ...] = ()
        self.pulse: AlertingHeartbeat | None = None

    def monotonic(self) -> float:
        return (self.now - self.step - NOW).total_seconds()

    def set_clock(self, step: timedelta) -> None:
        self.now += step
        self.step += step

    async def ping(self) -> None:
        if self.database_error:
            raise self.database_error

    async def signals(self) -> SignalQueue:
        return SignalQueue(2, NOW, 1, 7)

    async def portfolio(self) -> PortfolioStatus:
        return PortfolioStatus(3, 10, 10, 0)

    def level(self) -> MarketLevel:
        market = self.market
        return MarketLevel(market.data_status, market.stale_symbols, market.is_clock_safe)

    def status(self) -> StatusService:
        return StatusService(
            started_at=NOW,
            version="1",
            clock=lambda: self.now,
            ping_database=self.ping,
            exchange_link=lambda: self.link,
            market_facts=lambda: self.market,
            scoring_facts=lambda: self.board,
            portfolio_facts=self.portfolio,
            signal_queue=self.signals,
            task_facts=lambda: self.tasks,
            mode=CurrentMode(self.level, lambda: self.database_error is not None),
            pulse=self.pulse,
        )


async def test_all_well_is_up_and_normal() -> None:
    health = await World().status().health()

    assert health.status is ComponentState.UP
    assert health.mode is Mode.NORMAL
    assert [c.name for c in health.components] == ["database", "exchange", "market_data", "scoring"]


async def test_security_events_that_were_deleted_for_their_number_degrade_the_health() -> None:
    world = World()
    trimmed = NOW - timedelta(hours=1)

    async def trimmed_at() -> datetime | None:
        return trimmed

    status = replace(world.status(), trimmed_at=trimmed_at)
    health = await status.health()
    part = health.components[-1]
    assert (health.status, part.name, part.state) == (
        ComponentState.DEGRADED, "security_events", ComponentState.DEGRADED,
    )  # fmt: skip
    assert part.detail is not None
    assert trimmed.strftime("%F %T") in part.detail
    world.now = NOW + timedelta(days=7)
    assert (await status.health()).status is ComponentState.UP


async def test_B01_a_database_that_is_away_is_named_and_its_since_stays() -> None:
    world = World()
    world.database_error = UnavailableError(Code.DATABASE_UNAVAILABLE, "no connection")
    status = world.status()

    first = await status.ready()
    world.now = NOW + timedelta(minutes=5)
    second = await status.ready()
    health = await status.health()

    assert first.state is ComponentState.DOWN
    assert first.cause == "database_unavailable"
    assert second.since == NOW
    assert health.mode is Mode.FROZEN

    world.database_error = None
    assert (await status.ready()).state is ComponentState.UP
    world.database_error = UnavailableError(Code.DATABASE_UNAVAILABLE, "again")
    assert (await status.ready()).since == world.now


@pytest.mark.parametrize("cause", ["exchange_unavailable", "exchange_timeout"])
async def test_an_exchange_that_is_away_gives_cause_and_next_try(cause: str) -> None:
    world = World()
    world.link = ExchangeLink(LinkState.DOWN, NOW, cause, "refused", None, 12.0)
    world.market = replace(FRESH, data_status=DataStatus.UNAVAILABLE)

    health = await world.status().health()
    exchange = next(c for c in health.components if c.name == "exchange")

    assert exchange.cause == cause
    assert exchange.next_step == "retries in 12 s"
    assert health.status is ComponentState.DOWN
    assert health.mode is Mode.FROZEN


async def test_the_first_fill_and_the_missing_board_are_starting_not_down() -> None:
    world = World()
    world.market = replace(FRESH, stage="books", done=3, total=60)
    world.board = None

    health = await world.status().health()
    states = {c.name: (c.state, c.detail) for c in health.components}

    assert states["market_data"] == (ComponentState.STARTING, "first fill: books 3/60")
    assert states["scoring"][0] is ComponentState.STARTING


async def test_stale_symbols_degrade_and_stale_data_freezes() -> None:
    world = World()
    world.market = replace(FRESH, stale_symbols=2)
    assert (await world.status().health()).mode is Mode.DEGRADED

    world.market = replace(FRESH, data_status=DataStatus.STALE)
    health = await world.status().health()
    assert health.mode is Mode.FROZEN
    assert health.status is ComponentState.DEGRADED


@pytest.mark.parametrize(
    ("board", "cause"),
    [
        (replace(BOARD, data_status=DataStatus.STALE), "market_data_stale"),
        (replace(BOARD, scored=0, unavailable=556), "no_symbol_scored"),
    ],
)
async def test_an_unusable_board_is_not_up(board: ScoringFacts, cause: str) -> None:
    world = World()
    world.board = board

    health = await world.status().health()
    scoring = next(c for c in health.components if c.name == "scoring")

    assert (scoring.state, scoring.cause) == (ComponentState.DEGRADED, cause)
    assert scoring.last_success_at == NOW
    assert scoring.next_step
    assert health.status is ComponentState.DEGRADED


async def test_a_failing_task_is_shown_with_its_error() -> None:
    world = World()
    world.tasks = (
        TaskFacts("scoring", True, NOW, "market_data_stale", 3),
        TaskFacts("books", True, NOW, None, 0),
        TaskFacts("gone", False, None, None, 0),
    )

    health = await world.status().health()
    states = {c.name: c.state for c in health.components}
    causes = {c.name: c.cause for c in health.components}

    assert causes["task:scoring"] == "market_data_stale"
    assert causes["task:books"] is None
    assert states["task:scoring"] is ComponentState.DEGRADED
    assert states["task:books"] is ComponentState.UP
    assert states["task:gone"] is ComponentState.DOWN


async def test_E12_a_silent_task_is_reported_with_its_next_step() -> None:
    world = World()
    world.tasks = tuple(
        TaskFacts(name, True, NOW, None, 0, silent_s, 120.0)
        for name, silent_s in (("feed", 60.0), ("events", 61.0), ("quotes", 125.0))
    )
    found = {c.name: c for c in (await world.status().health()).components}
    assert (found["task:feed"].state, found["task:feed"].cause) == (ComponentState.UP, None)
    late = found["task:events"]
    assert (late.state, late.cause) == (ComponentState.DEGRADED, "task_silent")
    assert late.detail == "no heartbeat for 61 s"
    assert late.next_step == "is restarted in 59 s"
    gone = found["task:quotes"]
    assert (gone.state, gone.cause) == (ComponentState.DOWN, "task_silent")
    assert gone.next_step == "is cancelled; if it does not end, restart the process"


async def test_status_gathers_the_facts() -> None:
    status = await World().status().status()

    assert status.portfolio.size == 10
    assert status.scoring == BOARD
    assert status.mode is Mode.NORMAL


@pytest.mark.parametrize(
    ("status", "stale", "is_database_down", "mode"),
    [
        (DataStatus.FRESH, 0, False, Mode.NORMAL),
        (DataStatus.FRESH, 3, False, Mode.DEGRADED),
        (DataStatus.STALE, 0, False, Mode.FROZEN),
        (DataStatus.UNAVAILABLE, 3, False, Mode.FROZEN),
        (DataStatus.FRESH, 0, True, Mode.FROZEN),
    ],
)
async def test_the_mode_follows_market_and_database(
    status: DataStatus, stale: int, is_database_down: bool, mode: Mode
) -> None:
    world = World()
    world.market = replace(world.market, data_status=status, stale_symbols=stale)
    if is_database_down:
        world.database_error = UnavailableError(Code.DATABASE_UNAVAILABLE, "gone")
    assert (await world.status().health()).mode is mode


async def test_T01_without_the_exchanges_time_health_is_degraded_and_nothing_is_decided() -> None:
    world = World()
    world.market = replace(world.market, is_clock_safe=False)
    found = await world.status().health()
    assert found.mode is Mode.FROZEN
    market = next(one for one in found.components if one.name == "market_data")
    assert (market.state, market.cause) == (ComponentState.DEGRADED, "clock_unsafe")


class Counting:
    """A market that says how often its stale symbols were counted."""

    status = DataStatus.FRESH
    stale = counted = 0

    def stale_symbols(self) -> int:
        self.counted += 1
        return self.stale

    def level_with(self, stale_symbols: int) -> MarketLevel:
        return MarketLevel(self.status, stale_symbols)


def test_stale_symbols_are_counted_once_a_second_and_a_freeze_at_once() -> None:
    market, clock = Counting(), ModeClock()
    told = CurrentMode(CachedMarketLevel(market, clock))
    assert {told() for _ in range(100)} == {Mode.NORMAL}
    market.stale = 1
    clock.now += CACHE_S
    assert told() is Mode.NORMAL
    market.status = DataStatus.STALE
    assert told() is Mode.FROZEN
    market.status = DataStatus.FRESH
    clock.now += 0.001
    assert told() is Mode.DEGRADED
    assert market.counted == 2


@dataclass
class ModeClock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now
