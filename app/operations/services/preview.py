"""Preview of changed settings and locks: scores, members, plan and cost; writes nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from app.configuration.domain.document import (
    SettingChange,
    as_document,
    as_typed_document,
    differences,
    validate,
)
from app.configuration.domain.fields import setting_fields
from app.configuration.domain.model import Configuration
from app.foundation.errors import Code, ConflictError, RefusedError, ServiceError, UnavailableError
from app.foundation.idempotency import IdempotentExecutor
from app.foundation.sql.database import Database, UnitOfWork
from app.market.services.view import MarketView
from app.operations.services.configuration import (
    apply_settings,
    validate_new_weights,
    with_standard_names,
)
from app.portfolio.domain.controls import Controls, Lock, LockKind
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.replacement import ConfirmationCount, ReplacementProposal
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.rebalance_runs import (
    RebalanceDecision,
    RebalanceInput,
    RebalanceRequest,
    decide_rebalance,
    prepare_input,
    require_no_active_run,
)
from app.portfolio.services.replacement import evaluate_replacements
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.replacements import ReplacementRepository
from app.scoring.domain.board import Board
from app.scoring.domain.factors import FACTORS, Factor

REASON: Final = "preview"
# Settings that neither scores nor the freshness of quotes depend on; all others score anew.
UNSCORED: Final = frozenset(
    {
        "max_portfolio_symbols", "min_weight_percentage", "max_weight_percentage", "entry_score",
        "exit_score", "score_tilt", "rebalance_threshold", "rebalance_interval_s",
        "rebalance_interval_threshold", "rebalance_min_spacing_s", "replacement_candidates",
        "liquidity_share", "correlation", "alerts", "replacement", "rebalancing", "automation",
        "sizing", "notifications", "retention", "signals",
    }
)  # fmt: skip


# Confirmation counts by member, and the time of the last replacement.
_PastReplacements = tuple[Mapping[str, ConfirmationCount], datetime | None]


@dataclass(frozen=True, slots=True)
class PreviewedLock:
    """Lock that a symbol would get; without a kind its lock would be removed."""

    kind: LockKind | None
    reason: str = REASON


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """Changes to preview: settings in the shape of their document, and locks by symbol."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    locks: Mapping[str, PreviewedLock] = field(default_factory=dict)
    evict_lowest: bool = False
    account_balance: Decimal | None = None  # adds lots to the plans


class PreviewStep(StrEnum):
    """Step of the service that could be refused."""

    CONFIGURATION = "configuration"
    SCORING = "scoring"
    REBALANCE = "rebalance"


@dataclass(frozen=True, slots=True)
class PreviewRefusal:
    """Problem that a step would return after the change."""

    step: PreviewStep
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class PreviewedMember:
    """Weights of a member in micro-percent, and the reason of the planned one."""

    current_u: int  # after price drift
    planned_u: int  # the current one without a trigger
    reason: str


@dataclass(frozen=True, slots=True)
class PreviewedState:
    """Scores, plan and replacements that one set of settings and locks gives."""

    loaded: RebalanceInput
    decision: RebalanceDecision
    replacements: tuple[ReplacementProposal, ...]

    @property
    def context(self) -> DecisionContext:
        return self.loaded.context

    def member(self, symbol: str) -> "PreviewedMember | None":
        """Weights of a member; None for another symbol."""
        plan = self.decision.plan
        constraint = plan.constraints.get(symbol)
        if constraint is None:
            return None
        current_u, target_u = constraint.request.held_u, plan.allocation.weights_u[symbol]
        return PreviewedMember(
            current_u, target_u if plan.triggers else current_u, constraint.reason
        )


@dataclass(frozen=True, slots=True)
class PreviewResult:
    """State before and after the change; no state after a change that would be refused."""

    portfolio: Portfolio
    settings: Configuration
    changes: tuple[SettingChange, ...]
    warnings: tuple[str, ...]
    before: PreviewedState
    after: PreviewedState | None
    is_rescored: bool
    refusals: tuple[PreviewRefusal, ...]


class LockRefusedError(RefusedError):
    """A lock of the preview names no symbol, or one that has no lock to remove."""

    def __init__(self, code: Code, detail: str, symbol: str) -> None:
        super().__init__(code, detail)
        self.symbol = symbol


