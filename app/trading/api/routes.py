"""Answers for the trading engine: which symbols, whether now, and how much."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Self

from fastapi import Query
from pydantic import Field

from app.foundation.decimal_math import total
from app.foundation.errors import Code, RefusedError
from app.foundation.http.dependencies import Provided
from app.foundation.http.errors import problems
from app.foundation.http.permissions import requires
from app.foundation.http.response_cache import cacheable
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    NAMES,
    Freshness,
    MoneyString,
    Out,
    Percent,
    QueryDecimal,
    QueryInt,
    Score,
    SymbolPath,
    UtcTime,
    finite,
    percent,
)
from app.foundation.principals import Role, Scope
from app.foundation.state_version import Input
from app.portfolio.api.schemas import freshness
from app.portfolio.services.tradeability import Check, DataFacts, Tradeability
from app.trading.domain.position_sizing import Cap, CapName, TrackRecord
from app.trading.services.position_sizing import SizedPosition, Tradeable, Trading
from app.trading.services.safety import Safety, SafetyReport

router = api_router("portfolio", "/portfolio")


class TradeableOut(Out):
    symbol: str
    contract: str
    weight_percentage: Percent
    score: Score

    @classmethod
    def of(cls, one: Tradeable) -> Self:
        return cls(
            symbol=one.symbol,
            contract=one.contract,
            weight_percentage=percent(one.weight_u),
            score=one.score,
        )


class TradeablesOut(Freshness):
    """Members that may be traded now, by rank."""

    symbols: list[TradeableOut]


class CheckOut(Out):
    name: str = Field(examples=["score"])
    passed: bool
    value: float | None
    limit: float | None
    detail: str

    @classmethod
    def of(cls, check: Check) -> Self:
        return cls(
            name=check.name,
            passed=check.passed,
            value=finite(check.value),
            limit=check.limit,
            detail=check.detail,
        )


class ShouldTradeOut(Freshness):
    """`reason` is that of the first check that failed."""

    symbol: str
    trade: bool
    reason: str
    checks: list[CheckOut]

    @classmethod
    def of(cls, verdict: Tradeability, facts: DataFacts) -> Self:
        return cls(
            symbol=verdict.symbol,
            trade=verdict.trade,
            reason=verdict.reason,
            checks=[CheckOut.of(check) for check in verdict.checks],
            **freshness(facts),
        )


class CapOut(Out):
    """One thing that holds a position back, in the order in which they are looked at.

    `value` is what the position would have had; the limit is a maximum, except that of
    `liquidation_distance`, which is a minimum.
    """

    name: CapName
    value: MoneyString
    limit: MoneyString
    unit: str = Field(
        description="percent; times (equity); fraction; quote (currency).", examples=["times"]
    )
    source: str = Field(
        description="configuration, contract, portfolio, daily_candles, request, ticker, book.",
        examples=["portfolio"],
    )
    applied: bool

    @classmethod
    def of(cls, cap: Cap) -> Self:
        return cls(
            name=cap.name,
            value=cap.value,
            limit=cap.limit,
            unit=cap.unit,
            source=cap.source,
            applied=cap.is_applied,
        )


class SizeOut(Out):
    """Whole lots of one member; 0 with the reason where there are none."""

    symbol: str
    contract: str
    price: MoneyString | None = Field(description="The given price, else the mark price.")
    weight_percentage: Percent
    wanted_notional: MoneyString = Field(description="After caps, before rounding.")
    notional: MoneyString
    lots: int
    specification: str = Field(
        description="Of the contract that the lots were counted by; once `GET /symbols/{symbol}` "
        "shows another one they are void."
    )
    quantity: MoneyString = Field(description="In base coins.")
    margin: MoneyString
    leverage: MoneyString = Field(description="The one that the caps leave.")
    rounding_error: MoneyString = Field(
        description="Wanted minus realised; below zero where the lots are rounded up."
    )
    liquidation_price: MoneyString | None = Field(
        description="Of a long that rests on this margin alone; 0: nowhere. Null without lots."
    )
    caps: list[str] = Field(
        description="The caps that made it smaller, by name.", examples=[["gross_leverage"]]
    )
    binding_cap: str | None = Field(description="Without this one it would be larger.")
    limits: list[CapOut] = Field(description="Every cap that was looked at; empty if none was.")
    reason: str | None = Field(
        description="Why there are no lots: a check that failed, something unknown, a cap."
    )

    @classmethod
    def of(cls, sized: SizedPosition) -> Self:
        made = sized.size
        return cls(
            symbol=sized.symbol,
            contract=sized.contract,
            price=sized.price,
            weight_percentage=percent(sized.weight_u),
            wanted_notional=made.wanted,
            notional=made.notional,
            lots=made.lots,
            specification=sized.specification,
            quantity=made.quantity,
            margin=made.margin,
            leverage=made.leverage,
            rounding_error=made.rounding_error,
            liquidation_price=made.liquidation_price,
            caps=list(made.applied),
            binding_cap=made.binding,
            limits=[CapOut.of(cap) for cap in made.caps],
            reason=made.reason,
        )


class PositionSizeOut(SizeOut, Freshness):
    """Whole lots of one symbol, counted together with those of all members."""


class SizesOut(Freshness):
    """Whole lots of all members by rank, counted together."""

    account_balance: MoneyString
    sizes: list[SizeOut]
    total_notional: MoneyString
    total_margin: MoneyString

    @classmethod
    def of(cls, balance: Decimal, found: Sequence[SizedPosition], facts: DataFacts) -> Self:
        return cls(
            account_balance=balance,
            sizes=[SizeOut.of(one) for one in found],
            total_notional=total(one.size.notional for one in found),
            total_margin=total(one.size.margin for one in found),
            **freshness(facts),
        )


Balance = Annotated[
    QueryDecimal, Query(gt=0, le=10**12, description="Equity in the quote currency.")
]
Leverage = Annotated[QueryDecimal, Query(gt=0, le=1000, description="Capped by the contract.")]
Price = Annotated[
    QueryDecimal | None,
    Query(ge=Decimal("1e-12"), le=10**12, description="In place of the mark price."),
]
Confidence = Annotated[
    QueryDecimal | None, Query(ge=0, le=1, description="Scales the position when given.")
]
Count = Annotated[
    QueryInt | None, Query(ge=0, le=10**6, description="Of such positions; needs all three.")
]
Payoff = Annotated[
    QueryDecimal | None,
    Query(ge=Decimal("0.001"), le=1000, description="Mean gain over mean loss; needs all three."),
]
CountedBy = Annotated[
    str | None,
    Query(
        pattern=r"^[0-9a-f]{1,64}$",
        description="`specification` that waiting lots were counted by; asked about where given.",
    ),
]


@router.get("/tradeable", summary="Symbols that may be traded now")
@cacheable(depends_on=Input.DECISION)
@requires(Role.VIEWER, scope=Scope.PAIRLIST)
async def tradeable(trading: Provided[Trading]) -> TradeablesOut:
    """Members that pass every check of should-trade, with their weight."""
    found, facts = await trading.tradeable()
    return TradeablesOut(symbols=[TradeableOut.of(one) for one in found], **freshness(facts))


@router.get(
    "/symbols/{symbol}/should-trade",
    summary="May this symbol be traded now",
    responses=problems(*NAMES),
)
@cacheable(depends_on=Input.DECISION)
@requires(Role.TRADER)
async def should_trade(
    trading: Provided[Trading], symbol: SymbolPath, specification: CountedBy = None
) -> ShouldTradeOut:
    """Member, contract open, exchange open, data fresh, score above the threshold: each check.

    A member with a target weight is traded until its score falls below the leave threshold; one
    without needs the enter threshold. That state moves only when weights are set.

    Right before an order: with the `specification` of its lots it is refused as soon as a lot,
    a tick or the largest order is another one. Then plan anew.
    """
    return ShouldTradeOut.of(*await trading.should_trade(symbol, specification))


@router.get(
    "/symbols/{symbol}/position-size",
    summary="How many lots",
    responses=problems(*NAMES),
)
@cacheable(depends_on=Input.DECISION)
@requires(Role.TRADER)
async def position_size(
    trading: Provided[Trading],
    symbol: SymbolPath,
    account_balance: Balance,
    leverage: Leverage = Decimal(1),
    price: Price = None,
    confidence: Confidence = None,
    wins: Count = None,
    losses: Count = None,
    payoff_ratio: Payoff = None,
) -> PositionSizeOut:
    """Weight times balance times leverage, capped, in whole lots of the contract.

    The lots of all members are counted together, as `GET /portfolio/sizes` and a rebalance with a
    balance count them; a position that a cap holds back is rounded down.

    Caps: weight, leverage of the contract, gross leverage of the portfolio, its volatility target
    if one is set, distance of liquidation, value at risk of the portfolio, confidence, a fraction
    of the Kelly stake where a record (`wins`, `losses`, `payoff_ratio`) is given, turnover of the
    day, depth of the book. What a cap needs and is not known gives no position, with the reason.
    """
    sized, facts = await trading.position_size(
        symbol,
        account_balance,
        leverage,
        price,
        None if confidence is None else float(confidence),
        _record(wins, losses, payoff_ratio),
    )
    return PositionSizeOut(**dict(SizeOut.of(sized)), **freshness(facts))


@router.get("/sizes", summary="How many lots of every member")
@cacheable(depends_on=Input.DECISION)
@requires(Role.TRADER)
async def sizes(
    trading: Provided[Trading], account_balance: Balance, leverage: Leverage = Decimal(1)
) -> SizesOut:
    """The position sizes of all members, as `position-size` says of each.

    Lots are counted for all members together: every weight within one percentage point of its
    target where that is possible, no weight a lot below the minimum, then the least squared error,
    the least cash and the order of the symbols. A rebalance counts the same way.
    """
    found, facts = await trading.sizes(account_balance, leverage)
    return SizesOut.of(account_balance, found, facts)


def _record(wins: int | None, losses: int | None, payoff: Decimal | None) -> TrackRecord | None:
    if wins is None and losses is None and payoff is None:
        return None
    if wins is None or losses is None or payoff is None:
        raise RefusedError(
            Code.VALIDATION_FAILED, "A record needs wins, losses and payoff_ratio, or none of them."
        )
    return TrackRecord(wins, losses, float(payoff))


class FindingOut(Out):
    code: str = Field(examples=["market_data_stale"])
    symbol: str | None = Field(description="The member that it concerns.")
    detail: str


class SafetyOut(Freshness):
    """Issues forbid trading the portfolio as a whole; warnings are to be looked at."""

    is_safe: bool = Field(description="There are no issues.")
    version: int
    checked_at: UtcTime
    issues: list[FindingOut]
    warnings: list[FindingOut]
    tradeable_symbols: list[str] = Field(description="Members that pass every check.")

    @classmethod
    def of(cls, report: SafetyReport) -> Self:
        return cls(
            is_safe=report.is_safe,
            version=report.version,
            checked_at=report.checked_at,
            issues=[FindingOut.model_validate(one) for one in report.issues],
            warnings=[FindingOut.model_validate(one) for one in report.warnings],
            tradeable_symbols=list(report.tradeable),
            **freshness(report.facts),
        )


@router.get("/safety", summary="May the portfolio be traded as it stands")
@cacheable(depends_on=Input.DECISION)
@requires(Role.VIEWER)
async def safety(safety: Provided[Safety]) -> SafetyOut:
    """Soundness, freshness, contracts that end, bounds, concentration; and who may be traded."""
    return SafetyOut.of(await safety.validate())
