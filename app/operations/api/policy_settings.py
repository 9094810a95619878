"""The settings of the policies as they are read and written over HTTP."""

from pydantic import Field

from app.configuration.domain.policy import Policy
from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Out


class PolicyOut(Out):
    """What the schedule may do by itself: observe, propose, or carry out."""

    rebalance: Policy
    replacement: Policy = Field(
        description="Of swaps that `replacement.auto_forced` and `auto_discretionary` hold back."
    )
    expires_after: int = Field(description="Seconds that a proposal is open.")


class PolicyIn(Body):
    rebalance: str | None = None
    replacement: str | None = None
    expires_after: int | None = None
