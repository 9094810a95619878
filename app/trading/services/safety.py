"""Safety check of the portfolio: issues that forbid trading, and warnings."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from app.foundation.decimal_math import to_millionths
from app.foundation.errors import Code, UnavailableError
from app.foundation.sql.database import Database
from app.market.domain.models import Interval
from app.portfolio.domain.models import Portfolio, faults
from app.portfolio.services.decision_context import DecisionContext, DecisionContextFactory
from app.portfolio.services.replacement_candidates import describe_symbol
from app.portfolio.services.tradeability import DataFacts, check_tradeability, describe_data
from app.portfolio.services.views import members_key

Correlations = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a check: a stable code, the member concerned (if any) and a sentence."""

    code: str
    symbol: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class SafetyReport:
    """`issues` forbid trading the portfolio as a whole; `warnings` do not."""

    version: int
    issues: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    tradeable: tuple[str, ...]
    checked_at: datetime
    facts: DataFacts

    @property
    def is_safe(self) -> bool:
        return not self.issues


@dataclass(frozen=True, slots=True)
class Safety:
    """Checks the portfolio for a trading engine."""

    database: Database
    contexts: DecisionContextFactory

    async def validate(self) -> SafetyReport:
        """Checks the current portfolio; stale data is an issue, never an error."""
        state, context = await self.contexts.present(self.database)
        portfolio, views = state.portfolio, self.contexts.views
        # Cached by daily bars and members alone, which most commits do not change.
        daily = (context.market.panel(Interval.DAY), portfolio.members, state.configuration)
        pairs = views.get("safety_pairs", daily, lambda: _load_correlations(portfolio, context))
        key = members_key(state, context)
        report = views.get("safety", key, lambda: _create_report(portfolio, context, pairs))
        return replace(report, version=portfolio.version, checked_at=context.at)


def _load_correlations(portfolio: Portfolio, context: DecisionContext) -> Correlations:
    symbols = tuple(member.symbol for member in portfolio.members)
    return context.correlations(symbols, context.configuration.correlation.days)


def _create_report(
    portfolio: Portfolio, context: DecisionContext, pairs: Correlations
) -> SafetyReport:
    return SafetyReport(
        version=portfolio.version,
        issues=tuple(_issues(portfolio, context)),
        warnings=tuple(_warnings(portfolio, context, pairs)),
        tradeable=tuple(
            member.symbol
            for member in portfolio.members
            if check_tradeability(member.symbol, portfolio, context).trade
        ),
        checked_at=context.at,
        facts=describe_data(context),
    )


def _issues(portfolio: Portfolio, context: DecisionContext) -> Iterator[Finding]:
    settings = context.configuration
    for fault in faults(portfolio, settings.max_portfolio_symbols):
        yield Finding("portfolio_unsound", None, fault)
    try:
        context.require_fresh_members(portfolio)
    except UnavailableError as stale:
        yield Finding(stale.code.value, None, stale.detail)
    if not context.controls.switch.enabled:
        detail = f"Trading is switched off: {context.controls.switch.reason}"
        yield Finding(Code.TRADING_DISABLED.value, None, detail)
    if context.market.is_halted():
        yield Finding("market_halted", None, "The exchange is not trading.")
    for member in portfolio.members:
        reason = context.must_leave(member.symbol)
        if reason is not None:
            yield Finding(
                Code.SYMBOL_NOT_TRADABLE.value,
                member.symbol,
                f"It must leave the portfolio: {reason}.",
            )
        if member.weight_u > settings.max_weight_u:
            detail = f"Its weight is above {settings.max_weight_percentage} %."
            yield Finding("weight_above_maximum", member.symbol, detail)


def _warnings(
    portfolio: Portfolio, context: DecisionContext, pairs: Correlations
) -> Iterator[Finding]:
    for member in portfolio.members:
        verdict = check_tradeability(member.symbol, portfolio, context)
        for check in verdict.checks:
            if not check.passed:
                yield Finding(f"not_tradeable_{check.name}", member.symbol, f"{check.detail}.")
    yield from _concentration(portfolio, context, pairs)


def _concentration(
    portfolio: Portfolio, context: DecisionContext, pairs: Correlations
) -> Iterator[Finding]:
    settings = context.configuration
    limit = settings.replacement.max_per_sector
    members = portfolio.members
    sectors = Counter(describe_symbol(member.symbol, context).sector for member in members)
    for sector, count in sorted(sectors.items()):
        if count > limit:
            detail = f"{count} members are in sector {sector}; replacements allow {limit}."
            yield Finding("sector_crowded", None, detail)
    rules = settings.correlation
    for (first, other), rho in pairs.items():
        if to_millionths(rho) > to_millionths(rules.alert):
            detail = f"Correlation with {other} is {rho:.3f}, above {rules.alert:g}."
            yield Finding("correlation_high", first, detail)
