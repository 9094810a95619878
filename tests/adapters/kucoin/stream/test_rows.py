"""Real sockets: what comes too early, is not acknowledged, or changes its connection."""

import asyncio
import json
import random
import time
from dataclasses import replace
from typing import Any

from app.adapters.kucoin.recording.stream import FrameStream
from app.adapters.kucoin.stream.frames import topic_name
from app.market.domain.stream import QuoteUpdate, StreamTopic, TopicKind
from tests.adapters.kucoin.listening import PATIENCE_S, QUICK, Listening, listening

# Nothing fails by a busy machine; a command for each topic.
PATIENT = replace(
    QUICK, welcome_s=60.0, open_s=60.0, ack_s=60.0, silence_s=60.0, check_s=60.0,
    topics_per_message=1,
)  # fmt: skip


def topics_of(state: Any) -> list[set[str]]:
    """Of each connection that the exchange has, by its count."""
    return sorted((set(one["topics"]) for one in state["connections"]), key=len)


async def test_W05_data_before_the_welcome_are_not_applied_and_end_the_connection() -> None:
    async with listening(terms=PATIENT) as here:
        await here.post("faults", kind="stream_early", path="*", times=2)
        here.stream.want(here.topics(TopicKind.QUOTE))
        await here.until(lambda: here.stream.facts().failures.get("data_before_welcome", 0) >= 2)
        await here.until(here.all_live)
        await here.until(lambda: len(here.ear.heard) >= len(here.codes))
        facts = here.stream.facts()
        # The clock stands still: had one been applied, the same quote would have come twice.
        assert dict(facts.dropped) == {"early": 2}
        assert dict(facts.failures) == {"data_before_welcome": 2}
        assert here.ear.backfills == 1
        state = await here.look()
        assert state["tally"]["tokens"] == state["tally"]["opened"] == 3, "a new token for each"
        assert len(state["connections"]) == 1


async def test_W06_what_is_not_acknowledged_is_not_fresh_and_gets_a_connection_of_its_own() -> None:
    async with listening(terms=replace(PATIENT, ack_s=0.4, own_connections=20)) as here:
        mute = StreamTopic(TopicKind.QUOTE, "ETHUSDTM")
        others = {topic for topic in here.topics(TopicKind.QUOTE) if topic != mute}
        await here.post("faults", kind="stream_no_ack", path="*:ETHUSDTM")
        here.stream.want([*others, mute])
        await here.until(lambda: "unacknowledged" in here.stream.facts().failures)
        # Its own connection, too, was left for another one; the first has all the others.
        await here.until(lambda: here.stream.live().keys() == others)
        await here.moved(lambda: {one.topic for one in here.ear.heard} == others)
        async with here.control.get(f"{here.base_url}/_control/faults") as answer:
            (fault,) = await answer.json()
        assert fault["hits"] >= 2 * QUICK.ack_tries, "three times on each of two connections"
        assert dict(here.stream.facts().failures).keys() == {"unacknowledged"}
        await here.heal()
        await here.until(here.all_live)
        await here.moved(lambda: mute in {one.topic for one in here.ear.heard})
        assert {topic_name(mute)} in topics_of(await here.look())


async def test_W06_exceeded_permits_are_waited_for_on_the_same_connection() -> None:
    async with listening(terms=replace(PATIENT, busy_s=0.05)) as here:
        await here.post("faults", kind="stream_refuse", path="*", times=2)
        here.stream.want(here.topics(TopicKind.QUOTE))
        await here.until(here.all_live)
        await here.until(lambda: len(here.ear.heard) >= len(here.codes))
        state = await here.look()
        assert state["tally"]["errors"] == {"509": 2}
        assert state["tally"]["opened"] == 1
        assert not here.stream.facts().failures


async def test_W06_the_exchange_counts_no_more_than_8_messages_a_second_pings_included() -> None:
    async with listening(terms=replace(PATIENT, send_every_s=0.125)) as here:
        await here.post("stream", ping_interval_ms=300)
        begun, counted = time.monotonic(), 0
        here.stream.want(here.topics(TopicKind.QUOTE, TopicKind.INSTRUMENT))
        while counted < len(here.codes) * 2 + 3:  # with a few pings among them
            counted = (await here.look())["tally"]["received"]
            # However busy the machine is: what came by now was sent in this time or in less.
            assert counted <= 1 + (time.monotonic() - begun) * 8
            await asyncio.sleep(0.02)
        await here.until(here.all_live)
        assert not here.stream.facts().failures


async def test_W01_while_connections_are_replaced_no_quote_grows_older_than_10_seconds() -> None:
    step_ms, topics = (
        4_000,
        [StreamTopic(TopicKind.QUOTE, code) for code in ("XBTUSDTM", "ETHUSDTM")],
    )
    async with listening(terms=replace(PATIENT, rotate_s=(0.2, 0.2), overlap_s=0.1)) as here:
        here.stream.want(topics)
        await here.until(lambda: len(here.ear.said(QuoteUpdate)) == len(topics))
        while here.stream.facts().reconnects_planned < 3:
            here.clock.pass_(step_ms / 1000)
            now_ms = here.ear.exchange_ms()
            # Updates of this step, without a further one that would bring them and without REST.
            await here.until(lambda at=now_ms - step_ms: oldest_ms(here, topics) > at)  # type: ignore[misc]  # bound now
            assert here.all_live()
        assert now_ms - oldest_ms(here, topics) + step_ms <= 10_000
        assert here.ear.backfills == 1, "there was never a gap to close"


def oldest_ms(here: Listening, topics: list[StreamTopic]) -> int:
    """When the exchange stamped the oldest of the newest quotes."""
    return min(here.ear.newest[one, QuoteUpdate].stamped_ms for one in topics)


async def test_W01_over_three_changes_of_the_connection_no_sequence_is_missing() -> None:
    terms = replace(PATIENT, rotate_s=(0.2, 0.2), overlap_s=0.1)
    async with listening(terms=PATIENT) as here:
        stream = FrameStream(
            here.exchange.ticket, terms=terms, monotonic=time.monotonic, dice=random.Random(1)
        )
        topic = StreamTopic(TopicKind.QUOTE, "XBTUSDTM")
        stream.want([topic])
        here.stream.want([topic])  # somebody always listens, whatever that one does
        running = asyncio.ensure_future(stream.run(here.ear, lambda: None))
        await here.until(lambda: len(stream.live()) == len(here.stream.live()) == 1)
        burst = {"topic": topic_name(topic), "per_second": 500, "seconds": PATIENCE_S}
        telling = asyncio.ensure_future(here.post("stream/burst", **burst))
        await here.until(lambda: len(lines_of(stream)) >= 5)
        told = [json.loads(text)["data"]["sequence"] for _, _, text in stream.frames]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        here.stream.want(())
        await telling  # to nobody any more: it ends
        assert sorted(set(told)) == list(range(min(told), max(told) + 1))
        assert len(told) > len(set(told)), "both connections told the same for a while"
        assert stream.lost == 0
        assert not stream.facts().failures
        assert here.ear.backfills == 2, "each of the two at its beginning: no gap was to be closed"


def lines_of(stream: FrameStream) -> set[int]:
    """The connections that have told something."""
    return {line for _, line, _ in stream.frames}
