"""HTTP types that several routes share: exact percent, money as text, UTC times, freshness."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Self

from fastapi import Path, Query
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.decision_log import DecisionReplay
from app.foundation.errors import Code, NotFoundError
from app.foundation.http.openapi_fields import UNIT
from app.foundation.http.protocol import ENCODED_SLASH
from app.foundation.http.request_body import Body, NameText, ReasonText, SymbolText

MAX_LIMIT: Final = 500


def one_of(**names: str | None) -> str:
    """Returns the one value that was given; raises PydanticCustomError for none or several."""
    given = [value for value in names.values() if value is not None]
    if len(given) != 1:
        fields = " and ".join(names)
        raise PydanticCustomError("one_of", "give exactly one of {fields}", {"fields": fields})
    return given[0]


def example(body: dict[str, Any]) -> ConfigDict:
    """Returns the configuration of a request body whose document shows this example."""
    return ConfigDict(json_schema_extra={"examples": [body]})


PERCENT_DIGITS: Final = 6
SIGNIFICANT_DIGITS: Final = 12  # 30 rounded contributions still add up to their sum within 1e-10
INDEX_DIGITS: Final = 12  # decimals of an amount of the index in a response
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})", re.ASCII)
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?", re.ASCII)
_DECIMAL_TEXT: Final = r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?$"  # the same, for documents
_SEGMENT: Final = re.compile(r"[\x20-\x7e]{1,64}", re.ASCII)


class Out(BaseModel):
    """Base of response models: frozen, closed, finite."""

    # An infinity fails here (allow_inf_nan, and Json for free-form parts) or, for an unvalidated
    # model, at rendering; pydantic's default would write null without an error.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        from_attributes=True,
        ser_json_inf_nan="constants",
    )


def percent(micro_percent: int) -> float:
    """Converts micro-percent to per cent; the shortest spelling has the exact 6 decimals."""
    return micro_percent / 10**PERCENT_DIGITS


def finite(value: float | None) -> float | None:
    """Returns a number for JSON: NaN (unknown) becomes None. Raises ValueError for infinity."""
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        raise ValueError("an infinite number must not leave the service")
    return value


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time without zone must not leave the service")
    return value.astimezone(UTC)


def _plain(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError("an infinite amount must not leave the service")
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _plain_index(value: Decimal) -> str:
    return _plain(round(value, INDEX_DIGITS) if value.is_finite() else value)


_PLAIN: Final = PlainSerializer(_plain, return_type=str)
_INDEX: Final = PlainSerializer(_plain_index, return_type=str)


def decimal_unit(name: str) -> WithJsonSchema:
    """Returns the schema of a decimal string with its unit, for a number type."""
    shape = {"type": "string", "examples": ["1234.5"], UNIT: name}
    return WithJsonSchema(shape, mode="serialization")


def significant(value: float) -> float:
    """Rounds a number to the digits that a response shows; NaN and infinity stay as they are."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def unit(name: str) -> Any:
    """Returns the annotation of a number type that puts its unit into the OpenAPI document."""
    return Field(json_schema_extra={UNIT: name})


def _integer(value: object) -> object:
    """Converts query text to int by plain ASCII digits; passes other values."""
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            raise PydanticCustomError("int_parsing", "not a whole number in plain digits")
        return int(value)
    return value


def _amount(value: object) -> object:
    if isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise PydanticCustomError("decimal_parsing", "not a decimal number in plain digits")
        return Decimal(value)
    return value


def _flag(value: object) -> object:
    if isinstance(value, str):
        if value not in {"true", "false"}:
            raise PydanticCustomError("bool_parsing", "true or false")
        return value == "true"
    return value


def _zoned(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise PydanticCustomError(Code.TIMEZONE_REQUIRED.value, "give a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_parsing", "not an ISO 8601 time") from None


_ISO: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
    r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.ASCII,
)


