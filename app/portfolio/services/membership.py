"""Membership: initialise, add, remove and replace, each in one transaction with its history."""

from dataclasses import dataclass
from typing import Final

from app.foundation.decimal_math import to_millionths
from app.foundation.errors import Code, ConflictError, RefusedError
from app.foundation.idempotency import (
    Command,
    CommandResult,
    IdempotentExecutor,
    Render,
    TransactionHooks,
)
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.eligibility import RULES
from app.portfolio.domain.candidate_selection import (
    RefusedCandidate,
    Selection,
    exceeds_sector_limit,
    find_conflicting_member,
    select_candidates,
)
from app.portfolio.domain.event_log import number_text
from app.portfolio.domain.membership import (
    PortfolioChange,
    add_members,
    remove_member,
    replace_member,
    require_member,
)
from app.portfolio.domain.models import Member, Portfolio
from app.portfolio.services.change_recorder import ChangeRecorder, with_new_weights
from app.portfolio.services.decision_context import (
    CountedDecision,
    DecisionContext,
    DecisionContextFactory,
)
from app.portfolio.services.rebalance_runs import require_no_active_run
from app.portfolio.services.replacement_candidates import correlation_of
from app.portfolio.services.views import (
    MemberView,
    PortfolioView,
    get_target_weights,
    member_view,
    portfolio_key,
    portfolio_view,
)
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.trades import TradeRepository
from app.scoring.domain.board import CardStatus

_ASKED: Final = {rule.name: rule.title for rule in RULES}


def require_candidate(symbol: str, context: DecisionContext) -> None:
    """Check that a symbol is eligible and scored; its score decides the weight, not membership.

    Raises RefusedError(symbol_not_tradable) that names the failed rule or the missing input,
    UnavailableError without a board to decide on.
    """
    card = context.require_board().card(symbol)
    if card is not None and card.status is CardStatus.SCORED:
        return
    why = "it is not on the newest board" if card is None else str(card.detail or card.reason)
    said = f'this does not hold: "{_ASKED[why]}"' if why in _ASKED else why
    raise RefusedError(
        Code.SYMBOL_NOT_TRADABLE,
        f"{symbol} is no candidate: {said}.",
        facts={"reason": why},
    )


@dataclass(frozen=True, slots=True)
class InitializeResult:
    view: PortfolioView
    refused: tuple[RefusedCandidate, ...]


@dataclass(frozen=True, slots=True)
class RemoveResult:
    """Former member, and the version without it."""

    member: Member
    version: int
    cash_u: int


@dataclass(frozen=True, slots=True)
class ReplaceResult:
    old: Member
    new: MemberView
    version: int
    score_difference: float | None  # new minus old


