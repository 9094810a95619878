"""`my-symbols watch`: prints the events of a running service, one line each."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.client import (
    CONNECT_TIMEOUT_S,
    DEFAULT_URL,
    api_address,
    not_our_service,
    parse_document,
    parse_response,
    trust_for,
    unreachable,
)
from app.cli.credentials import find_credential
from app.cli.lazy import lazy_module
from app.cli.output import Output, Url, report_errors

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy_module("aiohttp")

command = typer.Typer(add_completion=False)
TOPICS: Final = (
    "portfolio_change", "alert", "rebalance", "job", "configuration", "scoring_run", "mode",
)  # fmt: skip
READ_TIMEOUT_S: Final = 45.0  # three heartbeats
_RECONNECT_PAUSE_S: Final = 2.0
_EVENT_STREAM: Final = "text/event-stream"
_CONTROL_MESSAGES: Final = frozenset({"hello", "heartbeat", "resumed"})
_SETTLED: Final = frozenset({"event", "gap"})  # nothing up to their number is still to come


@dataclass(slots=True)
class ServerEventReader:
    """Reads server-sent events and resumes after the last one on reconnect."""

    url: str
    topics: str
    last_sequence: int | None
    has_connected: bool = False
    uses_key: bool = True

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yields messages until the connection ends. Raises CommandError for a refusal."""
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
        )
        last = self.last_sequence
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        credential = find_credential(self.url) if self.uses_key else None
        headers |= {} if credential is None else credential.headers
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.get(
                api_address(self.url, "/events"),
                params={"topics": self.topics},
                headers=headers,
                ssl=trust_for(self.url),
            ) as response,
        ):
            if response.status == 401 and credential is not None and credential.is_automatic:
                self.uses_key = False  # this service does not know the key of this machine
                return
            if response.status != 200 or response.content_type != _EVENT_STREAM:
                parse_response(response, await response.text(), self.url)
                raise not_our_service(response.status, self.url)
            self.has_connected = True
            async for line in response.content:
                if line.startswith(b"data: "):
                    message = parse_document(line.removeprefix(b"data: "))
                    if message is None:
                        raise not_our_service(response.status, self.url)
                    is_settled = message["type"] in _SETTLED
                    if is_settled and message.get("sequence") is not None:
                        self.last_sequence = message["sequence"]
                    yield message


@command.command()
def watch(
    topics: Annotated[
        list[str] | None,
        typer.Argument(help="Topics, also ticker:SYMBOL; all but the frequent ones by default."),
    ] = None,
    resume_from: Annotated[
        int | None, typer.Option(min=0, help="Sequence of the last event that was seen.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Exit after this many events.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document per line on stdout.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show events as they happen, with reconnects, until Ctrl-C."""
    with report_errors(as_json) as output:
        reader = ServerEventReader(url, ",".join(topics or TOPICS), resume_from)
        asyncio.run(_print_events(reader, output, count))


async def _print_events(reader: ServerEventReader, output: Output, count: int | None) -> None:
    printed = 0

    def note_break() -> None:
        output.notes.print("The connection ended; reconnecting.")

    async for message in follow_events(reader, note_break):
        _print_message(message, output)
        printed += message["type"] == "event"
        if printed == count:
            return


async def follow_events(
    reader: ServerEventReader, on_break: Callable[[], None]
) -> AsyncIterator[dict[str, Any]]:
    """Yields events and gaps without end; reconnects after each break of the connection.

    Raises CommandError for a service that refuses, or that never answered.
    """
    while True:
        try:
            async for message in reader.messages():
                if message["type"] not in _CONTROL_MESSAGES:
                    yield message
        except (aiohttp.ClientError, TimeoutError) as error:
            if not reader.has_connected:
                raise unreachable(reader.url, error) from None
        if not reader.has_connected:
            continue  # once more, without a key
        on_break()
        await asyncio.sleep(_RECONNECT_PAUSE_S)


def _print_message(message: dict[str, Any], output: Output) -> None:
    if output.as_json:
        output.print_document(message)
        return
    sequence = "-" if message.get("sequence") is None else message["sequence"]
    topic = message.get("topic", message["type"])
    data = message.get("data", {name: value for name, value in message.items() if name != "type"})
    text = json.dumps(data, default=float)
    line = f"{message.get('timestamp') or '-'}  {sequence:>8}  {topic:<18} {text}"
    output.console.print(line, markup=False, soft_wrap=True)
