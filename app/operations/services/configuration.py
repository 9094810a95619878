"""Reads and changes the business configuration and keeps every version."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.configuration.domain.document import as_document, validate
from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import Code, ConflictError, RefusedError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.symbols import MAX_SPELLING
from app.market.services.view import MarketView
from app.portfolio.domain.event_log import EventType, PortfolioEvent
from app.portfolio.domain.membership import (
    PortfolioChange,
    apply_configuration,
    remove_in_same_version,
    require_member,
)
from app.portfolio.domain.models import Portfolio
from app.portfolio.services.change_recorder import ChangeRecorder, with_new_weights
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.membership import last_facts
from app.portfolio.services.rebalance_runs import require_no_active_run
from app.portfolio.services.views import by_score
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.scoring.domain.algorithm import require_sound
from app.scoring.domain.factors import FACTORS, Factor


@dataclass(frozen=True, slots=True)
class ConfigurationService:
    """Use cases of the business configuration."""

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor
    recorder: ChangeRecorder
    factors: tuple[Factor, ...] = FACTORS  # factors that may have weights

    async def current(self) -> Configuration:
        async with self.database.read() as unit:
            return await unit.get(ConfigurationRepository).current()

    async def put(
        self,
        changes: Mapping[str, object],
        reason: str,
        command: Command,
        render: Render[Configuration] | None = None,
        *,
        evict_lowest: bool = False,
    ) -> CommandResult[Configuration]:
        """Apply `changes` to the current settings as the next version.

        A change without effect makes no version. If the new limit is below the number of members,
        `evict_lowest` removes those with the lowest scores in the same version.
        Fixed weights may name a symbol in any spelling.
        Raises ConfigurationRefusedError, PreconditionFailedError, RefusedError for an
        unknown or repeated symbol, ConflictError (portfolio_exceeds_limit; before an eviction
        also rebalance_in_progress), UnavailableError where the scores are too old
        to rank the members.
        """

        async def change(unit: UnitOfWork) -> Configuration:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            present = await unit.get(ConfigurationRepository).current()
            command.require_version(present.version)
            wanted = validate(_by_standard_name(changes, present, self.contexts.market), present)
            if "scoring" in changes:
                require_sound(wanted, self.factors)
            if replace(wanted, version=present.version) == present:
                return present
            size, most = len(portfolio.members), wanted.max_portfolio_symbols
            if most < size and not evict_lowest:
                raise ConflictError(
                    Code.PORTFOLIO_EXCEEDS_LIMIT,
                    f"The portfolio has {size} members: remove some before allowing only {most}, "
                    "or let the lowest-scored go with the change (evict_lowest).",
                )
            context = replace(await self.contexts.of(unit), configuration=wanted)
            await unit.get(ConfigurationRepository).add(wanted, context.at, command.actor)
            done = apply_configuration(
                portfolio, wanted.version, as_document(wanted), context.at, reason
            )
            if most < size:
                await require_no_active_run(unit, await self.idempotency.now(unit))
                done = _without_the_lowest(done, portfolio, context, reason)
            await self.recorder.commit(unit, portfolio, done, context, command)
            unit.announce(ConfigurationChanged(wanted, context.at))
            return wanted

        return await self.idempotency.run(command, change, render)

    async def history(self, before_seq: int | None, limit: int) -> tuple[PortfolioEvent, ...]:
        """Events of new versions, newest first; the payload holds the settings."""
        async with self.database.read() as unit:
            return await unit.get(HistoryRepository).page(before_seq, limit, kind=EventType.CONFIG)


def _by_standard_name(
    changes: Mapping[str, object], present: Configuration, market: MarketView
) -> Mapping[str, object]:
    """Changes with the symbols of fixed weights in standard spelling.

    A weight under an unknown name would sell the intended member. Names already set stay, since
    their contract may be delisted.
    """
    rules = changes.get("rebalancing")
    given = rules.get("fixed_weights") if isinstance(rules, Mapping) else None
    if not isinstance(rules, Mapping) or not isinstance(given, Mapping):
        return changes
    named: dict[str, object] = {}
    for text, weight in given.items():
        kept = text in present.rebalancing.fixed_weights
        symbol = text if kept else _resolved(text, market)
        if symbol in named:
            raise RefusedError(
                Code.VALIDATION_FAILED, f"rebalancing.fixed_weights names {symbol} twice."
            )
        named[symbol] = weight
    return {**changes, "rebalancing": {**rules, "fixed_weights": named}}


def _resolved(text: str, market: MarketView) -> str:
    """Standard spelling of a symbol. Raises RefusedError, which names the symbol."""
    try:
        return market.resolve(text).symbol
    except RefusedError as error:
        said = f"rebalancing.fixed_weights, {text[:MAX_SPELLING]!a}: {error.detail}"
        raise RefusedError(error.code, said, facts=error.facts) from error


def _without_the_lowest(
    change: PortfolioChange, portfolio: Portfolio, context: DecisionContext, reason: str
) -> PortfolioChange:
    """Change without the surplus members, lowest scores first, and with new weights.

    Pinned members and members without a score stay. Raises ConflictError
    (portfolio_exceeds_limit) if too few can be removed, UnavailableError on stale data.
    """
    context.require_fresh_members(portfolio)
    size, most = len(portfolio.members), context.configuration.max_portfolio_symbols
    free = [one for one in by_score(portfolio, context) if not context.controls.is_pinned(one)]
    if len(free) < size - most:
        raise ConflictError(
            Code.PORTFOLIO_EXCEEDS_LIMIT,
            f"Of {size} members {size - most} would have to go, and only {len(free)} have a score "
            "and are not pinned: remove some by name.",
        )
    for symbol in free[: size - most]:
        facts = last_facts(require_member(portfolio, symbol), context)
        change = remove_in_same_version(change, symbol, facts, context.at, reason)
    return with_new_weights(change, context, {}, reason)
