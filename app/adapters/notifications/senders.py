"""Senders of notifications: signed webhooks, mail over SMTP and chat services."""

import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from enum import StrEnum
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from app.adapters.notifications.egress import (
    ALLOW_PRIVATE,
    HTTPS_PORTS,
    Egress,
    MailServer,
    forbidden,
    forbidden_unless_private,
    malformed,
    query_of,
    split_url,
)
from app.alerts.domain.notifications import Channel, ChannelKind, Delivery, Notification
from app.foundation.events import EventRecord, EventTopic
from app.operations.services.event_messages import event_envelope

PORTS: Final = frozenset({25, 465, 587})
_KEYS: Final = ("bcc", "cc", "from", "mode", "name", "pass", "smtp", "to", "user")
_MOST: Final = 20  # recipients
_MAILBOX: Final = re.compile(
    r"(?=.{3,254}$)[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[a-z0-9.-]+", re.IGNORECASE | re.ASCII
)
# Server and port of providers whose server name differs from the domain of their mailboxes.
_PROVIDERS: Final = {
    "gmail.com": ("smtp.gmail.com", 587),
    "googlemail.com": ("smtp.gmail.com", 587),
    "hotmail.com": ("smtp-mail.outlook.com", 587),
    "icloud.com": ("smtp.mail.me.com", 587),
    "live.com": ("smtp-mail.outlook.com", 587),
    "me.com": ("smtp.mail.me.com", 587),
    "outlook.com": ("smtp-mail.outlook.com", 587),
    "yahoo.com": ("smtp.mail.yahoo.com", 465),
    "zoho.com": ("smtp.zoho.com", 587),
    "fastmail.com": ("smtp.fastmail.com", 465),
    "gmx.com": ("mail.gmx.com", 587),
    "gmx.net": ("mail.gmx.net", 587),
}


class MailEncryption(StrEnum):
    """Encryption of a connection, with apprise's names; `auto` uses STARTTLS if offered."""

    AUTO = "auto"
    INSECURE = "insecure"
    STARTTLS = "starttls"
    SSL = "ssl"


_PORT_OF: Final = {
    MailEncryption.AUTO: 25,
    MailEncryption.INSECURE: 25,
    MailEncryption.STARTTLS: 587,
    MailEncryption.SSL: 465,
}


@dataclass(frozen=True, slots=True, repr=False)
class MailChannel:
    """Server, sender and recipients of a mail channel."""

    host: str
    port: int
    mode: MailEncryption
    login: tuple[str, str] | None
    sender: Address
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]


async def send_letter(letter: MailChannel, delivery: Delivery, egress: Egress) -> None:
    """Send one mail over a connection of its own.

    Raises UnavailableError, RefusedError (webhook_url_forbidden).
    """
    server = MailServer(
        host=letter.host,
        port=letter.port,
        login=letter.login,
        has_tls=letter.mode is MailEncryption.SSL,
        starts_tls={MailEncryption.STARTTLS: True, MailEncryption.AUTO: None}.get(
            letter.mode, False
        ),
    )
    recipients = [*letter.to, *letter.cc, *letter.bcc]
    await egress.mail(server, message_of(letter, delivery), letter.sender.addr_spec, recipients)


