"""What is delivered is true: locks, image, compose file, CI and README against the real thing."""

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
import yaml

from app import embedding
from app.cli.application import application
from app.cli.commands import sandbox as sandbox_command
from app.cli.exit_codes import ExitCode
from app.cli.programs.settings import read_settings
from app.configuration.domain.fields import entries
from app.configuration.domain.model import Configuration
from app.container import plugins
from app.container.assembly import open_keys
from app.container.composition import key_service
from app.container.runtime_values import utc_now
from app.foundation.events import EventTopic
from app.foundation.http.protocol import PREFIX
from app.foundation.idempotency import Command, IdempotentExecutor
from app.foundation.principals import Role
from app.foundation.sql.database import Database
from app.my_symbols import MySymbolsServiceV2
from app.operations.services.event_messages import LiveTopic
from app.operations.storage.views import VIEWS
from app.security.services.keys import KeyDraft
from app.security.services.peppers import PepperMissingError, UnsafeStartError
from app.settings import CLIENT_VARIABLES, Settings, known_variables
from tests.cli.command import here
from tests.support.harness import openapi_document

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
TEXTS = {"README.md": README, "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text("utf-8"), **PAGES}
GENERATED = {"configuration.md", "cli.md"}
MAX_README_LINES = 200
LOCKS = ("requirements.lock", "requirements-runtime.lock")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REPLICAS = ("api-1", "api-2", "worker-1", "worker-2")
OURS = sorted(name for name, one in SERVICES.items() if "build" in one)
EVERYWHERE = str(IPv4Address(0))  # inside a container; what is published is another matter
ROOT_PATHS = {"/livez", "/readyz", "/metrics"}
PROBE = re.compile(r"urlopen\('(?P<url>[^']+)', timeout=2\)")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- locks


@pytest.mark.parametrize("name", LOCKS)
def test_the_locks_pin_everything_with_hashes_and_name_no_index(name: str) -> None:
    lines = _read(name).splitlines()
    pins = [line for line in lines if line and line[0] not in " #"]
    assert len(pins) > 30
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^ ]+ (; .+ )?\\$", pin), pin
    assert not [line for line in lines if "://" in line or line.startswith("-") or "/tmp" in line]
    for number, line in enumerate(lines):
        if line in pins:
            assert lines[number + 1].strip().startswith("--hash=sha256:"), line


def test_the_locks_hold_what_pyproject_declares() -> None:
    project = tomllib.loads(_read("pyproject.toml"))
    runtime = [*project["project"]["dependencies"], *project["dependency-groups"]["build"]]
    everything = [
        *runtime,
        *project["project"]["optional-dependencies"]["replay"],
        *project["dependency-groups"]["test"],
        *project["dependency-groups"]["lint"],
    ]
    for name, wanted in (("requirements-runtime.lock", runtime), ("requirements.lock", everything)):
        pinned = set(re.findall(r"^([a-z0-9._-]+)==", _read(name), re.MULTILINE))
        names = {re.split(r"[\[<>=~!; ]", one)[0].lower() for one in wanted}
        assert names <= pinned, name
    shared = [
        set(re.findall(r"^([a-z0-9._-]+==[^ ]+)", _read(name), re.MULTILINE)) for name in LOCKS
    ]
    assert shared[1] <= shared[0], "both locks pin the same versions"


# --- set-up


