"""What the schedule proposes under each policy, and what a decision does: once, in time, safely."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.foundation.errors import Code, ConflictError, NotFoundError, ServiceError
from app.foundation.events import EventTopic
from app.foundation.idempotency import Command, StoredResponse
from app.foundation.sql.database import Database
from app.foundation.sql.events import EventRepository
from app.market.domain.models import ContractStatus
from app.operations.domain.event_codec import decode_event
from app.portfolio.domain.events import (
    PortfolioChanged,
    ProposalDecided,
    ProposalOpened,
    ProposedWeight,
    proposal_opened,
)
from app.portfolio.domain.proposals import Proposal, ProposalKind, ProposalState
from app.portfolio.domain.rebalance_run import RunState
from app.portfolio.services.proposals import ProposalView
from app.portfolio.services.rebalance_runs import RebalanceRequest
from tests.conftest import MakeDatabase
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

OPERATOR = Command("kim", "request-2")


def rendered(done: Proposal) -> StoredResponse:
    return StoredResponse(200, {}, repr(done).encode())


class Key:
    key = "k"
    fingerprint = "f"


async def put(desk: Desk, **policy: object) -> None:
    await desk.configuration.put({"automation": policy}, "careful", WHO)


async def listed(desk: Desk) -> tuple[ProposalView, ...]:
    return await desk.proposals.page(None, 50)


async def states(desk: Desk) -> list[str]:
    """Oldest first."""
    return [one.proposal.state.value for one in sorted(await listed(desk), key=_age)]


def _age(one: ProposalView) -> tuple[Any, int]:
    return one.proposal.opened_at, int(one.proposal.proposal_id.split("-")[1])


async def proposed(desk: Desk) -> Proposal:
    """The one that is open."""
    (found,) = (
        one.proposal for one in await listed(desk) if one.proposal.state is ProposalState.OPEN
    )
    return found


async def approve(desk: Desk, proposal: Proposal, who: Command = OPERATOR) -> Proposal:
    outcome = await desk.proposals.approve(proposal.proposal_id, "looks right", who, rendered)
    assert outcome.result is not None
    return outcome.result


async def last_run_state(desk: Desk) -> RunState:
    return (await desk.rebalancing.runs.page(None, 1))[0].state


async def version(desk: Desk) -> int:
    return (await desk.portfolio.view()).portfolio.version


async def last_change(desk: Desk) -> PortfolioChanged:
    """The event of the newest version, as it is stored."""
    async with desk.database.read() as unit:
        records = await unit.get(EventRepository).after(0, 500, [EventTopic.PORTFOLIO_CHANGE])
    event = decode_event(records[-1])
    assert isinstance(event, PortfolioChanged)
    return event


async def checked(desk: Desk) -> None:
    desk.later(hours=1)
    desk.score({SYMBOLS[0]: 0.61})
    await desk.rebalancing.check(WHO)


@pytest.fixture
async def careful(desk: Desk) -> Desk:
    """A desk whose schedule proposes rebalances; one is open."""
    await desk.filled()
    await put(desk, rebalance="propose")
    await checked(desk)
    return desk


async def test_by_default_the_schedule_carries_out_and_proposes_nothing(desk: Desk) -> None:
    await desk.filled()
    await checked(desk)
    assert await version(desk) == 2
    assert await listed(desk) == ()


async def test_observing_writes_down_what_it_would_have_done(desk: Desk) -> None:
    await desk.filled()
    await put(desk, rebalance="observe")
    before = await version(desk)
    await checked(desk)
    (run,) = await desk.rebalancing.runs.page(None, 5)
    assert run.state is RunState.OBSERVED
    assert run.outcome is not None
    assert run.outcome.changes
    assert run.outcome.version_after == before == await version(desk)
    assert await listed(desk) == ()


async def test_a_proposed_rebalance_waits_and_is_proposed_once(careful: Desk) -> None:
    before = await version(careful)
    first = await proposed(careful)
    assert (first.kind, first.version, first.reason) == (
        ProposalKind.REBALANCE,
        before,
        "drift",
    )
    assert len(first.action["changes"]) > 0
    assert await last_run_state(careful) is RunState.PROPOSED
    await checked(careful)
    assert await proposed(careful) == first, "the same is not asked twice"
    assert await version(careful) == before


async def test_an_approval_carries_it_out_and_says_what_came_of_it(careful: Desk) -> None:
    waiting = await proposed(careful)
    done = await approve(careful, waiting)
    assert done.state is ProposalState.APPROVED
    assert done.decision is not None
    assert (done.decision.by, done.decision.reason) == ("kim", "looks right")
    assert done.decision.version == waiting.version + 1 == await version(careful)
    run, _ = await careful.rebalancing.runs.one(str(done.decision.run_id))
    assert (run.state, run.actor, run.reason) == (RunState.DONE, "kim", "looks right")
    event = await last_change(careful)
    assert (event.version, event.type, event.symbol) == (waiting.version + 1, "REBALANCE", None)
    assert (event.proposal_id, event.run_id) == (waiting.proposal_id, run.run_id)
    weights_u = {
        one.symbol: one.weight_u for one in (await careful.portfolio.view()).portfolio.members
    }
    assert {one.symbol: one.new_u for one in event.members} == weights_u
    reasons = {one["symbol"]: one["reason"] for one in waiting.action["changes"]}
    assert {one.symbol: one.reason for one in event.members if one.reason} == reasons
    (shown,) = await listed(careful)
    assert (shown.proposal, shown.is_outdated) == (done, False)
    for decide in (careful.proposals.approve, careful.proposals.decline):
        with pytest.raises(ConflictError) as caught:
            await decide(waiting.proposal_id, "again", OPERATOR, rendered)
        assert caught.value.code is Code.INVALID_STATE_TRANSITION
        assert caught.value.facts == {"state": "approved"}
    assert await version(careful) == waiting.version + 1


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({SYMBOLS[0]: 0.98}, "No rebalance is needed now."),
        ({SYMBOLS[0]: 0.61, SYMBOLS[1]: 0.30}, "The current plan is proposed."),
    ],
)
async def test_targets_that_have_moved_too_far_are_not_what_was_approved(
    careful: Desk, scores: dict[str, float], said: str
) -> None:
    waiting = await proposed(careful)
    careful.score(scores)
    with pytest.raises(ConflictError) as caught:
        await approve(careful, waiting)
    assert caught.value.code is Code.PLAN_CHANGED
    assert caught.value.detail.endswith(said)
    assert await version(careful) == waiting.version
    follows = "proposal_id" in caught.value.facts
    assert await states(careful) == ["superseded", "open"][: 1 + follows]
    assert follows is (said[0] == "T")


async def test_what_may_not_be_traded_now_keeps_its_weight_or_the_plan_does_not_hold(
    careful: Desk,
) -> None:
    waiting = await proposed(careful)
    moved = {one["symbol"] for one in waiting.action["changes"]}
    still = max(moved)  # not the one that has drifted itself
    careful.quote(still, is_fresh=False)
    with pytest.raises(ConflictError) as caught:
        await approve(careful, waiting)
    assert caught.value.code is Code.PLAN_CHANGED
    assert await version(careful) == waiting.version
    assert (await proposed(careful)).proposal_id == caught.value.facts["proposal_id"]


async def test_a_proposal_that_was_stored_without_its_weights_is_proposed_anew(
    careful: Desk,
) -> None:
    waiting = await proposed(careful)
    before = {name: waiting.action[name] for name in ("changes", "triggers", "turnover_u", "cost")}
    async with careful.database.write() as unit:
        wanted = text("UPDATE proposals SET action = :action")
        await unit.connection.execute(wanted, {"action": json.dumps(before)})
    with pytest.raises(ConflictError) as caught:
        await approve(careful, waiting)
    assert caught.value.code is Code.PLAN_CHANGED
    again = await proposed(careful)
    assert caught.value.facts == {"proposal_id": again.proposal_id}
    assert await states(careful) == ["superseded", "open"]
    with pytest.raises(ConflictError) as caught:
        await approve(careful, waiting)
    assert caught.value.code is Code.INVALID_STATE_TRANSITION
    assert (await approve(careful, again)).state is ProposalState.APPROVED


async def test_a_declined_proposal_changes_nothing(careful: Desk) -> None:
    waiting = await proposed(careful)
    outcome = await careful.proposals.decline(waiting.proposal_id, "no", OPERATOR, rendered)
    assert outcome.result is not None
    assert outcome.result.state is ProposalState.DECLINED
    assert await version(careful) == waiting.version
    with pytest.raises(ConflictError):
        await approve(careful, waiting)
    await checked(careful)
    assert await states(careful) == ["declined", "open"], "it may be proposed again"


async def test_C13_of_an_approval_and_a_refusal_at_once_one_wins(careful: Desk) -> None:
    waiting = await proposed(careful)
    endings = await asyncio.gather(
        careful.proposals.approve(waiting.proposal_id, "yes", OPERATOR, rendered),
        careful.proposals.decline(waiting.proposal_id, "no", OPERATOR, rendered),
        return_exceptions=True,
    )
    lost = [one for one in endings if isinstance(one, ServiceError)]
    (refused,) = lost
    assert refused.code is Code.INVALID_STATE_TRANSITION
    state = (await states(careful))[0]
    assert await version(careful) == waiting.version + (state == "approved")
    runs = await careful.rebalancing.runs.page(None, 5)
    assert not any(run.is_active for run in runs)


async def test_of_many_approvals_one_carries_it_out(careful: Desk) -> None:
    waiting = await proposed(careful)
    endings = await asyncio.gather(
        *(
            careful.proposals.approve(waiting.proposal_id, "yes", OPERATOR, rendered)
            for _ in range(5)
        ),
        return_exceptions=True,
    )
    codes = [one.code for one in endings if isinstance(one, ServiceError)]
    assert len(codes) == 4
    assert set(codes) <= {
        Code.INVALID_STATE_TRANSITION,
        Code.REBALANCE_IN_PROGRESS,
        Code.VERSION_CONFLICT,
    }
    assert await states(careful) == ["approved"]
    assert await version(careful) == waiting.version + 1


async def test_a_key_repeats_the_answer(careful: Desk) -> None:
    waiting = await proposed(careful)
    who = replace(OPERATOR, idempotency_key=Key())
    first = await careful.proposals.approve(waiting.proposal_id, "yes", who, rendered)
    again = await careful.proposals.approve(waiting.proposal_id, "yes", who, rendered)
    assert (first.is_replay, again.is_replay) == (False, True)
    assert again.answer == first.answer
    assert await version(careful) == waiting.version + 1


async def test_made_for_another_version_it_is_superseded(careful: Desk) -> None:
    waiting = await proposed(careful)
    await careful.portfolio.remove(SYMBOLS[9], "x", WHO)
    (shown,) = await listed(careful)
    assert shown.is_outdated
    after = await version(careful)
    with pytest.raises(ConflictError) as caught:
        await approve(careful, waiting)
    assert caught.value.code is Code.VERSION_CONFLICT
    assert await states(careful) == ["superseded"]
    assert await version(careful) == after


async def test_the_schedule_supersedes_what_it_no_longer_recommends(careful: Desk) -> None:
    await careful.portfolio.remove(SYMBOLS[9], "x", WHO)
    await put(careful, rebalance="auto")
    careful.later(hours=1)
    careful.score({})
    await careful.rebalancing.check(WHO)
    assert await states(careful) == ["superseded"]


async def test_nobody_decided_in_time(careful: Desk) -> None:
    waiting = await proposed(careful)
    careful.now = waiting.expires_at
    careful.score({SYMBOLS[0]: 0.61})
    assert await states(careful) == ["expired"], "without anybody writing it"
    for decide in (careful.proposals.approve, careful.proposals.decline):
        with pytest.raises(ConflictError) as caught:
            await decide(waiting.proposal_id, "late", OPERATOR, rendered)
        assert caught.value.facts == {"state": "expired"}
    await careful.rebalancing.check(WHO)
    assert await states(careful) == ["expired", "open"]
    assert await version(careful) == waiting.version


@pytest.mark.parametrize("obstacle", ["stale", "switch", "run"])
async def test_what_cannot_be_carried_out_now_stays_open(careful: Desk, obstacle: str) -> None:
    waiting = await proposed(careful)
    if obstacle == "switch":
        # The switch makes a version of its own: the proposal is asked for anew.
        await careful.controls.switch(False, "holidays", WHO)
        with pytest.raises(ConflictError):
            await approve(careful, waiting)
        assert await states(careful) == ["superseded"]
        return
    if obstacle == "stale":
        careful.stale(*SYMBOLS[:3])
    else:
        await careful.rebalancing.runs.claim(RebalanceRequest(), WHO)
    with pytest.raises(ServiceError) as caught:
        await approve(careful, waiting)
    assert caught.value.code in {Code.MARKET_DATA_STALE, Code.REBALANCE_IN_PROGRESS}
    assert await proposed(careful) == waiting
    for symbol in SYMBOLS[:3]:
        careful.quote(symbol, is_fresh=True)
    careful.later(seconds=30)
    assert (await approve(careful, waiting)).state is ProposalState.APPROVED


async def test_there_is_no_such_proposal(desk: Desk) -> None:
    await desk.filled(1)
    for decide in (desk.proposals.approve, desk.proposals.decline):
        with pytest.raises(NotFoundError):
            await decide("none", "x", OPERATOR, rendered)


async def test_if_match_is_the_version_of_the_proposal(careful: Desk) -> None:
    waiting = await proposed(careful)
    for decide in (careful.proposals.approve, careful.proposals.decline):
        with pytest.raises(ServiceError) as caught:
            await decide(waiting.proposal_id, "x", replace(OPERATOR, if_match=99), rendered)
        assert caught.value.code is Code.PRECONDITION_FAILED
    assert (await approve(careful, waiting, replace(OPERATOR, if_match=waiting.version))).decision


# --- replacements ------------------------------------------------------------------------------


async def weak(desk: Desk, **policy: object) -> Desk:
    """The last member may be replaced: forced ones wait for the policy, too."""
    await desk.filled()
    changes = {"replacement": {"auto_execute_forced": False}, "automation": policy}
    await desk.configuration.put(changes, "careful", WHO)
    desk.status(SYMBOLS[9], ContractStatus.BEING_SETTLED)
    desk.later(minutes=5)
    desk.score({})
    return desk


async def evaluated(desk: Desk) -> None:
    await desk.replacement.execute(WHO, unattended=True)


async def test_a_replacement_is_proposed_approved_and_made(desk: Desk) -> None:
    await weak(desk)
    await evaluated(desk)
    await evaluated(desk)
    waiting = await proposed(desk)
    assert (waiting.kind, waiting.subject) == (ProposalKind.REPLACEMENT, SYMBOLS[9])
    assert waiting.action["forced"] == "the contract is BeingSettled"
    newcomer = waiting.action["new_symbol"]
    assert newcomer not in await desk.members()
    done = await approve(desk, waiting)
    assert done.decision is not None
    assert (done.decision.run_id, done.decision.version) == (None, await version(desk))
    event = await last_change(desk)
    assert (event.type, event.symbol, event.other_symbol) == ("REPLACE", newcomer, SYMBOLS[9])
    assert (event.proposal_id, event.run_id) == (waiting.proposal_id, None)
    members = await desk.members()
    assert (newcomer in members, SYMBOLS[9] in members) == (True, False)


async def test_the_approved_newcomer_must_still_be_admissible(desk: Desk) -> None:
    await weak(desk)
    await evaluated(desk)
    waiting = await proposed(desk)
    desk.status(waiting.action["new_symbol"], ContractStatus.PAUSED)
    with pytest.raises(ServiceError) as caught:
        await approve(desk, waiting)
    assert caught.value.code is Code.SYMBOL_NOT_TRADABLE
    assert await proposed(desk) == waiting
    await evaluated(desk)
    other = await proposed(desk)
    assert other.action["new_symbol"] != waiting.action["new_symbol"]
    assert await states(desk) == ["superseded", "open"]


async def test_a_member_that_recovers_is_no_longer_proposed(desk: Desk) -> None:
    await weak(desk)
    await evaluated(desk)
    desk.status(SYMBOLS[9], ContractStatus.OPEN)
    await evaluated(desk)
    assert await states(desk) == ["superseded"]


@pytest.mark.parametrize(("policy", "is_made"), [("observe", False), ("auto", True)])
async def test_observed_or_made_at_once_nothing_is_proposed(
    desk: Desk, policy: str, is_made: bool
) -> None:
    await weak(desk, replacement=policy)
    await evaluated(desk)
    assert await listed(desk) == ()
    assert (SYMBOLS[9] not in await desk.members()) == is_made


async def test_proposals_and_decisions_are_announced(
    database_url: str, make_database: MakeDatabase
) -> None:
    heard: list[object] = []
    database: Database = make_database(database_url, publish=heard.append)
    await database.open()
    desk = await Desk(database).filled()
    await put(desk, rebalance="propose")
    await checked(desk)
    waiting = await proposed(desk)
    await approve(desk, waiting)
    await database.close()
    told = [one for one in heard if isinstance(one, ProposalOpened | ProposalDecided)]
    assert [type(one) for one in told] == [ProposalOpened, ProposalDecided]
    assert {one.proposal_id for one in told} == {waiting.proposal_id}
    opened = told[0]
    assert isinstance(opened, ProposalOpened)
    assert (opened.reason, opened.leaving, opened.entering) == (waiting.reason, None, None)
    assert opened.weights == tuple(
        ProposedWeight(one["symbol"], one["old_u"], one["new_u"])
        for one in waiting.action["changes"]
    )
    assert opened.weights


@pytest.mark.parametrize(
    ("kind", "action", "leaving", "entering"),
    [
        (ProposalKind.REPLACEMENT, {"old_symbol": "A", "new_symbol": "B"}, "A", "B"),
        (
            ProposalKind.SIGNAL,
            {"move": "replace", "symbol": "B", "old_symbol": "A", "new_symbol": "B"},
            "A",
            "B",
        ),
        (
            ProposalKind.SIGNAL,
            {"move": "add", "symbol": "B", "old_symbol": None, "new_symbol": "B"},
            None,
            "B",
        ),
        (
            ProposalKind.SIGNAL,
            {"move": "remove", "symbol": "A", "old_symbol": None, "new_symbol": None},
            "A",
            None,
        ),
    ],
)
def test_an_announced_proposal_names_the_symbols_that_would_enter_and_leave(
    kind: ProposalKind, action: dict[str, Any], leaving: str | None, entering: str | None
) -> None:
    proposal = Proposal(
        proposal_id="p", kind=kind, subject="A", state=ProposalState.OPEN, version=3,
        reason="why", action=action, opened_at=NOW, expires_at=NOW + timedelta(days=1),
    )  # fmt: skip
    assert proposal_opened(proposal, NOW) == ProposalOpened(
        "p", kind.value, "A", 3, NOW + timedelta(days=1), NOW, "why", leaving, entering
    )


async def test_C08_members_stay_as_they_are_while_a_run_is_active(desk: Desk) -> None:
    await desk.filled(9)
    run = await desk.rebalancing.runs.claim(RebalanceRequest(), WHO)
    before = await desk.members()
    changes = (
        desk.portfolio.add(SYMBOLS[20], "x", WHO),
        desk.portfolio.remove(SYMBOLS[0], "x", WHO),
        desk.portfolio.replace(SYMBOLS[0], SYMBOLS[20], "x", WHO),
    )
    for change in changes:
        with pytest.raises(ConflictError) as caught:
            await change
        assert caught.value.code is Code.REBALANCE_IN_PROGRESS
        assert caught.value.facts == {"run_id": run.run_id}
    assert await desk.members() == before
    desk.later(seconds=30)
    await desk.portfolio.remove(SYMBOLS[0], "x", WHO)
    assert SYMBOLS[0] not in await desk.members()
