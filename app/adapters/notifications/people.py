"""Notifications to people over Telegram, Discord, Slack and mail, from apprise URLs."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from app.adapters.notifications.egress import Egress, malformed, query_of, split_url
from app.adapters.notifications.mail import Mailer, letter_of
from app.alerts.domain.notifications import Channel, ChannelKind, Delivery, Notification

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
    mailer: Mailer = field(default_factory=Mailer)
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
            raise malformed(f"A channel to people begins with one of {names}.")
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
            yield lambda delivery: self.mailer.send(letter, delivery, self.egress)
            return
        url, documents = self._service(channel.url)
        async with self.egress.http(url) as http:

            async def tell(delivery: Delivery) -> None:
                for document in documents(delivery.notice):
                    await http.post(json.dumps(document, ensure_ascii=False).encode())

            yield tell

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
        raise malformed(f"It is no complete {scheme}:// URL.")


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
