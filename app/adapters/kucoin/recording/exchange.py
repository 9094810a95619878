"""The exchange beside a running tape: recorded as it answers, or played from the tape alone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from app.adapters.kucoin import limits as routes
from app.adapters.kucoin.exchange import KucoinExchange, ignore_request
from app.adapters.kucoin.limits import Dice, KucoinLimits
from app.adapters.kucoin.recording.rest import PlayedRest, RecordedWire, RecordingRest
from app.adapters.kucoin.recording.sessions import Player, Recorder
from app.adapters.kucoin.recording.stream import FrameStream, RecordedStream, TapedStream, played
from app.adapters.kucoin.rest import RestClient, Surroundings
from app.adapters.kucoin.stream import protocol
from app.adapters.kucoin.stream.protocol import StreamTerms, Ticket
from app.adapters.kucoin.transport import Wire, open_session
from app.foundation.data_status import DataSource
from app.research.domain.recording import TapeClock

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
) -> AsyncIterator[tuple[KucoinExchange, RecordedStream]]:
    """Limits and retries go by `now` and `monotonic`, all that is read from answers by the tape."""
    async with open_session(limits) as session:
        wire = RecordedWire(Wire(session, base_url, limits))
        around = Surroundings(now, monotonic, sleep, dice, ignore_request)
        rest = RestClient(wire, limits, around)

        async def ticket() -> Ticket:
            # A key for one connection: nobody may use it later, so it is not on the tape.
            read = partial(protocol.ticket, base_url=base_url)
            return await rest.get(routes.BULLET, read, {}, patience_s=limits.patience_s)

        frames = FrameStream(ticket, terms=StreamTerms(), monotonic=monotonic, dice=dice)
        exchange = KucoinExchange(
            session,
            base_url=base_url,
            source=source,
            now=clock.now,
            monotonic=clock.monotonic,
            sleep=sleep,
            dice=dice,
            limits=limits,
            rest=RecordingRest(rest, wire, tape),
        )
        yield exchange, RecordedStream(frames, tape)


@asynccontextmanager
async def open_played(
    tape: Player,
    clock: TapeClock,
    *,
    source: DataSource,
    sleep: Callable[[float], Awaitable[None]],
    dice: Dice,
) -> AsyncIterator[tuple[KucoinExchange, TapedStream]]:
    """Its answers are those of the tape; it opens no connection."""
    limits = KucoinLimits()
    async with open_session(limits) as session:
        exchange = KucoinExchange(
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
        stream = TapedStream()
        played(stream, tape)
        yield exchange, stream
