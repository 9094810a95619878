"""A price from another exchange, shown as what it is."""

from typing import Self

from pydantic import Field

from app.foundation.http.schemas import MoneyString, Out, UtcTime
from app.market.services.quality import Elsewhere


class ReferenceOut(Out):
    """Of another exchange: it confirms KuCoin's prices and is never scored or traded."""

    source: str = Field(description="Exchange and currency.", examples=["binance USDT"])
    price: MoneyString
    at: UtcTime = Field(description="When it was known there.")
    is_young: bool = Field(description="Young enough to confirm anything.")

    @classmethod
    def of(cls, found: Elsewhere | None) -> Self | None:
        if found is None:
            return None
        return cls(source=found.source, price=found.price, at=found.at, is_young=found.is_young)
