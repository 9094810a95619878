"""`my-symbols channels` and `notifications`: receivers of notifications, and their deliveries."""

import sys
from typing import Annotated, Any, Final

import typer

from app.cli.calls import Call, IdKind, Plan, changes, find_id, reads
from app.cli.choices import ChannelKindName, DeliveryStateName, NotificationSubject
from app.cli.client import Client, quote_segment
from app.cli.output import Limit, User, drop_missing

channels = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Receivers of notifications: list, add, change, delete, test. An address holds a secret,"
    " so it is asked for, or read from standard input.",
)
notifications = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Deliveries of notifications: list, send again.",
)
CHANNEL: Final = IdKind("channel", "id", ("/notifications/channels",), is_paged=False)
ChannelId = Annotated[str, typer.Argument(help="Id of a channel, or the beginning of it.")]
Kind = Annotated[ChannelKindName, typer.Option("--kind", help="Protocol of the receiver.")]
Subjects = Annotated[
    list[NotificationSubject] | None,
    typer.Option("--subject", help="Only these; may be repeated; all by default."),
]
Enabled = Annotated[bool, typer.Option("--enabled/--disabled", help="Deliver to it, or not.")]
Signed = Annotated[
    bool, typer.Option("--signed", help="Also ask for the key that signs messages of a webhook.")
]
_CHANNEL_COLUMNS: Final = {
    "id#": "id",
    "name": "name",
    "kind": "kind",
    "service": "service",
    "subjects": "kinds",
    "enabled": "enabled",
    "created": "created_at",
}
_DELIVERY_COLUMNS: Final = {
    "id>": "id",
    "created": "created_at",
    "kind": "kind",
    "title": "title",
    "state": "state",
    "attempts>": "attempts",
    "error": "error",
    "channel#": "channel_id",
}


@reads(channels, "list")
def list_channels() -> Call:
    """List the receivers; neither address nor secret is shown."""
    return Call(
        "/notifications/channels",
        "channels",
        items="items",
        columns=_CHANNEL_COLUMNS,
        empty="there is no channel; `channels add` makes one",
    )


@changes(channels, "add")
def add_channel(
    name: Annotated[str, typer.Argument(help="Name of the new channel.")],
    kind: Kind = "apprise",
    subject: Subjects = None,
    enabled: Enabled = True,
    signed: Signed = False,
    user: User = None,
) -> Call:
    """Add a receiver at an address such as tgram://TOKEN/CHAT or https://host/path.

    Standard input has the address on its first line, with --signed the key on the second one.
    """
    body = {
        "name": name,
        "kind": kind,
        "url": read_secret("Address"),
        "secret": read_secret("Key") if signed else None,
        "kinds": [one.value for one in subject] if subject else None,
        "enabled": enabled,
        "user": user,
    }
    return Call("/notifications/channels", "channel", "POST", body=body)


@changes(channels, "change")
def change_channel(
    channel: ChannelId,
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    subject: Subjects = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Deliver to it, or not.")
    ] = None,
    new_address: Annotated[
        bool, typer.Option("--new-address", help="Also ask for another address.")
    ] = False,
    signed: Signed = False,
    user: User = None,
) -> Plan:
    """Change a receiver; what no option names stays as it is."""
    options = {
        "name": name,
        "url": read_secret("Address") if new_address else None,
        "secret": read_secret("Key") if signed else None,
        "kinds": [one.value for one in subject] if subject else None,
        "enabled": enabled,
        "user": user,
    }

    async def change(client: Client) -> Call:
        channel_id = await find_id(client, CHANNEL, channel)
        listed = (await client.get("/notifications/channels")).document["items"]
        stored: dict[str, Any] = next((one for one in listed if one["id"] == channel_id), {})
        kept = {part: stored[part] for part in ("name", "kind", "kinds", "enabled") if stored}
        path = f"/notifications/channels/{quote_segment(channel_id)}"
        return Call(path, "channel", "PUT", body={**kept, **drop_missing(options)})

    return change


@changes(channels, "delete")
def delete_channel(channel: ChannelId) -> Call:
    """Delete a receiver."""
    return Call(
        "/notifications/channels/{}", "deleted channel", "DELETE", reference=(CHANNEL, channel)
    )


@changes(channels, "test")
def test_channel(channel: ChannelId) -> Plan:
    """Send a test notification now."""

    async def test(client: Client) -> Call:
        body = {"channel_id": await find_id(client, CHANNEL, channel)}
        return Call("/notifications/test", "test", "POST", body=body)

    return test


@reads(notifications, "list")
def list_notifications(
    channel: Annotated[
        str | None, typer.Option(help="Only to the channel whose id begins so.")
    ] = None,
    state: Annotated[DeliveryStateName | None, typer.Option(help="Only in this state.")] = None,
    limit: Limit = 50,
) -> Plan:
    """List the deliveries, newest first."""

    async def list_deliveries(client: Client) -> Call:
        channel_id = None if channel is None else await find_id(client, CHANNEL, channel)
        return Call(
            "/notifications",
            "notifications",
            query={"limit": limit, "channel_id": channel_id, "state": state},
            items="items",
            columns=_DELIVERY_COLUMNS,
            empty="no notification was sent",
        )

    return list_deliveries


@changes(notifications, "redrive")
def redrive(
    notification: Annotated[int, typer.Argument(min=1, help="Number of a dead delivery.")],
) -> Call:
    """Try a dead delivery again."""
    return Call(f"/notifications/{notification}/redrive", "notification", "POST", body={})


def read_secret(label: str) -> str:
    """Returns a secret that is asked for on a terminal, else the next line of standard input."""
    if sys.stdin.isatty():
        typed: str = typer.prompt(label, hide_input=True, err=True)
        return typed
    line = sys.stdin.readline().strip()
    if not line:
        raise typer.BadParameter(f"{label}: standard input has no such line.")
    return line
