"""Talks to a running service: one request, its exact answer or a CommandError."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from app.api.problems import PREFIX
from app.cli.exits import CommandError, Exit

DEFAULT_URL: Final = "http://127.0.0.1:8000"
_UNAVAILABLE: Final = frozenset({502, 503, 504})
_PROBLEM: Final = "application/problem+json"
_CONNECT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said: the text as it came, and the document with exact numbers."""

    status: int
    text: str
    document: Any


@dataclass(frozen=True, slots=True)
class Client:
    """A running service at `url`; each call opens and closes its own connection."""

    url: str = DEFAULT_URL
    timeout_s: float = 120.0

    async def get(self, path: str, **query: str | int) -> Answer:
        return await self.call("GET", path, query=query)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        prefer: str | None = None,
    ) -> Answer:
        return await self.call(
            "POST", path, body=body or {}, idempotency_key=idempotency_key, prefer=prefer
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        prefer: str | None = None,
    ) -> Answer:
        """The answer of a 2xx. Raises CommandError for everything else."""
        wanted = {"Idempotency-Key": idempotency_key, "Prefer": prefer}
        headers = {name: value for name, value in wanted.items() if value}
        limits = aiohttp.ClientTimeout(total=self.timeout_s, sock_connect=_CONNECT_S)
        address = f"{self.url.rstrip('/')}{PREFIX}{path}"
        try:
            async with (
                aiohttp.ClientSession(timeout=limits) as session,
                session.request(
                    method, address, params=query, json=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                status, kind = response.status, response.content_type
                text = await response.text()
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise CommandError(
                Exit.USAGE, "invalid_url", f"{self.url!r} is not an address such as {DEFAULT_URL}."
            ) from None
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise unreachable(self.url, error) from None
        return understood(status, kind, text, self.url)


def segment(text: str) -> str:
    """A symbol in any spelling as one segment of a path: BTC/USDT:USDT keeps its slash."""
    return quote(text, safe=":")


def unreachable(url: str, error: Exception) -> CommandError:
    """Nobody answers, or not as a service does."""
    return CommandError(
        Exit.UNAVAILABLE,
        "service_unreachable",
        f"No answer from {url} ({type(error).__name__}). Is it running? "
        "Start it with `my-symbols serve` or name another with --url or MYSYMBOLS_URL.",
    )


def understood(status: int, kind: str, text: str, url: str) -> Answer:
    """The answer of a 2xx. Raises CommandError for everything else.

    `kind` is the content type: others, exchanges among them, have errors with a `code`, too.
    """
    try:
        document = json.loads(text, parse_float=Decimal)
    except ValueError:
        document = None
    if 200 <= status < 300 and isinstance(document, dict):
        return Answer(status, text, document)
    if kind == _PROBLEM and isinstance(document, dict) and isinstance(document.get("code"), str):
        problem = json.loads(text)
        raise CommandError(
            exit_of(status), problem["code"], str(problem.get("detail", "")), problem
        )
    raise CommandError(
        Exit.INTERNAL,
        "not_our_service",
        f"{url} answered {status} with something that is not an answer of this service.",
    )


def exit_of(status: int) -> Exit:
    """How a command ends that was answered with `status`."""
    if status in _UNAVAILABLE:
        return Exit.UNAVAILABLE
    return Exit.REFUSED if 400 <= status < 500 else Exit.INTERNAL
