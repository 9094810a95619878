"""Proposed actions: each is decided once, in time, and only while it fits the portfolio."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from app.foundation.errors import Code, ConflictError
from app.portfolio.domain.approval import Approved


class ProposalKind(StrEnum):
    REBALANCE = "rebalance"
    REPLACEMENT = "replacement"
    SIGNAL = "signal"  # the subject is the symbol that it is about


class ProposalState(StrEnum):
    OPEN = "open"
    APPROVED = "approved"  # and carried out, in the same moment
    DECLINED = "declined"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"  # the portfolio or the recommendation is another one by now


# Every way that there is; a state that is not named is final.
NEXT: Final[Mapping[ProposalState, frozenset[ProposalState]]] = MappingProxyType(
    {ProposalState.OPEN: frozenset(ProposalState) - {ProposalState.OPEN}}
)
WHOLE: Final = "portfolio"  # the subject of what concerns no single member


@dataclass(frozen=True, slots=True)
class Decision:
    """Who ended a proposal, when and why; what came of an approval."""

    at: datetime
    by: str
    reason: str
    run_id: str | None = None  # of the rebalance that carried it out
    version: int | None = None  # of the portfolio afterwards


@dataclass(frozen=True, slots=True)
class Proposal:
    """An action that waits; it was made for one version of the portfolio."""

    proposal_id: str
    kind: ProposalKind
    subject: str  # the member that would leave; WHOLE for a rebalance
    state: ProposalState
    version: int
    reason: str
    action: Mapping[str, Any]  # what would be done, JSON-able
    opened_at: datetime
    expires_at: datetime
    run_id: str | None = None  # of the run that proposed it
    decision: Decision | None = None

    def at(self, now: datetime) -> "Proposal":
        """As it stands now: an open one whose time is over has expired."""
        if self.state is not ProposalState.OPEN or now < self.expires_at:
            return self
        nobody = Decision(self.expires_at, "schedule", "nobody decided in time")
        return self.ended(ProposalState.EXPIRED, nobody)

    def ended(self, state: ProposalState, decision: Decision) -> "Proposal":
        """Raises ConflictError(invalid_state_transition): it is decided once."""
        if state not in NEXT.get(self.state, frozenset()):
            raise ConflictError(
                Code.INVALID_STATE_TRANSITION,
                f"The proposal is {self.state.value} already.",
                facts={"state": self.state.value},
            )
        return replace(self, state=state, decision=decision)

    def is_same(self, other: "Proposal") -> bool:
        """Whether deciding on one is deciding on the other.

        A rebalance is of one plan, as near to the other as its tolerance says; a swap is of two
        symbols.
        """
        pairs = tuple(one.action.get("new_symbol") for one in (self, other))
        return (
            (self.kind, self.subject, self.version)
            == (
                other.kind,
                other.subject,
                other.version,
            )
            and pairs[0] == pairs[1]
            and self._is_same_plan(other)
        )

    def _is_same_plan(self, other: "Proposal") -> bool:
        if self.kind is not ProposalKind.REBALANCE:
            return True
        one, two = Approved.of(self.action), Approved.of(other.action)
        return one is not None and two is not None and one.is_like(two)
