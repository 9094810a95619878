"""`my-symbols tape` as a process: what it says, how it ends, and what is left when it is killed."""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.adapters.kucoin.recording.entries import BoardComputed, RecordingReader
from app.cli.exit_codes import ExitCode
from app.research.domain.recording import RecordingError
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from tests.cli.command import PATIENCE_S, ended, environment, here, started
from tests.support.recording_fixtures import PLENTY


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """The command sends the logs of its process to its own standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def exchange() -> Iterator[str]:
    """A local exchange in a thread of its own."""
    ready, found = threading.Event(), list[str]()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        options = SandboxOptions(quota=PLENTY, contracts=14)
        async with serve_exchange(options, time.time) as url:
            found.append(url)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join(PATIENCE_S)
    loop.close()


def boards(path: Path) -> int:
    """Number of entries that are safe in the file."""
    try:
        with RecordingReader(path) as reader:
            return sum(isinstance(entry, BoardComputed) for entry in reader)
    except (FileNotFoundError, RecordingError):
        return 0


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGKILL])
def test_a_recording_ends_on_a_signal_and_survives_a_kill(
    exchange: str, tmp_path: Path, name: signal.Signals
) -> None:
    path = tmp_path / "market.tape"
    settings = {
        "MYSYMBOLS_KUCOIN__BASE_URL": exchange,
        "MYSYMBOLS_KUCOIN__QUOTA_PER_WINDOW": str(PLENTY),
    }
    child = started("tape", "record", str(path), "--for", "1d", cwd=tmp_path, **settings)
    until = time.monotonic() + PATIENCE_S
    while not boards(path):
        assert time.monotonic() < until
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    child.send_signal(name)
    recording = ended(child)
    is_killed = name is signal.SIGKILL
    assert recording.code == (-signal.SIGKILL if is_killed else ExitCode.OK)

    replay = here("tape", "replay", str(path), "--json", **environment())
    assert replay.code == ExitCode.OK
    said = replay.document
    assert (said["compared"], said["different"]) == (1, [])
    assert said["is_ended"] is not is_killed
    assert said["boards"][0]["scored"] > 5
    if not is_killed:
        assert said["boards"][0]["board_hash"] in recording.out
        assert "1 boards" in recording.out


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (("record", "new.tape", "--for", "soon"), "invalid_duration", ExitCode.USAGE),
        (("record", "new.tape", "--for", "0m"), "invalid_duration", ExitCode.USAGE),
        (("record", "there.tape"), "tape_exists", ExitCode.CONFIGURATION),
        (("record", "nowhere/new.tape"), "tape_not_written", ExitCode.CONFIGURATION),
        (("replay", "there.tape"), "tape_unusable", ExitCode.CONFIGURATION),
        (("replay", "new.tape"), "tape_unusable", ExitCode.CONFIGURATION),
    ],
)
def test_failures_are_reported_in_one_sentence(
    arguments: tuple[str, ...],
    code: str,
    exit_code: ExitCode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.tape").write_text("a shopping list\n", encoding="utf-8")
    outcome = here("tape", *arguments, "--json")
    assert (outcome.code, outcome.document["code"]) == (exit_code, code)
    assert Path("there.tape").read_text(encoding="utf-8") == "a shopping list\n"
    assert not Path("new.tape").exists()
