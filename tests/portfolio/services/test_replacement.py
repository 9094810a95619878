"""Replacement on real databases: confirmed improvements, forced swaps, nothing in between."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from app.alerts.domain.models import AlertRule
from app.alerts.services.service import AlertFilter
from app.configuration.domain.model import ReplacementSettings
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, ConflictError, UnavailableError
from app.market.domain.models import PAUSED, ContractStatus, Interval, Level
from app.market.domain.sectors import UNCLASSIFIED
from app.portfolio.domain.controls import Lock, LockKind, Switch
from app.portfolio.domain.event_log import EventType, fold_events
from app.portfolio.domain.models import faults
from app.portfolio.domain.replacement import ReplacementBlock, ReplacementProposal
from app.portfolio.services.replacement import ReplacementResult
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import ControlRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.scoring.storage.runs import ScoringRepository
from tests.support.trading_desk import SYMBOLS, WHO, Desk, book, funding, symbol_id

WEAKEST, SECOND = SYMBOLS[9], SYMBOLS[8]  # of the ten members
PLANTED = SYMBOLS[30]
BETTER = {PLANTED: 0.98}  # 0.5 z above the weakest; cost is 0.29 z
RULES: Mapping[str, Any] = {"confirmation_interval_s": 3_600, "auto_execute_confirmed": True}
AT_ONCE: Mapping[str, Any] = {"min_holding_s": 0, "cooldown_s": 0}


class Cycles:
    """A desk whose boards are stored; each cycle is an hour with a board and an evaluation."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.boards = 0

    async def begin(self, **rules: Any) -> "Cycles":
        await self.desk.filled(10)
        await self.desk.configuration.put({"replacement": {**RULES, **rules}}, "test", WHO)
        self.desk.later(days=8)
        for _ in range(4):
            await self.board({})
        return self

    async def board(self, scores: Mapping[str, float | None]) -> None:
        self.boards += 1
        self.desk.later(hours=1)
        self.desk.score(scores)
        assert self.desk.boards.board is not None
        board = replace(
            self.desk.boards.board,
            run_id=symbol_id(self.boards),
            input_hash=f"inputs-{self.boards}",
        )
        self.desk.boards.board = board
        async with self.desk.database.write() as unit:
            await unit.get(ScoringRepository).save(board, None)

    async def change(self, symbol: str, **changed: Any) -> None:
        """Another card of a symbol on the newest board."""
        board = self.desk.boards.board
        assert board is not None
        cards = tuple(
            replace(one, **changed) if one.symbol == symbol else one for one in board.cards
        )
        self.desk.boards.board = replace(board, cards=cards)

    async def cycle(self, scores: Mapping[str, float | None], **how: Any) -> ReplacementResult:
        await self.board(scores)
        return await self.evaluate(**how)

    async def evaluate(self, **how: Any) -> ReplacementResult:
        outcome = await self.desk.replacement.execute(WHO, **{"unattended": True, **how})
        assert outcome.result is not None
        return outcome.result

    def counted(self, done: ReplacementResult) -> int:
        """Confirmations of the swap of the weakest member."""
        return next(
            one.confirmations for one in done.proposals if one.outgoing.side.symbol == WEAKEST
        )

    async def proposal(self, symbol: str) -> ReplacementProposal:
        shown = await self.desk.replacement.evaluate()
        return next(one for one in shown.proposals if one.outgoing.side.symbol == symbol)


@pytest.fixture
async def cycles(desk: Desk) -> Cycles:
    return await Cycles(desk).begin()


async def sound(desk: Desk) -> None:
    view = await desk.portfolio.view()
    assert faults(view.portfolio, 10) == ()
    async with desk.database.read() as unit:
        assert fold_events(await unit.get(HistoryRepository).all()) == view.portfolio


