"""Completes fields of the OpenAPI document: descriptions, units and examples."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schemas = Mapping[str, dict[str, Any]]
UNIT: Final = "x-unit"  # member of a property in the OpenAPI document
REF: Final = "#/components/schemas/"
_DECIMAL_PATTERN: Final = re.compile(r"\^-\?\(0\|\[1-9\]")  # start of the pattern of a decimal
# Descriptions of names that mean the same in every schema; a field's own description goes first.
_GLOSSARY: Final[Mapping[str, str]] = {
    "action": "Kind of the change: `enter`, `exit`, `increase` or `decrease`.",
    "actor": "Principal that acted, such as `key:engine` or `schedule`.",
    "algorithm": "Name of the scoring algorithm.",
    "algorithm_version": "Version of the scoring algorithm.",
    "average_correlation": "Mean of the correlations of all pairs with enough history.",
    "average_raw_correlation": "Mean correlation of returns, the market's part included.",
    "basis": "Returns that are correlated: `residual` (without the market's part) or `raw`.",
    "calculated_at": "UTC time of the calculation.",
    "calmar": "Calmar ratio: annualised growth over the largest drawdown.",
    "candidate_score": "Composite score of the symbol that would enter.",
    "candidate_symbol": "Symbol that would enter.",
    "cash_percentage": "Share that is not invested.",
    "confidence": "Confidence of the score.",
    "confidence_level": "Confidence, from 0 (none) to 1.",
    "configuration_version": "Version of the configuration in use.",
    "confirmations": "Number of consecutive evaluations that confirm it.",
    "contract": "Name of the contract at KuCoin.",
    "created_at": "UTC time of its creation.",
    "created_by": "Principal that created it, such as `key:engine`.",
    "currency": "Settlement currency.",
    "current_score": "Composite score of the newest board; null while unknown.",
    "data_source": "Origin of the market data: `kucoin`, or `sandbox` for the local exchange.",
    "details": "Facts of the entry by name.",
    "duration_ms": "Duration.",
    "eligible": "True if the symbol passes every eligibility rule.",
    "entry_score": "Composite score at inclusion.",
    "expires_at": "UTC time of its expiry; null for none.",
    "finished_at": "UTC time of its end; null before it.",
    "flags": "Findings by their stable code.",
    "funding_interval_ms": "Time between two settlements of funding; null without funding.",
    "hash": "SHA-256 of the entry and its predecessor, in hexadecimal.",
    "inclusion_date": "UTC time at which the symbol became a member.",
    "inclusion_price": "Mark price at inclusion.",
    "inclusion_reason": "Reason of the inclusion.",
    "input_hash": "SHA-256 of all inputs, in hexadecimal.",
    "is_provisional": "True before the sources cover `scoring.min_coverage` of the universe.",
    "is_replacement_candidate": "True for the weakest members.",
    "is_tradeable": "True if the member may be traded now.",
    "items": "Entries of the page, in the order of the list.",
    "last_success_at": "UTC time of the last success; null before the first.",
    "mark_price": "Mark price of the contract at KuCoin.",
    "max_correlation": "Largest correlation of a pair with enough history.",
    "max_drawdown": "Largest loss from a peak, positive.",
    "max_drawdown_since_inclusion": "Largest loss from a peak since inclusion, positive.",
    "max_raw_correlation": "Largest correlation of returns, the market's part included.",
    "max_size": "Largest number of members, the setting `max_portfolio_symbols`.",
    "members": "Members by rank.",
    "method": "Method of the calculation.",
    "new": "Weight after the change.",
    "new_return": "Return of the symbol that entered, since the replacement.",
    "new_symbol": "Symbol that enters.",
    "next_cursor": "Pass as `cursor` to get the next page; null on the last one.",
    "not_tradeable_reason": "First failed check; null if the member may be traded.",
    "occurred_at": "UTC time at which it happened.",
    "old": "Weight before the change.",
    "old_return": "Return of the symbol that left, since the replacement.",
    "old_symbol": "Symbol that leaves.",
    "performance_since_inclusion": "Return of the mark price since inclusion; null if unknown.",
    "position_rank": "Rank of the position, from 1.",
    "profit_factor": "Sum of the gains over the sum of the losses of the daily returns.",
    "proposal_id": "Identifier of the proposal.",
    "reason": "Reason, in words.",
    "received_at": "UTC time at which the service received it.",
    "recommendation_strength": "Strength of the recommendation.",
    "replace_score": "Composite score of the member that would leave.",
    "replace_symbol": "Member that would leave.",
    "request_id": "Identifier of the request, as in its `X-Request-ID` and in the log.",
    "requested_at": "UTC time of the request.",
    "revoked_at": "UTC time of the revocation; null while valid.",
    "role": "Role: viewer, trader, operator or admin.",
    "run_id": "Identifier of the run.",
    "scopes": "Scopes that are granted beside the role.",
    "scores_calculated": "Number of symbols with a composite score.",
    "sector": "Sector of the symbol; `unclassified` if unknown.",
    "set_at": "UTC time of the last change.",
    "set_by": "Principal of the last change.",
    "severity": "Severity: `info`, `warning` or `critical`.",
    "sharpe": "Sharpe ratio: annualised mean over annualised volatility of the daily returns.",
    "signal_direction": "Direction of the claim: `BUY`, `SELL` or `NEUTRAL`.",
    "signal_id": "Identifier of the signal.",
    "signal_strength": "Strength of the claim, as stated by the source.",
    "signal_timestamp": "UTC time of the claim, as stated by the source; null if not stated.",
    "signal_type": "Type of the signal, as named by its source.",
    "size": "Number of members.",
    "sortino": "Sortino ratio: annualised mean over annualised downside deviation.",
    "source_name": "Name of the source that sent the signal.",
    "source_signal_id": "Identifier that the source gave the signal.",
    "started_at": "UTC time of its start; null before it.",
    "symbol": "Symbol in the standard spelling.",
    "symbol_id": "UUID of the symbol, which outlives renames of its contract.",
    "symbols_processed": "Number of symbols that the run processed.",
    "total_changes": "Number of weights that change.",
    "trade_id": "Identifier of the trade, which is booked once.",
    "triggers": "Conditions that started the rebalance, such as `drift`.",
    "unit": "Unit of the value.",
    "version_after": "Portfolio version after the run; null without a change.",
    "version_before": "Portfolio version before the run.",
    "volatility_since_inclusion": "Annualised volatility since inclusion.",
    "warnings": "Warnings by their stable code, with the facts.",
    "weight_percentage": "Weight of the position.",
}
# Sentence that names the unit; an empty one where the description of the field says enough.
UNITS: Final[Mapping[str, str]] = {
    "as stated": "",
    "base coins": "In base coins.",
    "basis points": "In basis points.",
    "bytes": "In bytes.",
    "correlation": "A correlation, -1 to 1.",
    "count": "",
    "days": "In days.",
    "fraction": "A fraction: 0.05 is 5 %.",
    "index units": "In units of the index, which starts at 1.",
    "lots": "In lots.",
    "milliseconds": "In milliseconds.",
    "number": "",
    "ordinal": "",
    "per cent": "In per cent, with at most 6 decimals.",
    "percentage points": "In percentage points.",
    "quote currency": "In quote currency.",
    "ratio": "A ratio, without a unit.",
    "score": "From 0 to 1.",
    "seconds": "In seconds.",
    "settlement currency": "In settlement currency.",
    "standard deviations": "In standard deviations.",
    "unit of the ledger": "",
}
# Units by the end of a name, the first match decides.
_UNIT_OF_NAME: Final = tuple(
    (re.compile(pattern), unit)
    for pattern, unit in (
        (r"(?:.*_)?s|seconds|seconds_.*", "seconds"),
        (r".*_ms", "milliseconds"),
        (r".*_bytes", "bytes"),
        (r"(?:.*_)?days", "days"),
        (r".*_bp", "basis points"),
        (r".*_percentage", "per cent"),
        (r".*_z", "standard deviations"),
        (r".*_lots", "lots"),
        (r"(?:.*_)?(?:version|sequence|rank|priority|position|id|epoch|status)", "ordinal"),
        (r"version_(?:before|after)", "ordinal"),
        (r"leverage", "ratio"),
        (r"notional", "quote currency"),
        (r"pnl|fees|funding|account_balance", "settlement currency"),
        (r"notional", "quote currency"),
    )
)
# Examples by name, where the schema itself gives none.
_EXAMPLES: Final[Mapping[str, Any]] = {
    "symbol": "BTCUSDT",
    "contract": "XBTUSDTM",
    "symbol_id": "2825b398-414e-46a6-920b-2d8d81fa7f5d",
    "reason": "weekly check",
    "user": "ana",
    "actor": "key:engine",
    "created_by": "key:engine",
    "name": "engine",
    "currency": "USDT",
    "run_id": "6f0b6c1e6d8e4a559f4b6f8f0b4f2a10",
    "request_id": "6f0b6c1e6d8e4a559f4b6f8f0b4f2a10",
    "source_name": "my-desk",
    "signal_type": "momentum",
    "sector": "layer1",
    "message": "BTCUSDT: score 0.48, limit 0.5",
    "next_cursor": None,
    "password": "correct horse battery staple",
    "current_password": "an older horse battery staple",
    "detail": "within the limit",
    "since": "2026-03-01T12:00:00Z",
}
# The same by the end of a name.
_EXAMPLE_OF_NAME: Final = (
    (re.compile(r"(?:.*_)?id"), "6f0b6c1e6d8e4a559f4b6f8f0b4f2a10"),
    (re.compile(r"(?:.*_)?by"), "key:engine"),
    (re.compile(r"(?:.*_)?hash"), "9f86d081884c7d659a2feaa0c55ad015" * 2),
    (re.compile(r"(?:.*_)?symbols?"), "BTCUSDT"),
)
BOUND_NAMES: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
_BY_PATTERN: Final = {
    "^[0-9a-f]{1,64}$": "9f86d081884c7d65",
    "^[0-9a-f\\-]{1,36}$": "2825b398-414e-46a6-920b-2d8d81fa7f5d",
    "^[0-9]{1,18}$": "17",
}
_BY_FORMAT: Final = {
    "date-time": "2026-03-01T12:00:00Z",
    "date": "2026-03-01",
    "uuid": "2825b398-414e-46a6-920b-2d8d81fa7f5d",
}
_NUMBER_OF_UNIT: Final = {"score": 0.61, "fraction": 0.05, "correlation": 0.42, "per cent": 12.5}
_EXAMPLE_BALANCE: Final = 10_000
_DEEPEST: Final = 24  # of an example: no schema refers to itself


def describe_fields(schemas: Schemas) -> None:
    """Completes every field of every schema: description, and for a number its unit.

    A number without a declared unit gets that of its name; a whole number without one is a count.
    """
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            complete_field(name, field)


def complete_field(name: str, field: dict[str, Any]) -> None:
    """Adds description and unit to one field or parameter, and names its bounds; changes it."""
    _name_bounds(field)
    text = field.get("description") or _GLOSSARY.get(name)
    unit = unit_of(name, field)
    if unit is not None:
        field[UNIT] = unit
        sentence = UNITS.get(unit, "")
        if text and sentence and not says_unit(text, unit):
            text = f"{text.rstrip('.')}. {sentence}"
    if text:
        field["description"] = text


def _name_bounds(shape: dict[str, Any]) -> None:
    """Renames bounds that pydantic leaves under its own names beside a validator."""
    for old, new in BOUND_NAMES.items():
        if old in shape:
            bound = shape.pop(old)
            shape[new] = float(bound) if isinstance(bound, str) else bound  # of a decimal
    for part in (*shape.get("anyOf", ()), shape.get("items"), shape.get("additionalProperties")):
        if isinstance(part, dict):
            _name_bounds(part)


def says_unit(text: str, unit: str) -> bool:
    """Returns True if a description names the unit already."""
    return unit in text.lower() or UNITS[unit] in text


def unit_of(name: str, field: Mapping[str, Any]) -> str | None:
    """Returns the unit of a number, or of the numbers in a list or map; None without numbers."""
    leaves = list(_leaves(field))
    declared = [leaf[UNIT] for leaf in (field, *leaves) if UNIT in leaf]
    if declared:
        return str(declared[0])
    numbers = [leaf for leaf in leaves if _is_number(leaf)]
    if not numbers:
        return None
    for pattern, unit in _UNIT_OF_NAME:
        if pattern.fullmatch(name):
            return unit
    return "count" if all(leaf["type"] == "integer" for leaf in numbers) else None


def _is_number(leaf: Mapping[str, Any]) -> bool:
    kind = leaf.get("type")
    return kind in {"integer", "number"} or (
        kind == "string" and _DECIMAL_PATTERN.match(leaf.get("pattern", "")) is not None
    )


def _leaves(shape: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the scalar schemas of a field; a reference is another schema's matter."""
    parts = [*shape.get("anyOf", ()), shape.get("items"), shape.get("additionalProperties")]
    inner = [part for part in parts if isinstance(part, dict)]
    if not inner:
        yield shape
    for part in inner:
        yield from _leaves(part)


