"""Each change of the mode is one event, whatever happens around it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, UnavailableError
from app.foundation.events import EventTopic
from app.foundation.health import Mode
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.events import EventRepository
from app.market.domain.events import ModeChanged
from app.market.services.service_mode import (
    Cause,
    CurrentMode,
    MarketLevel,
    ModePublisher,
    determine_cause,
    determine_mode,
)
from app.operations.domain.event_codec import decode_event

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FRESH = MarketLevel(DataStatus.FRESH, 0)
GAPS = MarketLevel(DataStatus.FRESH, 3)
STALE = MarketLevel(DataStatus.STALE, 3)
NOTHING = MarketLevel(DataStatus.UNAVAILABLE, 0)
TIMELESS = MarketLevel(DataStatus.FRESH, 0, is_clock_safe=False)


@dataclass
class World:
    """What a watch sees, each look a second after the last one."""

    database: Database
    level: MarketLevel = NOTHING
    is_down: bool = False
    halted: Cause | None = None
    is_owner: bool = True
    now: datetime = NOW
    watch: ModePublisher = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new process, or a new owner."""
        self.watch = ModePublisher(
            self.database,
            CurrentMode(lambda: self.level, lambda: self.is_down, lambda: self.halted).state,
            self._fence,
            lambda: self.now,
            lambda: str(uuid4()),
        )

    async def _fence(self, unit: UnitOfWork) -> None:
        del unit
        if not self.is_owner:
            raise UnavailableError(Code.MARKET_DATA_STALE, "another process owns the feed")

    async def see(self, *levels: MarketLevel) -> None:
        for self.level in levels:
            self.now += timedelta(seconds=1)
            await self.watch.check()

    async def told(self) -> list[ModeChanged]:
        async with self.database.read() as unit:
            records = await unit.get(EventRepository).after(0, 99)
        found = [decode_event(one) for one in records if one.topic is EventTopic.MODE]
        return [one for one in found if isinstance(one, ModeChanged)]

    async def modes(self) -> list[tuple[str, str, str]]:
        return [(one.was, one.mode, one.cause) for one in await self.told()]


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


async def test_each_change_is_told_once_with_its_cause_however_often_one_looks(
    world: World,
) -> None:
    await world.see(NOTHING, NOTHING, FRESH, FRESH, FRESH, GAPS, GAPS, STALE, STALE, FRESH)
    assert await world.modes() == [
        ("FROZEN", "NORMAL", "all_fresh"),
        ("NORMAL", "DEGRADED", "symbols_stale"),
        ("DEGRADED", "FROZEN", "market_stale"),
        ("FROZEN", "NORMAL", "all_fresh"),
    ]
    first, second = (await world.told())[:2]
    assert first.occurred_at == NOW + timedelta(seconds=3)
    assert (first.stale_symbols, second.stale_symbols) == (0, 3)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_restart_repeats_nothing_and_tells_what_has_changed_meanwhile(
    world: World,
) -> None:
    await world.see(FRESH)
    world.restart()
    await world.see(FRESH, FRESH)
    assert await world.modes() == [("FROZEN", "NORMAL", "all_fresh")]
    world.restart()
    await world.see(NOTHING, FRESH)
    assert (await world.modes())[1:] == [
        ("NORMAL", "FROZEN", "market_unavailable"),
        ("FROZEN", "NORMAL", "all_fresh"),
    ]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_what_came_about_without_the_database_is_told_once_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.see(FRESH)
    real = Database.run

    async def gone(*_: object) -> None:
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "gone")

    monkeypatch.setattr(Database, "run", gone)
    world.is_down = True
    await world.see(FRESH, FRESH)
    world.is_down = False
    await world.see(FRESH)

    async def unheard(database: Database, closure: object) -> None:
        await real(database, closure)  # type: ignore[arg-type]  # as it is given
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "nobody knows whether it was committed")

    monkeypatch.setattr(Database, "run", unheard)
    await world.see(FRESH)
    monkeypatch.setattr(Database, "run", real)
    await world.see(FRESH, FRESH)
    assert (await world.modes())[1:] == [
        ("NORMAL", "FROZEN", "database_unavailable"),
        ("FROZEN", "NORMAL", "all_fresh"),
    ]
    times = [one.occurred_at for one in await world.told()]
    assert times[1:] == [NOW + timedelta(seconds=2), NOW + timedelta(seconds=4)]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_B08_that_it_halted_is_told_once_there_is_room_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.see(FRESH)
    real = Database.run

    async def full(*_: object) -> None:
        raise UnavailableError(Code.STORAGE_FULL, "the disk is full")

    monkeypatch.setattr(Database, "run", full)
    world.halted = Cause.STORAGE_FULL
    await world.see(FRESH, STALE)
    monkeypatch.setattr(Database, "run", real)
    world.halted = None
    await world.see(FRESH)
    assert (await world.modes())[1:] == [
        ("NORMAL", "HALTED", "storage_full"),
        ("HALTED", "NORMAL", "all_fresh"),
    ]
    assert (await world.told())[1].occurred_at == NOW + timedelta(seconds=2)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_clock_that_is_set_back_hides_no_change(world: World) -> None:
    await world.see(FRESH)
    world.now -= timedelta(hours=1)
    await world.see(STALE)
    assert [mode for _, mode, _ in await world.modes()] == ["NORMAL", "FROZEN"]


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_who_is_no_longer_the_owner_tells_nothing(world: World) -> None:
    world.is_owner = False
    await world.see(FRESH, STALE)
    assert await world.modes() == []


@pytest.mark.parametrize("level", [FRESH, GAPS, STALE, NOTHING, TIMELESS])
@pytest.mark.parametrize("is_down", [False, True])
@pytest.mark.parametrize(
    "halted", [None, Cause.STORAGE_FULL, Cause.DATABASE_LOCKED, Cause.DATABASE_READ_ONLY]
)
def test_the_cause_goes_with_the_mode(
    level: MarketLevel, *, is_down: bool, halted: Cause | None
) -> None:
    mode = determine_mode(level, is_database_down=is_down, halted=halted)
    cause = determine_cause(level, is_database_down=is_down, halted=halted)
    assert (cause is halted) is (mode is Mode.HALTED)
    if mode is Mode.HALTED:
        return
    assert (cause is Cause.ALL_FRESH) is (mode is Mode.NORMAL)
    assert (cause is Cause.SYMBOLS_STALE) is (mode is Mode.DEGRADED)
    assert (cause is Cause.DATABASE_UNAVAILABLE) is is_down
    assert (cause is Cause.CLOCK_UNSAFE) is (level is TIMELESS and not is_down)
