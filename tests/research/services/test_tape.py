"""A recording of the local exchange, and what is made of it where there is no exchange."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from app.adapters.kucoin.recording.entries import (
    MAGIC,
    Entry,
    FrameReceived,
    LiveTopicsChanged,
    RecordedAttempt,
    RecordingReader,
    RecordingWriter,
    RequestSent,
    ResponseReceived,
)
from app.adapters.kucoin.recording.stream import ReplayedStream
from app.configuration.domain.model import Configuration, IntervalSettings
from app.configuration.domain.sections import FeedSettings
from app.market.domain.stream import StreamTopic, TopicKind
from app.research.domain.recording import (
    BoardFingerprint,
    EndOfRecordingError,
    RecordingError,
    Schedule,
    SessionStep,
)
from app.research.services.recording import LiveRecordingSteps
from tests.support.recording_fixtures import Act, StreamStudio, Studio, alone, replayed

pytestmark = pytest.mark.xdist_group("tape")  # one recording for all of them

ETH, TICKERS = "ETHUSDTM", "/api/v1/allTickers"


async def thousandfold(studio: Studio) -> None:
    await studio.control(
        "POST",
        "faults",
        kind="malformed",
        path=TICKERS,
        symbol=ETH,
        field="price",
        value="3200000.5",
    )


async def cut_off(studio: Studio) -> None:
    await studio.control("POST", "faults", kind="reset", path="*")


async def heal(studio: Studio) -> None:
    await studio.control("DELETE", "faults")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A quarantine in the second minute, and an exchange that is away in the fourth."""
    path = tmp_path_factory.mktemp("tape") / "market.tape"
    acts: dict[float, Act] = {70.0: thousandfold, 130.0: heal, 200.0: cut_off, 250.0: heal}
    work = Studio(path, acts).recorded(for_s=400.0, board_every_s=60.0)
    with ThreadPoolExecutor(1) as pool:  # away from the loops of the tests
        return pool.submit(asyncio.run, work).result()


def rewritten(source: Path, target: Path, change: Callable[[int, Entry], Entry | None]) -> Path:
    """A tape with other entries; None leaves one out."""
    with RecordingReader(source) as reader, RecordingWriter(target, reader.header) as writer:
        for number, entry in enumerate(reader):
            changed = change(number, entry)
            if changed is not None:
                writer.write(changed)
    return target


async def test_another_process_without_a_network_makes_the_same_boards(studio: Studio) -> None:
    assert any("ETHUSDT" in one.quarantined for one in studio.boards), "no quarantine on it"
    assert ("market", "exchange_unavailable") in studio.failed, "no outage on it"
    assert studio.boards[-1].quarantined == (), "and none that has ended"
    exit_code, said = alone(studio.path)
    assert exit_code == 0
    assert [(one["input_hash"], one["board_hash"]) for one in said["boards"]] == [
        (one.input_hash, one.board_hash) for one in studio.boards
    ]
    assert len({one.board_hash for one in studio.boards}) == len(studio.boards) >= 4
    assert [(one["step"], one["code"]) for one in said["failed"]] == studio.failed
    assert (said["compared"], said["different"]) == (len(studio.boards), [])
    assert said["is_ended"] is True
    assert said["cut"] is None


async def disturbed(studio: StreamStudio) -> None:
    """A price that nobody can believe, and a lost connection; then a new one tells on."""

    def lines() -> set[int]:
        return {entry.line for entry in studio.entries() if isinstance(entry, FrameReceived)}

    async def boards_more(count: int) -> None:
        before = len(studio.boards)
        await studio.until(lambda: len(studio.boards) >= before + count)

    await studio.until(
        lambda: any(isinstance(entry, LiveTopicsChanged) for entry in studio.entries())
    )
    await studio.until(lambda: len(lines()) == 1)
    await boards_more(2)  # the second one at least was begun after all that
    await thousandfold(studio)
    await studio.until(lambda: "ETHUSDT" in studio.boards[-1].quarantined)
    await studio.control("POST", "stream/close")
    await studio.until(lambda: len(lines()) > 1)
    await boards_more(2)


async def test_a_streamed_market_is_the_same_again_over_a_reconnect_and_a_quarantine(
    tmp_path: Path,
) -> None:
    quick = replace(Configuration(), feed=FeedSettings(tickers_s=2))
    studio = await StreamStudio(tmp_path / "stream.tape").streamed(disturbed, quick)
    exit_code, said = alone(studio.path)
    assert (exit_code, said["different"]) == (0, [])
    assert said["compared"] == len(studio.boards) >= 3
    assert [one["board_hash"] for one in said["boards"]] == [
        one.board_hash for one in studio.boards
    ]
    assert any(entry.lost for entry in studio.entries() if isinstance(entry, LiveTopicsChanged))
    assert "ETHUSDT" in studio.boards[-1].quarantined
    # The frames count: with other quotes in them it is another market.
    path = rewritten(studio.path, tmp_path / "other.tape", lambda _, one: lower(one))
    assert (await replayed(path))[1].different != ()


def lower(entry: Entry) -> Entry:
    """A frame of best quotes with a bid that is a thousandth lower."""
    if not isinstance(entry, FrameReceived) or b"tickerV2" not in entry.text:
        return entry
    frame = json.loads(entry.text)
    frame["data"]["bestBidPrice"] = str(Decimal(frame["data"]["bestBidPrice"]) * Decimal("0.999"))
    return msgspec.structs.replace(entry, text=json.dumps(frame).encode())


