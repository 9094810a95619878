"""`my-symbols users` on the database: passwords from standard input, never as an argument."""

import json
import stat
from pathlib import Path

import pytest

from app.cli.exit_codes import ExitCode
from tests.cli.command import here
from tests.support.api_keys import PASSWORD


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a database of its own, which the commands of this process use."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_user_from_the_first_one_to_the_last_administrator(room: Path) -> None:
    added = here("users", "add", "ana", "--role", "admin", "--scope", "live", given=PASSWORD)
    assert (added.code, added.out.strip()) == (0, "added: ana (admin)")
    assert "my-symbols-local.key" in added.err, "the command line is not locked out"
    path = room / "var" / "my-symbols-local.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = here("users", "add", "ana", "--role", "viewer", given=PASSWORD + "\n")
    assert (again.code, "user_name_taken" in again.err) == (ExitCode.REFUSED, True)
    bob = here("users", "add", "bob", "--role", "operator", "--json", given=PASSWORD)
    assert "local.key" not in bob.err
    listed = here("users", "list", "--json")
    people = listed.document["items"]
    assert [(one["name"], one["role"], one["scopes"], one["state"]) for one in people] == [
        ("ana", "admin", ["live"], "active"), ("bob", "operator", [], "active"),
    ]  # fmt: skip
    assert people[1] == bob.document
    assert "argon2" not in listed.out
    assert PASSWORD not in json.dumps(people)
    assert "operator" in here("users", "list").out
    rows = here("users", "list", "--csv").out.splitlines()
    assert rows[0].startswith("id,name,role,scopes,state,")
    assert rows[2].startswith(f"{bob.document['id']},bob,operator,[],active,")
    disabled = here("users", "disable", "bob", "--json").document
    assert (disabled["state"], disabled["disabled_at"] is not None) == ("disabled", True)
    assert here("users", "enable", bob.document["id"][:10], "--json").document["state"] == "active"
    assert here("users", "enable", "").code == ExitCode.REFUSED
    assert here("keys", "revoke", "local-cli").code == 0
    last = here("users", "disable", "ana")
    assert (last.code, "last_admin" in last.err) == (ExitCode.REFUSED, True)
    renewed = here("users", "password", "ana", "--json", given="another violet harbor\r\n")
    assert renewed.document["password_changed_at"] > people[0]["password_changed_at"]
    gone = here("users", "disable", "eve")
    assert (gone.code, "not_found" in gone.err) == (ExitCode.REFUSED, True)


@pytest.mark.parametrize("given", ["", "\n"])
def test_a_password_is_needed(room: Path, given: str) -> None:
    refused = here("users", "add", "ana", "--role", "admin", given=given)
    assert refused.code == ExitCode.USAGE
    assert not (room / "var").exists(), "nothing was created"


@pytest.mark.parametrize(
    "arguments", [("Ana", "--role", "viewer"), ("ana",), ("ana", "--role", "root"),
                  ("ana", "--role", "admin", "--scope", "all"),
                  ("ana", "--role", "admin", "--password", PASSWORD)]
)  # fmt: skip
def test_a_wrong_option_is_wrong_usage(room: Path, arguments: tuple[str, ...]) -> None:
    assert here("users", "add", *arguments, given=PASSWORD).code == ExitCode.USAGE
    assert not (room / "var").exists()


def test_a_password_is_text(room: Path) -> None:
    refused = here("users", "add", "ana", "--role", "admin", given=b"violet harbor \xff 71 kites\n")
    assert (refused.code, "UTF-8" in refused.err) == (ExitCode.USAGE, True)
    assert not (room / "var").exists()


def test_a_weak_password_is_refused_without_an_echo(room: Path) -> None:
    del room
    refused = here("users", "add", "ana", "--role", "admin", given="Password1234")
    assert (refused.code, "validation_failed" in refused.err) == (ExitCode.REFUSED, True)
    assert "Password1234" not in refused.out + refused.err
    assert here("users", "list", "--json").document == {"items": []}
