"""The append-only history: typed facts, chained by hashes, from which the state can be folded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from app.foundation.hash_chain import ChainHead, instant_text, seal
from app.portfolio.domain.models import EMPTY, Member, Portfolio


class EventType(StrEnum):
    ADD = "ADD"
    REMOVE = "REMOVE"
    REPLACE = "REPLACE"
    REBALANCE = "REBALANCE"
    WEIGHTS = "WEIGHTS"
    CONFIG = "CONFIG"
    PERFORMANCE = "PERFORMANCE"
    LOCK = "LOCK"
    SWITCH = "SWITCH"


@dataclass(frozen=True, slots=True)
class Draft:
    """Event before it has a place in the hash chain.

    `payload` holds text, integers, booleans, null, lists and objects only. Not every database
    stores binary floating point unchanged, so such numbers are written as text.
    """

    type: EventType
    symbol: str | None  # the member concerned; in a replacement the new one
    other_symbol: str | None  # the replaced one
    payload: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class EventOrigin:
    """Actor, time and decision inputs, shared by all events of one change."""

    actor: str
    request_id: str
    occurred_at: datetime
    configuration_version: int
    input_hash: str | None  # of the board used; None without one
    code_version: str


@dataclass(frozen=True, slots=True)
class PortfolioEvent:
    """One event of the chain; `hash` covers all other fields, including `prev_hash`."""

    seq: int
    type: EventType
    symbol: str | None
    other_symbol: str | None
    payload: Mapping[str, Any]
    reason: str
    actor: str
    request_id: str
    occurred_at: datetime
    configuration_version: int
    input_hash: str | None
    code_version: str
    prev_hash: str
    hash: str

    def body(self) -> dict[str, Any]:
        """Everything but the hashes, as it is hashed."""
        return {
            "seq": self.seq,
            "type": self.type.value,
            "symbol": self.symbol,
            "other_symbol": self.other_symbol,
            "payload": self.payload,
            "reason": self.reason,
            "actor": self.actor,
            "request_id": self.request_id,
            "occurred_at": instant_text(self.occurred_at),
            "configuration_version": self.configuration_version,
            "input_hash": self.input_hash,
            "code_version": self.code_version,
        }


def seal_events(
    drafts: Iterable[Draft], stamp: EventOrigin, last: PortfolioEvent | None
) -> tuple[PortfolioEvent, ...]:
    """Number and hash the drafts as the events after `last` (None: the chain begins)."""
    return seal(unsealed_events(drafts, stamp), None if last is None else ChainHead.of(last))


def unsealed_events(drafts: Iterable[Draft], stamp: EventOrigin) -> tuple[PortfolioEvent, ...]:
    """Events of one change before they have number and hash."""
    return tuple(
        PortfolioEvent(
            seq=0,
            type=draft.type,
            symbol=draft.symbol,
            other_symbol=draft.other_symbol,
            payload=draft.payload,
            reason=draft.reason,
            actor=stamp.actor,
            request_id=stamp.request_id,
            occurred_at=stamp.occurred_at,
            configuration_version=stamp.configuration_version,
            input_hash=stamp.input_hash,
            code_version=stamp.code_version,
            prev_hash="",
            hash="",
        )
        for draft in drafts
    )


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def number_text(value: float | Decimal | None) -> str | None:
    """Convert a number to text that reads back to the same number; None stays None."""
    if value is None:
        return None
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


def member_payload(member: Member) -> dict[str, Any]:
    return {
        "symbol_id": member.symbol_id,
        "symbol": member.symbol,
        "contract": member.contract,
        "rank": member.rank,
        "included_at": instant_text(member.included_at),
        "inclusion_reason": member.inclusion_reason,
        "inclusion_price": number_text(member.inclusion_price),
        "inclusion_score": number_text(member.inclusion_score),
        "weight_u": member.weight_u,
        "target_weight_u": member.target_weight_u,
    }


def _member(payload: Mapping[str, Any]) -> Member:
    price, score = payload["inclusion_price"], payload["inclusion_score"]
    return Member(
        symbol_id=payload["symbol_id"],
        symbol=payload["symbol"],
        contract=payload["contract"],
        rank=payload["rank"],
        included_at=instant(payload["included_at"]),
        inclusion_reason=payload["inclusion_reason"],
        inclusion_price=None if price is None else Decimal(price),
        inclusion_score=None if score is None else float(score),
        weight_u=payload["weight_u"],
        target_weight_u=payload["target_weight_u"],
    )


def fold_events(events: Iterable[PortfolioEvent], start: Portfolio = EMPTY) -> Portfolio:
    """The portfolio after `events`, applied to `start` in their order."""
    state = start
    for event in events:
        state = apply(state, event.type, event.payload, event.occurred_at)
    return state


def apply(state: Portfolio, kind: EventType, payload: Mapping[str, Any], at: datetime) -> Portfolio:
    """Apply one event; changes are computed with it too, so folding gives the same state."""
    return replace(_AFTER[kind](state, payload, at), version=payload["version"])


def _ranked(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(replace(member, rank=rank) for rank, member in enumerate(members, start=1))


def _after_add(state: Portfolio, payload: Mapping[str, Any], _at: datetime) -> Portfolio:
    member = _member(payload["member"])
    cash = state.cash_u - member.weight_u
    return replace(state, members=(*state.members, member), cash_u=cash, weighted_at=None)


def _after_remove(state: Portfolio, payload: Mapping[str, Any], _at: datetime) -> Portfolio:
    gone = payload["member"]["symbol_id"]
    freed = sum(member.weight_u for member in state.members if member.symbol_id == gone)
    left = (member for member in state.members if member.symbol_id != gone)
    return replace(state, members=_ranked(left), cash_u=state.cash_u + freed, weighted_at=None)


def _after_replace(state: Portfolio, payload: Mapping[str, Any], _at: datetime) -> Portfolio:
    gone, new = payload["old"]["symbol_id"], _member(payload["member"])
    freed = sum(member.weight_u for member in state.members if member.symbol_id == gone)
    members = tuple(new if member.symbol_id == gone else member for member in state.members)
    cash = state.cash_u + freed - new.weight_u
    return replace(state, members=members, cash_u=cash, weighted_at=None)


def _after_weights(state: Portfolio, payload: Mapping[str, Any], at: datetime) -> Portfolio:
    weights = payload["weights"]
    members = tuple(
        replace(
            member,
            weight_u=weights[member.symbol_id]["weight_u"],
            target_weight_u=weights[member.symbol_id]["target_weight_u"],
        )
        for member in state.members
    )
    return replace(state, members=members, cash_u=payload["cash_u"], weighted_at=at)


def _after_config(state: Portfolio, payload: Mapping[str, Any], _at: datetime) -> Portfolio:
    return replace(state, configuration_version=payload["configuration_version"])


def _unmoved(state: Portfolio, _payload: Mapping[str, Any], _at: datetime) -> Portfolio:
    # Booked results and operator controls move no weight.
    return state


_AFTER: Final = {
    EventType.ADD: _after_add,
    EventType.REMOVE: _after_remove,
    EventType.REPLACE: _after_replace,
    EventType.REBALANCE: _after_weights,
    EventType.WEIGHTS: _after_weights,
    EventType.CONFIG: _after_config,
    EventType.PERFORMANCE: _unmoved,
    EventType.LOCK: _unmoved,
    EventType.SWITCH: _unmoved,
}


WEIGHS: Final = frozenset({EventType.REBALANCE, EventType.WEIGHTS})


# Events that change members or weights; no other event affects the equity.
MOVES: Final = WEIGHS | {EventType.ADD, EventType.REMOVE, EventType.REPLACE}
