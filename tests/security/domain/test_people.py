"""Rules of passwords, and the life of a session."""

from datetime import timedelta

import pytest

from app.security.domain.people import Session, normalize_password, password_fault
from tests.support.trading_desk import NOW

IDLE = timedelta(minutes=30)


@pytest.mark.parametrize(
    "password",
    [
        "violet harbor 71 kites",
        "nur zwölf aus Öl",
        "\u5bc6\u7801\u548c\u5176\u4ed6\u5341\u4e2a\u4e0d\u540c\u7684\u5b57\u7b26\u4e32",
        "aaaa bbbb cccc dd",
        "x9!Qr-vK#2pm",
        "correct battery 7 staples",
        "password of the blue kettle",
        "ab" * 2 + "cdefgh" * 42,
    ],
)
def test_a_long_password_of_any_characters_is_good(password: str) -> None:
    assert password_fault(password, "ana") is None


@pytest.mark.parametrize(
    ("password", "word"),
    [
        ("x9!Qr-vK#2p", "at least 12"),
        ("x9!Qr-" + "vK#2p" * 50, None),
        ("x9!Qr-." + "vK#2p" * 50, "up to 256"),
        ("violet harbor\t71 kites", "invisible"),
        ("violet harbor\u200d71 kites", "invisible"),
        ("violet harbor\udcff71 kites", "invisible"),
        ("abababababab", "different"),
        ("aaaabbbbccccdddd", "different"),
        ("Password1234", "common"),
        ("PASSWORD-2026!", "common"),
        ("qwertyuiop123456", "common"),
        ("123456789012", "common"),
        ("1qaz2wsx3edc4rfv", "common"),
        ("ZAQ1xsw2cde3", "common"),
        ("qazwsxedcrfv", "common"),
        ("Q1w2e3r4t5y6", "common"),
        ("123qweasdzxc", "common"),
        ("112233445566", "common"),
        ("my-symbols-kucoin", "common"),
        ("AnaStasia-1234!", "common"),
        ("anastasiaanastasia", "name"),
    ],
)
def test_what_is_short_long_or_common_is_refused(password: str, word: str | None) -> None:
    fault = password_fault(password, "anastasia")
    assert fault is None if word is None else fault is not None and word in fault


def test_a_short_name_is_no_reason_to_refuse() -> None:
    assert password_fault("aoxaoxaox.pqr", "ao") is None


def test_a_password_is_the_same_from_every_keyboard() -> None:
    composed, decomposed = "zw\u00f6lf Kn\u00f6pfe", "zwo\u0308lf Kno\u0308pfe"
    assert normalize_password(composed) == normalize_password(decomposed) == composed
    assert normalize_password("\uff41\uff42") == "ab"
    assert normalize_password("  blue  ") == "  blue  ", "blanks count"


def test_a_session_ends_idle_or_at_its_end() -> None:
    session = Session("id", "h", "p", "user", None, NOW, NOW, NOW + timedelta(hours=12))
    assert session.is_live(NOW + timedelta(minutes=29, seconds=59), NOW, IDLE)
    assert not session.is_live(NOW + IDLE, NOW, IDLE)
    late = NOW + timedelta(hours=12)
    assert session.is_live(late - timedelta(seconds=1), late - timedelta(minutes=1), IDLE)
    assert not session.is_live(late, late, IDLE)
