"""HTTP client of a running service: one request returns its exact answer or a CommandError."""

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from app.cli.credentials import find_credential, find_trust
from app.cli.exit_codes import CommandError, ExitCode, exit_code_of_status
from app.cli.lazy import lazy_module
from app.foundation.errors import Code
from app.foundation.http.protocol import MODE, PREFIX

if TYPE_CHECKING:
    import aiohttp
else:  # loading it takes longer than printing the help
    aiohttp = lazy_module("aiohttp")

DEFAULT_URL: Final = "http://127.0.0.1:8000"
CONNECT_TIMEOUT_S: Final = 5.0
_PROBLEM: Final = "application/problem+json"
_PAGE: Final = "text/html"
_NO_KEY: Final = (
    "Set MYSYMBOLS_KEY or --key-file; on the machine of the service `my-symbols keys create NAME"
    " --role ROLE` makes a key."
)
_NO_ROLE: Final = "Use a key that has it: set MYSYMBOLS_KEY or --key-file."
_ADVICE: Final = {401: _NO_KEY, 403: _NO_ROLE}


@dataclass(frozen=True, slots=True)
class CliResponse:
    """Answer of the service: its text unchanged, and the document with exact numbers.

    `date` is the HTTP date of the service's clock, to the second.
    """

    status: int
    text: str
    document: Any
    date: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """Client of the service at `url`; each call opens and closes its own connection.

    An anonymous one sends no key: the service of this process is in open mode.
    """

    url: str = DEFAULT_URL
    timeout_s: float = 120.0
    is_anonymous: bool = False

    async def get(self, path: str, **query: str | int) -> CliResponse:
        return await self.call("GET", path, query=query)

    async def fetch_page(self, path: str, **query: str) -> str:
        """Returns an HTML page, which has no document."""
        asked = {**query, "format": "html"}
        return (await self.call("GET", path, query=asked, is_page=True)).text

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
        if_match: int | None = None,
        is_page: bool = False,
    ) -> CliResponse:
        """Sends a request and returns its 2xx answer. Raises CommandError for any other.

        A service that does not know the local key of this machine, such as a demo beside the
        service of the settings, is asked once more without a key.
        """
        tag = None if if_match is None else f'"{if_match}"'
        optional = {"Idempotency-Key": idempotency_key, "Prefer": prefer, "If-Match": tag}
        headers = {name: value for name, value in optional.items() if value}
        credential = None if self.is_anonymous else find_credential(self.url)
        keyed = headers if credential is None else {**headers, **credential.headers}
        try:
            return await self._send(method, path, query, body, keyed, is_page)
        except CommandError as error:
            is_unknown = error.code == Code.UNAUTHENTICATED.value
            if credential is None or not credential.is_automatic or not is_unknown:
                raise
        return await self._send(method, path, query, body, headers, is_page)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        is_page: bool,
    ) -> CliResponse:
        limits = aiohttp.ClientTimeout(total=self.timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=limits) as session,
                session.request(
                    method,
                    api_address(self.url, path),
                    params=query,
                    json=body,
                    headers=headers,
                    allow_redirects=False,
                    ssl=trust_for(self.url),
                ) as response,
            ):
                text = await response.text()
                return parse_response(response, text, self.url, is_page=is_page)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise CommandError(
                ExitCode.USAGE,
                "invalid_url",
                f"{self.url!r} is not an address such as {DEFAULT_URL}.",
            ) from None
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            raise unreachable(self.url, error) from None


def trust_for(url: str) -> ssl.SSLContext | bool:
    """Returns the TLS context of an https address; True, the default of aiohttp, for others."""
    return find_trust() if url.lower().startswith("https:") else True


def api_address(url: str, path: str) -> str:
    """Returns the address of a path of the API."""
    return f"{url.rstrip('/')}{PREFIX}{path}"


def quote_segment(text: str) -> str:
    """Quotes a symbol in any spelling for a path: BTC/USDT:USDT keeps its slash."""
    return quote(text, safe=":")


def unreachable(url: str, error: Exception) -> CommandError:
    """Returns the error for an address at which no HTTP service responds."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return CommandError(
            ExitCode.UNAVAILABLE,
            "certificate_not_trusted",
            f"The certificate of {url} is not trusted, or it names another host. Name the file of"
            " its issuer with --ca-file or MYSYMBOLS_CA_FILE.",
        )
    return CommandError(
        ExitCode.UNAVAILABLE,
        "service_unreachable",
        f"No answer from {url} ({type(error).__name__}). Is it running? "
        "Start it with `my-symbols serve` or name another with --url or MYSYMBOLS_URL.",
    )


def parse_response(
    response: "aiohttp.ClientResponse", text: str, url: str, *, is_page: bool = False
) -> CliResponse:
    """Returns a 2xx answer of this service. Raises CommandError for any other answer.

    Other services, exchanges among them, also answer JSON with a `code`; the mode header identifies
    this service.
    """
    status = response.status
    has_page = is_page and status == 200 and response.content_type == _PAGE
    document = {} if has_page or status == 204 else parse_document(text)
    if 200 <= status < 300 and document is not None and MODE.decode() in response.headers:
        return CliResponse(status, text or "{}", document, response.headers.get("Date"))
    code = None if document is None else document.get("code")
    if response.content_type == _PROBLEM and isinstance(code, str):
        problem = json.loads(text)
        detail = f"{problem.get('detail', '')} {_ADVICE.get(status, '')}".rstrip()
        raise CommandError(exit_code_of_status(status), code, detail, problem)
    raise not_our_service(status, url)


def not_our_service(status: int, url: str) -> CommandError:
    """Returns the error for a response that this service never sends."""
    return CommandError(
        ExitCode.INTERNAL,
        "not_our_service",
        f"{url} answered {status} with a response that this service never sends.",
    )


def parse_document(text: str | bytes) -> dict[str, Any] | None:
    """Parses a JSON object with exact numbers; None for any other text.

    Reading a field that the object lacks ends the command.
    """
    try:
        document = json.loads(text, parse_float=Decimal, object_hook=_Document)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


class _Document(dict[str, Any]):
    """JSON object; a missing field means that another version of the service answered."""

    def __missing__(self, key: str) -> Any:
        raise CommandError(
            ExitCode.INTERNAL,
            "unknown_answer",
            f"The answer has no `{key}`: service and command have different versions.",
        )
