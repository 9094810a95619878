"""Integrity of the portfolio: state against history, scores and settings."""

from typing import Self

from pydantic import Field

from app.foundation.http.dependencies import EXPENSIVE, Provided
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Out, UtcTime
from app.operations.services.integrity import Integrity, IntegrityService

router = api_router("portfolio", "/portfolio")


class InvariantOut(Out):
    name: str = Field(examples=["sum_of_weights"])
    ok: bool
    detail: str | None = Field(description="What is wrong.")


class IntegrityOut(Out):
    ok: bool
    version: int
    events: int
    checked_at: UtcTime
    invariants: list[InvariantOut]

    @classmethod
    def of(cls, checked: Integrity) -> Self:
        return cls(
            ok=checked.ok,
            version=checked.version,
            events=checked.events,
            checked_at=checked.checked_at,
            invariants=[InvariantOut.model_validate(one) for one in checked.invariants],
        )


@router.get("/integrity", summary="Are all invariants held", dependencies=EXPENSIVE)
async def integrity(checks: Provided[IntegrityService]) -> IntegrityOut:
    """Check size, ranks, sums, bounds, scores, the hash chain and that events give the state."""
    return IntegrityOut.of(await checks.check())
