"""The portfolio is saved whole, in line, and remembers who was there."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from app.foundation.errors import Code, ConflictError, ServiceError
from app.foundation.sql.database import Database, UnitOfWork
from app.portfolio.domain.models import EMPTY, FULL, Portfolio
from app.portfolio.storage.portfolio import Departure, MembershipStatus, PortfolioRepository
from tests.support.stored_values import LATER, T0, listed, member, portfolio, symbol_id


@pytest.fixture(autouse=True)
async def registry(database: Database) -> None:
    await listed(database, "BTC", "ETH", "XRP", "SOL")


async def _saved(database: Database, old: Portfolio, new: Portfolio) -> Portfolio:
    async with database.write() as unit:
        assert await unit.get(PortfolioRepository).load(for_update=True) == old
        await unit.get(PortfolioRepository).save(old, new, T0)
    async with database.read() as unit:
        return await unit.get(PortfolioRepository).load()


async def test_it_begins_empty_and_comes_back_as_saved(database: Database) -> None:
    async with database.read() as unit:
        assert await unit.get(PortfolioRepository).load() == EMPTY
    full = replace(portfolio(1, "BTC", "ETH"), weighted_at=LATER)
    assert await _saved(database, EMPTY, full) == full


async def test_ranks_and_weights_can_be_exchanged(database: Database) -> None:
    first = portfolio(1, "BTC", "ETH", "XRP")
    await _saved(database, EMPTY, first)
    turned = replace(
        first,
        version=2,
        members=(
            replace(member("XRP", 1), weight_u=0, target_weight_u=1),
            member("ETH", 2, 15_000_000),
            member("BTC", 3, 15_000_000),
        ),
    )
    assert await _saved(database, first, turned) == turned


async def test_a_member_leaves_is_replaced_and_returns(database: Database) -> None:
    first, second = portfolio(1, "BTC", "ETH"), portfolio(2, "SOL", "ETH")
    await _saved(database, EMPTY, first)
    async with database.write() as unit:
        why = {symbol_id("BTC"): Departure(MembershipStatus.REPLACED, "weaker")}
        await unit.get(PortfolioRepository).save(first, second, LATER, why)
    third, fourth = portfolio(3, "SOL"), portfolio(4, "SOL", "BTC", "ETH")
    await _saved(database, second, third)
    assert await _saved(database, third, fourth) == fourth
    async with database.read() as unit:
        stays = await unit.get(PortfolioRepository).memberships(symbol_id("BTC"))
        everyone = await unit.get(PortfolioRepository).memberships()
    assert [(stay.status, stay.left_at, stay.leaving_reason) for stay in stays] == [
        (MembershipStatus.REPLACED, LATER, "weaker"),
        (MembershipStatus.ACTIVE, None, None),
    ]
    assert [stay.member.symbol for stay in everyone] == [
        *("BTCUSDT", "ETHUSDT", "SOLUSDT"),
        *("BTCUSDT", "ETHUSDT"),
    ]
    assert sum(stay.status is MembershipStatus.ACTIVE for stay in everyone) == 3


async def test_a_decision_on_an_old_version_is_refused_whole(database: Database) -> None:
    first = portfolio(1, "BTC")
    await _saved(database, EMPTY, first)
    with pytest.raises(ConflictError) as caught:
        async with database.write() as unit:
            await unit.get(PortfolioRepository).save(EMPTY, portfolio(1, "ETH"), T0)
    assert caught.value.code is Code.VERSION_CONFLICT
    async with database.read() as unit:
        assert await unit.get(PortfolioRepository).load() == first


async def test_what_the_domain_let_through_the_tables_refuse(database: Database) -> None:
    sound = portfolio(1)
    cases = [
        (replace(sound, members=(member("NEW", 1),)), Code.SYMBOL_UNKNOWN),
        (
            replace(sound, members=(member("BTC", 1), member("BTC", 2))),
            Code.SYMBOL_ALREADY_IN_PORTFOLIO,
        ),
        (replace(sound, members=(member("BTC", 1), member("ETH", 1))), Code.VERSION_CONFLICT),
        (replace(sound, members=(member("BTC", 0),)), Code.INTERNAL_ERROR),
        (replace(sound, members=(member("BTC", 1, -1),)), Code.CONSTRAINTS_INFEASIBLE),
        (replace(sound, members=(member("BTC", 1, FULL + 1),)), Code.CONSTRAINTS_INFEASIBLE),
        (replace(sound, cash_u=FULL + 1), Code.CONSTRAINTS_INFEASIBLE),
    ]
    for broken, code in cases:
        with pytest.raises(ServiceError) as caught:
            async with database.write() as unit:
                await unit.get(PortfolioRepository).save(EMPTY, broken, T0)
        assert caught.value.code is code
        async with database.read() as unit:
            assert await unit.get(PortfolioRepository).load() == EMPTY


async def test_C05_the_cap_holds_when_many_add_at_once(database: Database) -> None:
    names = [f"C{number}" for number in range(20)]
    await listed(database, *names)

    async def add(unit: UnitOfWork, base: str) -> bool:
        old = await unit.get(PortfolioRepository).load(for_update=True)
        await asyncio.sleep(0)  # anybody who can get in between may do so now
        if len(old.members) >= 10:
            return False
        size = len(old.members) + 1
        new = replace(
            old,
            version=old.version + 1,
            members=(*old.members, member(base, size, 1_000_000)),
            cash_u=old.cash_u - 1_000_000,
        )
        await unit.get(PortfolioRepository).save(old, new, T0)
        return True

    async def one(base: str) -> bool:
        return await database.run(lambda unit: add(unit, base))

    answers = await asyncio.gather(*(one(base) for base in names))
    assert sorted(answers) == [False] * 10 + [True] * 10
    async with database.read() as unit:
        final = await unit.get(PortfolioRepository).load()
    assert (final.version, [one.rank for one in final.members]) == (10, list(range(1, 11)))


async def test_C16_a_reader_sees_one_version(database: Database) -> None:
    versions = [
        portfolio(0),
        portfolio(1, "BTC", "ETH"),
        portfolio(2, "SOL"),
        portfolio(3, "XRP", "BTC"),
    ]
    seen: list[Portfolio] = []

    async def read() -> None:
        while not seen or seen[-1].version < 3:
            async with database.read() as unit:
                seen.append(await unit.get(PortfolioRepository).load())

    async def write() -> None:
        for old, new in pairwise(versions):
            await _saved(database, old, new)

    await asyncio.gather(read(), write())
    assert all(one == versions[one.version] for one in seen)
