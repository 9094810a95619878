"""The settings in force follow the database and what was committed since."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from structlog.testing import capture_logs

from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.services.current import CurrentSettings
from app.configuration.storage.configuration import ConfigurationRepository, configuration_versions
from app.container.feed import create_event_handler
from app.foundation.event_bus import Bus
from app.foundation.events import EventRecord
from app.foundation.metrics import Metrics
from app.foundation.sql.database import Database
from app.operations.domain.event_codec import encode_event
from app.operations.services.event_stream import EventStream

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEWER = replace(Configuration(), version=2, max_portfolio_symbols=12)


async def test_a_new_database_stores_the_defaults_that_decisions_will_name(
    database: Database,
) -> None:
    in_force = CurrentSettings()
    await in_force.load(database, NOW)
    await in_force.load(database, NOW)

    async with database.read() as unit:
        assert await unit.get(ConfigurationRepository).get(1) == Configuration()
    assert in_force() == Configuration()


async def test_stored_settings_are_taken_up(database: Database) -> None:
    async with database.write() as unit:
        await unit.get(ConfigurationRepository).add(NEWER, NOW, "operator")
    in_force = CurrentSettings()
    await in_force.load(database, NOW)

    assert in_force() == NEWER


def test_committed_settings_apply_and_late_older_ones_do_not() -> None:
    in_force = CurrentSettings()
    in_force.on_event(ConfigurationChanged(NEWER, NOW))
    in_force.on_event(ConfigurationChanged(Configuration(), NOW))
    in_force.on_event("something else")

    assert in_force() == NEWER


async def test_B12_settings_that_the_database_has_lost_are_in_force_no_longer(
    database: Database,
) -> None:
    in_force = CurrentSettings()
    await in_force.load(database, NOW)
    in_force.on_event(ConfigurationChanged(NEWER, NOW))  # of a commit that a failover has lost
    stream = EventStream(database, lambda: NOW, Metrics(), reread=lambda: in_force.reread(database))
    await stream.open()
    following = asyncio.ensure_future(stream.follow(asyncio.Event().set))
    async with asyncio.timeout(60):
        while in_force() == NEWER:
            await asyncio.sleep(0.001)
    following.cancel()
    await asyncio.wait({following})
    assert in_force() == Configuration()


async def test_G11_stored_settings_that_cannot_be_read_are_not_taken_up(database: Database) -> None:
    in_force = CurrentSettings(NEWER)
    async with database.write() as unit:
        row = {"version": 3, "body": {"of_a_newer_version": 1}, "created_at": NOW}
        await unit.connection.execute(
            configuration_versions.insert(), row | {"created_by": "later"}
        )
    with capture_logs() as said:
        await in_force.reread(database)
    assert in_force() == NEWER
    assert [(one["event"], one["current_version"]) for one in said] == [("settings_not_read", 2)]


def test_G11_settings_that_cannot_be_read_leave_the_last_good_ones_in_force() -> None:
    in_force, bus = CurrentSettings(), Bus()
    heard = create_event_handler(in_force, bus)
    readable = replace(drafted(NEWER), seq=1)
    heard(readable)
    assert in_force() == NEWER
    known = readable.data["settings"]["settings"]

    def told(seq: int, version: int, **changed: object) -> EventRecord:
        document = {"settings": {**known, **changed}, "version": version}
        return replace(readable, seq=seq, data={**readable.data, "settings": document})

    with capture_logs() as said:
        heard(told(2, 3, of_a_newer_version=1))
    assert in_force() == NEWER
    assert [one["event"] for one in said] == ["settings_decode_failed"]
    assert said[0]["current_version"] == 2
    with capture_logs() as said:
        heard(replace(readable, seq=3, type="sectors_changed"))  # of another kind, same topic
    assert said == []
    heard(told(4, 4, max_portfolio_symbols=9))
    assert (in_force().version, in_force().max_portfolio_symbols) == (4, 9)


def drafted(settings: Configuration) -> EventRecord:
    (draft,) = encode_event(ConfigurationChanged(settings, NOW))
    return EventRecord(draft.topic, draft.type, draft.subject, draft.data, draft.occurred_at, 0)
