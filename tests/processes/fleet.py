"""Several real processes of the service on one PostgreSQL, in front of one local exchange.

All of it can be killed, stopped and started again, the database included.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from app.foundation.sql import migrations
from tests.support import postgres

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/api/symbol-mgmt"
PATIENCE_S = 120.0  # for a busy machine; what is promised is asserted by its own limit
CONTRACTS = 24
DATABASE = "fleet"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Cluster:
    """A PostgreSQL of its own, which may be stopped at once and started again."""

    room: Path
    server: "subprocess.Popen[bytes]"
    who: dict[str, Any]

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://postgres@/{DATABASE}?host={self.room}"

    def stop(self) -> None:
        """As a crash does: nothing is written any more."""
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait(postgres.PATIENCE_S)

    def start(self) -> None:
        with _quiet(self.room):
            self.server = subprocess.Popen(self.server.args, cwd=self.room, **self.who)

    async def rows(self, statement: str, *values: object) -> list[Any]:
        connection = await asyncpg.connect(
            host=str(self.room), user="postgres", database=DATABASE, timeout=10
        )
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()


@contextlib.contextmanager
def _quiet(room: Path) -> Iterator[None]:
    """What is started writes into a file and not among what is measured."""
    saved = os.dup(1), os.dup(2)
    with (room / "postgres.log").open("ab") as log:
        for place in (1, 2):
            os.dup2(log.fileno(), place)
        try:
            yield
        finally:
            for place, before in zip((1, 2), saved, strict=True):
                os.dup2(before, place)
                os.close(before)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="my-symbols-fleet-", dir=postgres._home()) as name:
        room = Path(name)
        room.chmod(0o711)
        with _quiet(room):
            server = postgres._postgres(room, postgres._binaries())
        made = Cluster(room, server, postgres._unprivileged())
        try:
            yield made
        finally:
            made.stop()
            postgres._remove(room)
            room.mkdir(exist_ok=True)  # the context takes it away


@dataclass
class Replica:
    """One process of the service."""

    name: str
    role: str
    port: int
    log: Path
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def logged(self, word: str) -> int:
        return self.log.read_text(encoding="utf-8", errors="replace").count(word)


@dataclass
class Fleet:
    """Everything that runs, and questions to it."""

    cluster: Cluster
    exchange_url: str
    exchange: "subprocess.Popen[bytes]"
    session: aiohttp.ClientSession
    room: Path
    replicas: list[Replica] = field(default_factory=list)

    def launch(self, role: str, **variables: str) -> Replica:
        name = f"{role}-{len(self.replicas)}"
        port, log = free_port(), self.room / f"{name}.log"
        env = {key: value for key, value in os.environ.items() if not key.startswith("MYSYMBOLS")}
        env |= {
            "MYSYMBOLS_DATABASE__URL": self.cluster.url,
            "MYSYMBOLS_KUCOIN__BASE_URL": self.exchange_url,
            "MYSYMBOLS_KUCOIN__QUOTA_PER_WINDOW": "100000",
            "MYSYMBOLS_LIMITS__OPEN_MODE_PER_S": "1000000",
            "OPENBLAS_NUM_THREADS": "1",
            **variables,
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--role", role],
                cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        replica = Replica(name, role, port, log, process)
        self.replicas.append(replica)
        return replica

    def tell(self) -> None:
        """The end of what each process has logged, for who looks at a failed test."""
        for one in self.replicas:
            lines = one.log.read_text(encoding="utf-8", errors="replace").splitlines()
            print(f"--- {one.name} ({one.pid})", *lines[-40:], sep="\n")  # noqa: T201  # as said

    def alive(self) -> list[Replica]:
        return [one for one in self.replicas if one.process.poll() is None]

    async def ask(self, one: Replica, path: str) -> Any:
        """None where there is no good answer."""
        try:
            timeout = aiohttp.ClientTimeout(total=5)
            async with self.session.get(one.url + path, timeout=timeout) as answer:
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def get(self, one: Replica, path: str) -> Any:
        return await self.ask(one, PREFIX + path)

    async def post(self, one: Replica, path: str, body: Any = None, **headers: str) -> Any:
        """Asks again while the schedule sets the weights: that is what such an answer asks for."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            async with self.session.post(
                one.url + PREFIX + path, json=body or {}, headers=named
            ) as answer:
                document = await answer.json()
            if answer.status != 409 or document["code"] != "rebalance_in_progress":
                assert answer.status in {200, 201, 202}, document
                return document
            await asyncio.sleep(0.1)

    async def tried(self, one: Replica, path: str, body: Any) -> Any:
        """None where it cannot be done now."""
        async with self.session.post(one.url + PREFIX + path, json=body) as answer:
            assert answer.status in {200, 201, 503}, await answer.text()
            return None if answer.status == 503 else await answer.json()

    async def settings(self, **intervals: int) -> None:
        one = self.alive()[0]
        document = await self.get(one, "/configuration")
        document["intervals"] |= intervals
        version = {"If-Match": f'"{document["version"]}"'}
        url = one.url + PREFIX + "/configuration"
        async with self.session.put(url, json=document, headers=version) as answer:
            assert answer.status == 200, await answer.text()

    async def rule(self, name: str, **changes: object) -> None:
        one = self.alive()[0]
        async with self.session.put(
            f"{one.url}{PREFIX}/alerts/rules/{name}", json=changes
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def fault(self, kind: str, path: str = "*", **more: Any) -> None:
        url = f"{self.exchange_url}/_control/faults"
        async with self.session.post(url, json={"kind": kind, "path": path, **more}) as answer:
            assert answer.status == 200, await answer.text()

    async def heal(self) -> None:
        async with self.session.delete(f"{self.exchange_url}/_control/faults") as answer:
            assert answer.status == 200

    async def asked(self, path: str | None = None) -> int:
        """Requests that the exchange has got so far."""
        async with self.session.get(f"{self.exchange_url}/_control/counters") as answer:
            counted = await answer.json()
        return int(counted["total"] if path is None else counted["by_path"].get(path, 0))

    async def told(self) -> dict[str, int]:
        """The connections of the exchange's stream, and the number of topics of each."""
        async with self.session.get(f"{self.exchange_url}/_control/stream") as answer:
            lines = (await answer.json())["connections"]
        return {one["connect_id"]: len(one["topics"]) for one in lines}

    async def later(self, seconds: float) -> None:
        """Time passes at the exchange, and nowhere else."""
        url, body = f"{self.exchange_url}/_control/clock", {"advance_ms": round(seconds * 1000)}
        async with self.session.post(url, json=body) as answer:
            assert answer.status == 200

    async def lease(self) -> tuple[int, int, bool]:
        """Process and epoch of the owner, and whether its lease stands."""
        (row,) = await self.cluster.rows(
            "SELECT holder, epoch, expires_ms > extract(epoch FROM clock_timestamp()) * 1000 AS ok"
            " FROM leases"
        )
        return _pid(row["holder"]), row["epoch"], row["ok"]

    async def owner(self) -> Replica:
        async def found() -> Replica | None:
            pid, _, stands = await self.lease()
            return next((one for one in self.alive() if one.pid == pid and stands), None)

        owner: Replica = await until(found)
        return owner

    async def market(self) -> tuple[int, int, bool]:
        """Epoch and version of what the owner has written, and whether that was filled."""
        rows = await self.cluster.rows("SELECT epoch, version FROM shared_markets")
        return (rows[0]["epoch"], rows[0]["version"], True) if rows else (0, 0, False)

    async def runs(self, kind: str) -> list[Any]:
        return await self.cluster.rows(
            "SELECT workflow_uuid AS id, status, executor_id AS executor FROM dbos.workflow_status"
            " WHERE name = $1 ORDER BY created_at",
            kind,
        )

    async def decides(self, one: Replica) -> bool:
        """Whether it has fresh data and a board, so that it may decide."""
        health = await self.get(one, "/health")
        return (
            health is not None and health["data_status"] == "fresh" and health["mode"] != "FROZEN"
        )

    async def ready(self) -> None:
        """Until all of them decide on a whole board."""
        for one in self.alive():

            async def settled(one: Replica = one) -> bool:
                status = await self.get(one, "/status")
                return (
                    status is not None
                    and status["feed"]["stage"] == "complete"
                    and status["scoring"] is not None
                    and await self.decides(one)
                )

            await until(settled)


def _pid(executor: str) -> int:
    """host-pid-uuid; a host may have dashes, a UUID has five groups."""
    return int(executor.split("-")[-6])


async def until(
    question: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S, step_s: float = 0.1
) -> Any:
    """The first answer that is true; an answer may fail while the database is away."""
    end = time.monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError, ValueError):
            if answer := await question():
                return answer
        assert time.monotonic() < end, f"not within {patience_s} s"
        await asyncio.sleep(step_s)


