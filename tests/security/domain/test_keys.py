"""The text of a key, its checksum and hash, and when it is valid."""

import hmac
import re
import secrets
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest

from app.foundation.principals import Role, Scope
from app.security.domain.addresses import (
    is_loopback,
    networks_contain,
    parse_network,
    parse_networks,
    site_of,
)
from app.security.domain.failures import MAX_SITES, FailureCounter
from app.security.domain.keys import (
    ENTROPY_BYTES,
    ApiKey,
    KeyState,
    Pepper,
    create_token,
    pepper_fault,
    prefix_of,
    split_peppers,
)
from tests.support.trading_desk import NOW

KEY = ApiKey(
    "id", "engine", "mysym_x", "hash", "pepper", Role.TRADER, frozenset({Scope.SIGNALS}),
    frozenset({"tv"}), ("10.0.0.0/8",), "local", NOW, NOW + timedelta(days=1),
)  # fmt: skip


def test_S06_a_key_has_256_secret_bits_a_prefix_and_a_checksum() -> None:
    ones = bytes([255]) * ENTROPY_BYTES
    tokens = {create_token(ones), create_token(bytes(ENTROPY_BYTES))}
    tokens |= {create_token(ones[:-1] + bytes([bit])) for bit in (254, 127)}
    assert len(tokens) == 4, "the last bits of the secret count"
    for token in tokens:
        assert re.fullmatch(r"mysym_[0-9A-Za-z]{57}", token)
        assert prefix_of(token) == token[:14]
    with pytest.raises(ValueError, match="random bytes"):
        create_token(b"short")


def test_S05_a_changed_character_breaks_the_checksum() -> None:
    token = create_token(secrets.token_bytes(ENTROPY_BYTES))
    for at in range(len("mysym_"), len(token)):
        other = "A" if token[at] != "A" else "B"
        assert prefix_of(token[:at] + other + token[at + 1 :]) is None, at
    for text in ("", token[:-1], token + "0", token.upper(), f" {token}", "mysym_" + "é" * 57):
        assert prefix_of(text) is None


def test_S06_the_hash_is_an_hmac_under_the_pepper() -> None:
    one, other = Pepper.from_text("p" * 40), Pepper.from_text("q" * 40)
    assert one.hash("key") == hmac.new(b"p" * 40, b"key", sha256).hexdigest()
    assert one.hash("key") != other.hash("key")
    assert one.id != other.id
    assert "p" * 8 not in one.id


def test_weak_peppers_are_named() -> None:
    assert pepper_fault("0123456789abcdef" * 2) is None
    assert "32 characters" in (pepper_fault("0123456789abcdef") or "")
    assert "10 different" in (pepper_fault("abcabcabc" * 5) or "")
    assert split_peppers(" new , old\n") == ("new", "old")


def test_a_key_ends_by_its_time_or_its_revocation() -> None:
    assert KEY.state(NOW) is KeyState.ACTIVE
    assert KEY.state(NOW + timedelta(days=1)) is KeyState.EXPIRED
    assert replace(KEY, expires_at=None).state(NOW + timedelta(days=9_999)) is KeyState.ACTIVE
    assert replace(KEY, revoked_at=NOW).state(NOW - timedelta(days=1)) is KeyState.REVOKED
    principal = KEY.principal()
    assert (principal.actor, principal.credential_id) == ("key:engine", "id")
    assert (principal.may_post_for("tv"), principal.may_post_for("other")) == (True, False)


def test_an_allow_list_admits_its_networks_in_every_spelling() -> None:
    assert KEY.admits("10.1.2.3")
    assert KEY.admits("::ffff:10.1.2.3")
    for peer in ("11.0.0.1", "::1", "::ffff:11.0.0.1", "nonsense", None):
        assert not KEY.admits(peer), peer
    assert replace(KEY, allow=()).admits(None)
    assert parse_network("10.1.2.3/8") == "10.0.0.0/8"
    assert parse_networks(["::1", "::1/128"]) == ("::1/128",)
    with pytest.raises(ValueError, match="IPv4 or IPv6"):
        parse_network("everywhere")
    assert networks_contain(("2001:db8::/32",), "2001:db8::7%eth0")


def test_loopback_and_sites() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost"):
        assert is_loopback(host), host
    for other in (None, "", "192.0.2.1", "2001:db8::1", "10.0.0.1", "localhost.evil.example"):
        assert not is_loopback(other), other
    assert site_of("2001:db8::1") == site_of("2001:db8::ffff:2") == "2001:db8::/64"
    assert site_of("::ffff:10.0.0.1") == site_of("10.0.0.1") != site_of("10.0.0.2")


def test_S05_the_eleventh_failure_of_a_minute_blocks_an_address() -> None:
    counter = FailureCounter()
    for second in range(10):
        counter.add("a", float(second))
        assert counter.blocked_s("a", float(second)) is None
    counter.add("a", 10.0)
    assert counter.blocked_s("a", 10.0) == 50.0
    assert counter.blocked_s("b", 10.0) is None
    assert counter.blocked_s("a", 60.0) is None, "the first is a minute old"
    counter.add("a", 60.5)
    assert counter.blocked_s("a", 60.5) == 0.5


def test_failures_of_many_addresses_take_bounded_memory() -> None:
    counter = FailureCounter()
    for number in range(MAX_SITES + 100):
        counter.add(str(number), 0.0)
    assert len(counter) == MAX_SITES
