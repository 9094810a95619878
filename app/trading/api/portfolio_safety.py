"""Whether the portfolio may be traded as it stands."""

from typing import Self

from pydantic import Field

from app.foundation.http.dependencies import ServiceDep
from app.foundation.http.response_cache import of_memory
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Freshness, Out, UtcTime
from app.portfolio.api.schemas import freshness
from app.trading.services.safety import SafetyReport

router = api_router("portfolio", "/portfolio")


class FindingOut(Out):
    code: str = Field(examples=["market_data_stale"])
    symbol: str | None = Field(description="The member that it concerns.")
    detail: str


class SafetyOut(Freshness):
    """Issues forbid trading the portfolio as a whole; warnings are to be looked at."""

    is_safe: bool = Field(description="There are no issues.")
    version: int
    checked_at: UtcTime
    issues: list[FindingOut]
    warnings: list[FindingOut]
    tradeable_symbols: list[str] = Field(description="Members that pass every check.")

    @classmethod
    def of(cls, report: SafetyReport) -> Self:
        return cls(
            is_safe=report.is_safe,
            version=report.version,
            checked_at=report.checked_at,
            issues=[FindingOut.model_validate(one) for one in report.issues],
            warnings=[FindingOut.model_validate(one) for one in report.warnings],
            tradeable_symbols=list(report.tradeable),
            **freshness(report.facts),
        )


@router.get("/safety", summary="May the portfolio be traded as it stands")
@of_memory
async def safety(service: ServiceDep) -> SafetyOut:
    """Soundness, freshness, contracts that end, bounds, concentration; and who may be traded."""
    return SafetyOut.of(await service.safety.validate())
