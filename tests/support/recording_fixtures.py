"""A tape of the local exchange with time moved by hand, and a process that has no network."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from app.adapters.kucoin.recording.entries import Entry, RecordingReader
from app.cli.application import application
from app.configuration.domain.model import Configuration
from app.container.recording import RecordingListener, ReplayResult, SystemTime, record, replay
from app.foundation.data_status import DataSource
from app.research.domain.recording import BoardFingerprint, EndOfRecordingError, RecordingError
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.settings import KucoinVariables
from tests.support import child_processes

PLENTY = 100_000
PATIENCE_S = 240.0
START = 1_795_000_000.0  # 2026-11-18T11:06:40Z
_FORBIDDEN = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")


@dataclass
class WalkingClock:
    """Time that goes on by a millisecond whenever somebody looks: no two moments are alike."""

    passed_s: float = 0.0

    def wall(self) -> float:
        return START + self.passed_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.wall(), UTC)

    def monotonic(self) -> float:
        self.passed_s += 0.001
        return 500.0 + self.passed_s


Act = Callable[["Studio"], Awaitable[None]]


@dataclass
class Studio:
    """What an exchange does while it is recorded: `acts` by their second."""

    path: Path
    acts: dict[float, Act] = field(default_factory=dict)
    clock: WalkingClock = field(default_factory=WalkingClock)
    boards: list[BoardFingerprint] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    base_url: str = ""

    @property
    def listener(self) -> RecordingListener:
        return RecordingListener(
            self.boards.append, lambda step, code: self.failed.append((step.value, code))
        )

    async def control(self, method: str, where: str, **body: Any) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.base_url}/_control/{where}", json=body) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def _sleep(self, seconds: float) -> None:
        self.clock.passed_s += seconds
        await asyncio.sleep(0)
        for at in [one for one in self.acts if one <= self.clock.passed_s]:
            await self.acts.pop(at)(self)

    async def recorded(
        self, for_s: float, board_every_s: float | None, contracts: int = 10, **more: Any
    ) -> "Studio":
        """`more` goes to `record` by name."""
        options = SandboxOptions(quota=PLENTY, contracts=contracts)
        # Also what the exchange keeps for a moment goes by virtual time: equal runs, equal bytes.
        async with serve_exchange(options, self.clock.wall, self.clock.wall) as self.base_url:
            around = SystemTime(self.clock.now, self.clock.monotonic, self._sleep, Random(7))
            await record(
                self.path,
                _settings(self.base_url),
                around,
                self.listener,
                for_s,
                board_every_s,
                is_streaming=False,
                **more,
            )
        assert not self.acts, "the recording ended before everything had happened"
        return self


@dataclass
class StreamStudio(Studio):
    """Real time and real connections; it records until `script` has seen all that it wants."""

    _over: bool = False

    async def _rest(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.1))
        if self._over:
            raise EndOfRecordingError("the script is over")

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await asyncio.sleep(0.2)

    def entries(self) -> list[Entry]:
        """What is safe in the file by now."""
        try:
            with RecordingReader(self.path) as reader:
                return list(reader)
        except (FileNotFoundError, RecordingError):  # it has not begun
            return []

    async def streamed(
        self, script: Callable[["StreamStudio"], Awaitable[None]], configuration: Configuration
    ) -> "StreamStudio":
        options = SandboxOptions(quota=PLENTY, contracts=14)
        async with serve_exchange(options, time.time) as self.base_url:
            around = SystemTime(lambda: datetime.now(UTC), time.monotonic, self._rest)
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    record(
                        self.path,
                        _settings(self.base_url),
                        around,
                        self.listener,
                        for_s=PATIENCE_S,
                        board_every_s=0.5,
                        configuration=configuration,
                    )
                )
                await script(self)
                self._over = True
        return self


def _settings(base_url: str) -> KucoinVariables:
    return KucoinVariables(
        base_url=base_url,
        source=DataSource.SANDBOX,
        quota_per_window=PLENTY,
        connect_timeout_s=60.0,
        read_timeout_s=60.0,
        total_timeout_s=120.0,
    )


async def replayed(path: Path) -> tuple[Studio, ReplayResult]:
    """In this process."""
    heard = Studio(path)
    return heard, await replay(path, heard.listener)


def alone(path: Path) -> tuple[int | None, Any]:
    """`my-symbols tape replay` in a process without a network: its exit code and document."""
    process, link = child_processes.born(offline, str(path))
    with link, link.makefile(encoding="utf-8") as said:
        text = said.read()
    process.join(PATIENCE_S)
    return process.exitcode, json.loads(text)


def offline(path: str) -> None:
    """Runs in the process: from here on whoever touches the network is told no."""
    sys.addaudithook(_refuse)
    try:
        socket.create_connection(("127.0.0.1", 9))
    except PermissionError:
        application(["tape", "replay", path, "--json"])
    raise AssertionError("there is a network after all")


def _refuse(event: str, given: tuple[Any, ...]) -> None:
    is_inner = event == "socket.__new__" and given[1] == socket.AF_UNIX
    if event in _FORBIDDEN or (event == "socket.__new__" and not is_inner):
        raise PermissionError(f"no network here: {event}")