def letter_of(url: str, egress: Egress) -> MailChannel:
    """Parse mailto://user:password@host:port/to?keys.

    Raises RefusedError (validation_failed, webhook_url_forbidden).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise malformed("It is not a complete mailto:// URL.") from None
    query = query_of(parts.query, _KEYS)
    domain = (parts.hostname or "").lower()
    user = query.get("user") or unquote(parts.username or "")
    password = query.get("pass") or unquote(parts.password or "")
    if not domain or parts.fragment or (bool(password) and not user):
        raise malformed("It is not a complete mailto:// URL.")
    host, usual = _PROVIDERS.get(domain, (domain, None))
    if domain in _PROVIDERS and user and "@" not in user:
        user = f"{user}@{domain}"
    mode = _mode(parts.scheme, query.get("mode"), port or usual, has_password=bool(password))
    host, port = query.get("smtp") or host, port or usual or _PORT_OF[mode]
    if port not in PORTS and not egress.allow_private:
        raise forbidden_unless_private("mail goes to port 25, 465 or 587")
    egress.require_host(host)
    sender = query.get("from") or (user if "@" in user else f"{user or 'my-symbols'}@{domain}")
    path = unquote(parts.path).replace("/", ",")
    to = _mailboxes(f"{path},{query.get('to', '')}") or _mailboxes(sender)
    cc, bcc = _mailboxes(query.get("cc", "")), _mailboxes(query.get("bcc", ""))
    if not _MAILBOX.fullmatch(sender):
        raise malformed("Its sender is not a mailbox.")
    if len(to) + len(cc) + len(bcc) > _MOST or not (query.get("name") or "x").isprintable():
        raise malformed(f"It has more than {_MOST} recipients, or a name that cannot be shown.")
    return MailChannel(
        host=host,
        port=port,
        mode=mode,
        login=(user, password) if password else None,
        sender=Address(query.get("name") or "My Symbols", addr_spec=sender),
        to=to,
        cc=cc,
        bcc=bcc,
    )


def message_of(letter: MailChannel, delivery: Delivery) -> EmailMessage:
    """Create the mail, equal for every attempt."""
    notice, message = delivery.notification, EmailMessage()
    message["Subject"] = " ".join(notice.title.split())
    message["From"] = letter.sender
    message["To"] = ", ".join(letter.to)
    if letter.cc:
        message["Cc"] = ", ".join(letter.cc)
    message["Date"] = delivery.created_at
    message["Message-ID"] = f"<notice-{delivery.id}.{delivery.channel_id}@{letter.sender.domain}>"
    message.set_content(notice.body or notice.title)
    return message


def _mode(
    scheme: str, named: str | None, port: int | None, *, has_password: bool
) -> MailEncryption:
    if named is None:
        if port == _PORT_OF[MailEncryption.SSL]:
            return MailEncryption.SSL
        return (
            MailEncryption.STARTTLS if has_password or scheme == "mailtos" else MailEncryption.AUTO
        )
    if named not in {MailEncryption.INSECURE, MailEncryption.STARTTLS, MailEncryption.SSL}:
        raise malformed("Its mode is one of insecure, starttls and ssl.")
    if named == MailEncryption.INSECURE and (has_password or scheme == "mailtos"):
        raise malformed("A password is sent over TLS only: mode is starttls or ssl.")
    return MailEncryption(named)


def _mailboxes(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))
    if not all(_MAILBOX.fullmatch(one) for one in found):
        raise malformed("It names an invalid mailbox.")
    return found


@dataclass(frozen=True, slots=True)
class WebhookNotifier:
    """Posts notifications as JSON; `now_s` gives Unix seconds for the signature."""

    now_s: Callable[[], int]
    egress: Egress = field(default_factory=Egress)

    @property
    def kind(self) -> ChannelKind:
        return ChannelKind.WEBHOOK

    def check(self, channel: Channel) -> None:
        """Raises RefusedError (webhook_url_forbidden) for a forbidden address."""
        parts = split_url(channel.url)
        if parts.username is not None or parts.password is not None:
            raise forbidden("it must hold no user and no password")
        if not self.egress.allow_private and (
            parts.scheme != "https" or (parts.port or 443) not in HTTPS_PORTS
        ):
            raise forbidden_unless_private("it must be https, on port 443 or 8443")
        self.egress.require_host(str(parts.hostname))

    async def send(self, channel: Channel, delivery: Delivery) -> None:
        """Send one notification over its own connection; raises as `line` does."""
        async with self.line(channel) as tell:
            await tell(delivery)

    @asynccontextmanager
    async def line(self, channel: Channel) -> AsyncIterator[Callable[[Delivery], Awaitable[None]]]:
        """Open one connection for several deliveries to the addresses checked now.

        Raises UnavailableError or RefusedError, whose text holds no part of the address.
        """
        self.check(channel)
        async with self.egress.http(channel.url) as http:

            async def send(delivery: Delivery) -> None:
                body = content(delivery)
                headers = {
                    "X-Event-Id": event_id(delivery),
                    "X-Signature": signature(channel.secret or "", self.now_s(), body),
                }
                await http.post(body, headers)

            yield send


def event_id(delivery: Delivery) -> str:
    """Event id, equal for every attempt, so that a receiver can drop duplicates."""
    seq = delivery.notification.event_seq
    return f"notice-{delivery.id}" if seq is None else f"event-{seq}"


def content(delivery: Delivery) -> bytes:
    """Request body, with the same bytes at every attempt.

    It is the envelope of the event as in the stream, with the notification beside it.
    """
    notice, created_at = delivery.notification, _instant_text(delivery.created_at)
    document = {
        **_envelope(notice, created_at),
        "notification": {
            "id": event_id(delivery),
            "kind": notice.kind.value,
            "priority": notice.priority.value,
            "critical": notice.is_critical,
            "title": notice.title,
            "body": notice.body,
            "created_at": created_at,
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _envelope(notice: Notification, created_at: str) -> dict[str, Any]:
    """Envelope of the stored event; a notification without one, such as a test, has no topic."""
    stored = notice.event
    if notice.event_seq is None or "topic" not in stored:
        return {
            "type": "notification",
            "topic": None,
            "sequence": None,
            "timestamp": created_at,
            "data": dict(stored),
        }
    record = EventRecord(
        EventTopic(stored["topic"]),
        stored["type"],
        None,
        stored["data"],
        datetime.fromisoformat(stored["occurred_at"]),
        notice.event_seq,
    )
    return event_envelope(record)


def _instant_text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def signature(secret: str, stamp: int, body: bytes) -> str:
    """Signature `t=<Unix seconds>,v1=<HMAC-SHA256 of "t.body" in hex>`.

    Receivers should refuse one older than 5 minutes.
    """
    message = f"{stamp}.".encode() + body
    return f"t={stamp},v1={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"


TIMEOUT_S: Final = 30.0
MAIL: Final = frozenset({"mailto", "mailtos"})
LOCAL: Final = frozenset({"json", "jsons"})  # a receiver of one's own network
SERVICES: Final[Mapping[str, str]] = {
    "tgram": "https://api.telegram.org",
    "discord": "https://discord.com",
    "slack": "https://hooks.slack.com",
}
_TELEGRAM: Final = re.compile(r"(?:bot)?(\d{3,20}:[\w-]{20,80})((?:/(?:-?\d+(?::\d+)?|@\w+))+)/?")
_DISCORD: Final = re.compile(r"(?:[^/@]*@)?(\d{10,24})/([\w-]{20,120})/?")
_SLACK: Final = re.compile(r"(?:[^/@]*@)?(T\w{6,20})/(B\w{6,20})/(\w{16,64})/?")
_TELEGRAM_LENGTH: Final = 4_096
_DISCORD_LENGTH: Final = 2_000
_SLACK_LENGTH: Final = 40_000

Documents = Callable[[Notification], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class PeopleNotifier:
    """Sends to the known messenger services; `services` are their base URLs."""

    egress: Egress = field(default_factory=lambda: Egress(timeout_s=TIMEOUT_S))
    services: Mapping[str, str] = field(default_factory=lambda: SERVICES)

    @property
    def kind(self) -> ChannelKind:
        return ChannelKind.APPRISE

    def check(self, channel: Channel) -> None:
        """Raises RefusedError (validation_failed, webhook_url_forbidden)."""
        scheme = _scheme(channel.url)
        known = MAIL | self.services.keys() | (LOCAL if self.egress.allow_private else set())
        if scheme not in known:
            names = ", ".join(f"{one}://" for one in sorted(MAIL | self.services.keys()))
            local = f" {scheme}:// needs {ALLOW_PRIVATE}=true." if scheme in LOCAL else ""
            raise malformed(f"A channel to people begins with one of {names}.{local}")
        if scheme in MAIL:
            letter_of(channel.url, self.egress)
        else:
            self._service(channel.url)

    async def send(self, channel: Channel, delivery: Delivery) -> None:
        """Send one notification over its own connection; raises as `line` does."""
        async with self.line(channel) as tell:
            await tell(delivery)

    @asynccontextmanager
    async def line(self, channel: Channel) -> AsyncIterator[Callable[[Delivery], Awaitable[None]]]:
        """Open a connection for several deliveries to the addresses checked now.

        Raises UnavailableError or RefusedError, whose text holds no address and no
        recipient.
        """
        self.check(channel)
        if _scheme(channel.url) in MAIL:
            letter = letter_of(channel.url, self.egress)
            yield lambda delivery: send_letter(letter, delivery, self.egress)
            return
        url, documents = self._service(channel.url)
        async with self.egress.http(url) as http:

            async def send(delivery: Delivery) -> None:
                for document in documents(delivery.notification):
                    await http.post(json.dumps(document, ensure_ascii=False).encode())

            yield send

    def _service(self, url: str) -> tuple[str, Documents]:
        """Address and documents of a service. Raises RefusedError (validation_failed)."""
        scheme, rest = _scheme(url), url.partition("://")[2]
        if scheme in LOCAL:
            parts = split_url(f"{'https' if scheme == 'jsons' else 'http'}://{rest}")
            self.egress.require_host(str(parts.hostname))
            return parts.geturl(), _plain
        rest, has_query, query = rest.partition("?")
        if has_query:
            query_of(query, ())
        base = self.services[scheme]
        if scheme == "tgram" and (found := _TELEGRAM.fullmatch(rest)):
            chats = [one for one in found[2].split("/") if one]
            return f"{base}/bot{found[1]}/sendMessage", lambda notice: _telegram(notice, chats)
        if scheme == "discord" and (found := _DISCORD.fullmatch(rest)):
            return f"{base}/api/webhooks/{found[1]}/{found[2]}", _discord
        if scheme == "slack" and (found := _SLACK.fullmatch(rest)):
            return f"{base}/services/{found[1]}/{found[2]}/{found[3]}", _slack
        raise malformed(f"It is not a complete {scheme}:// URL.")


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _telegram(notice: Notification, chats: list[str]) -> list[dict[str, Any]]:
    """Chat of a URL: a number, with a topic after a colon, or a public name with an @."""
    text = f"{notice.title}\n{notice.body}".strip()[:_TELEGRAM_LENGTH]
    documents = []
    for chat in chats:
        name, _, topic = chat.partition(":")
        document: dict[str, Any] = {"chat_id": name, "text": text}
        if topic:
            document["message_thread_id"] = int(topic)
        documents.append(document)
    return documents


def _discord(notice: Notification) -> list[dict[str, Any]]:
    text = f"**{notice.title}**\n{notice.body}".strip()[:_DISCORD_LENGTH]
    return [{"content": text, "allowed_mentions": {"parse": []}}]


def _slack(notice: Notification) -> list[dict[str, Any]]:
    text = f"{notice.title}\n{notice.body}".strip()[:_SLACK_LENGTH]
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):  # else it might be a mention
        text = text.replace(sign, name)
    return [{"text": text}]


def _plain(notice: Notification) -> list[dict[str, Any]]:
    return [{"title": notice.title, "message": notice.body or notice.title}]