async def test_a_planted_better_symbol_comes_in_after_its_confirmations(cycles: Cycles) -> None:
    desk = cycles.desk
    desk.quote(WEAKEST, mark=Decimal("9.5"))  # it came in at 10
    found: list[int] = []
    for _ in range(8):
        done = await cycles.cycle(BETTER)
        pending = next(one for one in done.proposals if one.outgoing.side.symbol == WEAKEST)
        found.append(pending.confirmations)
        if done.swaps:
            break
        assert WEAKEST in await desk.members()
    assert found == [1, 2, 3]
    assert len(done.swaps) == 1
    swapped = done.swaps[0]
    assert (swapped.old.symbol, swapped.new.member.symbol) == (WEAKEST, PLANTED)
    assert swapped.new.member.rank == 10
    assert swapped.score_difference == pytest.approx(0.98 - 0.855)
    assert (await desk.members())[9] == PLANTED
    history = await desk.queries.history(None, 5)
    event = next(one for one in history if one.type is EventType.REPLACE)
    assert (event.symbol, event.other_symbol) == (PLANTED, WEAKEST)
    assert event.payload["confirmations"] == 3
    leg = {"fee": "0.0006", "half_spread": "0.001"}
    assert event.payload["costs"] == {"old": leg, "new": leg}
    (line,) = (await desk.reporting.replacements()).ledger.lines
    assert line.threshold_z == pytest.approx(float(event.payload["threshold_z"]))
    assert line.fees == pytest.approx(0.0012)
    assert line.spread == pytest.approx(0.002)
    parting = event.payload["old_facts"]
    assert float(parting["score"]) == pytest.approx(0.855)
    assert parting["confidence"] == "0.9"
    assert float(parting["performance"]) == pytest.approx(-0.05)
    assert float(event.payload["improvement_z"]) > float(event.payload["threshold_z"])
    await sound(desk)


async def test_scores_that_swing_by_less_than_the_threshold_swap_nobody(cycles: Cycles) -> None:
    desk = cycles.desk
    before = await desk.members()
    version = (await desk.portfolio.view()).portfolio.version
    rivals = (WEAKEST, SYMBOLS[10])
    swings = [
        {rivals[0]: 0.85 + swing, rivals[1]: 0.85 - swing}
        for swing in (0.03 * np.sin(np.arange(48) * 1.1)).tolist()
    ]
    overtaken = 0
    for scores in swings:
        done = await cycles.cycle(scores)
        overtaken += scores[rivals[1]] > scores[rivals[0]]
        assert done.swaps == ()
    assert overtaken > 15, "the rival is in front again and again"
    assert await desk.members() == before
    assert (await desk.portfolio.view()).portfolio.version == version


async def test_a_swap_is_not_undone_by_the_next_swing(cycles: Cycles) -> None:
    # No pause and no holding time, and a swing that lasts: the threshold alone stands in the way.
    await cycles.desk.configuration.put({"replacement": AT_ONCE}, "test", WHO)
    for _ in range(6):
        await cycles.cycle(BETTER)
    assert PLANTED in await cycles.desk.members()
    swaps = 0
    for turn in range(24):
        is_up = turn // 4 % 2
        scores = {PLANTED: 0.86 if is_up else 0.84, WEAKEST: 0.84 if is_up else 0.86}
        swaps += len((await cycles.cycle(scores)).swaps)
    assert swaps == 0


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_swing_beyond_the_threshold_that_does_not_last_swaps_nobody(desk: Desk) -> None:
    # Without noise in the threshold: the confirmations alone stand in the way.
    cycles = await Cycles(desk).begin(**AT_ONCE, noise_multiple=0)
    before = await desk.members()
    confirmed: list[int] = []
    for turn in range(9):
        done = await cycles.cycle({PLANTED: 0.98 if turn % 3 else 0.80})
        assert done.swaps == ()
        pending = next(one for one in done.proposals if one.outgoing.side.symbol == WEAKEST)
        confirmed.append(pending.confirmations)
    assert confirmed == [0, 1, 2] * 3, "it is in front by enough, and one board short"
    assert await desk.members() == before


async def test_one_board_counts_once_and_confirmations_survive_a_restart(cycles: Cycles) -> None:
    await cycles.cycle(BETTER)
    assert (await cycles.proposal(WEAKEST)).confirmations == 1
    for _ in range(5):
        await cycles.evaluate()
    assert (await cycles.proposal(WEAKEST)).confirmations == 1
    again = Desk(cycles.desk.database, cycles.desk.market, cycles.desk.boards, cycles.desk.now)
    cycles.desk = again
    assert (await cycles.proposal(WEAKEST)).confirmations == 1
    await cycles.cycle(BETTER)
    assert (await cycles.proposal(WEAKEST)).confirmations == 2
    await cycles.cycle({})
    assert (await cycles.proposal(WEAKEST)).confirmations == 0


