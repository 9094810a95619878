"""Cookie of a session: its name, how it is read, set and removed."""

import re
from collections.abc import Sequence
from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from app.foundation.http.permissions import PLAIN_SESSION_COOKIE, SESSION_COOKIE

_TOKEN: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ENCRYPTED: Final = frozenset({"https", "wss"})


def is_encrypted(scope: Scope) -> bool:
    """True if the caller has sent the request over TLS."""
    return scope["scheme"] in _ENCRYPTED


def cookie_name(scope: Scope) -> str:
    """Name of the cookie: with the prefix `__Host-` under TLS, which browsers demand Secure for."""
    return SESSION_COOKIE if is_encrypted(scope) else PLAIN_SESSION_COOKIE


def read_session_cookie(scope: Scope, cookies: Sequence[bytes]) -> str | None:
    """Text of the session; None without the cookie, for a malformed one, and for two of them."""
    name = cookie_name(scope)
    found = [
        text.strip()
        for header in cookies
        for key, _, text in (part.partition("=") for part in header.decode("latin-1").split(";"))
        if key.strip() == name
    ]
    return found[0] if len(found) == 1 and _TOKEN.fullmatch(found[0]) else None


def set_session_cookie(response: Response, scope: Scope, token: str) -> None:
    """Gives the browser a cookie that lives as long as the browser runs, at most."""
    response.set_cookie(
        cookie_name(scope),
        token,
        path="/",
        secure=is_encrypted(scope),
        httponly=True,
        samesite="strict",
    )


def remove_session_cookie(response: Response, scope: Scope) -> None:
    """Lets the browser forget the cookie and everything that it stores of this origin."""
    response.delete_cookie(
        cookie_name(scope), path="/", secure=is_encrypted(scope), httponly=True, samesite="strict"
    )
    response.headers["Clear-Site-Data"] = '"cache", "cookies", "storage"'
