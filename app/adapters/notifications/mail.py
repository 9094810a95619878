"""Sends mail over SMTP to checked addresses."""

import re
import ssl
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from enum import StrEnum
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib

from app.adapters.notifications.egress import Egress, forbidden, malformed, query_of, undelivered
from app.alerts.domain.notifications import Delivery

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


@dataclass(frozen=True, slots=True)
class Mailer:
    """Sends one mail per connection; `tls` replaces the certificates of the system."""

    tls: ssl.SSLContext | None = None

    async def send(self, letter: MailChannel, delivery: Delivery, egress: Egress) -> None:
        """Raises UnavailableError, RefusedError (webhook_url_forbidden)."""
        async with egress.guarded():
            try:
                await self._send(letter, delivery, egress)
            except aiosmtplib.SMTPResponseException as error:
                raise undelivered(f"answered {error.code}") from None
            except aiosmtplib.SMTPRecipientsRefused as error:
                raise undelivered(f"answered {error.recipients[0].code}") from None
            except aiosmtplib.SMTPException as error:
                raise undelivered(type(error).__name__) from None

    async def _send(self, letter: MailChannel, delivery: Delivery, egress: Egress) -> None:
        user, password = letter.login or (None, None)
        client = aiosmtplib.SMTP(
            hostname=letter.host,  # only for the certificate check, never resolved
            sock=await egress.connect(letter.host, letter.port),
            username=user,
            password=password,
            use_tls=letter.mode is MailEncryption.SSL,
            start_tls={MailEncryption.STARTTLS: True, MailEncryption.AUTO: None}.get(
                letter.mode, False
            ),
            tls_context=self.tls,
            timeout=egress.timeout_s,
        )
        async with client:
            recipients = [*letter.to, *letter.cc, *letter.bcc]
            await client.send_message(
                message_of(letter, delivery), sender=letter.sender.addr_spec, recipients=recipients
            )


def letter_of(url: str, egress: Egress) -> MailChannel:
    """Parse mailto://user:password@host:port/to?keys.

    Raises RefusedError (validation_failed, webhook_url_forbidden).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise malformed("It is no complete mailto:// URL.") from None
    query = query_of(parts.query, _KEYS)
    domain = (parts.hostname or "").lower()
    user = query.get("user") or unquote(parts.username or "")
    password = query.get("pass") or unquote(parts.password or "")
    if not domain or parts.fragment or (bool(password) and not user):
        raise malformed("It is no complete mailto:// URL.")
    host, usual = _PROVIDERS.get(domain, (domain, None))
    if domain in _PROVIDERS and user and "@" not in user:
        user = f"{user}@{domain}"
    mode = _mode(parts.scheme, query.get("mode"), port or usual, has_password=bool(password))
    host, port = query.get("smtp") or host, port or usual or _PORT_OF[mode]
    if port not in PORTS and not egress.allow_private:
        raise forbidden("mail goes to port 25, 465 or 587")
    egress.require_host(host)
    sender = query.get("from") or (user if "@" in user else f"{user or 'my-symbols'}@{domain}")
    path = unquote(parts.path).replace("/", ",")
    to = _mailboxes(f"{path},{query.get('to', '')}") or _mailboxes(sender)
    cc, bcc = _mailboxes(query.get("cc", "")), _mailboxes(query.get("bcc", ""))
    if not _MAILBOX.fullmatch(sender):
        raise malformed("Its sender is no mailbox.")
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
    notice, message = delivery.notice, EmailMessage()
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
        raise malformed("It names a mailbox that is none.")
    return found
