"""`my-symbols secrets` and the start of the service with good, wrong and missing sealing keys."""

import sqlite3
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from app.cli.exit_codes import ExitCode
from app.security.domain.sealing import SealingKey
from app.security.services.sealing import SecretSealer
from tests.cli.command import Ended, alone, environment, here

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
KEYS = "MYSYMBOLS_SECURITY__SEALING_KEYS"
CANARY = "canary-in-a-channel"
CHANNELS = 5
# A rotation in batches of one that is ended like by kill -9 after two of them.
_KILLED = """
import asyncio, os, signal
from app.cli.programs import secrets
from app.cli.programs.keys import create_command
from app.cli.programs.settings import read_settings
batches = []

async def end(_):
    batches.append(1)
    if len(batches) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

secrets._run(read_settings(), lambda store: store.rotate(create_command(), 1, end))
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a database of its own, which the commands of this process use."""
    monkeypatch.chdir(tmp_path)
    assert here("secrets", "list").code == 0  # creates the database
    return tmp_path


def file_of(room: Path) -> Path:
    return room / "var" / "my-symbols.sqlite3"


def plant(room: Path, *keys: str, file: Path | None = None) -> None:
    sealer = SecretSealer(keys, file)
    rows = [
        (str(number), f"name-{number}", sealer.seal(f"https://x/{CANARY}"), sealer.seal(CANARY))
        for number in range(CHANNELS)
    ]
    with closing(sqlite3.connect(file_of(room))) as database, database:
        database.executemany(
            "INSERT INTO notification_channels VALUES (?, ?, 'webhook', ?, ?, '[]', 1,"
            " '2026-11-24T00:00:00.000000Z')",
            rows,
        )


def stored(room: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file_of(room))) as database:
        return database.execute(
            "SELECT url, secret FROM notification_channels ORDER BY id"
        ).fetchall()


def serve(room: Path, **variables: str) -> Ended:
    exchange = {"MYSYMBOLS_KUCOIN__BASE_URL": NOBODY, "MYSYMBOLS_KUCOIN__SOURCE": "sandbox"}
    return alone("serve", "--port", "0", cwd=room, variables={**exchange, **variables})


def test_a_new_key_is_printed_alone_and_is_a_good_one(room: Path) -> None:
    first, second = (here("secrets", "new-key").out.strip() for _ in range(2))
    assert first != second
    assert here("secrets", "list", **{KEYS: f"{first},{second}"}).code == 0
    assert not list((room / "var").glob("*.key")), "nothing is stored"


def test_a_rotation_from_the_new_key_to_the_removal_of_the_old_one(room: Path) -> None:
    plant(room, OLD)
    both = {KEYS: f"{NEW},{OLD}"}
    items = here("secrets", "list", "--json", **both).document["items"]
    assert items == [
        {"kind": "channel", "key": SealingKey(OLD).id, "state": "older", "secrets": 2 * CHANNELS}
    ]
    assert here("secrets", "rotate", "--json", **both).document == {"sealed_anew": CHANNELS}
    outputs = [here("secrets", "list", **{KEYS: NEW}), here("secrets", "rotate", **both)]
    assert [SealingKey(NEW).id in outputs[0].out, "newest key: 0" in outputs[1].out] == [True, True]
    shown = "".join(one.out + one.err for one in outputs)
    assert not [hidden for hidden in (OLD, NEW, CANARY, "sealed:") if hidden in shown]
    assert SecretSealer((NEW,)).open(stored(room)[0][1]) == CANARY


def test_a_rotation_that_was_killed_is_finished_by_the_next_one(room: Path) -> None:
    plant(room, OLD)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED],
        cwd=room,
        env=environment(**{KEYS: f"{NEW},{OLD}", "PYTHONPATH": str(ROOT)}),
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    states = [SecretSealer((NEW,)).find_key(secret) is not None for _, secret in stored(room)]
    assert states == [True, True, False, False, False]
    both = {KEYS: f"{NEW},{OLD}"}
    assert here("secrets", "rotate", "--json", **both).document == {"sealed_anew": 3}
    assert {SecretSealer((NEW,)).open(secret) for _, secret in stored(room)} == {CANARY}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, f"set {KEYS}"),
        ({KEYS: NEW}, f"set {KEYS}"),
        ({KEYS: "short"}, "32 bytes in URL-safe base64"),
        ({KEYS: urlsafe_b64encode(b"a" * 32).decode()}, "must be random"),
        ({f"{KEYS}_FILE": "nothing-there"}, "sealing_keys_file cannot be read"),
        ({f"{KEYS}_FILE": "empty"}, "sealing_keys_file holds no key"),
        ({KEYS: NEW, f"{KEYS}_FILE": "empty"}, "set either sealing_keys or a sealing_keys_file"),
    ],
    ids=["missing", "another", "malformed", "weak", "no file", "empty file", "both"],
)
def test_a_wrong_key_stops_the_start_and_destroys_nothing(
    room: Path, variables: Mapping[str, str], said: str
) -> None:
    plant(room, OLD)
    (room / "empty").write_text("\n")
    before = stored(room)
    refused = serve(room, **variables)
    assert refused.code == ExitCode.CONFIGURATION
    text = " ".join(refused.err.split())
    assert said in text
    assert "MYSYMBOLS_SECURITY" in text
    assert "Traceback" not in text
    assert not [key for key in (OLD, NEW) if key in refused.out + refused.err]
    for command in ("rotate", "list"):
        ended = here("secrets", command, **variables)
        is_readable = command == "list" and said.startswith("set MY")
        assert ended.code == (ExitCode.OK if is_readable else ExitCode.CONFIGURATION), command
    assert stored(room) == before
    assert not list((room / "var").glob("*.key")), "no key was drawn anew"


def test_a_lost_key_file_stops_the_start_until_the_secrets_are_given_up(room: Path) -> None:
    file = room / "var" / "my-symbols-sealing.key"
    plant(room, file=file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert here("secrets", "rotate", "--json").document == {"sealed_anew": 0}
    file.unlink()
    before = stored(room)
    assert serve(room).code == ExitCode.CONFIGURATION
    assert here("secrets", "discard").code != 0, "without an answer nothing is given up"
    assert stored(room) == before
    assert here("secrets", "discard", "--yes", "--json").document == {"discarded": CHANNELS}
    assert stored(room) == [("", "")] * CHANNELS
    assert here("secrets", "rotate").code == 0
