"""S13: canary secrets in every setting, header, URL and body appear in no output of the service."""

import asyncio
import importlib
import io
import logging
import pkgutil
import re
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import fields, is_dataclass
from pathlib import Path
from socket import create_server
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import structlog
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import app
from app.adapters.kucoin.recording.entries import RecordingReader
from app.cli.programs.settings import read_settings
from app.foundation.http.permissions import requires
from app.foundation.http.protocol import PREFIX
from app.foundation.http.routing import api_router
from app.foundation.principals import Role
from app.foundation.sql.database import Database
from app.sandbox.options import SandboxOptions
from app.sandbox.server import serve_exchange
from app.security.services.sealing import new_sealing_key
from app.settings import Settings, secret_values
from app.telemetry.logging import configure_logging
from tests.cli.command import environment, here
from tests.support.harness import serve
from tests.support.recording_fixtures import PLENTY

ROOT = Path(__file__).parents[2]
MARK = "canary"
TICKET = "2neA"  # every token that the sandbox issues for a stream begins so
PASSWORD = f"{MARK}/of#a@database"
WAIT_S = 120.0
POSTGRES = pytest.mark.parametrize("backend", ["postgres"], indirect=True)
# Names of fields that hold a secret, if their type is text or bytes.
SECRET_NAME = re.compile(
    r"(^|_)(secrets?|passwords?|tokens?|peppers?|login|sealing_keys|api_key|credentials?)$"
)


def secret_variables(part: type[BaseModel] = Settings, prefix: str = "MYSYMBOLS_") -> list[str]:
    """Every SecretStr of the settings, so that a new one cannot be forgotten."""
    found: list[str] = []
    for name, field in part.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            found += secret_variables(type(default), f"{prefix}{name}__".upper())
        elif "SecretStr" in str(field.annotation):
            found.append(f"{prefix}{name}".upper())
    return found


SECRETS = secret_variables()


def canary() -> str:
    """Good as a sealing key, as a pepper and as any other secret."""
    return MARK + new_sealing_key()[len(MARK) :]


@pytest.fixture
def variables(database_url: str) -> dict[str, str]:
    """A canary in every secret setting, a rotation for those that are lists, and a password."""
    given = {name: canary() for name in SECRETS}
    for name in ("MYSYMBOLS_SECURITY__PEPPER", "MYSYMBOLS_SECURITY__SEALING_KEYS"):
        given[name] = f"{given[name]},{canary()}"
    assert "://postgres@" in database_url
    url = database_url.replace("://postgres@", f"://postgres:{quote(PASSWORD, safe='')}@")
    return {**given, "MYSYMBOLS_DATABASE__URL": url}


