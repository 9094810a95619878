"""A real browser logs in by key and by password, and cannot be used by a page of another port."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright
from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from app.container.application import ROUTERS
from app.foundation.principals import Role
from app.foundation.sql.database import Database
from app.security.api import key_routes, session_routes, user_routes
from tests.browser.test_docs import CHROMIUM, WAIT_MS
from tests.support.api_keys import PASSWORD, KeyDesk
from tests.support.harness import PREFIX, make_api
from tests.support.streaming import listening, port_of
from tests.support.trading_desk import Desk

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here"),
    pytest.mark.parametrize("backend", ["sqlite"], indirect=True),
]
ANA = {"name": "ana", "password": PASSWORD}
ASK = """async ([method, url, headers, body]) => {
    try {
        const sent = {method, headers, credentials: "include"};
        const answer = await fetch(url, body === null ? sent : {...sent, body});
        return [answer.status, await answer.text()];
    } catch (error) { return [0, String(error)]; }
}"""


@asynccontextmanager
async def opened(desk: KeyDesk) -> AsyncIterator[str]:
    """Address of a service with these callers."""
    owner: Any = Desk(desk.database)
    owner.keys, owner.users, owner.sessions = desk.service, desk.users, desk.sessions
    routers = [key_routes.router, user_routes.router, session_routes.router]
    assert set(map(id, routers)) <= set(map(id, ROUTERS))
    async with listening(make_api({"my_symbols": owner}, routers=routers)) as server:
        yield f"http://127.0.0.1:{port_of(server)}"


async def foreign_page(scope: Scope, receive: Receive, send: Send) -> None:
    """Another service of the same machine: for a browser the same site, but another origin."""
    if scope["type"] == "http":
        await HTMLResponse("<title>elsewhere</title>")(scope, receive, send)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as player:
        yield await player.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )


async def ask(
    page: Page, method: str, url: str, body: Any = None, **headers: str
) -> tuple[int, str]:
    """Status and text of a request that the page sends; 0 if the browser hides the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    document = None if body is None else json.dumps(body)
    status, text = await page.evaluate(ASK, [method, url, named, document])
    return status, text


async def test_S16_only_a_page_of_the_service_can_use_the_session(database: Database) -> None:
    desk = KeyDesk(database)
    await desk.person("ana", Role.ADMIN)
    async with (
        opened(desk) as home,
        listening(foreign_page) as elsewhere,
        chromium() as browser,
    ):
        service = f"{home}{PREFIX}"
        context = await browser.new_context()
        own = await context.new_page()
        await own.goto(f"{home}/docs")
        as_json = {"Content_Type": "application/json", "X_Requested_With": "fetch"}
        status, text = await ask(own, "POST", f"{service}/sessions", ANA, **as_json)
        assert (status, json.loads(text)["actor"]) == (201, "user:ana")
        assert await own.evaluate("document.cookie") == "", "no script reads the cookie"
        (cookie,) = await context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        wanted = {"name": "engine", "role": "viewer"}
        assert (await ask(own, "POST", f"{service}/keys", wanted, **as_json))[0] == 201

        other = await context.new_page()
        await other.goto(f"http://127.0.0.1:{port_of(elsewhere)}/")
        before = await desk.service.list()
        for headers in (as_json, {"Content_Type": "text/plain"}, {}):
            body = {"name": "stolen", "role": "admin"}
            assert (await ask(other, "POST", f"{service}/keys", body, **headers))[0] == 0
        assert (await ask(other, "GET", f"{service}/keys"))[0] == 0
        assert (await ask(other, "DELETE", f"{service}/sessions/current"))[0] == 0
        async with other.expect_navigation():
            await other.evaluate(
                """(url) => {
                    const form = document.createElement("form");
                    [form.method, form.action, form.enctype] = ["POST", url, "text/plain"];
                    document.body.append(form);
                    form.submit();
                }""",
                f"{service}/keys",
            )
        assert "forbidden" in await other.content()
        assert await desk.service.list() == before
        status, text = await ask(own, "GET", f"{service}/users/me")
        assert (status, json.loads(text)["actor"]) == (200, "user:ana")
        status, _ = await ask(own, "DELETE", f"{service}/sessions/current", **as_json)
        assert (status, await context.cookies()) == (204, [])
        assert (await ask(own, "GET", f"{service}/users/me"))[0] == 401


async def execute(page: Page, name: str, status: int) -> None:
    """Runs an operation of the docs page and waits for its answer."""
    block = page.locator(f"#operations-{name}")
    await block.locator(".opblock-summary").click()
    await block.get_by_role("button", name="Try it out").click()
    await block.get_by_role("button", name="Execute").click()
    shown = block.locator(".live-responses-table .response-col_status", has_text=str(status))
    await shown.first.wait_for(timeout=WAIT_MS)


async def log_in(page: Page, form: str, **values: str) -> None:
    """Fills a form of the log-in page and sends it."""
    for name, value in values.items():
        await page.locator(f"#{form} [name={name}]").fill(value)
    await page.locator(f"#{form} button").click()


async def test_the_docs_page_asks_for_a_log_in_and_authorizes_with_another_key(
    database: Database,
) -> None:
    desk = KeyDesk(database)
    await desk.person("ana", Role.ADMIN)
    viewer, boss = await desk.issue("reader", Role.VIEWER), await desk.issue("boss", Role.ADMIN)
    async with opened(desk) as home, chromium() as browser:
        page = await browser.new_page()
        page.set_default_timeout(WAIT_MS)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(f"{home}/docs")
        await log_in(page, "password", name="ana", password="not the password")
        await page.locator("output", has_text="is wrong").wait_for()
        assert await page.context.cookies() == []
        await log_in(page, "key", key=viewer)
        await execute(page, "keys-list_api_keys", 403)
        await page.locator(".auth-wrapper .authorize").first.click()
        container = page.locator(".auth-container", has_text="bearerKey")
        await container.locator("input").fill(boss)
        await container.get_by_role("button", name="Apply credentials").click()
        await page.get_by_role("button", name="Close").first.click()
        await execute(page, "users-get_caller", 200)

        await page.reload()
        await execute(page, "sessions-log_out", 204)
        assert await page.context.cookies() == []
        await page.reload()
        await log_in(page, "password", name="ana", password=ANA["password"])
        await execute(page, "keys-list_api_keys", 200)
        assert complaints == []