def example_of(shape: Mapping[str, Any], schemas: Schemas, name: str = "", depth: int = 0) -> Any:
    """Returns an example of a schema: its own one, else one made of its fields.

    A request body has only its required fields, so that no two fields exclude each other.
    """
    if depth > _DEEPEST:
        return None
    given = shape.get("examples")
    if given:
        return given[0]
    if "$ref" in shape:
        return example_of(schemas[shape["$ref"].removeprefix(REF)], schemas, name, depth + 1)
    fixed = [shape.get("const"), shape.get("default"), *shape.get("enum", ())]
    chosen = next((value for value in fixed if value is not None), None)
    if chosen is not None:
        return chosen
    if "properties" in shape:
        wanted = shape.get("required", ())
        return {
            key: example_of(part, schemas, key, depth + 1)
            for key, part in shape["properties"].items()
            if key in wanted
        }
    choices = [part for part in shape.get("anyOf", ()) if part != {"type": "null"}]
    if name in _EXAMPLES and _is_text(shape, choices):
        return _EXAMPLES[name]
    unit = {UNIT: shape[UNIT]} if UNIT in shape else {}
    if choices:
        return example_of({**choices[0], **unit}, schemas, name, depth + 1)
    return _scalar_or_list(shape, schemas, name, depth)


