"""The period of a question: from a time on, before another one, both left out at will."""

from datetime import datetime
from typing import Annotated

from fastapi import Query

from app.foundation.http.errors import invalid
from app.foundation.http.schemas import QueryTime

From = Annotated[QueryTime | None, Query(alias="from", description="At or after this time.")]
To = Annotated[QueryTime | None, Query(description="Before this time.")]


def require_order(since: datetime | None, to: datetime | None) -> None:
    """Raises BorderError 422 for a period that ends before it begins."""
    if since is not None and to is not None and since >= to:
        raise invalid("query", "to", "reversed", "The period ends before it begins.")


def named_period(since: datetime | None, to: datetime | None) -> dict[str, str | None]:
    """Both ends by the names and in the form of the query; None where one was left out."""
    return {
        "from": None if since is None else since.isoformat(),
        "to": None if to is None else to.isoformat(),
    }
