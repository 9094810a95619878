"""Schemas of the messages of stream and webhooks, as an AsyncAPI document."""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, Literal, get_type_hints

from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import models_json_schema

from app.alerts.domain.notifications import NotificationKind
from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.sections import NotificationPriority
from app.foundation.data_status import DataSource, DataStatus
from app.foundation.events import EventKind
from app.foundation.http.openapi_fields import describe_fields
from app.foundation.http.protocol import PREFIX
from app.foundation.http.schemas import Difference, Json, Out, Percent, Price, Score, UtcTime
from app.operations.api.dashboard_routes import DashboardOut
from app.operations.api.stream_routes import Ping, Subscribe, Unsubscribe
from app.operations.domain.event_codec import CODEC
from app.operations.services.event_messages import TICKER, LiveTopic
from app.portfolio.domain.event_log import EventType
from app.portfolio.domain.events import PortfolioChanged
from app.scoring.domain.events import ScoreChanged
from app.signals.domain.events import SignalChanged

ASYNCAPI_PATH: Final = "/asyncapi.json"
_SCHEMAS: Final = "#/components/schemas/"
_DESCRIPTION: Final = """\
Events of My Symbols. WebSocket, server-sent events and webhooks send the same envelope: `type` is
`event`, `topic` the subscription, `sequence` the number of a stored event (null for live topics),
and `data` the content. Messages of another `type` are about the stream itself."""


class MemberWeightsData(Out):
    """Weights of one symbol before and after a change; null outside of the portfolio."""

    symbol: str
    contract: str
    position_rank: int | None = Field(description="Rank after the change; null if it left.")
    old_weight_percentage: Percent | None = Field(description="Weight before the change.")
    new_weight_percentage: Percent | None = Field(description="Weight after the change.")
    reason: str | None = Field(description="Reason for this symbol; null if none is stated.")


class HistoryEntryData(Out):
    """Entry of the history, as in `GET /portfolio/history`."""

    seq: int = Field(description="Number of the entry in the history.")
    type: EventType = Field(description="Kind of the entry.")
    symbol: str | None
    other_symbol: str | None = Field(description="Replaced symbol.")
    reason: str | None


class PortfolioChangeDetails(Out):
    """One version of the portfolio."""

    version: int = Field(description="Version of the portfolio after the change.")
    other_symbol: str | None = Field(description="Replaced symbol, if one was replaced.")
    reason: str | None
    actor: str | None
    run_id: str | None = Field(description="Rebalance run; null for another cause.")
    proposal_id: str | None = Field(description="Approved proposal; null without one.")
    old_cash_percentage: Percent | None = Field(description="Share not invested, before.")
    new_cash_percentage: Percent | None = Field(description="Share not invested, after.")
    members: list[MemberWeightsData] = Field(
        description="Every member before or after: by rank, then those that left."
    )
    history: list[HistoryEntryData] = Field(description="Entries of the version, oldest first.")


class PortfolioChangeData(Out):
    """Change of members or weights; one event per version."""

    type: EventType = Field(description="Kind of the first history entry.")
    symbol: str | None = Field(
        description="The symbol that entered, left or is concerned; null if several are, or none."
    )
    details: PortfolioChangeDetails = Field(description="Version, members and causes.")
    timestamp: UtcTime = Field(description="UTC time of the change.")


class ScoreUpdateData(Out):
    """Score of one symbol that differs from the board before."""

    symbol: str
    new_score: Score | None = Field(description="Composite score; null while unavailable.")
    old_score: Score | None = Field(description="Composite score before; null if unavailable.")
    change: Difference | None = Field(description="New minus old; null unless both are known.")
    rank: int | None = Field(description="Rank on the new board; null without a score.")
    run_id: str


