"""The settings of notifications, as they are read and written over HTTP."""

from pydantic import Field

from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Out


class LimitOut(Out):
    """Of one kind of notice."""

    per_hour: int = Field(description="Told by themselves in any hour; 0: only in one piece.")
    cooldown_s: int = Field(
        description="Seconds until the same thing is told again, and the rest in one piece."
    )


class NotificationSettingsOut(Out):
    """Limits of channels to people; webhooks get everything."""

    error: LimitOut
    trade: LimitOut
    status: LimitOut
    per_minute: int = Field(
        description="Over one channel, of all kinds; a third is kept free for what is critical."
    )


class LimitIn(Body):
    per_hour: int | None = None
    cooldown_s: int | None = None


class NotificationSettingsIn(Body):
    error: LimitIn | None = None
    trade: LimitIn | None = None
    status: LimitIn | None = None
    per_minute: int | None = None
