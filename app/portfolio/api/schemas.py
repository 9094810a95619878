"""How a member of the portfolio is shown, wherever it is shown; and how a symbol is named in."""

from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from app.foundation.errors import Code
from app.foundation.http.request_body import Body, NameText, ReasonText, SymbolText
from app.foundation.http.schemas import (
    Freshness,
    MoneyString,
    Out,
    Percent,
    Score,
    Share,
    UtcTime,
    finite,
    percent,
)
from app.portfolio.domain.rebalance_run import Failure
from app.portfolio.services.member_views import MemberView
from app.trading.services.position_sizing import DataFacts

TARGET = "What a rebalance would set now; while market data is stale, what the last change set."
UNSAID = "requested"  # the reason where a caller gives none
CHANGES = (Code.PRECONDITION_FAILED, Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)
NAMES = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.EXCHANGE_UNAVAILABLE)
DECIDES = (Code.NO_BOARD_YET, Code.MARKET_DATA_STALE, Code.CLOCK_UNSAFE)


class MemberOut(Out):
    """A member with its score and figures of the moment; null is not known."""

    symbol_id: str
    symbol: str = Field(examples=["BTCUSDT"])
    contract: str = Field(examples=["XBTUSDTM"])
    position_rank: int
    inclusion_date: UtcTime
    inclusion_reason: str
    inclusion_price: MoneyString | None = Field(description="Mark price when it came in.")
    current_score: Score | None
    confidence: Score | None
    weight_percentage: Percent = Field(description="As it was last set.")
    current_weight_percentage: Percent = Field(description="As prices have carried it since.")
    target_weight_percentage: Percent = Field(description=TARGET)
    status: str = Field(examples=["Active"])
    is_replacement_candidate: bool
    replacement_priority: int | None = Field(description="1 is the weakest member.")
    is_tradeable: bool
    not_tradeable_reason: str | None
    performance_since_inclusion: Share | None
    max_drawdown_since_inclusion: Share | None
    volatility_since_inclusion: Share | None = Field(description="Annualised fraction.")
    realized_pnl: MoneyString | None = Field(description="Null until a result is booked.")
    last_validation: UtcTime | None = Field(description="When it was last scored.")

    @classmethod
    def of(cls, view: MemberView) -> Self:
        return cls(**fields_of(view))


class MemberChanged(MemberOut, Freshness):
    """A member right after the change that brought it in, and the version made by it."""

    version: int

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
        "realized_pnl": view.realized,
        "last_validation": view.validated_at,
    }


def freshness(facts: DataFacts) -> dict[str, Any]:
    """as_of, data_source and data_status of a response."""
    return {
        "as_of": facts.as_of,
        "data_source": facts.data_source,
        "data_status": facts.data_status,
    }


class Said(Body):
    """What every change may say: why, and who claims to ask."""

    reason: ReasonText | None = None
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class SymbolIn(Said):
    """One symbol, in any spelling or by its UUID."""

    symbol: SymbolText | None = None
    symbol_id: SymbolText | None = Field(None, description="Accepted in place of `symbol`.")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        one_of(self.symbol, self.symbol_id)
        return self

    @property
    def named(self) -> str:
        return one_of(self.symbol, self.symbol_id)


def one_of(*names: str | None) -> str:
    """The one name that was given; refuses none and several."""
    given = [name for name in names if name is not None]
    if len(given) != 1:
        raise PydanticCustomError("one_of", "give exactly one of the names")
    return given[0]


class RebalanceErrorOut(Out):
    code: str = Field(
        description='That of the problem which the caller got, or "interrupted".',
        examples=["market_data_stale"],
    )
    detail: str

    @classmethod
    def of(cls, failure: Failure) -> Self:
        return cls(code=failure.code, detail=failure.detail)