class SignalChangedData(Out):
    """New or processed signal."""

    type: Literal["signal_changed"] = Field(description="Kind of the event.")
    signal_id: str
    source: str = Field(description="Name of the source that sent the signal.")
    signal_type: str
    symbol: str | None
    direction: str = Field(description="Direction of the claim: `BUY`, `SELL` or `NEUTRAL`.")
    state: str = Field(description="State of the signal.")
    evaluation: str | None = Field(description="Verdict; null without one.")
    score: Score | None = Field(description="Probability that the signal is right.")
    reason: str | None
    occurred_at: UtcTime


class SettingsVersionData(Out):
    """All business settings of one version, as in `GET /configuration`."""

    version: int = Field(description="Version of the settings.")
    settings: dict[str, Json] = Field(description="Settings by section.")


class ConfigurationChangedData(Out):
    """New business settings are in force."""

    type: Literal["configuration_changed"] = Field(description="Kind of the event.")
    settings: SettingsVersionData = Field(description="Settings in force.")
    occurred_at: UtcTime
    changes: list[str] = Field(
        description="Changed settings in words, such as `entry_score: 0.6 to 0.7`."
    )
    reason: str | None = Field(description="Reason of the change; null if unknown.")
    actor: str | None = Field(description="Caller that made it; null if unknown.")


class TickerRowData(Out):
    """Quote of one symbol; null is unknown."""

    symbol: str
    contract: str
    last_price: Price | None = Field(description="Price of the last trade.")
    bid: Price | None = Field(description="Best bid.")
    ask: Price | None = Field(description="Best ask.")
    mark_price: Price | None
    index_price: Price | None = Field(description="Index price of the contract.")
    funding_rate: str | None = Field(description="Funding of the current interval, a fraction.")
    as_of: UtcTime | None = Field(description="Exchange time up to which all parts are known.")
    data_status: DataStatus = Field(description="Freshness of the quote.")


class TickerData(TickerRowData):
    """Quote of one symbol, from the topic `ticker:SYMBOL`."""

    data_source: DataSource


class TickersData(Out):
    """Quotes of all listed symbols, or those that changed since the message before."""

    data_source: DataSource
    is_complete: bool = Field(description="True if the message holds every listed symbol.")
    tickers: list[TickerRowData] = Field(description="Quotes by symbol.")
    removed: list[str] = Field(description="Symbols that are no longer listed.")


class NotificationData(Out):
    """Text for people beside the event of a webhook."""

    id: str = Field(description="Equal for every attempt; also in the header `X-Event-Id`.")
    kind: NotificationKind = Field(description="Kind that the channel subscribes to.")
    priority: NotificationPriority = Field(
        description="Priority of its category: immediate, high, normal or low."
    )
    critical: bool = Field(description="True if no limit per hour applies.")
    title: str = Field(description="One line.")
    body: str = Field(description="Further lines; may be empty.")
    created_at: UtcTime


class NotificationMessage(Out):
    """Message of a webhook without an event, such as a test of the channel."""

    type: Literal["notification"] = Field(description="Always `notification`.")
    topic: None = Field(description="Always null.")
    sequence: None = Field(description="Always null.")
    timestamp: UtcTime = Field(description="UTC time of the notification.")
    data: dict[str, Json] = Field(description="Facts of the notification; may be empty.")
    notification: NotificationData = Field(description="Text for people.")


class HelloMessage(Out):
    """First message of a stream."""

    type: Literal["hello"] = Field(description="Kind of the message.")
    sequence: int = Field(description="Newest number.")
    heartbeat_s: float | None = Field(None, description="Interval of heartbeats; WebSocket only.")
    topics: list[str] | None = Field(None, description="Subscriptions; server-sent events only.")


class SubscribedMessage(Out):
    """Answer to `subscribe`."""

    type: Literal["subscribed"] = Field(description="Kind of the message.")
    sequence: int = Field(description="Number after which the next events come.")
    topics: list[str] = Field(description="All subscriptions.")


class UnsubscribedMessage(Out):
    """Answer to `unsubscribe`."""

    type: Literal["unsubscribed"] = Field(description="Kind of the message.")
    topics: list[str] = Field(description="Subscriptions that are left.")


