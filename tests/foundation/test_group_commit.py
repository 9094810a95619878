"""Group commit: shared transactions, answers of one's own, bounds, and who leaves early."""

import asyncio
from collections.abc import Hashable, Sequence

import pytest

from app.foundation.concurrency import GroupCommit
from app.foundation.errors import Code, NotFoundError, RateLimitedError, UnavailableError

BAD = 13
AWAY = UnavailableError(Code.DATABASE_UNAVAILABLE, "away")


class Ledger:
    """Takes as many groups in as it may, and remembers them."""

    def __init__(self, may: int = 100) -> None:
        self.groups: list[list[int]] = []
        self.may = asyncio.Semaphore(may)
        self.is_away = False

    async def carry_out(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.groups.append([*items])
        await self.may.acquire()
        if self.is_away:
            raise AWAY
        if BAD in items:
            raise ZeroDivisionError
        return [-one if one else NotFoundError(Code.NOT_FOUND, "zero") for one in items]

    def grouped(self, most: int = 4, most_waiting: int = 100) -> GroupCommit[int, int]:
        return GroupCommit(self.carry_out, _no_twins, most, most_waiting)


def _no_twins(item: int) -> Hashable | None:
    return item % 100 if item >= 100 else None


def _go_on(ledger: Ledger) -> None:
    for _ in range(100):
        ledger.may.release()


async def _begun(group: GroupCommit[int, int], *items: int) -> list["asyncio.Task[int]"]:
    """The first alone in a group that is being carried out, the others wait."""
    tasks = []
    for one in items:
        tasks.append(asyncio.ensure_future(group.join(one)))
        for _ in range(5):
            await asyncio.sleep(0)
    return tasks


async def test_who_comes_meanwhile_shares_the_next_group_and_all_hear_their_own_answer() -> None:
    ledger = Ledger()
    group = ledger.grouped()
    answers = await asyncio.gather(*map(group.join, range(1, 11)))
    assert answers == [-one for one in range(1, 11)]
    assert ledger.groups == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


async def test_an_error_of_one_is_its_own_and_what_breaks_the_group_is_tried_alone() -> None:
    ledger = Ledger()
    group = ledger.grouped()
    answers = await asyncio.gather(*map(group.join, (1, BAD, 0, 2, 3)), return_exceptions=True)
    assert ledger.groups == [[1, BAD, 0, 2], [1], [BAD], [0], [2], [3]]
    good, kinds = answers[:1] + answers[3:], [type(one) for one in answers[1:3]]
    assert (good, kinds) == ([-1, -2, -3], [ZeroDivisionError, NotFoundError])


async def test_an_outage_is_told_to_all_of_the_group_and_not_tried_for_each() -> None:
    ledger = Ledger()
    ledger.is_away = True
    group = ledger.grouped()
    answers = await asyncio.gather(*map(group.join, (1, 2, 3)), return_exceptions=True)
    assert answers == [AWAY, AWAY, AWAY]
    assert ledger.groups == [[1, 2, 3]]


async def test_who_finds_too_many_waiting_is_sent_away_at_once() -> None:
    ledger = Ledger(may=0)
    group = ledger.grouped(most_waiting=2)
    tasks = await _begun(group, 1, 2, 3)
    assert ledger.groups == [[1]]
    with pytest.raises(RateLimitedError) as refused:
        await asyncio.wait_for(group.join(4), 60)
    assert refused.value.retry_after_s
    _go_on(ledger)
    assert await asyncio.gather(*tasks) == [-1, -2, -3]
    assert await group.join(4) == -4


async def test_who_leaves_before_its_group_began_leaves_nothing_behind() -> None:
    ledger = Ledger(may=0)
    group = ledger.grouped()
    tasks = await _begun(group, 1, 2, 3)
    tasks[1].cancel()
    await asyncio.sleep(0)
    _go_on(ledger)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert (answers[0], answers[2]) == (-1, -3)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert ledger.groups == [[1], [3]]


async def test_a_leader_that_leaves_takes_nobody_with_it() -> None:
    ledger = Ledger(may=0)
    group = ledger.grouped()
    tasks = await _begun(group, 1, 2, 3)
    ledger.may.release()
    assert await tasks[0] == -1
    while len(ledger.groups) < 2:
        await asyncio.sleep(0)
    tasks[1].cancel()  # it leads the second group
    await asyncio.sleep(0)
    ledger.may.release()
    with pytest.raises(asyncio.CancelledError):
        await tasks[1]
    assert await tasks[2] == -3
    assert ledger.groups == [[1], [2, 3]]


async def test_items_that_must_stay_apart_are_in_groups_of_their_own_order() -> None:
    ledger = Ledger()
    group = ledger.grouped()
    await asyncio.gather(*map(group.join, (1, 207, 307, 2, 407, 3)))
    assert ledger.groups == [[1, 207, 2, 3], [307], [407]]
