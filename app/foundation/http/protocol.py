"""Names of the HTTP interface that server and clients share: prefix, headers, statuses."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from app.foundation.errors import Code

PREFIX: Final = "/api/symbol-mgmt"
ENCODED_SLASH: Final = "\x1f"  # stands for a %2F inside a path segment


PROBLEM_JSON: Final = "application/problem+json"


# Errors of the HTTP layer itself, raised before any use case.
STATUS_OF_CODE: Final[Mapping[Code, int]] = {
    Code.MALFORMED_JSON: 400,
    Code.INVALID_UTF8: 400,
    Code.DUPLICATE_JSON_KEY: 400,
    Code.NON_FINITE_NUMBER: 400,
    Code.NUMBER_OUT_OF_RANGE: 400,
    Code.INVALID_STRING: 400,
    Code.JSON_TOO_DEEP: 400,
    Code.BAD_REQUEST: 400,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.CSRF_REFUSED: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.NOT_ACCEPTABLE: 406,
    Code.PAYLOAD_TOO_LARGE: 413,
    Code.URI_TOO_LONG: 414,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.HOST_NOT_ALLOWED: 421,
    Code.VALIDATION_FAILED: 422,
    Code.TIMEZONE_REQUIRED: 422,
    Code.PRECONDITION_REQUIRED: 428,
    Code.HEADERS_TOO_LARGE: 431,
    Code.INTERNAL_ERROR: 500,
}


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
    Code.ALGORITHM_VERSION,
    Code.FOUR_EYES,
    Code.SIGNAL_CONFLICT,
    Code.CHANNEL_NAME_TAKEN,
    Code.SECRETS_KEY_MISSING,
    Code.KEY_NAME_TAKEN,
    Code.USER_NAME_TAKEN,
    Code.LAST_ADMIN,
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


# For the documentation only: the class of an error decides the status of a response.
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


# RFC 9110 phrases; the standard library changes its own between Python versions.
_PHRASES: Final = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}


def phrase(status: int) -> str:
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


MODE: Final = b"x-service-mode"
