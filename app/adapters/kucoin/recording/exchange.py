"""Exchange of a recorded session: live with recording, or replayed from the file."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from app.adapters.kucoin import limits as routes
from app.adapters.kucoin.exchange import KucoinExchange, ignore_request
from app.adapters.kucoin.limits import KucoinLimits, RandomSource
from app.adapters.kucoin.recording.rest import RecordingRest, RecordingTransport, ReplayedRest
from app.adapters.kucoin.recording.sessions import SessionPlayer, SessionRecorder
from app.adapters.kucoin.recording.stream import (
    FrameStream,
    RecordedStream,
    ReplayedStream,
    connect_player,
)
from app.adapters.kucoin.rest import RestClient, RestDependencies
from app.adapters.kucoin.stream import protocol
from app.adapters.kucoin.stream.protocol import StreamLimits, StreamTicket
from app.adapters.kucoin.transport import AiohttpTransport, open_session
from app.foundation.data_status import DataSource
from app.research.domain.recording import TapeClock

_NOWHERE = "http://tape.invalid"  # no request is sent to it


@asynccontextmanager
async def open_recording(
    tape: SessionRecorder,
    clock: TapeClock,
    *,
    base_url: str,
    source: DataSource,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    dice: RandomSource,
    limits: KucoinLimits,
) -> AsyncIterator[tuple[KucoinExchange, RecordedStream]]:
    """Open the exchange and record it.

    Requests and retries follow `now` and `monotonic`; values read from answers follow the
    recording's clock.
    """
    async with open_session(limits) as session:
        wire = RecordingTransport(AiohttpTransport(session, base_url, limits))
        around = RestDependencies(now, monotonic, sleep, dice, ignore_request)
        rest = RestClient(wire, limits, around)

        async def ticket() -> StreamTicket:
            # A token for one connection is a secret, so it is not recorded.
            read = partial(protocol.parse_ticket, base_url=base_url)
            return await rest.get(routes.BULLET, read, {}, patience_s=limits.patience_s)

        frames = FrameStream(ticket, terms=StreamLimits(), monotonic=monotonic, dice=dice)
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
async def open_replay(
    tape: SessionPlayer,
    clock: TapeClock,
    *,
    source: DataSource,
    sleep: Callable[[float], Awaitable[None]],
    dice: RandomSource,
) -> AsyncIterator[tuple[KucoinExchange, ReplayedStream]]:
    """Open an exchange that answers from the recording and makes no connection."""
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
            rest=ReplayedRest(tape, clock),
        )
        stream = ReplayedStream()
        connect_player(stream, tape)
        yield exchange, stream
