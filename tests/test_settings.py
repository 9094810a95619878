"""Settings come from the environment, whole and checked."""

import os

import pytest
from pydantic import SecretStr, ValidationError

from app.cli.exit_codes import CommandError
from app.cli.programs.settings import read_settings
from app.foundation.data_status import DataSource
from app.settings import (
    FeedVariables,
    HttpVariables,
    KucoinVariables,
    NotificationVariables,
    ProcessRole,
    SecurityVariables,
    Settings,
    known_variables,
    plain_variables,
    secret_values,
    unknown_variables,
)


def test_defaults_are_embedded_and_on_loopback() -> None:
    settings = Settings()

    assert settings.http.host == "127.0.0.1"
    assert settings.database.url.startswith("sqlite+aiosqlite:///")
    assert settings.kucoin.data_source is DataSource.KUCOIN
    assert settings.http.cors_origins == ()


def test_nested_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSYMBOLS_KUCOIN__BASE_URL", "http://127.0.0.1:9001")
    monkeypatch.setenv("MYSYMBOLS_DATABASE__POOL_SIZE", "7")

    settings = Settings()

    assert settings.kucoin.data_source is DataSource.SANDBOX
    assert settings.database.pool_size == 7


def test_G10_a_patience_longer_than_the_pause_between_two_questions_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MYSYMBOLS_REFERENCE__INTERVAL_S", "5")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [one["loc"] for one in caught.value.errors()] == [("reference",)]
    assert "timeout_s must not be longer than interval_s" in str(caught.value)
    monkeypatch.setenv("MYSYMBOLS_REFERENCE__TIMEOUT_S", "5")
    assert Settings().reference.timeout_s == 5.0


def test_G05_a_misspelt_variable_refuses_to_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MYSYMBOLS_DATABASE__POOLSIZE", "7")

    with pytest.raises(ValidationError, match="MYSYMBOLS_DATABASE__POOLSIZE"):
        Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MYSYMBOLS_KUCOIN__BASE_URL", "ftp://x"),
        ("MYSYMBOLS_KUCOIN__BASE_URL", "https://user:password@x"),
        ("MYSYMBOLS_REFERENCE__BASE_URL", "https://user:password@x"),
        ("MYSYMBOLS_KUCOIN__READ_TIMEOUT_S", "0"),
        ("MYSYMBOLS_HTTP__PORT", "70000"),
        ("MYSYMBOLS_HTTP__PUBLIC_URL", "symbols.example"),
        ("MYSYMBOLS_HTTP__PUBLIC_URL", "ftp://symbols.example"),
        ("MYSYMBOLS_HTTP__PUBLIC_URL", "https://user:password@symbols.example"),
        ("MYSYMBOLS_HTTP__PUBLIC_URL", "https://symbols.example/?a=b"),
        ("MYSYMBOLS_HTTP__PUBLIC_URL", "https://symbols.example/#a"),
        ("MYSYMBOLS_LOG__LEVEL", "loud"),
    ],
)
def test_a_senseless_value_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(ValidationError):
        Settings()


def test_the_public_address_ends_without_a_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().http.public_url is None
    monkeypatch.setenv("MYSYMBOLS_HTTP__PUBLIC_URL", "https://symbols.example/desk/")

    assert Settings().http.public_url == "https://symbols.example/desk"


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://api-futures.kucoin.com", DataSource.KUCOIN),
        ("https://kucoin.com.evil.example", DataSource.SANDBOX),
        ("https://notkucoin.com", DataSource.SANDBOX),
        ("http://127.0.0.1:8123", DataSource.SANDBOX),
    ],
)
def test_only_the_official_host_counts_as_live(
    monkeypatch: pytest.MonkeyPatch, url: str, source: DataSource
) -> None:
    monkeypatch.setenv("MYSYMBOLS_KUCOIN__BASE_URL", url)

    assert Settings().kucoin.data_source is source


def test_a_misspelt_variable_is_answered_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DATABASE_URL", "LOG__LEVL", "KYE", "QQQQQQQQQQ"):
        monkeypatch.setenv(f"MYSYMBOLS_{name}", "x")
    with pytest.raises(ValidationError) as caught:
        Settings()
    (error,) = caught.value.errors()
    for name, meant in (
        ("DATABASE_URL", "DATABASE__URL"),
        ("LOG__LEVL", "LOG__LEVEL"),
        ("KYE", "KEY"),
    ):
        assert f"MYSYMBOLS_{name} (did you mean MYSYMBOLS_{meant}?)" in error["msg"]
    assert error["msg"].endswith("MYSYMBOLS_QQQQQQQQQQ")