class ResumedMessage(Out):
    """Events after `resume_from` follow; only events and gaps move the position of a reader."""

    type: Literal["resumed"] = Field(description="Kind of the message.")
    sequence: int = Field(description="Newest number.")
    resume_from: int = Field(description="Number after which events are sent.")


class GapMessage(Out):
    """Events are missing: read the state again; the stream goes on after `sequence`."""

    type: Literal["gap"] = Field(description="Kind of the message.")
    sequence: int = Field(description="Number after which the stream goes on.")
    resume_from: int = Field(description="Number after which events are missing.")
    reason: Literal["too_old", "unknown_sequence", "sequence_went_back"] = Field(
        description="Cause of the gap."
    )
    oldest: int = Field(description="Number of the oldest stored event.")


class HeartbeatMessage(Out):
    """Sent after fifteen seconds without another message."""

    type: Literal["heartbeat"] = Field(description="Kind of the message.")
    sequence: int = Field(description="Newest number.")


class PongMessage(Out):
    """Answer to `ping`."""

    type: Literal["pong"] = Field(description="Kind of the message.")
    sequence: int = Field(description="Newest number.")


class ErrorMessage(BaseModel):
    """Refusal of a command; the connection stays open."""

    type: Literal["error"] = Field(description="Kind of the message.")
    code: str = Field(description="A stable error code.")
    detail: str = Field(description="Cause, in words.")
    errors: list[dict[str, Json]] | None = Field(None, description="Faults by field.")


_CONTROL: Final[tuple[type[BaseModel], ...]] = (
    HelloMessage,
    SubscribedMessage,
    UnsubscribedMessage,
    ResumedMessage,
    GapMessage,
    HeartbeatMessage,
    PongMessage,
    ErrorMessage,
)
_SSE_CONTROL: Final = (HelloMessage, ResumedMessage, GapMessage, HeartbeatMessage)
_COMMANDS: Final[tuple[type[BaseModel], ...]] = (Subscribe, Unsubscribe, Ping)
# Content of the events that the stream does not send in the form of their class.
_SHAPED: Final[dict[type, type[BaseModel]]] = {
    PortfolioChanged: PortfolioChangeData,
    ScoreChanged: ScoreUpdateData,
    SignalChanged: SignalChangedData,
    ConfigurationChanged: ConfigurationChangedData,
}
_LIVE: Final[dict[str, tuple[str, type[BaseModel]]]] = {
    "ticker": (f"{TICKER}:SYMBOL", TickerData),
    LiveTopic.TICKERS.value: (LiveTopic.TICKERS.value, TickersData),
    LiveTopic.DASHBOARD.value: (LiveTopic.DASHBOARD.value, DashboardOut),
}


def _data_model(kind: EventKind) -> type[BaseModel]:
    """Returns the model of the content of one kind of stored event."""
    shaped = _SHAPED.get(kind.cls)
    if shaped is not None:
        return shaped
    hints = get_type_hints(kind.cls)
    fields: dict[str, Any] = {
        name: (UtcTime if hint is datetime else hint, ...) for name, hint in hints.items()
    }
    of_type: Any = (Literal[kind.type], Field(description="Kind of the event."))
    return create_model(
        f"{kind.cls.__name__}Data",
        __base__=Out,
        __doc__=kind.cls.__doc__,
        type=of_type,
        **fields,
    )


def _envelope_model(
    name: str, topic: str, data: type[BaseModel], *, is_stored: bool
) -> type[BaseModel]:
    """Returns the model of the envelope with this topic and content."""
    title = "".join(part.capitalize() for part in name.split("_"))
    says_topic = "Topic of the stream."
    fields: dict[str, Any] = {
        "type": (Literal["event"], Field(description="Always `event`.")),
        "topic": (str, Field(description=says_topic, pattern=f"^{TICKER}:.+$"))
        if ":" in topic
        else (Literal[topic], Field(description=says_topic)),
        "sequence": (int, Field(description="Number of the event, over all topics without a gap."))
        if is_stored
        else (None, Field(description="Always null: the message is not stored.")),
        "timestamp": (
            UtcTime if is_stored else UtcTime | None,
            Field(description="UTC time of the content."),
        ),
        "data": (data, Field(description="Content.")),
    }
    return create_model(f"{title}Message", __base__=Out, __doc__=data.__doc__, **fields)