async def test_a_confirmation_counts_once_in_eight_hours_and_survives_a_restart(
    desk: Desk,
) -> None:
    default_s = ReplacementSettings().confirmation_interval_s
    cycles = await Cycles(desk).begin(confirmation_interval_s=default_s)
    found: list[int] = []
    for hour in range(17):
        if hour == 9:
            cycles.desk = Desk(desk.database, desk.market, desk.boards, desk.now)
        done = await cycles.cycle(BETTER)
        pending = next(one for one in done.proposals if one.outgoing.side.symbol == WEAKEST)
        found.append(pending.confirmations)
    assert found == [1] * 8 + [2] * 8 + [3]
    assert [one.new.member.symbol for one in done.swaps] == [PLANTED]


async def test_a_clock_that_jumps_a_day_ahead_and_back_holds_up_no_confirmation(
    cycles: Cycles,
) -> None:
    desk = cycles.desk
    await cycles.cycle(BETTER)
    then = desk.now
    desk.later(days=1)
    done = await cycles.cycle(BETTER)
    assert cycles.counted(done) == 2
    desk.now = then
    with pytest.raises(UnavailableError) as caught:
        await cycles.evaluate()
    assert caught.value.code is Code.MARKET_DATA_STALE, "a board of tomorrow decides nothing"
    assert [cycles.counted(await cycles.cycle(BETTER)) for _ in range(2)] == [2, 3]


async def test_a_candidate_with_much_dearer_funding_does_not_exceed(cycles: Cycles) -> None:
    for _ in range(4):
        await cycles.board(BETTER)
        await cycles.change(PLANTED, factors=(funding(0.6),))
        assert (await cycles.evaluate()).swaps == ()
    one = await cycles.proposal(WEAKEST)
    assert one.candidate is not None
    assert one.candidate.symbol == PLANTED
    assert one.blocked_by == (ReplacementBlock.IMPROVEMENT_TOO_SMALL, ReplacementBlock.UNCONFIRMED)
    assert one.comparison.cost is not None
    assert one.comparison.cost > 4.0
    await cycles.board(BETTER)
    await cycles.change(PLANTED, factors=())
    unknown = await cycles.proposal(WEAKEST)
    assert unknown.blocked_by == (ReplacementBlock.COST_UNKNOWN, ReplacementBlock.UNCONFIRMED)


async def test_the_impact_of_both_legs_counts_by_default(cycles: Cycles) -> None:
    await cycles.board(BETTER)
    plain = (await cycles.proposal(WEAKEST)).comparison.cost
    steep = book(cycles.desk.market.quotes[PLANTED].contract.code, 1_900)
    far = (Level(Decimal("9.5"), 10**6),), (Level(Decimal("10.5"), 10**6),)
    bids, asks = (*steep.bids, *far[0]), (*steep.asks, *far[1])
    cycles.desk.quote(PLANTED, book=replace(steep, bids=bids, asks=asks))
    dear = (await cycles.proposal(WEAKEST)).comparison.cost
    assert plain is not None
    assert dear is not None
    assert dear > plain
    cycles.desk.quote(PLANTED, book=None)
    assert ReplacementBlock.COST_UNKNOWN in (await cycles.proposal(WEAKEST)).blocked_by


async def test_the_pause_and_the_holding_time_stand_in_the_way(cycles: Cycles) -> None:
    desk = cycles.desk
    await desk.portfolio.replace(SYMBOLS[0], SYMBOLS[40], "manual", WHO)
    scores = {**BETTER, SYMBOLS[40]: 0.97, SYMBOLS[0]: 0.5}
    for _ in range(8):
        done = await cycles.cycle(scores)
        assert done.swaps == ()
    one = await cycles.proposal(WEAKEST)
    assert one.blocked_by == (ReplacementBlock.COOLDOWN,)
    desk.later(hours=24)
    done = await cycles.cycle(scores)
    assert [swap.new.member.symbol for swap in done.swaps] == [PLANTED]
    desk.later(hours=25)
    worst = {PLANTED: 0.6, SYMBOLS[41]: 0.99}
    for _ in range(6):
        assert (await cycles.cycle(worst)).swaps == ()
    assert (await cycles.proposal(PLANTED)).blocked_by == (ReplacementBlock.MIN_HOLDING,)


async def test_noise_must_be_known_unless_the_settings_name_one(desk: Desk) -> None:
    cycles = await Cycles(desk).begin()

    async def unknown() -> ReplacementResult:
        await cycles.board(BETTER)
        await cycles.change(WEAKEST, noise=None)
        return await cycles.evaluate()

    for _ in range(3):
        await unknown()
    one = await cycles.proposal(WEAKEST)
    assert one.candidate is not None
    assert one.candidate.symbol == PLANTED
    assert (one.threshold, one.strength) == (None, None)
    assert one.blocked_by == (ReplacementBlock.NOISE_UNKNOWN, ReplacementBlock.UNCONFIRMED)
    await desk.configuration.put({"replacement": {"noise_default": 0.05}}, "test", WHO)
    for _ in range(2):
        assert (await unknown()).swaps == ()
    done = await unknown()
    assert [swap.new.member.symbol for swap in done.swaps] == [PLANTED]
    assert done.proposals[0].strength == pytest.approx(0.9, abs=0.05)


