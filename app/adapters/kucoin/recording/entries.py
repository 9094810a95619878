"""What stands on a tape: each entry with the monotonic second at which it came to us."""

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
from app.market.domain.stream import Topic
from app.research.domain.recording import BoardLine, Step, TapeError

_KINDS: Final[tuple[type[ServiceError], ...]] = (
    BadResponseError,
    ExchangeTimeoutError,
    UnavailableError,
    RefusedError,
)
_BY_NAME: Final = {kind.__name__: kind for kind in _KINDS}


class RecordingHeader(msgspec.Struct, frozen=True, array_like=True):
    """The first entry: all that a player needs to know besides the payloads."""

    source: str
    code_version: str
    started_ms: int  # of the wall clock, at the monotonic second `zero`
    zero: float
    configuration: dict[str, Any]  # the business settings, as they are stored
    configuration_version: int
    is_streaming: bool = False  # the configured feed mode, which age limits follow


class StepStarted(msgspec.Struct, frozen=True, array_like=True, tag="began"):
    """A step is done now."""

    at: float
    step: Step


class ConfigurationApplied(msgspec.Struct, frozen=True, array_like=True, tag="configured"):
    """From here on other business settings are in force."""

    at: float
    configuration: dict[str, Any]  # as they are stored
    version: int


class RequestSent(msgspec.Struct, frozen=True, array_like=True, tag="asked"):
    """A request is about to leave."""

    at: float
    method: str
    path: str
    query: dict[str, str]


class RecordedAttempt(msgspec.Struct, frozen=True, array_like=True):
    """One answer as it came, unpacked; or why none came."""

    status: int | None
    body: bytes
    fault: str | None = None


class RecordedError(msgspec.Struct, frozen=True, array_like=True):
    """What the request came to, where that was no data."""

    kind: str
    code: str
    detail: str
    retry_after_s: float | None
    facts: dict[str, str]

    @classmethod
    def of(cls, error: ServiceError) -> "RecordedError":
        kind = next((one for one in _KINDS if isinstance(error, one)), UnavailableError)
        return cls(
            kind.__name__, error.code.value, error.detail, error.retry_after_s, dict(error.facts)
        )

    def error(self) -> ServiceError:
        """Raises ValueError for a code that this version does not know."""
        kind = _BY_NAME.get(self.kind, UnavailableError)
        return kind(
            Code(self.code), self.detail, retry_after_s=self.retry_after_s, facts=self.facts
        )


class ResponseReceived(msgspec.Struct, frozen=True, array_like=True, tag="answered"):
    """The request has come to its end, after so many attempts; none where it could not leave."""

    at: float
    attempts: tuple[RecordedAttempt, ...]
    refusal: RecordedError | None = None


class FrameReceived(msgspec.Struct, frozen=True, array_like=True, tag="heard"):
    """One frame of market data as it came over a connection, by the number of that."""

    at: float
    line: int
    text: bytes


class LiveTopicsChanged(msgspec.Struct, frozen=True, array_like=True, tag="live"):
    """What is heard without having missed anything, as far as it is not as before."""

    at: float
    gained: tuple[tuple[Topic, float], ...]  # and since which monotonic second
    lost: tuple[Topic, ...]


class FramesApplied(msgspec.Struct, frozen=True, array_like=True, tag="flushed"):
    """What was heard until now was used now."""

    at: float


class BoardComputed(msgspec.Struct, frozen=True, array_like=True, tag="scored"):
    """The board that was made where the tape was recorded."""

    at: float
    board: BoardLine


class RecordingEnded(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """Nothing follows: the recording was ended, not cut off."""

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
    """The parameters in one order, whoever named them."""
    return dict(sorted(params.items()))


MAGIC: Final = b"my-symbols tape 1\n"
BLOCK_BYTES: Final = 256 * 1024  # of entries, before they are packed
BLOCK_S: Final = 1.0  # at most so much is lost when the machine goes down
_MOST: Final = 64 * 1024 * 1024  # a longer block is none of ours
_LEVEL: Final = 6
_BLOCK: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")
_ENCODE: Final = msgspec.msgpack.Encoder(decimal_format="string").encode
_HEADER: Final = msgspec.msgpack.Decoder(RecordingHeader)
_ENTRY: Final = msgspec.msgpack.Decoder(Entry)


class RecordingWriter:
    """Writes a new file. Raises FileExistsError for one that is there, OSError as files do.

    `level` is how hard it packs, 0 to 9; 0 suits a file that is packed as a whole afterwards.
    """

    def __init__(self, path: Path, header: RecordingHeader, level: int = _LEVEL) -> None:
        self._level = level
        self._file: BinaryIO = path.open("xb")
        self._waiting = bytearray()
        self._since: float | None = None  # the oldest entry that is not in the file yet
        self._file.write(MAGIC)
        self._add(header)
        self.flush()

    def write(self, entry: Entry) -> None:
        """It is in the file at the latest with the first entry that is a second younger."""
        self._add(entry)
        if self._since is None:
            self._since = entry.at
        if len(self._waiting) >= BLOCK_BYTES or entry.at - self._since >= BLOCK_S:
            self.flush()

    def _add(self, entry: Entry | RecordingHeader) -> None:
        packed = _ENCODE(entry)
        self._waiting += _LENGTH.pack(len(packed)) + packed

    def flush(self) -> None:
        """Everything written so far is on the disk."""
        self._since = None
        if not self._waiting:
            return
        packed = zlib.compress(bytes(self._waiting), self._level)
        self._waiting.clear()
        # One write: who dies in it leaves a cut block, and never one that seems whole.
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
    """Reads a file from its beginning. Raises TapeError for what is no tape, OSError as files do.

    `cut` says after the last entry what is wrong with the rest of the file; None if it is whole.
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
            raise TapeError(f"{self.path} {what}")
        found = self._block()
        if not found:
            raise TapeError(f"{self.path} holds nothing: {self.cut or 'it ends at once'}")
        try:
            self.header = _HEADER.decode(found[0])
        except msgspec.MsgspecError as error:
            raise TapeError(f"{self.path} begins with what no tape begins with") from error
        self._first = found[1:]

    def __iter__(self) -> Iterator[Entry]:
        packed: list[bytes] | None = self._first
        while packed is not None:
            for one in packed:
                try:
                    yield _ENTRY.decode(one)
                except msgspec.MsgspecError as error:
                    raise TapeError(f"{self.path} holds what this version cannot read") from error
            packed = self._block()

    def _block(self) -> list[bytes] | None:
        """The entries of the next block; None at the end, or where the rest is damaged."""
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