@pytest.fixture
def planted(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return read_settings()


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def assert_clean(outputs: Mapping[str, str], *more: str) -> None:
    """No output has a canary in any case, or one of the other texts."""
    assert outputs
    hidden = re.compile("|".join([f"(?i:{MARK})", *map(re.escape, more)]))
    hits = {
        name: output[max(0, at.start() - 60) : at.end() + 20]
        for name, output in outputs.items()
        if (at := hidden.search(output))
    }
    assert hits == {}


# --- settings and values


@POSTGRES
def test_S13_settings_and_what_is_made_of_them_show_no_secret(
    planted: Settings, variables: Mapping[str, str]
) -> None:
    assert len(SECRETS) >= 3
    known = secret_values(planted)
    for name in SECRETS:
        assert set(variables[name].split(",")) <= set(known), name
    assert {PASSWORD, quote(PASSWORD, safe="")} <= set(known)
    parts = [planted, *(getattr(planted, name) for name in Settings.model_fields)]
    outputs = {f"{type(one).__name__}": f"{one!r} {one}" for one in parts}
    outputs["options"] = repr(planted.database.options)
    outputs["digest"] = planted.digest
    assert_clean(outputs)


@POSTGRES
def test_S13_files_of_secrets_are_masked_like_settings(planted: Settings, tmp_path: Path) -> None:
    keys = [canary(), canary()]
    (tmp_path / "pepper").write_text(f"{keys[0]}\n")
    (tmp_path / "keys").write_text("\n".join(keys))
    security = planted.security.model_copy(
        update={
            "pepper": None, "pepper_file": tmp_path / "pepper",
            "sealing_keys": None, "sealing_keys_file": tmp_path / "keys",
        }
    )  # fmt: skip
    assert set(keys) <= set(secret_values(planted.model_copy(update={"security": security})))


def _modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(app.__path__, "app."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def test_S13_no_value_of_the_program_spells_out_a_secret() -> None:
    """A field with such a name and the type of a text is left out of the repr of its class."""
    shown, hidden = set[str](), set[str]()
    for module in _modules():
        for kind in vars(module).values():
            if not isinstance(kind, type) or kind.__module__ != module.__name__:
                continue
            if not is_dataclass(kind) or "__dataclass_params__" not in vars(kind):
                continue
            is_spelled = vars(kind)["__dataclass_params__"].repr
            for field in fields(kind):
                is_text = re.search(r"\b(str|bytes)\b", str(field.type)) is not None
                if SECRET_NAME.search(field.name) and is_text:
                    name = f"{kind.__name__}.{field.name}"
                    (shown if is_spelled and field.repr else hidden).add(name)
    assert shown == set()
    assert {
        "IssuedKey.token",
        "Channel.secret",
        "Pepper.secret",
        "Services.cursor_secret",
    } <= hidden


# --- a crash


@POSTGRES
@pytest.mark.parametrize("form", ["json", "console"])
async def test_S13_a_crash_shows_no_secret_of_its_variables_or_its_message(
    planted: Settings, form: Any
) -> None:
    router = api_router("crash", "/crash")

    @router.post("")
    @requires(Role.VIEWER)
    async def crash(body: dict[str, str]) -> None:
        connection, keys = planted.database.url, planted.security.sealing_key_list
        sent = dict(body)
        raise RuntimeError(f"{connection} {keys} {planted!r} {len(sent)}")

    stream = io.StringIO()
    configure_logging(level="debug", form=form, secrets=secret_values(planted), stream=stream)
    async with serve([router]) as client:
        answer = await client.post(f"{PREFIX}/crash", json={"secret": canary()})
    assert answer.status_code == 500
    log = stream.getvalue()
    assert "Traceback" in log
    assert "RuntimeError" in log
    assert_clean({"log": log, "problem": answer.text})


async def test_S13_an_error_of_the_database_shows_no_value(database: Database) -> None:
    statement = text("SELECT nothing FROM nowhere WHERE something = :value")
    given = {"value": canary()}
    for access in (database.read, database.write):
        with pytest.raises(Exception) as caught:  # noqa: PT011  # of each driver its own
            async with access() as unit:
                await unit.connection.execute(statement, given)
        spelled = "".join(traceback.format_exception(caught.value))
        assert "nowhere" in spelled
        assert_clean({"traceback": spelled})


# --- the service


BODIES = {
    "webhook": ("webhook", f"https://127.0.0.1:9/hook/{MARK}?token={MARK}"),
    "telegram": ("apprise", f"tgram://123456:{MARK * 5}/12345"),
    "discord": ("apprise", f"discord://1234567890123/{MARK * 5}"),
    "slack": ("apprise", f"slack://T123456789/B123456789/{MARK * 4}"),
    "mail": ("apprise", f"mailto://someone:{MARK}-of-smtp@127.0.0.1:2525?from=a@example.com"),
}
REFUSED = {
    "scheme": ("apprise", f"syslog://{MARK}"),
    "telegram": ("apprise", f"tgram://{MARK}"),
    "userinfo": ("webhook", f"https://user:{MARK}@hooks.example.com/"),
    "unreadable": ("webhook", f"https://[{MARK}"),
    "mail": ("apprise", f"mailto://u:{MARK}@example.com?{MARK}={MARK}"),
}


class Visitor:
    """A caller that keeps every answer."""

    def __init__(self, client: httpx2.AsyncClient, key: str) -> None:
        self.client, self.answers = client, dict[str, str]()
        self.tickets: list[str] = []
        self.headers = {"Authorization": f"Bearer {key}"}

    async def ask(self, method: str, path: str, **given: Any) -> httpx2.Response:
        headers = given.pop("headers", self.headers)
        answer = await self.client.request(method, path, headers=headers, **given)
        name = f"{method} {path} #{len(self.answers)}"
        self.answers[name] = f"{answer.status_code} {dict(answer.headers)} {answer.text}"
        return answer


@asynccontextmanager
async def served(
    room: Path, level: str, form: str, given: Mapping[str, str], tape: Path
) -> AsyncIterator[str]:
    """A service in a process of its own; its outputs go to the files out and err in `room`."""
    with closing(create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    own = {
        "MYSYMBOLS_LOG__LEVEL": level, "MYSYMBOLS_LOG__FORMAT": form,
        "MYSYMBOLS_NOTIFICATIONS__ALLOW_PRIVATE_ADDRESSES": "true", "PYTHONPATH": str(ROOT),
        # The visitor reads every address at once, which is more than a caller may do in a second.
        "MYSYMBOLS_LIMITS__REQUESTS_PER_S": "10000", "MYSYMBOLS_LIMITS__ADDRESS_PER_S": "10000",
    }  # fmt: skip
    words = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--tape", str(tape)]
    with (room / "out").open("wb") as out, (room / "err").open("wb") as err:
        service = subprocess.Popen(  # noqa: ASYNC220  # forks within a millisecond
            words, cwd=room, env=environment(**given, **own), stdout=out, stderr=err
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        service.terminate()
        assert await asyncio.to_thread(service.wait, WAIT_S) == 0, (room / "err").read_text()


async def ready(client: httpx2.AsyncClient, key: str) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            answer = await client.get("/readyz", headers={"Authorization": f"Bearer {key}"})
            if answer.status_code == 200:
                return
        except httpx2.TransportError:
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError("the service does not answer")


async def visit(visitor: Visitor) -> None:
    """Plants canaries in headers, URLs and bodies, and reads everything that can be read."""
    ask, health = visitor.ask, f"{PREFIX}/health"
    for headers in (
        {"Authorization": f"Bearer {canary()}"},
        {"Authorization": f"Basic {MARK}"},
        {"X-API-Key": canary()},
        {"Cookie": f"session={MARK}", **visitor.headers},
        {"X-Signature": MARK, "Proxy-Authorization": MARK, **visitor.headers},
    ):
        await ask("GET", health, headers=headers)
    await ask("GET", f"{health}?token={MARK}&api_key={MARK}")
    await ask("GET", f"{PREFIX}/events?topics=alert&ticket={MARK}", headers={})
    await ask("GET", f"{PREFIX}/{MARK}/{MARK}?password={MARK}")
    await ask("GET", f"{PREFIX}/jobs/{MARK}")
    channels = f"{PREFIX}/notifications/channels"
    for name, (kind, url) in BODIES.items():
        body = {"name": name, "kind": kind, "url": url}
        body |= {"secret": MARK * 4} if kind == "webhook" else {}
        made = await ask("POST", channels, json=body)
        assert made.status_code == 201, made.text
        tried = await ask(
            "POST", f"{PREFIX}/notifications/test", json={"channel_id": made.json()["id"]}
        )
        assert tried.status_code < 300, tried.text
    for kind, url in REFUSED.values():
        wrong = {"name": "wrong", "kind": kind, "url": url, "secret": MARK * 4}
        assert (await ask("POST", channels, json=wrong)).status_code == 422
    for content in (
        f'{{"name": "{MARK}", "unknown": "{MARK}"}}', f'{{"secret": "{MARK}"', f'"{MARK}"',
        f'{{"url": "{MARK}", "url": "{MARK}"}}', f'{{"secret": ["{MARK}"]}}',
    ):  # fmt: skip
        answer = await ask(
            "POST", channels, content=content,
            headers={**visitor.headers, "Content-Type": "application/json"},
        )  # fmt: skip
        assert answer.status_code in {400, 422}
    await read_everything(visitor)


async def read_everything(visitor: Visitor) -> None:
    document = (await visitor.ask("GET", "/openapi.json")).json()
    plain = [
        path for path, methods in document["paths"].items()
        if "get" in methods and "{" not in path and not path.endswith("/events")
    ]  # fmt: skip
    assert len(plain) > 30
    for path in [*plain, "/docs", "/metrics"]:
        await visitor.ask("GET", path)
    async with asyncio.timeout(WAIT_S):
        while True:  # every test of a channel has failed, and the log says why
            log = (await visitor.ask("GET", f"{PREFIX}/notifications?limit=50")).json()["items"]
            if sum(one["attempts"] > 0 for one in log) >= len(BODIES):
                break
            await asyncio.sleep(0.3)
    await use_tickets(visitor)
    topics = f"{PREFIX}/events?topics=security,configuration,alert&last_event_id=0"
    async with visitor.client.stream("GET", topics, headers=visitor.headers) as stream:
        async for part in stream.aiter_text():
            visitor.answers["events"] = part
            break


async def use_tickets(visitor: Visitor) -> None:
    """Opens a stream of each kind by a ticket, and is refused with the used one."""
    for _ in range(2):
        # The only output of a ticket is that of its issue.
        path = f"{PREFIX}/stream/tickets"
        issued = await visitor.client.post(path, headers=visitor.headers)
        visitor.tickets.append(issued.json()["ticket"])
    for_events, for_socket = visitor.tickets
    query = f"{PREFIX}/events?topics=alert&ticket={for_events}"
    async with visitor.client.stream("GET", query) as stream:
        assert stream.status_code == 200
    assert (await visitor.ask("GET", query, headers={})).status_code == 401
    address = str(visitor.client.base_url).replace("http:", "ws:").rstrip("/")
    url = f"{address}{PREFIX}/stream?ticket={for_socket}"
    async with connect(url, additional_headers={"Cookie": f"mysym_session={MARK}"}) as socket:
        visitor.answers["WebSocket"] = str(await socket.recv())
    with pytest.raises(InvalidStatus):
        await connect(url)


def commands(url: str, key: str) -> dict[str, str]:
    """Outputs of the command line, for people and for programs."""
    calls = (
        ("doctor", "--url", url), ("config", "list"), ("config", "document"),
        ("config", "get", "--url", url), ("config", "history", "--url", url),
        ("keys", "list"), ("secrets", "list"), ("secrets", "rotate"), ("audit", "verify"),
        ("alerts", "list", "--url", url), ("portfolio", "show", "--url", url),
        ("jobs", "list", "--url", url),
    )  # fmt: skip
    outputs: dict[str, str] = {}
    for words in calls:
        for more in ((), ("--json",)):
            ended = here(*words, *more, MYSYMBOLS_KEY=key)
            outputs[" ".join((*words, *more))] = ended.out + ended.err
    wrong = here("portfolio", "show", "--url", url, MYSYMBOLS_KEY=canary())
    outputs["wrong key"] = wrong.out + wrong.err
    for name in SECRETS:  # a value that is refused is not repeated
        refused = here("serve", **{name: f"{MARK}!"})
        assert refused.code == 78, name
        outputs[f"wrong {name}"] = refused.out + refused.err
    return outputs


@POSTGRES
@pytest.mark.parametrize(("level", "form"), [("debug", "json"), ("info", "console")])
async def test_S13_no_output_of_a_service_has_a_canary(
    planted: Settings, variables: Mapping[str, str], tmp_path: Path, level: str, form: str
) -> None:
    assert planted.security.sealing_key_list
    # The only output of a key is that of its creation.
    key = await asyncio.to_thread(_create_key)
    tape = tmp_path / "tape"
    async with serve_exchange(SandboxOptions(quota=PLENTY, contracts=14), time.time) as exchange:
        feed = {"MYSYMBOLS_KUCOIN__BASE_URL": exchange, "MYSYMBOLS_KUCOIN__SOURCE": "sandbox"}
        async with served(tmp_path, level, form, {**variables, **feed}, tape) as url:
            async with httpx2.AsyncClient(base_url=url, timeout=WAIT_S) as client:
                await ready(client, key)
                visitor = Visitor(client, key)
                await visit(visitor)
            told = await asyncio.to_thread(commands, url, key)
            async with asyncio.timeout(WAIT_S):
                while not tape.exists() or tape.stat().st_size < 10_000:
                    await asyncio.sleep(0.2)
    log = (tmp_path / "out").read_text() + (tmp_path / "err").read_text()
    assert "started" in log
    with RecordingReader(tape) as reader:
        entries = "\n".join(map(repr, reader))
    assert "FrameReceived" in entries, "a stream was opened with a token"
    outputs = {**visitor.answers, **told, "log": log, "tape": entries}
    assert len(visitor.tickets) == 2
    assert_clean(outputs, TICKET, key[14:], *visitor.tickets)


def _create_key() -> str:
    created = here("keys", "create", "admin", "--role", "admin")
    assert created.code == 0, created.err
    return created.out.strip()


def test_S13_a_secret_setting_is_a_secret_type() -> None:
    """A variable with the name of a secret is a SecretStr, or a file that holds one."""

    def names(part: type[BaseModel]) -> Iterator[tuple[str, Any]]:
        for name, field in part.model_fields.items():
            default = field.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                yield from names(type(default))
            else:
                yield name, field.annotation

    wrong = [
        name for name, kind in names(Settings)
        if re.search("secret|password|token|pepper|key", name) and kind not in
        (SecretStr | None, SecretStr, Path | None)
    ]  # fmt: skip
    assert wrong == []
