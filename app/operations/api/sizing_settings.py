"""The settings of position sizing as they are read and written over HTTP."""

from pydantic import Field

from app.foundation.http.request_body import Body, DecimalIn
from app.foundation.http.schemas import Out


class SizingOut(Out):
    """Shares, losses and volatility as fractions."""

    max_gross_leverage: float = Field(description="Value of all members over equity.")
    depth_share: float = Field(description="Of what the book shows within the band.")
    depth_band: float = Field(description="Basis points from mid.")
    liquidation_sigmas: float = Field(
        description="Daily standard deviations of the symbol that liquidation must be away; 0: any."
    )
    var_limit: float = Field(description="One-day value at risk of the portfolio; 0: none.")
    var_level: float
    volatility_target: float = Field(description="Of the portfolio, annualised; 0: none.")
    kelly_fraction: float = Field(description="Of the Kelly stake, where a record is given.")
    kelly_prior: float = Field(description="Wins, and as many losses, seen beforehand.")
    reference_balance: float = Field(
        description="Equity in the quote currency by which a rebalance judges its smallest change "
        "where the request names no `account_balance`; 0: none is known."
    )
    min_notional: float = Field(
        description="Quote currency; a change that is worth less, or less than one lot, is not "
        "traded."
    )


class SizingIn(Body):
    max_gross_leverage: float | None = None
    depth_share: float | None = None
    depth_band: float | None = None
    liquidation_sigmas: float | None = None
    var_limit: float | None = None
    var_level: float | None = None
    volatility_target: float | None = None
    kelly_fraction: float | None = None
    kelly_prior: float | None = None
    reference_balance: DecimalIn | None = None
    min_notional: DecimalIn | None = None
