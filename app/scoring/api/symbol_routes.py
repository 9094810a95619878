"""One symbol: its contract with every specification, membership, and its newest score."""

from typing import Final, Self

from pydantic import Field

from app.foundation.data_status import DataSource
from app.foundation.errors import Code
from app.foundation.http.dependencies import Provided
from app.foundation.http.errors import problems
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import Freshness, SymbolPath, UtcTime
from app.market.api.symbol_schemas import SpecificationOut, SymbolOut, fresh, instant_of
from app.market.domain.models import Contract, ContractKind
from app.market.services.ports import PortfolioMembers
from app.market.services.service import MarketData
from app.market.services.snapshot import MarketMoment
from app.market.services.symbol_queries import (
    SpecificationVersion,
    SymbolRow,
    specifications,
    symbol_row,
)
from app.market.services.symbol_registry import Registry
from app.scoring.api.schemas import ScoreOut
from app.scoring.domain.board import Board
from app.scoring.services.service import Scoring

router = api_router("symbols", "/symbols")
_SYMBOL: Final = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.EXCHANGE_UNAVAILABLE)


class SymbolDetailOut(Freshness):
    """A symbol with its contract, every specification that it had, and its newest score."""

    symbol: SymbolOut
    kind: ContractKind
    settle: str
    listed_at: UtcTime | None
    expires_at: UtcTime | None = Field(description="On a perpetual: delisting is announced.")
    market_stage: str | None
    market_type: str | None
    specification: SpecificationOut
    specification_history: list[SpecificationOut] = Field(description="Oldest first.")
    score: ScoreOut | None = Field(description="Its line on the newest board; null before one.")

    @classmethod
    def of(
        cls,
        moment: MarketMoment,
        source: DataSource,
        row: SymbolRow,
        versions: tuple[SpecificationVersion, ...],
        board: Board | None,
    ) -> Self:
        contract: Contract = row.entry.contract
        history = [SpecificationOut.of(one) for one in versions]
        card = None if board is None else board.card(row.entry.symbol)
        return cls(
            symbol=SymbolOut.of(row),
            kind=contract.kind,
            settle=contract.settle,
            listed_at=instant_of(contract.listed_ms),
            expires_at=instant_of(contract.expires_ms),
            market_stage=contract.market_stage,
            market_type=contract.market_type,
            specification=history[-1],
            specification_history=history,
            score=None if board is None or card is None else ScoreOut.of(board, card, card.rank),
            **fresh(moment, source),
        )


@router.get("/{symbol}", summary="One symbol", responses=problems(*_SYMBOL))
async def symbol_detail(
    members: Provided[PortfolioMembers],
    registry: Provided[Registry],
    market: Provided[MarketData],
    scoring: Provided[Scoring],
    symbol: SymbolPath,
) -> SymbolDetailOut:
    """Contract, specifications with their validity, newest score, membership."""
    entry = registry.resolve(symbol)
    moment = market.moment()
    row = symbol_row(moment, entry, await members.symbols(), moment.funnel().excluded)
    versions = await specifications(registry, entry)
    return SymbolDetailOut.of(moment, market.source, row, versions, scoring.latest())
