"""Evaluates, confirms and executes replacements of weak members over the whole universe."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.configuration.domain.sections import AutomationMode
from app.foundation.data_status import DataStatus
from app.foundation.decision_log import DecisionKind, DecisionLog
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.ports import NewId
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.sectors import NO_SECTOR
from app.portfolio.domain.event_log import EventType, number_text
from app.portfolio.domain.membership import (
    add_members,
    remove_member,
    replace_member,
    require_member,
)
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.proposals import ProposalKind
from app.portfolio.domain.replacement import (
    ConfirmationCount,
    OutgoingMember,
    ReplacementBlock,
    ReplacementProposal,
    ReplacementSide,
    Vacancy,
    compare_symbols,
    count_confirmation,
    filter_admissible,
    noise_or_default,
)
from app.portfolio.services.change_recorder import ChangeRecorder, with_new_weights
from app.portfolio.services.decision_context import (
    CountedDecision,
    DecisionContext,
    DecisionContextFactory,
)
from app.portfolio.services.decision_replay import ReplacementSnapshot, propose_from_snapshot
from app.portfolio.services.membership import ReplaceResult, last_facts, swap_costs
from app.portfolio.services.proposal_book import proposal_from_replacement, sync_open_proposals
from app.portfolio.services.replacement_candidates import (
    Pair,
    describe_symbol,
    find_replacement_candidates,
)
from app.portfolio.services.tradeability import DataFacts, describe_data
from app.portfolio.services.views import member_view
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.replacements import ReplacementRepository

IMPROVED = "a better symbol, confirmed"


@dataclass(frozen=True, slots=True)
class VacantSeat:
    """Vacancy, and whether it still waits for a new member."""

    vacancy: Vacancy
    is_given_up: bool


@dataclass(frozen=True, slots=True)
class ReplacementOverview:
    """Proposed replacements: forced ones first, then the weakest members, weakest first."""

    version: int
    proposals: tuple[ReplacementProposal, ...]
    required_confirmations: int
    facts: DataFacts
    seats: tuple[VacantSeat, ...] = ()  # of members that left for cash


@dataclass(frozen=True, slots=True)
class ReplacementResult:
    """Executed replacements in order, and all proposals of the evaluation."""

    version: int
    swaps: tuple[ReplaceResult, ...]
    proposals: tuple[ReplacementProposal, ...]
    exits: tuple[str, ...] = ()  # members that left for cash, without a complete board
    entries: tuple[str, ...] = ()  # symbols that filled such seats later


@dataclass(frozen=True, slots=True)
class _ReplacementDecision:
    """Inputs and proposals of one evaluation."""

    snapshot: ReplacementSnapshot
    proposals: tuple[ReplacementProposal, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class ReplacementService:
    """Proposes replacements, counts their confirmations and executes them."""

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    recorder: ChangeRecorder
    new_id: NewId
    decisions: DecisionLog = DecisionLog()  # noqa: RUF009  # the default is frozen

    async def evaluate(self) -> ReplacementOverview:
        """Evaluate replacements and their blocks; counts and writes nothing."""
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            context = await self.contexts.of(unit)
            proposals, _ = await self._proposals(unit, portfolio, context, count=False)
            vacancies = await unit.get(ReplacementRepository).vacancies()
        seats = tuple(VacantSeat(one, context.is_seat_given_up(one)) for one in vacancies)
        required = context.configuration.replacement.confirmations
        return ReplacementOverview(
            portfolio.version, proposals, required, describe_data(context), seats
        )

    async def execute(
        self,
        command: Command,
        *,
        unattended: bool = False,
        forced_only: bool = False,
        render: Render[ReplacementResult] | None = None,
    ) -> CommandResult[ReplacementResult]:
        """Count one evaluation, then execute the due replacements, each as one version.

        With `unattended` only kinds of automation `auto` are executed; others may be proposed.
        With `forced_only` only members that cannot stay are replaced, and nothing is counted.
        Without a complete board such members leave for cash; a later board fills their seats.
        Raises UnavailableError (no_board_yet, market_data_stale), PreconditionFailedError.
        """

        async def change(unit: UnitOfWork) -> ReplacementResult:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            command.require_version(portfolio.version)
            context = await self.contexts.of(unit)
            forced = any(context.must_leave(one.symbol) for one in portfolio.members)
            vacancies = tuple(
                one
                for one in await unit.get(ReplacementRepository).vacancies()
                if not context.is_seat_given_up(one)
            )
            if forced_only and not forced and not (vacancies and context.has_board_in_force()):
                return ReplacementResult(portfolio.version, (), ())
            may_force = not unattended or _may_force(context)
            if forced and may_force and _must_exit_to_cash(context):
                exits, portfolio = await self._exit(unit, portfolio, context, command)
                if exits or forced_only:
                    return ReplacementResult(portfolio.version, (), (), exits)
            context.require_fresh_members(portfolio)
            count = not forced_only
            proposals, snapshot = await self._proposals(unit, portfolio, context, count=count)
            decision = _ReplacementDecision(snapshot, proposals, context.at)
            swaps: list[ReplaceResult] = []
            waiting: list[ReplacementProposal] = []
            for one in proposals:
                if one.candidate is None or not one.is_due or not (one.is_forced or count):
                    continue
                if unattended and not _may(one, context):
                    waiting.append(one)
                    continue
                done, portfolio = await self._swap(
                    unit, portfolio, one, one.candidate, context, command, decision
                )
                swaps.append(done)
            entries: tuple[str, ...] = ()
            if may_force and _blocking_reason(portfolio, context) is None:
                entries, portfolio = await self._fill(unit, portfolio, vacancies, context, command)
            if unattended and count:
                await self._offer(unit, waiting, portfolio, context, decision)
            return ReplacementResult(portfolio.version, tuple(swaps), proposals, entries=entries)

        with self.contexts.refusals.counted(CountedDecision.REPLACEMENT):
            return await self.idempotency.run(command, change, render)

    async def _exit(
        self, unit: UnitOfWork, portfolio: Portfolio, context: DecisionContext, who: Command
    ) -> tuple[tuple[str, ...], Portfolio]:
        """Sell the members that cannot stay for cash, pinned ones excepted."""
        exits: list[str] = []
        for member in portfolio.members:
            why = context.must_leave(member.symbol)
            if why is None or context.controls.is_pinned(member.symbol):
                continue
            reason = f"{why}; no complete board names a replacement yet"
            facts = last_facts(member, context)
            done = remove_member(portfolio, member.symbol, facts, context.at, reason)
            await self.recorder.commit(unit, portfolio, done, context, who)
            vacancy = Vacancy(member.symbol, why, context.at)
            await unit.get(ReplacementRepository).vacate(vacancy)
            portfolio = done.portfolio
            exits.append(member.symbol)
        return tuple(exits), portfolio

    async def _fill(
        self,
        unit: UnitOfWork,
        portfolio: Portfolio,
        vacancies: tuple[Vacancy, ...],
        context: DecisionContext,
        who: Command,
    ) -> tuple[tuple[str, ...], Portfolio]:
        """Fill the seats of members that left for cash with the best admissible symbols."""
        entries: list[str] = []
        most = context.configuration.max_portfolio_symbols
        for vacancy in vacancies[: max(0, most - len(portfolio.members))]:
            found = find_replacement_candidates(portfolio, context)
            others = tuple(describe_symbol(one.symbol, context) for one in portfolio.members)
            # The member has left, so a new one of its sector adds to that sector.
            left = replace(describe_symbol(vacancy.symbol, context), sector=NO_SECTOR)
            gone = OutgoingMember(left, timedelta(0), vacancy.reason, False)
            free = filter_admissible(
                found.incoming, gone, others, found.correlation, context.configuration
            )
            best = next(iter(free), None)
            if best is None:
                break
            new_member = context.new_member(context.resolve(best.side.symbol))
            reason = f"in place of {vacancy.symbol}: {vacancy.reason}"
            added = add_members(portfolio, [new_member], most, context.at, reason)
            weighed = with_new_weights(added, context, {}, reason)
            await self.recorder.commit(unit, portfolio, weighed, context, who)
            portfolio = weighed.portfolio
            entries.append(new_member.symbol)
        return tuple(entries), portfolio

    async def _offer(
        self,
        unit: UnitOfWork,
        due: Iterable[ReplacementProposal],
        portfolio: Portfolio,
        context: DecisionContext,
        decision: "_ReplacementDecision",
    ) -> None:
        """Propose waiting replacements if automation is `propose`; supersede other proposals."""
        is_proposed = context.configuration.automation.replacement is AutomationMode.PROPOSE
        wanted = [
            proposal_from_replacement(self.new_id(), one, portfolio.version, context)
            for one in due
            if is_proposed
        ]
        await sync_open_proposals(unit, (ProposalKind.REPLACEMENT,), wanted, context)
        for one in wanted:
            await self._record(unit, one.proposal_id, decision)

    async def _record(
        self, unit: UnitOfWork, decision_id: str, decision: "_ReplacementDecision"
    ) -> None:
        """Stores the inputs of an evaluation for the replay of one of its decisions."""
        kind, given = DecisionKind.REPLACEMENT, decision.snapshot
        await self.decisions.record(unit, kind, decision_id, decision.at, given, decision.proposals)

    async def _swap(
        self,
        unit: UnitOfWork,
        portfolio: Portfolio,
        proposal: ReplacementProposal,
        candidate: ReplacementSide,
        context: DecisionContext,
        who: Command,
        decision: "_ReplacementDecision",
    ) -> tuple[ReplaceResult, Portfolio]:
        old = require_member(portfolio, proposal.outgoing.side.symbol)
        facts = {
            "old_facts": last_facts(old, context),
            "costs": swap_costs(old.symbol, candidate.symbol, context),
            "improvement_z": number_text(proposal.comparison.improvement),
            "threshold_z": number_text(proposal.threshold),
            "confirmations": proposal.confirmations,
        }
        reason = proposal.outgoing.forced or IMPROVED
        new_member = context.new_member(context.resolve(candidate.symbol))
        swapped = replace_member(portfolio, old.symbol, new_member, facts, context.at, reason)
        weighed = with_new_weights(swapped, context, {}, reason)
        events = await self.recorder.commit(unit, portfolio, weighed, context, who)
        for event in events:
            if event.type is EventType.REPLACE:
                await self._record(unit, str(event.seq), decision)
        after = weighed.portfolio
        new = member_view(
            require_member(after, candidate.symbol), after, context.with_weights_just_set()
        )
        return ReplaceResult(old, new, after.version, proposal.score_improvement), after

    async def _proposals(
        self, unit: UnitOfWork, portfolio: Portfolio, context: DecisionContext, *, count: bool
    ) -> tuple[tuple[ReplacementProposal, ...], ReplacementSnapshot]:
        stored = unit.get(ReplacementRepository)
        found = evaluate_replacements(
            portfolio,
            context,
            await stored.confirmation_counts(),
            await stored.last_swap(),
            count=count,
        )
        if found.counts is not None:
            await stored.keep(found.counts)
        return found.proposals, found.snapshot


@dataclass(frozen=True, slots=True)
class ReplacementEvaluation:
    """Proposed replacements, and the confirmation counts after them; None if nothing counted."""

    proposals: tuple[ReplacementProposal, ...]
    counts: tuple[ConfirmationCount, ...] | None
    snapshot: ReplacementSnapshot  # inputs of the proposals


def evaluate_replacements(
    portfolio: Portfolio,
    context: DecisionContext,
    counts: Mapping[str, ConfirmationCount],
    last_swap: datetime | None,
    *,
    count: bool,
) -> ReplacementEvaluation:
    """Evaluates the weakest members against the best candidates; stores nothing.

    `counts` are the confirmations so far by member. With `count` this evaluation adds to them,
    unless an obstacle blocks every replacement.
    """
    field = find_replacement_candidates(portfolio, context)
    pending = (one.candidate for one in counts.values())
    noise = known_noises((*(one.side.symbol for one in field.outgoing), *pending), context)
    pairs = field.pairs(counts, noise)
    noise |= known_noises((other.symbol for _, other in pairs if other is not None), context)
    obstacle = _blocking_reason(portfolio, context)
    counting = count and obstacle is None
    if counting:
        counts = _count(pairs, counts, noise, context)
    snapshot = ReplacementSnapshot(
        configuration_version=context.configuration.version,
        pairs=tuple(pairs),
        noise=noise,
        tallies=counts,
        since_swap=None if last_swap is None else context.since(last_swap),
        obstacle=obstacle,
    )
    proposals = propose_from_snapshot(snapshot, context.configuration)
    counted = tuple(_counts_to_store(proposals, counts)) if counting else None
    return ReplacementEvaluation(proposals, counted, snapshot)


def _may_force(context: DecisionContext) -> bool:
    """True if the schedule may act on members that cannot stay."""
    rules, policy = context.configuration.replacement, context.configuration.automation
    return rules.auto_execute_forced or policy.replacement is AutomationMode.AUTO


def _must_exit_to_cash(context: DecisionContext) -> bool:
    """True without a complete board, if contract states are known and trading is allowed."""
    is_known = context.mode.refusal is None and context.market.status() is DataStatus.FRESH
    is_allowed = context.controls.switch.enabled and not context.market.is_halted()
    return is_known and is_allowed and not context.has_board_in_force()


def _may(proposal: ReplacementProposal, context: DecisionContext) -> bool:
    """True if the schedule may execute it without approval."""
    if proposal.is_forced:
        return _may_force(context)
    rules, policy = context.configuration.replacement, context.configuration.automation
    return rules.auto_execute_confirmed or policy.replacement is AutomationMode.AUTO


def known_noises(symbols: Iterable[str], context: DecisionContext) -> dict[str, float]:
    """Noise of the composite z by symbol, without unknown ones."""
    rules = context.configuration.replacement
    cards = {symbol: context.card(symbol) for symbol in symbols}
    known = {
        symbol: noise_or_default(None if card is None else card.noise, rules)
        for symbol, card in cards.items()
    }
    return {symbol: value for symbol, value in known.items() if value is not None}


def _blocking_reason(portfolio: Portfolio, context: DecisionContext) -> ReplacementBlock | None:
    if not context.is_sound(portfolio):
        return ReplacementBlock.MARKET_DATA_STALE
    if context.market.is_halted():
        return ReplacementBlock.MARKET_HALTED
    return None if context.controls.switch.enabled else ReplacementBlock.TRADING_DISABLED


def _count(
    pairs: Iterable[Pair],
    former: Mapping[str, ConfirmationCount],
    noise: Mapping[str, float],
    context: DecisionContext,
) -> dict[str, ConfirmationCount]:
    """Count one evaluation; members no longer among the weakest start again."""
    rules = context.configuration.replacement
    board = context.require_board()
    found: dict[str, ConfirmationCount] = {}
    for outgoing, candidate in pairs:
        if outgoing.forced is not None or candidate is None:
            continue
        old = outgoing.side
        before = former.get(old.symbol)
        tally = count_confirmation(
            before,
            old.symbol,
            candidate.symbol,
            board.input_hash,
            context.at,
            timedelta(seconds=rules.confirmation_interval_s),
            since=None if before is None else context.since(before.counted_at),
            exceeds=compare_symbols(old, candidate, noise, rules).exceeds(rules),
        )
        if tally is not None:
            found[old.symbol] = tally
    return found


def _counts_to_store(
    proposals: Iterable[ReplacementProposal], tallies: Mapping[str, ConfirmationCount]
) -> Iterable[ConfirmationCount]:
    """Confirmation counts to store, with confirmed replacements marked."""
    for one in proposals:
        tally = tallies.get(one.outgoing.side.symbol)
        if tally is not None:
            yield replace(tally, is_confirmed=one.is_due)
