"""Proposals as values: decided once, in time, and the same only while they mean the same."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from app.configuration.domain.document import ConfigurationRefusedError, validate
from app.configuration.domain.model import Configuration
from app.configuration.domain.sections import AutomationMode
from app.foundation.errors import Code, ConflictError
from app.portfolio.domain.proposals import (
    NEXT,
    WHOLE,
    Decision,
    Proposal,
    ProposalKind,
    ProposalState,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAN = Proposal(
    proposal_id="p1",
    kind=ProposalKind.REBALANCE,
    subject=WHOLE,
    state=ProposalState.OPEN,
    version=3,
    reason="drift",
    action={
        "changes": [],
        "triggers": ["drift"],
        "weights_u": {"BTCUSDT": 12_000_000, "ETHUSDT": 8_000_000},
        "cash_u": 80_000_000,
        "flags": [],
        "seen_u": {"BTCUSDT": 14_000_000, "ETHUSDT": 8_000_000},
        "tolerance_u": 1_000_000,
    },
    opened_at=AT,
    expires_at=AT + timedelta(hours=1),
)
SWAP = replace(
    PLAN,
    kind=ProposalKind.REPLACEMENT,
    subject="BTCUSDT",
    action={"old_symbol": "BTCUSDT", "new_symbol": "ETHUSDT"},
)
DECISION = Decision(AT, "operator", "looks right", "run-1", 4)


@pytest.mark.parametrize(("before", "after"), list(product(ProposalState, ProposalState)))
def test_it_is_decided_once(before: ProposalState, after: ProposalState) -> None:
    one = replace(PLAN, state=before)
    if after in NEXT.get(before, frozenset()):
        ended = one.ended(after, DECISION)
        assert (ended.state, ended.decision) == (after, DECISION)
        return
    with pytest.raises(ConflictError) as caught:
        one.ended(after, DECISION)
    assert caught.value.code is Code.INVALID_STATE_TRANSITION
    assert caught.value.facts == {"state": before.value}


def test_it_is_open_until_its_time_is_over() -> None:
    assert PLAN.at(PLAN.expires_at - timedelta(microseconds=1)) == PLAN
    expired = PLAN.at(PLAN.expires_at + timedelta(days=1))
    assert expired.state is ProposalState.EXPIRED
    assert expired.decision is not None
    assert expired.decision.at == PLAN.expires_at
    declined = PLAN.ended(ProposalState.DECLINED, DECISION)
    assert declined.at(PLAN.expires_at) == declined


def test_what_is_the_same() -> None:
    for key, moved_u, is_same in (
        ("weights_u", 13_000_000, True),
        ("weights_u", 13_000_001, False),
        ("seen_u", 13_000_000, True),
        ("seen_u", 12_999_999, False),
    ):
        action = {**PLAN.action, key: {**PLAN.action[key], "BTCUSDT": moved_u}}
        assert PLAN.is_same(replace(PLAN, proposal_id="p2", action=action)) is is_same
    other = {**PLAN.action, "weights_u": {"BTCUSDT": 12_000_000, "XRPUSDT": 8_000_000}}
    assert not PLAN.is_same(replace(PLAN, action=other))
    without_weights = replace(PLAN, action={"changes": [], "triggers": ["drift"]})
    assert not without_weights.is_same(without_weights), "nobody can say what it would do"
    assert SWAP.is_same(replace(SWAP, proposal_id="p2", opened_at=AT + timedelta(hours=1)))
    assert not PLAN.is_same(SWAP)
    for changed in (
        replace(SWAP, version=4),
        replace(SWAP, subject="XRPUSDT"),
        replace(SWAP, action={"new_symbol": "XRPUSDT"}),
    ):
        assert not SWAP.is_same(changed)


def test_policies_are_settings() -> None:
    changed = validate({"automation": {"rebalance": "propose"}}, Configuration())
    assert (changed.automation.rebalance, changed.automation.replacement) == (
        AutomationMode.PROPOSE,
        AutomationMode.PROPOSE,
    )
    for wrong in ({"rebalance": "never"}, {"proposal_ttl_s": 1}, {"withdraw": "auto"}):
        with pytest.raises(ConfigurationRefusedError):
            validate({"automation": wrong}, Configuration())
