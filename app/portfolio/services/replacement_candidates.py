"""Members that may leave and symbols that may replace them, at one moment."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.configuration.domain.model import CorrelationBasis
from app.foundation.decimal_math import to_millionths
from app.market.domain.models import Interval
from app.market.domain.return_statistics import NotApplicable, correlations, pair_applies
from app.portfolio.domain.candidate_selection import Correlation, ScoredCandidate
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.replacement import (
    ConfirmationCount,
    IncomingCandidate,
    OutgoingMember,
    ReplacementSide,
    compare_symbols,
    filter_admissible,
    select_preferred,
)
from app.portfolio.services.decision_context import DecisionContext
from app.portfolio.services.lot_plan import estimate_leg_cost
from app.portfolio.services.views import weakest
from app.scoring.domain.board import Card, CardStatus

_FUNDING: Final = "funding_rate"
Pair = tuple[OutgoingMember, ReplacementSide | None]


@dataclass(frozen=True, slots=True)
class ReplacementCandidates:
    """Members to replace, forced ones first, then the weakest, and their candidates."""

    context: DecisionContext
    outgoing: tuple[OutgoingMember, ...]
    staying: tuple[ReplacementSide, ...]  # members that are not forced out
    incoming: tuple[IncomingCandidate, ...]  # best first
    correlation: Correlation

    def pairs(
        self, tallies: Mapping[str, ConfirmationCount], noise: Mapping[str, float]
    ) -> tuple[Pair, ...]:
        """Pair each outgoing member with its best candidate; a candidate is offered once.

        `noise` covers outgoing members and the candidates of `tallies`.
        """
        found: list[Pair] = []
        offered: list[ReplacementSide] = []
        for outgoing in self.outgoing:
            old = outgoing.side
            # The swap must fit with and without the other swaps of this cycle.
            others = (*(one for one in self.staying if one.symbol != old.symbol), *offered)
            free = (one for one in self.incoming if one.side not in offered)
            best = select_preferred(
                filter_admissible(
                    free, outgoing, others, self.correlation, self.context.configuration
                ),
                tallies.get(old.symbol),
                self._better_than(old, noise),
            )
            if best is not None:
                offered.append(best.side)
            found.append((outgoing, None if best is None else best.side))
        return tuple(found)

    def _better_than(
        self, old: ReplacementSide, noise: Mapping[str, float]
    ) -> Callable[[IncomingCandidate], bool]:
        rules = self.context.configuration.replacement
        return lambda candidate: compare_symbols(old, candidate.side, noise, rules).exceeds(rules)


def find_replacement_candidates(
    portfolio: Portfolio, context: DecisionContext
) -> ReplacementCandidates:
    """Find outgoing members and all symbols of the board with a sufficient score."""
    members = {one.symbol: one for one in portfolio.members}
    forced = {name: why for name in members if (why := context.must_leave(name)) is not None}
    leaving = (*forced, *(name for name in weakest(portfolio, context) if name not in forced))
    least = to_millionths(context.configuration.entry_score)
    cards = tuple(
        card
        for card in (() if context.complete_board is None else context.complete_board.cards)
        if card.status is CardStatus.SCORED
        and card.symbol not in members
        and card.composite is not None
        and to_millionths(card.composite) >= least
    )
    return ReplacementCandidates(
        context=context,
        outgoing=tuple(
            OutgoingMember(
                side=describe_symbol(name, context),
                held=context.since(members[name].included_at),
                forced=forced.get(name),
                is_pinned=context.controls.is_pinned(name),
                is_paused=context.is_paused(name),
            )
            for name in leaving
        ),
        staying=tuple(describe_symbol(name, context) for name in members if name not in forced),
        incoming=tuple(
            IncomingCandidate(_with(card, card.symbol, context), _candidate(card, context))
            for card in cards
        ),
        correlation=correlation_of(
            (*members, *(card.symbol for card in cards)),
            context,
            context.configuration.correlation.addition_days,
        ),
    )


def describe_symbol(symbol: str, context: DecisionContext) -> ReplacementSide:
    """Describe a symbol as one side of a replacement."""
    return _with(context.card(symbol), symbol, context)


def _with(card: Card | None, symbol: str, context: DecisionContext) -> ReplacementSide:
    known = None if card is None else card.confidence
    return ReplacementSide(
        symbol=symbol,
        sector=context.sector(symbol),
        score=None if card is None else card.composite,
        z=None if card is None else card.z,
        confidence=None if known is None else known.level,
        funding=_funding(card),
        trading_cost=estimate_leg_cost(
            symbol, context.configuration.replacement.impact_notional, context
        ),
    )


def _funding(card: Card | None) -> float | None:
    """Funding rate of scoring: settled rates of three days, annualised."""
    readings = () if card is None else card.factors
    return next((one.raw for one in readings if one.name == _FUNDING), None)


def _candidate(card: Card, context: DecisionContext) -> ScoredCandidate:
    symbol = card.symbol
    fresh, sector = context.is_fresh(symbol), context.sector(symbol)
    return ScoredCandidate(symbol, context.may_enter(symbol), fresh, card.composite, sector)


def correlation_of(
    symbols: tuple[str, ...],
    context: DecisionContext,
    days: int,
    basis: CorrelationBasis | None = None,
) -> Correlation:
    """Correlations of `symbols` over `days`; of one with itself 1 if its history is enough.

    `basis` is that of the settings, if it is not given.
    """
    panel, rules = context.market.panel(Interval.DAY), context.configuration.correlation
    how = rules.basis if basis is None else basis
    matrix = None
    if panel is not None and symbols:
        matrix = correlations(panel, symbols, how, days, rules.min_common)
    place = {symbol: at for at, symbol in enumerate(symbols)}

    def known(one: str, other: str) -> float | NotApplicable | None:
        if not pair_applies(one, other, how):
            return NotApplicable.IS_THE_MARKET
        if matrix is None:
            return None
        rho = float(matrix[place[one], place[other]])
        return rho if np.isfinite(rho) else None

    return known
