"""Sets weights for a portfolio change, stores it with its history and publishes events."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from app.foundation.hash_chain import instant_text
from app.foundation.idempotency import Command
from app.foundation.sql.database import UnitOfWork
from app.market.domain.segments import Redenomination
from app.portfolio.domain.controls import HELD_BACK
from app.portfolio.domain.event_log import (
    Draft,
    EventOrigin,
    EventType,
    PortfolioEvent,
    number_text,
)
from app.portfolio.domain.events import portfolio_changed
from app.portfolio.domain.membership import PortfolioChange, set_weights
from app.portfolio.domain.models import Portfolio, faults
from app.portfolio.domain.rebalance_plan import constrain_members, keep_within_no_trade_bands
from app.portfolio.domain.target_weights import compute_targets
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.lot_plan import derive_lot_rule
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import (
    ControlRepository,
    Departure,
    MembershipStatus,
    PortfolioRepository,
)
from app.portfolio.storage.replacements import ReplacementRepository

_LEAVES: Final = {
    EventType.REMOVE: MembershipStatus.REMOVED,
    EventType.REPLACE: MembershipStatus.REPLACED,
}
_MARKED: Final = frozenset(
    {
        EventType.ADD,
        EventType.REMOVE,
        EventType.REPLACE,
        EventType.REBALANCE,
        EventType.WEIGHTS,
    }
)


class BrokenInvariantError(AssertionError):
    """A change would break a portfolio invariant: a bug, so the transaction is rolled back."""


def with_new_weights(
    change: PortfolioChange, context: DecisionContext, facts: Mapping[str, Any], reason: str
) -> PortfolioChange:
    """Change with new weights for the resulting members; unchanged if data is stale.

    Members inside their band keep their drifted weight, as in a rebalance.
    While trading is switched off no weight grows: freed weight stays cash.
    """
    state = change.portfolio
    if not context.is_sound(state) or not context.controls.switch.enabled:
        return change
    known, statuses = context.covariance(state), context.member_statuses(state)
    constraints = constrain_members(
        context.at_current_prices(state), statuses, context.configuration, known
    )
    allocation = keep_within_no_trade_bands(
        compute_targets(constraints, context.configuration, known),
        constraints,
        statuses,
        context.configuration,
        known,
        derive_lot_rule(statuses, None, context).least_u,
    )
    return set_weights(change, allocation, facts, context.at, reason)


def with_mark_prices(
    before: Portfolio, change: PortfolioChange, context: DecisionContext
) -> tuple[Draft, ...]:
    """Add the data age to all drafts and the mark prices around the change to the last one.

    `data_as_of` is the exchange time of the market data; null if unknown. The equity can be
    reconstructed from the marks. An unknown mark is null, with the reason if it is in quarantine.
    A change of neither members nor weights has no marks.
    """
    if not any(draft.type in _MARKED for draft in change.drafts):
        return change.drafts
    members = {one.symbol_id: one for one in (*before.members, *change.portfolio.members)}
    marks = {symbol_id: _mark(one.symbol, context) for symbol_id, one in members.items()}
    as_of = context.market.as_of()
    known = {"data_as_of": None if as_of is None else instant_text(as_of)}
    *others, last = (
        replace(draft, payload={**draft.payload, **known}) if draft.type in _MARKED else draft
        for draft in change.drafts
    )
    return (*others, replace(last, payload={**last.payload, "marks": marks}))


def _mark(symbol: str, context: DecisionContext) -> dict[str, object]:
    mark = context.mark(symbol)
    if mark is not None:
        payload: dict[str, object] = {"symbol": symbol, "mark": number_text(mark)}
        changes = context.redenominations(symbol)
        if changes:
            payload["redenominated"] = _redenominations_payload(changes)
        return payload
    quote = context.market.quote(symbol)
    return {
        "symbol": symbol,
        "mark": None,
        "doubt": None if quote is None else quote.quarantine_reason,
    }


def _redenominations_payload(changes: Iterable[Redenomination]) -> list[dict[str, str]]:
    """JSON form of redenominations beside a mark price."""
    return [
        {
            "since": instant_text(one.since),
            "until": instant_text(one.until),
            "before": str(number_text(one.before)),
            "after": str(number_text(one.after)),
        }
        for one in changes
    ]


# Adds the current equity to drafts that set weights; performance implements it.
IndexEquity = Callable[[UnitOfWork, Sequence[Draft], EventOrigin], Awaitable[tuple[Draft, ...]]]


@dataclass(frozen=True, slots=True)
class ChangeRecorder:
    """Commits a change: state, history events and published events of one version."""

    code_version: str
    index_equity: IndexEquity

    async def commit(
        self,
        unit: UnitOfWork,
        before: Portfolio,
        change: PortfolioChange,
        context: DecisionContext,
        who: Command,
    ) -> tuple[PortfolioEvent, ...]:
        """Store a change decided on `before`, which this transaction has locked.

        Raises ConflictError where the operator's switch or locks forbid it.
        """
        if any(draft.type in HELD_BACK for draft in change.drafts):
            (await unit.get(ControlRepository).load()).in_force(context.since).require(
                change.drafts
            )
        after = change.portfolio
        broken = faults(after, context.configuration.max_portfolio_symbols)
        if broken:
            raise BrokenInvariantError("; ".join(broken))
        stamp = EventOrigin(
            actor=who.actor,
            request_id=who.request_id,
            occurred_at=context.at,
            configuration_version=context.configuration.version,
            input_hash=None
            if context.complete_board is None
            else context.complete_board.input_hash,
            code_version=self.code_version,
        )
        drafts = await self.index_equity(unit, with_mark_prices(before, change, context), stamp)
        if remarks := _remarks(who):
            drafts = tuple(replace(one, payload={**one.payload, **remarks}) for one in drafts)
        events = await unit.get(HistoryRepository).append(drafts, stamp)
        if entering := sum(draft.type is EventType.ADD for draft in drafts):
            seats = await unit.get(ReplacementRepository).vacancies()
            # New members fill waiting seats before expired ones.
            seats = tuple(sorted(seats, key=context.is_seat_given_up))
            await unit.get(ReplacementRepository).fill_vacancies(seats[:entering])
        await unit.get(PortfolioRepository).save(
            before, after, context.at, _departures(before, change.drafts)
        )
        for symbol in {one.symbol for one in before.members} - {
            one.symbol for one in after.members
        }:
            await unit.get(ReplacementRepository).forget(symbol)
        if events:
            unit.publish_after_commit(portfolio_changed(before, after, events, who.proposal_id))
        return events


def _remarks(who: Command) -> Mapping[str, Any]:
    """Facts of the request that every event of the change carries."""
    remarks: dict[str, Any] = {}
    if who.note is not None:
        remarks["user"] = who.note  # named by the request, not verified
    if who.is_unkeyed:
        remarks["has_idempotency_key"] = False  # a captured request could be sent again
    return remarks


def _departures(before: Portfolio, drafts: tuple[Draft, ...]) -> dict[str, Departure]:
    ids = {member.symbol: member.symbol_id for member in before.members}
    gone = ((draft, draft.other_symbol or draft.symbol) for draft in drafts)
    return {
        ids[symbol]: Departure(_LEAVES[draft.type], draft.reason)
        for draft, symbol in gone
        if draft.type in _LEAVES and symbol in ids
    }