async def test_without_a_price_the_cost_is_unknown_and_nothing_is_swapped(cycles: Cycles) -> None:
    cycles.desk.quote(PLANTED, bid=None)
    for _ in range(8):
        assert (await cycles.cycle(BETTER)).swaps == ()
    one = await cycles.proposal(WEAKEST)
    assert one.blocked_by == (ReplacementBlock.COST_UNKNOWN, ReplacementBlock.UNCONFIRMED)


async def test_confirmed_swaps_wait_for_the_operator_by_default(desk: Desk) -> None:
    cycles = await Cycles(desk).begin(auto_execute_confirmed=False)
    for _ in range(8):
        assert (await cycles.cycle(BETTER)).swaps == ()
    one = await cycles.proposal(WEAKEST)
    assert one.is_due
    done = await cycles.evaluate(unattended=False)
    assert [swap.new.member.symbol for swap in done.swaps] == [PLANTED]
    assert (await desk.replacement.evaluate()).proposals[0].confirmations == 0


async def test_at_most_so_many_in_one_cycle(desk: Desk) -> None:
    cycles = await Cycles(desk).begin(max_per_cycle=1)
    both = {SYMBOLS[30]: 0.989, SYMBOLS[31]: 0.988, SYMBOLS[8]: 0.8, SYMBOLS[9]: 0.79}
    swaps: list[int] = []
    for _ in range(3):
        done = await cycles.cycle(both)
        swaps.append(len(done.swaps))
    assert swaps == [0, 0, 1]
    assert [one.blocked_by for one in done.proposals] == [(), (ReplacementBlock.CYCLE_LIMIT,)]
    await desk.configuration.put({"replacement": {"max_per_cycle": 2}}, "test", WHO)
    desk.later(hours=24)
    assert len((await cycles.cycle(both)).swaps) == 1


def follow(desk: Desk, leader: str, follower: str) -> None:
    """Make one symbol's daily path a copy of another's."""
    panel = desk.market.panels[Interval.DAY]
    close = panel.close.copy()
    close[:, panel.symbols.index(follower)] = close[:, panel.symbols.index(leader)] * 2.0
    desk.market.panels[Interval.DAY] = replace(panel, close=close)


@pytest.mark.parametrize("obstacle", ["correlation", "sector", "confidence", "banned", "closed"])
async def test_a_candidate_that_may_not_come_in_is_passed_over(
    cycles: Cycles, obstacle: str
) -> None:
    desk = cycles.desk
    await cycles.board(BETTER)
    assert (await cycles.proposal(WEAKEST)).candidate == (await cycles.proposal(WEAKEST)).candidate
    found = (await cycles.proposal(WEAKEST)).candidate
    assert found is not None
    assert found.symbol == PLANTED
    if obstacle == "correlation":
        follow(desk, SYMBOLS[0], PLANTED)
    elif obstacle == "sector":
        for symbol in (*SYMBOLS[:4], PLANTED):
            desk.quote(symbol, sector="memes")
    elif obstacle == "closed":
        desk.status(PLANTED, ContractStatus.PAUSED)
    elif obstacle == "banned":
        await lock(desk, PLANTED, LockKind.BAN)
    else:
        await desk.configuration.put({"replacement": {"min_confidence": 0.95}}, "test", WHO)
    other = (await cycles.proposal(WEAKEST)).candidate
    assert other is None if obstacle == "confidence" else other is not None
    assert other is None or other.symbol == SYMBOLS[10]


async def test_a_copy_of_the_member_itself_may_take_its_place(cycles: Cycles) -> None:
    follow(cycles.desk, WEAKEST, PLANTED)
    await cycles.board(BETTER)
    found = (await cycles.proposal(WEAKEST)).candidate
    assert found is not None
    assert found.symbol == PLANTED
    second = (await cycles.proposal(SECOND)).candidate
    assert second is not None
    assert second.symbol != PLANTED


