"""A wall clock that is set, or wrong at the start, shortens and lengthens no wait (issue 17, 1)."""

from datetime import datetime, timedelta

import pytest

from app.foundation.errors import Code, ConflictError
from app.foundation.idempotency import StoredResponse
from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.proposals import Proposal, ProposalState
from app.portfolio.domain.replacement import ReplacementBlock
from app.portfolio.services.decision_context import ElapsedTime
from app.portfolio.services.replacement import ReplacementResult
from app.signals.domain.models import SignalState
from tests.support.signal_fixtures import claim
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
HELD = SYMBOLS[2]


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def rendered(done: Proposal) -> StoredResponse:
    return StoredResponse(200, {}, repr(done).encode())


async def forced(desk: Desk) -> list[str]:
    """Members that a check of the schedule replaces because they cannot stay."""
    desk.score({HELD: None})
    done = (await desk.replacement.execute(WHO, unattended=True, forced_only=True)).result
    assert isinstance(done, ReplacementResult)
    return [one.old.symbol for one in done.swaps]


def restarted(desk: Desk, ahead: timedelta) -> Desk:
    """Another process over the same database and market, with a wall clock of its own."""
    other = Desk(
        desk.database, desk.market, desk.boards, now=desk.now, ahead=ahead, process="again"
    )
    other.score({})
    return other


async def paused(desk: Desk) -> None:
    """A member whose contract has been paused for an hour."""
    await desk.filled()
    desk.quote(HELD, paused_since=desk.wall)
    desk.status(HELD, ContractStatus.PAUSED)
    assert await forced(desk) == []
    desk.now += HOUR


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("ahead", [DAY, -DAY, 30 * DAY])
async def test_a_wall_clock_that_is_set_makes_no_short_pause_a_long_one(
    desk: Desk, ahead: timedelta, *, is_restarted: bool
) -> None:
    await paused(desk)
    if is_restarted:
        desk = restarted(desk, ahead)
    desk.ahead = ahead
    assert await forced(desk) == []
    desk.ahead = timedelta(0)
    assert await forced(desk) == []
    desk.now += DAY - HOUR
    assert await forced(desk) == []
    desk.now += HOUR + timedelta(seconds=1)
    assert await forced(desk) == [HELD], "a wait ends all the same"


async def test_a_pause_that_was_stamped_a_day_ahead_is_too_long_a_day_after_it_was_seen(
    desk: Desk,
) -> None:
    desk.ahead = DAY
    await paused(desk)
    desk = restarted(desk, timedelta(0))
    assert await forced(desk) == []
    desk.now += DAY
    assert await forced(desk) == []
    desk.now += timedelta(seconds=1)
    assert await forced(desk) == [HELD]


async def is_cooling_down(desk: Desk) -> bool:
    shown = await desk.replacement.evaluate()
    return all(ReplacementBlock.COOLDOWN in one.blocked_by for one in shown.proposals)


@pytest.mark.parametrize("ahead", [DAY, 30 * DAY])
async def test_the_cooldown_lasts_as_long_as_it_says(desk: Desk, ahead: timedelta) -> None:
    await desk.filled()
    await desk.portfolio.replace(SYMBOLS[9], SYMBOLS[20], "try", WHO)
    assert await is_cooling_down(desk)
    desk.now += HOUR
    desk.ahead = ahead
    desk.score({})
    assert await is_cooling_down(desk), "a clock that runs ahead does not end it"
    other = restarted(desk, ahead)
    assert await is_cooling_down(other)
    desk.ahead = timedelta(0)
    desk.now += DAY - HOUR
    desk.score({})
    assert not await is_cooling_down(desk)


async def test_a_swap_that_was_stamped_ahead_delays_the_next_by_the_is_cooling_down(
    desk: Desk,
) -> None:
    await desk.filled()
    desk.ahead = 30 * DAY
    desk.score({})
    await desk.portfolio.replace(SYMBOLS[9], SYMBOLS[20], "try", WHO)
    desk.ahead = timedelta(0)
    desk.score({})
    assert await is_cooling_down(desk)
    desk.now += DAY
    desk.score({})
    assert not await is_cooling_down(desk)


