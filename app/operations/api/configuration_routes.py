"""Routes of the business configuration: read, change, list versions."""

from typing import Self

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from app.configuration.api.schemas import ConfigurationUpdate, ConfigurationView, to_view
from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.foundation.errors import Code, PreconditionFailedError
from app.foundation.http.dependencies import CommandDep, CursorsDep, Provided, by
from app.foundation.http.errors import problem_response, problems
from app.foundation.http.pagination import Page, cut
from app.foundation.http.permissions import requires
from app.foundation.http.responses import answer, etag, json_bytes, keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    CHANGES,
    DEFAULT_REASON,
    NAMES,
    CursorText,
    Json,
    Limit,
    Out,
    UtcTime,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role
from app.operations.services.configuration import ConfigurationService
from app.portfolio.domain.event_log import PortfolioEvent

router = api_router("configuration", "/configuration")


class ConfigurationChangeResult(Out):
    """Settings after a change, with warnings about unusual combinations."""

    configuration: ConfigurationView = Field(description="Settings after the change.")
    warnings: list[str] = Field(examples=[["cash_remainder_at_least: 60.000000"]])


class ConfigurationVersion(Out):
    """One version of the settings with its author, time and reason."""

    version: int = Field(description="Version number, from 1.")
    created_at: UtcTime
    created_by: str
    reason: str
    request_id: str
    settings: Json = Field(description="The whole document; numbers with fractions as text.")

    @classmethod
    def from_event(cls, event: PortfolioEvent) -> Self:
        return cls(
            version=event.payload["configuration_version"],
            created_at=event.occurred_at,
            created_by=event.actor,
            reason=event.reason,
            request_id=event.request_id,
            settings=event.payload["settings"],
        )


@router.get("", summary="Current settings", response_model=ConfigurationView)
@requires(Role.VIEWER)
async def get_configuration(configuration: Provided[ConfigurationService]) -> Response:
    """Weights, thresholds, limits and intervals. The ETag is the version."""
    settings = await configuration.current()
    return answer(json_bytes(to_view(settings)), headers={"ETag": etag(settings.version)})


@router.put(
    "",
    summary="Change the settings as a whole",
    response_model=ConfigurationChangeResult,
    responses=problems(
        Code.CONSTRAINTS_INFEASIBLE,
        Code.PORTFOLIO_EXCEEDS_LIMIT,
        Code.REBALANCE_IN_PROGRESS,
        Code.MARKET_DATA_STALE,
        Code.NO_BOARD_YET,
        Code.CLOCK_UNSAFE,
        *NAMES,
        *CHANGES,
    ),
)
@requires(Role.ADMIN)
async def replace_configuration(
    request: Request,
    configuration: Provided[ConfigurationService],
    command: CommandDep,
    body: ConfigurationUpdate,
) -> Response:
    """Change settings: all are validated together and take effect as the next version.

    `If-Match` is the version of the configuration. An empty change creates no version.
    """
    if body.version is not None and command.if_match not in {None, body.version}:
        raise PreconditionFailedError(
            Code.PRECONDITION_FAILED, "The body and If-Match name different versions."
        )

    def render(settings: Configuration) -> StoredResponse:
        shown = ConfigurationChangeResult(
            configuration=to_view(settings), warnings=list(settings.warnings())
        )
        return keep(shown, headers={"ETag": etag(settings.version)})

    who = by(command.on_version(body.version), body.user)
    reason = body.reason or DEFAULT_REASON
    try:
        done = await configuration.put(
            body.changes(), reason, who, render, evict_lowest=body.evict_lowest
        )
    except ConfigurationRefusedError as refused:
        errors = [(("body", *one.loc.split(".")), one.type) for one in refused.complaints]
        return problem_response(request, 422, refused.code, refused.detail, errors=errors)
    return sent(done)


@router.get("/history", summary="Versions of the settings")
@requires(Role.VIEWER)
async def list_configuration_versions(
    configuration: Provided[ConfigurationService],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ConfigurationVersion]:
    """Versions, newest first; version 1 holds the defaults and has no entry."""
    start = cursors.decode("configuration_history", {}, cursor)
    before = None if start is None else int(start[0])
    events = await configuration.history(before, limit + 1)
    page, last = cut(events, limit, lambda event: (event.seq,))
    return Page(
        items=[ConfigurationVersion.from_event(event) for event in page],
        next_cursor=None if last is None else cursors.encode("configuration_history", {}, last),
    )
