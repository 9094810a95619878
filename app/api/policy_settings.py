"""The settings of the policies as they are read and written over HTTP."""

from pydantic import Field

from app.api.body import Body
from app.api.schemas import Out
from app.domain.policy import Policy


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
