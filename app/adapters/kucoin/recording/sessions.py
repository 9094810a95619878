"""Recorder and player of a session: both move the recording's clock with each entry."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from app.adapters.kucoin.recording.entries import (
    BoardComputed,
    ConfigurationApplied,
    Entry,
    FrameReceived,
    FramesApplied,
    LiveTopicsChanged,
    RecordedAttempt,
    RecordedError,
    RecordingEnded,
    RecordingReader,
    RecordingWriter,
    RequestSent,
    ResponseReceived,
    StepStarted,
    sorted_query,
)
from app.foundation.errors import ServiceError
from app.market.domain.stream import StreamTopic
from app.research.domain.recording import (
    BoardFingerprint,
    EndOfRecordingError,
    RecordingClock,
    RecordingError,
    SessionStep,
)

E = TypeVar("E", bound=Entry)


def _ignore_entry(
    entry: FrameReceived | LiveTopicsChanged | FramesApplied | ConfigurationApplied,
) -> None:
    """Default listener: does nothing."""


class SessionRecorder:
    """Writes entries as they happen; `clock` has the time of the newest one."""

    def __init__(
        self, writer: RecordingWriter, clock: RecordingClock, monotonic: Callable[[], float]
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._monotonic = monotonic

    def _now(self) -> float:
        self._clock.move(self._monotonic())
        return self._clock.mono

    def record_step(self, step: SessionStep) -> None:
        self._writer.write(StepStarted(self._now(), step))

    def record_configuration(self, configuration: Mapping[str, Any], version: int) -> None:
        self._writer.write(ConfigurationApplied(self._now(), dict(configuration), version))

    def record_request(self, method: str, path: str, params: Mapping[str, str]) -> None:
        self._writer.write(RequestSent(self._now(), method, path, sorted_query(params)))

    def record_response(
        self, attempts: tuple[RecordedAttempt, ...], refusal: ServiceError | None
    ) -> None:
        error = None if refusal is None else RecordedError.from_error(refusal)
        self._writer.write(ResponseReceived(self._now(), attempts, error))

    def record_frame(self, at: float, line: int, text: bytes) -> FrameReceived:
        """Record a frame that arrived at `at`, possibly some time ago."""
        self._clock.move(at)
        return self._written(FrameReceived(at, line, text))

    def record_live_topics(
        self, gained: Mapping[StreamTopic, float], lost: Iterable[StreamTopic]
    ) -> LiveTopicsChanged:
        return self._written(
            LiveTopicsChanged(self._now(), tuple(sorted(gained.items())), tuple(sorted(lost)))
        )

    def record_application(self) -> FramesApplied:
        return self._written(FramesApplied(self._now()))

    def _written(self, entry: E) -> E:
        self._writer.write(entry)
        return entry

    def record_board(self, board: BoardFingerprint) -> None:
        """Record a board; the clock stays at the time of its computation."""
        self._writer.write(BoardComputed(self._clock.mono, board))

    def flush(self) -> None:
        self._writer.flush()

    def record_end(self) -> None:
        self._writer.write(RecordingEnded(self._now()))


class SessionPlayer:
    """Returns entries in their order, each only to the matching call.

    Any other call comes from other code than the recorded one: RecordingError. At the end of the
    recording, within a step too: EndOfRecordingError.
    """

    def __init__(self, reader: RecordingReader, clock: RecordingClock) -> None:
        self._entries: Iterator[Entry] = iter(reader)
        self._clock = clock
        self._next: Entry | None = None
        self.is_ended = False  # the recording was ended, not cut off
        self.stream: Callable[[FrameReceived | LiveTopicsChanged | FramesApplied], None] = (
            _ignore_entry
        )
        self.on_configuration: Callable[[ConfigurationApplied], None] = _ignore_entry

    def next_step(self) -> SessionStep:
        """Next step; entries before it go to their listeners on the way."""
        while isinstance(
            found := self._look(),
            FrameReceived | LiveTopicsChanged | FramesApplied | ConfigurationApplied,
        ):
            self._next = None
            self._clock.move(found.at)
            if isinstance(found, ConfigurationApplied):
                self.on_configuration(found)
            else:
                self.stream(found)
        return self._take(StepStarted, "begins no step").step

    def expect_request(self, method: str, path: str, params: Mapping[str, str]) -> None:
        given = self._take(RequestSent, f"has no {method} {path}")
        if (given.method, given.path, given.query) != (method, path, sorted_query(params)):
            raise RecordingError(
                f"the tape asks {given.method} {given.path} {given.query} where the replay asks"
                f" {method} {path} {sorted_query(params)}: it was recorded by other code"
            )

    def next_response(self) -> ResponseReceived:
        return self._take(ResponseReceived, "has no answer")

    def next_board(self) -> BoardFingerprint | None:
        """Board recorded here; None without one."""
        if not isinstance(self._look(), BoardComputed):
            return None
        return self._take(BoardComputed, "has no board").board

    def _look(self) -> Entry | None:
        if self._next is None:
            self._next = next(self._entries, None)
        return self._next

    def _take(self, kind: type[E], otherwise: str) -> E:
        found = self._look()
        if found is None or isinstance(found, RecordingEnded):
            self.is_ended = found is not None
            raise EndOfRecordingError("the tape is at its end")
        if not isinstance(found, kind):
            name = type(found).__name__.lower()
            raise RecordingError(
                f"the tape {otherwise} here, but goes on with an entry of {name!r}"
            )
        self._next = None
        self._clock.move(found.at)
        return found
