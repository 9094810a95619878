"""S11: a webhook is asked only at a public address, the very one that was looked at."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.adapters.notifications.egress import ALLOW_PRIVATE, Egress, addresses
from app.adapters.notifications.senders import WebhookNotifier
from app.alerts.domain.notifications import (
    Channel,
    ChannelKind,
    Delivery,
    DeliveryState,
    Notification,
    NotificationKind,
)
from app.configuration.domain.sections import NotificationPriority
from app.foundation.errors import Code, RefusedError, UnavailableError

T0 = datetime(2026, 3, 4, tzinfo=UTC)
DELIVERY = Delivery(
    id=1,
    channel_id="c",
    notification=Notification(
        NotificationKind.STATUS, NotificationPriority.LOW, "k", "Title", "Body", {}, 7
    ),
    state=DeliveryState.PENDING,
    attempts=0,
    created_at=T0,
    next_attempt_at=T0,
    delivered_at=None,
    error=None,
)


def channel(url: str, kind: ChannelKind = ChannelKind.WEBHOOK) -> Channel:
    return Channel("c", "n", kind, url, "s" * 16, tuple(NotificationKind), True, T0)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://127.1/",
        "https://127.0.0.1/",
        "https://0.0.0.0/",
        "https://10.1.2.3/",
        "https://192.168.1.1/",
        "https://172.16.0.1/",
        "https://192.0.0.192/",
        "https://192.88.99.1/",
        "https://168.63.129.16/",
        "https://[fec0::1]/",
        "https://[3fff::1]/",
        "https://hooks_.example..com/",
        "https://100.64.0.1/",
        "https://224.0.0.1/",
        "https://localhost/",
        "https://localhost./",
        "https://LOCALHOST/",
        "https://a.localhost/",
        "https://printer.local/",
        "https://metadata.google.internal/",
        "https://intranet/",
        "https://a.localho\u017ft/",
        "https://hook\u017f.example.com/",
        "https://127\u30020\u30020\u30021/",
        "https://\u2460\u2461\u2466.0.0.1/",
        "https://127.0.0.1%00.example.com/",
        "https://hooks.example.com%2f@127.0.0.1/",
        "https://hooks.example.com\\@127.0.0.1/",
        "https://127.0.0.1#@hooks.example.com/",
        "https://127.0.0.1:80/",
        "https://0177.0.0.1/",
        "https://user@hooks.example.com/",
        "https://user:secret@hooks.example.com/",
        "https://hooks.example.com:22/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:99999/",
        "ftp://hooks.example.com/",
        "https://",
        "https://[::1",
        "hooks.example.com",
        "",
    ],
)
def test_S11_what_is_not_a_public_https_address_is_refused(url: str) -> None:
    with pytest.raises(RefusedError) as caught:
        WebhookNotifier(lambda: 0).check(channel(url))
    assert caught.value.code is Code.WEBHOOK_URL_FORBIDDEN
    assert not url or url not in caught.value.detail
    try:
        WebhookNotifier(lambda: 0, Egress(allow_private=True)).check(channel(url))
    except RefusedError:
        is_permissible = False
    else:
        is_permissible = True
    assert (ALLOW_PRIVATE in caught.value.detail) is is_permissible, "the setting that allows it"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/x?y=1",
        "https://hooks.example.com:8443/x",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]/",
    ],
)
def test_S11_public_addresses_may_be_asked(url: str) -> None:
    WebhookNotifier(lambda: 0).check(channel(url))


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[int, list[web.Request]]]:
    got: list[web.Request] = []

    async def take(request: web.Request) -> web.Response:
        got.append(request)
        return web.Response(text="x" * 1_000_000)

    app = web.Application()
    app.router.add_post("/hook", take)
    async with TestServer(app) as server:
        assert server.port is not None
        yield server.port, got


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["::1"], ["169.254.169.254"]],
    ids=["loopback", "one-of-two", "only-ipv6", "metadata"],
)
async def test_S11_a_name_that_leads_to_a_private_address_is_not_asked(found: list[str]) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return found

    hook = WebhookNotifier(lambda: 0, Egress(resolve=resolve))
    hook.check(channel("https://rebinding.example.com/hook"))  # at creation it looked well
    with pytest.raises(RefusedError) as caught:
        await hook.send(channel("https://rebinding.example.com/hook"), DELIVERY)
    assert caught.value.code is Code.WEBHOOK_URL_FORBIDDEN


async def test_S11_the_connection_goes_to_the_address_that_was_looked_at() -> None:
    """The name resolves to nothing at all: only the pinned address can have been used."""
    looked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        looked.append(host)
        return ["127.0.0.1"]

    async with receiver() as (port, got):
        hook = WebhookNotifier(lambda: 0, Egress(allow_private=True, resolve=resolve))
        await hook.send(channel(f"http://hooks.invalid:{port}/hook"), DELIVERY)
    assert looked == ["hooks.invalid"]  # once: nobody asks again between look and use
    assert got[0].headers["Host"] == f"hooks.invalid:{port}"
    assert got[0].headers["X-Event-Id"] == "event-7"


async def test_a_name_without_address_is_a_failure_that_says_no_address() -> None:
    with pytest.raises(UnavailableError) as caught:
        await WebhookNotifier(lambda: 0, Egress(allow_private=True)).send(
            channel("http://hooks.invalid/token-of-mine"), DELIVERY
        )
    assert caught.value.code is Code.RECEIVER_UNAVAILABLE
    assert "token-of-mine" not in caught.value.detail
    assert await addresses("127.0.0.1", 80) == ["127.0.0.1"]
