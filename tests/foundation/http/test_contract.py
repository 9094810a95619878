"""The OpenAPI document is committed, and no breaking change of it is silent."""

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from app.container.api_document import api_document

Document = dict[str, Any]
ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "docs/openapi.json"
RELEASED = ROOT / "docs/released/openapi.json"
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
pytestmark = pytest.mark.xdist_group("openapi")  # the document takes a second: made once


@pytest.fixture(scope="module")
def document() -> Document:
    made: Document = json.loads(json.dumps(api_document(version("my-symbols"))))
    return made


def operations_of(document: Document) -> dict[str, tuple[str, Document]]:
    """Each operation under its method and path, with its operationId."""
    return {
        f"{method.upper()} {path}": (operation["operationId"], operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


class Comparison:
    """Breaking changes between two documents: `operation.part.field: what changed`."""

    def __init__(self, old: Document, new: Document) -> None:
        self.old, self.new = old, new
        self.found: list[str] = []

    def run(self) -> list[str]:
        now = operations_of(self.new)
        for place, (name, before) in operations_of(self.old).items():
            if place not in now:
                self.found.append(f"{name}: removed")
                continue
            renamed, after = now[place]
            if renamed != name:
                self.found.append(f"{name}: renamed to {renamed}")
            self._compare_parameters(name, before, after)
            self._compare_bodies(name, before, after)
            self._compare_answers(name, before, after)
        return list(dict.fromkeys(self.found))

    def _compare_parameters(self, name: str, before: Document, after: Document) -> None:
        was, has = (
            {f"{one['in']}.{one['name']}": one for one in operation.get("parameters", ())}
            for operation in (before, after)
        )
        for key in was.keys() - has.keys():
            self.found.append(f"{name}.{key}: removed")
        for key, parameter in has.items():
            place = f"{name}.{key}"
            if key in was:
                self._compare(was[key]["schema"], parameter["schema"], place, is_sent=True)
            if parameter.get("required") and not was.get(key, {}).get("required"):
                self.found.append(f"{place}: required")

    def _compare_bodies(self, name: str, before: Document, after: Document) -> None:
        was, has = (_schema_of(one.get("requestBody", {})) for one in (before, after))
        if was is not None and has is not None:
            self._compare(was, has, f"{name}.request", is_sent=True)
        elif was is not None or (has is not None and after["requestBody"].get("required")):
            self.found.append(f"{name}.request: {'removed' if has is None else 'required'}")

    def _compare_answers(self, name: str, before: Document, after: Document) -> None:
        for status, answer in before["responses"].items():
            if int(status) >= 300:
                continue
            other = after["responses"].get(status)
            if other is None:
                self.found.append(f"{name}.{status}: removed")
                continue
            for kind in answer.get("content", {}).keys() - other.get("content", {}).keys():
                self.found.append(f"{name}.{status}: {kind} removed")
            was, has = _schema_of(answer), _schema_of(other)
            if was is not None and has is not None:
                self._compare(was, has, f"{name}.response", is_sent=False)

    def _compare(self, was: Document, has: Document, place: str, *, is_sent: bool) -> None:
        """A request may accept more, an answer may say more; neither less."""
        before = list(_alternatives(was, self.old))
        after = list(_alternatives(has, self.new))
        kinds, others = ({_kind(one) for one in part} for part in (before, after))
        wanted, given = (kinds, others) if is_sent else (others, kinds)
        if wanted - given:
            self.found.append(f"{place}: type {sorted(kinds)} is {sorted(others)}")
        for one in before:
            for other in after:
                if _kind(one) == _kind(other) != "null":
                    self._compare_shapes(one, other, place, is_sent=is_sent)

    def _compare_shapes(self, was: Document, has: Document, place: str, *, is_sent: bool) -> None:
        if is_sent:
            if "enum" in has and set(map(str, was.get("enum", ()))) - set(map(str, has["enum"])):
                self.found.append(f"{place}: narrower enum")
            for key in (*LOWER, *UPPER):
                if key in has and _is_narrower(was.get(key), has[key], is_lower=key in LOWER):
                    self.found.append(f"{place}: narrower {key}")
        self._compare_fields(was, has, place, is_sent=is_sent)
        for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(was.get(key), dict) and isinstance(has.get(key), dict):
                self._compare(was[key], has[key], place + mark, is_sent=is_sent)

    def _compare_fields(self, was: Document, has: Document, place: str, *, is_sent: bool) -> None:
        old, new = was.get("properties", {}), has.get("properties", {})
        for name in old.keys() - new.keys():
            self.found.append(f"{place}.{name}: removed")
        for name in old.keys() & new.keys():
            self._compare(old[name], new[name], f"{place}.{name}", is_sent=is_sent)
        before, after = (set(one.get("required", ())) for one in (was, has))
        changed = after - before if is_sent else (before - after) & new.keys()
        for name in changed:
            self.found.append(f"{place}.{name}: {'required' if is_sent else 'optional'}")


def _schema_of(part: Document) -> Document | None:
    content = part.get("content", {}).get("application/json")
    return None if content is None else content.get("schema")


def _alternatives(shape: Document, document: Document) -> Iterator[Document]:
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        yield from _alternatives(document["components"]["schemas"][name], document)
    elif "anyOf" in shape:
        for one in shape["anyOf"]:
            yield from _alternatives(one, document)
    else:
        yield shape


def _kind(shape: Document) -> str:
    return str(shape.get("type", "any"))


def _is_narrower(was: float | None, has: float, *, is_lower: bool) -> bool:
    return was is None or (has > was if is_lower else has < was)


def breaks(old: Document, new: Document) -> list[str]:
    return Comparison(old, new).run()


def test_the_committed_document_is_that_of_the_service(document: Document) -> None:
    """`make docs` writes it."""
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == document


def test_a_breaking_change_is_declared_in_the_changelog(document: Document) -> None:
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased = re.split(r"^## ", changelog, flags=re.MULTILINE)[1]
    broken = breaks(released, document)
    assert [one for one in broken if f"`{one.partition(':')[0]}`" not in unreleased] == []


def _schema(document: Document, name: str) -> Document:
    schema: Document = document["components"]["schemas"][name]
    return schema


def _operation(document: Document, name: str) -> Document:
    return next(one for known, one in operations_of(document).values() if known == name)


def _remove_operation(document: Document) -> None:
    del document["paths"]["/api/symbol-mgmt/portfolio/rebalance"]


def _rename_operation(document: Document) -> None:
    _operation(document, "list_rankings")["operationId"] = "get_rankings"


def _remove_field(document: Document) -> None:
    del _schema(document, "MemberOut")["properties"]["position_rank"]


def _require_field(document: Document) -> None:
    _schema(document, "RebalanceIn")["required"] = ["reason"]


def _require_parameter(document: Document) -> None:
    _operation(document, "list_trades")["parameters"][0]["required"] = True


def _remove_parameter(document: Document) -> None:
    _operation(document, "list_rankings")["parameters"].pop(0)


def _narrow_enum(document: Document) -> None:
    _schema(document, "OptimizeIn")["properties"]["method"]["enum"].remove("hrp")


def _narrow_bound(document: Document) -> None:
    _schema(document, "SignalIn")["properties"]["signal_strength"]["maximum"] = 0.9


def _change_type(document: Document) -> None:
    _schema(document, "CandleOut")["properties"]["open"]["type"] = "number"


def _allow_null(document: Document) -> None:
    price = _schema(document, "CandleOut")["properties"]["open"]
    _schema(document, "CandleOut")["properties"]["open"] = {"anyOf": [price, {"type": "null"}]}


def _drop_csv(document: Document) -> None:
    del _operation(document, "list_trades")["responses"]["200"]["content"]["text/csv"]


def _extend(document: Document) -> None:
    """A new optional field, a new answer field, a wider bound, a new operation: no break."""
    _schema(document, "RebalanceIn")["properties"]["more"] = {"type": "string"}
    _schema(document, "MemberOut")["properties"]["more"] = {"type": "string"}
    _schema(document, "SignalIn")["properties"]["signal_strength"]["maximum"] = 2
    document["paths"]["/new"] = {"get": {"operationId": "get_new", "responses": {}}}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_remove_operation, {"rebalance_portfolio: removed"}),
        (_rename_operation, {"list_rankings: renamed to get_rankings"}),
        (_remove_field, {"get_portfolio.response.members[].position_rank: removed"}),
        (_require_field, {"rebalance_portfolio.request.reason: required"}),
        (_require_parameter, {"list_trades.query.from: required"}),
        (_remove_parameter, {"list_rankings.query.algorithm_type: removed"}),
        (_narrow_enum, {"optimize_weights.request.method: narrower enum"}),
        (_narrow_bound, {"send_signal.request.signal_strength: narrower maximum"}),
        (_change_type, {"list_candles.response.items[].open: type ['string'] is ['number']"}),
        (
            _allow_null,
            {"list_candles.response.items[].open: type ['string'] is ['null', 'string']"},
        ),
        (_drop_csv, {"list_trades.200: text/csv removed"}),
        (_extend, set()),
    ],
)
def test_each_kind_of_breaking_change_is_found(
    document: Document, change: Callable[[Document], None], found: set[str]
) -> None:
    changed = deepcopy(document)
    change(changed)
    broken = set(breaks(document, changed))
    assert found <= broken
    assert bool(found) == bool(broken)
    assert breaks(document, deepcopy(document)) == []
