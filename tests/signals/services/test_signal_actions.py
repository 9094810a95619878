"""What approved signals lead to: as far as the policy goes, by the rules of everybody, once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import httpx2
import pytest
from structlog.testing import capture_logs

from app.alerts.services.monitor import AlertScheduler
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import AutomationMode, SignalSettings
from app.foundation.data_status import DataStatus
from app.foundation.errors import Code, ConflictError
from app.foundation.sql.database import Database
from app.market.domain.models import ContractStatus
from app.my_symbols import MySymbolsServiceV2
from app.operations.api import configuration_routes as configuration
from app.portfolio.api import proposal_routes as portfolio_proposals
from app.portfolio.domain.controls import LockKind
from app.portfolio.domain.proposals import MembershipMove
from app.security.services.audit import SecurityAudit
from app.security.storage.audit import SecurityEventRepository
from app.signals.api import routes as signals
from app.signals.domain.agents import Agent, AgentVote
from app.signals.domain.consensus import Consensus, SignalEvaluation
from app.signals.domain.evaluated_signal import automation_for
from app.signals.domain.models import (
    Direction,
    MembershipStep,
    SignalEffect,
    SignalState,
)
from app.signals.services.evaluation import SignalEvaluator
from app.workers.activities import activities
from tests.support.action_fixtures import by_skill, eight_members, judged, put, told, version
from tests.support.harness import PREFIX, serve
from tests.support.problem_assertions import problem
from tests.support.signal_fixtures import claim, informed
from tests.support.trading_desk import NOW, SYMBOLS, WHO, Desk

NEW = SYMBOLS[20]


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def desk(database: Database) -> Desk:
    return await eight_members(database)


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    routers = [configuration.router, portfolio_proposals.router, signals.router]
    async with serve(routers, {"my_symbols": desk}) as opened:
        yield opened


async def effect(desk: Desk, signal_id: str) -> SignalEffect:
    found = (await judged(desk, signal_id)).effect
    assert found is not None
    return found


async def test_by_default_a_purchase_is_proposed_and_carried_out_when_approved(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    signal_id = await told(desk, NEW)
    before = await version(desk)
    assert await desk.signal_actions.apply_approved() == 1
    assert await version(desk) == before
    waits = await effect(desk, signal_id)
    assert (waits.automation, waits.step) == (
        AutomationMode.PROPOSE,
        MembershipStep(MembershipMove.ADD, NEW),
    )
    listed = await client.get(f"{PREFIX}/portfolio/proposals", params={"kind": "signal"})
    (one,) = listed.json()["items"]
    assert one["proposal_id"] == waits.proposal_id
    assert (one["signal"]["signal_id"], one["signal"]["move"]) == (signal_id, "add")
    assert f"signal {signal_id}: BUY by desk" in one["reason"]
    path = f"{PREFIX}/portfolio/proposals/{one['proposal_id']}/approve"
    done = await client.post(path, json={"reason": "yes"})
    assert done.status_code == 200, done.text
    assert NEW in await desk.members()
    shown = (await client.get(f"{PREFIX}/signals/{signal_id}")).json()
    assert (shown["state"], shown["effect"]["version"]) == ("applied", before + 1)
    assert done.json()["decision"]["version"] == before + 1
    history = await desk.queries.history(None, 3)
    assert any(signal_id in event.reason and event.symbol == NEW for event in history)
    again = await client.post(path, json={"reason": "yes"})
    assert again.json()["code"] == "invalid_state_transition"
    assert await desk.signal_actions.apply_approved() == 0


async def test_with_four_eyes_another_caller_approves_the_proposal_of_a_signal(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    signal_id = await told(desk, NEW)
    await desk.signal_actions.apply_approved()
    proposal_id = (await effect(desk, signal_id)).proposal_id or ""
    before = await version(desk)
    desk.proposals = replace(desk.proposals, needs_four_eyes=True)
    ana, bob = (replace(WHO, actor=actor) for actor in (WHO.actor, "user:bob"))

    def none(_: object) -> Any:
        return None

    with pytest.raises(ConflictError) as refused:
        await desk.proposals.approve(proposal_id, "yes", ana, none)
    assert refused.value.code is Code.FOUR_EYES
    (waits,) = (await client.get(f"{PREFIX}/portfolio/proposals")).json()["items"]
    assert (waits["state"], waits["proposed_by"]) == ("open", WHO.actor)
    assert await version(desk) == before
    approved = (await desk.proposals.approve(proposal_id, "yes", bob, none)).result
    assert approved is not None
    assert approved.decision is not None
    assert (approved.proposed_by, approved.decision.by) == (WHO.actor, "user:bob")
    assert await version(desk) == before + 1


async def test_an_approval_for_want_of_four_eyes_is_a_refusal_of_the_audit_log(desk: Desk) -> None:
    signal_id = await told(desk, NEW, who=replace(WHO, actor="local"))
    await desk.signal_actions.apply_approved()
    proposal_id = (await effect(desk, signal_id)).proposal_id or ""
    desk.proposals = replace(desk.proposals, needs_four_eyes=True)
    owner: Any = desk
    owner.security_audit = audit = SecurityAudit(desk.database, lambda: NOW)
    path = f"{PREFIX}/portfolio/proposals/{proposal_id}"
    async with serve([portfolio_proposals.router], {"my_symbols": owner}) as client:
        for _ in range(2):
            problem(await client.post(f"{path}/approve", json={}), 409, "four_eyes")
        assert (await client.post(f"{path}/decline", json={})).status_code == 200
        again = await client.post(f"{path}/decline", json={})
        assert again.status_code == 409, "no other conflict is a refusal"
    await audit.store_counts()
    async with desk.database.read() as unit:
        refused = await unit.get(SecurityEventRepository).page(None, 9, kind="refused")
    assert [(one.principal, one.code, one.count) for one in refused] == [("local", "four_eyes", 2)]


async def test_with_four_eyes_an_own_proposal_may_be_declined(desk: Desk) -> None:
    signal_id = await told(desk, NEW)
    await desk.signal_actions.apply_approved()
    proposal_id = (await effect(desk, signal_id)).proposal_id or ""
    desk.proposals = replace(desk.proposals, needs_four_eyes=True)

    def none(_: object) -> Any:
        return None

    declined = (await desk.proposals.decline(proposal_id, "no", WHO, none)).result
    assert declined is not None
    assert (declined.state.value, declined.proposed_by) == ("declined", WHO.actor)


async def test_C13_of_approving_and_declining_at_once_one_wins(desk: Desk) -> None:
    signal_id = await told(desk, NEW)
    await desk.signal_actions.apply_approved()
    proposal_id = (await effect(desk, signal_id)).proposal_id or ""

    def none(_: object) -> Any:
        return None

    outcomes = await asyncio.gather(
        desk.proposals.approve(proposal_id, "yes", WHO, none),
        desk.proposals.decline(proposal_id, "no", WHO, none),
        return_exceptions=True,
    )
    (lost,) = [one for one in outcomes if isinstance(one, BaseException)]
    assert isinstance(lost, ConflictError)
    assert lost.code is Code.INVALID_STATE_TRANSITION
    state = (await judged(desk, signal_id)).signal.state
    assert (state is SignalState.APPLIED) == (NEW in await desk.members())


async def test_a_sale_proposes_removal_and_what_fits_nothing_says_why(desk: Desk) -> None:
    cases = (
        (SYMBOLS[0], Direction.SELL, MembershipStep(MembershipMove.REMOVE, SYMBOLS[0]), None),
        (SYMBOLS[1], Direction.BUY, None, f"{SYMBOLS[1]} is a member already"),
        (SYMBOLS[20], Direction.NEUTRAL, None, "it requests no change"),
        (SYMBOLS[35], Direction.BUY, None, f"{SYMBOLS[35]} cannot be added: low_score"),
    )
    for symbol, direction, step, note in cases:
        signal_id = await told(desk, symbol, direction)
        await desk.signal_actions.apply_approved()
        found = await effect(desk, signal_id)
        assert (found.step, found.note) == (step, note)
    await desk.portfolio.remove(SYMBOLS[0], "gone", WHO)
    signal_id = await told(desk, SYMBOLS[0], Direction.SELL)
    await desk.signal_actions.apply_approved()
    assert (await effect(desk, signal_id)).note == f"{SYMBOLS[0]} is not a member"


async def test_on_stale_data_an_approval_adds_nothing_and_still_removes(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    purchase = await told(desk, NEW)
    sale = await told(desk, SYMBOLS[0], Direction.SELL)
    assert await desk.signal_actions.apply_approved() == 2
    desk.market.state = DataStatus.STALE

    async def approve(signal_id: str) -> httpx2.Response:
        proposal_id = (await effect(desk, signal_id)).proposal_id
        path = f"{PREFIX}/portfolio/proposals/{proposal_id}/approve"
        return await client.post(path, json={"reason": "yes"})

    problem(await approve(purchase), 503, "market_data_stale")
    assert (await effect(desk, purchase)).version is None
    assert (await judged(desk, purchase)).signal.state is SignalState.APPROVED
    removed = await approve(sale)
    assert removed.status_code == 200, removed.text
    members = await desk.members()
    assert (NEW in members, SYMBOLS[0] in members) == (False, False)


@pytest.mark.parametrize("policy", ["propose", "auto"])
async def test_a_sale_of_a_pinned_member_is_not_even_proposed(desk: Desk, policy: str) -> None:
    await put(desk, automation=policy)
    await by_skill(desk)
    await desk.controls.lock(SYMBOLS[0], LockKind.PIN, "market maker", None, WHO)
    signal_id = await told(desk, SYMBOLS[0], Direction.SELL)
    await desk.signal_actions.apply_approved()
    found = await effect(desk, signal_id)
    assert (found.step, found.note) == (None, f"{SYMBOLS[0]} is pinned")
    assert (found.proposal_id, found.version) == (None, None)
    assert SYMBOLS[0] in await desk.members()


async def test_a_full_portfolio_makes_room_only_for_what_is_better_beyond_noise(
    desk: Desk,
) -> None:
    full = {"max_portfolio_symbols": 8, "min_weight_percentage": "5"}
    await desk.configuration.put({**full, "max_weight_percentage": "20"}, "full", WHO)
    signal_id = await told(desk, NEW)
    await desk.signal_actions.apply_approved()
    found = await effect(desk, signal_id)
    assert found.step is None
    assert found.note is not None
    assert "does not replace" in found.note
    assert "noise_unknown" in found.note
    rules = {"noise_default": 0.001, "min_holding_s": 0, "return_per_z": 1_000.0}
    await desk.configuration.put({"replacement": rules}, "easy", WHO)
    signal_id = await told(desk, NEW, scores={NEW: 0.995})
    await desk.signal_actions.apply_approved()
    assert (await effect(desk, signal_id)).step == MembershipStep(
        MembershipMove.REPLACE, NEW, SYMBOLS[7]
    )
    desk.quote(SYMBOLS[7], paused_since=desk.now)
    desk.status(SYMBOLS[7], ContractStatus.PAUSED)
    signal_id = await told(desk, NEW, scores={NEW: 0.995})
    await desk.signal_actions.apply_approved()
    assert (await effect(desk, signal_id)).step == MembershipStep(
        MembershipMove.REPLACE, NEW, SYMBOLS[6]
    ), "the weakest keeps its weight during the pause"
    desk.status(SYMBOLS[7], ContractStatus.OPEN)
    for pinned, step, note in (
        (SYMBOLS[7], MembershipStep(MembershipMove.REPLACE, NEW, SYMBOLS[6]), None),
        (SYMBOLS[6], None, "the portfolio is full, and no member may be replaced"),
    ):
        await desk.controls.lock(pinned, LockKind.PIN, "market maker", None, WHO)
        signal_id = await told(desk, NEW, scores={NEW: 0.995})
        await desk.signal_actions.apply_approved()
        found = await effect(desk, signal_id)
        assert (found.step, found.note) == (step, note)


async def test_a_conditional_verdict_is_no_approval(desk: Desk) -> None:
    said = {"one": 0.97, "two": 0.5, "three": 0.5, "four": 0.55}

    def agent(name: str) -> Agent:
        return Agent(name, (), lambda _evidence, _rules: AgentVote(said[name], 0.9, {}))

    agents = tuple(map(agent, said))
    desk.signals = replace(desk.signals, evaluator=SignalEvaluator(agents))
    done = await desk.signals.submit(claim(NEW), WHO)
    assert done.result is not None
    found = done.result.evaluated
    assert found.verdict is not None
    assert found.verdict.evaluation is SignalEvaluation.CONDITIONAL
    assert found.signal.state is SignalState.REJECTED
    assert await desk.signal_actions.apply_approved() == 0
    assert NEW not in await desk.members()


async def test_observed_signals_change_nothing_and_policies_go_by_type(desk: Desk) -> None:
    await put(desk, automation_by_type={"momentum": "observe"})
    one = await told(desk, NEW)
    await desk.signal_actions.apply_approved()
    found = await effect(desk, one)
    assert (found.automation, found.note, found.proposal_id) == (
        AutomationMode.OBSERVE,
        "only observed",
        None,
    )
    await put(desk, automation_by_type={"breakout": "observe"})
    other = await told(desk, NEW)
    await desk.signal_actions.apply_approved()
    assert (await effect(desk, other)).automation is AutomationMode.PROPOSE


async def test_auto_acts_by_itself_once_agents_are_weighed_by_skill(desk: Desk) -> None:
    await put(desk, automation="auto")
    unknown = await told(desk, SYMBOLS[12])
    await by_skill(desk)
    known = await told(desk, SYMBOLS[11])
    before = await version(desk)
    rounds = await asyncio.gather(*(desk.signal_actions.apply_approved() for _ in range(4)))
    assert max(rounds) == 2
    await desk.signal_actions.apply_approved()
    assert (await effect(desk, unknown)).automation is AutomationMode.PROPOSE
    done = await effect(desk, known)
    assert (done.automation, done.version) == (AutomationMode.AUTO, before + 1)
    assert await version(desk) == before + 1
    assert (await judged(desk, known)).signal.state is SignalState.APPLIED
    (event,) = [one for one in await desk.queries.history(None, 5) if one.symbol == SYMBOLS[11]]
    assert known in event.reason
    assert event.actor == "signals"


class _Scheduled:
    """The desk as the schedule knows the service."""

    def __init__(self, desk: Desk) -> None:
        self.signals, self.signal_actions = desk.signals, desk.signal_actions

    def __getattr__(self, name: str) -> "_Scheduled":
        return self


async def test_on_stale_data_the_schedule_skips_signals_and_acts_on_them_later(desk: Desk) -> None:
    await put(desk, automation="auto")
    await by_skill(desk)
    signal_id = await told(desk, SYMBOLS[11])
    service = cast("MySymbolsServiceV2", _Scheduled(desk))
    work = activities(service, cast("AlertScheduler", service), lambda: "request")
    desk.market.state = DataStatus.STALE
    with capture_logs() as lines:
        await work.signals()
    skipped = [one for one in lines if one["event"] == "automatic_action_skipped"]
    assert [one["code"] for one in skipped] == ["market_data_stale"]
    assert desk.refused == [Code.MARKET_DATA_STALE]
    found = await judged(desk, signal_id)
    assert (found.signal.state, found.effect) == (SignalState.APPROVED, None)
    assert SYMBOLS[11] not in await desk.members()
    desk.market.state = DataStatus.FRESH
    await work.signals()
    assert SYMBOLS[11] in await desk.members()


async def test_what_an_ordinary_rule_refuses_is_noted_and_not_tried_again(desk: Desk) -> None:
    await put(desk, automation="auto")
    await by_skill(desk)
    signal_id = await told(desk, NEW)
    await desk.controls.switch(False, "halt", WHO)
    await desk.signal_actions.apply_approved()
    found = await effect(desk, signal_id)
    assert found.version is None
    assert found.note is not None
    assert found.note.startswith("trading_disabled")
    assert (await judged(desk, signal_id)).signal.state is SignalState.APPROVED
    assert await desk.signal_actions.apply_approved() == 0


async def test_a_newer_signal_takes_the_place_of_an_older_proposal(
    desk: Desk, client: httpx2.AsyncClient
) -> None:
    for _ in range(2):
        await told(desk, NEW)
        await desk.signal_actions.apply_approved()
        desk.later(seconds=1)
    listed = (await client.get(f"{PREFIX}/portfolio/proposals")).json()["items"]
    assert [one["state"] for one in listed] == ["open", "superseded"]


async def test_an_approved_signal_leads_to_nothing_after_its_time(desk: Desk) -> None:
    await told(desk, NEW)
    desk.later(days=2)
    informed(desk)
    assert await desk.signal_actions.apply_approved() == 0


@pytest.mark.parametrize(
    ("evaluation", "by_skill", "policy"),
    [
        (SignalEvaluation.STRONG_APPROVE, True, AutomationMode.AUTO),
        (SignalEvaluation.APPROVE, True, AutomationMode.AUTO),
        (SignalEvaluation.STRONG_APPROVE, False, AutomationMode.PROPOSE),
    ],
)
def test_who_is_not_sure_only_proposes(
    evaluation: SignalEvaluation, by_skill: bool, policy: AutomationMode
) -> None:
    verdict = Consensus(evaluation, 0.8, 1.0, 1.0, (), "x", by_skill)
    rules = SignalSettings(automation=AutomationMode.AUTO)
    assert automation_for(_signal(), verdict, rules) is policy
    assert (
        automation_for(_signal(), verdict, replace(rules, automation=AutomationMode.OBSERVE))
        is AutomationMode.OBSERVE
    )
    assert Configuration().signals.automation is AutomationMode.PROPOSE


def _signal() -> Any:
    class Named:
        claim = claim()
        is_propose_only = False

    return Named()