async def test_one_other_byte_from_the_exchange_is_another_board(
    studio: Studio, tmp_path: Path
) -> None:
    asked: dict[str, str] = {}
    seen: list[str] = []

    def dearer(_: int, entry: Entry) -> Entry:
        if isinstance(entry, RequestSent):
            asked["path"] = entry.path
        if isinstance(entry, ResponseReceived) and asked["path"].endswith("depth100") and not seen:
            body = entry.attempts[0].body
            at = body.index(b'"bids":[[') + len(b'"bids":[[')
            digit = next(one for one in range(at, len(body)) if chr(body[one]) in "12345678")
            changed = body[:digit] + bytes([body[digit] + 1]) + body[digit + 1 :]
            seen.append("book")
            return msgspec.structs.replace(entry, attempts=(RecordedAttempt(200, changed),))
        return entry

    path = rewritten(studio.path, tmp_path / "other.tape", dearer)
    heard, found = await replayed(path)
    assert found.different[0] == 1
    assert found.is_same_code
    assert heard.boards[0].input_hash != studio.boards[0].input_hash


async def test_a_tape_that_asks_something_else_is_not_guessed_at(
    studio: Studio, tmp_path: Path
) -> None:
    path = rewritten(
        studio.path,
        tmp_path / "other.tape",
        lambda number, one: (
            msgspec.structs.replace(one, path="/api/v1/elsewhere")
            if number == 3 and isinstance(one, RequestSent)
            else one
        ),
    )
    with pytest.raises(RecordingError, match="elsewhere"):
        await replayed(path)


def test_what_a_cut_tape_still_holds_is_replayed_and_the_cut_is_said(
    studio: Studio, tmp_path: Path
) -> None:
    whole = studio.path.read_bytes()
    path = tmp_path / "cut.tape"
    path.write_bytes(whole[: len(whole) * 9 // 10])
    exit_code, said = alone(path)
    assert exit_code == 0
    assert "in the middle of a block" in said["cut"]
    assert said["is_ended"] is False
    count = len(said["boards"])
    assert 0 < count < len(studio.boards)
    assert [one["board_hash"] for one in said["boards"]] == [
        one.board_hash for one in studio.boards[:count]
    ]
    assert said["different"] == []


async def test_a_damaged_block_ends_the_tape_where_it_is(studio: Studio, tmp_path: Path) -> None:
    whole = bytearray(studio.path.read_bytes())
    whole[len(whole) * 9 // 10] ^= 1
    path = tmp_path / "damaged.tape"
    path.write_bytes(whole)
    with RecordingReader(path) as reader:
        held = list(reader)
    assert reader.cut is not None
    assert "damaged" in reader.cut
    with RecordingReader(studio.path) as whole_reader:
        recorded = list(whole_reader)
    assert whole_reader.cut is None
    assert 0 < len(held) < len(recorded)
    assert held == recorded[: len(held)]


async def test_a_tape_is_never_written_over(studio: Studio) -> None:
    before = studio.path.read_bytes()
    with pytest.raises(FileExistsError):
        await Studio(studio.path).recorded(for_s=1.0, board_every_s=1.0, contracts=2)
    assert studio.path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no tape"),
        (b"PAR1 something else", "is no tape"),
        (MAGIC.replace(b"1", b"2"), "another version"),
        (MAGIC, "is empty"),
        (MAGIC + b"\x08\x00", "is empty"),
    ],
)
async def test_what_is_no_tape_is_named_so(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "some.tape"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=said):
        await replayed(path)


@dataclass
class Notes:
    """A journal and an inflow that only note what is asked of them."""

    seen: list[str] = field(default_factory=list)
    now: float = 0.0
    is_behind: bool = False

    def monotonic(self) -> float:
        return self.now

    def record_step(self, step: SessionStep) -> None:
        self.seen.append(step.value)

    def record_board(self, board: BoardFingerprint) -> None:
        raise AssertionError(board)

    def flush(self) -> None:
        self.seen.append("flush")

    def drain(self) -> None:
        self.seen.append("drain")

    def begin_catch_up(self) -> None:
        self.is_behind = False

    def end_catch_up(self, error: object) -> None:
        self.seen.append(f"caught up: {error}")

    async def wait(self, seconds: float) -> None:
        self.seen.append("wait")
        self.now += seconds


async def test_before_it_waits_all_is_safe_and_what_was_told_comes_before_each_step() -> None:
    notes = Notes()
    steps = LiveRecordingSteps(
        Schedule(IntervalSettings()), notes, notes, notes.monotonic, notes.wait, duration_s=20.0
    )  # fmt: skip
    assert await steps.next() is SessionStep.FILL
    steps.finish_step(SessionStep.FILL, None)
    assert await steps.next() is SessionStep.SCORING
    notes.is_behind = True
    assert await steps.next() is SessionStep.CATCH_UP
    steps.finish_step(SessionStep.CATCH_UP, None)
    assert await steps.next() is SessionStep.BOOKS
    with pytest.raises(EndOfRecordingError):
        await steps.next()
    assert notes.seen == [
        *("first_fill", "drain", "scoring", "drain", "catch_up", "caught up: None"),
        *("drain", "flush", "wait", "drain", "books", "drain", "flush", "wait", "drain"),
    ]


def test_what_the_recorded_stream_has_lost_the_played_one_has_not_either() -> None:
    stream, first, second = (
        ReplayedStream(),
        *(StreamTopic(TopicKind.QUOTE, code) for code in (ETH, "X")),
    )
    stream.apply(LiveTopicsChanged(1.0, ((first, 1.0), (second, 1.0)), ()))
    stream.apply(LiveTopicsChanged(2.0, (), (first,)))
    assert stream.live() == {second: 1.0}, "a reconnect: nothing of it is believed meanwhile"
    stream.apply(LiveTopicsChanged(3.0, ((first, 3.0),), ()))
    assert stream.live() == {first: 3.0, second: 1.0}
