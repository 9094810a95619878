"""The exchange beside a running tape: recorded as it answers, or played from the tape alone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from app.adapters.kucoin.exchange import KucoinExchange, ignore_request
from app.adapters.kucoin.limits import Dice, KucoinLimits
from app.adapters.kucoin.rest import RestClient, Surroundings
from app.adapters.kucoin.tape_deck import Player, Recorder
from app.adapters.kucoin.tape_rest import PlayedRest, RecordedWire, RecordingRest
from app.adapters.kucoin.wire import Wire, open_session
from app.domain.market import DataSource
from app.domain.tape import TapeClock

_NOWHERE = "http://tape.invalid"  # a session is never used there


@asynccontextmanager
async def open_recorded(
    tape: Recorder,
    clock: TapeClock,
    *,
    base_url: str,
    source: DataSource,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    dice: Dice,
    limits: KucoinLimits,
) -> AsyncIterator[KucoinExchange]:
    """Limits and retries go by `now` and `monotonic`, all that is read from answers by the tape."""
    async with open_session(limits) as session:
        wire = RecordedWire(Wire(session, base_url, limits))
        around = Surroundings(now, monotonic, sleep, dice, ignore_request)
        yield KucoinExchange(
            session,
            base_url=base_url,
            source=source,
            now=clock.now,
            monotonic=clock.monotonic,
            sleep=sleep,
            dice=dice,
            limits=limits,
            rest=RecordingRest(RestClient(wire, limits, around), wire, tape),
        )


@asynccontextmanager
async def open_played(
    tape: Player,
    clock: TapeClock,
    *,
    source: DataSource,
    sleep: Callable[[float], Awaitable[None]],
    dice: Dice,
) -> AsyncIterator[KucoinExchange]:
    """Its answers are those of the tape; it opens no connection."""
    limits = KucoinLimits()
    async with open_session(limits) as session:
        yield KucoinExchange(
            session,
            base_url=_NOWHERE,
            source=source,
            now=clock.now,
            monotonic=clock.monotonic,
            sleep=sleep,
            dice=dice,
            limits=limits,
            rest=PlayedRest(tape, clock),
        )
