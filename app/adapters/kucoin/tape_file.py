"""A tape as a file: packed blocks that are only ever appended, each with its length and checksum.

Layout: the magic with the version of the format, then blocks of (length, CRC-32, packed bytes),
all numbers little-endian. A block unpacks to entries of (length, msgpack); the first entry of a
file is the header. Whatever ends the writer, every block before the last one is whole.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from app.adapters.kucoin.tape_entries import Entry, Header
from app.research.domain.recording import TapeError

MAGIC: Final = b"my-symbols tape 1\n"
BLOCK_BYTES: Final = 256 * 1024  # of entries, before they are packed
BLOCK_S: Final = 1.0  # at most so much is lost when the machine goes down
_MOST: Final = 64 * 1024 * 1024  # a longer block is none of ours
_LEVEL: Final = 6
_BLOCK: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<I")
_ENCODE: Final = msgspec.msgpack.Encoder(decimal_format="string").encode
_HEADER: Final = msgspec.msgpack.Decoder(Header)
_ENTRY: Final = msgspec.msgpack.Decoder(Entry)


class TapeWriter:
    """Writes a new file. Raises FileExistsError for one that is there, OSError as files do.

    `level` is how hard it packs, 0 to 9; 0 suits a file that is packed as a whole afterwards.
    """

    def __init__(self, path: Path, header: Header, level: int = _LEVEL) -> None:
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

    def _add(self, entry: Entry | Header) -> None:
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
class TapeReader:
    """Reads a file from its beginning. Raises TapeError for what is no tape, OSError as files do.

    `cut` says after the last entry what is wrong with the rest of the file; None if it is whole.
    """

    path: Path
    header: Header = field(init=False)
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
