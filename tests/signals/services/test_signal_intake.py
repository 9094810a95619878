"""Many signals at once on PostgreSQL: a transaction and an answer for each, nothing but 429."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import httpx2
import pytest
from sqlalchemy import text

from app.foundation.errors import Code, RateLimitedError, ServiceError, UnavailableError
from app.foundation.idempotency import StoredResponse
from app.foundation.sql.database import Database, UnitOfWork
from app.foundation.sql.events import EventRepository
from app.signals.api import routes as signals
from app.signals.domain.evaluated_signal import EvaluatedSignal
from app.signals.domain.models import SignalClaim
from app.signals.services.evaluation import SignalEvaluator
from app.signals.services.service import IntakeResult
from app.signals.storage.signals import SignalRepository
from tests.conftest import PATIENT, MakeDatabase
from tests.support.harness import PREFIX, serve
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import SYMBOLS, WHO, Desk

pytestmark = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
PATH = f"{PREFIX}/signals"


@pytest.fixture
async def desk(database: Database) -> Desk:
    opened = await Desk(database).open()
    informed(opened)
    return opened


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with serve([signals.router], {"my_symbols": desk}) as opened:
        yield opened


def body(number: int, **changed: object) -> dict[str, Any]:
    return {
        "source_name": "desk",
        "source_signal_id": f"s-{number}",
        "signal_type": "momentum",
        "signal_strength": 0.8,
        "confidence_level": 0.9,
        "symbol": SYMBOLS[number % len(SYMBOLS)],
        "signal_direction": "BUY",
        **changed,
    }


async def transactions(desk: Desk) -> int:
    """In how many the signals that are there were written."""
    async with desk.database.read() as unit:
        wanted = text("SELECT count(DISTINCT xmin::text) FROM signals")
        return int((await unit.connection.execute(wanted)).scalar_one())


async def sent(desk: Desk, *claims: SignalClaim) -> list[Any]:
    """What came of claims that were there at the same moment, in their order."""
    outcomes = await asyncio.gather(
        *(desk.signals.submit(one, WHO) for one in claims), return_exceptions=True
    )
    return [one if isinstance(one, BaseException) else one.result for one in outcomes]


async def test_signals_that_come_at_once_are_judged_each_in_its_own_transaction(desk: Desk) -> None:
    taken = await sent(desk, *(claim(symbol) for symbol in SYMBOLS[:48]))
    assert [one.evaluated.signal.claim.symbol for one in taken] == [*SYMBOLS[:48]], "each its own"
    assert {len(one.evaluated.verdict.votes) for one in taken} == {4 + 1}
    assert (await desk.signals.statistics(1)).counts.total == 48
    assert await transactions(desk) == 48
    async with desk.database.read() as unit:
        numbers = [one.seq for one in await unit.get(EventRepository).after(0, 100)]
    assert numbers == [*range(1, 49)], "as many events, without a gap"


async def test_too_many_at_once_are_taken_or_sent_away_and_never_told_of_an_outage(
    desk: Desk,
) -> None:
    desk.signals = replace(desk.signals, max_waiting=6)
    found = await sent(desk, *(claim(symbol) for symbol in SYMBOLS[:15]))
    assert Counter(type(one).__name__ for one in found) == {
        "IntakeResult": 10,
        "RateLimitedError": 5,
    }
    async with serve([signals.router], {"my_symbols": desk}) as client:
        answers = await asyncio.gather(*(client.post(PATH, json=body(at)) for at in range(40)))
    codes = Counter(one.status_code for one in answers)
    assert codes.keys() <= {201, 429}
    assert all(int(one.headers["retry-after"]) > 0 for one in answers if one.status_code == 429)
    assert (await desk.signals.statistics(1)).counts.total == 10 + codes[201]


async def test_each_of_many_has_an_answer_or_an_error_of_its_own(desk: Desk) -> None:
    await sent(desk, claim(SYMBOLS[9], source_id="9"))
    over = desk.now - timedelta(minutes=1)
    found = await sent(
        desk,
        claim("NOPEUSDT", source_id="2"),
        claim(SYMBOLS[3], source_id="3", expires_at=over),
        claim(SYMBOLS[3], source_id="4"),
        claim(SYMBOLS[9], source_id="9"),
        claim(SYMBOLS[5]),
        claim(SYMBOLS[5]),
    )
    said = [one.code if isinstance(one, ServiceError) else one.is_new for one in found]
    unknown, expired = Code.SYMBOL_UNKNOWN, Code.SIGNAL_EXPIRED
    assert said == [unknown, expired, True, False, True, True]
    assert (await desk.signals.statistics(1)).counts.total == 4
    (refused,) = await sent(desk, claim(SYMBOLS[9], source_id="9", strength=0.81))
    assert refused.code is Code.SIGNAL_CONFLICT
    assert refused.facts["signal_id"] == found[3].evaluated.signal.signal_id


async def test_of_one_name_at_once_one_is_new_and_all_get_the_same_signal(desk: Desk) -> None:
    found = await sent(desk, *(claim(SYMBOLS[1], source_id="1") for _ in range(12)))
    assert sorted(one.is_new for one in found) == [False] * 11 + [True]
    assert len({one.evaluated.signal.signal_id for one in found}) == 1
    assert (await desk.signals.statistics(1)).counts.total == 1


async def test_of_one_key_at_once_all_hear_the_first_answer_and_a_refusal_gives_it_free(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    def send(key: str, **changed: object) -> Any:
        changed = {"source_signal_id": None, **changed}
        return client.post(PATH, json=body(1, **changed), headers={"Idempotency-Key": key})

    same = await asyncio.gather(*(send("one") for _ in range(6)), send("two"))
    assert {one.status_code for one in same} == {201}
    assert len({one.content for one in same[:6]}) == 1
    assert sum("idempotency-replayed" in one.headers for one in same[:6]) == 5
    assert same[6].json()["signal_id"] != same[0].json()["signal_id"]
    other = await send("one", signal_strength=0.9)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert (await send("three", symbol="NOPEUSDT")).status_code == 422
    assert (await send("three")).status_code == 201, "the refused one has left the key free"
    assert (await desk.signals.statistics(1)).counts.total == 3


async def test_one_that_breaks_the_judges_takes_nobody_with_it(desk: Desk) -> None:
    class Stumbling(SignalEvaluator):
        def evaluate(self, signal: Any, *given: Any) -> EvaluatedSignal:
            if signal.claim.symbol == SYMBOLS[3]:
                raise ZeroDivisionError
            return super().evaluate(signal, *given)

    desk.signals = replace(desk.signals, evaluator=Stumbling())
    found = await sent(desk, *(claim(symbol) for symbol in SYMBOLS[:6]))
    assert [at for at, one in enumerate(found) if isinstance(one, ZeroDivisionError)] == [3]
    assert (await desk.signals.statistics(1)).counts.total == 5


async def test_C12_a_name_that_another_process_takes_in_the_same_moment_is_its(
    desk: Desk, database: Database
) -> None:
    """The second one waits in its INSERT for the first, and then finds that one's signal."""
    theirs = (await desk.signals.submit(claim(SYMBOLS[1], source_id="else"), WHO)).result
    assert theirs is not None
    twin = replace(theirs.evaluated.signal, signal_id="twin", claim=claim(source_id="one"))
    async with database.write() as unit:
        assert await unit.get(SignalRepository).add([replace(theirs.evaluated, signal=twin)]) == {
            "twin"
        }
        late = asyncio.ensure_future(desk.signals.submit(claim(source_id="one"), WHO))
        while not await _waits(database):
            await asyncio.sleep(0.01)
    taken = (await late).result
    assert taken is not None
    assert (taken.is_new, taken.evaluated.signal.signal_id) == (False, "twin")


