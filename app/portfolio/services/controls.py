"""The operator's controls: switching trading off and on; pinning, banning, watching symbols."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.foundation.decimal_math import to_millionths
from app.foundation.errors import Code, NotFoundError, RefusedError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.sql.database import Database, UnitOfWork
from app.portfolio.domain.candidate_selection import RefusedCandidate, find_refusal
from app.portfolio.domain.controls import (
    Controls,
    Lock,
    LockKind,
    Switch,
    record_lock,
    record_switch,
    record_unlock,
)
from app.portfolio.domain.membership import PortfolioChange
from app.portfolio.domain.models import Portfolio
from app.portfolio.services.change_recorder import ChangeRecorder
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.replacement_candidates import correlation_of
from app.portfolio.services.tradeability import DataFacts, describe_data
from app.portfolio.storage.portfolio import ControlRepository, PortfolioRepository


@dataclass(frozen=True, slots=True)
class WatchedSymbol:
    """Watched symbol with score and rank; None means unknown."""

    lock: Lock
    score: float | None
    confidence: float | None
    rank: int | None  # on the board
    entry_score: (
        float  # needed to enter: the threshold, or that of the weakest member of a full portfolio
    )
    is_member: bool
    refused: RefusedCandidate | None  # refusal beside the members; None for a member

    @property
    def distance(self) -> float | None:
        """Score that is missing for entry; 0 or less means none."""
        return None if self.score is None else self.entry_score - self.score


@dataclass(frozen=True, slots=True)
class WatchList:
    lines: tuple[WatchedSymbol, ...]  # by symbol
    facts: DataFacts


def build_watch_list(portfolio: Portfolio, context: DecisionContext) -> WatchList:
    """Compare each watched symbol with the current board and members."""
    locks = context.controls.watched()
    members = tuple(member.symbol for member in portfolio.members)
    settings = context.configuration
    known = correlation_of(
        tuple(dict.fromkeys((*members, *(lock.symbol for lock in locks)))),
        context,
        settings.correlation.addition_days,
    )
    entry, sectors = _entry_score(members, context), tuple(map(context.sector, members))
    lines = []
    for lock in locks:
        card, inside = context.card(lock.symbol), lock.symbol in members
        candidate = context.candidate(lock.symbol)
        lines.append(
            WatchedSymbol(
                lock=lock,
                score=context.score(lock.symbol),
                confidence=context.confidence(lock.symbol),
                rank=None if card is None else card.rank,
                entry_score=entry,
                is_member=inside,
                refused=None
                if inside
                else find_refusal(candidate, members, known, settings, sectors),
            )
        )
    return WatchList(tuple(lines), describe_data(context))


def _entry_score(members: tuple[str, ...], context: DecisionContext) -> float:
    settings = context.configuration
    if len(members) < settings.max_portfolio_symbols:
        return settings.entry_score
    scores = [score for name in members if (score := context.score(name)) is not None]
    weakest = min(scores, default=settings.entry_score, key=to_millionths)
    return max(settings.entry_score, weakest, key=to_millionths)


@dataclass(frozen=True, slots=True)
class ControlService:
    """Stores operator controls; each change is one history event, a repetition none.

    Controls change neither members nor weights. They are stored apart from the portfolio state;
    the history records their changes.
    """

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    recorder: ChangeRecorder

    async def controls(self) -> Controls:
        """The switch and the locks in force."""
        _, context = await self.contexts.present(self.database)
        return context.controls

    async def watch_list(self) -> WatchList:
        """Watched symbols with score, rank and distance to entry."""
        state, context = await self.contexts.present(self.database)
        return build_watch_list(state.portfolio, context)

    async def first_symbols(self) -> tuple[str, ...]:
        """Symbols whose books are read first: members (they size positions) and watched ones."""
        state, context = await self.contexts.present(self.database)
        watched = context.controls.watched()
        names = (
            *(one.symbol for one in state.portfolio.members),
            *(one.symbol for one in watched),
        )
        return tuple(dict.fromkeys(names))

    async def lock_of(self, text: str) -> Lock:
        """Raises NotFoundError where nothing is locked, RefusedError for an unknown symbol."""
        _, context = await self.contexts.present(self.database)
        lock = context.controls.locks.get(context.resolve(text).symbol)
        if lock is None:
            raise _not_locked()
        return lock

    async def switch(
        self, enabled: bool, reason: str, command: Command, render: Render[Switch] | None = None
    ) -> CommandResult[Switch]:
        """Switch trading on or off for all processes and across restarts."""

        async def change(unit: UnitOfWork) -> Switch:
            portfolio, context = await self._locked(unit, command)
            present = context.controls.switch
            if present.enabled is enabled:
                return present
            made = Switch(enabled, reason, context.at, command.actor)
            done = record_switch(portfolio, enabled, reason, context.at)
            await self.recorder.commit(unit, portfolio, done, context, command)
            await unit.get(ControlRepository).store_switch(made)
            return made

        return await self.idempotency.run(command, change, render)

    async def lock(
        self,
        text: str,
        kind: LockKind,
        reason: str,
        expires_at: datetime | None,
        command: Command,
        render: Render[Lock] | None = None,
    ) -> CommandResult[Lock]:
        """Pin, ban or watch a symbol; replaces its former lock.

        Raises RefusedError for an unknown symbol and for an end in the past.
        """

        async def change(unit: UnitOfWork) -> Lock:
            portfolio, context = await self._locked(unit, command)
            symbol = context.resolve(text).symbol
            if expires_at is not None and expires_at <= context.at:
                raise RefusedError(
                    Code.VALIDATION_FAILED,
                    "`expires_at` must be in the future.",
                    field="expires_at",
                )
            locks = context.controls.locks
            present = locks.get(symbol)
            same = (kind, reason, expires_at)
            if present and (present.kind, present.reason, present.expires_at) == same:
                return present
            made = Lock(symbol, kind, reason, expires_at, context.at, command.actor)
            done = record_lock(portfolio, made)
            kept = dict(sorted({**locks, symbol: made}.items()))
            await self._keep_locks(unit, portfolio, done, context, command, kept)
            return made

        return await self.idempotency.run(command, change, render)

    async def unlock(
        self, text: str, reason: str, command: Command, render: Render[Lock] | None = None
    ) -> CommandResult[Lock]:
        """Remove a lock and return it; raises NotFoundError if none is in force."""

        async def change(unit: UnitOfWork) -> Lock:
            portfolio, context = await self._locked(unit, command)
            symbol = context.resolve(text).symbol
            locks = dict(context.controls.locks)
            gone = locks.pop(symbol, None)
            if gone is None:
                raise _not_locked()
            done = record_unlock(portfolio, symbol, reason, context.at)
            await self._keep_locks(unit, portfolio, done, context, command, locks)
            return gone

        return await self.idempotency.run(command, change, render)

    async def _locked(
        self, unit: UnitOfWork, command: Command
    ) -> tuple[Portfolio, DecisionContext]:
        """Portfolio locked until the end of the transaction."""
        portfolio = await unit.get(PortfolioRepository).load(for_update=True)
        command.require_version(portfolio.version)
        return portfolio, await self._context(unit)

    async def _keep_locks(
        self,
        unit: UnitOfWork,
        before: Portfolio,
        done: PortfolioChange,
        context: DecisionContext,
        command: Command,
        locks: Mapping[str, Lock],
    ) -> None:
        await self.recorder.commit(unit, before, done, context, command)
        await unit.get(ControlRepository).store_locks(locks)

    async def _context(self, unit: UnitOfWork) -> DecisionContext:
        """Decision context of the locked state, without another read of it."""
        if self.contexts.memory.known(self.database) is None:
            return await self.contexts.of(unit)
        return (await self.contexts.present(self.database))[1]


def _not_locked() -> NotFoundError:
    return NotFoundError(Code.NOT_FOUND, "The symbol is neither pinned nor banned nor watched.")
