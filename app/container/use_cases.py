"""State of requests: the face of the service, and its use cases by type for the routes."""

from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from fastapi import Request

from app.configuration.services.changes import ConfigurationChanges
from app.foundation.http.dependencies import USE_CASES, UseCases
from app.market.services.ports import PortfolioMembers
from app.my_symbols import MySymbolsServiceV2
from app.portfolio.services.membership import PortfolioService

MY_SYMBOLS = "my_symbols"


async def get_my_symbols_service(request: Request) -> MySymbolsServiceV2:
    """Dependency of FastAPI for embedding code: the face of the service that answers."""
    service: MySymbolsServiceV2 = getattr(request.state, MY_SYMBOLS)
    return service


@dataclass(frozen=True, slots=True)
class _Members:
    portfolio: PortfolioService

    async def symbols(self) -> frozenset[str]:
        shown = await self.portfolio.view()
        return frozenset(member.symbol for member in shown.portfolio.members)


def state_of(service: MySymbolsServiceV2) -> dict[str, Any]:
    """State of the lifespan: the service, and each of its use cases by type."""
    kinds = get_type_hints(MySymbolsServiceV2)
    by_type: dict[type, object] = {
        kinds[one.name]: getattr(service, one.name) for one in fields(MySymbolsServiceV2)
    }
    by_type[ConfigurationChanges] = service.configuration
    by_type[PortfolioMembers] = _Members(service.portfolio)
    return {MY_SYMBOLS: service, USE_CASES: UseCases(by_type)}
