"""The settings of rebalancing as they are read and written over HTTP."""

from pydantic import Field

from app.configuration.domain.model import WeightingMethod
from app.foundation.http.request_body import Body, DecimalIn
from app.foundation.http.schemas import Out


class RebalancingOut(Out):
    """Weights in per cent, the tolerance in percentage points, volatility as annual fraction."""

    method: WeightingMethod
    fixed_weights: dict[str, float]
    bound_tolerance: float
    volatility_target: float = Field(
        description="Annualised; weights shrink together until the portfolio is that calm. 0: none."
    )
    band_by_cost: bool = Field(
        description="A symbol that is dear to trade may drift further, and drift moves only "
        "the members that have left their band and as few others as add up."
    )
    risk_aversion: float = Field(description="Of that band: (1.5/g w^2 (1-w)^2 cost)^(1/3).")


class RebalancingIn(Body):
    method: str | None = None
    fixed_weights: dict[str, DecimalIn] | None = None
    bound_tolerance: DecimalIn | None = None
    volatility_target: float | None = None
    band_by_cost: bool | None = None
    risk_aversion: float | None = None
