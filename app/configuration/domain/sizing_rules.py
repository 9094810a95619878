"""The settings of position sizing: what holds a position back besides its weight."""

from dataclasses import dataclass, field
from decimal import Decimal

from app.configuration.domain.fields import between, setting


@dataclass(frozen=True, slots=True)
class SizingRules:
    """Limits of one position and of all of them together; 0 switches one off where 0 is allowed."""

    max_gross_leverage: float = setting(3.0, 0.01, 100.0)  # value of all members over equity
    depth_share: float = setting(0.10, 0.000001, 1.0)  # of what the book shows within the band
    depth_band: float = setting(25.0, 1.0, 1_000.0)  # basis points from mid
    # How far liquidation must be away, in daily standard deviations of the symbol; 0: anywhere.
    liquidation_sigmas: float = setting(3.0, 0.0, 20.0)
    var_limit: float = setting(0.10, 0.0, 1.0)  # one-day loss as fraction of equity; 0: none
    var_level: float = setting(0.95, 0.5, 0.999)  # of that loss
    volatility_target: float = setting(0.0, 0.0, 10.0)  # of the portfolio, annualised; 0: none
    kelly_fraction: float = setting(0.25, 0.0, 1.0)  # of the Kelly stake, where a record is given
    kelly_prior: float = setting(10.0, 1.0, 10_000.0)  # wins, and as many losses, seen beforehand
    # Equity that changes of weights are judged by where a request names none; 0: none is known.
    reference_balance: Decimal = field(
        default=Decimal(0), metadata=between("0", "1000000000000")
    )  # quote currency
    min_notional: Decimal = field(
        default=Decimal(5), metadata=between("0", "1000000")
    )  # quote currency; a smaller change is not traded