async def seconds(question: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S) -> float:
    """How long it took until the answer was true."""
    begun = time.monotonic()
    await until(question, patience_s)
    return time.monotonic() - begun


def sandbox(port: int, contracts: int) -> "subprocess.Popen[bytes]":
    asked = ("--port", str(port), "--contracts", str(contracts), "--quota", "100000")
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "sandbox", *asked],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@asynccontextmanager
async def fleet(roles: Sequence[str], contracts: int = CONTRACTS) -> AsyncIterator[Fleet]:
    """All of them are up and decide; everything is stopped and removed at the end."""
    with cluster() as database, tempfile.TemporaryDirectory(prefix="my-symbols-logs-") as logs:
        await _execute(database, f"CREATE DATABASE {DATABASE}")
        await migrations.upgrade(database.url)
        port = free_port()
        exchange = sandbox(port, contracts)
        async with aiohttp.ClientSession() as session:
            made = Fleet(database, f"http://127.0.0.1:{port}", exchange, session, Path(logs))
            try:
                await until(lambda: _answers(made))
                for role in roles:
                    made.launch(role)
                await made.ready()
                yield made
            except BaseException:
                made.tell()
                raise
            finally:
                for one in made.alive():
                    one.signal(signal.SIGCONT)
                    one.kill()
                exchange.kill()
                exchange.wait()


async def _answers(made: Fleet) -> bool:
    try:
        return await made.asked() >= 0
    except aiohttp.ClientError:
        return False


async def _execute(database: Cluster, statement: str) -> None:
    connection = await asyncpg.connect(
        host=str(database.room), user="postgres", database="postgres"
    )
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