@dataclass(frozen=True, slots=True)
class ChangePreview:
    """Shows what a change of settings or locks would do, by the functions that would do it."""

    database: Database
    contexts: DecisionContextFactory
    idempotency: IdempotentExecutor  # for the clock that ends leases
    # Board that other settings give of the market data behind the present board.
    rescore: Callable[[Configuration], Awaitable[Board]]
    market_under: Callable[[Configuration], MarketView]
    factors: tuple[Factor, ...] = FACTORS

    async def preview(self, request: PreviewRequest) -> PreviewResult:
        """Decides on the present portfolio with the present and with the changed settings.

        Both states rest on one portfolio and one moment; without a changed setting that scores
        depend on also on one board and one set of quotes.
        Raises ConfigurationRefusedError, RefusedError for an unknown or repeated symbol in the
        settings, LockRefusedError, UnavailableError without the database.
        """
        asked = RebalanceRequest(account_balance=request.account_balance, is_dry_run=True)
        refusals: list[PreviewRefusal] = []
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            context = await self.contexts.of(unit)
            present = context.configuration
            wanted = self._wanted(request.settings, context)
            controls = _with_locks(request.locks, context)
            before = await prepare_input(unit, portfolio, context, asked)
            repository = unit.get(ReplacementRepository)
            past = await repository.confirmation_counts(), await repository.last_swap()
            try:
                locked = replace(context, controls=controls)
                changed = await self._apply(unit, portfolio, locked, wanted, request)
            except (ConflictError, UnavailableError) as refused:
                refusals.append(_refusal(PreviewStep.CONFIGURATION, refused))
                changed = None
        is_rescored = changed is not None and _changes_scores(present, wanted)
        loaded = None
        if changed is not None:
            portfolio_after, context_after = changed
            if is_rescored:
                context_after = await self._rescored(context_after, refusals)
            async with self.database.read() as unit:
                loaded = await prepare_input(unit, portfolio_after, context_after, asked)

        def decide() -> tuple[PreviewedState, PreviewedState | None]:
            after = None if loaded is None else _decide(loaded, past, asked)
            return _decide(before, past, asked), after

        states = await asyncio.to_thread(decide)
        if loaded is not None and loaded.refusal is not None:
            failure = loaded.refusal
            refusals.append(PreviewRefusal(PreviewStep.REBALANCE, failure.code, failure.detail))
        documents = (as_typed_document(as_document(one)) for one in (present, wanted))
        return PreviewResult(
            portfolio=portfolio,
            settings=present,
            changes=differences(*documents),
            warnings=wanted.warnings(),
            before=states[0],
            after=states[1],
            is_rescored=is_rescored,
            refusals=tuple(refusals),
        )

    def _wanted(self, changes: Mapping[str, Any], context: DecisionContext) -> Configuration:
        """Settings after the change; the present ones if nothing changes."""
        present = context.configuration
        wanted = validate(with_standard_names(changes, present, context.market), present)
        validate_new_weights(wanted, present, self.factors)
        return present if replace(wanted, version=present.version) == present else wanted

    async def _apply(
        self,
        unit: UnitOfWork,
        portfolio: Portfolio,
        context: DecisionContext,
        wanted: Configuration,
        request: PreviewRequest,
    ) -> tuple[Portfolio, DecisionContext]:
        """Portfolio and context after the change of the settings; raises as it would."""
        if wanted is context.configuration:
            return portfolio, context
        context = replace(context, configuration=wanted)
        evicts = wanted.max_portfolio_symbols < len(portfolio.members)
        if evicts and request.evict_lowest:
            await require_no_active_run(unit, await self.idempotency.now(unit))
        done = apply_settings(portfolio, context, REASON, evict_lowest=request.evict_lowest)
        return done.portfolio, context.with_weights_just_set() if evicts else context

    async def _rescored(
        self, context: DecisionContext, refusals: list[PreviewRefusal]
    ) -> DecisionContext:
        """Context with the scores and the market under its settings.

        The present board stays if scoring would be refused or its board be provisional.
        """
        settings = context.configuration
        context = replace(context, market=self.market_under(settings))
        try:
            board = await self.rescore(settings)
        except UnavailableError as refused:
            refusals.append(_refusal(PreviewStep.SCORING, refused))
            return context
        if board.is_provisional:
            detail = "The board would be provisional: decisions would use the one before it."
            refusals.append(PreviewRefusal(PreviewStep.SCORING, Code.NO_BOARD_YET.value, detail))
            return context
        return replace(context, complete_board=board)


def _changes_scores(present: Configuration, wanted: Configuration) -> bool:
    names = {one.name for one in setting_fields(present)} - UNSCORED
    return any(getattr(present, name) != getattr(wanted, name) for name in names)


def _with_locks(wanted: Mapping[str, PreviewedLock], context: DecisionContext) -> Controls:
    """Controls with the wanted locks. Raises LockRefusedError."""
    locks, named = dict(context.controls.locks), set[str]()
    for text, one in wanted.items():
        try:
            symbol = context.resolve(text).symbol
        except RefusedError as refused:
            raise LockRefusedError(refused.code, refused.detail, text) from refused
        if symbol in named:
            detail = f"locks names {symbol} twice."
            raise LockRefusedError(Code.VALIDATION_FAILED, detail, text)
        named.add(symbol)
        if one.kind is not None:
            locks[symbol] = Lock(symbol, one.kind, one.reason, None, context.at, REASON)
        elif locks.pop(symbol, None) is None:
            raise LockRefusedError(Code.VALIDATION_FAILED, f"{symbol} has no lock.", text)
    return replace(context.controls, locks=dict(sorted(locks.items())))


def _decide(
    loaded: RebalanceInput, past: _PastReplacements, request: RebalanceRequest
) -> PreviewedState:
    found = evaluate_replacements(loaded.portfolio, loaded.context, *past, count=False)
    return PreviewedState(loaded, decide_rebalance(loaded, request), found.proposals)


def _refusal(step: PreviewStep, error: ServiceError) -> PreviewRefusal:
    return PreviewRefusal(step, error.code.value, error.detail)
