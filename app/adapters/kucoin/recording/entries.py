"""File format of a recording: its entries, and their writer and reader."""

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import msgspec

from app.foundation.errors import (
    BadResponseError,
    Code,
    ExchangeTimeoutError,
    RefusedError,
    ServiceError,
    UnavailableError,
)
from app.market.domain.stream import StreamTopic
from app.research.domain.recording import BoardFingerprint, RecordingError, SessionStep

_KINDS: Final[tuple[type[ServiceError], ...]] = (
    BadResponseError,
    ExchangeTimeoutError,
    UnavailableError,
    RefusedError,
)
_BY_NAME: Final = {kind.__name__: kind for kind in _KINDS}


class RecordingHeader(msgspec.Struct, frozen=True, array_like=True):
    """First entry: the context that a replay needs besides the payloads."""

    source: str
    code_version: str
    started_ms: int  # wall clock at the monotonic second `zero`
    zero: float
    configuration: dict[str, Any]  # the business settings, as they are stored
    configuration_version: int
    is_streaming: bool = False  # the configured feed mode, which age limits follow


class StepStarted(msgspec.Struct, frozen=True, array_like=True, tag="began"):
    """Start of a step of the session."""

    at: float
    step: SessionStep


class ConfigurationApplied(msgspec.Struct, frozen=True, array_like=True, tag="configured"):
    """Change of the business settings from here on."""

    at: float
    configuration: dict[str, Any]  # as they are stored
    version: int


class RequestSent(msgspec.Struct, frozen=True, array_like=True, tag="asked"):
    """Request just before it is sent."""

    at: float
    method: str
    path: str
    query: dict[str, str]


class RecordedAttempt(msgspec.Struct, frozen=True, array_like=True):
    """One decompressed answer, or the fault in its place."""

    status: int | None
    body: bytes
    fault: str | None = None


class RecordedError(msgspec.Struct, frozen=True, array_like=True):
    """Error of a request without data."""

    kind: str
    code: str
    detail: str
    retry_after_s: float | None
    facts: dict[str, str]

    @classmethod
    def from_error(cls, error: ServiceError) -> "RecordedError":
        kind = next((one for one in _KINDS if isinstance(error, one)), UnavailableError)
        facts = {name: fact for name, fact in error.facts.items() if isinstance(fact, str)}
        return cls(kind.__name__, error.code.value, error.detail, error.retry_after_s, facts)

    def error(self) -> ServiceError:
        """Rebuild the error; raises ValueError for a code unknown to this version."""
        kind = _BY_NAME.get(self.kind, UnavailableError)
        return kind(
            Code(self.code), self.detail, retry_after_s=self.retry_after_s, facts=self.facts
        )


class ResponseReceived(msgspec.Struct, frozen=True, array_like=True, tag="answered"):
    """End of a request after its attempts; without attempts it could not be sent."""

    at: float
    attempts: tuple[RecordedAttempt, ...]
    refusal: RecordedError | None = None


class FrameReceived(msgspec.Struct, frozen=True, array_like=True, tag="heard"):
    """Frame of market data with the number of its connection."""

    at: float
    line: int
    text: bytes


class LiveTopicsChanged(msgspec.Struct, frozen=True, array_like=True, tag="live"):
    """Change of the live topics: those whose stream has no gap."""

    at: float
    gained: tuple[
        tuple[StreamTopic, float], ...
    ]  # topic and monotonic second since which it is live
    lost: tuple[StreamTopic, ...]


class FramesApplied(msgspec.Struct, frozen=True, array_like=True, tag="flushed"):
    """Point at which the frames received before were applied."""

    at: float


class BoardComputed(msgspec.Struct, frozen=True, array_like=True, tag="scored"):
    """Board computed during the recording."""

    at: float
    board: BoardFingerprint


