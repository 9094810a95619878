"""The stream over real sockets: order, topics, resuming, strictness, and who reads nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.foundation.events import EventTopic
from app.foundation.http.server import ServerLimits
from app.foundation.sql.database import Database
from app.operations.services.event_stream import KEEP
from app.portfolio.domain.events import PlanCreated
from app.scoring.domain.events import ScoreChanged, ScoresUpdated
from tests.support.problem_assertions import located
from tests.support.streaming import PATIENCE_S, Client, Served, StreamDesk, masked, served
from tests.support.trading_desk import NOW, SYMBOLS, WHO

pytestmark = pytest.mark.long

NAMES = (*SYMBOLS, *(f"S{number}USDT" for number in range(500)))
PLAN = PlanCreated("run", 1, 0, NOW)


@pytest.fixture
async def open_stream(database: Database) -> AsyncIterator[Served]:
    async with served(database) as opened:
        yield opened


async def announce(desk: StreamDesk, *events: object) -> None:
    async with desk.database.write() as unit:
        for event in events:
            unit.publish_after_commit(event)


def scores(number: int, *values: float | None) -> ScoresUpdated:
    """Run `number`, in which each symbol has one of `values`."""
    changes = tuple(
        ScoreChanged(f"run-{number}", symbol, 0.5, value, 1, NOW)
        for symbol, value in zip(NAMES, values, strict=False)
    )
    return ScoresUpdated(f"run-{number}", NOW, len(values), 0, 0.1, NOW, changes)


async def test_a_change_arrives_as_the_contract_says(open_stream: Served) -> None:
    desk = open_stream.desk
    async with open_stream.client() as client:
        hello = await client.hear()
        assert (hello["type"], hello["sequence"]) == ("hello", 0)
        confirmed = await client.subscribe("portfolio_change", "rebalance")
        assert confirmed["topics"] == ["portfolio_change", "rebalance"]
        await desk.portfolio.initialize(2, "start", WHO)
        await desk.portfolio.remove(SYMBOLS[0], "enough of it", WHO)
        await desk.portfolio.replace(SYMBOLS[1], SYMBOLS[2], "better", WHO)
        heard = await client.events(3)
        portfolio = (await desk.portfolio.view()).portfolio
    assert [one["sequence"] for one in heard] == [1, 2, 3]  # one event per version
    assert {one["topic"] for one in heard} == {"portfolio_change"}
    first, last, swap = heard
    assert [one["data"]["details"]["version"] for one in heard] == [1, 2, 3]
    assert (first["data"]["type"], first["data"]["symbol"]) == ("ADD", None)  # two have entered
    details = first["data"]["details"]
    assert [(one["type"], one["symbol"]) for one in details["history"]] == [
        ("ADD", SYMBOLS[0]),
        ("ADD", SYMBOLS[1]),
        ("WEIGHTS", None),
    ]
    entered = {one["symbol"]: one for one in details["members"]}
    assert [one["old_weight_percentage"] for one in entered.values()] == [None, None]
    weights = [one["new_weight_percentage"] for one in entered.values()]
    assert min(weights) > 0
    assert sum(weights) + details["new_cash_percentage"] == pytest.approx(100)
    assert details["old_cash_percentage"] == 100
    assert last["data"] == {
        "type": "REMOVE",
        "symbol": SYMBOLS[0],
        "details": {
            "version": 2,
            "other_symbol": None,
            "reason": "enough of it",
            "actor": WHO.actor,
            "run_id": None,
            "proposal_id": None,
            "old_cash_percentage": details["new_cash_percentage"],
            "new_cash_percentage": last["data"]["details"]["new_cash_percentage"],
            "members": [
                {
                    **entered[SYMBOLS[1]],
                    "position_rank": 1,
                    "old_weight_percentage": entered[SYMBOLS[1]]["new_weight_percentage"],
                    "new_weight_percentage": last["data"]["details"]["members"][0][
                        "new_weight_percentage"
                    ],
                    "reason": None,
                },
                {
                    **entered[SYMBOLS[0]],
                    "position_rank": None,
                    "old_weight_percentage": entered[SYMBOLS[0]]["new_weight_percentage"],
                    "new_weight_percentage": None,
                    "reason": "enough of it",
                },
            ],
            "history": last["data"]["details"]["history"],
        },
        "timestamp": last["timestamp"],
    }
    entries = [one for each in heard for one in each["data"]["details"]["history"]]
    assert [one["seq"] for one in entries] == list(range(1, len(entries) + 1))
    assert (swap["data"]["type"], swap["data"]["symbol"]) == ("REPLACE", SYMBOLS[2])
    assert swap["data"]["details"]["other_symbol"] == SYMBOLS[1]
    assert {
        one["symbol"]: one["new_weight_percentage"]
        for one in swap["data"]["details"]["members"]
        if one["new_weight_percentage"] is not None
    } == {one.symbol: one.weight_u / 1_000_000 for one in portfolio.members}
    assert last["timestamp"].endswith("Z")


async def test_a_score_event_has_old_score_and_change(open_stream: Served) -> None:
    async with open_stream.client() as client:
        await client.subscribe("score_update")
        await announce(open_stream.desk, scores(1, 0.75, None), PLAN)
        first, second = await client.events(2)
    assert first["data"] == {
        "symbol": SYMBOLS[0],
        "new_score": 0.75,
        "old_score": 0.5,
        "change": 0.25,
        "rank": 1,
        "run_id": "run-1",
    }
    assert (second["data"]["new_score"], second["data"]["change"]) == (None, None)


async def test_topics_can_be_added_and_taken_back(open_stream: Served) -> None:
    desk = open_stream.desk
    async with open_stream.client() as client:
        await client.subscribe("score_update")
        await announce(desk, PLAN)  # 1, not asked for
        await desk.until(lambda: desk.stream.head == 1)
        await client.subscribe("rebalance", "signal", "alert", "job")
        await announce(desk, PLAN)  # 2
        await announce(desk, scores(1, 0.1))  # 3 and 4, the whole run
        assert [one["sequence"] for one in await client.events(2)] == [2, 3]
        await client.say(type="unsubscribe", topics=["score_update", "rebalance"])
        assert (await client.hear())["topics"] == ["alert", "job", "signal"]
        await announce(desk, PLAN)
        await desk.until(lambda: desk.stream.head == 5)
        await client.subscribe("scoring_run")
        await announce(desk, scores(2, 0.2))
        assert (await client.events(1))[0]["data"]["run_id"] == "run-2"
        await client.say(type="ping")
        assert await client.hear() == {"type": "pong", "sequence": desk.stream.head}


async def test_missed_events_are_replayed_completely_and_in_order(open_stream: Served) -> None:
    desk = open_stream.desk
    async with open_stream.client() as client:
        await client.subscribe("rebalance")
        await announce(desk, PLAN)
        assert (await client.events(1))[0]["sequence"] == 1
    for number in range(700):  # more than a page, and than what makes a slow reader skip
        await announce(desk, replace(PLAN, run_id=str(number)), scores(number, 0.1, 0.2))
    async with open_stream.client() as client:
        confirmed = await client.subscribe("rebalance", "score_update", resume_from=1)
        assert confirmed["sequence"] == 1
        heard = await client.events(2_100)
        await announce(desk, PLAN)
        heard += await client.events(1)
    wanted = [seq for seq in range(2, 2_802) if (seq - 2) % 4 != 3]
    assert [one["sequence"] for one in heard] == [*wanted, 2_802]
    assert [one["data"]["run_id"] for one in heard[:4]] == ["0", "run-0", "run-0", "1"]


async def test_a_restarted_service_resumes_where_the_old_one_ended(database: Database) -> None:
    async with served(database) as first, first.client() as client:
        await client.subscribe("rebalance")
        await announce(first.desk, PLAN)
        seen = (await client.events(1))[0]["sequence"]
    # nobody follows now, as after a crash between the commit and the telling of it
    await announce(first.desk, replace(PLAN, run_id="while-away"))
    async with served(database) as second, second.client() as client:
        await client.subscribe("rebalance", resume_from=seen)
        await announce(second.desk, replace(PLAN, run_id="after"))
        heard = await client.events(2)
    assert [one["data"]["run_id"] for one in heard] == ["while-away", "after"]
    assert [one["sequence"] for one in heard] == [2, 3]


async def test_events_that_cannot_be_replayed_are_a_gap(open_stream: Served) -> None:
    desk = open_stream.desk
    for number in range(5):
        age = KEEP + timedelta(hours=1) if number < 3 else timedelta()
        await announce(desk, replace(PLAN, run_id=str(number), occurred_at=NOW - age))
    assert await desk.stream.forget_old() == 3
    async with open_stream.client() as client:
        await client.say(type="subscribe", topics=["rebalance"], resume_from=2)
        assert (await client.hear())["type"] == "hello"
        assert await client.hear() == {
            "type": "gap",
            "sequence": 5,
            "resume_from": 2,
            "reason": "too_old",
            "oldest": 4,
        }
        await announce(desk, PLAN)  # it goes on from now
        assert [one["sequence"] for one in await client.events(1)] == [6]
    async with open_stream.client() as client:
        await client.subscribe("rebalance", resume_from=3)  # the newest that is gone
        assert [one["sequence"] for one in await client.events(3)] == [4, 5, 6]


async def test_an_unknown_sequence_is_a_gap(open_stream: Served) -> None:
    async with open_stream.client() as client:
        await client.say(type="subscribe", topics=["rebalance"], resume_from=7)
        assert (await client.hear())["type"] == "hello"
        assert await client.hear() == {
            "type": "gap",
            "sequence": 0,
            "resume_from": 7,
            "reason": "unknown_sequence",
            "oldest": 1,
        }


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("text", "code", "errors"),
    [
        ("{", "malformed_json", []),
        ('{"type":"subscribe","topics":["alert"],"topics":[]}', "duplicate_json_key", []),
        ('{"type":"subscribe","resume_from":NaN}', "non_finite_number", []),
        ('{"type":"subscribe","topics":["\\u0000"]}', "invalid_string", []),
        ("[" * 100, "json_too_deep", []),
        ('{"type":"shout"}', "validation_failed", [{"loc": ["type"], "type": "enum"}]),
        ("[]", "validation_failed", [{"loc": ["type"], "type": "enum"}]),
        (
            '{"type":"subscribe","topics":[],"more":1}',
            "validation_failed",
            [
                {"loc": ["topics"], "type": "too_short"},
                {"loc": ["more"], "type": "extra_forbidden"},
            ],
        ),
        (
            '{"type":"subscribe","topics":["alert"],"resume_from":"1"}',
            "validation_failed",
            [{"loc": ["resume_from"], "type": "int_type"}],
        ),
        (
            '{"type":"subscribe","topics":["alert","gossip"]}',
            "validation_failed",
            [{"loc": ["topics", 1], "type": "enum"}],
        ),
        (
            '{"type":"subscribe","topics":["ticker:NOSUCHUSDT"]}',
            "symbol_unknown",
            [{"loc": ["topics", 0], "type": "symbol_unknown"}],
        ),
    ],
)
async def test_an_invalid_message_gets_an_error_and_the_connection_stays(
    open_stream: Served, text: str, code: str, errors: list[dict[str, Any]]
) -> None:
    async with open_stream.client() as client:
        assert (await client.hear())["type"] == "hello"
        await client.connection.send(text)
        said = await client.hear()
        assert (said["type"], said["code"]) == ("error", code)
        assert located(said) == errors
        assert said["detail"]
        for fault in said["errors"]:
            assert fault["message"]
            assert fault["type"] != "enum" or fault["allowed"], "a command from errors[] alone"
        await announce(open_stream.desk, PLAN)
        await client.subscribe("rebalance")
        await announce(open_stream.desk, PLAN)
        assert len(await client.events(1)) == 1


async def closed(client: Client) -> int:
    """Reads until the end; the close code."""
    with suppress(ConnectionClosed):
        while True:
            await client.hear()
    code = client.connection.close_code
    assert code is not None
    return code


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_S10_floods_bytes_and_giants_end_the_connection(open_stream: Served) -> None:
    async with open_stream.client() as client:
        for _ in range(50):
            await client.connection.send('{"type":"ping"}')
        assert await closed(client) == 4429
    async with open_stream.client() as client:
        await client.connection.send(b"{}")
        assert await closed(client) == 1003
    async with open_stream.client() as client:
        await client.connection.send("x" * 1_048_576)
        assert await closed(client) == 1009
    await open_stream.desk.until(
        lambda: open_stream.desk.metric("stream_clients", transport="websocket") == 0
    )


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_too_many_topics_are_refused(open_stream: Served) -> None:
    async with open_stream.client() as client:
        for start in (0, 45):
            names = [f"ticker:{name}" for name in SYMBOLS[start : start + 45]]
            said = await client.subscribe(*names)
        topics = ["alert", "configuration", "job", "portfolio_change", "rebalance", "scoring_run"]
        assert len(said["topics"]) == len(set(SYMBOLS[:90]))
        if len(said["topics"]) + len(topics) > 100:
            assert (await client.subscribe(*topics))["code"] == "validation_failed"
        await client.say(type="subscribe", topics=["alert"] * 101)
        assert (await client.hear())["code"] == "validation_failed"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
async def test_S09_a_foreign_page_gets_no_connection(open_stream: Served, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with open_stream.client(origin=origin):
            pass
    assert refused.value.response.status_code == 403
    own = f"http://{open_stream.address.partition('/')[0]}"
    async with open_stream.client(origin=own) as client:
        assert (await client.hear())["type"] == "hello"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_only_so_many_are_served(open_stream: Served) -> None:
    open_stream.desk.stream.max_readers = 1
    async with open_stream.client() as client:
        await client.hear()
        async with open_stream.client() as second:
            assert await closed(second) == 1013
        async with open_stream.sse("topics=alert") as refused:
            assert refused.answer.status == 503
            assert (await refused.answer.json())["code"] == "overloaded"
            assert int(refused.answer.headers["retry-after"]) >= 1
    await open_stream.desk.until(
        lambda: open_stream.desk.metric("stream_clients", transport="websocket") == 0
    )
    async with open_stream.client() as third:
        assert (await third.hear())["type"] == "hello"


HEAVY = tuple(
    ConfigurationChanged(replace(Configuration(), version=number), NOW) for number in range(1, 21)
)


async def test_E02_a_client_that_reads_nothing_is_closed_and_blocks_no_other(
    database: Database,
) -> None:
    async with (
        served(database, limits=ServerLimits(write_timeout_s=1.5)) as opened,
        asyncio.timeout(PATIENCE_S),
    ):
        desk, loop = opened.desk, asyncio.get_running_loop()
        message = json.dumps({"type": "subscribe", "topics": ["configuration"] * 20})
        stuck = [await opened.stuck("/stream") for _ in range(8)]
        for one in stuck:
            await loop.sock_sendall(one, masked(message))
        async with opened.client() as fast:
            await fast.subscribe("configuration")
            await desk.until(lambda: sum(bool(one.topics) for one in desk.stream._readers) == 9)
            sent = 0
            while desk.metric("stream_evictions_total", transport="websocket") < len(stuck):
                await announce(desk, *HEAVY)
                heard = await fast.events(len(HEAVY))
                sent += len(HEAVY)
                assert [one["sequence"] for one in heard][-1] == sent
            # Counted as sent away before the last of it is put away.
            await desk.until(lambda: len(desk.stream._readers) == 1)
            await desk.until(lambda: desk.metric("stream_clients", transport="websocket") == 1)
            await announce(desk, HEAVY[0])
            assert (await fast.events(1))[0]["sequence"] == sent + 1
        for one in stuck:
            one.close()


@pytest.mark.long  # whether a reader is in time is a matter of seconds, on any machine
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_E02_a_slow_client_reads_the_reason_of_the_close(database: Database) -> None:
    async with (
        served(database, limits=ServerLimits(write_timeout_s=2.0)) as opened,
        asyncio.timeout(PATIENCE_S),
    ):
        desk, loop = opened.desk, asyncio.get_running_loop()
        stuck = await opened.stuck("/stream")
        message = json.dumps({"type": "subscribe", "topics": ["configuration"] * 20})
        await loop.sock_sendall(stuck, masked(message))
        await desk.until(lambda: any(one.topics for one in desk.stream._readers))
        while not desk.metric("stream_evictions_total", transport="websocket"):
            await announce(desk, *HEAVY)
        said = b""
        while piece := await loop.sock_recv(stuck, 65_536):
            said += piece
        assert said.endswith(b"\x88\x0a\x03\xf5too slow")  # a close frame with code 1013
        stuck.close()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_E02_an_unread_event_stream_is_aborted(database: Database) -> None:
    async with (
        served(database, limits=ServerLimits(write_timeout_s=0.3)) as opened,
        asyncio.timeout(PATIENCE_S),
    ):
        desk = opened.desk
        stuck = await opened.stuck("/events?topics=configuration")
        while not desk.metric("stream_evictions_total", transport="http"):
            await announce(desk, *HEAVY)
        await desk.until(lambda: not desk.stream._readers)
        stuck.close()


async def test_a_slow_reader_gets_the_newest_score_and_the_total_change(
    open_stream: Served,
) -> None:
    desk = open_stream.desk
    with desk.stream.reader("websocket") as reader:
        reader.subscribe({EventTopic.SCORE_UPDATE, EventTopic.REBALANCE}, frozenset())
        for number in range(4):
            new = 0.6 + number / 10
            changes = tuple(
                ScoreChanged(f"run-{number}", name, round(new - 0.1, 1), round(new, 1), 1, NOW)
                for name in SYMBOLS[:30]
            )
            run = ScoresUpdated(f"run-{number}", NOW, 30, 0, 0.1, NOW, changes)
            await announce(desk, run, replace(PLAN, run_id=str(number)))
        await desk.stream.catch_up()
        frames = [json.loads(one.text) for one in await reader.next()]
    plans = [one["data"]["run_id"] for one in frames if one["topic"] == "rebalance"]
    updates = [one["data"] for one in frames if one["topic"] == "score_update"]
    assert plans == ["0", "1", "2", "3"]  # only scores may be left out
    assert [one["symbol"] for one in updates] == list(SYMBOLS[:30])
    for one in updates:
        assert (one["old_score"], one["new_score"], one["run_id"]) == (0.5, 0.9, "run-3")
        assert one["change"] == pytest.approx(0.4)
    assert [one["sequence"] for one in frames] == sorted(one["sequence"] for one in frames)
    assert desk.metric("stream_conflated_events_total") == 90


async def test_server_sent_events_are_the_same_and_resume_by_their_id(open_stream: Served) -> None:
    desk = open_stream.desk
    async with open_stream.sse("topics=rebalance,score_update") as client:
        assert client.answer.headers["content-type"].startswith("text/event-stream")
        assert client.answer.headers["cache-control"] == "no-store"
        hello = await client.hear()
        assert (hello["event"], hello["retry"], "id" in hello) == ("hello", "2000", False)
        await announce(desk, PLAN, scores(1, 0.7))
        first, second = await client.hear(), await client.hear()
    assert (first["event"], first["id"]) == ("rebalance", "1")
    assert (second["event"], second["id"]) == ("score_update", "2")
    assert second["data"]["data"]["new_score"] == 0.7
    assert second["data"]["sequence"] == 2
    await announce(desk, replace(PLAN, run_id="missed"))
    for query, headers in (
        ("topics=rebalance&resume_from=1", {}),
        ("topics=rebalance&resume_from=9", {"Last-Event-ID": "1"}),
    ):
        async with open_stream.sse(query, **headers) as client:
            assert (await client.hear())["event"] == "hello"
            assert (await client.hear())["event"] == "resumed"
            heard = await client.hear()
            assert (heard["id"], heard["data"]["data"]["run_id"]) == ("4", "missed")
    async with open_stream.sse("topics=rebalance&resume_from=99") as client:
        assert (await client.hear())["event"] == "hello"
        assert (await client.hear())["data"]["reason"] == "unknown_sequence"


@pytest.mark.parametrize("has_gap", [False, True], ids=["replay", "gap"])
async def test_a_break_after_any_frame_of_a_resumption_loses_nothing(
    open_stream: Served, *, has_gap: bool
) -> None:
    """A browser's reader: after each break it sends the last id that a frame carried, if any."""
    desk = open_stream.desk
    age = KEEP + timedelta(hours=1) if has_gap else timedelta()
    await announce(desk, *(replace(PLAN, run_id=str(n), occurred_at=NOW - age) for n in range(3)))
    await announce(desk, replace(PLAN, run_id="3"), replace(PLAN, run_id="4"))
    if has_gap:
        assert await desk.stream.forget_old() == 3
    last_id, frames = "1", []
    for broken_after in (1, 2, 2, 3, 3):
        async with open_stream.sse("topics=rebalance", **{"Last-Event-ID": last_id}) as client:
            for _ in range(broken_after):
                frames.append(await client.hear())
                last_id = frames[-1].get("id", last_id)
        if broken_after == 2:  # the connection ended right after `resumed` or `gap`
            await announce(desk, replace(PLAN, run_id=f"after {frames[-1]['event']}"))
    kinds = [one["event"] for one in frames]
    received = [one["data"]["data"]["run_id"] for one in frames if one["event"] == "rebalance"]
    if has_gap:  # the reader knows that it reads the state anew; the stream goes on behind the gap
        assert kinds[:5] == ["hello", "hello", "gap", "hello", "resumed"]
        assert received == ["after gap", "after resumed"]
    else:
        assert kinds[:5] == ["hello", "hello", "resumed", "hello", "resumed"]
        assert received == ["1", "2"]
    carrying = {"rebalance", "gap"}
    assert all(("id" in one) == (one["event"] in carrying) for one in frames)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("topics=gossip", {}),
        ("topics=alert&resume_from=-1", {}),
        ("topics=alert&resume_from=1e3", {}),
        ("topics=alert", {"Last-Event-ID": "x"}),
        ("topics=alert", {"Last-Event-ID": "9" * 19}),
        ("topics=" + ",".join(["alert"] * 101), {}),
        ("topics=ticker:NOSUCHUSDT", {}),
    ],
)
async def test_an_unknown_topic_is_a_problem(
    open_stream: Served, query: str, headers: dict[str, str]
) -> None:
    async with open_stream.sse(query, **headers) as client:
        assert client.answer.status == 422
        assert client.answer.headers["content-type"] == "application/problem+json"
    assert not open_stream.desk.stream._readers


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_stopping_server_ends_every_stream(database: Database) -> None:
    async with served(database) as opened:
        desk = opened.desk
        async with (
            opened.client() as socket_client,
            opened.sse("topics=alert") as sse_client,
        ):
            await socket_client.hear()
            await sse_client.hear()
            opened.server.should_exit = True
            assert await closed(socket_client) == 1012
            with pytest.raises(aiohttp.ClientPayloadError):
                await sse_client.hear()
        await desk.until(lambda: not desk.stream._readers)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_heartbeats_distinguish_silence_from_disconnection(
    open_stream: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.operations.api.stream_routes.HEARTBEAT_S", 0.05)
    async with open_stream.sse("topics=alert") as client:
        heard = [await client.hear() for _ in range(3)]
    assert [one["event"] for one in heard] == ["hello", "heartbeat", "heartbeat"]
    assert "id" not in heard[-1]


async def test_a_reader_that_changes_its_mind_while_the_past_is_read_misses_nothing(
    open_stream: Served,
) -> None:
    desk = open_stream.desk
    for number in range(20):
        await announce(desk, replace(PLAN, run_id=str(number)))
    await desk.stream.catch_up()
    with desk.stream.reader("websocket") as reader:
        desk.stream._recent.restart(20)  # nothing in memory: the past comes from the database
        await reader.resume(10)
        assert json.loads((await reader.next())[0].text)["type"] == "resumed"
        reader.subscribe({EventTopic.REBALANCE}, frozenset())
        reading = asyncio.ensure_future(reader.next())
        await asyncio.sleep(0)
        await reader.resume(0)
        frames = list(await reading)  # of before or of after, as the database was quick
        async with asyncio.timeout(PATIENCE_S):
            while [one.sequence for one in frames[-20:]] != list(range(1, 21)):
                frames += await reader.next()
    assert {one.kind for one in frames[-20:]} == {"rebalance"}
