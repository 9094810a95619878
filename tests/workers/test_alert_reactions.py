"""Alerts are looked at when something was decided; one look answers all that came before it."""

import asyncio
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

from app.configuration.domain.events import ConfigurationChanged
from app.configuration.domain.model import Configuration
from app.configuration.services.current import CurrentSettings
from app.container.feed import create_event_handler
from app.foundation.event_bus import Bus
from app.foundation.events import EventRecord
from app.market.domain.events import ModeChanged
from app.operations.domain.event_codec import encode_event
from app.portfolio.domain.events import PlanCreated, PortfolioChanged
from app.scoring.domain.events import ScoresUpdated
from app.security.domain.events import AuthenticationBurst
from app.workers.reactions import alert_reactions

T0 = datetime(2026, 3, 4, 5, tzinfo=UTC)
PATIENCE_S = 30.0


async def test_one_evaluation_covers_earlier_events_and_ignores_others() -> None:
    bus, looks, now = Bus(), [0], [T0 + timedelta(seconds=10)]
    beats = [0]

    async def look() -> None:
        looks[0] += 1

    def beat() -> None:
        beats[0] += 1

    async def until(count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while looks[0] < count:
                await asyncio.sleep(0)

    async def at_once() -> None:
        await asyncio.sleep(0)

    react = alert_reactions(bus, lambda: now[0], look, at_once)
    task = asyncio.ensure_future(react(beat))
    await asyncio.sleep(0)
    bus.publish(PlanCreated("run", 1, 1, T0))  # tells nothing that the change itself does not
    # One change is several events: all of them happened before the look that the first one gets.
    for seq in range(3):
        bus.publish(PortfolioChanged(1, seq, "ADD", "BTCUSDT", T0))
    bus.publish(ScoresUpdated("run", T0, 1, 1, 0.1, T0))
    await until(1)
    later = T0 + timedelta(seconds=11)
    now[0] = later
    bus.publish(ConfigurationChanged(Configuration(), later))
    await until(2)
    now[0] = later + timedelta(seconds=1)
    bus.publish(ScoresUpdated("run", T0, 1, 1, 0.1, now[0]))
    await until(3)
    now[0] += timedelta(seconds=1)
    bus.publish(ModeChanged("NORMAL", "FROZEN", "market_unavailable", 10, now[0]))
    await until(4)
    for kind in ("PERFORMANCE", "SWITCH"):  # no rule asks for them
        now[0] += timedelta(seconds=1)
        bus.publish(PortfolioChanged(2, 4, kind, None, now[0]))
    for _ in range(10):
        await asyncio.sleep(0)
    assert (looks, beats) == ([4], [4])
    now[0] -= timedelta(days=1)  # the clock is set back: what happens from now on is news
    bus.publish(ModeChanged("FROZEN", "NORMAL", "market_fresh", 10, now[0]))
    await until(5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_changes_by_the_dozen_get_one_look_after_the_rest() -> None:
    bus, looks, now = Bus(), [0], [T0]
    rested = asyncio.Event()

    async def look() -> None:
        looks[0] += 1

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    react = alert_reactions(bus, lambda: now[0], look, rested.wait)
    task = asyncio.ensure_future(react(lambda: None))
    await asyncio.sleep(0)
    for number in range(12):
        now[0] = T0 + timedelta(seconds=number)
        bus.publish(PortfolioChanged(number, number, "ADD", "BTCUSDT", now[0]))
        await turns()
        assert looks == [1]
    now[0] += timedelta(seconds=1)
    rested.set()
    await turns()
    assert looks == [2]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_decisions_and_settings_of_another_process_take_effect() -> None:
    bus, in_force, looks = Bus(), CurrentSettings(), [0]

    async def look() -> None:
        looks[0] += 1

    async def at_once() -> None:
        await asyncio.sleep(0)

    heard = create_event_handler(in_force, bus)
    task = asyncio.ensure_future(alert_reactions(bus, lambda: T0, look, at_once)(lambda: None))
    await asyncio.sleep(0)
    newer = replace(Configuration(), version=7)
    events = (
        PortfolioChanged(1, 1, "ADD", "BTCUSDT", T0 + timedelta(seconds=1)),
        ConfigurationChanged(newer, T0 + timedelta(seconds=2)),
        ScoresUpdated("run", T0, 1, 1, 0.1, T0 + timedelta(seconds=3)),
        PlanCreated("run", 1, 1, T0 + timedelta(seconds=4)),
        AuthenticationBurst("10.0.0.1", 11, T0 + timedelta(seconds=5)),
    )
    for seq, event in enumerate(events, 1):
        for draft in encode_event(event):
            heard(
                EventRecord(
                    **{one.name: getattr(draft, one.name) for one in fields(draft)}, seq=seq
                )
            )
        for _ in range(10):
            await asyncio.sleep(0)
    assert in_force() == newer
    assert looks == [4], "a plan is no decision, a burst needs an alert"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