def _iso(value: object) -> object:
    # pydantic would read numbers as epoch seconds or milliseconds by a guess.
    if isinstance(value, str):
        if not _ISO.fullmatch(value):
            raise PydanticCustomError("datetime_parsing", "not an ISO 8601 time")
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise PydanticCustomError("datetime_parsing", "not an ISO 8601 time") from None
    return value


def _segment(value: object) -> object:
    """Decodes path text; raises NotFoundError for text that no identifier can have."""
    if not isinstance(value, str):
        return value
    text = value.replace(ENCODED_SLASH, "/")
    if not _SEGMENT.fullmatch(text):
        raise NotFoundError(Code.NOT_FOUND, "There is nothing at this address.")
    return text


def _spelling(value: object) -> object:
    """Decodes path text as a spelling; the registry refuses letters of other scripts later."""
    if not isinstance(value, str):
        return value
    _segment("".join("x" if one.isalpha() else one for one in value))
    return value.replace(ENCODED_SLASH, "/")


def _finite_tree(value: Any) -> Any:
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, float) and not math.isfinite(part):
            raise ValueError("an infinite number must not leave the service")
        if isinstance(part, Mapping):
            pending.extend(part.values())
        elif isinstance(part, list | tuple):
            pending.extend(part)
    return value


def _rounded_tree(value: Any) -> Any:
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, Mapping):
        return {name: _rounded_tree(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded_tree(part) for part in value]
    return value


# --- out
Json = Annotated[Any, AfterValidator(_finite_tree)]  # free-form parts, such as supporting_data
UtcTime = Annotated[datetime, AfterValidator(_utc)]
# Each number has one of these types: its unit is in the document, its form is the same everywhere.
# A float has at most 12 significant digits, a decimal string no zeros at its end.
MoneyString = Annotated[Decimal, _PLAIN, decimal_unit("settlement currency")]
Money = MoneyString
Price = Annotated[Decimal, _PLAIN, decimal_unit("quote currency")]
Quantity = Annotated[Decimal, _PLAIN, decimal_unit("base coins")]
ShareString = Annotated[Decimal, _PLAIN, decimal_unit("fraction")]
IndexUnits = Annotated[Decimal, _INDEX, decimal_unit("index units")]
LedgerUnits = Annotated[Decimal, _PLAIN, decimal_unit("unit of the ledger")]
BasisPointString = Annotated[Decimal, _PLAIN, decimal_unit("basis points")]
RatioString = Annotated[Decimal, _PLAIN, decimal_unit("ratio")]
RawString = Annotated[Decimal, _PLAIN, decimal_unit("as stated")]
# Free-form parts with numbers for people; a part of a hash chain stays exact (Json).
RoundedJson = Annotated[Any, AfterValidator(_finite_tree), PlainSerializer(_rounded_tree)]
# The constraints of a float stay in its schema: its serializer declares no return type.
_ROUNDED: Final = PlainSerializer(significant, when_used="json-unless-none")
Percent = Annotated[float, Field(ge=-100, le=100), unit("per cent")]
PercentPoints = Annotated[float, _ROUNDED, unit("percentage points")]
Share = Annotated[float, _ROUNDED, unit("fraction")]
Score = Annotated[float, _ROUNDED, Field(ge=0, le=1), unit("score")]
Difference = Annotated[float, _ROUNDED, unit("score")]
Correlation = Annotated[float, _ROUNDED, unit("correlation")]
Ratio = Annotated[float, _ROUNDED, unit("ratio")]
ZScore = Annotated[float, _ROUNDED, unit("standard deviations")]
BasisPoints = Annotated[float, _ROUNDED, unit("basis points")]
Seconds = Annotated[float, _ROUNDED, unit("seconds")]
Milliseconds = Annotated[float, _ROUNDED, unit("milliseconds")]
QuoteAmount = Annotated[float, _ROUNDED, unit("quote currency")]
Raw = Annotated[float, _ROUNDED, unit("as stated")]
Lots = Annotated[int, unit("lots")]


class Freshness(Out):
    """Base of responses with market data: its time, source and freshness."""

    as_of: UtcTime | None = Field(description="Exchange time up to which the live data is known.")
    data_source: DataSource
    data_status: DataStatus = Field(
        description="The worst status of all data in the response, never better than `/health`: "
        "scores from before a start are `unavailable` until the exchange has responded again."
    )


# --- in: query and path
QueryInt = Annotated[int, BeforeValidator(_integer)]
QueryDecimal = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema({"type": "string", "pattern": _DECIMAL_TEXT}),
]
QueryFlag = Annotated[bool, BeforeValidator(_flag)]
QueryTime = Annotated[datetime, BeforeValidator(_iso), AfterValidator(_zoned)]
TimeIn = QueryTime  # the same rule inside bodies
Limit = Annotated[QueryInt, Query(ge=1, le=MAX_LIMIT, description=f"Page size, 1 to {MAX_LIMIT}.")]
CursorText = Annotated[
    str | None, Query(max_length=1024, description="`next_cursor` of the page before.")
]
SearchText = Annotated[str | None, Query(max_length=64, description="Literal text to look for.")]
SymbolPath = Annotated[
    str,
    BeforeValidator(_spelling),
    Path(
        description="Any spelling (BTCUSDT, XBTUSDTM, BTC-USDT, BTC%2FUSDT:USDT) or the UUID.",
        examples=["BTCUSDT"],
    ),
]
IdPath = Annotated[str, BeforeValidator(_segment), Path(description="Identifier.")]


