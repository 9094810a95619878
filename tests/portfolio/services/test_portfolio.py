"""Membership on real databases: rules, races, history."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from app.foundation.errors import (
    Code,
    ConflictError,
    PreconditionFailedError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.idempotency import Command
from app.market.domain.models import ContractStatus, Interval
from app.market.domain.sectors import UNCLASSIFIED
from app.market.domain.symbols import SymbolIndex
from app.market.storage.symbols import SymbolRecord, SymbolRepository
from app.portfolio.domain.candidate_selection import CandidateRefusal
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.event_log import fold_events
from app.portfolio.domain.models import FULL, faults
from app.portfolio.services.rebalance_runs import RebalanceRequest
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from tests.support.portfolios import contract
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk, panel, symbol_id


async def refused_code(call: Awaitable[object]) -> Code:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.code


async def test_the_best_ten_come_in_with_exact_weights(desk: Desk) -> None:
    await desk.open()
    outcome = await desk.portfolio.initialize(None, "start", WHO)
    assert outcome.result is not None
    view = outcome.result.view
    assert [one.member.symbol for one in view.members] == list(SYMBOLS[:10])
    assert outcome.result.refused == ()
    portfolio = (await desk.portfolio.view()).portfolio
    assert portfolio == view.portfolio
    assert portfolio.version == 1
    assert sum(one.weight_u for one in portfolio.members) + portfolio.cash_u == FULL
    assert all(5_000_000 <= one.weight_u <= 20_000_000 for one in portfolio.members)
    assert portfolio.members[0].weight_u > portfolio.members[9].weight_u
    assert all(one.is_tradeable for one in view.members)
    assert await refused_code(desk.portfolio.initialize(None, "again", WHO)) is (
        Code.PORTFOLIO_NOT_EMPTY
    )


def _follow(desk: Desk, leader: str, follower: str) -> None:
    """Make one symbol's daily path a copy of another's."""
    panel = desk.market.panels[Interval.DAY]
    close = panel.close.copy()
    close[:, panel.symbols.index(follower)] = close[:, panel.symbols.index(leader)] * 2.0
    desk.market.panels[Interval.DAY] = replace(panel, close=close)


def _forget(desk: Desk, symbol: str, bars: int) -> None:
    panel = desk.market.panels[Interval.DAY]
    close = panel.close.copy()
    close[:-bars, panel.symbols.index(symbol)] = np.nan
    desk.market.panels[Interval.DAY] = replace(panel, close=close)


async def test_each_refusal_of_the_choice_has_its_reason(desk: Desk) -> None:
    await desk.open()
    _follow(desk, SYMBOLS[0], SYMBOLS[1])
    _forget(desk, SYMBOLS[2], 30)
    desk.status(SYMBOLS[3], ContractStatus.PAUSED)
    desk.stale(SYMBOLS[4])
    desk.score({SYMBOLS[5]: 0.59, SYMBOLS[6]: None})
    done = await desk.portfolio.initialize(None, "start", WHO)
    assert done.result is not None
    assert {one.symbol: one.reason for one in done.result.refused} == {
        SYMBOLS[1]: CandidateRefusal.CORRELATION_LIMIT,
        SYMBOLS[2]: CandidateRefusal.CORRELATION_UNKNOWN,
        SYMBOLS[3]: CandidateRefusal.NOT_TRADEABLE,
        SYMBOLS[4]: CandidateRefusal.STALE,
    }
    assert len(await desk.members()) == 10


async def test_a_portfolio_larger_than_allowed_is_refused(desk: Desk) -> None:
    await desk.open()
    assert await refused_code(desk.portfolio.initialize(11, "start", WHO)) is (
        Code.VALIDATION_FAILED
    )


async def test_nobody_qualifies_and_nothing_is_written(desk: Desk) -> None:
    await desk.open()
    desk.score(dict.fromkeys(SYMBOLS, 0.3))
    done = await desk.portfolio.initialize(None, "start", WHO)
    assert done.result is not None
    assert {one.reason for one in done.result.refused} == {CandidateRefusal.LOW_SCORE}
    assert (await desk.portfolio.view()).portfolio.version == 0
    assert await desk.queries.history(None, 10) == ()


async def test_no_choice_without_a_fresh_board(desk: Desk) -> None:
    await desk.open()
    desk.later(seconds=901)
    assert await refused_code(desk.portfolio.initialize(None, "start", WHO)) is (
        Code.MARKET_DATA_STALE
    )
    desk.boards.board = None
    assert await refused_code(desk.portfolio.initialize(None, "start", WHO)) is Code.NO_BOARD_YET


async def test_add_in_any_spelling_and_by_id(desk: Desk) -> None:
    await desk.filled(3)
    added = (await desk.portfolio.add("c07-usdt", "by hand", WHO)).result
    assert added is not None
    assert (added.member.symbol, added.member.rank) == (SYMBOLS[7], 4)
    assert added.member.inclusion_reason == "by hand"
    assert added.member.weight_u == 20_000_000
    again = (await desk.portfolio.add(symbol_id(8), "by id", WHO)).result
    assert again is not None
    assert again.member.symbol == SYMBOLS[8]


async def test_what_add_refuses(desk: Desk) -> None:
    await desk.filled(3)
    _follow(desk, SYMBOLS[0], SYMBOLS[11])
    _forget(desk, SYMBOLS[12], 30)
    desk.status(SYMBOLS[13], ContractStatus.CANCEL_ONLY)
    desk.stale(SYMBOLS[14])
    ending = replace(
        desk.market.quotes[SYMBOLS[15]].contract,
        expires_ms=int((desk.now + timedelta(hours=71)).timestamp() * 1000),
    )
    desk.quote(SYMBOLS[15], contract=ending)
    before = (await desk.portfolio.view()).portfolio
    expected = {
        SYMBOLS[0]: Code.SYMBOL_ALREADY_IN_PORTFOLIO,
        "NOSUCHUSDT": Code.SYMBOL_UNKNOWN,
        SYMBOLS[11]: Code.CORRELATION_LIMIT,
        SYMBOLS[12]: Code.CORRELATION_LIMIT,
        SYMBOLS[13]: Code.SYMBOL_NOT_TRADABLE,
        SYMBOLS[14]: Code.MARKET_DATA_STALE,
        SYMBOLS[15]: Code.SYMBOL_NOT_TRADABLE,
    }
    found = {name: await refused_code(desk.portfolio.add(name, "try", WHO)) for name in expected}
    assert found == expected
    assert (await desk.portfolio.view()).portfolio == before


async def test_a_run_that_has_just_begun_does_not_keep_a_first_portfolio_waiting(
    desk: Desk,
) -> None:
    await desk.open()
    await desk.rebalancing.runs.claim(
        RebalanceRequest(), WHO
    )  # the schedule's, right after the start
    assert (await desk.portfolio.initialize(5, "start", WHO)).result
    refused = await refused_code(desk.portfolio.add(SYMBOLS[20], "wait", WHO))
    assert refused is Code.REBALANCE_IN_PROGRESS


@pytest.mark.parametrize("sector", ["meme", UNCLASSIFIED])
async def test_a_sector_that_is_full_lets_nobody_in(desk: Desk, sector: str) -> None:
    await desk.open()
    for symbol in (*SYMBOLS[:6], SYMBOLS[20]):
        desk.quote(symbol, sector=sector)
    made = (await desk.portfolio.initialize(10, "start", WHO)).result
    assert made is not None
    members = await desk.members()
    assert members == [*SYMBOLS[:4], *SYMBOLS[6:12]]  # the next best in place of two more memes
    passed_over = {one.symbol: one.reason for one in made.refused}
    assert passed_over == dict.fromkeys(SYMBOLS[4:6], CandidateRefusal.SECTOR_LIMIT)
    await desk.portfolio.remove(SYMBOLS[11], "room", WHO)
    assert await refused_code(desk.portfolio.add(SYMBOLS[20], "try", WHO)) is Code.SECTOR_LIMIT
    await desk.controls.lock(SYMBOLS[20], LockKind.WATCH, "a fifth", None, WHO)
    (watched,) = (await desk.controls.watch_list()).lines
    assert watched.refused is not None
    assert watched.refused.reason is CandidateRefusal.SECTOR_LIMIT
    await desk.configuration.put({"replacement": {"max_per_sector": 5}}, "more", WHO)
    assert (await desk.portfolio.add(SYMBOLS[20], "fits", WHO)).result


async def test_unknown_correlation_says_so(desk: Desk) -> None:
    await desk.filled(1)
    del desk.market.panels[Interval.DAY]
    with pytest.raises(RefusedError) as caught:
        await desk.portfolio.add(SYMBOLS[5], "try", WHO)
    assert caught.value.facts["correlation"] == "not known"
    assert caught.value.facts["conflicting_symbol"] == SYMBOLS[0]


async def test_adding_needs_fresh_members_but_removing_does_not(desk: Desk) -> None:
    await desk.filled(4)
    desk.stale(SYMBOLS[0], SYMBOLS[1])
    with pytest.raises(UnavailableError) as caught:
        await desk.portfolio.add(SYMBOLS[9], "try", WHO)
    assert caught.value.code is Code.MARKET_DATA_STALE
    assert caught.value.retry_after_s is not None
    weight = (await desk.portfolio.view()).portfolio.members[2].weight_u
    gone = (await desk.portfolio.remove(SYMBOLS[2], "out", WHO)).result
    assert gone is not None
    left = (await desk.portfolio.view()).portfolio
    assert left.cash_u == weight + 20_000_000
    assert [one.rank for one in left.members] == [1, 2, 3]


async def test_remove_by_contract_when_the_registry_knows_nothing(desk: Desk) -> None:
    await desk.filled(2)
    desk.market.names = type(desk.market.names).from_contracts(())
    gone = (await desk.portfolio.remove("c01usdtm", "out", WHO)).result
    assert gone is not None
    assert gone.member.symbol == SYMBOLS[1]
    assert await refused_code(desk.portfolio.remove(SYMBOLS[9], "out", WHO)) is Code.SYMBOL_UNKNOWN


async def test_who_is_not_a_member_cannot_be_removed(desk: Desk) -> None:
    await desk.filled(2)
    assert await refused_code(desk.portfolio.remove(SYMBOLS[9], "out", WHO)) is (
        Code.SYMBOL_NOT_IN_PORTFOLIO
    )


async def test_replace_works_again_and_again_and_the_removed_can_return(desk: Desk) -> None:
    await desk.filled()
    out, back = SYMBOLS[3], SYMBOLS[12]
    for turn in range(6):
        desk.later(minutes=1)
        outcome = await desk.portfolio.replace(out, back, f"turn {turn}", WHO)
        assert outcome.result is not None
        assert outcome.result.new.member.rank == 4
        assert outcome.result.old.symbol == out
        assert outcome.result.score_difference is not None
        out, back = back, out
    for _ in range(3):
        desk.later(minutes=1)
        await desk.portfolio.remove(SYMBOLS[9], "out", WHO)
        await desk.portfolio.add(SYMBOLS[9], "back", WHO)
    assert await desk.members() == list(SYMBOLS[:10])
    integrity = await desk.integrity.check()
    assert integrity.ok, integrity


async def test_replace_measures_against_the_others_only(desk: Desk) -> None:
    await desk.filled(3)
    _follow(desk, SYMBOLS[0], SYMBOLS[11])
    assert await refused_code(desk.portfolio.replace(SYMBOLS[1], SYMBOLS[11], "no", WHO)) is (
        Code.CORRELATION_LIMIT
    )
    desk.score({SYMBOLS[0]: None})
    done = await desk.portfolio.replace(SYMBOLS[0], SYMBOLS[11], "its twin", WHO)
    assert done.result is not None
    assert done.result.score_difference is None


async def test_a_stale_version_is_refused(desk: Desk) -> None:
    await desk.filled(2)
    old = Command("tester", "request-2", if_match=0)
    with pytest.raises(PreconditionFailedError):
        await desk.portfolio.add(SYMBOLS[9], "try", old)
    assert (await desk.portfolio.add(SYMBOLS[9], "try", replace(old, if_match=1))).result


async def test_C05_fifty_adds_at_nine_members_give_one_winner(desk: Desk) -> None:
    await desk.filled(9)

    async def attempt(number: int) -> str:
        try:
            await desk.portfolio.add(SYMBOLS[9 + number], "race", WHO)
        except ConflictError as e:
            return e.code.value
        return "added"

    answers = await asyncio.gather(*(attempt(number) for number in range(50)))
    assert answers.count("added") == 1
    assert answers.count(Code.PORTFOLIO_FULL.value) == 49
    view = await desk.portfolio.view()
    assert (len(view.members), view.portfolio.version) == (10, 2)
    assert (await desk.integrity.check()).ok


async def test_C06_replacing_and_removing_one_member_at_once(desk: Desk) -> None:
    await desk.filled(5)
    out = SYMBOLS[2]

    async def attempt(call: Awaitable[object]) -> str:
        try:
            await call
        except ConflictError as e:
            return e.code.value
        return "done"

    answers = await asyncio.gather(
        attempt(desk.portfolio.replace(out, SYMBOLS[10], "to B", WHO)),
        attempt(desk.portfolio.remove(out, "out", WHO)),
        attempt(desk.portfolio.replace(out, SYMBOLS[11], "to C", WHO)),
    )
    assert sorted(answers) == ["done", "symbol_not_in_portfolio", "symbol_not_in_portfolio"]
    assert (await desk.portfolio.view()).portfolio.version == 2
    assert (await desk.integrity.check()).ok


async def test_C16_a_read_sees_one_version_while_members_change(desk: Desk) -> None:
    await desk.filled()
    running = True

    async def reader() -> int:
        version, reads = 0, 0
        while running:
            portfolio = (await desk.portfolio.view()).portfolio
            assert faults(portfolio, 10) == ()
            assert portfolio.version >= version
            version, reads = portfolio.version, reads + 1
        return reads

    readers = [asyncio.ensure_future(reader()) for _ in range(3)]
    for turn in range(12):
        old, new = (SYMBOLS[3], SYMBOLS[15]) if turn % 2 == 0 else (SYMBOLS[15], SYMBOLS[3])
        await desk.portfolio.replace(old, new, "swap", WHO)
    running = False
    assert min(await asyncio.gather(*readers)) > 0


async def test_concurrent_changes_of_all_kinds_keep_every_invariant(desk: Desk) -> None:
    await desk.filled(5)

    async def step(number: int) -> None:
        name = SYMBOLS[number % 12]
        other = SYMBOLS[(number * 7 + 3) % 12]
        calls = (
            lambda: desk.portfolio.add(name, "in", WHO),
            lambda: desk.portfolio.remove(name, "out", WHO),
            lambda: desk.portfolio.replace(name, other, "swap", WHO),
            lambda: desk.configuration.put({"score_tilt": number / 10}, "tune", WHO),
        )
        try:
            await calls[number % 4]()
        except ConflictError:
            return

    await asyncio.gather(*(step(number) for number in range(40)))
    integrity = await desk.integrity.check()
    assert integrity.ok, integrity
    async with desk.database.read() as unit:
        events = await unit.get(HistoryRepository).all()
        assert fold_events(events) == await unit.get(PortfolioRepository).load()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("change", ["add", "replace"])
async def test_I20_only_eligible_and_scored_symbols_may_come_in(desk: Desk, change: str) -> None:
    await desk.filled(3)
    desk.score({SYMBOLS[9]: None})  # on the board as not eligible
    before = (await desk.portfolio.view()).portfolio

    attempt: Awaitable[object] = (
        desk.portfolio.add(SYMBOLS[9], "no candidate", WHO)
        if change == "add"
        else desk.portfolio.replace(SYMBOLS[0], SYMBOLS[9], "no candidate", WHO)
    )
    with pytest.raises(RefusedError) as refused:
        await attempt

    assert refused.value.code is Code.SYMBOL_NOT_TRADABLE
    assert refused.value.facts["reason"] == "not_eligible"
    assert (await desk.portfolio.view()).portfolio == before


async def test_I20_a_symbol_with_stale_data_does_not_come_in(desk: Desk) -> None:
    await desk.filled(8)
    desk.stale(SYMBOLS[9])

    with pytest.raises(UnavailableError) as refused:
        await desk.portfolio.add(SYMBOLS[9], "stale", WHO)

    assert refused.value.code is Code.MARKET_DATA_STALE
    assert len((await desk.portfolio.view()).portfolio.members) == 8


async def test_nothing_moves_capital_before_a_board_of_the_whole_market(desk: Desk) -> None:
    await desk.filled(3)
    desk.score({SYMBOLS[0]: 0.61})  # a half-filled board would move the weights
    desk.boards.whole = False
    before = (await desk.portfolio.view()).portfolio

    for attempt in (
        desk.portfolio.add(SYMBOLS[9], "early", WHO),
        desk.rebalancing.rebalance(WHO),
    ):
        with pytest.raises(UnavailableError) as refused:
            await attempt
        assert refused.value.code is Code.MARKET_DATA_STALE
    assert (await desk.portfolio.view()).portfolio == before

    desk.boards.whole = True
    assert (await desk.rebalancing.rebalance(WHO)).result is not None


async def with_market(desk: Desk) -> None:
    """BTC listed and scored best, with daily bars of its own for three weeks only."""
    one = contract()
    await desk.open()
    known = [(entry.symbol_id, entry.contract) for entry in desk.market.names.entries]
    desk.market.names = SymbolIndex.from_contracts([*known, (symbol_id(60), one)])
    record = SymbolRecord(symbol_id(60), "BTCUSDT", one, "layer-1", "large", NOW, NOW, None)
    async with desk.database.write() as unit:
        await unit.get(SymbolRepository).save([record], NOW)
    desk.market.quotes["BTCUSDT"] = replace(desk.market.quotes[SYMBOLS[0]], contract=one)
    desk.score({"BTCUSDT": 0.995})


def without_market_history(desk: Desk) -> None:
    daily = desk.market.panels[Interval.DAY]
    close = daily.close.copy()
    close[:-20, daily.symbols.index("BTCUSDT")] = np.nan
    desk.market.panels[Interval.DAY] = replace(daily, close=close)


async def test_the_market_joins_nine_coins(desk: Desk) -> None:
    """It leaves no residual of itself: its pairs are not applicable, which is not unknown."""
    await with_market(desk)
    desk.score({})
    await desk.portfolio.initialize(9, "start", WHO)
    desk.score({"BTCUSDT": 0.995})
    without_market_history(desk)
    await desk.portfolio.add("BTCUSDT", "the market", WHO)
    shown = await desk.queries.correlation()
    pairs = {f"{name}-BTCUSDT" for name in SYMBOLS[:9]}
    assert shown.not_applicable == dict.fromkeys(pairs, "is_the_market")
    assert {pair for pair, rho in shown.correlations.items() if rho is None} == pairs
    assert pairs.isdisjoint(shown.unknown)


async def test_a_coin_joins_the_market_and_their_pair_counts_in_no_mean(desk: Desk) -> None:
    await with_market(desk)
    await desk.portfolio.initialize(1, "start", WHO)
    members = (await desk.portfolio.view()).portfolio.members
    assert [one.symbol for one in members] == ["BTCUSDT"]
    without_market_history(desk)
    await desk.portfolio.add(SYMBOLS[0], "beside it", WHO)
    desk.market.panels[Interval.DAY] = panel(Interval.DAY, desk.now)
    await desk.portfolio.add(SYMBOLS[1], "and another", WHO)
    shown = await desk.queries.correlation()
    only = shown.correlations[f"{SYMBOLS[0]}-{SYMBOLS[1]}"]
    assert shown.average == shown.highest == only
    assert len(shown.raw) == 3
    assert shown.matrix[0][1:] == (None, None)
    assert shown.raw_average != shown.average
