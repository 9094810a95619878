"""Routes of the business configuration: read, change, list, compare and restore versions."""

from collections.abc import Awaitable
from typing import Annotated, Final

from fastapi import Query, Request
from pydantic import Field
from starlette.responses import Response

from app.configuration.api.schemas import (
    ConfigurationDocument,
    ConfigurationUpdate,
    ConfigurationView,
    RollbackRequest,
    to_view,
)
from app.configuration.domain.document import ConfigurationRefusedError
from app.configuration.domain.model import Configuration
from app.foundation.errors import Code, FieldFault, PreconditionFailedError
from app.foundation.http.dependencies import CommandDep, CursorsDep, Provided, by
from app.foundation.http.errors import RequestError, load_request_shape, problem_response, problems
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
    QueryInt,
    UtcTime,
)
from app.foundation.idempotency import Command, CommandResult, StoredResponse
from app.foundation.principals import Role
from app.operations.services.configuration import ConfigurationService

router = api_router("configuration", "/configuration")


class ConfigurationChangeResult(Out):
    """Settings after a change, with warnings about unusual combinations."""

    configuration: ConfigurationView = Field(description="Settings after the change.")
    warnings: list[str] = Field(examples=[["cash_remainder_at_least: 60.000000"]])


class SettingChangeView(Out):
    """One changed setting."""

    key: str = Field(description="Dotted path.", examples=["sizing.max_gross_leverage"])
    old: Json = Field(description="Null: that version has no such key.", examples=[3.0])
    new: Json = Field(description="Null: that version has no such key.", examples=[2.0])


class ConfigurationVersion(Out):
    """One version of the settings with its author, time, reason and changes."""

    version: int = Field(description="Version number, from 1.")
    created_at: UtcTime
    created_by: str
    reason: str | None = Field(description="Null for the defaults of the first start.")
    request_id: str | None
    settings: Json = Field(
        description="The whole document in the types of `GET /configuration`, with the settings"
        " that existed then."
    )
    changes: list[SettingChangeView] = Field(
        description="Changes to the version before; empty for the first version."
    )


class ConfigurationDifference(Out):
    """Changes between two versions of the settings."""

    from_version: int = Field(description="Version that is compared.")
    to_version: int = Field(description="Version that it is compared with.")
    changes: list[SettingChangeView] = Field(description="Settings that differ, by their path.")


@router.get("", summary="Current settings", response_model=ConfigurationView)
@requires(Role.VIEWER)
async def get_configuration(configuration: Provided[ConfigurationService]) -> Response:
    """Weights, thresholds, limits and intervals. The ETag is the version."""
    settings = await configuration.current()
    return answer(json_bytes(to_view(settings)), headers={"ETag": etag(settings.version)})


_CHANGE: Final = (
    Code.CONSTRAINTS_INFEASIBLE,
    Code.PORTFOLIO_EXCEEDS_LIMIT,
    Code.REBALANCE_IN_PROGRESS,
    Code.MARKET_DATA_STALE,
    Code.NO_BOARD_YET,
    Code.CLOCK_UNSAFE,
    *NAMES,
    *CHANGES,
)


@router.patch(
    "",
    summary="Change some settings",
    response_model=ConfigurationChangeResult,
    responses=problems(*_CHANGE),
)
@requires(Role.ADMIN)
async def update_configuration(
    request: Request,
    configuration: Provided[ConfigurationService],
    command: CommandDep,
    body: ConfigurationUpdate,
) -> Response:
    """Change settings: all are validated together and take effect as the next version.

    Omitted settings keep their value; a map whose keys are chosen freely is replaced as a whole.
    `If-Match` is the version of the configuration. An empty change creates no version.
    """
    _require_one_version(command, body.version)
    who = by(command.on_version(body.version), body.user)
    change = configuration.put(
        body.changes(),
        body.reason or DEFAULT_REASON,
        who,
        _render,
        evict_lowest=body.evict_lowest,
    )
    return await _sent(request, change)


