"""One effect per key, and the same answer again."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from app.foundation.sql.database import Database
from app.foundation.sql.idempotency import (
    LOCK,
    MAX_KEYS,
    ClaimOutcome,
    IdempotencyRepository,
    KeyClaim,
    ResponseRow,
)
from app.foundation.sql.tables import idempotency_keys
from tests.support.stored_values import T0

_ANSWER = ResponseRow(201, {"etag": '"1"', "content-type": "application/json"}, b'{"a":\xc3\xa9}\0')


async def _claim(
    database: Database, fingerprint: str = "f", later: timedelta = timedelta(), who: str = "me"
) -> KeyClaim:
    async with database.write() as unit:
        return await unit.get(IdempotencyRepository).claim(
            who, "key", "POST /x", fingerprint, T0 + later
        )


async def test_claimed_done_and_replayed(database: Database) -> None:
    assert (await _claim(database)).outcome is ClaimOutcome.CLAIMED
    assert (await _claim(database)).outcome is ClaimOutcome.IN_PROGRESS
    assert (await _claim(database, "other")).outcome is ClaimOutcome.REUSED
    assert (await _claim(database, who="you")).outcome is ClaimOutcome.CLAIMED
    async with database.write() as unit:
        await unit.get(IdempotencyRepository).complete("me", "key", _ANSWER)
    assert await _claim(database) == KeyClaim(ClaimOutcome.REPLAY, _ANSWER)
    assert await _claim(database, later=timedelta(hours=1)) == KeyClaim(
        ClaimOutcome.REPLAY, _ANSWER
    )
    assert (await _claim(database, "other")).outcome is ClaimOutcome.REUSED
    assert (await _claim(database, who="you")).outcome is ClaimOutcome.IN_PROGRESS


async def test_C02_of_many_at_once_one_gets_it(database: Database) -> None:
    claims = await asyncio.gather(*(_claim(database) for _ in range(20)))
    outcomes = [claim.outcome for claim in claims]
    assert outcomes.count(ClaimOutcome.CLAIMED) == 1
    assert outcomes.count(ClaimOutcome.IN_PROGRESS) == 19


@dataclass
class _Crossed:
    """A connection beside which others give the key free, once we have tried to take it."""

    real: AsyncConnection
    times: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def execute(self, statement: Any, given: Any) -> Any:
        done = await self.real.execute(statement, given)
        if statement.is_insert and self.times:
            self.times -= 1
            await IdempotencyRepository(self.real).release("me", "key")
        elif statement.is_select and self.times:
            await IdempotencyRepository(self.real).claim("me", "key", "POST /x", "f", T0)
        return done


@pytest.mark.parametrize(
    ("times", "outcome"), [(1, ClaimOutcome.CLAIMED), (9, ClaimOutcome.IN_PROGRESS)]
)
async def test_a_key_that_is_given_free_between_two_looks_is_taken(
    database: Database, times: int, outcome: ClaimOutcome
) -> None:
    await _claim(database)
    async with database.write() as unit:
        crossed = IdempotencyRepository(cast("AsyncConnection", _Crossed(unit.connection, times)))
        assert (await crossed.claim("me", "key", "POST /x", "f", T0)).outcome is outcome


async def test_C04_a_holder_that_vanished_is_followed_by_one(database: Database) -> None:
    await _claim(database)
    late = LOCK + timedelta(seconds=1)
    claims = await asyncio.gather(*(_claim(database, later=late) for _ in range(5)))
    outcomes = [claim.outcome for claim in claims]
    assert outcomes.count(ClaimOutcome.CLAIMED) == 1
    assert outcomes.count(ClaimOutcome.IN_PROGRESS) == 4


async def test_a_key_without_effect_is_free_again_but_an_answer_stays(database: Database) -> None:
    await _claim(database)
    async with database.write() as unit:
        await unit.get(IdempotencyRepository).release("me", "key")
    assert (await _claim(database, "other")).outcome is ClaimOutcome.CLAIMED
    async with database.write() as unit:
        await unit.get(IdempotencyRepository).complete("me", "key", _ANSWER)
        await unit.get(IdempotencyRepository).release("me", "key")
    assert (await _claim(database, "other")).outcome is ClaimOutcome.REPLAY
    async with database.write() as unit:
        assert await unit.get(IdempotencyRepository).forget(T0) == 0
        assert await unit.get(IdempotencyRepository).forget(T0 + timedelta(seconds=1)) == 1
    assert (await _claim(database)).outcome is ClaimOutcome.CLAIMED


async def test_E05_a_flood_of_keys_ends_at_the_cap_of_its_principal(database: Database) -> None:
    row = {
        "principal": "me",
        "route": "POST /x",
        "fingerprint": "f",
        "state": "running",
        "locked_until": T0 + timedelta(days=2),
        "created_at": T0,
    }
    async with database.write() as unit:
        rows = [{**row, "key": f"flood-{number}"} for number in range(MAX_KEYS - 1)]
        await unit.connection.execute(idempotency_keys.insert(), rows)
    assert (await _claim(database)).outcome is ClaimOutcome.CLAIMED
    async with database.write() as unit:
        repository = unit.get(IdempotencyRepository)
        await repository.complete("me", "key", _ANSWER)
        for _ in range(2):
            refused = await repository.claim("me", "new", "POST /x", "f", T0)
            assert refused == KeyClaim(ClaimOutcome.OVER_CAP)
            assert await repository.answer("me", "new") is None
        others = await repository.claim("you", "new", "POST /x", "f", T0)
        assert others.outcome is ClaimOutcome.CLAIMED
    assert await _claim(database) == KeyClaim(ClaimOutcome.REPLAY, _ANSWER)
    async with database.write() as unit:
        assert await unit.get(IdempotencyRepository).forget(T0 + timedelta(seconds=1)) > 0
    assert (await _claim(database)).outcome is ClaimOutcome.CLAIMED
