"""Variables of security: secrets, sessions, rate limits and receivers of notifications."""

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from app.foundation.http.stream_slots import STREAMS_PER_PRINCIPAL
from app.security.domain.keys import MAX_PEPPERS, pepper_fault, split_peppers
from app.security.domain.people import SessionPolicy
from app.security.domain.rate_limits import RateLimits
from app.security.domain.sealing import sealing_key_fault, split_sealing_keys
from app.security.services.peppers import NEW_PEPPER
from app.security.services.sealing import NEW_KEY
from app.settings.declarations import SettingsPart

_MAX_RATE = 1_000_000


class SecurityVariables(SettingsPart):
    """API keys, sessions and stored secrets."""

    pepper: SecretStr | None = Field(
        None,
        description="Secret under which API keys are hashed, the same in every process; two during"
        " a rotation, the newest first, separated by a comma. Without one a file beside an SQLite"
        " database.",
    )
    pepper_file: Path | None = Field(None, description="File that holds the pepper instead.")
    directory: Path | None = Field(
        None,
        description="Directory of the local key file; without it that of an SQLite database, and"
        " none on PostgreSQL.",
    )
    sealing_keys: SecretStr | None = Field(
        None,
        description="Keys from `my-symbols secrets new-key` that seal stored secrets, the newest"
        " first, separated by commas; the same in every process. Without one a file beside an"
        " SQLite database, and none on PostgreSQL.",
    )
    sealing_keys_file: Path | None = Field(
        None, description="File that holds the sealing keys instead; a change needs no restart."
    )

    @model_validator(mode="after")
    def _has_good_sealing_keys(self) -> Self:
        if self.sealing_keys is not None and self.sealing_keys_file is not None:
            raise ValueError("set either sealing_keys or a sealing_keys_file")
        try:
            keys = self.sealing_key_list
        except (OSError, ValueError):
            raise ValueError("the sealing_keys_file cannot be read as text") from None
        if self.sealing_keys_file is not None and not keys:
            raise ValueError("the sealing_keys_file holds no key")
        for key in keys:
            if (fault := sealing_key_fault(key)) is not None:
                raise ValueError(f"sealing_keys: {fault}; create one with: {NEW_KEY}")
        return self

    @property
    def sealing_key_list(self) -> tuple[str, ...]:
        """Sealing keys, the newest first. Raises OSError and ValueError for an unreadable file."""
        if self.sealing_keys_file is not None:
            return split_sealing_keys(self.sealing_keys_file.read_text(encoding="utf-8"))
        keys = self.sealing_keys
        return () if keys is None else split_sealing_keys(keys.get_secret_value())

    session_idle_s: int = Field(
        1_800, ge=60, le=86_400, description="An unused session ends after that time."
    )
    session_lifetime_s: int = Field(
        43_200, ge=300, le=2_592_000, description="Each session ends after that time."
    )
    allow_plain_sessions: bool = Field(
        False, description="Allow log-ins from other machines without TLS."
    )
    four_eyes: bool = Field(
        False, description="Refuse that a caller approves the proposal of its own signal."
    )

    @property
    def session_policy(self) -> SessionPolicy:
        return SessionPolicy(
            timedelta(seconds=self.session_idle_s),
            timedelta(seconds=self.session_lifetime_s),
            self.allow_plain_sessions,
        )

    @model_validator(mode="after")
    def _has_good_peppers(self) -> Self:
        if self.pepper is not None and self.pepper_file is not None:
            raise ValueError("set either a pepper or a pepper_file")
        try:
            peppers = self.pepper_list
        except (OSError, ValueError):
            raise ValueError("the pepper_file cannot be read as text") from None
        is_empty = self.pepper_file is not None and not peppers
        if len(peppers) > MAX_PEPPERS or is_empty:
            raise ValueError(f"one pepper is needed, or {MAX_PEPPERS} during a rotation")
        for pepper in peppers:
            if (fault := pepper_fault(pepper)) is not None:
                raise ValueError(f"{fault}; create one with: {NEW_PEPPER}")
        return self

    @property
    def pepper_list(self) -> tuple[str, ...]:
        """Peppers, the newest first. Raises OSError and ValueError for an unreadable file."""
        if self.pepper_file is not None:
            return split_peppers(self.pepper_file.read_text(encoding="utf-8"))
        return () if self.pepper is None else split_peppers(self.pepper.get_secret_value())


class LimitVariables(SettingsPart):
    """Rate limits of requests; beyond one of them the answer is 429."""

    requests_per_s: int = Field(
        50, ge=1, le=_MAX_RATE, description="Requests of one principal, such as an API key."
    )
    changes_per_s: int = Field(
        20,
        ge=1,
        le=_MAX_RATE,
        description="Requests of one trader or a higher role with another method than GET.",
    )
    signals_per_s: int = Field(
        60, ge=1, le=_MAX_RATE, description="Signals of one principal with the scope `signals`."
    )
    heavy_per_min: int = Field(
        6,
        ge=1,
        le=_MAX_RATE,
        description="Scoring runs, replays of them and reports of one principal, each minute.",
    )
    previews_per_min: int = Field(
        120,
        ge=1,
        le=_MAX_RATE,
        description="Previews of changed settings of one principal, each minute.",
    )
    address_per_s: int = Field(
        100, ge=1, le=_MAX_RATE, description="Requests of one IPv4 address or /64 network of IPv6."
    )
    open_mode_per_s: int = Field(
        500, ge=1, le=_MAX_RATE, description="Requests of all callers together in open mode."
    )

    streams_per_principal: int = Field(
        STREAMS_PER_PRINCIPAL,
        ge=1,
        le=_MAX_RATE,
        description="Open event streams of one principal: WebSocket and server-sent events.",
    )
    streams: int = Field(
        1_000, ge=1, le=_MAX_RATE, description="Open event streams of all callers together."
    )

    @property
    def rate_limits(self) -> RateLimits:
        return RateLimits(
            requests_per_s=self.requests_per_s,
            changes_per_s=self.changes_per_s,
            signals_per_s=self.signals_per_s,
            heavy_per_min=self.heavy_per_min,
            previews_per_min=self.previews_per_min,
            address_per_s=self.address_per_s,
            open_mode_per_s=self.open_mode_per_s,
        )


class NotificationVariables(SettingsPart):
    """Delivery of notifications."""

    allow_private_addresses: bool = Field(
        False, description="Allow receivers at private addresses and over plain HTTP."
    )
