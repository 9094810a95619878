"""What holds of proposals, however they came about and whoever decided on them."""

from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.proposals import NEXT, Proposal, ProposalKind, ProposalState
from app.portfolio.domain.rebalance_run import RunState
from tests.stateful.differential import Seen


def decided_rightly(before: Seen, after: Seen) -> None:
    """One is open at a time for each thing, each is decided once, and what is decided stays."""
    opened = [one for one in after.proposals.values() if one.state is ProposalState.OPEN]
    assert len({(one.kind, one.subject) for one in opened}) == len(opened)
    assert before.proposals.keys() <= after.proposals.keys()
    for proposal_id, one in after.proposals.items():
        assert (one.decision is None) is (one.state is ProposalState.OPEN)
        earlier = before.proposals.get(proposal_id)
        if earlier is None:
            assert one.state is ProposalState.OPEN, "it is proposed before it is decided"
        elif earlier != one:
            assert one.state in NEXT[earlier.state]
            approved_rightly(one, before, after)
        else:
            assert one == earlier


def approved_rightly(one: Proposal, before: Seen, after: Seen) -> None:
    """What was approved is what was carried out, for its version; another end is no change."""
    decision = one.decision
    assert decision is not None
    if one.state is not ProposalState.APPROVED:
        assert (decision.run_id, decision.version) == (None, None)
        return
    assert one.version == before.portfolio.version
    assert decision.version == after.portfolio.version
    new = after.events[len(before.events) :]
    weights = {member.symbol: member.weight_u for member in after.portfolio.members}
    if one.kind is ProposalKind.REPLACEMENT:
        assert [(event.other_symbol, event.symbol) for event in new[:1]] == [
            (one.action["old_symbol"], one.action["new_symbol"])
        ]
        return
    run = after.runs[str(decision.run_id)]
    assert run.state in {RunState.DONE, RunState.UNCHANGED}
    assert [event.type for event in new] == [EventType.REBALANCE] * (run.state is RunState.DONE)
    seen_u, agreed_u = one.action["seen_u"], one.action["weights_u"]
    if run.state is RunState.DONE:
        for symbol, weight_u in agreed_u.items():
            assert weights[symbol] == weight_u or seen_u[symbol] == weight_u, symbol
