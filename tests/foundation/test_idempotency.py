"""One effect per key: replays, races, other bodies, failures and claims left behind."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import text

from app.foundation.errors import (
    Code,
    ConflictError,
    RateLimitedError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.idempotency import Command, CommandResult, StoredResponse
from app.foundation.sql import idempotency
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.idempotency import IdempotencyRepository
from app.portfolio.domain.controls import Switch
from app.portfolio.services.views import MemberView
from tests.support.trading_desk import SYMBOLS, Desk

T = TypeVar("T")


@dataclass(frozen=True)
class Key:
    key: str
    fingerprint: str


def rendered(view: MemberView) -> StoredResponse:
    return StoredResponse(
        201, {"ETag": '"x"'}, f"{view.member.symbol} {view.member.rank} é".encode()
    )


def command(key: str = "k1", fingerprint: str = "f1") -> Command:
    return Command("tester", "request", idempotency_key=Key(key, fingerprint))


def told(switch: Switch) -> StoredResponse:
    return StoredResponse(200, {}, f"{switch.enabled} {switch.reason}".encode())


class LosesTheConnection:
    """A database that is lost at the end of a transaction, after the commit or before it."""

    def __init__(self, database: Database, *, committed: bool) -> None:
        self._database, self._committed = database, committed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def run(self, closure: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        async def lost(unit: UnitOfWork) -> T:
            done = await closure(unit)
            if not self._committed:
                raise UnavailableError(Code.DATABASE_UNAVAILABLE, "lost before the commit")
            return done

        await self._database.run(lost)
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "lost after the commit")


async def switch(desk: Desk, who: Command, reason: str = "x") -> CommandResult[Switch]:
    return await desk.controls.switch(False, reason, who, told)


async def add(desk: Desk, who: Command, symbol: str = SYMBOLS[9]) -> CommandResult[MemberView]:
    return await desk.portfolio.add(symbol, "once", who, rendered)


async def test_C02_the_same_key_gives_the_stored_answer_byte_for_byte(desk: Desk) -> None:
    await desk.filled(3)
    first = await add(desk, command())
    assert first.answer is not None
    assert not first.is_replay
    desk.score({})
    second = await add(desk, command())
    assert second.is_replay
    assert second.answer == first.answer
    assert (await desk.portfolio.view()).portfolio.version == 2
    assert len(await desk.queries.history(None, 99)) == 6


async def test_C02_of_many_at_once_exactly_one_has_an_effect(desk: Desk) -> None:
    await desk.filled(3)
    waits: list[float | None] = []

    async def attempt() -> StoredResponse | Code | None:
        try:
            return (await add(desk, command())).answer
        except ConflictError as e:
            waits.append(e.retry_after_s)
            return e.code

    answers = await asyncio.gather(*(attempt() for _ in range(40)))
    bodies = {one.body for one in answers if isinstance(one, StoredResponse)}
    codes = {one for one in answers if isinstance(one, Code)}
    assert len(bodies) == 1
    assert codes <= {Code.IDEMPOTENCY_IN_PROGRESS}
    assert set(waits) <= {1.0}
    assert (await desk.portfolio.view()).portfolio.version == 2
    assert (await add(desk, command())).is_replay


async def test_C03_another_request_under_the_key_is_refused(desk: Desk) -> None:
    await desk.filled(3)
    await add(desk, command())
    before = (await desk.portfolio.view()).portfolio
    with pytest.raises(RefusedError) as caught:
        await add(desk, command(fingerprint="f2"), SYMBOLS[10])
    assert caught.value.code is Code.IDEMPOTENCY_KEY_REUSED
    assert (await desk.portfolio.view()).portfolio == before


async def test_a_failure_gives_the_key_free(desk: Desk) -> None:
    await desk.filled(3)
    for _ in range(2):
        with pytest.raises(ServiceError) as caught:
            await add(desk, command(), SYMBOLS[0])
        assert caught.value.code is Code.SYMBOL_ALREADY_IN_PORTFOLIO
    assert not (await add(desk, command())).is_replay


async def test_a_claim_left_behind_is_taken_over_when_its_lock_runs_out(desk: Desk) -> None:
    await desk.filled(3)
    async with desk.database.write() as unit:
        await unit.get(IdempotencyRepository).claim("tester", "k1", "", "f1", desk.now)
    with pytest.raises(ConflictError) as caught:
        await add(desk, command())
    assert caught.value.code is Code.IDEMPOTENCY_IN_PROGRESS
    desk.now += timedelta(seconds=31)
    desk.score({})
    assert not (await add(desk, command())).is_replay
    assert (await add(desk, command())).is_replay


async def test_one_that_slept_through_its_lock_finds_the_answer_of_the_other(desk: Desk) -> None:
    """The claim of a slow request is taken over: it must not have a second effect."""
    await desk.filled(3)
    idempotency = desk.portfolio.idempotency
    key = Key("k1", "f1")
    async with desk.database.write() as unit:
        await idempotency._claim(unit, "tester", key)
    desk.now += timedelta(seconds=31)
    desk.score({})
    winner = await add(desk, command())

    async def never(unit: UnitOfWork) -> MemberView:
        raise AssertionError("a second effect")

    late = await desk.database.run(
        lambda unit: idempotency._run_in(unit, "tester", key, never, rendered, is_ours=True)
    )
    assert late.is_replay
    assert late.answer == winner.answer


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_a_key_whose_lock_runs_out_during_its_change_is_not_taken_over(
    desk: Desk,
) -> None:
    await desk.filled(3)
    idempotency, key = desk.portfolio.idempotency, Key("k1", "f1")
    async with desk.database.write() as unit:
        await idempotency._claim(unit, "tester", key)
    desk.now += timedelta(seconds=29)
    others: list[asyncio.Task[CommandResult[Switch]]] = []

    async def change(unit: UnitOfWork) -> Switch:
        desk.now += timedelta(seconds=2)
        others.append(asyncio.ensure_future(switch(desk, command())))
        while not await _waits(desk.database) and not others[0].done():
            await asyncio.sleep(0.01)
        return Switch(enabled=False, reason="late")

    async with desk.database.write() as unit:
        late = await idempotency._run_in(unit, "tester", key, change, told, is_ours=True)
    other = await others[0]
    assert other.is_replay
    assert other.answer == late.answer
    assert (await desk.portfolio.view()).portfolio.version == 1


async def _waits(database: Database) -> bool:
    async with database.read() as unit:
        wanted = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool((await unit.connection.execute(wanted)).scalar_one())


async def test_K12_a_crash_before_the_commit_keeps_neither_effect_nor_answer(desk: Desk) -> None:
    await desk.filled(3)

    def broken(view: MemberView) -> StoredResponse:
        raise RuntimeError("the answer cannot be made")

    with pytest.raises(RuntimeError):
        await desk.portfolio.add(SYMBOLS[9], "once", command(), broken)
    assert (await desk.portfolio.view()).portfolio.version == 1
    assert not (await add(desk, command())).is_replay


async def test_without_a_key_the_answer_is_not_stored(desk: Desk) -> None:
    await desk.filled(3)
    done = await desk.portfolio.add(SYMBOLS[9], "x", Command("t", "r"), rendered)
    assert done.answer is not None
    assert done.result is not None


async def test_answers_are_stored_for_a_day_and_deleted_after_two(desk: Desk) -> None:
    await desk.filled(3)
    first = await add(desk, command())
    desk.now += timedelta(hours=25)
    assert await desk.portfolio.idempotency.forget_old() == 0
    assert (await add(desk, command())).answer == first.answer

    desk.now += timedelta(hours=25)
    assert await desk.portfolio.idempotency.forget_old() == 1
    with pytest.raises(ConflictError) as refusal:
        await add(desk, command())
    assert refusal.value.code is Code.SYMBOL_ALREADY_IN_PORTFOLIO


async def test_C02_many_changes_at_once_under_one_key_are_one(desk: Desk) -> None:
    await desk.filled(3)

    async def attempt() -> bytes | Code:
        try:
            done = await switch(desk, command())
        except ConflictError as e:
            return e.code
        assert done.answer is not None
        return done.answer.body

    answers = set(await asyncio.gather(*(attempt() for _ in range(10))))
    assert answers - {Code.IDEMPOTENCY_IN_PROGRESS} == {b"False x"}
    assert (await desk.portfolio.view()).portfolio.version == 2
    if desk.database.commits is not None:
        assert answers == {b"False x"}  # whoever comes second waits for its turn to write


async def test_where_one_process_writes_a_change_under_a_key_is_one_transaction(
    desk: Desk,
) -> None:
    await desk.filled(3)
    before = desk.database.commits
    assert not (await switch(desk, command())).is_replay
    if before is not None:
        assert desk.database.commits == before + 1
    assert (await switch(desk, command())).is_replay
    with pytest.raises(RefusedError) as caught:
        await switch(desk, command(fingerprint="f2"), "y")
    assert caught.value.code is Code.IDEMPOTENCY_KEY_REUSED


async def test_a_claimed_key_is_not_taken_by_a_change_without_preparation(
    desk: Desk,
) -> None:
    await desk.filled(3)
    async with desk.database.write() as unit:
        await desk.portfolio.idempotency._claim(unit, "tester", Key("k1", "f1"))
    with pytest.raises(ConflictError) as caught:
        await switch(desk, command())
    assert caught.value.code is Code.IDEMPOTENCY_IN_PROGRESS
    assert (await desk.portfolio.view()).portfolio.version == 1


@pytest.mark.parametrize("committed", [True, False])
async def test_B03_the_outcome_of_a_lost_commit_is_read_by_its_key(
    desk: Desk, committed: bool
) -> None:
    await desk.filled(3)
    lossy: Any = LosesTheConnection(desk.database, committed=committed)
    whole, desk.controls = (
        desk.controls,
        replace(desk.controls, idempotency=replace(desk.controls.idempotency, database=lossy)),
    )
    if committed:
        done = await switch(desk, command())
        assert done.answer is not None
        assert done.answer.body == b"False x"
    else:
        with pytest.raises(UnavailableError):
            await switch(desk, command())
    desk.controls = whole
    assert (await switch(desk, command())).is_replay is committed


async def test_E05_a_new_key_beyond_the_cap_is_refused_and_has_no_effect(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEYS", 1)
    await desk.filled(3)
    await add(desk, command())
    before = (await desk.portfolio.view()).portfolio
    with pytest.raises(RateLimitedError) as caught:
        await add(desk, command("k2", "f2"), SYMBOLS[10])
    assert caught.value.code is Code.RATE_LIMITED
    assert (await desk.portfolio.view()).portfolio == before
    assert (await add(desk, command())).is_replay
    await add(desk, replace(command(), idempotency_key=None), SYMBOLS[10])  # without a key
