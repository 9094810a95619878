"""Exchange of a recorded session: live with recording, or replayed from the file.

The seam lies below the parser: a recording holds the exchange's own answers. Rate limits, retries
and the breaker act during the recording only; a replay gets their results.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from app.adapters.kucoin import limiter as routes
from app.adapters.kucoin.exchange import KucoinExchange, ignore_request
from app.adapters.kucoin.limiter import SILENT, Endpoint, KucoinLimits, RandomSource
from app.adapters.kucoin.recording.entries import RecordedAttempt
from app.adapters.kucoin.recording.sessions import SessionPlayer, SessionRecorder
from app.adapters.kucoin.recording.stream import (
    FrameStream,
    RecordedStream,
    ReplayedStream,
    connect_player,
)
from app.adapters.kucoin.rest import LinkTracker, RestApi, RestClient, RestDependencies
from app.adapters.kucoin.stream import protocol
from app.adapters.kucoin.stream.protocol import StreamLimits, StreamTicket
from app.adapters.kucoin.transport import (
    AiohttpTransport,
    ExchangeResponse,
    HttpTransport,
    RequestFailure,
    RequestSuccess,
    interpret_response,
    open_session,
)
from app.foundation.data_status import DataSource
from app.foundation.errors import ServiceError
from app.market.domain.models import ExchangeLink
from app.research.domain.recording import RecordingClock, RecordingError

T = TypeVar("T")
_NO_WAIT: Final = 0.0


class RecordingTransport:
    """Transport that keeps the attempts of one request; other requests pass unrecorded."""

    def __init__(self, wire: HttpTransport) -> None:
        self._wire = wire
        self._path = ""
        self._attempts: list[RecordedAttempt] = []

    def expect(self, path: str) -> None:
        """Record the attempts of requests with this path from now on."""
        self._path = path
        self._attempts.clear()

    async def ask(
        self, method: str, path: str, params: Mapping[str, str], within_s: float
    ) -> ExchangeResponse | RequestFailure:
        outcome = await self._wire.ask(method, path, params, within_s)
        if path != self._path:
            return outcome
        if isinstance(outcome, ExchangeResponse):
            self._attempts.append(RecordedAttempt(outcome.status, outcome.body))
        else:
            self._attempts.append(RecordedAttempt(None, b"", outcome.error.detail))
        return outcome

    def take_attempts(self) -> tuple[RecordedAttempt, ...]:
        """Return the recorded attempts and stop recording."""
        found = tuple(self._attempts)
        self.expect("")
        return found


class RecordingRest:
    """Sequential requests; each is in the recording before its answer is used."""

    def __init__(self, rest: RestApi, wire: RecordingTransport, tape: SessionRecorder) -> None:
        self._rest = rest
        self._wire = wire
        self._tape = tape

    def link(self) -> ExchangeLink:
        return self._rest.link()

    async def get(
        self,
        endpoint: Endpoint,
        read: Callable[[object], T],
        params: Mapping[str, str],
        *,
        symbol: str = "",
        patience_s: float,
    ) -> T:
        """As `RestClient.get`."""
        found: list[object] = []

        def keep(data: object) -> None:
            found.append(data)

        path = endpoint.path.format(symbol=symbol)
        self._wire.expect(path)
        self._tape.record_request(endpoint.method, path, params)
        try:
            await self._rest.get(endpoint, keep, params, symbol=symbol, patience_s=patience_s)
        except ServiceError as error:
            self._tape.record_response(self._wire.take_attempts(), error)
            raise
        self._tape.record_response(self._wire.take_attempts(), None)
        return read(found[0])


class ReplayedRest:
    """Requests answered from a recording, without a network."""

    def __init__(self, tape: SessionPlayer, clock: RecordingClock) -> None:
        self._tape = tape
        self._clock = clock
        self._link = LinkTracker(now=clock.now, monotonic=clock.monotonic)

    def link(self) -> ExchangeLink:
        return self._link.report(_NO_WAIT)

    async def get(
        self,
        endpoint: Endpoint,
        read: Callable[[object], T],
        params: Mapping[str, str],
        *,
        symbol: str = "",
        patience_s: float,
    ) -> T:
        """As `RestClient.get`. Raises TapeError where the recording has another request."""
        del patience_s  # a replay never waits
        path = endpoint.path.format(symbol=symbol)
        self._tape.expect_request(endpoint.method, path, params)
        sent_at = self._clock.monotonic()
        given = self._tape.next_response()
        if given.refusal is not None:
            error = given.refusal.error()
            self._link.failure(error)
            raise error
        last = given.attempts[-1] if given.attempts else None
        if last is None or last.status is None:
            raise RecordingError(f"the tape has data of {path}, and no answer that holds it")
        outcome = interpret_response(ExchangeResponse(last.status, SILENT, last.body), endpoint)
        if not isinstance(outcome, RequestSuccess):
            raise RecordingError(f"the answer to {path} was data when it was recorded")
        self._link.success(sent_at)
        return read(outcome.data)


_NOWHERE = "http://tape.invalid"  # no request is sent to it


@asynccontextmanager
async def open_recording(
    tape: SessionRecorder,
    clock: RecordingClock,
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
    clock: RecordingClock,
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
