"""Age and source of market data, as answers show them."""

from datetime import datetime
from typing import TypedDict

from app.foundation.data_status import DataSource, DataStatus
from app.market.services.snapshot import MarketMoment


class Fresh(TypedDict):
    as_of: datetime | None
    data_source: DataSource
    data_status: DataStatus


def fresh(moment: MarketMoment, source: DataSource) -> Fresh:
    """How old the market is as a whole, and who said it."""
    return {"as_of": moment.as_of(), "data_source": source, "data_status": moment.status()}
