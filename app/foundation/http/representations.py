"""Representation of an answer by the Accept header: JSON, or CSV for the rows of a list."""

import asyncio
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Scope

JSON_TYPE: Final = "application/json"
CSV_TYPE: Final = "text/csv"
_ROWS: Final = "csv_rows"  # attribute of an endpoint: member of its answer that has the rows
_DEFAULT_ROWS: Final = "items"
_TAG_SUFFIX: Final = "-csv"
_RANGE: Final = re.compile(r"\s*([\w.+*-]+)/([\w.+*-]+)\s*(?:;(.*))?", re.ASCII | re.DOTALL)
_WEIGHT: Final = re.compile(r"\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.ASCII | re.IGNORECASE)
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?", re.ASCII)
_FORMULA_STARTS: Final = frozenset("=+-@\t\r\n|%")
_FACTS: Final = ("as_of", "data_source", "data_status")  # of the answer, not of its rows
_MAX_ACCEPT: Final = 1_024

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def rows_in(member: str) -> Callable[[Endpoint], Endpoint]:
    """Names the member of an answer whose entries are the rows of its CSV, if not `items`."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ROWS, member)
        return endpoint

    return mark


@lru_cache(maxsize=256)
def negotiate(accept: str, offers: tuple[str, ...]) -> str | None:
    """Returns the offered type that the client prefers; the first one on a tie, None for none.

    A header that is missing, too long or not well formed accepts anything.
    """
    ranges = list(_ranges(accept)) if len(accept) <= _MAX_ACCEPT else []
    if not ranges:
        return offers[0]
    best, chosen = 0.0, None
    for offer in offers:
        weight = _weight_of(offer, ranges)
        if weight > best:
            best, chosen = weight, offer
    return chosen


def _ranges(accept: str) -> Iterator[tuple[str, str, float]]:
    for part in accept.split(","):
        found = _RANGE.fullmatch(part)
        if found is not None:
            weights = (_WEIGHT.fullmatch(one) for one in (found.group(3) or "").split(";"))
            weight = next((float(one.group(1)) for one in weights if one is not None), 1.0)
            yield found.group(1).lower(), found.group(2).lower(), weight


def _weight_of(offer: str, ranges: Sequence[tuple[str, str, float]]) -> float:
    """Returns the weight of the most specific range that matches; 0 if none does."""
    kind, subtype = offer.split("/")
    matches = [
        ((left != "*") + (right != "*"), weight)
        for left, right, weight in ranges
        if left in {kind, "*"} and right in {subtype, "*"}
    ]
    return max(matches)[1] if matches else 0.0


def accept_of(scope: Scope) -> str:
    """Returns the Accept header of a request; several ones are one list."""
    return b",".join(value for name, value in scope["headers"] if name == b"accept").decode(
        "latin-1"
    )


class _Number(str):
    """Number of a JSON document as it is spelled there."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Rows of an answer as CSV: the member that has them, and the columns in their order."""

    member: str
    columns: tuple[str, ...]  # dotted paths of the fields

    @classmethod
    def of(cls, endpoint: Callable[..., Any], model: Any) -> "CsvRows | None":
        """Returns the rows of an endpoint; None if its answer has no list of objects."""
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        member = getattr(endpoint, _ROWS, _DEFAULT_ROWS)
        field = model.model_fields.get(member)
        if field is None or get_origin(field.annotation) is not list:
            return None
        (row,) = get_args(field.annotation)
        if not (isinstance(row, type) and issubclass(row, BaseModel)):
            return None
        return cls(member, tuple(_columns(row, "")))

    def encode(self, document: Mapping[str, Any]) -> bytes:
        """Returns the rows by RFC 4180, with a header line; a text is never a formula."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(self.columns)
        paths = [column.split(".") for column in self.columns]
        for row in document[self.member]:
            writer.writerow([_cell(_value(row, path)) for path in paths])
        return text.getvalue().encode()

    async def convert(self, response: Response, scope: Scope) -> Response:
        """Returns the CSV of a JSON answer with its headers; any other answer as it is."""
        headers = {
            name: value
            for name, value in response.headers.items()
            if name not in {"content-length", "content-type", "etag"}
        }
        tag = response.headers.get("etag")
        if tag is not None:
            headers["ETag"] = f'{tag[:-1]}{_TAG_SUFFIX}"'
        if response.status_code == 304:
            return Response(status_code=304, headers=headers)
        if response.status_code != 200 or response.media_type != JSON_TYPE:
            return response
        document = json.loads(bytes(response.body), parse_float=_Number)
        body = await asyncio.to_thread(self.encode, document)
        if document.get("next_cursor"):
            headers["Link"] = next_link(scope, document["next_cursor"])
        for fact in _FACTS:
            if document.get(fact):
                headers[f"X-{fact.replace('_', '-').title()}"] = str(document[fact])
        return Response(body, 200, headers=headers, media_type=f"{CSV_TYPE}; charset=utf-8")


def strip_tags(scope: Scope) -> Scope:
    """Returns the scope with the tags of CSV answers alone, as their endpoint wrote them."""
    headers = [
        (name, _own_tags(value) if name == b"if-none-match" else value)
        for name, value in scope["headers"]
    ]
    return {**scope, "headers": headers}


def _own_tags(value: bytes) -> bytes:
    tags = [tag.strip() for tag in value.split(b",")]
    ending = f'{_TAG_SUFFIX}"'.encode()
    return b", ".join(
        tag if tag == b"*" else tag.removesuffix(ending) + b'"'
        for tag in tags
        if tag == b"*" or tag.endswith(ending)
    )


def next_link(scope: Scope, cursor: str) -> str:
    """Returns the Link header of the next page: the same query with another cursor."""
    query = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True)
    pairs = [pair for pair in query if pair[0] != "cursor"]
    return f'<?{urlencode([*pairs, ("cursor", cursor)])}>; rel="next"'


def _columns(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = _nested(field.annotation)
        if inner is None:
            yield prefix + name
        else:
            yield from _columns(inner, f"{prefix}{name}.")


def _nested(annotation: Any) -> type[BaseModel] | None:
    """Returns the model of a nested object, also of an optional one."""
    kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
    is_model = len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel)
    return kinds[0] if is_model and get_origin(annotation) is not list else None


def _value(row: Any, path: Sequence[str]) -> Any:
    for name in path:
        row = row.get(name) if isinstance(row, Mapping) else None
    return row


def _cell(value: Any) -> str:
    """Returns the text of a value; null is empty, a list or map is JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = str(value)
    if isinstance(value, int | _Number):
        return text
    # A spreadsheet would run a text that begins like a formula; a number is none.
    is_formula = text[:1] in _FORMULA_STARTS and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text