@pytest.mark.parametrize(
    ("status", "expires"),
    [
        (ContractStatus.BEING_SETTLED, None),
        (ContractStatus.SETTLED, None),
        (ContractStatus.CLOSED, None),
        (ContractStatus.VANISHED, None),
        (ContractStatus.OPEN, 1_900_000_000_000),
        (ContractStatus.PAUSED, 1_900_000_000_000),
    ],
)
async def test_a_member_that_cannot_stay_is_replaced_at_once(
    desk: Desk, status: ContractStatus, expires: int | None
) -> None:
    await desk.filled(10)
    gone = SYMBOLS[2]
    one = desk.market.quotes[gone].contract
    desk.quote(gone, contract=replace(one, status=status, expires_ms=expires))
    desk.score({gone: None})
    shown = (await desk.replacement.evaluate()).proposals[0]
    assert (shown.outgoing.side.symbol, shown.blocked_by) == (gone, ())
    assert (shown.is_forced, shown.strength) == (True, 1.0)
    done = (await desk.replacement.execute(WHO, unattended=True, forced_only=True)).result
    assert done is not None
    assert [(s.old.symbol, s.new.member.symbol) for s in done.swaps] == [(gone, SYMBOLS[10])]
    view = await desk.portfolio.view()
    assert view.members[2].member.symbol == SYMBOLS[10]
    assert view.members[2].member.weight_u > 0
    await sound(desk)
    again = (await desk.replacement.execute(WHO, unattended=True, forced_only=True)).result
    assert again is not None
    assert again.swaps == ()


@pytest.mark.parametrize("status", sorted(PAUSED))
async def test_D14_a_paused_member_keeps_its_weight_until_the_pause_is_too_long(
    desk: Desk, status: ContractStatus
) -> None:
    await desk.filled(10)
    held, ban = SYMBOLS[2], "the operator wants none of it"
    before = (await desk.portfolio.view()).members[2].member.weight_u
    desk.quote(held, paused_since=desk.now)
    desk.status(held, status)
    desk.score({held: None, SYMBOLS[1]: 0.3, SYMBOLS[4]: 0.99})
    assert not (await desk.trading.should_trade(held))[0].trade
    sized, _ = await desk.trading.position_size(held, Decimal(100_000), Decimal(1))
    assert (sized.size.lots, sized.size.reason) == (0, f"the contract is {status.value}")
    assert (await desk.alerts.list(AlertFilter(rule=AlertRule.NOT_TRADEABLE)))[0][0].subject == held
    for controls in (False, True):
        if controls:
            await desk.controls.lock(held, LockKind.BAN, ban, None, WHO)
        plan = (await desk.rebalancing.rebalance(WHO)).result
        assert plan is not None
        assert held not in {one.symbol for one in plan.plan.changes}
        assert plan.plan.allocation.weights_u[held] == before
    await desk.portfolio.remove(SYMBOLS[0], "its weight goes to the others", WHO)
    view = await desk.portfolio.view()
    assert {one.member.symbol: one.member.weight_u for one in view.members}[held] == before
    desk.later(days=1)
    desk.score({held: None})
    done = (await desk.replacement.execute(WHO, unattended=True, forced_only=True)).result
    assert done is not None
    assert done.swaps == (), "a day is not longer than a day"
    desk.later(seconds=1)
    desk.score({held: None})
    done = (await desk.replacement.execute(WHO, unattended=True, forced_only=True)).result
    assert done is not None
    assert [one.old.symbol for one in done.swaps] == [held]


async def test_a_weak_member_that_is_paused_waits_with_its_confirmed_swap(cycles: Cycles) -> None:
    desk = cycles.desk
    desk.quote(WEAKEST, paused_since=desk.now)
    desk.status(WEAKEST, ContractStatus.PAUSED)
    for _ in range(8):
        assert (await cycles.cycle(BETTER)).swaps == ()
    assert (await cycles.proposal(WEAKEST)).blocked_by == (ReplacementBlock.CONTRACT_PAUSED,)
    desk.status(WEAKEST, ContractStatus.OPEN)
    assert [one.old.symbol for one in (await cycles.cycle(BETTER)).swaps] == [WEAKEST]


async def test_several_can_go_at_once_though_nothing_relates_to_them_any_more(desk: Desk) -> None:
    await desk.filled(10)
    panel = desk.market.panels[Interval.DAY]
    close = panel.close.copy()
    for symbol in SYMBOLS[:3]:
        desk.status(symbol, ContractStatus.VANISHED)
        close[:, panel.symbols.index(symbol)] = np.nan
    desk.market.panels[Interval.DAY] = replace(panel, close=close)
    done = (await desk.replacement.execute(WHO, unattended=True)).result
    assert done is not None
    assert [swap.new.member.symbol for swap in done.swaps] == list(SYMBOLS[10:13])
    assert [swap.new.member.rank for swap in done.swaps] == [1, 2, 3]
    await sound(desk)


