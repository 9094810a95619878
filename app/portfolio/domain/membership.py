"""Portfolio changes as pure functions: each yields the new state and its events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from app.foundation.errors import Code, ConflictError
from app.portfolio.domain.event_log import Draft, EventType, apply, member_payload, number_text
from app.portfolio.domain.models import Member, Portfolio
from app.portfolio.domain.weighting import Allocation


@dataclass(frozen=True, slots=True)
class NewMember:
    """Symbol that may enter, with its current figures; None means unknown."""

    symbol_id: str
    symbol: str
    contract: str
    price: Decimal | None  # mark price
    score: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class PortfolioChange:
    """State after a change and its events; without events nothing changed."""

    portfolio: Portfolio
    drafts: tuple[Draft, ...]

    def then(self, draft: Draft, at: datetime) -> "PortfolioChange":
        """Add an event to the change, within the same version."""
        version = self.portfolio.version if self.drafts else self.portfolio.version + 1
        stamped = replace(draft, payload={**draft.payload, "version": version})
        state = apply(self.portfolio, stamped.type, stamped.payload, at)
        return PortfolioChange(state, (*self.drafts, stamped))


def add_members(
    portfolio: Portfolio, new_members: Iterable[NewMember], limit: int, at: datetime, reason: str
) -> PortfolioChange:
    """Add the new members last, in their order, with weight 0.

    Raises ConflictError: symbol_already_in_portfolio, portfolio_full (more than `limit` members).
    """
    change = PortfolioChange(portfolio, ())
    for new_member in new_members:
        state = change.portfolio
        if _holds(state, new_member.symbol_id):
            raise ConflictError(
                Code.SYMBOL_ALREADY_IN_PORTFOLIO, f"{new_member.symbol} is a member already."
            )
        if len(state.members) >= limit:
            raise ConflictError(
                Code.PORTFOLIO_FULL, f"The portfolio holds its maximum of {limit} symbols."
            )
        member = _member(new_member, len(state.members) + 1, at, reason)
        payload = {
            "member": member_payload(member),
            "score": number_text(new_member.score),
            "confidence": number_text(new_member.confidence),
        }
        change = change.then(Draft(EventType.ADD, member.symbol, None, payload, reason), at)
    return change


def remove_member(
    portfolio: Portfolio, symbol: str, facts: Mapping[str, Any], at: datetime, reason: str
) -> PortfolioChange:
    """Remove a member; its weight goes to cash and the ranks close up.

    `facts` (JSON-able) are kept with the event. Raises ConflictError(symbol_not_in_portfolio).
    """
    return remove_in_same_version(PortfolioChange(portfolio, ()), symbol, facts, at, reason)


def remove_in_same_version(
    change: PortfolioChange, symbol: str, facts: Mapping[str, Any], at: datetime, reason: str
) -> PortfolioChange:
    """Remove a member as another event of `change`, within the same version."""
    member = require_member(change.portfolio, symbol)
    payload = {**facts, "member": member_payload(member)}
    return change.then(Draft(EventType.REMOVE, member.symbol, None, payload, reason), at)


def replace_member(
    portfolio: Portfolio,
    old_symbol: str,
    new_member: NewMember,
    facts: Mapping[str, Any],
    at: datetime,
    reason: str,
) -> PortfolioChange:
    """Replace a member; the new one takes its rank, with weight 0.

    Raises ConflictError: symbol_not_in_portfolio, symbol_already_in_portfolio.
    """
    old = require_member(portfolio, old_symbol)
    if _holds(portfolio, new_member.symbol_id):
        raise ConflictError(
            Code.SYMBOL_ALREADY_IN_PORTFOLIO, f"{new_member.symbol} is a member already."
        )
    new = _member(new_member, old.rank, at, reason)
    payload = {
        **facts,
        "member": member_payload(new),
        "old": member_payload(old),
        "score": number_text(new_member.score),
        "confidence": number_text(new_member.confidence),
    }
    draft = Draft(EventType.REPLACE, new.symbol, old.symbol, payload, reason)
    return PortfolioChange(portfolio, ()).then(draft, at)


def set_weights(
    change: PortfolioChange,
    allocation: Allocation,
    facts: Mapping[str, Any],
    at: datetime,
    reason: str,
    kind: EventType = EventType.WEIGHTS,
) -> PortfolioChange:
    """Set the weights of `allocation` after `change`, within the same version."""
    payload = {
        **facts,
        "weights": {
            member.symbol_id: {
                "symbol": member.symbol,
                "old_u": member.weight_u,
                "weight_u": allocation.weights_u[member.symbol],
                "target_weight_u": allocation.weights_u[member.symbol],
            }
            for member in change.portfolio.members
        },
        "cash_u": allocation.cash_u,
        "flags": [flag.value for flag in allocation.flags],
    }
    return change.then(Draft(kind, None, None, payload, reason), at)


def apply_configuration(
    portfolio: Portfolio, version: int, document: Mapping[str, Any], at: datetime, reason: str
) -> PortfolioChange:
    """Apply new settings; `document` holds all of them, JSON-able."""
    payload = {"configuration_version": version, "settings": write_floats_as_text(document)}
    draft = Draft(EventType.CONFIG, None, None, payload, reason)
    return PortfolioChange(portfolio, ()).then(draft, at)


def write_floats_as_text(value: Any) -> Any:
    """Convert every floating-point number of a JSON value to text."""
    if isinstance(value, Mapping):
        return {key: write_floats_as_text(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [write_floats_as_text(inner) for inner in value]
    return number_text(value) if isinstance(value, float) else value


def require_member(portfolio: Portfolio, symbol: str) -> Member:
    """Return a member; raises ConflictError(symbol_not_in_portfolio)."""
    member = portfolio.member(symbol)
    if member is None:
        raise ConflictError(Code.SYMBOL_NOT_IN_PORTFOLIO, f"{symbol} is not a member.")
    return member


def _holds(portfolio: Portfolio, symbol_id: str) -> bool:
    return any(member.symbol_id == symbol_id for member in portfolio.members)


def _member(new_member: NewMember, rank: int, at: datetime, reason: str) -> Member:
    return Member(
        symbol_id=new_member.symbol_id,
        symbol=new_member.symbol,
        contract=new_member.contract,
        rank=rank,
        included_at=at,
        inclusion_reason=reason,
        inclusion_price=new_member.price,
        inclusion_score=new_member.score,
        weight_u=0,
        target_weight_u=0,
    )
