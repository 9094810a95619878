"""Validates messages of stream and webhooks by the AsyncAPI document."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from app.operations.api.event_schemas import asyncapi_document

Document = dict[str, Any]
VERSION = "0.2.0"


@cache
def event_document() -> Document:
    return asyncapi_document(VERSION)


@cache
def _validator(channel: str, name: str | None) -> jsonschema_rs.Validator:
    document = event_document()
    messages = document["channels"][channel]["messages"]
    names = list(messages) if name is None else [name]
    payloads = [document["components"]["messages"][one]["payload"] for one in names]
    schema = {"anyOf": payloads, "components": document["components"]}
    return jsonschema_rs.validator_for(schema, validate_formats=True)


def check_message(message: Mapping[str, Any], channel: str, name: str | None = None) -> None:
    """Fails unless a message of a channel has the form that the document states."""
    _validator(channel, name).validate(dict(message))
