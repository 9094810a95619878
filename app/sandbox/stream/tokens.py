"""The tokens of bullet-public: good for a day of exchange time, for any number of connections."""

import base64
import hashlib

from app.sandbox.stream.terms import Terms

KEPT = 10_000


class Tokens:
    """Tokens by issue; names are drawn from the seed, so that equal exchanges issue equal ones."""

    def __init__(self, seed: int, terms: Terms) -> None:
        self._seed = seed
        self._terms = terms
        self._issued: dict[str, int] = {}
        self._count = 0

    def issue(self, now_ms: int) -> str:
        """A new token in the form of KuCoin's: base64 with a tail behind a dot."""
        self._count += 1
        text = f"{self._seed}:{self._count}:{now_ms}".encode()
        body, tail = hashlib.sha512(text).digest(), hashlib.sha256(text).digest()[:16]
        token = (
            "2neA"
            + (base64.urlsafe_b64encode(body * 2) + b"." + base64.urlsafe_b64encode(tail)).decode()
        )
        self._issued[token] = now_ms
        if len(self._issued) > KEPT:
            del self._issued[next(iter(self._issued))]
        return token

    def objection(self, token: str, now_ms: int) -> str | None:
        """Why a token does not open a connection, in KuCoin's words; None when it does."""
        issued = self._issued.get(token)
        if issued is None:
            return "token is invalid"
        return "token is expired" if now_ms - issued >= self._terms.token_life_ms else None