REPLAYS = (Code.NOT_FOUND, Code.ALGORITHM_VERSION)  # errors of a replay


class DecisionReplayOut(Out):
    """A stored decision compared with its replay; equal hashes mean equal bytes."""

    kind: str = Field(examples=["rebalance"], description="Kind of the decision.")
    id: str = Field(description="Identifier of the decision.")
    algorithm_version: int
    code_version: str = Field(description="Of the service that made the decision.")
    decided_at: UtcTime = Field(description="UTC time of the decision.")
    is_identical: bool = Field(description="True if the replay gives the stored bytes.")
    input_hash: str
    output_hash: str = Field(description="SHA-256 of the stored output, in hexadecimal.")
    replayed_output_hash: str = Field(
        description="SHA-256 of the output of the replay, in hexadecimal."
    )
    differing: list[str] = Field(description="Fields of the output that differ.")

    @classmethod
    def from_replay(cls, replay: DecisionReplay) -> Self:
        return cls(
            kind=replay.kind.value,
            id=replay.decision_id,
            algorithm_version=replay.algorithm,
            code_version=replay.code_version,
            decided_at=replay.decided_at,
            is_identical=replay.is_identical,
            input_hash=replay.input_hash,
            output_hash=replay.output_hash,
            replayed_output_hash=replay.replayed_output_hash,
            differing=list(replay.differing),
        )


DEFAULT_REASON = "requested"  # reason if the caller gives none


CHANGES = (Code.PRECONDITION_FAILED, Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED)


NAMES = (Code.SYMBOL_UNKNOWN, Code.SYMBOL_AMBIGUOUS, Code.EXCHANGE_UNAVAILABLE)


DECIDES = (Code.NO_BOARD_YET, Code.MARKET_DATA_STALE, Code.CLOCK_UNSAFE)


class ChangeRequest(Body):
    """Optional reason and user of a change."""

    reason: ReasonText | None = Field(
        None, description="Reason that the history records; `requested` if omitted."
    )
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class SymbolIn(ChangeRequest):
    """One symbol, in any spelling or by its UUID."""

    model_config = example({"symbol": "BTCUSDT", "reason": "weekly check"})

    symbol: SymbolText | None = Field(None, description="In any spelling, or the UUID.")
    symbol_id: SymbolText | None = Field(None, description="Accepted in place of `symbol`.")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        one_of(symbol=self.symbol, symbol_id=self.symbol_id)
        return self

    @property
    def named(self) -> str:
        return one_of(symbol=self.symbol, symbol_id=self.symbol_id)
