"""Reads and changes the business configuration; every version is stored."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.configuration.domain.document import (
    SettingChange,
    as_document,
    as_typed_document,
    differences,
    validate,
)
from app.configuration.domain.events import configuration_changed
from app.configuration.domain.model import Configuration
from app.configuration.storage.configuration import ConfigurationRepository
from app.foundation.errors import Code, ConflictError, RefusedError
from app.foundation.idempotency import Command, CommandResult, IdempotentExecutor, Render
from app.foundation.sql.database import Database, UnitOfWork
from app.market.domain.symbols import MAX_SPELLING
from app.market.services.view import MarketView
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
from app.scoring.domain.algorithm import validate_factor_weights
from app.scoring.domain.factors import FACTORS, Factor


@dataclass(frozen=True, slots=True)
class ConfigurationRevision:
    """One version of the settings with author, reason and its changes to the version before.

    `reason` and `request_id` are None for the defaults that the first start stored.
    """

    version: int
    created_at: datetime
    created_by: str
    reason: str | None
    request_id: str | None
    settings: Mapping[str, Any]  # typed document
    changes: tuple[SettingChange, ...]


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
        """Applies `changes` to the current settings as the next version; omitted keys stay.

        A change without effect creates no version. If the new limit is below the number of members,
        `evict_lowest` removes those with the lowest scores in the same version. Fixed weights may
        name a symbol in any spelling.
        Raises ConfigurationRefusedError, PreconditionFailedError, RefusedError for an unknown or
        repeated symbol, ConflictError (portfolio_exceeds_limit; with an eviction also
        rebalance_in_progress), UnavailableError if the scores are too old to rank the members.
        """

        def apply(present: Configuration) -> Configuration:
            return validate(with_standard_names(changes, present, self.contexts.market), present)

        return await self._change(_given(apply), reason, command, render, evict_lowest)

    async def replace(
        self,
        document: Mapping[str, object],
        reason: str,
        command: Command,
        render: Render[Configuration] | None = None,
        *,
        evict_lowest: bool = False,
    ) -> CommandResult[Configuration]:
        """Stores the whole `document` as the next version; a missing key is an error.

        Raises the errors of `put`.
        """

        def apply(present: Configuration) -> Configuration:
            named = with_standard_names(document, present, self.contexts.market)
            return validate(named, present, is_whole=True)

        return await self._change(_given(apply), reason, command, render, evict_lowest)

    async def roll_back(
        self,
        version: int,
        reason: str,
        command: Command,
        render: Render[Configuration] | None = None,
        *,
        evict_lowest: bool = False,
    ) -> CommandResult[Configuration]:
        """Stores the settings of an older version as the next version.

        Today's rules apply to them; a setting that the older version lacks takes its default, as
        it did then. Raises NotFoundError and the errors of `put`.
        """

        async def apply(unit: UnitOfWork, present: Configuration) -> Configuration:
            stored = await unit.get(ConfigurationRepository).stored(version)
            return replace(validate(stored.document, Configuration()), version=present.version + 1)

        return await self._change(apply, reason, command, render, evict_lowest)

    async def _change(
        self,
        apply: "_Apply",
        reason: str,
        command: Command,
        render: Render[Configuration] | None,
        evict_lowest: bool,
    ) -> CommandResult[Configuration]:
        async def change(unit: UnitOfWork) -> Configuration:
            portfolio = await unit.get(PortfolioRepository).load(for_update=True)
            present = await unit.get(ConfigurationRepository).current()
            command.require_version(present.version)
            wanted = await apply(unit, present)
            validate_new_weights(wanted, present, self.factors)
            if replace(wanted, version=present.version) == present:
                return present
            context = replace(await self.contexts.of(unit), configuration=wanted)
            if evict_lowest and wanted.max_portfolio_symbols < len(portfolio.members):
                await require_no_active_run(unit, await self.idempotency.now(unit))
            done = apply_settings(portfolio, context, reason, evict_lowest=evict_lowest)
            await unit.get(ConfigurationRepository).add(wanted, context.at, command.actor)
            await self.recorder.commit(unit, portfolio, done, context, command)
            unit.publish_after_commit(
                configuration_changed(present, wanted, context.at, reason, command.actor)
            )
            return wanted

        return await self.idempotency.run(command, change, render)

    async def history(
        self, before_version: int | None, limit: int
    ) -> tuple[ConfigurationRevision, ...]:
        """Returns the versions below `before_version` with their changes, newest first."""
        async with self.database.read() as unit:
            found = await unit.get(ConfigurationRepository).page(before_version, limit + 1)
            times = (one.created_at for one in found)
            events = await unit.get(HistoryRepository).configuration_changes(times)
        documents = [as_typed_document(one.document) for one in found]
        return tuple(
            ConfigurationRevision(
                version=one.version,
                created_at=one.created_at,
                created_by=one.created_by,
                reason=events[one.version].reason if one.version in events else None,
                request_id=events[one.version].request_id if one.version in events else None,
                settings=documents[at],
                changes=differences(documents[at + 1], documents[at])
                if at + 1 < len(found)
                else (),
            )
            for at, one in enumerate(found[:limit])
        )

    async def compare(self, old: int, new: int) -> tuple[SettingChange, ...]:
        """Returns the changes from version `old` to version `new`. Raises NotFoundError."""
        async with self.database.read() as unit:
            versions = unit.get(ConfigurationRepository)
            before, after = await versions.stored(old), await versions.stored(new)
        return differences(as_typed_document(before.document), as_typed_document(after.document))


def validate_new_weights(
    wanted: Configuration, present: Configuration, factors: tuple[Factor, ...]
) -> None:
    """Raises ConfigurationRefusedError if changed weights of factors or families do not fit."""
    weights = (wanted.scoring.factor_weights, wanted.family_weights)
    if weights != (present.scoring.factor_weights, present.family_weights):
        validate_factor_weights(wanted, factors)


def apply_settings(
    portfolio: Portfolio, context: DecisionContext, reason: str, *, evict_lowest: bool
) -> PortfolioChange:
    """Returns the portfolio after the settings of `context` have come into force.

    Raises ConflictError (portfolio_exceeds_limit), and UnavailableError if the scores are too old
    to rank the members.
    """
    settings, size = context.configuration, len(portfolio.members)
    most = settings.max_portfolio_symbols
    if most < size and not evict_lowest:
        raise ConflictError(
            Code.PORTFOLIO_EXCEEDS_LIMIT,
            f"The portfolio has {size} members: remove some before a limit of {most}, "
            "or remove the lowest-scored ones with the change (evict_lowest).",
        )
    done = apply_configuration(
        portfolio, settings.version, as_document(settings), context.at, reason
    )
    return _without_lowest(done, portfolio, context, reason) if most < size else done


_Apply = Callable[[UnitOfWork, Configuration], Awaitable[Configuration]]


def _given(apply: Callable[[Configuration], Configuration]) -> _Apply:
    """Returns a change that needs nothing from the database."""

    async def applied(_unit: UnitOfWork, present: Configuration) -> Configuration:
        return apply(present)

    return applied


def with_standard_names(
    changes: Mapping[str, object], present: Configuration, market: MarketView
) -> Mapping[str, object]:
    """Returns the changes with the symbols of fixed weights in standard spelling.

    A weight under an unknown name would sell the intended member. Names that are already set stay,
    since their contract may be delisted.
    """
    rules = changes.get("rebalancing")
    fixed_weights = rules.get("fixed_weights") if isinstance(rules, Mapping) else None
    if not isinstance(rules, Mapping) or not isinstance(fixed_weights, Mapping):
        return changes
    named: dict[str, object] = {}
    for text, weight in fixed_weights.items():
        is_set = text in present.rebalancing.fixed_weights
        symbol = text if is_set else _standard_name(text, market)
        if symbol in named:
            raise RefusedError(
                Code.VALIDATION_FAILED,
                f"rebalancing.fixed_weights names {symbol} twice.",
                field="rebalancing.fixed_weights",
            )
        named[symbol] = weight
    return {**changes, "rebalancing": {**rules, "fixed_weights": named}}


def _standard_name(text: str, market: MarketView) -> str:
    """Returns the standard spelling of a symbol. Raises RefusedError, which names the symbol."""
    try:
        return market.resolve(text).symbol
    except RefusedError as error:
        detail = f"rebalancing.fixed_weights, {text[:MAX_SPELLING]!a}: {error.detail}"
        raise RefusedError(error.code, detail, facts=error.facts) from error


def _without_lowest(
    change: PortfolioChange, portfolio: Portfolio, context: DecisionContext, reason: str
) -> PortfolioChange:
    """Returns the change without the surplus members, lowest scores first, and with new weights.

    Pinned members and members without a score stay. Raises ConflictError
    (portfolio_exceeds_limit) if too few can be removed, UnavailableError on stale data.
    """
    context.require_fresh_members(portfolio)
    size, most = len(portfolio.members), context.configuration.max_portfolio_symbols
    removable = [one for one in by_score(portfolio, context) if not context.controls.is_pinned(one)]
    if len(removable) < size - most:
        raise ConflictError(
            Code.PORTFOLIO_EXCEEDS_LIMIT,
            f"{size - most} of {size} members have to be removed, but only {len(removable)} have a "
            "score and are not pinned: remove some by name.",
        )
    for symbol in removable[: size - most]:
        facts = last_facts(require_member(portfolio, symbol), context)
        change = remove_in_same_version(change, symbol, facts, context.at, reason)
    return with_new_weights(change, context, {}, reason)
