"""Parses `contracts/active` to contracts and statistics in standard names and units."""

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from app.adapters.kucoin.fields import (
    FieldReader,
    InvalidFieldError,
    code,
    decimal,
    flag,
    instant_ms,
    is_absent,
    lots,
    magnitude,
    not_negative,
    positive,
    positive_magnitude,
    some_lots,
    text,
)
from app.adapters.kucoin.parse import HOUR_MS, items, malformed_answer, refuse_repeated, rejection
from app.market.domain.models import (
    Contract,
    ContractKind,
    ContractListing,
    ContractStats,
    ContractStatus,
    Rejection,
)

# KuCoin's only non-standard coin name.
_STANDARD: Final[Mapping[str, str]] = MappingProxyType({"XBT": "BTC"})
_KIND: Final[Mapping[str, ContractKind]] = MappingProxyType(
    {"FFWCSX": ContractKind.PERPETUAL, "FFICSX": ContractKind.DATED}
)
# States of the exchange only; VANISHED is internal and must not come from an answer.
_STATUS: Final[Mapping[str, ContractStatus]] = MappingProxyType(
    {
        status.value: status
        for status in ContractStatus
        if status not in {ContractStatus.VANISHED, ContractStatus.UNKNOWN}
    }
)


def contracts(data: object, received_ms: int) -> ContractListing:
    """Valid contracts of the answer; a repeated code is rejected.

    A rejection whose key is also among the contracts concerns that one optional field, which is
    then None. `received_ms` anchors the funding countdown of older answers.
    """
    listed: dict[str, Contract] = {}
    stats: list[ContractStats] = []
    rejections: list[Rejection] = []
    for position, item in enumerate(items(data)):
        try:
            record = FieldReader.from_value(item, "data")
            contract = _contract(record)
            refuse_repeated(contract.code, listed)
            listed[contract.code] = contract
            stats.append(_stats(record, contract, received_ms))
            rejections += [rejection(item, position, fault) for fault in record.faults]
        except InvalidFieldError as error:
            rejections.append(rejection(item, position, error))
    return ContractListing(tuple(listed.values()), tuple(stats), tuple(rejections))


def contract(data: object, requested: str, received_ms: int) -> ContractListing:
    """The requested contract as a listing; an answer about another one is refused."""
    listing = contracts([data], received_ms)
    if not listing.contracts:
        fault = listing.rejections[0]
        raise malformed_answer(fault.field, fault.reason)
    if listing.contracts[0].code != requested:
        raise malformed_answer("symbol", "an answer about another contract")
    return listing


def standard_currency(currency: str) -> str:
    """Standard name of a KuCoin currency."""
    return _STANDARD.get(currency, currency)


def _contract(record: FieldReader) -> Contract:
    return Contract(
        code=record.need("symbol", code),
        base=standard_currency(record.need("baseCurrency", code)),
        quote=standard_currency(record.need("quoteCurrency", code)),
        settle=standard_currency(record.need("settleCurrency", code)),
        kind=_KIND.get(record.need("type", text), ContractKind.OTHER),
        status=_STATUS.get(record.need("status", text), ContractStatus.UNKNOWN),
        is_inverse=record.need("isInverse", flag),
        multiplier=record.need("multiplier", positive_magnitude),
        lot_size=record.need("lotSize", some_lots),
        tick_size=record.need("tickSize", positive),
        max_order_lots=record.maybe("maxOrderQty", some_lots),
        max_leverage=record.maybe("maxLeverage", some_lots),
        initial_margin=record.maybe("initialMargin", not_negative),
        maintenance_margin=record.maybe("maintainMargin", not_negative),
        maker_fee=record.maybe("makerFeeRate", decimal),
        taker_fee=record.maybe("takerFeeRate", decimal),
        funding_interval_ms=_funding_interval(record),
        listed_ms=record.maybe("firstOpenDate", instant_ms),
        expires_ms=_expiry(record),
        market_stage=record.maybe("marketStage", text),
        market_type=record.maybe("marketType", text),
    )


def _funding_interval(record: FieldReader) -> int | None:
    """Current interval; `fundingRateGranularity` may already hold the next one."""
    for name in ("currentFundingRateGranularity", "fundingRateGranularity"):
        if not is_absent(record.values.get(name)):
            return record.maybe(name, some_lots)
    return None


def _expiry(record: FieldReader) -> int | None:
    """Earlier of expiry and settlement; on a perpetual it announces the delisting."""
    known = [
        moment
        for name in ("expireDate", "settleDate")
        if (moment := record.maybe(name, instant_ms)) is not None
    ]
    return min(known, default=None)


def _stats(record: FieldReader, contract: Contract, received_ms: int) -> ContractStats:
    volume = record.maybe("volumeOf24h", not_negative)
    return ContractStats(
        code=contract.code,
        mark_price=record.maybe("markPrice", positive),
        index_price=record.maybe("indexPrice", positive),
        last_price=record.maybe("lastTradePrice", positive),
        funding_rate=record.maybe("fundingFeeRate", decimal),
        predicted_funding_rate=record.maybe("predictedFundingFeeRate", decimal),
        next_funding_ms=_next_funding(record, received_ms),
        open_interest_lots=record.maybe("openInterest", lots),
        turnover_24h=_turnover(record, contract, volume),
        volume_24h=volume,
        high_24h=record.maybe("highPrice", positive),
        low_24h=record.maybe("lowPrice", positive),
        change_24h=record.maybe("priceChgPct", decimal),
    )


def _turnover(record: FieldReader, contract: Contract, volume: Decimal | None) -> Decimal | None:
    """Turnover in quote currency.

    Inverse contracts report base coins, signed; there the lots are the USD.
    """
    if contract.is_inverse:
        return None if volume is None else volume * contract.multiplier
    return record.maybe("turnoverOf24h", magnitude)


def _next_funding(record: FieldReader, received_ms: int) -> int | None:
    """Absolute time if given, else now plus the countdown, rounded to the full hour.

    `nextFundingRateTime` counts down milliseconds and is cached per contract (seconds apart for
    one settlement); settlements are on full hours, so rounding recovers the moment.
    """
    if not is_absent(record.values.get("nextFundingRateDateTime")):
        return record.maybe("nextFundingRateDateTime", instant_ms)
    left = record.maybe("nextFundingRateTime", lots)
    if left is None:
        return None
    return (received_ms + left + HOUR_MS // 2) // HOUR_MS * HOUR_MS
