"""Parsers of single fields of a decoded record: exact numbers, with a reason on failure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, TypeVar

T = TypeVar("T")
Reader = Callable[[object], T]  # raises UnreadableError with a readable reason

NOT_A_NUMBER: Final = Decimal("NaN")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_NUMBER_LENGTH: Final = 80  # the longest real one has 30 characters
DIGITS: Final = 30  # magnitudes beyond 1e30 or below 1e-30 mean nothing in a market
_CODE: Final = re.compile(r"[A-Z0-9]{1,32}", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9_]{1,32}", re.ASCII)

# 2015 to 2100: the four spellings of such a time never overlap, so magnitude tells the unit.
YEAR_2015_S: Final = 1_420_070_400
YEAR_2100_S: Final = 4_102_444_800
_UNITS: Final = ((1, 1_000, 1), (1_000, 1, 1), (1_000_000, 1, 1_000), (1_000_000_000, 1, 1_000_000))


class UnreadableError(ValueError):
    """Value that its field does not allow; the text is the reason, without the value."""


class InvalidFieldError(UnreadableError):
    """Invalid required field; `field` names it, `reason` explains it without the value."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.field = name
        self.reason = reason


def number_from_text(text: str) -> Decimal:
    """JSON number with a point or exponent, exactly; NaN for an absurd magnitude."""
    if len(text) > _NUMBER_LENGTH:
        return NOT_A_NUMBER
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal can hold
        return NOT_A_NUMBER


def decimal(value: object) -> Decimal:
    """Exact number from a JSON number or its text ("1E-7" too); booleans are refused."""
    number = _exact(value)
    if not number.is_finite():
        raise UnreadableError("not a finite number")
    if number and not -DIGITS <= number.adjusted() <= DIGITS:
        raise UnreadableError("number out of range")
    return number


def _exact(value: object) -> Decimal:
    if isinstance(value, bool):
        raise UnreadableError("a truth value, not a number")
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int):
        if abs(value) >= 10 ** (DIGITS + 1):
            raise UnreadableError("number out of range")
        return Decimal(value)
    if isinstance(value, str) and len(value) <= _NUMBER_LENGTH and _NUMBER.fullmatch(value):
        return Decimal(value)
    raise UnreadableError("not a number")


def positive(value: object) -> Decimal:
    """Number above zero: a price or a tick."""
    number = decimal(value)
    if number <= 0:
        raise UnreadableError("not positive")
    return number


def not_negative(value: object) -> Decimal:
    number = decimal(value)
    if number < 0:
        raise UnreadableError("negative")
    return number


def magnitude(value: object) -> Decimal:
    """Absolute value of a number whose sign is a quirk (inverse multiplier and turnover)."""
    return decimal(value).copy_abs()  # abs() would round to the context


def positive_magnitude(value: object) -> Decimal:
    number = magnitude(value)
    if number == 0:
        raise UnreadableError("zero")
    return number


def whole(value: object) -> int:
    """Whole number, also one written 5.0 or "5"."""
    number = decimal(value)
    if number != number.to_integral_value():
        raise UnreadableError("not a whole number")
    return int(number)


def lots(value: object) -> int:
    """Number of contracts, zero allowed."""
    count = whole(value)
    if count < 0:
        raise UnreadableError("negative")
    return count


def some_lots(value: object) -> int:
    count = whole(value)
    if count <= 0:
        raise UnreadableError("not positive")
    return count


def instant_ms(value: object) -> int:
    """Time as epoch milliseconds; the magnitude determines its unit (s, ms, us, ns).

    UnreadableError outside 2015 to 2100.
    """
    number = whole(value)
    for per_second, times, parts in _UNITS:
        if YEAR_2015_S * per_second <= number < YEAR_2100_S * per_second:
            return number * times // parts
    raise UnreadableError("not a time between 2015 and 2100")


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise UnreadableError("not a truth value")
    return value


def text(value: object) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise UnreadableError("not a plain word")
    return value


def code(value: object) -> str:
    """Contract code or currency: capitals and digits."""
    if not isinstance(value, str) or not _CODE.fullmatch(value):
        raise UnreadableError("not a symbol")
    return value


def is_code(value: str) -> bool:
    """True if a text is safe to send as a contract code."""
    return _CODE.fullmatch(value) is not None


def is_absent(value: object) -> bool:
    """True if a value is null, missing or the empty text."""
    return value is None or value == ""


@dataclass(slots=True)
class FieldReader:
    """Reads one decoded object field by field and collects faults of optional fields.

    A required field that is absent or wrong raises InvalidFieldError; an optional one that is
    wrong is None and noted in `faults`, so that one odd field does not lose the whole record.
    """

    values: Mapping[str, object]
    faults: list[InvalidFieldError] = field(default_factory=list)

    @classmethod
    def from_value(cls, value: object, name: str) -> "FieldReader":
        if not isinstance(value, dict):
            raise InvalidFieldError(name, "not an object")
        return cls(value)

    def need(self, name: str, read: Reader[T]) -> T:
        value = self.values.get(name)
        if is_absent(value):
            raise InvalidFieldError(name, "absent")
        try:
            return read(value)
        except UnreadableError as error:
            raise InvalidFieldError(name, str(error)) from None

    def maybe(self, name: str, read: Reader[T]) -> T | None:
        if is_absent(self.values.get(name)):
            return None
        try:
            return self.need(name, read)
        except InvalidFieldError as error:
            self.faults.append(error)
            return None