@pytest.mark.parametrize("is_stamped_ahead", [False, True])
async def test_the_spacing_of_rebalances_lasts_as_long_as_it_says(
    desk: Desk, *, is_stamped_ahead: bool
) -> None:
    await desk.filled()
    desk.ahead = DAY if is_stamped_ahead else timedelta(0)
    desk.score({SYMBOLS[0]: 0.61})
    made = (await desk.rebalancing.rebalance(WHO)).result
    assert made is not None
    assert made.plan.changes
    desk.ahead = timedelta(0) if is_stamped_ahead else DAY
    desk.now += timedelta(seconds=1)
    desk.score({SYMBOLS[0]: 0.95})
    assert not await desk.rebalancing.has_drifted()
    desk.now += HOUR
    desk.score({SYMBOLS[0]: 0.95})
    assert await desk.rebalancing.has_drifted()


async def test_the_interval_is_not_over_because_a_clock_was_set(desk: Desk) -> None:
    await desk.filled()
    desk.score({SYMBOLS[0]: 0.61})
    assert not await _is_interval(desk)
    desk.ahead = 2 * DAY
    desk.score({SYMBOLS[0]: 0.61})
    assert not await _is_interval(desk)
    desk.ahead, desk.now = timedelta(0), desk.now + DAY
    desk.score({SYMBOLS[0]: 0.61})
    assert await _is_interval(desk)


async def _is_interval(desk: Desk) -> bool:
    plan = (await desk.rebalancing.rebalance(WHO, dry_run=True)).result
    assert plan is not None
    return "interval" in plan.plan.triggers


async def proposal_states(desk: Desk) -> list[str]:
    return [one.proposal.state.value for one in await desk.proposals.page(None, 10)]


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("ahead", [2 * DAY, -2 * DAY])
async def test_a_proposal_stays_open_as_long_as_it_says(
    desk: Desk, ahead: timedelta, *, is_restarted: bool
) -> None:
    """A clock that is set neither shows nor stores its end, and it can be approved."""
    await desk.filled()
    await desk.configuration.put({"automation": {"rebalance": "propose"}}, "careful", WHO)
    desk.later(hours=1)
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)
    desk.later(hours=1)
    if is_restarted:
        desk = restarted(desk, ahead)
    desk.ahead = ahead
    desk.score({SYMBOLS[0]: 0.61})
    assert await proposal_states(desk) == ["open"]
    await desk.rebalancing.check(WHO)
    assert await proposal_states(desk) == ["open"], "the schedule leaves it, too"
    desk.ahead = timedelta(0)
    desk.later(hours=22, minutes=59)
    assert await proposal_states(desk) == ["open"]
    (shown,) = await desk.proposals.page(None, 10)
    desk.ahead = ahead
    desk.score({SYMBOLS[0]: 0.61})
    proposal = shown.proposal
    done = await desk.proposals.approve(proposal.proposal_id, "yes", WHO, rendered)
    assert done.result is not None
    assert done.result.state is ProposalState.APPROVED


