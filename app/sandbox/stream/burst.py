"""Far more messages a second than a market has."""

import asyncio

import msgspec

from app.sandbox.stream.feed import Feed
from app.sandbox.stream.frames import RENDERERS
from app.sandbox.stream.glance import Glance
from app.sandbox.stream.hub import Hub

SLICE_S = 0.01


async def burst(hub: Hub, feed: Feed, per_second: int, seconds: float) -> int:
    """Repeat a topic's present message at that rate, each with the next sequence; how many.

    ValueError when the topic has nothing to say now.
    """
    now_ms = hub.exchange.clock.now_ms()
    frames = RENDERERS[feed.topic.channel](Glance(hub.exchange, now_ms), Feed(feed.topic, now_ms))
    if not frames:
        raise ValueError(f"{feed.topic.name} has no message to repeat")
    pattern = msgspec.json.decode(frames[-1])
    encode = msgspec.json.Encoder().encode
    loop = asyncio.get_running_loop()
    started, sent, wanted = loop.time(), 0, round(per_second * seconds)
    while sent < wanted and feed.listeners:
        due = min(wanted, int((loop.time() - started) * per_second))
        for _ in range(sent, due):
            sent += 1
            for record in (pattern, pattern["data"]):
                for name in ("sn", "sequence"):
                    if name in record:
                        record[name] += 1
            hub.tell(feed, encode(pattern))
        await asyncio.sleep(SLICE_S)
    return sent
