"""The settings of replacements, as they are read and written over HTTP."""

from pydantic import Field

from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Out


class ReplacementSettingsOut(Out):
    """Times in seconds, noise in composite z, the return in basis points a day."""

    noise_multiple: float
    noise_default: float = Field(description="Where noise is not known yet; 0: none.")
    return_per_z: float
    horizon_days: float
    confirmations: int
    confirmation_interval: int = Field(
        description="Evaluations within so many seconds of a counted one are not counted."
    )
    minimum_holding: int
    cooling_off: int
    max_pause: int = Field(
        description="A member whose contract is Paused or CancelOnly for longer is replaced; "
        "until then it keeps its weight."
    )
    min_confidence: float
    max_per_cycle: int
    max_per_sector: int
    impact_value: float = Field(
        description="Quote currency that a leg of a swap sweeps the book with, as a part of its "
        "cost; 0: half the spread alone."
    )
    count_funding: bool = Field(
        description="Whether the difference of the funding that longs pay over the horizon is a "
        "part of the cost; where it is not known there is no swap."
    )
    auto_forced: bool
    auto_discretionary: bool


class ReplacementSettingsIn(Body):
    noise_multiple: float | None = None
    noise_default: float | None = None
    return_per_z: float | None = None
    horizon_days: float | None = None
    confirmations: int | None = None
    confirmation_interval: int | None = None
    minimum_holding: int | None = None
    cooling_off: int | None = None
    max_pause: int | None = None
    min_confidence: float | None = None
    max_per_cycle: int | None = None
    max_per_sector: int | None = None
    impact_value: float | None = None
    count_funding: bool | None = None
    auto_forced: bool | None = None
    auto_discretionary: bool | None = None