@dataclass(frozen=True, slots=True)
class PortfolioService:
    """Reads and changes of the membership.

    Every change first locks the portfolio, then reads board and market from memory. Decisions
    thus use the current state and do not wait for the network.
    """

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    recorder: ChangeRecorder

    async def view(self) -> PortfolioView:
        """Portfolio with the current figures of its members."""
        state, context = await self.contexts.present(self.database)
        views = self.contexts.views
        return views.get(
            "portfolio",
            portfolio_key(state, context),
            lambda: portfolio_view(
                state.portfolio,
                context,
                state.realized,
                get_target_weights(state, context, views),
                state.booked.totals,
            ),
        )

    async def initialize(
        self,
        size: int | None,
        reason: str,
        command: Command,
        render: Render[InitializeResult] | None = None,
    ) -> CommandResult[InitializeResult]:
        """Fill an empty portfolio with up to `size` symbols, best scores first.

        Raises ConflictError(portfolio_not_empty), UnavailableError without a fresh board.
        """

        async def change(unit: UnitOfWork) -> InitializeResult:
            portfolio, context = await self._locked(unit, command)
            if portfolio.members:
                raise ConflictError(
                    Code.PORTFOLIO_NOT_EMPTY,
                    f"The portfolio has {len(portfolio.members)} members already.",
                )
            most = context.configuration.max_portfolio_symbols
            if size is not None and size > most:
                raise RefusedError(
                    Code.VALIDATION_FAILED,
                    f"`size` must be at most {most}, the setting `max_portfolio_symbols`.",
                    field="size",
                )
            selection = select_members(context, most if size is None else size)
            new_members = [context.new_member(context.resolve(name)) for name in selection.chosen]
            if new_members:
                done = add_members(portfolio, new_members, most, context.at, reason)
                portfolio = await self._commit(unit, portfolio, done, context, command)
            realized = await unit.get(TradeRepository).realized()
            shown = portfolio_view(portfolio, context.with_weights_just_set(), realized)
            return InitializeResult(shown, selection.refused)

        with self.contexts.refusals.counted(CountedDecision.INITIALIZE):
            return await self.idempotency.run(command, change, render)

    async def add(
        self,
        text: str,
        reason: str,
        command: Command,
        render: Render[MemberView] | None = None,
        hooks: TransactionHooks[MemberView] | None = None,
    ) -> CommandResult[MemberView]:
        """Add a member in the last rank and set all weights; `hooks` run in the transaction.

        Raises RefusedError (symbol_unknown, symbol_ambiguous, symbol_not_tradable,
        correlation_limit, sector_limit), ConflictError (portfolio_full,
        symbol_already_in_portfolio), UnavailableError with stale data.
        """

        async def change(unit: UnitOfWork) -> MemberView:
            portfolio, context = await self._locked(unit, command)
            entry = context.resolve(text)
            most = context.configuration.max_portfolio_symbols
            done = add_members(portfolio, [context.new_member(entry)], most, context.at, reason)
            others = tuple(member.symbol for member in portfolio.members)
            _require_admissible(entry.symbol, others, done.portfolio, context)
            _require_room(entry.symbol, None, others, context)
            after = await self._commit(unit, portfolio, done, context, command)
            realized = await unit.get(TradeRepository).realized()
            return member_view(
                require_member(after, entry.symbol),
                after,
                context.with_weights_just_set(),
                realized,
            )

        with self.contexts.refusals.counted(CountedDecision.ADD):
            return await self.idempotency.run(command, change, render, hooks=hooks)

    async def remove(
        self,
        text: str,
        reason: str,
        command: Command,
        render: Render[RemoveResult] | None = None,
        hooks: TransactionHooks[RemoveResult] | None = None,
    ) -> CommandResult[RemoveResult]:
        """Remove a member; with stale data its weight goes to cash.

        Raises ConflictError(symbol_not_in_portfolio), RefusedError for an unknown symbol.
        """

        async def change(unit: UnitOfWork) -> RemoveResult:
            portfolio, context = await self._locked(unit, command)
            member = _member_named(text, portfolio, context)
            facts = last_facts(member, context)
            done = remove_member(portfolio, member.symbol, facts, context.at, reason)
            after = await self._commit(unit, portfolio, done, context, command)
            return RemoveResult(member, after.version, after.cash_u)

        return await self.idempotency.run(command, change, render, hooks=hooks)

    async def clear(
        self,
        reason: str,
        command: Command,
        render: Render[tuple[Member, ...]] | None = None,
    ) -> CommandResult[tuple[Member, ...]]:
        """Removes every member in one transaction, last rank first; their weights go to cash."""

        async def change(unit: UnitOfWork) -> tuple[Member, ...]:
            portfolio, context = await self._locked(unit, command)
            members = portfolio.members[::-1]
            for member in members:
                facts = last_facts(member, context)
                done = remove_member(portfolio, member.symbol, facts, context.at, reason)
                await self.recorder.commit(unit, portfolio, done, context, command)
                portfolio = done.portfolio
            return members

        return await self.idempotency.run(command, change, render)

    async def replace(
        self,
        old_text: str,
        new_text: str,
        reason: str,
        command: Command,
        render: Render[ReplaceResult] | None = None,
        hooks: TransactionHooks[ReplaceResult] | None = None,
    ) -> CommandResult[ReplaceResult]:
        """Replace a member in one transaction; the new symbol takes its rank.

        The hysteresis of automatic swaps does not apply, their safety rules do; `hooks` run
        with it. Raises as `add` and `remove` do, except portfolio_full; RefusedError
        (sector_limit).
        """

        async def change(unit: UnitOfWork) -> ReplaceResult:
            portfolio, context = await self._locked(unit, command)
            old = _member_named(old_text, portfolio, context)
            entry = context.resolve(new_text)
            _require_another(old.symbol, entry.symbol)
            new_member = context.new_member(entry)
            facts = {
                "old_facts": last_facts(old, context),
                "costs": swap_costs(old.symbol, entry.symbol, context),
            }
            done = replace_member(portfolio, old.symbol, new_member, facts, context.at, reason)
            others = tuple(one.symbol for one in portfolio.members if one is not old)
            _require_admissible(entry.symbol, others, done.portfolio, context)
            _require_room(entry.symbol, old.symbol, others, context)
            after = await self._commit(unit, portfolio, done, context, command)
            realized = await unit.get(TradeRepository).realized()
            new = member_view(
                require_member(after, entry.symbol),
                after,
                context.with_weights_just_set(),
                realized,
            )
            ours, theirs = new.score, context.score(old.symbol)
            difference = None if ours is None or theirs is None else ours - theirs
            return ReplaceResult(old, new, after.version, difference)

        with self.contexts.refusals.counted(CountedDecision.REPLACE):
            return await self.idempotency.run(command, change, render, hooks=hooks)

    async def _locked(
        self, unit: UnitOfWork, command: Command
    ) -> tuple[Portfolio, DecisionContext]:
        portfolio = await unit.get(PortfolioRepository).load(for_update=True)
        command.require_version(portfolio.version)
        context = await self.contexts.of(unit)
        if portfolio.members:  # an empty portfolio has no run that sets weights
            await require_no_active_run(unit, await self.idempotency.now(unit))
        return portfolio, context

    async def _commit(
        self,
        unit: UnitOfWork,
        before: Portfolio,
        done: PortfolioChange,
        context: DecisionContext,
        who: Command,
    ) -> Portfolio:
        weighed = with_new_weights(done, context, {}, done.drafts[0].reason)
        await self.recorder.commit(unit, before, weighed, context, who)
        return weighed.portfolio


