"""C16 in full: thousands of reads over HTTP while members are swapped, on both databases."""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.processes.fleet import PREFIX, fleet, until
from tests.support.service_over_socket import serving

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("fleet")]

READS = 10_000
CONNECTIONS = 8
VERSIONS = 5  # that each connection must have seen, so that there was something to tear
CONTRACTS = 24
PAUSE_S = 0.1  # between two swaps: what is read is the subject


async def asked(session: aiohttp.ClientSession, url: str, path: str, body: Any = None) -> Any:
    """The document of a success, None where it cannot be done now."""
    method = "GET" if body is None else "POST"
    async with session.request(method, url + PREFIX + path, json=body) as answer:
        assert answer.status in {200, 201, 409, 422, 503}, await answer.text()
        return await answer.json() if answer.status in {200, 201} else None


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, bytes]:
    """Entity tag and body of the portfolio, over this very connection."""
    writer.write(f"GET {PREFIX}/portfolio HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(headers["content-length"]))
    assert status == "HTTP/1.1 200 OK", body
    return headers["etag"], body


async def read(url: str, reads: int, held: dict[int, list[Any]]) -> int:
    """One connection, which never sees a mixture or an earlier version; how many it saw.

    `held` is what all connections saw of each version: the same.
    """
    seen, last, done = [-1], ("", b""), 0
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    while done < reads or len(seen) <= VERSIONS:
        done += 1
        if (answer := await answered(reader, writer)) == last:
            continue
        last = answer
        document = json.loads(answer[1], parse_float=Decimal)
        members, version = document["members"], document["version"]
        assert [one["position_rank"] for one in members] == list(range(1, len(members) + 1))
        assert len({one["symbol"] for one in members}) == len(members) == document["size"]
        weights = [one["weight_percentage"] for one in members]
        assert sum(weights) + document["cash_percentage"] == 100
        assert answer[0] == f'"{version}"'
        assert version >= seen[-1]
        whole = [(one["symbol"], one["weight_percentage"]) for one in members]
        assert held.setdefault(version, whole) == whole
        if version > seen[-1]:
            seen.append(version)
    writer.close()
    return len(seen) - 1


async def swapped(
    urls: Sequence[str], reading: "asyncio.Future[list[int]]"
) -> dict[int, tuple[str, str]]:
    """Two symbols take each other's place; who left and who came, by version.

    Asked for at one process after the other.
    """
    made: dict[int, tuple[str, str]] = {}
    async with aiohttp.ClientSession() as session:
        held = await asked(session, urls[0], "/portfolio")
        names = {one["symbol"] for one in held["members"]}
        ranked = await asked(session, urls[0], "/scoring/rankings?eligible_only=true")
        others = [one["symbol"] for one in ranked["items"] if one["symbol"] not in names]
        inside, waiting = held["members"][-1]["symbol"], others
        while not reading.done():
            await asyncio.sleep(PAUSE_S)
            for name in waiting:
                swap = {"old_symbol": inside, "new_symbol": name}
                url = urls[len(made) % len(urls)]
                done = await asked(session, url, "/portfolio/replace-symbol", swap)
                if done is not None:
                    made[done["version"]] = (inside, name)
                    inside, waiting = name, [inside]
                    break
    return made


async def stormed(urls: Sequence[str], reads: int) -> None:
    """Swaps and so many reads at once, after which the history proves every change."""
    async with aiohttp.ClientSession() as session:
        await until(lambda: asked(session, urls[0], "/portfolio/initialize", {"size": 6}))
        share, held = reads // CONNECTIONS, dict[int, list[Any]]()
        reading = asyncio.gather(
            *(read(urls[place % len(urls)], share, held) for place in range(CONNECTIONS))
        )
        made, seen = await asyncio.gather(swapped(urls, reading), reading)
        assert min(seen) >= VERSIONS
        for version in held.keys() & made.keys():
            names = {symbol for symbol, _ in held[version]}
            assert (made[version][0] in names, made[version][1] in names) == (False, True)
        assert (await asked(session, urls[-1], "/portfolio/integrity"))["ok"]


def test_C16_ten_thousand_reads_of_one_process_are_each_of_one_version(tmp_path: Path) -> None:
    with serving(tmp_path, contracts=CONTRACTS) as url:
        asyncio.run(stormed([url], READS))


async def test_C16_ten_thousand_reads_of_two_processes_are_each_of_one_version() -> None:
    async with fleet(["all", "all"], contracts=CONTRACTS) as running:
        await stormed([one.url for one in running.alive()], READS)