class RecordingEnded(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """Last entry of a recording that was ended, not cut off."""

    at: float


Entry = (
    StepStarted
    | ConfigurationApplied
    | RequestSent
    | ResponseReceived
    | FrameReceived
    | LiveTopicsChanged
    | FramesApplied
    | BoardComputed
    | RecordingEnded
)


def sorted_query(params: Mapping[str, str]) -> dict[str, str]:
    """Parameters sorted by name."""
    return dict(sorted(params.items()))


MAGIC: Final = b"my-symbols tape 1\n"
BLOCK_BYTES: Final = 256 * 1024  # uncompressed size of a block
BLOCK_S: Final = 1.0  # most seconds of entries that a crash loses
_MOST: Final = 64 * 1024 * 1024  # a longer block is invalid
_LEVEL: Final = 6
_BLOCK: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")
_ENCODE: Final = msgspec.msgpack.Encoder(decimal_format="string").encode
_HEADER: Final = msgspec.msgpack.Decoder(RecordingHeader)
_ENTRY: Final = msgspec.msgpack.Decoder(Entry)


class RecordingWriter:
    """Writes a new file; raises FileExistsError for an existing one, and OSError.

    `level` is the zlib level, 0 to 9; 0 suits a file that is compressed as a whole afterwards.
    """

    def __init__(self, path: Path, header: RecordingHeader, level: int = _LEVEL) -> None:
        self._level = level
        self._file: BinaryIO = path.open("xb")
        self._waiting = bytearray()
        self._since: float | None = None  # time of the oldest entry that is not in the file yet
        self._file.write(MAGIC)
        self._add(header)
        self.flush()

    def write(self, entry: Entry) -> None:
        """Add an entry; it reaches the file with the first entry a second younger, or earlier."""
        self._add(entry)
        if self._since is None:
            self._since = entry.at
        if len(self._waiting) >= BLOCK_BYTES or entry.at - self._since >= BLOCK_S:
            self.flush()

    def _add(self, entry: Entry | RecordingHeader) -> None:
        packed = _ENCODE(entry)
        self._waiting += _LENGTH.pack(len(packed)) + packed

    def flush(self) -> None:
        """Write all entries to the disk."""
        self._since = None
        if not self._waiting:
            return
        packed = zlib.compress(bytes(self._waiting), self._level)
        self._waiting.clear()
        # One write: a crash within it leaves a cut block that its checksum reveals.
        self._file.write(_BLOCK.pack(len(packed), zlib.crc32(packed)) + packed)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.flush()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(slots=True)
class RecordingReader:
    """Reads a file from its start; raises TapeError for another kind of file, and OSError.

    `cut` describes, after the last entry, damage to the rest of the file; None if it is whole.
    """

    path: Path
    header: RecordingHeader = field(init=False)
    cut: str | None = field(default=None, init=False)
    _file: BinaryIO = field(init=False, repr=False)
    _first: list[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._file = self.path.open("rb")
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def _begin(self) -> None:
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC:
            is_tape = magic.startswith(MAGIC.rpartition(b" ")[0])
            what = "is a tape of another version" if is_tape else "is no tape"
            raise RecordingError(f"{self.path} {what}")
        found = self._block()
        if not found:
            raise RecordingError(f"{self.path} is empty: {self.cut or 'it ends at once'}")
        try:
            self.header = _HEADER.decode(found[0])
        except msgspec.MsgspecError as error:
            raise RecordingError(f"{self.path} has an invalid header") from error
        self._first = found[1:]

    def __iter__(self) -> Iterator[Entry]:
        packed: list[bytes] | None = self._first
        while packed is not None:
            for one in packed:
                try:
                    yield _ENTRY.decode(one)
                except msgspec.MsgspecError as error:
                    raise RecordingError(
                        f"{self.path} has an entry that this version cannot read"
                    ) from error
            packed = self._block()

    def _block(self) -> list[bytes] | None:
        """Entries of the next block; None at the end, or at a damaged block."""
        at = self._file.tell()
        head = self._file.read(_BLOCK.size)
        if not head:
            return None
        length, check = _BLOCK.unpack(head) if len(head) == _BLOCK.size else (_MOST, 0)
        packed = self._file.read(min(length, _MOST))
        if len(packed) == length and zlib.crc32(packed) == check:
            return list(_entries(zlib.decompress(packed)))
        size = self.path.stat().st_size
        is_short = at + _BLOCK.size + length > size
        why = "the file ends in the middle of a block" if is_short else "a block is damaged"
        self.cut = f"{why}: {size - at} bytes from {at} on are left out"
        return None

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _entries(block: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(block):
        (length,) = _LENGTH.unpack_from(block, at)
        at += _LENGTH.size
        yield block[at : at + length]
        at += length
