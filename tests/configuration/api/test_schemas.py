"""The HTTP models of the settings have the types and bounds of the declarations."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.configuration.api.schemas import (
    ConfigurationDocument,
    ConfigurationUpdate,
    ConfigurationView,
)
from app.configuration.domain.document import ConfigurationRefusedError, validate
from app.configuration.domain.fields import SettingEntry, entries
from app.configuration.domain.model import Configuration

NUMBERS = [
    one
    for one in entries(Configuration())
    if one.info.minimum is not None and not hasattr(one.default, "keys")
]


def nested(path: str, value: object) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("entry", NUMBERS, ids=lambda one: one.path)
def test_request_model_and_domain_refuse_the_same_numbers(entry: SettingEntry) -> None:
    low, high = entry.info.minimum, entry.info.maximum
    assert low is not None
    assert high is not None
    for value in (low - 1, high + 1):
        wrong = nested(entry.path, value if entry.type is int else float(value))
        with pytest.raises(ValidationError) as caught:
            ConfigurationUpdate.model_validate(wrong)
        assert [".".join(map(str, one["loc"])) for one in caught.value.errors()] == [entry.path]
        with pytest.raises(ConfigurationRefusedError) as refused:
            validate(wrong, Configuration())
        assert [one.loc for one in refused.value.complaints] == [entry.path]


def test_the_models_say_bounds_and_sentences() -> None:
    view = ConfigurationView.model_json_schema(mode="serialization")
    sizing = view["$defs"]["SizingSettings"]["properties"]
    assert sizing["depth_band_bp"]["minimum"] == 1.0
    assert sizing["depth_band_bp"]["maximum"] == 1_000.0
    assert sizing["min_notional"]["type"] == "string"
    update = ConfigurationUpdate.model_json_schema()["$defs"]["SizingSettingsUpdate"]
    assert update["properties"]["depth_band_bp"]["maximum"] == 1_000.0
    assert all(one["description"] for one in update["properties"].values())
    assert "required" not in update


def test_a_whole_document_requires_every_setting_and_every_key_of_an_enumeration() -> None:
    schema = ConfigurationDocument.model_json_schema()
    own_fields = {"version", "reason", "user", "evict_lowest"}
    assert set(schema["required"]) == set(schema["properties"]) - own_fields
    parts = {name: one for name, one in schema["$defs"].items() if name.endswith("Document")}
    assert {"SizingSettingsDocument", "FamilyWeightsDocument"} <= set(parts)
    for name, part in parts.items():
        assert set(part["required"]) == set(part["properties"]), name
