"""Routes of the sector table: list, edit, export and import of classifications."""

from typing import Annotated, Self

from fastapi import Path, Query
from pydantic import Field
from starlette.responses import Response

from app.foundation.errors import Code
from app.foundation.http.dependencies import CursorsDep, Provided, UnversionedDep, by
from app.foundation.http.errors import problems
from app.foundation.http.pagination import Page, after
from app.foundation.http.permissions import requires
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    DEFAULT_REASON,
    ChangeRequest,
    CursorText,
    Limit,
    Out,
    QueryFlag,
    SearchText,
    example,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role
from app.market.domain.sectors import AssetClass, CapCategory, Classification, SectorChange
from app.market.services.sectors import SectorEdit, SectorRow, SectorService, SectorUpdate

router = api_router("sectors", "/sectors")
_CHANGES = (Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)
BasePath = Annotated[str, Path(description="Base coin in standard spelling.", examples=["BTC"])]


class ClassificationOut(Out):
    """Classification of a base coin."""

    asset_class: AssetClass = Field(description="Kind of asset; only coins are scored.")
    sector: str = Field(
        description="`unclassified` is a sector of its own in every limit.", examples=["layer1"]
    )
    cap_category: CapCategory = Field(
        description="Market capitalisation: large above 10 G USD, mid 1 G, small 100 M, or micro."
    )

    @classmethod
    def of(cls, one: Classification) -> Self:
        return cls.model_validate(one)


class SectorOut(ClassificationOut):
    """Base coin with its classification."""

    base: str = Field(description="Base coin.", examples=["BTC"])
    is_edited: bool = Field(description="True if it differs from the shipped table by an edit.")
    symbols: list[str] = Field(description="Known contracts of the coin.", examples=[["BTCUSDT"]])

    @classmethod
    def of_row(cls, row: SectorRow) -> Self:
        one = row.classification
        return cls(
            base=row.base,
            asset_class=one.asset_class,
            sector=one.sector,
            cap_category=one.cap_category,
            is_edited=row.is_edited,
            symbols=list(row.symbols),
        )


class SectorPage(Page[SectorOut]):
    """Page of the sector table, by base coin."""

    version: int = Field(description="Number of changes of the table.")


@router.get("", summary="Sectors of all coins")
@requires(Role.VIEWER)
async def list_sectors(
    sectors: Provided[SectorService],
    cursors: CursorsDep,
    sector: SearchText = None,
    search: SearchText = None,
    edited: Annotated[QueryFlag | None, Query(description="Only edited coins, or none.")] = None,
    listed: Annotated[
        QueryFlag | None, Query(description="Only coins with known contracts, or none.")
    ] = None,
    limit: Limit = 100,
    cursor: CursorText = None,
) -> SectorPage:
    """Coins of the table, and coins of known contracts that the table lacks.

    These are `unclassified`: coins without a sector share one limit.
    """
    chosen = {"sector": sector, "search": search, "edited": edited, "listed": listed}
    text = None if search is None else search.casefold()
    rows = [
        row
        for row in sectors.rows()
        if sector in (None, row.classification.sector)
        and (text is None or text in row.base.casefold())
        and edited in (None, row.is_edited)
        and listed in (None, bool(row.symbols))
    ]
    start = cursors.decode("sectors", chosen, cursor)
    page, last = after(rows, limit, lambda row: (row.base,), start)
    return SectorPage(
        items=[SectorOut.of_row(row) for row in page],
        next_cursor=None if last is None else cursors.encode("sectors", chosen, last),
        version=sectors.version,
    )


class SectorIn(ChangeRequest):
    """Classification of a coin; omitted parts keep their values."""

    model_config = example({"sector": "layer1", "cap_category": "mid", "reason": "new listing"})

    sector: str = Field(
        description="Lower-case letters, digits and underscores.",
        examples=["layer1"],
        pattern="^[a-z][a-z0-9_]{0,63}$",
    )
    asset_class: AssetClass | None = Field(None, description="Only coins are scored.", strict=False)
    cap_category: CapCategory | None = Field(
        None, description="Order of magnitude of the market capitalisation.", strict=False
    )


