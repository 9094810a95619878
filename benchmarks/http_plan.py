"""Requests of the HTTP benchmark: what is asked, how often, and the latency goals."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random  # noqa: TID251  # the order of requests, the same in every run

from benchmarks.http_load import Ask, Make, request

PREFIX = "/api/symbol-mgmt"
MEMORY, SQL, WRITE = "memory", "SQL", "write"
SCORING = "score the universe"  # beside the others, without a goal of its own
GOAL_MS = {MEMORY: 20.0, SQL: 50.0, WRITE: 100.0}


@dataclass(frozen=True)
class Question:
    """One request; `share` of a hundred are of this kind."""

    name: str
    kind: str
    share: int
    path: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def message(self) -> bytes:
        return request("GET", PREFIX + self.path, self.headers)


def questions(member: str, board: str) -> list[Question]:
    """Reads of a trading engine and a screen; a few of them need the database."""
    one = f"/portfolio/symbols/{member}"
    return [
        Question("portfolio", MEMORY, 15, "/portfolio"),
        Question("weights", MEMORY, 15, "/portfolio/weights"),
        Question("may I trade it", MEMORY, 15, f"{one}/should-trade"),
        Question("how much of it", MEMORY, 5, f"{one}/position-size?account_balance=10000"),
        Question("what may be traded", MEMORY, 10, "/portfolio/tradeable"),
        Question("is it safe", MEMORY, 5, "/portfolio/safety"),
        Question("rankings, 100 lines", MEMORY, 5, "/scoring/rankings"),
        Question(
            "rankings, held already", MEMORY, 10, "/scoring/rankings", {"If-None-Match": board}
        ),
        Question("explain a score", MEMORY, 5, f"/scoring/symbol/{member}/explain"),
        Question("market of a symbol", MEMORY, 10, f"/market/{member}"),
        Question("history, 50 events", SQL, 2, "/portfolio/history"),
        Question("trades", SQL, 2, "/portfolio/trades"),
        Question("health", SQL, 1, "/health"),
    ]


def mixed(asks: Sequence[Question], messages: Sequence[bytes]) -> Make:
    """Each client sends the same hundred requests in an order of its own."""
    plan = [
        Ask(one.name, message)
        for one, message in zip(asks, messages, strict=True)
        for _ in range(one.share)
    ]
    Random(7).shuffle(plan)  # noqa: S311  # nothing secret
    return lambda number, turn: plan[(number + 37 * turn) % len(plan)]


def booking(symbol: str) -> Make:
    """A realised result under an idempotency key."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path, begun = f"{PREFIX}/portfolio/symbols/{symbol}/performance", time.monotonic_ns()

    def make(number: int, turn: int) -> Ask:
        name = f"bench-{number}-{turn}-{os.getpid()}-{begun}"
        body = {"trade_id": name, "pnl": "1.5", "currency": "USDT", "occurred_at": moment}
        message = request("POST", path, {"Idempotency-Key": name}, json.dumps(body).encode())
        return Ask("book a result, with a key", message)

    return make


def switching() -> Make:
    """Trading off and on again: one history event each."""

    def make(number: int, turn: int) -> Ask:
        body = {"enabled": (number + turn) % 2 == 0, "reason": "bench"}
        path = f"{PREFIX}/portfolio/trading-switch"
        return Ask("trading off and on", request("PUT", path, {}, json.dumps(body).encode()))

    return make


def scoring() -> Make:
    """A scoring run of the whole universe, answered when it is committed."""
    message = request("POST", f"{PREFIX}/scoring/calculate", {}, b"{}")
    return lambda number, turn: Ask(SCORING, message)


def in_turns(*makes: Make) -> Make:
    """One kind after the other, connection by connection."""

    def make(number: int, turn: int) -> Ask:
        chosen = makes[number % len(makes)]
        return chosen(number // len(makes), turn)

    return make
