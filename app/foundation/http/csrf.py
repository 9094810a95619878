"""Forged requests: a change by cookie must come from a page of this origin."""

from typing import Final

from starlette.types import Scope

from app.foundation.errors import Code
from app.foundation.http.errors import RequestError
from app.foundation.http.origin_guard import SAFE, place_of_origin

_OWN_SITES: Final = ([b"same-origin"], [b"none"])  # none: the person, not a page


def is_own_page(scope: Scope) -> bool | None:
    """True if the browser names a page of this origin, False for any other page.

    `Sec-Fetch-Site` decides, without it `Origin`. None if a request has neither, which no browser
    sends with a change.
    """
    sites = _values(scope, b"sec-fetch-site")
    return sites in _OWN_SITES if sites else _has_own_origin(scope)


def require_own_page(scope: Scope) -> None:
    """Passes safe requests, and others of a page of this origin.

    A change also needs the header X-Requested-With, which no form can send; a WebSocket needs an
    Origin. Raises RequestError (csrf_refused).
    """
    if scope["type"] == "websocket":
        is_allowed = _has_own_origin(scope) is True and is_own_page(scope) is True
    elif scope["method"] in SAFE:
        return
    else:
        is_allowed = is_own_page(scope) is True
    if not is_allowed:
        raise RequestError(Code.CSRF_REFUSED, "A page of another origin may not use this session.")
    if scope["type"] == "http" and not _values(scope, b"x-requested-with"):
        raise RequestError(
            Code.CSRF_REFUSED, "A change by cookie needs the header X-Requested-With."
        )


def _has_own_origin(scope: Scope) -> bool | None:
    origins, hosts = _values(scope, b"origin"), _values(scope, b"host")
    if not origins:
        return None
    places = [place_of_origin(origin.decode("latin-1")) for origin in origins]
    return places == [host.decode("latin-1") for host in hosts]


def _values(scope: Scope, wanted: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == wanted]
