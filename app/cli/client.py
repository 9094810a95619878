"""Talks to a running service: one request, its exact answer or a CommandError."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from app.cli.exit_codes import CommandError, ExitCode
from app.foundation.http.errors import PREFIX
from app.foundation.http.middleware import MODE

DEFAULT_URL: Final = "http://127.0.0.1:8000"
_UNAVAILABLE: Final = frozenset({502, 503, 504})
_PROBLEM: Final = "application/problem+json"
_CONNECT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class CliResponse:
    """What the service said: the text as it came, and the document with exact numbers."""

    status: int
    text: str
    document: Any


@dataclass(frozen=True, slots=True)
class Client:
    """A running service at `url`; each call opens and closes its own connection."""

    url: str = DEFAULT_URL
    timeout_s: float = 120.0

    async def get(self, path: str, **query: str | int) -> CliResponse:
        return await self.call("GET", path, query=query)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        prefer: str | None = None,
    ) -> CliResponse:
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
    ) -> CliResponse:
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
                text = await response.text()
                return understood(response, text, self.url)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise CommandError(
                ExitCode.USAGE, "invalid_url", f"{self.url!r} is not an address such as {DEFAULT_URL}."
            ) from None
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise unreachable(self.url, error) from None


def segment(text: str) -> str:
    """A symbol in any spelling as one segment of a path: BTC/USDT:USDT keeps its slash."""
    return quote(text, safe=":")


def unreachable(url: str, error: Exception) -> CommandError:
    """Nobody answers, or not as a service does."""
    return CommandError(
        ExitCode.UNAVAILABLE,
        "service_unreachable",
        f"No answer from {url} ({type(error).__name__}). Is it running? "
        "Start it with `my-symbols serve` or name another with --url or MYSYMBOLS_URL.",
    )


def understood(response: aiohttp.ClientResponse, text: str, url: str) -> CliResponse:
    """The answer of a 2xx. Raises CommandError for everything else.

    Others, exchanges among them, answer with JSON and have errors with a `code`, too.
    """
    status = response.status
    document = said(text)
    # Ours alone says with every answer what it still decides.
    if 200 <= status < 300 and document is not None and MODE.decode() in response.headers:
        return CliResponse(status, text, document)
    code = None if document is None else document.get("code")
    if response.content_type == _PROBLEM and isinstance(code, str):
        problem = json.loads(text)
        raise CommandError(exit_of(status), code, str(problem.get("detail", "")), problem)
    raise not_ours(status, url)


def not_ours(status: int, url: str) -> CommandError:
    """Somebody answers there, and it is not this service."""
    return CommandError(
        ExitCode.INTERNAL,
        "not_our_service",
        f"{url} answered {status} with something that is not an answer of this service.",
    )


def said(text: str | bytes) -> dict[str, Any] | None:
    """A JSON object with exact numbers, which ends the command where it lacks what is shown.

    None where the text is none.
    """
    try:
        document = json.loads(text, parse_float=Decimal, object_hook=_Said)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


class _Said(dict[str, Any]):
    """An object of an answer; where it has not what is shown another version has answered."""

    def __missing__(self, key: str) -> Any:
        raise CommandError(
            ExitCode.INTERNAL,
            "unknown_answer",
            f"The answer has no `{key}`: the service is of another version than this command.",
        )


def exit_of(status: int) -> ExitCode:
    """How a command ends that was answered with `status`."""
    if status in _UNAVAILABLE:
        return ExitCode.UNAVAILABLE
    return ExitCode.REFUSED if 400 <= status < 500 else ExitCode.INTERNAL
