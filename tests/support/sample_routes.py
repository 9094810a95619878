"""Routes that use every reusable piece, for testing the pieces rather than the product."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from app.foundation.errors import (
    BadResponseError,
    Code,
    ConflictError,
    ExchangeTimeoutError,
    NotFoundError,
    PreconditionFailedError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.foundation.http.dependencies import (
    CursorsDep,
    IdempotencyDep,
    IfMatchDep,
    IfNoneMatchDep,
    RequestIdDep,
    holds,
)
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, after
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, DecimalIn, ReasonText, SymbolText
from app.foundation.http.responses import etag, not_modified
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CursorText,
    Json,
    Limit,
    MoneyString,
    Out,
    Percent,
    QueryDecimal,
    QueryFlag,
    QueryTime,
    SymbolPath,
    TimeIn,
    UtcTime,
    percent,
)
from app.foundation.principals import Role


class Order(Body):
    """A body with one field of each kind."""

    symbol: SymbolText
    reason: ReasonText | None = None
    amount: DecimalIn | None = None
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    lots: Annotated[int, Field(ge=0, le=100)] = 1
    firm: bool = True
    at: TimeIn | None = None


class Optional(Body):
    symbol: SymbolText | None = None


class Echo(Out):
    symbol: str
    amount: MoneyString | None
    weight: float
    weight_percentage: Percent
    at: UtcTime | None
    details: Json


class Item(Out):
    name: str


ITEMS = tuple(Item(name=f"item-{number:03d}") for number in range(25))
ERRORS: dict[str, ServiceError] = {
    "missing": NotFoundError(Code.NOT_FOUND, "not there"),
    "conflict": ConflictError(Code.PORTFOLIO_FULL, "full", facts={"most": "10"}),
    "precondition": PreconditionFailedError(Code.PRECONDITION_FAILED, "old"),
    "refused": RefusedError(Code.SYMBOL_UNKNOWN, "unknown"),
    "unavailable": UnavailableError(Code.MARKET_DATA_STALE, "stale", retry_after_s=2.2),
    "unavailable-quietly": UnavailableError(Code.NO_BOARD_YET, "not yet"),
    "bad-response": BadResponseError(Code.EXCHANGE_BAD_RESPONSE, "nonsense"),
    "timeout": ExchangeTimeoutError(Code.EXCHANGE_TIMEOUT, "silence"),
    "forging-facts": ConflictError(Code.PORTFOLIO_FULL, "full", facts={"status": "200"}),
}


def sample_router() -> APIRouter:  # noqa: C901 - one router, many one-line routes
    """A fresh router, so that no test shares one."""
    router = api_router("portfolio", prefix="/samples")

    @router.post("/orders", summary="Take an order", status_code=201)
    @requires(Role.VIEWER)
    async def take(request: Request, body: Order, idempotency: IdempotencyDep) -> Echo:
        request.state.effects.append(body.symbol)
        details = {"fingerprint": idempotency.fingerprint if idempotency else None}
        return Echo(
            symbol=body.symbol,
            amount=body.amount,
            weight=body.weight,
            weight_percentage=percent(33_333_333),
            at=body.at,
            details=details,
        )

    @router.get("/orders", summary="What was taken")
    @requires(Role.VIEWER)
    async def taken(request: Request) -> Echo:
        return _echo(",".join(request.state.effects))

    @router.post("/optional", summary="A body that may be left out")
    @requires(Role.VIEWER)
    async def optional(body: Optional | None = None) -> Echo:
        return _echo("none" if body is None else str(body.symbol))

    @router.post("/bare", summary="No body at all")
    @requires(Role.VIEWER)
    async def bare() -> Echo:
        return _echo("bare")

    @router.get("/items", summary="A list")
    @requires(Role.VIEWER)
    async def items(
        cursors: CursorsDep, limit: Limit = 10, cursor: CursorText = None, prefix: str = "item"
    ) -> Page[Item]:
        chosen = {"prefix": prefix}
        start = cursors.decode("items", chosen, cursor)
        rows = [item for item in ITEMS if item.name.startswith(prefix)]
        page, rest = after(rows, limit, lambda item: (item.name,), start)
        following = None if rest is None else cursors.encode("items", chosen, rest)
        return Page[Item](items=list(page), next_cursor=following)

    @router.get("/symbols/{symbol}", summary="One symbol", responses=problems(Code.NO_BOARD_YET))
    @requires(Role.VIEWER)
    async def symbol(
        symbol: SymbolPath,
        amount: QueryDecimal | None = None,
        firm: QueryFlag = False,
        since: QueryTime | None = None,
    ) -> Echo:
        del firm
        return _echo(symbol, amount=amount, at=since)

    @router.get("/numbers/{number}", summary="A number in the path")
    @requires(Role.VIEWER)
    async def number(number: int) -> Echo:
        return _echo(str(number))

    @router.put("/versioned", summary="Change what has a version")
    @requires(Role.VIEWER)
    async def change(body: Optional, version: IfMatchDep, request_id: RequestIdDep) -> Echo:
        return _echo(str(version), details={"request_id": request_id, "symbol": body.symbol})

    @router.get("/versioned", summary="Read what has a version")
    @requires(Role.VIEWER)
    async def read(response: Response, tags: IfNoneMatchDep) -> Echo:
        tag = etag(12)
        if holds(tags, tag):
            return not_modified(tag)  # type: ignore[return-value]  # FastAPI passes answers on
        response.headers["ETag"] = tag
        return _echo("version 12")

    @router.get("/errors/{name}", summary="Fail in a known way")
    @requires(Role.VIEWER)
    async def fail(name: str) -> Echo:
        raise ERRORS[name]

    @router.get("/crash", summary="Fail in an unknown way")
    @requires(Role.VIEWER)
    async def crash() -> Echo:
        raise RuntimeError("SELECT secret FROM /srv/app/place.py")

    @router.get("/infinite/{way}", summary="Try to say infinity")
    @requires(Role.VIEWER)
    async def infinite(way: str) -> Echo:
        bad = float("inf") if way != "nan" else float("nan")
        if way == "free":
            return _echo("x", details={"deep": [{"er": bad}]})
        return _echo("x", weight=bad)

    @router.get("/naive", summary="Try to say a time without a zone")
    @requires(Role.VIEWER)
    async def naive(request: Request) -> Echo:
        del request
        return _echo("x", at=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point

    return router


def _echo(
    symbol: str,
    *,
    amount: Decimal | None = None,
    at: datetime | None = None,
    weight: float = 0.5,
    details: Any = None,
) -> Echo:
    return Echo(
        symbol=symbol,
        amount=amount,
        weight=weight,
        weight_percentage=percent(5_000_000),
        at=at,
        details=details,
    )


NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
