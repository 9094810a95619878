"""HTTP routes for the trading engine: tradeable symbols, position sizes and safety."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Self

from fastapi import Query
from pydantic import Field

from app.foundation.decimal_math import total
from app.foundation.errors import Code, RefusedError
from app.foundation.http.dependencies import Provided
from app.foundation.http.errors import problems
from app.foundation.http.openapi_fields import UNIT
from app.foundation.http.permissions import requires
from app.foundation.http.response_cache import cacheable
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    NAMES,
    Freshness,
    Lots,
    Money,
    Out,
    Percent,
    Price,
    Quantity,
    QueryDecimal,
    QueryInt,
    RatioString,
    Raw,
    RawString,
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
    score: Score = Field(description="Composite score.")

    @classmethod
    def of(cls, member: Tradeable) -> Self:
        return cls(
            symbol=member.symbol,
            contract=member.contract,
            weight_percentage=percent(member.weight_u),
            score=member.score,
        )


class TradeableListOut(Freshness):
    """Members that may be traded now, by rank."""

    symbols: list[TradeableOut] = Field(description="Members that may be traded now, by rank.")


class CheckOut(Out):
    name: str = Field(examples=["score"], description="Name of the check.")
    passed: bool = Field(description="True if the check passed.")
    value: Raw | None = Field(
        description="Measured value, in the unit of `detail`; null if unknown."
    )
    limit: Raw | None = Field(description="Limit, in the unit of `detail`; null without one.")
    detail: str = Field(description="Value, limit and unit in words.")

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
    """Decision with all checks; `reason` is that of the first failed check."""

    symbol: str
    trade: bool = Field(description="True if the symbol may be traded now.")
    reason: str = Field(description="Cause of the first failed check, or that all passed.")
    checks: list[CheckOut] = Field(description="Checks in their order.")

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
    """A cap on a position, in order of application.

    `value` is the value before the cap; `limit` is a maximum, except for `liquidation_distance`,
    where it is a minimum.
    """

    name: CapName = Field(description="Name of the cap.")
    value: RawString = Field(description="Value that the cap limits, in its unit.")
    limit: RawString = Field(description="Limit of that value, in its unit.")
    unit: str = Field(
        description="percent; times (equity); fraction; quote (currency).", examples=["times"]
    )
    source: str = Field(
        description="configuration, contract, portfolio, daily_candles, request, ticker, book.",
        examples=["portfolio"],
    )
    applied: bool = Field(description="True if the cap reduced the position.")

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


class MemberSizeOut(Out):
    """Whole lots of one member; `reason` explains 0 lots."""

    symbol: str
    contract: str
    price: Price | None = Field(description="The requested price, else the mark price.")
    weight_percentage: Percent
    wanted_notional: Money = Field(description="Notional after caps, before rounding.")
    notional: Money = Field(description="Value of the lots.")
    lots: Lots = Field(description="Whole lots to hold; 0 with the reason if none.")
    specification: str = Field(
        description="Id of the contract specification of the lots; they are void once "
        "`GET /symbols/{symbol}` shows another one."
    )
    quantity: Quantity = Field(description="Base coins.")
    margin: Money = Field(description="Initial margin of the lots.")
    leverage: RatioString = Field(description="Leverage after caps.")
    rounding_error: Money = Field(
        description="Wanted minus realised notional; negative where lots are rounded up."
    )
    liquidation_price: Price | None = Field(
        description="For a long with this margin alone; 0: never liquidated. Null without lots."
    )
    caps: list[str] = Field(
        description="Names of the caps that reduced the position.", examples=[["gross_leverage"]]
    )
    binding_cap: str | None = Field(description="Cap without which the position would be larger.")
    limits: list[CapOut] = Field(description="All caps in order; empty if none was checked.")
    reason: str | None = Field(
        description="Reason for 0 lots: a failed check, an unknown input or a cap."
    )

    @classmethod
    def of(cls, sized: SizedPosition) -> Self:
        size = sized.size
        return cls(
            symbol=sized.symbol,
            contract=sized.contract,
            price=sized.price,
            weight_percentage=percent(sized.weight_u),
            wanted_notional=size.wanted,
            notional=size.notional,
            lots=size.lots,
            specification=sized.specification,
            quantity=size.quantity,
            margin=size.margin,
            leverage=size.leverage,
            rounding_error=size.rounding_error,
            liquidation_price=size.liquidation_price,
            caps=list(size.applied),
            binding_cap=size.binding,
            limits=[CapOut.of(cap) for cap in size.caps],
            reason=size.reason,
        )


class PositionSizeOut(MemberSizeOut, Freshness):
    """Whole lots of one symbol, allocated together with those of all members."""


class PositionSizesOut(Freshness):
    """Whole lots of all members by rank, allocated together."""

    account_balance: Money = Field(description="Equity that the sizes are computed from.")
    sizes: list[MemberSizeOut] = Field(description="Sizes of the members by rank.")
    total_notional: Money = Field(description="Value of all lots.")
    total_margin: Money = Field(description="Initial margin of all lots.")

    @classmethod
    def of(cls, balance: Decimal, positions: Sequence[SizedPosition], facts: DataFacts) -> Self:
        return cls(
            account_balance=balance,
            sizes=[MemberSizeOut.of(position) for position in positions],
            total_notional=total(position.size.notional for position in positions),
            total_margin=total(position.size.margin for position in positions),
            **freshness(facts),
        )


Balance = Annotated[
    QueryDecimal, Query(gt=0, le=10**12, description="Equity in the quote currency.")
]
Leverage = Annotated[QueryDecimal, Query(gt=0, le=1000, description="Capped by the contract.")]
AssumedPrice = Annotated[
    QueryDecimal | None,
    Query(
        ge=Decimal("1e-12"),
        le=10**12,
        description="Replaces the mark price.",
        json_schema_extra={UNIT: "quote currency"},
    ),
]
Confidence = Annotated[
    QueryDecimal | None,
    Query(ge=0, le=1, description="Scales the position.", json_schema_extra={UNIT: "score"}),
]
Count = Annotated[
    QueryInt | None,
    Query(ge=0, le=10**6, description="Number of past positions; requires all three."),
]
Payoff = Annotated[
    QueryDecimal | None,
    Query(
        ge=Decimal("0.001"),
        le=1000,
        description="Mean gain over mean loss; requires all three.",
        json_schema_extra={UNIT: "ratio"},
    ),
]
Specification = Annotated[
    str | None,
    Query(
        pattern=r"^[0-9a-f]{1,64}$",
        description="`specification` of lots to be ordered; adds a check that it is unchanged.",
    ),
]


@router.get("/tradeable", summary="Symbols that may be traded now")
@cacheable(depends_on=Input.DECISION)
@requires(Role.VIEWER, scope=Scope.PAIRLIST)
async def list_tradeable_symbols(trading: Provided[Trading]) -> TradeableListOut:
    """Returns the members that pass every check of should-trade, with their weights."""
    members, facts = await trading.tradeable()
    symbols = [TradeableOut.of(member) for member in members]
    return TradeableListOut(symbols=symbols, **freshness(facts))


@router.get(
    "/symbols/{symbol}/should-trade",
    summary="Trading decision for one symbol",
    responses=problems(*NAMES),
)
@cacheable(depends_on=Input.DECISION)
@requires(Role.TRADER)
async def get_trading_decision(
    trading: Provided[Trading], symbol: SymbolPath, specification: Specification = None
) -> ShouldTradeOut:
    """Checks membership, contract, exchange, data freshness and score.

    A member with a target weight is traded until its score falls below the exit threshold; a
    member without one needs the entry threshold. This state changes only when weights are set.

    Before an order, pass the `specification` of its lots: the check fails once lot, tick or
    maximum order size have changed, and the lots must be planned again.
    """
    return ShouldTradeOut.of(*await trading.should_trade(symbol, specification))


@router.get(
    "/symbols/{symbol}/position-size",
    summary="Position size of one symbol",
    responses=problems(*NAMES),
)
@cacheable(depends_on=Input.DECISION)
@requires(Role.TRADER)
async def calculate_position_size(
    trading: Provided[Trading],
    symbol: SymbolPath,
    account_balance: Balance,
    leverage: Leverage = Decimal(1),
    price: AssumedPrice = None,
    confidence: Confidence = None,
    wins: Count = None,
    losses: Count = None,
    payoff_ratio: Payoff = None,
) -> PositionSizeOut:
    """Computes weight times balance times leverage, capped, in whole lots of the contract.

    The lots of all members are allocated together, as in `GET /portfolio/sizes` and in a rebalance
    with a balance; a capped position is rounded down.

    Caps: weight, leverage of the contract, gross leverage of the portfolio, its volatility target
    (if set), liquidation distance, value at risk of the portfolio, confidence, a fraction of the
    Kelly stake (with `wins`, `losses` and `payoff_ratio`), daily turnover, depth of the book. If
    the input of a cap is unknown, there is no position, with the reason.
    """
    sized, facts = await trading.position_size(
        symbol,
        account_balance,
        leverage,
        price,
        None if confidence is None else float(confidence),
        _record(wins, losses, payoff_ratio),
    )
    return PositionSizeOut(**dict(MemberSizeOut.of(sized)), **freshness(facts))


@router.get("/sizes", summary="Position sizes of all members")
@cacheable(depends_on=Input.DECISION)
@requires(Role.TRADER)
async def calculate_position_sizes(
    trading: Provided[Trading], account_balance: Balance, leverage: Leverage = Decimal(1)
) -> PositionSizesOut:
    """Computes the position sizes of all members, equal to `position-size` of each.

    Lots are allocated for all members together, as in a rebalance. Criteria in order: every weight
    within one percentage point of its target, no weight a lot below the minimum, least squared
    error, least cash, order of the symbols.
    """
    positions, facts = await trading.sizes(account_balance, leverage)
    return PositionSizesOut.of(account_balance, positions, facts)


def _record(wins: int | None, losses: int | None, payoff: Decimal | None) -> TrackRecord | None:
    if wins is None and losses is None and payoff is None:
        return None
    if wins is None or losses is None or payoff is None:
        raise RefusedError(
            Code.VALIDATION_FAILED,
            "wins, losses and payoff_ratio must be given together.",
            field=next(
                name
                for name, value in (("wins", wins), ("losses", losses), ("payoff_ratio", payoff))
                if value is None
            ),
        )
    return TrackRecord(wins, losses, float(payoff))


class FindingOut(Out):
    code: str = Field(examples=["market_data_stale"], description="Stable code of the finding.")
    symbol: str | None = Field(description="Member concerned; null for the portfolio.")
    detail: str = Field(description="Cause with its facts.")


class SafetyOut(Freshness):
    """Issues forbid trading the portfolio as a whole; warnings do not."""

    is_safe: bool = Field(description="True without issues.")
    version: int = Field(description="Portfolio version that was checked.")
    checked_at: UtcTime = Field(description="UTC time of the check.")
    issues: list[FindingOut] = Field(description="Findings that forbid trading the portfolio.")
    warnings: list[FindingOut] = Field(description="Findings that do not forbid it.")
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


@router.get("/safety", summary="Safety check of the portfolio")
@cacheable(depends_on=Input.DECISION)
@requires(Role.VIEWER)
async def check_portfolio_safety(safety: Provided[Safety]) -> SafetyOut:
    """Checks consistency, freshness, ending contracts, bounds and concentration."""
    return SafetyOut.of(await safety.validate())