POSTGRESQL = "postgresql://ana:sesame@db.example/symbols"
KEY = "0123456789abcdef-0123456789abcdef"


def test_DATABASE_URL_and_SECRET_KEY_are_used_where_no_variable_of_ours_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", POSTGRESQL)
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv("MYSYMBOLS_DATABASE__POOL_SIZE", "7")
    settings = read_settings()
    assert (settings.database.url, settings.database.pool_size) == (POSTGRESQL, 7)
    assert settings.http.cursor_secret == SecretStr(KEY)
    (pepper,) = settings.security.pepper_list
    assert (len(pepper), pepper) == (64, Settings().security.pepper_list[0])
    assert KEY not in pepper
    assert settings.security.sealing_key_list == (), "a changed key must not lose secrets"
    assert {KEY, pepper, "sesame"} <= set(secret_values(settings))
    notes = capsys.readouterr().err.splitlines()
    assert notes == [
        "note: DATABASE_URL is used as MYSYMBOLS_DATABASE__URL.",
        "note: SECRET_KEY is used as MYSYMBOLS_HTTP__CURSOR_SECRET.",
        "note: SECRET_KEY gives the pepper of API keys: a new one ends all of them.",
    ]


def test_variables_of_ours_precede_the_plain_ones_with_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", POSTGRESQL)
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv("FLASK_ENV", "development")
    monkeypatch.setenv("MYSYMBOLS_DATABASE__URL", "postgresql://h/other")
    monkeypatch.setenv("MYSYMBOLS_HTTP__CURSOR_SECRET", "another secret")
    monkeypatch.setenv("MYSYMBOLS_SECURITY__PEPPER", "fedcba9876543210-fedcba9876543210")
    settings = read_settings()
    assert settings.database.url == "postgresql://h/other"
    assert settings.http.cursor_secret == SecretStr("another secret")
    assert settings.security.pepper_list == ("fedcba9876543210-fedcba9876543210",)
    notes = capsys.readouterr().err
    assert "DATABASE_URL is not used: MYSYMBOLS_DATABASE__URL is set." in notes
    assert "SECRET_KEY is not used: MYSYMBOLS_HTTP__CURSOR_SECRET is set." in notes
    assert "FLASK_ENV has no effect here" in notes
    read_settings({"database": {"url": "sqlite+aiosqlite:///own.sqlite3"}})
    assert "DATABASE_URL is not used: this command names a database." in capsys.readouterr().err


def test_a_weak_SECRET_KEY_is_no_pepper_and_a_file_precedes_it_on_sqlite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_KEY", "twelve chars")
    (used,) = plain_variables(os.environ)
    assert used.note == "SECRET_KEY is used as MYSYMBOLS_HTTP__CURSOR_SECRET."
    monkeypatch.setenv("DATABASE_URL", POSTGRESQL)
    assert plain_variables(os.environ)[-1].note.startswith("SECRET_KEY is no pepper of API keys: ")
    assert Settings().security.pepper_list == ()
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv("DATABASE_URL", "sqlite:///var/x.sqlite3")
    assert Settings().security.pepper_list == (), "its pepper file stays valid"


@pytest.mark.parametrize(
    ("name", "value"), [("DATABASE_URL", "mysql://u:sesame@h/d"), ("SECRET_KEY", "sesame")]
)
def test_an_invalid_plain_variable_is_named_without_its_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CommandError) as caught:
        read_settings()
    assert caught.value.detail.startswith(f"{name}: ")
    assert "sesame" not in caught.value.detail


def test_known_variables_cover_every_nested_setting() -> None:
    known = known_variables()

    assert known["MYSYMBOLS_HTTP__PORT"] == "8000"
    assert unknown_variables({"PATH": "x", "MYSYMBOLS_URL": "y", "mysymbols_http__port": "1"}) == []


