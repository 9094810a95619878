"""A real browser, limited to the loopback interface, sees the operations on the docs page."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Request, async_playwright

from app.foundation.http.server import server_config
from tests.support.harness import make_api

CHROMIUM = next(
    (
        path
        for path in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser"))
        if path.exists()
    ),
    None,
)
WAIT_MS = 240_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here")


@asynccontextmanager
async def listening() -> AsyncIterator[str]:
    numbers = count(1)
    config = server_config(
        make_api(), host="127.0.0.1", port=0, new_id=lambda: f"server-{next(numbers):08d}"
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server._serve())
        while not server.started:
            assert not running.done()
            await asyncio.sleep(0.01)
        try:
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await running


def foreign(requests: Iterable[Request], home: str) -> list[str]:
    return [
        request.url
        for request in requests
        if not request.url.startswith((home, "data:", "blob:" + home))
    ]


async def test_an_operation_is_listed_and_answers() -> None:
    async with listening() as home, async_playwright() as player:
        browser = await player.chromium.launch(
            executable_path=str(CHROMIUM),
            # Every name but the loopback address fails to resolve.
            args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )
        page = await browser.new_page()
        page.set_default_timeout(WAIT_MS)
        requests: list[Request] = []
        complaints: list[str] = []
        # Playwright marks its handlers, which a method of a list does not allow.
        page.on("request", lambda request: requests.append(request))  # noqa: PLW0108  # it counts arguments
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda line: complaints.append(line.text) if line.type == "error" else None,
        )
        await page.goto(f"{home}/docs")
        operation = page.locator(".opblock-summary-path", has_text="/api/symbol-mgmt/health")
        await operation.wait_for(timeout=WAIT_MS)
        assert "My Symbols" in await page.locator(".info .title").inner_text()

        await page.locator(".opblock", has_text="/livez").locator(".opblock-summary").click()
        await page.get_by_role("button", name="Try it out").click()
        await page.get_by_role("button", name="Execute").click()
        answer = page.locator(".live-responses-table .response-col_status", has_text="200")
        await answer.wait_for(timeout=WAIT_MS)

        assert foreign(requests, home) == []
        assert complaints == []
        await browser.close()