async def test_forced_swaps_can_be_left_to_the_operator(desk: Desk) -> None:
    await desk.filled(10)
    await desk.configuration.put({"replacement": {"auto_execute_forced": False}}, "test", WHO)
    desk.status(SYMBOLS[2], ContractStatus.CLOSED)
    done = (await desk.replacement.execute(WHO, unattended=True)).result
    assert done is not None
    assert done.swaps == ()
    done = (await desk.replacement.execute(WHO)).result
    assert done is not None
    assert len(done.swaps) == 1


def provisional(desk: Desk) -> None:
    """The board lacks data, as after a start."""
    assert desk.boards.board is not None
    desk.boards.board = replace(desk.boards.board, is_provisional=True)


def outdated(desk: Desk) -> None:
    """The last complete board is beyond its age limit."""
    desk.later(minutes=16)


async def run_forced(desk: Desk) -> ReplacementResult:
    done = (await desk.replacement.execute(WHO, unattended=True, forced_only=True)).result
    assert done is not None
    return done


@pytest.mark.parametrize("spoil", [provisional, outdated])
async def test_without_a_complete_board_a_forced_exit_goes_to_cash_and_is_replaced_later(
    desk: Desk, spoil: Callable[[Desk], None]
) -> None:
    await desk.filled(10)
    before = await desk.portfolio.view()
    gone = before.members[2].member
    kept = {one.member.symbol: one.member.weight_u for one in before.members if one.member != gone}
    desk.status(gone.symbol, ContractStatus.CLOSED)
    spoil(desk)
    done = await run_forced(desk)
    assert (done.exits, done.swaps, done.entries) == ((gone.symbol,), (), ())
    view = await desk.portfolio.view()
    assert {one.member.symbol: one.member.weight_u for one in view.members} == kept
    assert view.portfolio.cash_u == before.portfolio.cash_u + gone.weight_u
    await sound(desk)
    waiting = await run_forced(desk)  # the board is still not complete: nothing comes in
    assert (waiting.exits, waiting.entries) == ((), ())
    desk.score({gone.symbol: None})
    done = await run_forced(desk)
    assert done.entries == (SYMBOLS[10],)
    view = await desk.portfolio.view()
    assert len(view.members) == 10
    assert view.members[9].member.symbol == SYMBOLS[10]
    assert view.members[9].member.weight_u > 0
    await sound(desk)
    assert (await run_forced(desk)).entries == ()  # the seat is filled once


async def test_a_seat_is_not_filled_while_nobody_trades(desk: Desk) -> None:
    await desk.filled(10)
    gone = SYMBOLS[2]
    desk.status(gone, ContractStatus.CLOSED)
    provisional(desk)
    assert (await run_forced(desk)).exits == (gone,)
    desk.score({gone: None})
    desk.market.halted = True
    assert (await run_forced(desk)).entries == ()
    desk.market.halted = False
    assert (await run_forced(desk)).entries == (SYMBOLS[10],)


async def test_a_seat_is_given_up_after_its_age_limit(desk: Desk) -> None:
    await desk.filled(10)
    first, second = SYMBOLS[2], SYMBOLS[5]
    for gone in (first, second):
        desk.status(gone, ContractStatus.CLOSED)
        provisional(desk)
        assert (await run_forced(desk)).exits == (gone,)
        desk.later(hours=12)
    desk.later(seconds=1)  # the first has waited for more than a day
    desk.score({first: None, second: None})
    seats = (await desk.replacement.evaluate()).seats
    found = [(one.vacancy.symbol, one.is_given_up) for one in seats]
    assert found == [(first, True), (second, False)]
    assert all(one.vacancy.reason == "the contract is Closed" for one in seats)
    assert (await run_forced(desk)).entries == (SYMBOLS[10],), "the second seat alone"
    assert (await run_forced(desk)).entries == ()
    (left,) = (await desk.replacement.evaluate()).seats
    assert (left.vacancy.symbol, left.is_given_up) == (first, True)
    await desk.configuration.put({"replacement": {"vacancy_max_age_s": 7 * 86_400}}, "test", WHO)
    assert (await run_forced(desk)).entries == (SYMBOLS[11],)
    assert (await desk.replacement.evaluate()).seats == ()


