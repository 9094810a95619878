"""Server secrets under which keys are hashed: from the settings, else from a file."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.foundation.errors import Code, OperatorActionError
from app.security.domain.keys import Pepper, pepper_fault
from app.security.services.secret_files import create_secret, read_secret

_BYTES: Final = 32
NEW_PEPPER: Final = (
    'export MYSYMBOLS_SECURITY__PEPPER="$(python3 -c '
    "'import secrets; print(secrets.token_hex(32))')\""
)


class UnsafeStartError(OperatorActionError):
    """The service must not start like this: no caller, or every caller, would be let in."""


class PepperMissingError(UnsafeStartError):
    """No pepper is set where none can be created, or it is not the one of the stored keys."""


def pepper_missing(why: str) -> PepperMissingError:
    """Error with the reason and the command that creates a pepper."""
    return PepperMissingError(
        Code.SECRETS_KEY_MISSING,
        f"{why}; set the same pepper for every process, a new one with\n  {NEW_PEPPER}",
    )


@dataclass(slots=True)
class PepperStore:
    """Peppers, the newest first; new keys are hashed with the first, known ones with any.

    Without a setting one pepper is created in `path` at the first key.
    """

    texts: tuple[str, ...] = field(default=(), repr=False)
    path: Path | None = None
    _peppers: tuple[Pepper, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self._peppers = tuple(map(Pepper.from_text, self.texts))

    def known(self) -> tuple[Pepper, ...]:
        """Peppers that exist; none is created. Raises PepperMissingError for a weak file."""
        if not self._peppers and self.path is not None:
            text = read_secret(self.path)
            fault = None if text is None else pepper_fault(text)
            if fault is not None:
                raise pepper_missing(f"The pepper file {self.path.name} is unusable ({fault})")
            self._peppers = () if text is None else (Pepper.from_text(text),)
        return self._peppers

    def newest(self) -> Pepper:
        """Pepper for new keys, created if need be. Raises PepperMissingError."""
        if not self.known():
            if self.path is None:
                raise pepper_missing("This database needs a pepper before its first key")
            text = create_secret(self.path, secrets.token_hex(_BYTES))
            self._peppers = (Pepper.from_text(text),)
        return self._peppers[0]