def test_the_role_comes_from_environment_or_option(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().role is ProcessRole.ALL
    monkeypatch.setenv("MYSYMBOLS_ROLE", "api")
    assert Settings().role is ProcessRole.API
    assert read_settings(role=ProcessRole.WORKER).role is ProcessRole.WORKER
    assert read_settings().role is ProcessRole.API
    monkeypatch.setenv("MYSYMBOLS_ROLE", "leader")
    with pytest.raises(ValidationError):
        Settings()


def test_G09_the_digest_covers_shared_settings_and_reveals_no_secret() -> None:
    plain = Settings()
    assert plain.digest == Settings(role=ProcessRole.API, http=HttpVariables(port=1234)).digest
    secret = Settings(http=HttpVariables(cursor_secret=SecretStr("hush, hush, hush")))
    away = Settings(kucoin=KucoinVariables(base_url="http://127.0.0.1:8100"))
    private = Settings(notifications=NotificationVariables(allow_private_addresses=True))
    polled = Settings(feed=FeedVariables(mode="poll"))
    watched = Settings(security=SecurityVariables(four_eyes=True))
    short = Settings(security=SecurityVariables(session_idle_s=60))
    digests = {one.digest for one in (plain, secret, away, private, polled, watched, short)}
    assert len(digests) == 7
    assert not any("hush" in digest or len(digest) != 12 for digest in digests)


def test_breaker_and_pool_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Settings().kucoin.limits
    assert (limits.breaker_consecutive, limits.breaker_probe_s) == (5, 15.0)
    options = Settings().database_options
    assert (options.pool_size, options.pool_recycle_s, options.pool_pre_ping) == (20, 3600, True)
    monkeypatch.setenv("MYSYMBOLS_KUCOIN__BREAKER_FAILURES", "2")
    monkeypatch.setenv("MYSYMBOLS_KUCOIN__BREAKER_PROBE_S", "300")
    monkeypatch.setenv("MYSYMBOLS_DATABASE__POOL_RECYCLE_S", "60")
    limits = Settings().kucoin.limits
    assert (limits.breaker_consecutive, limits.breaker_probe_s) == (2, 300.0)
    assert Settings().database_options.pool_recycle_s == 60


def test_debugging_logs_more_and_is_refused_where_others_reach_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (Settings().log_level, Settings().database_options.log_statements) == ("info", False)
    monkeypatch.setenv("MYSYMBOLS_DEBUG", "1")
    settings = read_settings()
    assert (settings.log_level, settings.database_options.log_statements) == ("debug", True)
    assert read_settings({"http": {"host": "::1"}}).debug
    with pytest.raises(CommandError, match=r"MYSYMBOLS_DEBUG is refused at 0\.0\.0\.0"):
        read_settings({"http": {"host": "0.0.0.0"}})  # noqa: S104  # refused
    monkeypatch.setenv("MYSYMBOLS_HTTP__HOST", "192.0.2.7")
    with pytest.raises(CommandError, match=r"MYSYMBOLS_DEBUG is refused at 192\.0\.2\.7"):
        read_settings()
    with pytest.raises(ValidationError, match="MYSYMBOLS_DEBUG is refused"):
        Settings()
    monkeypatch.setenv("MYSYMBOLS_DEBUG", "0")
    assert read_settings().log_level == "info"


@pytest.mark.parametrize("weak", ["", "replicas"])
def test_G07_a_weak_secret_refuses_to_start(weak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSYMBOLS_HTTP__CURSOR_SECRET", weak)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [one["loc"] for one in caught.value.errors()] == [("http", "cursor_secret")]


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("MYSYMBOLS_HTTP__PORT", "70000", "(allowed: a whole number from 0 up to 65535)"),
        ("MYSYMBOLS_LOG__LEVEL", "loud", "(allowed: one of debug, info, warning, error)"),
        ("MYSYMBOLS_KUCOIN__READ_TIMEOUT_S", "x", "(allowed: a number above 0 up to 120)"),
        ("MYSYMBOLS_DATABASE__POOL_PRE_PING", "maybe", "(allowed: true or false)"),
        ("MYSYMBOLS_ROLE", "leader", "(allowed: one of all, api, worker)"),
    ],
)
def test_an_error_at_start_names_variable_and_allowed_values(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(CommandError) as caught:
        read_settings()
    assert str(caught.value).count(variable) == 1
    assert sentence in str(caught.value)
    assert value not in str(caught.value).replace(sentence, "").replace(variable, "")