async def test_a_proposal_ends_when_its_time_is_over_by_all_clocks(desk: Desk) -> None:
    await desk.filled()
    await desk.configuration.put({"automation": {"rebalance": "propose"}}, "careful", WHO)
    desk.ahead = 2 * DAY
    desk.score({SYMBOLS[0]: 0.61})
    desk.later(hours=1)
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)
    assert await proposal_states(desk) == ["open"]
    desk.ahead = timedelta(0)
    desk.later(hours=23, minutes=59)
    assert await proposal_states(desk) == ["open"]
    desk.later(minutes=1)
    assert await proposal_states(desk) == ["expired"], "though it was stamped two days ahead"


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_clock_that_runs_ahead_lifts_no_lock(desk: Desk, *, is_restarted: bool) -> None:
    await desk.filled()
    ends = desk.now + 2 * HOUR
    await desk.controls.lock(SYMBOLS[20], LockKind.BAN, "hack", ends, WHO)
    desk.later(hours=1)
    if is_restarted:
        desk = restarted(desk, DAY)
    desk.ahead = DAY
    desk.score({})
    assert (await desk.controls.controls()).ban(SYMBOLS[20]) == "hack"
    with pytest.raises(ConflictError) as refused:
        await desk.portfolio.replace(SYMBOLS[9], SYMBOLS[20], "try", WHO)
    assert refused.value.code is Code.SYMBOL_BANNED
    # Another lock is stored beside it, not in its place.
    await desk.controls.lock(SYMBOLS[21], LockKind.WATCH, "look", None, WHO)
    desk.ahead = timedelta(0)
    desk.score({})
    assert set((await desk.controls.controls()).locks) == {SYMBOLS[20], SYMBOLS[21]}
    desk.later(hours=1)
    desk.score({})
    assert set((await desk.controls.controls()).locks) == {SYMBOLS[21]}


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_a_clock_that_runs_ahead_ends_no_signal(desk: Desk, *, is_restarted: bool) -> None:
    await desk.open()
    desk.boards.board = None  # nothing is evaluated
    await desk.signals.submit(claim(SYMBOLS[0]), WHO)
    desk.later(hours=1)
    if is_restarted:
        desk = Desk(desk.database, desk.market, desk.boards, now=desk.now)
    desk.ahead = 2 * DAY
    assert await desk.signals.evaluate_pending() == 0
    cleaned = (await desk.signals.cleanup(30 * DAY, WHO)).result
    assert cleaned is not None
    assert cleaned.expired == 0
    (waiting,) = await desk.signals.pending(10)
    assert waiting.claim.symbol == SYMBOLS[0]
    desk.ahead = timedelta(0)
    desk.later(hours=22, minutes=59)
    assert await desk.signals.evaluate_pending() == 0
    desk.later(minutes=1)
    assert await desk.signals.evaluate_pending() == 1
    assert (await desk.signals.get(waiting.signal_id)).signal.state is SignalState.EXPIRED


class Clocks:
    """Wall, exchange and monotonic clock of one process."""

    def __init__(self) -> None:
        self.wall: datetime = NOW
        self.exchange: datetime | None = NOW
        self.mono = 0.0
        self.elapsed = ElapsedTime(lambda: self.mono, lambda: self.exchange)

    def since(self, stamp: datetime) -> timedelta:
        return self.elapsed.since(stamp, self.wall)


def test_nothing_is_proven_before_the_exchange_has_said_its_time() -> None:
    clocks = Clocks()
    clocks.exchange = None
    assert clocks.since(NOW - DAY) == timedelta(0)
    clocks.exchange = NOW
    assert clocks.since(NOW - DAY) == DAY


def test_neither_clock_proves_more_than_the_other_at_first_sight() -> None:
    for late in ("wall", "exchange"):
        clocks = Clocks()
        setattr(clocks, late, NOW + DAY)
        assert clocks.since(NOW - HOUR) == HOUR, late


def test_a_stamp_that_is_still_to_come_counts_from_its_first_sight() -> None:
    clocks = Clocks()
    assert clocks.since(NOW + DAY) == timedelta(0)
    clocks.mono += 60.0
    assert clocks.since(NOW + DAY) == timedelta(seconds=60)


def test_only_the_stamps_seen_last_are_remembered() -> None:
    clocks = Clocks()
    stamps = [NOW + timedelta(days=1, seconds=at) for at in range(5_000)]
    for stamp in stamps:
        clocks.since(stamp)
    clocks.mono += 60.0
    assert clocks.since(stamps[-1]) == timedelta(seconds=60)
    assert clocks.since(stamps[0]) == timedelta(0)