@pytest.mark.parametrize("sector", ["layer1", UNCLASSIFIED])
async def test_a_newcomer_on_a_vacant_seat_keeps_to_the_limit_of_its_sector(
    desk: Desk, sector: str
) -> None:
    await desk.filled(10)
    await desk.configuration.put({"replacement": {"max_per_sector": 1}}, "test", WHO)
    gone, same = SYMBOLS[2], SYMBOLS[10]
    for symbol in (gone, SYMBOLS[3], same):
        desk.quote(symbol, sector=sector)
    desk.status(gone, ContractStatus.CLOSED)
    provisional(desk)
    assert (await run_forced(desk)).exits == (gone,)
    desk.score({gone: None})
    assert (await run_forced(desk)).entries == (SYMBOLS[11],), "one of the sector is held"


async def test_a_seat_that_the_operator_filled_waits_for_nobody(desk: Desk) -> None:
    await desk.filled(10)
    desk.status(SYMBOLS[2], ContractStatus.CLOSED)
    provisional(desk)
    assert (await run_forced(desk)).exits == (SYMBOLS[2],)
    desk.score({SYMBOLS[2]: None})
    await desk.portfolio.add(SYMBOLS[12], "by hand", WHO)
    await desk.portfolio.remove(SYMBOLS[0], "by hand", WHO)
    assert (await run_forced(desk)).entries == ()


@pytest.mark.parametrize("why", ["market", "clock", "halt", "switch", "pin", "policy"])
async def test_nobody_leaves_for_cash_where_states_are_unknown_or_trading_is_held_back(
    desk: Desk, why: str
) -> None:
    await desk.filled(10)
    gone = SYMBOLS[2]
    if why == "switch":
        async with desk.database.write() as unit:
            await unit.get(ControlRepository).store_switch(
                Switch(False, "incident", desk.now, "ops")
            )
    if why == "pin":
        async with desk.database.write() as unit:
            made = Lock(gone, LockKind.PIN, "stays", None, desk.now, "ops")
            await unit.get(ControlRepository).store_locks({gone: made})
    if why == "policy":
        await desk.configuration.put({"replacement": {"auto_execute_forced": False}}, "test", WHO)
    desk.status(gone, ContractStatus.CLOSED)
    provisional(desk)
    desk.market.state = DataStatus.STALE if why == "market" else DataStatus.FRESH
    desk.market.clock_safe = why != "clock"
    desk.market.halted = why == "halt"
    with suppress(UnavailableError):
        assert (await run_forced(desk)).exits == ()
    assert gone in await desk.members()


async def test_a_status_that_nobody_knows_swaps_nobody(desk: Desk) -> None:
    await desk.filled(10)
    desk.status(SYMBOLS[2], ContractStatus.UNKNOWN)
    done = (await desk.replacement.execute(WHO, unattended=True)).result
    assert done is not None
    assert done.swaps == ()


async def test_old_data_decides_nothing(cycles: Cycles) -> None:
    desk = cycles.desk
    for _ in range(2):
        await cycles.cycle(BETTER)
    assert (await cycles.proposal(WEAKEST)).confirmations == 2
    await cycles.board(BETTER)
    desk.stale(*SYMBOLS[:3])
    with pytest.raises(UnavailableError) as caught:
        await cycles.evaluate()
    assert caught.value.code is Code.MARKET_DATA_STALE
    shown = await cycles.proposal(WEAKEST)
    assert shown.blocked_by[0] is ReplacementBlock.MARKET_DATA_STALE
    assert shown.confirmations == 2, "nothing was counted"


async def test_a_halted_market_counts_and_swaps_nothing(cycles: Cycles) -> None:
    cycles.desk.market.halted = True
    for _ in range(7):
        assert (await cycles.cycle(BETTER)).swaps == ()
    cycles.desk.status(SYMBOLS[2], ContractStatus.CLOSED)  # the planted one would take its place
    assert (await cycles.cycle(BETTER)).swaps == ()
    for one in (await cycles.desk.replacement.evaluate()).proposals:
        assert one.blocked_by[0] is ReplacementBlock.MARKET_HALTED
        assert one.confirmations == 0


async def test_before_the_first_board_nothing_is_proposed_or_done(desk: Desk) -> None:
    await desk.open()
    desk.boards.board = None
    assert (await desk.replacement.evaluate()).proposals == ()
    with pytest.raises(UnavailableError) as caught:
        await desk.replacement.execute(WHO)
    assert caught.value.code is Code.NO_BOARD_YET


