"""The two forms of an answer: as it is, and packed by gzip for those who take it so."""

import asyncio
import gzip
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

Headers = tuple[tuple[bytes, bytes], ...]

_LEAST: Final = 4096  # bytes: below, packing costs more than it saves
_BUDGET: Final = 8 * 1024 * 1024  # bytes, of what was packed and what it was packed of
_LEVEL: Final = 6
_LONGEST: Final = 255  # bytes of a header that is remembered
_MARK: Final = "-gzip"
_ITEM: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z\-]+)(?:\s*;\s*q=([01](?:\.[0-9]{0,3})?))?")
_TAG: Final = b"etag"
_ABOUT_FORM: Final = frozenset({b"content-length", b"content-encoding", _TAG})
_VARY: Final = (b"vary", b"Accept-Encoding")


@dataclass(frozen=True, slots=True)
class Form:
    """An answer as it is sent."""

    status: int
    headers: Headers
    body: bytes


def packed_tag(tag: str) -> str:
    """The entity tag of the packed form: another representation has another one."""
    return f'{tag[:-1]}{_MARK}"'


def plain_tag(tag: str) -> str:
    """The tag of the same answer as it is; any other tag stays what it is."""
    return f'{tag.removesuffix(_MARK + chr(34))}"' if tag.endswith(_MARK + '"') else tag


def packed_from(accepted: bytes) -> int | None:
    """The size in bytes from which a caller is given the packed form; None: it never is.

    `accepted` is `Accept-Encoding`. Whoever refuses the answer as it is gets any size packed.
    """
    return (_usually if len(accepted) <= _LONGEST else _packed_from)(accepted)


def _packed_from(accepted: bytes) -> int | None:
    said: dict[str, float] = {}
    for part in accepted.decode("latin-1").lower().split(","):
        found = _ITEM.fullmatch(part.strip())
        if found is not None:  # what cannot be read is not what we could send
            said[found.group(1)] = float(found.group(2) or 1)
    other = said.get("*")
    packed = said.get("gzip", said.get("x-gzip", other or 0.0))
    plain = said.get("identity", other if "gzip" in said or "x-gzip" in said else None)
    if packed <= 0 or packed > 1 or (plain is not None and plain > packed):
        return None
    return 0 if plain == 0 else _LEAST


_usually = lru_cache(maxsize=256)(_packed_from)


@dataclass(slots=True)
class Packer:
    """Packs each body once, in a thread; what was not asked for longest gives way."""

    budget: int = _BUDGET
    _packed: dict[bytes, bytes] = field(default_factory=dict, init=False)
    _size: int = field(default=0, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def formed(self, made: Form, least: int | None, held: bytes) -> Form:
        """`made` in the form that is wanted: `least` as `packed_from` says, `held` the tags.

        A 304 names the form that the caller holds.
        """
        if made.status == 304:
            return replace(made, headers=(*_held_already(made.headers, held), _VARY))
        if least is None or len(made.body) < least:
            return replace(made, headers=(*made.headers, _VARY))
        body = await self._of(made.body)
        kept = tuple(one for one in made.headers if one[0].lower() not in _ABOUT_FORM)
        tags = tuple(
            (_TAG, packed_tag(value.decode("latin-1")).encode("latin-1"))
            for name, value in made.headers
            if name.lower() == _TAG
        )
        about = ((b"content-length", b"%d" % len(body)), (b"content-encoding", b"gzip"), *tags)
        return Form(made.status, (*kept, *about, _VARY), body)

    async def _of(self, plain: bytes) -> bytes:
        async with self._turn:  # whoever wants the same meanwhile finds it then
            packed = self._packed.pop(plain, None)
            if packed is None:
                packed = await asyncio.to_thread(gzip.compress, plain, _LEVEL, mtime=0)
                self._size += len(plain) + len(packed)
            self._packed[plain] = packed
            while self._size > self.budget and len(self._packed) > 1:
                oldest = next(iter(self._packed))
                self._size -= len(oldest) + len(self._packed.pop(oldest))
            return packed


def _held_already(headers: Headers, held: bytes) -> Headers:
    """Those of a 304, with the tag of the packed form where only that one is held."""

    def named(tag: bytes) -> bytes:
        packed = packed_tag(tag.decode("latin-1")).encode("latin-1")
        return packed if packed in held and tag not in held else tag

    return tuple((name, named(value) if name.lower() == _TAG else value) for name, value in headers)
