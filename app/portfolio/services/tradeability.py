"""Tradeability: the checks that a symbol must pass before it may be traded."""

from dataclasses import dataclass
from datetime import datetime

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.decimal_math import to_millionths
from app.market.domain.symbols import specification_of
from app.market.services.snapshot import spread
from app.portfolio.domain.models import Portfolio
from app.portfolio.domain.rebalance_plan import may_trade
from app.portfolio.services.decision_context import DecisionContext

SWITCH, BAN, MEMBER, OPEN, ENDING, MARKET, CLOCK, MODE, FRESH, QUALITY, SCORE, SPECIFICATION = (
    "trading_switch",
    "not_banned",
    "member",
    "contract_open",
    "no_delisting",
    "market_open",
    "clock_known",
    "service_decides",
    "data_fresh",
    "data_quality",
    "score",
    "specification",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One condition; a numeric one has `value` and `limit`."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Tradeability:
    """Result of all checks; `reason` is the detail of the first failed one, if any."""

    symbol: str
    trade: bool
    reason: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Age, source and status of the market data."""

    as_of: datetime | None
    data_source: DataSource
    data_status: DataStatus


def describe_data(context: DecisionContext) -> DataFacts:
    market = context.market
    return DataFacts(market.as_of(), market.source, context.data_status)


def check_tradeability(
    symbol: str, portfolio: Portfolio, context: DecisionContext, specification: str | None = None
) -> Tradeability:
    """Check every condition for trading a symbol, in the order of the response.

    `specification` is that of lots to be ordered; None without lots. Hysteresis: a member with a
    target weight stays tradeable down to the leave threshold, others need the enter threshold.
    Target weights change only with committed changes.
    """
    member = portfolio.member(symbol)
    score = context.score(symbol)
    settings = context.configuration
    traded = member is not None and member.target_weight_u > 0
    limit = settings.exit_score if traded else settings.entry_score
    enough = member is not None and score is not None and may_trade(score, member, settings)
    halted, clock = context.market.is_halted(), context.market.is_clock_safe()
    is_open, fresh = context.is_open(symbol), context.is_fresh(symbol)
    ending = context.is_ending(symbol)
    refusal = context.mode.refusal
    known = "has no score" if score is None else f"scores {score:.4f}"
    switch, ban = context.controls.switch, context.controls.ban(symbol)
    off = (
        "trading is switched on" if switch.enabled else f"trading is switched off: {switch.reason}"
    )
    checks = (
        Check(SWITCH, switch.enabled, None, None, off),
        Check(
            BAN, ban is None, None, None, "it is not banned" if ban is None else f"banned: {ban}"
        ),
        Check(MEMBER, member is not None, None, None, _say(member is not None, "a member")),
        Check(OPEN, is_open, None, None, f"the contract is {context.status_of(symbol).value}"),
        Check(ENDING, not ending, None, None, _end(ending)),
        Check(MARKET, not halted, None, None, _say(not halted, "traded at the exchange")),
        Check(CLOCK, clock, None, None, f"the exchange's time is {'' if clock else 'not '}known"),
        Check(MODE, refusal is None, None, None, _decides(context)),
        Check(FRESH, fresh, None, None, f"the market data is {'fresh' if fresh else 'stale'}"),
        _quality(symbol, context),
        Check(SCORE, enough, score, limit, f"it {known}, {limit:g} is needed"),
        *(() if specification is None else (_specification(symbol, context, specification),)),
    )
    failed = next((check for check in checks if not check.passed), None)
    reason = "all checks passed" if failed is None else failed.detail
    return Tradeability(symbol, failed is None, reason, checks)


def _decides(context: DecisionContext) -> str:
    """Check that the mode allows decisions."""
    refusal = context.mode.refusal
    said = f"the mode is {context.mode.mode.value}"
    return said if refusal is None else f"{said}: {refusal.detail}"


def _specification(symbol: str, context: DecisionContext, specification: str) -> Check:
    """Check that the contract specification is unchanged since the lots were computed."""
    quote = context.market.quote(symbol)
    is_same = quote is not None and specification_of(quote.contract) == specification
    said = "the contract is as it was" if is_same else "the contract is specified otherwise by now"
    return Check(SPECIFICATION, is_same, None, None, f"{said} when the lots were counted")


def _quality(symbol: str, context: DecisionContext) -> Check:
    """Check that prices are not in quarantine and the quote is plausible."""
    doubt, quote = context.doubt(symbol), context.market.quote(symbol)
    if doubt is not None:
        return Check(QUALITY, False, None, None, f"its prices are in quarantine: {doubt}")
    if context.is_frozen(symbol):
        return Check(QUALITY, False, None, None, "it has no trades while its index moves")
    limit = context.configuration.quality.max_spread
    width = None if quote is None else spread(quote.bid, quote.ask)
    if width is None:
        return Check(QUALITY, False, None, limit, "it has no quote with a bid below its ask")
    share = width / 10_000
    said = f"the spread is {share:.3%} of mid, {limit:.1%} may be"
    return Check(QUALITY, to_millionths(share) <= to_millionths(limit), share, limit, said)


def _end(is_near: bool) -> str:
    return "its delisting is near" if is_near else "no delisting is near"


def _say(holds: bool, what: str) -> str:
    return f"it is {what}" if holds else f"it is not {what}"
