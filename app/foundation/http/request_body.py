"""Strict JSON bodies: size limits, no ambiguous documents, no echo of the input."""

import json
import math
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any, Final, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.requests import Request

from app.foundation.errors import Code, FieldFault
from app.foundation.http.errors import RequestError
from app.foundation.http.field_faults import kind_of

MAX_BODY_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 32
_MAX_NUMBER_CHARS: Final = 64
_INT64: Final = 2**63
MAX_EXPONENT: Final = 40  # of a decimal: 1e300 would need hundreds of digits in later arithmetic

# A string (also an unterminated one) or a bracket; possessive, so that matching stays linear.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
# Controls (except tab, line feed, carriage return), zero-width, bidirectional, surrogate,
# interlinear and tag characters: none is legitimate here, some deceive readers or break output.
UNSAFE_TEXT: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?", re.ASCII)
_JSON_TYPE: Final = re.compile(
    r"application/json[ \t]*(?:;[ \t]*charset=\"?utf-8\"?[ \t]*)?", re.ASCII | re.IGNORECASE
)


class Body(BaseModel):
    """Base of request bodies: no unknown fields, no coercion, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _decimal(value: object) -> object:
    """Accepts text of a plain ASCII pattern, or a JSON number by its shortest spelling."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        number = Decimal(repr(value))
        if not number or abs(number.adjusted()) <= MAX_EXPONENT:
            return number
    raise PydanticCustomError("decimal_text", "not a decimal number")


DecimalIn = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    WithJsonSchema(
        {"type": "string", "pattern": r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?$"},
        mode="validation",
    ),
    Field(examples=["1234.5"]),
]
SymbolText = Annotated[str, Field(min_length=1, max_length=64, examples=["BTCUSDT"])]
ReasonText = Annotated[str, Field(min_length=1, max_length=500)]
NameText = Annotated[str, Field(min_length=1, max_length=100)]


async def read_json(request: Request, *, required: bool = True) -> Any:
    """Reads and parses the body; None for an empty body where the route allows it.

    Raises RequestError with 400, 413, 415 or 422. No byte beyond the limit is stored.
    """
    declared = _declared_type(request)
    raw = await _within_limit(request.stream())
    if not raw:
        if required:
            raise RequestError(
                Code.VALIDATION_FAILED,
                "A JSON object is needed.",
                errors=[FieldFault(("body",), "missing", received="nothing")],
            )
        return None
    if not declared:
        raise _media_type()
    document = parse(raw)
    if not isinstance(document, dict):
        raise RequestError(
            Code.VALIDATION_FAILED,
            "The body must be an object.",
            errors=[FieldFault(("body",), "object", received=kind_of(document))],
        )
    return document


def parse(raw: bytes) -> Any:
    """Parses strictly. Raises RequestError with a code for any invalid or ambiguous document."""
    if _too_deep(raw):
        raise RequestError(Code.JSON_TOO_DEEP, f"Nested deeper than {MAX_DEPTH} levels.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = "\ufeff"
    if text.startswith("\ufeff") or b"\x00" in raw[:4]:
        raise RequestError(Code.INVALID_UTF8, "The body must be UTF-8 without a byte order mark.")
    try:
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError:
        document = _MALFORMED
    if document is _MALFORMED:  # raised here, so that the exception chain has no body text
        raise RequestError(Code.MALFORMED_JSON, "The body is not JSON.")
    _check_text(document)
    return document


_MALFORMED: Final = object()


async def _within_limit(chunks: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk[: MAX_BODY_BYTES + 1 - len(body)]
        if len(body) > MAX_BODY_BYTES:
            if _too_deep(bytes(body)):
                raise RequestError(Code.JSON_TOO_DEEP, f"Nested deeper than {MAX_DEPTH} levels.")
            raise RequestError(
                Code.PAYLOAD_TOO_LARGE, f"A body may have up to {MAX_BODY_BYTES} bytes."
            )
    return bytes(body)


def _declared_type(request: Request) -> bool:
    """Returns True for declared JSON, False without a declaration; 415 for anything else."""
    types = request.headers.getlist("content-type")
    encodings = request.headers.getlist("content-encoding")
    if len(types) > 1 or any(word.strip().lower() != "identity" for word in encodings):
        raise _media_type()
    if not types:
        return False
    if not _JSON_TYPE.fullmatch(types[0].strip()):
        raise _media_type()
    return True


def _media_type() -> RequestError:
    return RequestError(Code.UNSUPPORTED_MEDIA_TYPE, "Send application/json in UTF-8.")


def _too_deep(raw: bytes) -> bool:
    depth = 0
    for token in _TOKEN.finditer(raw):
        sign = raw[token.start()]
        if sign in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif sign in b"]}":
            depth -= 1
    return False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise RequestError(Code.DUPLICATE_JSON_KEY, "An object names one of its keys twice.")
    return table


def _out_of_range() -> RequestError:
    return RequestError(Code.NUMBER_OUT_OF_RANGE, "A number is too large, too small or too long.")


def _integer(text: str) -> int:
    if len(text) > _MAX_NUMBER_CHARS:
        raise _out_of_range()
    number = int(text)
    if not -_INT64 <= number < _INT64:
        raise _out_of_range()
    return number


def _float(text: str) -> float:
    if len(text) > _MAX_NUMBER_CHARS:
        raise _out_of_range()
    number = float(text)
    mantissa = re.split("[eE]", text)[0]
    vanished = number == 0.0 and any(digit in "123456789" for digit in mantissa)
    if not math.isfinite(number) or vanished:
        raise _out_of_range()
    return number + 0.0  # -0.0 becomes 0.0


def _constant(text: str) -> NoReturn:
    del text
    raise RequestError(Code.NON_FINITE_NUMBER, "NaN and Infinity are not JSON.")


def _check_text(document: Any) -> None:
    pending = [document]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            if UNSAFE_TEXT.search(part):
                raise RequestError(
                    Code.INVALID_STRING, "A text holds control, zero-width or broken characters."
                )
        elif isinstance(part, dict):
            pending.extend(part.keys())
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
