"""`my-symbols watch`: events of a running service as they happen, one line each."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import aiohttp
import typer

from app.cli.client import not_ours, said, understood, unreachable
from app.cli.output import HERE, Output, Url, reporting
from app.foundation.http.errors import PREFIX

TOPICS: Final = (
    "portfolio_change", "alert", "rebalance", "job", "configuration", "board", "mode",
)  # fmt: skip
SILENCE_S: Final = 45.0  # three heartbeats
_AGAIN_S: Final = 2.0
_STREAM: Final = "text/event-stream"
_ABOUT: Final = frozenset({"hello", "heartbeat", "resumed"})


@dataclass(slots=True)
class _Tail:
    """Reads on from the last event after every break."""

    url: str
    topics: str
    last: int | None
    is_connected: bool = False

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Until the connection ends. Raises CommandError for a refusal."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=SILENCE_S)
        headers = {} if self.last is None else {"Last-Event-ID": str(self.last)}
        address = f"{self.url.rstrip('/')}{PREFIX}/events"
        async with (
            aiohttp.ClientSession(timeout=limits) as session,
            session.get(address, params={"topics": self.topics}, headers=headers) as answer,
        ):
            if answer.status != 200 or answer.content_type != _STREAM:
                understood(answer, await answer.text(), self.url)
                raise not_ours(answer.status, self.url)
            self.is_connected = True
            async for raw in answer.content:
                if raw.startswith(b"data: "):
                    message = said(raw.removeprefix(b"data: "))
                    if message is None:
                        raise not_ours(answer.status, self.url)
                    if message.get("sequence") is not None:
                        self.last = message["sequence"]
                    yield message


def watch(
    topics: Annotated[
        list[str] | None, typer.Argument(help="Topics, ticker:SYMBOL among them; else the rare.")
    ] = None,
    resume_from: Annotated[
        int | None, typer.Option(min=0, help="The newest sequence that was seen.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many events.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document per line on stdout.")
    ] = False,
    url: Url = HERE,
) -> None:
    """Show events as they happen, over breaks of the connection, until Ctrl-C."""
    with reporting(as_json) as output:
        tail = _Tail(url, ",".join(topics or TOPICS), resume_from)
        asyncio.run(_follow(tail, output, count))


async def _follow(tail: _Tail, output: Output, count: int | None) -> None:
    shown = 0
    while True:
        try:
            async for message in tail.messages():
                if message["type"] in _ABOUT:
                    continue
                _show(message, output)
                shown += message["type"] == "event"
                if shown == count:
                    return
        except (aiohttp.ClientError, TimeoutError) as error:
            if not tail.is_connected:
                raise unreachable(tail.url, error) from None
        output.notes.print("The connection ended; trying again.")
        await asyncio.sleep(_AGAIN_S)


def _show(message: dict[str, Any], output: Output) -> None:
    if output.as_json:
        output.machine(message)
        return
    number = "-" if message.get("sequence") is None else message["sequence"]
    about = message.get("topic", message["type"])
    data = message.get("data", {key: one for key, one in message.items() if key != "type"})
    told = json.dumps(data, default=float)
    line = f"{message.get('timestamp') or '-'}  {number:>8}  {about:<18} {told}"
    output.people.print(line, markup=False, soft_wrap=True)