def test_setup_refuses_what_cannot_work(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/setup").write_text(_read(".ci/setup"))
    (tmp_path / "old").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "old").chmod(0o755)
    said = subprocess.run(
        ["sh", ".ci/setup"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(tmp_path / "old")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert "is not a Python 3.11, 3.12 or 3.13" in said.stderr
    assert not (tmp_path / ".venv").exists()


def test_scripts_are_well_formed() -> None:
    subprocess.run(["sh", "-n", ".ci/setup"], cwd=ROOT, check=True)
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)


def test_ci_runs_the_checks_and_then_the_command_of_the_readme() -> None:
    script = _read(".ci/run")
    assert "set -euo pipefail" in script
    assert 0 < script.index("\nmake check\n") < script.index("\nmake test ")
    assert "| `make test` |" in README
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", _read("Makefile"), re.MULTILINE))


def test_tests_that_are_told_to_go_on_for_hours_are_not_ended_as_if_they_hung() -> None:
    commands = _read("Makefile").replace("\\\n", " ").splitlines()
    told = [one for one in commands if re.search(r"\bMYTESTS_\w+=", one)]
    assert len(told) > 3
    assert not [one for one in told if "$(ENDLESS)" not in one]
    assert "ENDLESS := pytest -q -o faulthandler_timeout=0" in commands


def test_every_make_command_of_the_documentation_exists() -> None:
    for name, text in TEXTS.items():
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= _targets(), name
    assert {"setup", "check", "test", "demo", "run", "sandbox", "fuzz", "lock", "clean"} <= (
        _targets()
    )


@pytest.mark.parametrize("target", ["demo", "run", "sandbox"])
def test_running_the_service_installs_what_the_service_needs_and_no_tests(target: str) -> None:
    def planned(*words: str) -> str:
        return subprocess.run(
            ["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    fresh = "VENV=.venvs/none"
    assert re.findall(r"\.ci/setup (\w+)", planned(target, fresh)) == ["service"]
    assert re.findall(r"\.ci/setup (\w+)", planned("test", fresh)) == ["all"]
    parquet = planned(target, fresh, "REPLAY=candles.parquet")
    assert re.findall(r"\.ci/setup (\w+)", parquet) == ["replay"]


@pytest.mark.parametrize("target", ["demo", "run", "sandbox"])
def test_make_calls_commands_and_options_that_exist(target: str) -> None:
    given = ["REPLAY=file.parquet", "REPLAY_FROM=2025-01-31", "SEED=3", "PORT=1234"]
    said = subprocess.run(
        ["make", "-n", "-o", ".venv/.replay", target, *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(line for line in said.splitlines() if "my-symbols" in line)
    words = shlex.split(line)
    assert words[0] == ".venv/bin/my-symbols"
    _assert_usable(words[1:])


def test_versions_runs_the_quick_suite_in_an_environment_for_each_interpreter(
    tmp_path: Path,
) -> None:
    def make(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )

    unnamed = make("versions")
    assert unnamed.returncode == 2
    assert "name interpreters" in unnamed.stdout
    suite = make("-n", "-o", ".venvs/9.9/.installed", "test", "VENV=.venvs/9.9").stdout
    assert ".venvs/9.9/bin/python -m pytest" in suite
    assert "not long" in suite
    assert ".venv/bin" not in suite
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 9.9 ;; *) exit 1 ;; esac\n')
    old.chmod(0o755)
    refused = make("versions", f"PYTHONS={old}")
    assert "versions: 9.9" in refused.stdout
    assert "is not a Python 3.11, 3.12 or 3.13" in refused.stderr
    assert refused.returncode == 2
    assert not (ROOT / ".venvs/9.9").exists()


# --- command lines


def _assert_usable(words: list[str]) -> None:
    """The command exists and has these options; nothing is run."""
    command = typer.main.get_command(application)
    context = typer.Context(command)
    found = command.get_command(context, words[0])  # type: ignore[attr-defined]  # it is a group
    assert found is not None, words[0]
    found.make_context(words[0], words[1:])


@pytest.mark.parametrize("name", OURS)
def test_compose_commands_are_ours(name: str) -> None:
    _assert_usable(SERVICES[name]["command"])


def test_the_image_runs_our_command_unprivileged() -> None:
    text = _read("Dockerfile")
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line]
    steps = dict(line.split(" ", 1) for line in lines if line[0] not in "# ")
    assert steps["ENTRYPOINT"] == '["my-symbols"]'
    _assert_usable(yaml.safe_load(steps["CMD"]))
    user = [line for line in lines if line.startswith("USER ")]
    assert user == ["USER my-symbols"]
    assert "--require-hashes" in text
    assert "requirements-runtime.lock" in text
    assert steps["EXPOSE"] == "8000"
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for one in source.split():
            assert (ROOT / one).exists(), one
            assert f"!{one}" in _read(".dockerignore").splitlines(), f"{one} is not sent to build"


# --- compose


def test_compose_has_profiles_for_live_replicas_and_sandbox() -> None:
    by_profile: dict[str, set[str]] = {}
    for name, one in SERVICES.items():
        for profile in one["profiles"]:
            by_profile.setdefault(profile, set()).add(name)
    assert by_profile == {
        "live": {"postgres", "service"},
        "replicas": {"postgres", *REPLICAS, "balancer"},
        "sandbox": {"exchange", "sandbox-service"},
    }


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_compose_publishes_only_on_loopback(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        host, outside, inside = str(port).split(":")
        assert host == "127.0.0.1"
        assert outside == inside


@pytest.mark.parametrize("name", OURS)
def test_compose_variables_are_settings_and_make_valid_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = SERVICES[name].get("environment", {})
    known = known_variables()
    for variable, value in variables.items():
        assert variable in known
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value))
    settings = Settings()
    url = urlsplit(settings.database.url)
    if url.scheme.startswith("postgresql"):
        postgres = SERVICES[str(url.hostname)]["environment"]
        assert url.username == postgres["POSTGRES_USER"]
        assert url.path.removeprefix("/") == postgres["POSTGRES_DB"]
        assert "${POSTGRES_PASSWORD" in postgres["POSTGRES_PASSWORD"]
    if "MYSYMBOLS_KUCOIN__BASE_URL" in variables:
        exchange = urlsplit(settings.kucoin.base_url)
        words = SERVICES[str(exchange.hostname)]["command"]
        assert words[words.index("--port") + 1] == str(exchange.port)
        assert settings.kucoin.data_source.value == "sandbox"


@pytest.mark.parametrize("name", SERVICES)
def test_G07_no_container_starts_with_a_secret_that_everybody_knows(name: str) -> None:
    variables = SERVICES[name].get("environment", {})
    passwords = {
        one: found[1]
        for one, given in variables.items()
        if (found := re.search(r"//[^/:@]*:([^@]*)@", given)) is not None
    }
    named = {
        one: given
        for one, given in variables.items()
        if re.search("SECRET|KEY|TOKEN|PASSPHRASE|PASSWORD", one)
    }
    for variable, secret in (passwords | named).items():
        from_outside = re.fullmatch(r"\$\{\w+(?::-(.*))?\}", secret)
        assert from_outside, f"{variable} comes from outside"
        assert not from_outside[1], f"{variable} has no default"


def test_G07_what_a_container_needs_from_outside_is_documented() -> None:
    text = _read("docker-compose.yml")
    assert ":?" not in re.sub(r"#.*", "", text), "Compose would ask in every profile"
    for variable in set(re.findall(r"\$\{(\w+)", text)):
        assert f"`{variable}`" in PAGES["deployment.md"], variable


@pytest.mark.parametrize("name", OURS)
def test_compose_healthchecks_ask_paths_that_exist_on_ports_that_are_open(name: str) -> None:
    one = SERVICES[name]
    found = PROBE.search(one["healthcheck"]["test"][-1])
    assert found
    url = urlsplit(found["url"])
    words = one["command"]
    assert words[words.index("--port") + 1] == str(url.port)
    assert words[words.index("--host") + 1] == EVERYWHERE
    if name in REPLICAS:
        assert "ports" not in one, "they are reached through the balancer"
    else:
        assert f"127.0.0.1:{url.port}:{url.port}" in one["ports"]
    expected = "/readyz" if words[0] == "serve" else "/api/v1/timestamp"
    assert url.path == expected


@pytest.mark.parametrize("name", OURS)
def test_compose_services_are_confined_and_keep_their_data(name: str) -> None:
    one = SERVICES[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    if one["command"][0] == "serve":
        volume, place = one["volumes"][0].split(":")
        assert volume in COMPOSE["volumes"]
        assert place == "/srv/var"
        assert all(
            after["condition"] == "service_healthy" and "healthcheck" in SERVICES[before]
            for before, after in one["depends_on"].items()
        )


def test_S22_the_image_holds_no_secret_and_nobody_in_it_is_root() -> None:
    text = re.sub(r"\\\n\s*", " ", _read("Dockerfile"))
    final = text.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (\S+)", final, re.MULTILINE) == ["my-symbols"]
    assert re.search(r"useradd .*--uid [1-9]\d{3,} ", final)
    assert not re.findall(r"^ARG", text, re.MULTILINE)
    (line,) = re.findall(r"^ENV (.+)$", text, re.MULTILINE)
    assert {word.partition("=")[0] for word in line.split()} == {
        "PATH", "PYTHONUNBUFFERED", "OPENBLAS_NUM_THREADS",
    }  # fmt: skip
    sent = [one for one in _read(".dockerignore").splitlines() if one.startswith("!")]
    assert _read(".dockerignore").startswith("*\n"), "nothing but what is named, no .env or key"
    assert not [one for one in sent if re.search(r"env|key|var|git", one)]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_S22_a_container_cannot_gain_rights(name: str) -> None:
    one = SERVICES[name]
    assert "no-new-privileges:true" in one["security_opt"]
    assert not {"privileged", "user", "pid", "network_mode", "ipc", "devices"} & set(one)
    assert not [volume for volume in one.get("volumes", ()) if volume[0] in "./~"], "host folders"
    if name != "postgres":  # its image starts as root and gives that up by itself
        assert one["read_only"] is True
        assert one["cap_drop"] == ["ALL"]
        assert set(one.get("cap_add", ())) <= {"NET_BIND_SERVICE"}
        assert all(place in {"/tmp", "/data", "/config"} for place in one["tmpfs"])
    assert ("database" in one.get("networks", ())) == (name in {"postgres", "service", *REPLICAS})
    assert COMPOSE["networks"]["database"] == {"internal": True}


@pytest.mark.parametrize("name", [one for one in OURS if one != "exchange"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_S22_compose_starts_closed(
    name: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a first key it listens to nobody, whatever comes from outside."""
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value))
    words = SERVICES[name]["command"]
    host = words[words.index("--host") + 1]
    settings = read_settings({"http": {"host": host}})
    assert settings.http.host == EVERYWHERE
    keys = key_service(settings, database, IdempotentExecutor(database, utc_now))
    with pytest.raises(UnsafeStartError, match="my-symbols keys create admin --role admin"):
        await open_keys(settings, keys.ring)
    if settings.database.url.startswith("postgresql"):
        with pytest.raises(PepperMissingError):  # nor can a first key be made without a pepper
            await keys.create(KeyDraft("admin", Role.ADMIN), Command("local", "request"))


def test_the_balancer_leads_to_the_api_processes_and_asks_them_whether_they_are_ready() -> None:
    balancer = SERVICES["balancer"]
    (source,) = (one["source"] for one in balancer["configs"])
    text = COMPOSE["configs"][source]["content"]
    (line,) = (line.split() for line in text.splitlines() if "reverse_proxy" in line)
    behind = [word.partition(":") for word in line[1:-1]]
    for name, _, port in behind:
        words = SERVICES[name]["command"]
        assert words[words.index("--role") + 1] == "api"
        assert words[words.index("--port") + 1] == port
    apis = {name for name in REPLICAS if "api" in SERVICES[name]["command"]}
    assert {name for name, _, _ in behind} == set(balancer["depends_on"]) == apis
    asked = re.search(r"health_uri (\S+)", text)
    assert asked
    assert asked[1] in ROOT_PATHS
    outside = balancer["ports"][0].rpartition(":")[2]
    assert f":{outside} {{" in text
    allowed = json.loads(SERVICES["api-1"]["environment"]["MYSYMBOLS_HTTP__ALLOWED_HOSTS"])
    assert {*REPLICAS, "balancer"} <= set(allowed)
    assert len({json.dumps(SERVICES[name]["environment"]) for name in REPLICAS}) == 1


def test_the_database_service_is_healthy_when_it_answers() -> None:
    postgres = SERVICES["postgres"]
    assert postgres["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert "ports" not in postgres
    assert postgres["volumes"][0].split(":")[0] in COMPOSE["volumes"]


def test_the_image_probe_asks_a_path_that_exists() -> None:
    found = PROBE.search(_read("Dockerfile"))
    assert found
    assert urlsplit(found["url"]).path in ROOT_PATHS


# --- documentation


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) <= MAX_README_LINES


def test_all_relative_links_of_the_documentation_lead_to_a_file() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target
    ]
    assert len(links) > 40
    assert [(page.name, to) for page, to in links if not (page.parent / to).exists()] == []


def test_every_page_is_linked_from_the_readme() -> None:
    assert [name for name in PAGES if f"](docs/{name})" not in README] == []


def test_files_named_in_the_documentation_exist() -> None:
    named = {
        path
        for name, text in TEXTS.items()
        if name not in GENERATED
        for path in re.findall(r"`((?:app|tests|docs|benchmarks)/[\w./]*\w)/?`", text)
    }
    assert len(named) > 5
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", ["architecture.md", "contributing.md"])
def test_names_of_the_code_in_the_documentation_exist(page: str) -> None:
    code = {
        word
        for path in (ROOT / "app").rglob("*.py")
        for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))
    }
    named = set(re.findall(r"`(_?[A-Za-z]\w*?(?:[A-Z_]\w*))[`(\[.]", PAGES[page]))
    assert len(named) > 4
    assert named - code == set()


def test_variables_named_in_the_documentation_are_settings() -> None:
    known = known_variables().keys() | CLIENT_VARIABLES
    for name, text in TEXTS.items():
        assert set(re.findall(r"MYSYMBOLS_[A-Z_]*[A-Z]", text)) <= known, name


def _operations() -> set[str]:
    paths = openapi_document()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def _named_operations(text: str) -> set[str]:
    return {
        f"{method} {PREFIX}{path}"
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`]*)`", text)
    }


@pytest.mark.xdist_group("openapi")  # the document takes a second: made once
def test_the_endpoints_of_the_documentation_are_those_of_the_service() -> None:
    page = PAGES["api.md"]
    table = _named_operations(page[: page.index("## Conventions")])
    real = _operations()
    assert table == {one for one in real if one.split()[1].startswith(PREFIX)}
    assert {one.split()[1] for one in real} - {one.split()[1] for one in table} <= ROOT_PATHS
    assert all(f"`{path}`" in page for path in ROOT_PATHS)
    for name, text in TEXTS.items():
        assert _named_operations(text) <= real, name
    paths = {one.split()[1] for one in real}
    asked = re.findall(r"127\.0\.0\.1:8000(/api/[^\s?]+)", README)
    assert len(asked) == 3
    for path in asked:
        forms = (re.sub(r"\{\w+\}", "[^/]+", one) for one in paths)
        assert any(re.fullmatch(form, path) for form in forms), path


def test_the_topics_of_the_documentation_are_those_of_the_stream() -> None:
    section = PAGES["streaming.md"].partition("## Topics")[2].partition("##")[0]
    stored, _, live = section.partition("Two live topics")
    assert set(re.findall(r"`([a-z_]+)`", stored)) == {topic.value for topic in EventTopic}
    assert re.findall(r"^- `([a-z_]+)`: ", live, re.MULTILINE) == [
        topic.value for topic in LiveTopic
    ]


def test_the_exit_codes_of_the_documentation_are_those_of_the_program() -> None:
    listed = PAGES["deployment.md"].partition("## Exit codes")[2]
    codes = [int(code) for code in re.findall(r"^\| (\d+) \| ", listed, re.MULTILINE)]
    assert codes == sorted(int(code) for code in ExitCode)


def test_the_commands_of_the_documentation_exist() -> None:
    named = {
        tuple(words.split())
        for name, text in TEXTS.items()
        if name not in GENERATED
        for words in re.findall(r"`my-symbols ((?:[a-z][a-z-]*(?: |\b))+)", text)
    }
    assert {("demo",), ("doctor",), ("audit", "verify"), ("tape", "replay")} <= named
    for words in named:
        shown = here(*words, "--help")
        assert "Usage: my-symbols " + " ".join(words) in shown.out, words


def _blocks(text: str) -> list[tuple[str, str]]:
    """Language (may be empty) and content of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _command_lines(text: str) -> set[str]:
    """Commands of blocks, and those in a sentence that name an argument or an option."""
    lines = [line for _, block in _blocks(text) for line in block.splitlines()]
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`(my-symbols [^`\n]+)`", plain)
    written = [line.removeprefix("$ ") for line in lines]
    ours = [line for line in written if line.startswith("my-symbols ")]
    # A container has the program as its entry point.
    ours += [
        f"my-symbols {one[1]}"
        for line in written
        if (one := re.fullmatch(r"docker compose .* run --rm [\w-]+ (.+)", line))
    ]
    return {*ours, *(one for one in inline if re.search(r" (?:--|[A-Z])", one))}


def _assert_parsed(line: str) -> None:
    """Every command, option and argument of a line exists; nothing is run."""
    words = shlex.split(line)[1:]
    command = typer.main.get_command(application)
    context = command.make_context("my-symbols", list(words), resilient_parsing=True)
    words = [*context._protected_args, *context.args]  # as a group passes them on
    while (find := getattr(command, "get_command", None)) is not None and words:
        found = find(context, words[0])
        assert found is not None, line
        name, command, words = words[0], found, words[1:]
        is_group = hasattr(command, "get_command")
        context = command.make_context(name, words, context, allow_extra_args=is_group)
        words = [*context._protected_args, *context.args]


EXAMPLES = sorted(
    {
        (name, line)
        for name, text in TEXTS.items()
        if name not in GENERATED
        for line in _command_lines(text)
    }
)


@pytest.mark.parametrize(("page", "line"), EXAMPLES)
def test_command_lines_of_the_documentation_can_be_parsed(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # with the files that a line reads
    for word in line.split():
        if re.fullmatch(r"FILE|(?:[\w-]+/)?[\w-]+\.(?:parquet|csv\.gz|toml)", word):
            (tmp_path / word).parent.mkdir(exist_ok=True)
            (tmp_path / word).touch()
    _assert_parsed(line.replace("KIND", "alert"))


@pytest.mark.parametrize(
    "line",
    [
        "my-symbols keys creat engine",
        "my-symbols keys create engine --rule trader",
        "my-symbols keys create engine --role king",
        "my-symbols history more",
        "my-symbols keys rotate",
    ],
)
def test_a_wrong_command_line_is_found(line: str) -> None:
    with pytest.raises((AssertionError, typer._click.exceptions.UsageError)):
        _assert_parsed(line)


def test_requests_of_the_documentation_name_operations() -> None:
    """Each `curl` line and each request line of a block: method and path."""
    real, asked = _operations(), set[str]()
    for text in TEXTS.values():
        for line in (line for _, block in _blocks(text) for line in block.splitlines()):
            if one := re.match(r"(GET|POST|PUT|PATCH|DELETE) (/\S*)", line):
                asked.add(f"{one[1]} {one[2].partition('?')[0]}")
            elif line.removeprefix("$ ").startswith("curl "):
                words = shlex.split(line.removeprefix("$ "))
                method = words[words.index("-X") + 1] if "-X" in words else "GET"
                (url,) = (urlsplit(word) for word in words if word.startswith("http"))
                asked.add(f"{method} {url.path}")
    assert len(asked) >= 4
    forms = [re.sub(r"\{\w+\}", "[^/ ]+", one) for one in real]
    assert [one for one in asked if not any(re.fullmatch(form, one) for form in forms)] == []


def _documents(block: str) -> list[str]:
    """JSON documents of a block, each from its first line to the next line that begins one."""
    texts: list[str] = []
    for line in block.splitlines():
        if one := re.match(r"(?:[<>] |\d{3} )?(\{.*)", line):
            texts.append(one[1])
        elif texts and line.startswith(" "):
            texts[-1] += line
    return texts


def test_json_of_the_documentation_can_be_read() -> None:
    """An ellipsis stands for left-out parts: of text, of members of an object, of items."""
    found = 0
    for name, text in TEXTS.items():
        for language, block in _blocks(text):
            if language not in ("", "json"):
                continue
            for document in _documents(block):
                whole = re.sub(r"(?<=[{\[])\.\.\.,|,\s*\.\.\.(?=[,}\]])", "", document)
                try:
                    json.loads(whole)
                except ValueError as error:
                    pytest.fail(f"{name}: {error}: {whole}")
                found += 1
    assert found >= 8


def test_python_of_the_documentation_is_run_elsewhere() -> None:
    """All of it compiles; blocks and scripts other than these need a test that runs them."""
    blocks = {
        name: [block for language, block in _blocks(text) if language == "python"]
        for name, text in TEXTS.items()
    }
    scripts = {path.name: path.read_text("utf-8") for path in (ROOT / "docs/examples").iterdir()}
    for name, source in [*scripts.items(), *((k, one) for k, v in blocks.items() for one in v)]:
        compile(source, name, "exec")
    # tests/system: test_embedding, test_stream_light and test_engine_day run them.
    assert {name: len(found) for name, found in blocks.items() if found} == {"embedding.md": 1}
    assert scripts.keys() == {"follow_portfolio.py", "engine_day.py"}


def test_the_command_reference_is_generated_from_the_commands(tmp_path: Path) -> None:
    generated = tmp_path / "cli.md"
    subprocess.run(
        [
            *(sys.executable, "-m", "typer", "app.cli.application", "utils", "docs"),
            *("--name", "my-symbols", "--title", "Command line", "--output", str(generated)),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert generated.read_text(encoding="utf-8") == _read("docs/cli.md"), "run `make docs`"


def test_defaults_of_the_local_exchange_are_documented_truthfully() -> None:
    compose = SERVICES["exchange"]["command"]
    assert compose[compose.index("--port") + 1] == str(sandbox_command.DEFAULT_PORT)


@pytest.mark.xdist_group("alone")
def test_tests_that_belong_together_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """Else each process of the session would start a demo of its own."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@alone")


# --- names of the customer's documents

CUSTOMER_NAMES = PAGES["customer-names.md"]


def _customer_rows() -> list[list[str]]:
    lines = [line for line in CUSTOMER_NAMES.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if row[0] != "customer"]


def test_each_name_of_the_customer_is_kept_renamed_or_dropped_with_a_reason() -> None:
    rows = _customer_rows()
    assert len(rows) > 80
    assert {len(row) for row in rows} == {4}
    assert {row[1] for row in rows} == {"kept", "renamed", "dropped"}
    assert [row[0] for row in rows if row[1] == "renamed" and not row[2]] == []
    assert [row[0] for row in rows if row[1] == "dropped" and not row[3]] == []


def test_names_beside_those_of_the_customer_exist(sqlite_template: Path) -> None:
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    known = {f"{one}()" for one in dir(MySymbolsServiceV2)} | known_variables().keys()
    known |= {one.path for one in entries(Configuration())}
    known |= {
        f"{method.upper()} {path.removeprefix(PREFIX)}"
        for path, operations in openapi_document()["paths"].items()
        for method in operations
        if method.upper() in methods
    }
    known |= {f"app.embedding.{one}" for one in embedding.__all__}
    known |= {group for name, group in vars(plugins).items() if name.endswith("_GROUP")}
    known |= {"README.md", *(f"docs/{name}" for name in PAGES)}
    with closing(sqlite3.connect(sqlite_template)) as connection:
        for view in VIEWS:
            columns = connection.execute(f"PRAGMA table_info({view})")
            known |= {f"view:{view}.{column[1]}" for column in columns}
    named = [name for row in _customer_rows() for name in re.findall(r"`([^`]+)`", row[2])]
    assert len(named) > 120
    assert [name for name in named if name not in known] == []