def select_members(context: DecisionContext, size: int) -> Selection:
    """Selects up to `size` members of the board, best scores first, within all limits."""
    cards = [card for card in context.require_board().cards if card.status is CardStatus.SCORED]
    settings = context.configuration
    least = to_millionths(settings.entry_score)
    worthy = tuple(
        card.symbol
        for card in cards
        if card.composite is not None and to_millionths(card.composite) >= least
    )
    return select_candidates(
        (context.candidate(card.symbol) for card in cards),
        correlation_of(worthy, context, settings.correlation.addition_days),
        size,
        settings,
    )


def _require_admissible(
    symbol: str, others: tuple[str, ...], after: Portfolio, context: DecisionContext
) -> None:
    """Check that the symbol is Open, fresh and within the correlation limit."""
    context.require_tradeable(symbol)
    context.require_board()
    context.require_fresh(symbol)
    context.require_fresh_members(after)
    require_candidate(symbol, context)
    settings = context.configuration
    known = correlation_of((symbol, *others), context, settings.correlation.addition_days)
    refused = find_conflicting_member(symbol, None, others, known, settings)
    if refused is not None:
        said = "not known" if refused.correlation is None else f"{refused.correlation:.3f}"
        limit, other = settings.correlation.limit, refused.conflicting_symbol
        raise RefusedError(
            Code.CORRELATION_LIMIT,
            f"Correlation of {symbol} with {other}: {said}; the limit is {limit:g}.",
            facts={
                "conflicting_symbol": other or "",
                "correlation": said,
                "limit": f"{limit:g}",
            },
        )


def _require_another(old: str, new: str) -> None:
    if old == new:
        raise RefusedError(
            Code.VALIDATION_FAILED, f"{old} cannot replace itself.", field="new_symbol"
        )


def _require_room(
    symbol: str, left: str | None, others: tuple[str, ...], context: DecisionContext
) -> None:
    """Check the sector limit without the leaving sector `left`.

    Raises RefusedError(sector_limit).
    """
    sector = context.sector(symbol)
    alike = left is not None and context.sector(left) == sector
    if not alike and exceeds_sector_limit(
        sector, map(context.sector, others), context.configuration
    ):
        most = context.configuration.replacement.max_per_sector
        raise RefusedError(
            Code.SECTOR_LIMIT, f"The sector {sector} has {most} members or more already."
        )


def _member_named(text: str, portfolio: Portfolio, context: DecisionContext) -> Member:
    """Member of that name; the registry resolves other spellings."""
    for member in portfolio.members:
        if text.upper() in {member.symbol, member.contract, member.symbol_id.upper()}:
            return member
    return require_member(portfolio, context.resolve(text).symbol)


def swap_costs(old: str, new: str, context: DecisionContext) -> dict[str, dict[str, str | None]]:
    """Taker fee and half the spread of both legs, as fractions; null where they are not known."""
    return {"old": _leg_costs(old, context), "new": _leg_costs(new, context)}


def _leg_costs(symbol: str, context: DecisionContext) -> dict[str, str | None]:
    quote = context.market.quote(symbol)
    if quote is None:
        return {"fee": None, "half_spread": None}
    bid, ask, half = quote.bid, quote.ask, None
    if bid is not None and ask is not None and 0 < bid <= ask:
        half = (ask - bid) / (ask + bid)
    return {"fee": number_text(quote.contract.taker_fee), "half_spread": number_text(half)}


def last_facts(member: Member, context: DecisionContext) -> dict[str, str | None]:
    """Facts about a member at its exit, for the history."""
    figures = context.since_inclusion(member)
    return {
        "score": number_text(context.score(member.symbol)),
        "confidence": number_text(context.confidence(member.symbol)),
        "performance": number_text(figures.performance),
    }
