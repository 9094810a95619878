"""Page on which a browser starts a session before it is shown a page for people."""

import re
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

_INLINE: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def log_in_page(sessions_path: str) -> Callable[[], Response]:
    """Returns the maker of a 401 answer with the page; it posts to `sessions_path`.

    The policy of the answer admits the page's own script and style by hash, and requests to the
    service only.
    """
    environment = Environment(
        loader=PackageLoader("app.security.api"), undefined=StrictUndefined, autoescape=True
    )
    html = environment.get_template("log_in.html").render(sessions=sessions_path)
    hashes = {
        kind: b64encode(sha256(text.encode()).digest()).decode()
        for kind, text in _INLINE.findall(html)
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; "
        f"style-src 'sha256-{hashes['style']}'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )

    def respond() -> Response:
        return HTMLResponse(html, 401, {"Content-Security-Policy": policy})

    return respond