async def _waits(database: Database) -> bool:
    async with database.read() as unit:
        wanted = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool((await unit.connection.execute(wanted)).scalar_one())


async def test_without_a_free_connection_more_is_too_much_and_no_outage(
    desk: Desk, database_url: str, make_database: MakeDatabase
) -> None:
    small = make_database(database_url, **{**PATIENT, "pool_size": 1, "pool_wait_s": 0.01})
    await small.open()
    crowded = replace(desk.signals, idempotency=replace(desk.signals.idempotency, database=small))
    async with small.write():
        with pytest.raises(RateLimitedError) as refused:
            await crowded.submit(claim(), WHO)
    assert (refused.value.code, bool(refused.value.retry_after_s)) == (Code.RATE_LIMITED, True)
    assert isinstance(refused.value, ServiceError)
    await small.close()


@dataclass(frozen=True)
class Key:
    key: str
    fingerprint: str = "of the request"


class Losing:
    """A database whose connection is lost after each commit."""

    def __init__(self, database: Database) -> None:
        self.write = database.write
        self._run = database.run

    async def run(self, closure: Callable[[UnitOfWork], Awaitable[Any]]) -> Any:
        await self._run(closure)
        raise UnavailableError(Code.DATABASE_UNAVAILABLE, "lost")


async def test_an_answer_that_was_lost_on_its_way_is_looked_up_under_its_key(
    desk: Desk, database: Database
) -> None:
    def render(taken: IntakeResult) -> StoredResponse:
        return StoredResponse(201, {}, taken.evaluated.signal.signal_id.encode())

    lossy = cast("Database", Losing(database))
    losing = replace(desk.signals, idempotency=replace(desk.signals.idempotency, database=lossy))
    keyed, keyless = await asyncio.gather(
        losing.submit(claim(SYMBOLS[1]), replace(WHO, idempotency_key=Key("k")), render),
        losing.submit(claim(SYMBOLS[2]), WHO, render),
        return_exceptions=True,
    )
    assert isinstance(keyless, UnavailableError)
    assert not isinstance(keyed, BaseException)
    assert (keyed.is_replay, keyed.answer is not None) == (False, True)
    again = await desk.signals.submit(
        claim(SYMBOLS[1]), replace(WHO, idempotency_key=Key("k")), render
    )
    assert (again.is_replay, again.answer) == (True, keyed.answer)