class SectorChangeOut(Out):
    """Change of one coin; `after` is null for a return to the default."""

    base: str = Field(description="Base coin.")
    before: ClassificationOut = Field(description="Classification before the change.")
    after: ClassificationOut | None = Field(
        description="Classification after it; null for the default."
    )

    @classmethod
    def of(cls, change: SectorChange) -> Self:
        after = None if change.after is None else ClassificationOut.of(change.after)
        return cls(base=change.base, before=ClassificationOut.of(change.before), after=after)


class SectorUpdateOut(Out):
    """Result of a change; without an effect it creates no version."""

    version: int = Field(description="Version of the table after the change.")
    changes: list[SectorChangeOut] = Field(description="Coins that changed, by base.")

    @classmethod
    def of(cls, done: SectorUpdate) -> Self:
        return cls(version=done.version, changes=[SectorChangeOut.of(one) for one in done.changes])


def _render(done: SectorUpdate) -> StoredResponse:
    return keep(SectorUpdateOut.of(done))


class SectorTableOut(Out):
    """Sector table as CSV."""

    version: int = Field(description="Number of changes of the table.")
    csv: str = Field(description="Header base,asset_class,sector,cap_category; one coin a line.")


class SectorImportIn(ChangeRequest):
    """Sector table as CSV."""

    model_config = example({"csv": "base,asset_class,sector,cap_category\nBTC,coin,layer1,large\n"})

    csv: str = Field(
        description="As exported: a header, then one coin a line; # begins a comment line.",
        min_length=1,
        max_length=60_000,
    )
    resets_missing: bool = Field(
        False, description="Edited coins that the table lacks return to their defaults."
    )


@router.get("/export", summary="Sector table as CSV")
@requires(Role.VIEWER)
async def get_sector_table(sectors: Provided[SectorService]) -> SectorTableOut:
    """The table in force, with the columns of the import."""
    return SectorTableOut(version=sectors.version, csv=sectors.export())


@router.post(
    "/import",
    summary="Import a sector table",
    response_model=SectorUpdateOut,
    responses=problems(Code.VALIDATION_FAILED, *_CHANGES),
)
@requires(Role.OPERATOR)
async def import_sectors(
    sectors: Provided[SectorService], command: UnversionedDep, body: SectorImportIn
) -> Response:
    """Changes all coins of the table at once; a wrong line is named, and nothing is applied."""
    done = await sectors.import_table(
        body.csv,
        body.reason or DEFAULT_REASON,
        by(command, body.user),
        _render,
        resets_missing=body.resets_missing,
    )
    return sent(done)


@router.put(
    "/{base}",
    summary="Classify a coin",
    response_model=SectorUpdateOut,
    responses=problems(Code.VALIDATION_FAILED, *_CHANGES),
)
@requires(Role.OPERATOR)
async def set_sector(
    sectors: Provided[SectorService], command: UnversionedDep, base: BasePath, body: SectorIn
) -> Response:
    """Changes the classification, which the next decision reads; the audit log has both."""
    edit = SectorEdit(body.sector, body.asset_class, body.cap_category)
    reason = body.reason or DEFAULT_REASON
    return sent(await sectors.set_sector(base, edit, reason, by(command, body.user), _render))


@router.delete(
    "/{base}",
    summary="Return a coin to its default",
    response_model=SectorUpdateOut,
    responses=problems(Code.NOT_FOUND, *_CHANGES),
)
@requires(Role.OPERATOR)
async def delete_sector(
    sectors: Provided[SectorService], command: UnversionedDep, base: BasePath
) -> Response:
    """Removes the edit of a coin; its classification is that of the shipped table again."""
    return sent(await sectors.reset(base, DEFAULT_REASON, command, _render))