async def test_without_history_nobody_can_be_judged_close_enough(desk: Desk) -> None:
    await desk.filled(10)
    desk.market.panels.clear()
    desk.status(SYMBOLS[2], ContractStatus.CLOSED)
    shown = (await desk.replacement.evaluate()).proposals[0]
    assert (shown.candidate, shown.blocked_by) == (None, (ReplacementBlock.NO_CANDIDATE,))
    done = (await desk.replacement.execute(WHO)).result
    assert done is not None
    assert done.swaps == ()


async def test_a_manual_replace_skips_the_hysteresis(desk: Desk) -> None:
    await desk.filled(10)
    outcome = await desk.portfolio.replace(SYMBOLS[0], SYMBOLS[20], "manual", WHO)
    assert outcome.result is not None
    with pytest.raises(ConflictError):
        await desk.portfolio.replace(SYMBOLS[0], SYMBOLS[21], "again", WHO)


async def test_a_member_whose_replacement_is_confirmed_is_not_funded(desk: Desk) -> None:
    cycles = await Cycles(desk).begin(auto_execute_confirmed=False)
    for _ in range(8):
        await cycles.cycle(BETTER)
    assert (await cycles.proposal(WEAKEST)).is_due
    done = (await desk.rebalancing.rebalance(WHO)).result
    assert done is not None
    reasons = {one.symbol: (one.new_u, one.reason) for one in done.plan.changes}
    assert reasons[WEAKEST] == (0, "its replacement is confirmed")
    swapped = (await desk.replacement.execute(WHO)).result
    assert swapped is not None
    weights = {
        one.member.symbol: one.member.weight_u for one in (await desk.portfolio.view()).members
    }
    assert weights[PLANTED] > 0
    await sound(desk)


async def test_a_member_that_left_and_came_back_begins_anew(desk: Desk) -> None:
    cycles = await Cycles(desk).begin(auto_execute_confirmed=False)
    for _ in range(6):
        await cycles.cycle(BETTER)
    assert (await cycles.proposal(WEAKEST)).is_due
    await desk.portfolio.remove(WEAKEST, "out", WHO)
    await desk.portfolio.add(WEAKEST, "in again", WHO)
    member = (await desk.portfolio.view()).portfolio.member(WEAKEST)
    assert member is not None
    assert member.weight_u > 0, "nobody is confirmed in its place any more"
    assert (await cycles.proposal(WEAKEST)).confirmations == 0


async def lock(desk: Desk, symbol: str, kind: LockKind) -> None:
    made = Lock(symbol, kind, "the operator says so", None, desk.now, "ops")
    async with desk.database.write() as unit:
        await unit.get(ControlRepository).store_locks({symbol: made})


async def test_a_pinned_member_stays(cycles: Cycles) -> None:
    desk = cycles.desk
    await lock(desk, WEAKEST, LockKind.PIN)
    for _ in range(8):
        assert (await cycles.cycle(BETTER)).swaps == ()
    assert (await cycles.proposal(WEAKEST)).blocked_by == (ReplacementBlock.PINNED,)
    desk.status(WEAKEST, ContractStatus.CLOSED)
    desk.status(SECOND, ContractStatus.CLOSED)
    done = await cycles.evaluate(forced_only=True)
    assert [swap.old.symbol for swap in done.swaps] == [SECOND]
    assert (await cycles.proposal(WEAKEST)).blocked_by == (ReplacementBlock.PINNED,)


async def test_while_trading_is_off_nothing_is_counted_or_swapped(cycles: Cycles) -> None:
    desk = cycles.desk
    async with desk.database.write() as unit:
        await unit.get(ControlRepository).store_switch(Switch(False, "incident", desk.now, "ops"))
    for _ in range(7):
        assert (await cycles.cycle(BETTER)).swaps == ()
    pending = (await desk.replacement.evaluate()).proposals
    assert PLANTED in {one.candidate.symbol for one in pending if one.candidate is not None}
    async with desk.database.read() as unit:
        assert await unit.get(ReplacementRepository).confirmation_counts() == {}
    desk.status(SYMBOLS[2], ContractStatus.CLOSED)
    assert (await cycles.cycle(BETTER)).swaps == ()
    for one in (await desk.replacement.evaluate()).proposals:
        assert one.blocked_by[0] is ReplacementBlock.TRADING_DISABLED
        assert one.confirmations == 0
    assert "trading_disabled" in {one.code for one in (await desk.safety.validate()).issues}
