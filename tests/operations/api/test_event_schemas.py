"""The document of events: complete, served, committed, and compatible with the one before it."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from app.foundation.events import EventRecord, EventTopic
from app.operations.api.event_schemas import ASYNCAPI_PATH, asyncapi_document
from app.operations.domain.event_codec import CODEC, encode_event
from app.operations.services.event_messages import event_envelope
from tests.operations.domain.test_event_codec import EXAMPLES
from tests.support.breaking_changes import breaking_changes
from tests.support.event_contract import VERSION, check_message, event_document
from tests.support.harness import make_api, open_client

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "docs/asyncapi.json"
RELEASED = ROOT / "docs/released/asyncapi.json"
Document = dict[str, Any]


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda one: type(one).__name__)
def test_every_kind_of_event_has_the_form_of_its_schema(event: object) -> None:
    (draft,) = encode_event(event)
    record = EventRecord(
        draft.topic, draft.type, draft.subject, json.loads(json.dumps(draft.data)),
        draft.occurred_at, 7,
    )  # fmt: skip
    message = event_envelope(record)
    check_message(message, "stream", draft.type)
    check_message(message, "events", draft.type)
    with pytest.raises(jsonschema_rs.ValidationError):
        check_message({**message, "data": {**message["data"], "more": 1}}, "stream")
    for name in message["data"]:
        data = {key: value for key, value in message["data"].items() if key != name}
        with pytest.raises(jsonschema_rs.ValidationError):
            check_message({**message, "data": data}, "stream")


def test_every_topic_has_messages_on_every_channel() -> None:
    document = event_document()
    assert set(document["channels"]) == {"stream", "events", "webhook"}
    kinds = {kind.type for kind in CODEC.kinds}
    assert {kind.topic for kind in CODEC.kinds} == set(EventTopic)
    for channel in ("stream", "events"):
        assert kinds | {"ticker", "tickers", "dashboard"} <= set(
            document["channels"][channel]["messages"]
        )
    assert {f"{kind}_delivery" for kind in kinds} < set(document["channels"]["webhook"]["messages"])


def references(part: object) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_the_document_refers_to_nothing_that_is_missing() -> None:
    document = event_document()
    for reference in references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
        )


async def test_the_document_is_served_and_committed() -> None:
    async with open_client(make_api({})) as client:
        served = (await client.get(ASYNCAPI_PATH)).json()
    assert served | {"info": None} == event_document() | {"info": None}
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert committed == json.loads(json.dumps(event_document())), "run `make docs`"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{VERSION}"' in project


def breaks(old: Document, new: Document) -> list[str]:
    """Breaking changes of all messages, each as `message.field: cause`."""
    found: list[str] = []
    definitions = old["components"]["schemas"], new["components"]["schemas"]
    for operation in old["operations"].values():
        is_sent = operation["action"] == "send"
        channel = operation["channel"]["$ref"].rpartition("/")[2]
        if channel not in new["channels"]:
            found.append(f"{channel}: removed")
            continue
        was, has = old["channels"][channel], new["channels"][channel]
        if was["address"] != has["address"]:
            found.append(f"{channel}: another address")
        for name in (one["$ref"].rpartition("/")[2] for one in operation["messages"]):
            if name not in has["messages"]:
                found.append(f"{name}: removed")
                continue
            before, after = (one["components"]["messages"][name]["payload"] for one in (old, new))
            found += breaking_changes(before, after, definitions, name, is_sent=is_sent)
    return list(dict.fromkeys(found))


def test_a_breaking_change_is_declared_in_the_changelog() -> None:
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased = re.split(r"^## ", changelog, flags=re.MULTILINE)[1]
    broken = breaks(released, event_document())
    assert [one for one in broken if f"`{one.partition(':')[0]}`" not in unreleased] == []


def _schema(document: Document, name: str) -> Document:
    schema: Document = document["components"]["schemas"][name]
    return schema


def _drop_field(document: Document) -> None:
    del _schema(document, "ScoreUpdateData")["properties"]["rank"]


def _may_be_missing(document: Document) -> None:
    _schema(document, "PortfolioChangeDetails")["required"].remove("members")


def _may_be_null(document: Document) -> None:
    field = _schema(document, "PortfolioChangeData")["properties"]["timestamp"]
    field["anyOf"] = [{"type": field.pop("type"), "format": field.pop("format")}, {"type": "null"}]


def _another_type(document: Document) -> None:
    members = _schema(document, "MemberWeightsData")["properties"]["old_weight_percentage"]
    members["anyOf"][0]["type"] = "string"


def _another_topic(document: Document) -> None:
    _schema(document, "JobChangedMessage")["properties"]["topic"]["const"] = "jobs"


def _drop_message(document: Document) -> None:
    del document["channels"]["webhook"]["messages"]["notification"]


def _require_in_command(document: Document) -> None:
    _schema(document, "Subscribe")["required"].append("resume_from")


def _shorter_command(document: Document) -> None:
    _schema(document, "Subscribe")["properties"]["topics"]["maxItems"] = 5


def _move(document: Document) -> None:
    document["channels"]["events"]["address"] = "/elsewhere"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (_drop_field, "score_changed.data.rank: removed"),
        (_may_be_missing, "portfolio_changed.data.details.members: may be missing"),
        (_may_be_null, "portfolio_changed.data.timestamp: may be null"),
        (
            _another_type,
            "portfolio_changed.data.details.members[].old_weight_percentage: may be string",
        ),
        (_another_topic, "job_changed.topic: another const"),
        (_drop_message, "notification: removed"),
        (_require_in_command, "subscribe.resume_from: required"),
        (_shorter_command, "subscribe.topics: another maxItems"),
        (_move, "events: another address"),
    ],
)
def test_breaking_changes_are_found(change: Any, place: str) -> None:
    old, new = event_document(), copy.deepcopy(event_document())
    change(new)
    assert place in breaks(old, new)


def test_additions_break_nothing() -> None:
    old, new = event_document(), copy.deepcopy(event_document())
    _schema(new, "ScoreUpdateData")["properties"]["more"] = {"type": "string"}
    _schema(new, "ScoreUpdateData")["required"].append("more")
    _schema(new, "Subscribe")["properties"]["more"] = {"type": "string"}
    new["channels"]["stream"]["messages"]["more"] = {"$ref": "#/components/messages/gap"}
    _schema(new, "EventType")["enum"].append("MERGE")
    assert breaks(old, new) == []
    assert breaks(old, old) == []
    assert asyncapi_document(VERSION) == old