def event_messages() -> dict[str, type[BaseModel]]:
    """Returns the model of every message that carries an event, by the name of the message."""
    stored = {
        kind.type: _envelope_model(kind.type, kind.topic.value, _data_model(kind), is_stored=True)
        for kind in CODEC.kinds
    }
    live = {
        name: _envelope_model(name, topic, data, is_stored=False)
        for name, (topic, data) in _LIVE.items()
    }
    return {**stored, **live}


def _webhook_model(message: type[BaseModel]) -> type[BaseModel]:
    return create_model(
        message.__name__.replace("Message", "Delivery"),
        __base__=message,
        __doc__=message.__doc__,
        notification=(NotificationData, Field(description="Text for people.")),
    )


def asyncapi_document(release: str) -> dict[str, Any]:
    """Returns the AsyncAPI 3.0 document of all messages of stream and webhooks."""
    events = event_messages()
    deliveries = {
        f"{kind.type}_delivery": _webhook_model(events[kind.type]) for kind in CODEC.kinds
    }
    control = {_name(model): model for model in _CONTROL}
    commands = {model.__name__.lower(): model for model in _COMMANDS}
    webhook: dict[str, type[BaseModel]] = {**deliveries, "notification": NotificationMessage}
    sent: dict[str, type[BaseModel]] = {**events, **control, **webhook}
    _, outgoing = models_json_schema(
        [(model, "serialization") for model in sent.values()], ref_template=_SCHEMAS + "{model}"
    )
    _, incoming = models_json_schema(
        [(model, "validation") for model in commands.values()], ref_template=_SCHEMAS + "{model}"
    )
    schemas: dict[str, Any] = {**outgoing["$defs"], **incoming["$defs"]}
    describe_fields(schemas)
    sse_control = {_name(model) for model in _SSE_CONTROL}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "My Symbols events", "version": release, "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": {
            "stream": _channel(
                f"{PREFIX}/stream",
                "WebSocket: events, answers to commands, and commands.",
                [*events, *control, *commands],
            ),
            "events": _channel(
                f"{PREFIX}/events",
                "Server-sent events: the text of `data` is one message.",
                [*events, *(name for name in control if name in sse_control)],
            ),
            "webhook": _channel(None, "POST to a webhook channel, signed.", [*webhook]),
        },
        "operations": {
            "send_stream": _operation("send", "stream", [*events, *control]),
            "receive_commands": _operation("receive", "stream", [*commands]),
            "send_events": _operation(
                "send", "events", [*events, *(name for name in control if name in sse_control)]
            ),
            "send_webhook": _operation("send", "webhook", [*webhook]),
        },
        "components": {
            "messages": dict(_messages({**sent, **commands})),
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _name(model: type[BaseModel]) -> str:
    return model.__name__.removesuffix("Message").lower()


def _channel(address: str | None, text: str, names: list[str]) -> dict[str, Any]:
    messages = {name: {"$ref": f"#/components/messages/{name}"} for name in names}
    return {"address": address, "description": text, "messages": messages}


def _operation(action: str, channel: str, names: list[str]) -> dict[str, Any]:
    messages = [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": messages,
    }


def _messages(models: dict[str, type[BaseModel]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, model in models.items():
        summary = (model.__doc__ or name).strip().splitlines()[0]
        yield (
            name,
            {
                "name": name,
                "summary": summary,
                "payload": {"$ref": f"{_SCHEMAS}{model.__name__}"},
            },
        )


if __name__ == "__main__":
    json.dump(asyncapi_document(version("my-symbols")), sys.stdout, indent=1)
