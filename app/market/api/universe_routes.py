"""The universe: how many contracts pass each rule, and which one stops each of the others."""

from typing import Self

from pydantic import Field
from starlette.responses import Response

from app.foundation.data_status import DataSource
from app.foundation.http.dependencies import Provided
from app.foundation.http.responses import answer, large_json_bytes
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Freshness, MoneyString, Out
from app.market.api.symbol_schemas import fresh
from app.market.domain.eligibility import Stage
from app.market.services.service import MarketData
from app.market.services.snapshot import MarketMoment
from app.market.services.symbol_queries import UniverseView, universe_view

router = api_router("universe", "/universe")


class StageOut(Out):
    """One rule applied to those that passed the ones before."""

    name: str = Field(examples=["status"])
    title: str
    limit: MoneyString | str | int | float | bool | None
    entered: int
    failed: int
    passed: int

    @classmethod
    def of(cls, stage: Stage) -> Self:
        return cls(
            name=stage.name,
            title=stage.title,
            limit=stage.limit,
            entered=stage.entered,
            failed=stage.failed,
            passed=stage.entered - stage.failed,
        )


class ExclusionOut(Out):
    symbol: str = Field(examples=["USDCUSDT"])
    rule: str = Field(description="First rule that it fails.", examples=["asset_class"])


class FunnelOut(Freshness):
    """Counts add up: universe = eligible + the failed of all stages."""

    universe: int
    eligible: int
    stages: list[StageOut]
    excluded: list[ExclusionOut] = Field(description="By symbol.")
    sectors: dict[str, int] = Field(description="Symbols of the universe per sector.")
    unclassified: int = Field(description="Symbols whose sector nobody has named.")

    @classmethod
    def of(cls, moment: MarketMoment, source: DataSource, view: UniverseView) -> Self:
        return cls(
            universe=view.funnel.universe,
            eligible=len(view.funnel.eligible),
            stages=[StageOut.of(stage) for stage in view.funnel.stages],
            excluded=[
                ExclusionOut(symbol=symbol, rule=rule)
                for symbol, rule in view.funnel.excluded.items()
            ],
            sectors=dict(view.sectors),
            unclassified=view.unclassified,
            **fresh(moment, source),
        )


@router.get("/funnel", summary="From all contracts to the eligible ones", response_model=FunnelOut)
async def funnel(market: Provided[MarketData]) -> Response:
    """How many enter and fail each rule, and the rule that stops each excluded symbol."""
    moment = market.moment()
    return answer(
        await large_json_bytes(lambda: FunnelOut.of(moment, market.source, universe_view(moment)))
    )
