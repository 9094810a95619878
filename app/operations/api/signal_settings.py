"""The settings of signals as they are read and written over HTTP."""

from pydantic import Field

from app.configuration.domain.policy import Policy
from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Out, Score


class SignalsOut(Out):
    """What is taken, how it is judged, and how long it waits."""

    min_strength: Score = Field(description="Below it a signal is rejected unjudged.")
    min_confidence: Score
    min_consensus: Score = Field(description="Pooled probability that a signal is right.")
    strong_consensus: Score
    quorum: Score = Field(description="Share of the agents' weight that must have voted.")
    horizon_days: float = Field(
        description="Over which a signal is to prove right that names no timeframe."
    )
    min_outcomes: int = Field(description="Outcomes from which on skill is known.")
    veto_volatility: float = Field(description="Annualised; above it risk forbids buying.")
    veto_drawdown: Score = Field(description="A fall within 90 days beyond which as well.")
    expires_after: int = Field(description="Seconds, where the source names no end.")
    policy: Policy = Field(description="How far an approved signal may go by itself.")
    policies: dict[str, Policy] = Field(description="The same by `signal_type`.")
    source_strength: Score = Field(description="Below it our own sources say nothing.")
    source_confidence: Score
    sources: dict[str, bool] = Field(
        description="Our own sources by name, `technical` and `fundamental` among them; false "
        "switches one off."
    )
    agent_timeout: float = Field(description="Seconds for agents from outside; late is no vote.")
    most_pending: int = Field(description="Beyond it intake answers 429.")


class SignalsIn(Body):
    min_strength: float | None = None
    min_confidence: float | None = None
    min_consensus: float | None = None
    strong_consensus: float | None = None
    quorum: float | None = None
    horizon_days: float | None = None
    min_outcomes: int | None = None
    veto_volatility: float | None = None
    veto_drawdown: float | None = None
    expires_after: int | None = None
    policy: str | None = None
    policies: dict[str, str] | None = None
    source_strength: float | None = None
    source_confidence: float | None = None
    sources: dict[str, bool] | None = None
    agent_timeout: float | None = None
    most_pending: int | None = None
