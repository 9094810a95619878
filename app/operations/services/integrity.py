"""Checks that state, history, scores and settings are consistent."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from app.foundation.concurrency import SingleFlight
from app.foundation.hash_chain import StoredEvent, find_chain_faults
from app.foundation.sql.database import Database, UnitOfWork
from app.performance.domain.equity_checks import equity_faults, total_faults
from app.portfolio.domain.event_log import PortfolioEvent, fold_events
from app.portfolio.domain.models import FULL, Portfolio, faults
from app.portfolio.domain.returns import BookedTotal
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.storage.history import HistoryRepository
from app.portfolio.storage.portfolio import PortfolioRepository
from app.portfolio.storage.trades import TradeRepository
from app.scoring.storage.runs import ScoringRepository
from app.security.domain.chain_audit import (
    SecurityFindings,
    begin_security,
    conclude_security,
    verify_security,
)
from app.security.storage.audit import SecurityEventRepository

_SCORE_TOLERANCE: Final = 0.1
_SHOWN: Final = 5  # faults shown of one kind


@dataclass(frozen=True, slots=True)
class Invariant:
    name: str
    ok: bool
    detail: str | None  # description of the fault


@dataclass(frozen=True, slots=True)
class Integrity:
    ok: bool
    version: int
    events: int
    checked_at: datetime
    invariants: tuple[Invariant, ...]


@dataclass(frozen=True, slots=True)
class IntegrityService:
    """Checks stored state against history, scores and settings."""

    database: Database
    contexts: DecisionContextFactory
    # A check of long chains takes most of a minute: one at a time.
    _flight: SingleFlight[Integrity] = field(default_factory=SingleFlight, init=False)

    async def check(self) -> Integrity:
        """Checks the invariants, the chain, and that the history folds to the state.

        Callers that arrive during a check share the next one.
        """
        return await self._flight(self._check)

    async def _check(self) -> Integrity:
        async with self.database.read() as unit:
            portfolio = await unit.get(PortfolioRepository).load()
            events = await unit.get(HistoryRepository).all()
            context = await self.contexts.of(unit)
            stored = await unit.get(ScoringRepository).latest_composites(
                one.symbol for one in portfolio.members
            )
            totals = await unit.get(TradeRepository).totals()
            security = await _verify_security(unit)
        # Hashing every event takes too long for the event loop.
        checks = await asyncio.to_thread(
            invariants, portfolio, events, context, stored, totals, security
        )
        return Integrity(
            ok=all(check.ok for check in checks),
            version=portfolio.version,
            events=len(events),
            checked_at=context.at,
            invariants=checks,
        )


def invariants(
    portfolio: Portfolio,
    events: tuple[PortfolioEvent, ...],
    context: DecisionContext,
    stored: Mapping[str, float],
    totals: tuple[BookedTotal, ...],
    security: SecurityFindings,
) -> tuple[Invariant, ...]:
    """Returns the invariants with their faults; `stored` has composites of the newest run."""
    settings = context.configuration
    size, most = len(portfolio.members), settings.max_portfolio_symbols
    ranks = [member.rank for member in portfolio.members]
    ids = {member.symbol_id for member in portfolio.members}
    total = sum(member.weight_u for member in portfolio.members) + portfolio.cash_u
    over = [one.symbol for one in portfolio.members if one.weight_u > settings.max_weight_u]
    chain = find_chain_faults(events, None)
    # A broken chain proves nothing about the state.
    unfolded = "the chain of the history is broken" if chain else _state_fault(portfolio, events)
    member_faults = faults(portfolio, most)
    differences = _score_differences(portfolio, context, stored)
    results: tuple[tuple[str, str | None], ...] = (
        ("size", None if size <= most else f"{size} members, {most} are allowed"),
        ("ranks", None if ranks == list(range(1, size + 1)) else f"ranks are {ranks}"),
        ("unique_symbols", None if len(ids) == size else "a symbol is a member twice"),
        ("sum_of_weights", None if total == FULL else f"weights and cash are {total} of {FULL}"),
        ("no_negative_weight", next((one for one in member_faults if "negative" in one), None)),
        # Only the maximum: a member may stay below the minimum while it must not be bought.
        ("bounds", None if not over else f"above the maximum until rebalanced: {', '.join(over)}"),
        ("history_folds_to_state", unfolded),
        ("stored_equity", unfolded or _first(equity_faults(events))),
        ("booked_totals", _first(total_faults(events, totals))),
        ("scores_are_current", None if not differences else "; ".join(differences)),
        ("hash_chain", _first(chain)),
        ("security_chain", _first([one.detail for one in security.breaks])),
        (
            "configuration_version",
            None
            if portfolio.configuration_version == settings.version
            else f"version {settings.version} is in force, the portfolio knows "
            f"{portfolio.configuration_version}",
        ),
    )
    return tuple(Invariant(name, detail is None, detail) for name, detail in results)


async def _verify_security(unit: UnitOfWork) -> SecurityFindings:
    """Verifies the chain of security events, batch by batch beside the event loop."""
    repository = unit.get(SecurityEventRepository)
    findings = begin_security(await repository.anchor())
    async for events in repository.batches():
        rows = [StoredEvent(event.seq, event) for event in events]
        findings = await asyncio.to_thread(verify_security, findings, rows)
    return conclude_security(findings, await repository.head())


def _first(faults_found: list[str]) -> str | None:
    return "; ".join(faults_found[:_SHOWN]) or None


def _state_fault(portfolio: Portfolio, events: tuple[PortfolioEvent, ...]) -> str | None:
    """Returns the difference between the history and the state; None if they agree."""
    try:
        state = fold_events(events)
    except (KeyError, ValueError):
        return "an event of the history cannot be applied"
    return None if state == portfolio else "the history gives another state"


def _score_differences(
    portfolio: Portfolio, context: DecisionContext, stored: Mapping[str, float]
) -> tuple[str, ...]:
    """Returns members whose score differs from the newest stored run."""
    shown = {one.symbol: context.score(one.symbol) for one in portfolio.members}
    return tuple(
        f"{symbol} is shown with {score:.4f}, its latest composite is {stored[symbol]:.4f}"
        for symbol, score in shown.items()
        if score is not None and symbol in stored and abs(score - stored[symbol]) > _SCORE_TOLERANCE
    )
