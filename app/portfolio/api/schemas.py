"""Schemas that several portfolio routes share: members, freshness, errors, symbol names."""

from typing import Any, Self

from pydantic import Field

from app.foundation.http.schemas import (
    Freshness,
    MoneyString,
    Out,
    Percent,
    Price,
    Score,
    Share,
    UtcTime,
    finite,
    percent,
)
from app.portfolio.domain.rebalance_run import RunFailure
from app.portfolio.domain.returns import BookedTotal
from app.portfolio.services.tradeability import DataFacts
from app.portfolio.services.views import MemberView

TARGET = "Weight that a rebalance would set now; with stale data that of the last change."


class BookedTotalOut(Out):
    """Sum of booked results in the settlement currency of the contract."""

    results: int = Field(description="Number of booked results.")
    pnl: MoneyString = Field(description="Of prices alone.")
    fees: MoneyString = Field(description="Paid; a rebate is negative.")
    funding: MoneyString = Field(description="Received; paid funding is negative.")
    net: MoneyString = Field(description="After fees and funding.")
    currency: str = Field(examples=["USDT"], description="Settlement currency.")

    @classmethod
    def of(cls, total: BookedTotal) -> Self:
        return cls(
            results=total.results,
            pnl=total.pnl,
            fees=total.fees,
            funding=total.funding,
            net=total.net,
            currency=total.currency,
        )


class MemberOut(Out):
    """A member with its current score and figures; null means unknown."""

    symbol_id: str
    symbol: str = Field(examples=["BTCUSDT"])
    contract: str = Field(examples=["XBTUSDTM"])
    position_rank: int
    inclusion_date: UtcTime
    inclusion_reason: str
    inclusion_price: Price | None = Field(description="Mark price at inclusion.")
    current_score: Score | None
    confidence: Score | None
    weight_percentage: Percent = Field(description="As last set.")
    current_weight_percentage: Percent = Field(description="After price drift.")
    target_weight_percentage: Percent = Field(description=TARGET)
    status: str = Field(examples=["Active"], description="`Active`.")
    is_replacement_candidate: bool
    replacement_priority: int | None = Field(description="1 is the weakest member.")
    is_tradeable: bool
    not_tradeable_reason: str | None
    performance_since_inclusion: Share | None
    max_drawdown_since_inclusion: Share | None
    volatility_since_inclusion: Share | None = Field(description="Annualised fraction.")
    booked_since_inclusion: BookedTotalOut | None = Field(
        description="Booked results since the inclusion, beside the performance by price; null"
        " until one is booked."
    )
    realized_pnl: MoneyString | None = Field(
        description="Of all memberships; null until a result is booked."
    )
    last_validation: UtcTime | None = Field(description="Time of the last score.")

    @classmethod
    def of(cls, view: MemberView) -> Self:
        return cls(**fields_of(view))


class MemberChanged(MemberOut, Freshness):
    """A new member and the portfolio version that added it."""

    version: int = Field(description="Portfolio version after the change.")

    @classmethod
    def of(cls, view: MemberView) -> Self:
        return cls(**fields_of(view), **freshness(view.facts), version=view.version)


def fields_of(view: MemberView) -> dict[str, Any]:
    """The wire fields of a member."""
    member, figures = view.member, view.figures
    return {
        "symbol_id": member.symbol_id,
        "symbol": member.symbol,
        "contract": member.contract,
        "position_rank": member.rank,
        "inclusion_date": member.included_at,
        "inclusion_reason": member.inclusion_reason,
        "inclusion_price": member.inclusion_price,
        "current_score": finite(view.score),
        "confidence": finite(view.confidence),
        "weight_percentage": percent(member.weight_u),
        "current_weight_percentage": percent(view.marked_u),
        "target_weight_percentage": percent(view.target_u),
        "status": "Active",
        "is_replacement_candidate": view.replacement_priority is not None,
        "replacement_priority": view.replacement_priority,
        "is_tradeable": view.is_tradeable,
        "not_tradeable_reason": view.not_tradeable_reason,
        "performance_since_inclusion": finite(figures.performance),
        "max_drawdown_since_inclusion": finite(figures.max_drawdown),
        "volatility_since_inclusion": finite(figures.volatility),
        "booked_since_inclusion": None if view.booked is None else BookedTotalOut.of(view.booked),
        "realized_pnl": view.realized,
        "last_validation": view.validated_at,
    }


def freshness(facts: DataFacts) -> dict[str, Any]:
    """Fields as_of, data_source and data_status of a response."""
    return {
        "as_of": facts.as_of,
        "data_source": facts.data_source,
        "data_status": facts.data_status,
    }


class RebalanceErrorOut(Out):
    code: str = Field(
        description='Problem code that the caller received, or "interrupted".',
        examples=["market_data_stale"],
    )
    detail: str = Field(description="Cause, in words.")

    @classmethod
    def of(cls, failure: RunFailure) -> Self:
        return cls(code=failure.code, detail=failure.detail)