@router.put(
    "",
    summary="Replace the settings as a whole",
    response_model=ConfigurationChangeResult,
    responses=problems(Code.PRECONDITION_REQUIRED, *_CHANGE),
)
@requires(Role.ADMIN)
async def replace_configuration(
    request: Request,
    configuration: Provided[ConfigurationService],
    command: CommandDep,
    body: ConfigurationDocument,
) -> Response:
    """Replace the whole document; a missing key is refused and never takes its default.

    `If-Match` with the version of the document that was read is required, so that no change in
    between is lost. An unchanged document creates no version.
    """
    if command.if_match is None:
        raise RequestError(
            Code.PRECONDITION_REQUIRED,
            'If-Match is required: the ETag of GET /configuration, such as "12".',
            errors=[FieldFault(("header", "If-Match"), "missing", received="nothing")],
        )
    _require_one_version(command, body.version)
    change = configuration.replace(
        body.changes(),
        body.reason or DEFAULT_REASON,
        by(command, body.user),
        _render,
        evict_lowest=body.evict_lowest,
    )
    return await _sent(request, change)


@router.post(
    "/rollback",
    summary="Return to the settings of an older version",
    response_model=ConfigurationChangeResult,
    responses=problems(Code.NOT_FOUND, *_CHANGE),
)
@requires(Role.ADMIN)
async def roll_back_configuration(
    request: Request,
    configuration: Provided[ConfigurationService],
    command: CommandDep,
    body: RollbackRequest,
) -> Response:
    """Make a new version with the settings of an older one, validated by today's rules.

    `If-Match` is the current version of the configuration. Equal settings create no version.
    """
    change = configuration.roll_back(
        body.version,
        body.reason or f"rollback to version {body.version}",
        by(command, body.user),
        _render,
        evict_lowest=body.evict_lowest,
    )
    return await _sent(request, change)


@router.get("/history", summary="Versions of the settings")
@requires(Role.VIEWER)
async def list_configuration_versions(
    configuration: Provided[ConfigurationService],
    cursors: CursorsDep,
    limit: Limit = 50,
    cursor: CursorText = None,
) -> Page[ConfigurationVersion]:
    """Versions with their changes, newest first; version 1 holds the defaults."""
    start = cursors.decode("configuration_history", {}, cursor)
    before = None if start is None else int(start[0])
    versions = await configuration.history(before, limit + 1)
    page, last = cut(versions, limit, lambda one: (one.version,))
    return Page(
        items=[ConfigurationVersion.model_validate(one) for one in page],
        next_cursor=None if last is None else cursors.encode("configuration_history", {}, last),
    )


@router.get(
    "/diff",
    summary="Changes between two versions of the settings",
    responses=problems(Code.NOT_FOUND),
)
@requires(Role.VIEWER)
async def get_configuration_difference(
    configuration: Provided[ConfigurationService],
    from_version: Annotated[QueryInt, Query(alias="from", ge=1, description="Older version.")],
    to_version: Annotated[QueryInt, Query(alias="to", ge=1, description="Newer version.")],
) -> ConfigurationDifference:
    """Settings that differ between two versions, in order of their path."""
    changes = await configuration.compare(from_version, to_version)
    return ConfigurationDifference(
        from_version=from_version,
        to_version=to_version,
        changes=[SettingChangeView.model_validate(one) for one in changes],
    )


def _require_one_version(command: Command, version: int | None) -> None:
    if version is not None and command.if_match not in {None, version}:
        raise PreconditionFailedError(
            Code.PRECONDITION_FAILED, "The body and If-Match name different versions."
        )


def _render(settings: Configuration) -> StoredResponse:
    shown = ConfigurationChangeResult(
        configuration=to_view(settings), warnings=list(settings.warnings())
    )
    return keep(shown, headers={"ETag": etag(settings.version)})


async def _sent(request: Request, change: Awaitable[CommandResult[Configuration]]) -> Response:
    """Carries out a change; every invalid setting becomes an error with its location."""
    try:
        done = await change
    except ConfigurationRefusedError as refused:
        errors = [
            FieldFault(("body", *one.loc.split(".")), one.type, one.message)
            for one in refused.complaints
        ]
        await load_request_shape(request)
        return problem_response(request, 422, refused.code, refused.detail, errors=errors)
    return sent(done)