def _is_text(shape: Mapping[str, Any], choices: list[dict[str, Any]]) -> bool:
    return any(part.get("type") == "string" for part in (shape, *choices))


def _scalar_or_list(shape: Mapping[str, Any], schemas: Schemas, name: str, depth: int) -> Any:
    kind = shape.get("type")
    if kind == "array":
        return [example_of(shape.get("items", {}), schemas, name.rstrip("s"), depth + 1)]
    if kind == "object" or kind is None:
        values = shape.get("additionalProperties")
        if not isinstance(values, dict):
            return {}
        keys = {"type": "string", **shape.get("propertyNames", {})}
        key = example_of(keys, schemas, "symbol", depth + 1)
        return {key: example_of(values, schemas, name, depth + 1)}
    if kind == "string":
        if _is_number(shape):
            return str(_within(_EXAMPLE_BALANCE if name.endswith("balance") else 1, shape))
        if shape.get("pattern") in _BY_PATTERN:
            return _BY_PATTERN[shape["pattern"]]
        named = (text for pattern, text in _EXAMPLE_OF_NAME if pattern.fullmatch(name))
        return _BY_FORMAT.get(str(shape.get("format"))) or next(named, "text")
    if kind == "boolean":
        return True
    number = 1 if kind == "integer" else _NUMBER_OF_UNIT.get(shape.get(UNIT, ""), 1)
    return _within(number, shape)


def _within(number: float, shape: Mapping[str, Any]) -> Any:
    inside = min(max(number, shape.get("minimum", number)), shape.get("maximum", number))
    return int(inside) if isinstance(inside, float) and inside.is_integer() else inside
