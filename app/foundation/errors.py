"""Domain errors, each with a stable code; independent of HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Code(StrEnum):
    """Error codes of the public contract: codes are added, never renamed."""

    MALFORMED_JSON = "malformed_json"
    INVALID_UTF8 = "invalid_utf8"
    DUPLICATE_JSON_KEY = "duplicate_json_key"
    NON_FINITE_NUMBER = "non_finite_number"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    INVALID_STRING = "invalid_string"
    JSON_TOO_DEEP = "json_too_deep"
    BAD_REQUEST = "bad_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    CSRF_REFUSED = "csrf_refused"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    HOST_NOT_ALLOWED = "host_not_allowed"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    URI_TOO_LONG = "uri_too_long"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    HEADERS_TOO_LARGE = "headers_too_large"
    VALIDATION_FAILED = "validation_failed"
    TIMEZONE_REQUIRED = "timezone_required"
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    PRECONDITION_FAILED = "precondition_failed"
    PRECONDITION_REQUIRED = "precondition_required"
    REBALANCE_IN_PROGRESS = "rebalance_in_progress"
    PORTFOLIO_FULL = "portfolio_full"
    PORTFOLIO_NOT_EMPTY = "portfolio_not_empty"
    PORTFOLIO_EXCEEDS_LIMIT = "portfolio_exceeds_limit"
    SYMBOL_ALREADY_IN_PORTFOLIO = "symbol_already_in_portfolio"
    SYMBOL_NOT_IN_PORTFOLIO = "symbol_not_in_portfolio"
    SYMBOL_BANNED = "symbol_banned"
    ALERT_STATE = "alert_state"
    SYMBOL_PINNED = "symbol_pinned"
    TRADING_DISABLED = "trading_disabled"
    INVALID_STATE_TRANSITION = "invalid_state_transition"
    TRADE_ID_REUSED = "trade_id_reused"
    SYMBOL_UNKNOWN = "symbol_unknown"
    SYMBOL_AMBIGUOUS = "symbol_ambiguous"
    SYMBOL_NOT_TRADABLE = "symbol_not_tradable"
    CORRELATION_LIMIT = "correlation_limit"
    SECTOR_LIMIT = "sector_limit"
    CONSTRAINTS_INFEASIBLE = "constraints_infeasible"
    VERSION_CONFLICT = "version_conflict"
    PLAN_CHANGED = "plan_changed"
    ALGORITHM_VERSION = "algorithm_version"
    FOUR_EYES = "four_eyes"
    SIGNAL_CONFLICT = "signal_conflict"
    SIGNAL_EXPIRED = "signal_expired"
    CHANNEL_NAME_TAKEN = "channel_name_taken"
    WEBHOOK_URL_FORBIDDEN = "webhook_url_forbidden"
    RECEIVER_UNAVAILABLE = "receiver_unavailable"
    SECRETS_KEY_MISSING = "secrets_key_missing"
    KEY_NAME_TAKEN = "key_name_taken"
    USER_NAME_TAKEN = "user_name_taken"
    LAST_ADMIN = "last_admin"
    SANDBOX_ONLY = "sandbox_only"
    MARKET_DATA_STALE = "market_data_stale"
    CLOCK_UNSAFE = "clock_unsafe"
    ABORTED_INCONSISTENT = "aborted_inconsistent"
    NO_BOARD_YET = "no_board_yet"
    EXCHANGE_UNAVAILABLE = "exchange_unavailable"
    EXCHANGE_RATE_LIMITED = "exchange_rate_limited"
    EXCHANGE_BANNED = "exchange_banned"
    EXCHANGE_MAINTENANCE = "exchange_maintenance"
    EXCHANGE_BAD_RESPONSE = "exchange_bad_response"
    EXCHANGE_REDIRECTED = "exchange_redirected"
    EXCHANGE_REFUSED = "exchange_refused"
    EXCHANGE_TIMEOUT = "exchange_timeout"
    DATABASE_UNAVAILABLE = "database_unavailable"
    DATABASE_CONTENTION = "database_contention"
    STORAGE_FULL = "storage_full"
    HISTORY_TAMPERED = "history_tampered"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One fault of a request: path to the field, stable kind, and a sentence, without the value.

    The first part of `loc` is the part of the request; without one, the field is looked up by name.
    `received` is the kind of value that came, such as "string"; `bounds` are those of the field
    where its schema does not have them.
    """

    loc: tuple[str | int, ...]
    type: str
    message: str = ""
    received: str | None = None
    allowed: tuple[str, ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)  # as in JSON Schema


Fact = str | tuple[str, ...]  # a list is a list in the problem too


class ServiceError(Exception):
    """Domain error with a stable code and a sentence for people.

    `field` names the field of the command that is at fault. `subject` is the refused text itself,
    by which the field is found; it is never shown.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        retry_after_s: float | None = None,
        facts: Mapping[str, Fact] | None = None,
        field: str | None = None,
        subject: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.facts: Mapping[str, Fact] = MappingProxyType(dict(facts or {}))
        self.field = field
        self.subject = subject


class NotFoundError(ServiceError):
    """The requested object does not exist."""


class ConflictError(ServiceError):
    """The request is valid; the current state forbids it."""


class PreconditionFailedError(ServiceError):
    """The request was decided on a version that is no longer the current one."""


class RefusedError(ServiceError):
    """The request is invalid in every state: unknown symbol, broken rule, bad value."""


class RateLimitedError(ServiceError):
    """Requests exceed a rate limit; retry after `retry_after_s`."""


class UnavailableError(ServiceError):
    """A dependency or fresh data is unavailable; retry after `retry_after_s`."""


class OperatorActionError(UnavailableError):
    """Recovery needs an operator; a retry alone does not help."""


class CorruptDatabaseError(UnavailableError):
    """The database or its history is damaged; a backup must be restored."""


class BadResponseError(UnavailableError):
    """The exchange sent a response that cannot be parsed."""


class ExchangeTimeoutError(UnavailableError):
    """The exchange did not answer in time."""
