"""The fixture: recording, rows, hashes and names, how they are made and how they are replayed."""

import hashlib
import lzma
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from app.adapters.kucoin.recording.entries import BoardComputed, RecordingReader, RecordingWriter
from app.container.recording import RecordingListener, replay
from tests.golden.decisions import Decisions
from tests.golden.rows import Names, Row, as_text, from_text, hashes_of
from tests.golden.scenario import CONTRACTS, FOR_S, configuration, faults
from tests.support.recording_fixtures import Studio

FOLDER: Final = Path(__file__).parent
MOST_BYTES: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Fixture:
    """The files of one golden recording."""

    folder: Path = FOLDER

    @property
    def recording(self) -> Path:
        return self.folder / "market.tape.xz"

    @property
    def rows(self) -> Path:
        return self.folder / "rows.csv"

    @property
    def hashes(self) -> Path:
        return self.folder / "hashes.txt"

    @property
    def names(self) -> Path:
        return self.folder / "names.csv"

    def expected_rows(self) -> list[Row]:
        return from_text(self.rows.read_text(encoding="utf-8"))

    def expected_hashes(self) -> dict[str, str]:
        lines = self.hashes.read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}

    def write(self, recording: bytes, decisions: Decisions) -> None:
        """Raises ValueError for a recording that is too large to be committed."""
        if len(recording) > MOST_BYTES:
            raise ValueError(f"the recording has {len(recording)} bytes, {MOST_BYTES} may be")
        self.recording.write_bytes(recording)
        self.rows.write_text(as_text(decisions.rows), encoding="utf-8")
        decisions.names.write(self.names)
        known = {"recording": digest_of(recording), **hashes_of(decisions.rows)}
        lines = "".join(f"{digest}  {name}\n" for name, digest in known.items())
        self.hashes.write_text(lines, encoding="utf-8")


def digest_of(recording: bytes) -> str:
    """SHA-256 of what is recorded, not of how it is packed."""
    return hashlib.sha256(lzma.decompress(recording)).hexdigest()


async def recorded(for_s: float = FOR_S) -> bytes:
    """Records the market of the scenario from the local exchange; no decision is made."""
    with TemporaryDirectory(prefix="golden-") as folder:
        path, lean = Path(folder) / "market.tape", Path(folder) / "lean.tape"
        acts = {at: act for at, act in faults().items() if at < for_s}
        studio = Studio(path, acts)
        await studio.recorded(
            for_s, None, CONTRACTS, configuration=configuration(), includes_settings=False
        )
        _strip(path, lean)
        return lzma.compress(lean.read_bytes(), preset=9 | lzma.PRESET_EXTREME)


def _strip(source: Path, target: Path) -> None:
    """Without versions and boards: what the exchange said, and when, is all that is kept."""
    with RecordingReader(source) as reader:
        header = msgspec.structs.replace(reader.header, code_version="")
        with RecordingWriter(target, header, level=0) as writer:
            for entry in reader:
                if not isinstance(entry, BoardComputed):
                    writer.write(entry)


async def replayed(recording: bytes, names: Names) -> Decisions:
    """Every decision that is made on a recording. Raises TapeError where it asks otherwise."""
    decisions = Decisions(names)
    with TemporaryDirectory(prefix="golden-") as folder:
        path = Path(folder) / "market.tape"
        path.write_bytes(lzma.decompress(recording))
        listener = RecordingListener(lambda _: None, lambda *_: None)
        await replay(path, listener, configuration(), decisions.after)
    return decisions
