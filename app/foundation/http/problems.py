"""The problem document: its shape, the status of every code, and what routes declare of it."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.foundation.errors import (
    BadResponseError,
    Code,
    ConflictError,
    ExchangeTimeoutError,
    NotFoundError,
    PreconditionFailedError,
    RateLimitedError,
    RefusedError,
    ServiceError,
    UnavailableError,
)

PREFIX: Final = "/api/symbol-mgmt"
PROBLEM_JSON: Final = "application/problem+json"

# Subclasses stand before their parents: the first match decides.
STATUS_OF_CLASS: Final[tuple[tuple[type[ServiceError], int], ...]] = (
    (BadResponseError, 502),
    (ExchangeTimeoutError, 504),
    (UnavailableError, 503),
    (NotFoundError, 404),
    (ConflictError, 409),
    (PreconditionFailedError, 412),
    (RefusedError, 422),
    (RateLimitedError, 429),
)

# What the border itself refuses, before any use case is asked.
STATUS_OF_CODE: Final[Mapping[Code, int]] = {
    Code.MALFORMED_JSON: 400,
    Code.INVALID_UTF8: 400,
    Code.DUPLICATE_JSON_KEY: 400,
    Code.NON_FINITE_NUMBER: 400,
    Code.NUMBER_OUT_OF_RANGE: 400,
    Code.INVALID_STRING: 400,
    Code.JSON_TOO_DEEP: 400,
    Code.BAD_REQUEST: 400,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.PAYLOAD_TOO_LARGE: 413,
    Code.URI_TOO_LONG: 414,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.HOST_NOT_ALLOWED: 421,
    Code.VALIDATION_FAILED: 422,
    Code.TIMEZONE_REQUIRED: 422,
    Code.HEADERS_TOO_LARGE: 431,
    Code.INTERNAL_ERROR: 500,
}

Location = tuple[str | int, ...]


class BorderError(ServiceError):
    """The border refuses a request before any use case sees it; the code decides the status."""

    def __init__(
        self, code: Code, detail: str, *, errors: Sequence[tuple[Location, str]] = ()
    ) -> None:
        super().__init__(code, detail)
        self.errors = tuple(errors)


def invalid(place: str, name: str, kind: str, detail: str) -> BorderError:
    """A 422 about one named part of the request; `kind` is a stable word such as 'repeated'."""
    return BorderError(Code.VALIDATION_FAILED, detail, errors=[((place, name), kind)])


class FieldError(BaseModel):
    """Where the request is wrong, and how; never the value."""

    loc: list[str | int] = Field(examples=[["body", "symbol"]])
    type: str = Field(examples=["missing"])


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable, `detail` is for people."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:my-symbols:problem:portfolio_full"])
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    code: Literal[tuple(Code)] = Field(  # type: ignore[valid-type]  # made from the registry
        examples=["portfolio_full"]
    )
    detail: str = Field(examples=["The portfolio holds its maximum of 10 symbols."])
    instance: str = Field(examples=["/api/symbol-mgmt/portfolio/add-symbol"])
    request_id: str = Field(examples=["6f0b6c1e6d8e4a559f4b6f8f0b4f2a10"])
    retry_after_s: int | None = Field(None, examples=[None])
    errors: list[FieldError] | None = Field(None, examples=[None])


def problems(*codes: Code, also: Iterable[int] = ()) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route: `problems(Code.PORTFOLIO_FULL, Code.SYMBOL_UNKNOWN)`.

    The status of each code is the one that it usually has; `also` names further statuses.
    What every route can answer (422, 500 and so on) is added by the application.
    """
    table: dict[int, list[str]] = {status: [] for status in also}
    for code in codes:
        table.setdefault(USUAL_STATUS[code], []).append(code.value)
    return {
        status: {"description": describe(status, names)} for status, names in sorted(table.items())
    }


def describe(status: int, codes: Sequence[str]) -> str:
    """What an error response means: the HTTP phrase and the codes that it can carry."""
    names = ", ".join(f"`{name}`" for name in codes)
    return f"{phrase(status)}: {names}" if names else phrase(status)


_CONFLICTS: Final = (
    Code.IDEMPOTENCY_IN_PROGRESS,
    Code.REBALANCE_IN_PROGRESS,
    Code.PORTFOLIO_FULL,
    Code.PORTFOLIO_NOT_EMPTY,
    Code.PORTFOLIO_EXCEEDS_LIMIT,
    Code.SYMBOL_ALREADY_IN_PORTFOLIO,
    Code.SYMBOL_NOT_IN_PORTFOLIO,
    Code.SYMBOL_BANNED,
    Code.ALERT_STATE,
    Code.SYMBOL_PINNED,
    Code.TRADING_DISABLED,
    Code.INVALID_STATE_TRANSITION,
    Code.TRADE_ID_REUSED,
    Code.VERSION_CONFLICT,
    Code.PLAN_CHANGED,
    Code.SIGNAL_CONFLICT,
    Code.CHANNEL_NAME_TAKEN,
    Code.SECRETS_KEY_MISSING,
    Code.SANDBOX_ONLY,
)
_REFUSALS: Final = (
    Code.IDEMPOTENCY_KEY_REUSED,
    Code.SYMBOL_UNKNOWN,
    Code.SYMBOL_AMBIGUOUS,
    Code.SYMBOL_NOT_TRADABLE,
    Code.CORRELATION_LIMIT,
    Code.SECTOR_LIMIT,
    Code.CONSTRAINTS_INFEASIBLE,
    Code.EXCHANGE_REFUSED,
    Code.SIGNAL_EXPIRED,
    Code.WEBHOOK_URL_FORBIDDEN,
)
# For the documentation only: a live answer takes its status from the class of the error.
USUAL_STATUS: Final[Mapping[Code, int]] = {
    **dict.fromkeys(Code, 503),
    **dict.fromkeys(_CONFLICTS, 409),
    **dict.fromkeys(_REFUSALS, 422),
    Code.PRECONDITION_FAILED: 412,
    Code.RATE_LIMITED: 429,
    Code.EXCHANGE_BAD_RESPONSE: 502,
    Code.EXCHANGE_REDIRECTED: 502,
    Code.EXCHANGE_TIMEOUT: 504,
    **STATUS_OF_CODE,
}


# RFC 9110 words; the standard library changes its own between Python versions.
_PHRASES: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}


def phrase(status: int) -> str:
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
