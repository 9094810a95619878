"""Events that the portfolio publishes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.foundation.events import EventKind, EventTopic
from app.portfolio.domain.event_log import PortfolioEvent
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import MembershipMove, Proposal, ProposalKind


@dataclass(frozen=True, slots=True)
class MemberWeights:
    """Weights of one symbol before and after a change, in micro-percent.

    None as a weight means that the symbol is no member. `reason` is None if the change states none
    for this symbol.
    """

    symbol: str
    contract: str
    rank: int | None  # after the change
    old_u: int | None
    new_u: int | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeEntry:
    """One entry of the history that a change appended."""

    seq: int
    type: str
    symbol: str | None
    other_symbol: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class PortfolioChanged:
    """A new version of the portfolio was committed; one event per version.

    `seq` and `type` are those of the first history entry. `symbol` is the only symbol that the
    entries name, None if they name none or several; `other_symbol` is the replaced one.
    `members` holds every member before or after the change. Events of older versions have neither
    members nor entries.
    """

    version: int
    seq: int
    type: str
    symbol: str | None
    occurred_at: datetime
    other_symbol: str | None = None
    reason: str | None = None
    actor: str | None = None
    run_id: str | None = None  # rebalance run
    proposal_id: str | None = None  # approved proposal
    old_cash_u: int | None = None
    cash_u: int | None = None
    members: tuple[MemberWeights, ...] = ()
    entries: tuple[ChangeEntry, ...] = ()

    @property
    def history(self) -> tuple[ChangeEntry, ...]:
        """Entries of the history; an event of an older version is its own entry."""
        own = ChangeEntry(self.seq, self.type, self.symbol, self.other_symbol, self.reason)
        return self.entries or (own,)


def portfolio_changed(
    before: Portfolio,
    after: Portfolio,
    entries: Sequence[PortfolioEvent],
    proposal_id: str | None = None,
) -> PortfolioChanged:
    """Returns the event of a version; `entries` are its history entries, at least one."""
    first = entries[0]
    named = [one for one in entries if one.symbol is not None]
    (symbol, other) = (named[0].symbol, named[0].other_symbol) if len(named) == 1 else (None, None)
    return PortfolioChanged(
        version=after.version,
        seq=first.seq,
        type=first.type.value,
        symbol=symbol,
        occurred_at=first.occurred_at,
        other_symbol=other,
        reason=first.reason,
        actor=first.actor,
        run_id=next((one.payload["run_id"] for one in entries if "run_id" in one.payload), None),
        proposal_id=proposal_id,
        old_cash_u=before.cash_u,
        cash_u=after.cash_u,
        members=_weights(before, after, entries),
        entries=tuple(
            ChangeEntry(one.seq, one.type.value, one.symbol, one.other_symbol, one.reason)
            for one in entries
        ),
    )


def _weights(
    before: Portfolio, after: Portfolio, entries: Sequence[PortfolioEvent]
) -> tuple[MemberWeights, ...]:
    """Returns members in rank order, then those that left, in their former order."""
    reasons: dict[str | None, str] = {}
    for entry in entries:
        reasons |= entry.payload.get("reasons", {})
        reasons |= dict.fromkeys((entry.symbol, entry.other_symbol), entry.reason)
    old = {one.symbol: one.weight_u for one in before.members}
    new = {one.symbol: one for one in after.members}
    gone = (one for one in before.members if one.symbol not in new)
    return tuple(
        MemberWeights(
            symbol=one.symbol,
            contract=one.contract,
            rank=one.rank if one.symbol in new else None,
            old_u=old.get(one.symbol),
            new_u=one.weight_u if one.symbol in new else None,
            reason=reasons.get(one.symbol),
        )
        for one in (*after.members, *gone)
    )


@dataclass(frozen=True, slots=True)
class PlanCreated:
    """A rebalance was planned and its weights were set."""

    run_id: str
    portfolio_version: int
    total_changes: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class ProposedWeight:
    """Weight of one member now and after a proposed rebalance, in micro-percent."""

    symbol: str
    old_u: int
    new_u: int


@dataclass(frozen=True, slots=True)
class ProposalOpened:
    """An action waits for an operator.

    `leaving` and `entering` are the symbols of a proposed change of members. `weights` are the
    weights that a proposed rebalance changes.
    """

    proposal_id: str
    kind: str
    subject: str  # the member that would leave, or "portfolio"
    portfolio_version: int
    expires_at: datetime
    occurred_at: datetime
    reason: str | None = None
    leaving: str | None = None
    entering: str | None = None
    weights: tuple[ProposedWeight, ...] = ()


def proposal_opened(proposal: Proposal, at: datetime) -> ProposalOpened:
    """Returns the event of a proposal that was opened at `at`."""
    action, kind = proposal.action, proposal.kind
    leaving = action.get("old_symbol")
    if kind is ProposalKind.SIGNAL and action["move"] == MembershipMove.REMOVE:
        leaving = action["symbol"]
    changes = action["changes"] if kind is ProposalKind.REBALANCE else ()
    return ProposalOpened(
        proposal_id=proposal.proposal_id,
        kind=kind.value,
        subject=proposal.subject,
        portfolio_version=proposal.version,
        expires_at=proposal.expires_at,
        occurred_at=at,
        reason=proposal.reason,
        leaving=leaving,
        entering=action.get("new_symbol"),
        weights=tuple(ProposedWeight(one["symbol"], one["old_u"], one["new_u"]) for one in changes),
    )


@dataclass(frozen=True, slots=True)
class ProposalDecided:
    """A proposal has ended: approved, declined, expired or superseded."""

    proposal_id: str
    kind: str
    subject: str
    state: str
    decided_by: str
    occurred_at: datetime


EVENTS: Final = (
    EventKind(PortfolioChanged, "portfolio_changed", EventTopic.PORTFOLIO_CHANGE, subject="symbol"),
    EventKind(PlanCreated, "plan_created", EventTopic.REBALANCE),
    EventKind(ProposalOpened, "proposal_opened", EventTopic.REBALANCE),
    EventKind(ProposalDecided, "proposal_decided", EventTopic.REBALANCE),
)
