"""Schemas of symbols: list, contract, names, eligibility rules, validation, sync."""

from datetime import datetime
from typing import Self, TypedDict

from pydantic import Field

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.foundation.http.schemas import (
    Freshness,
    Lots,
    Out,
    Price,
    RawString,
    ShareString,
    UtcTime,
)
from app.market.domain.eligibility import Measured, RuleCheck
from app.market.domain.models import ContractStatus
from app.market.domain.symbols import SymbolFormats, specification_of
from app.market.services.exchange_clock import instant
from app.market.services.snapshot import MarketMoment
from app.market.services.symbol_queries import SpecificationVersion, SpellingResult, SymbolRow
from app.market.services.symbol_registry import SyncSummary


class Fresh(TypedDict):
    as_of: datetime | None
    data_source: DataSource
    data_status: DataStatus


def fresh(moment: MarketMoment, source: DataSource) -> Fresh:
    """Returns age and source of the market as a whole."""
    return {"as_of": moment.as_of(), "data_source": source, "data_status": moment.status()}


class SymbolOut(Out):
    """Line of the list."""

    symbol_id: str = Field(examples=["2825b398-414e-46a6-920b-2d8d81fa7f5d"])
    symbol: str = Field(examples=["BTCUSDT"])
    contract: str = Field(examples=["XBTUSDTM"])
    base: str = Field(examples=["BTC"], description="Base currency.")
    quote: str = Field(examples=["USDT"], description="Quote currency.")
    status: ContractStatus = Field(description="Status of the contract at KuCoin.")
    sector: str = Field(examples=["layer1"])
    market_cap_category: str = Field(
        examples=["large"], description="Category by market capitalisation."
    )
    eligible: bool
    excluded_by: str | None = Field(description="First failed rule.", examples=[None])
    in_portfolio: bool = Field(description="True for a member.")

    @classmethod
    def of(cls, row: SymbolRow) -> Self:
        contract = row.entry.contract
        return cls(
            symbol_id=row.entry.symbol_id,
            symbol=row.entry.symbol,
            contract=contract.code,
            base=contract.base,
            quote=contract.quote,
            status=contract.status,
            sector=row.sector,
            market_cap_category=row.cap_category,
            eligible=row.excluded_by is None,
            excluded_by=row.excluded_by,
            in_portfolio=row.in_portfolio,
        )


class SymbolPage(Freshness):
    """Page by symbol; `next_cursor` is null on the last one."""

    items: list[SymbolOut]
    next_cursor: str | None = Field(description="Pass as `cursor` to get the next page.")


class SpecificationOut(Out):
    """Specification of a contract and its validity; the current one has no end."""

    valid_from: UtcTime = Field(description="UTC time from which it is valid.")
    valid_to: UtcTime | None = Field(
        description="UTC time at which it ended; null for the current one."
    )
    specification: str = Field(description="Hash of lots, ticks and multiplier.")
    is_inverse: bool = Field(description="True if the contract settles in its base currency.")
    multiplier: RawString = Field(description="Base coins per lot; USD per lot if inverse.")
    lot_size: Lots = Field(description="Smallest order step, in lots.")
    tick_size: Price = Field(description="Smallest step of a price.")
    max_order_lots: Lots | None = Field(description="Largest order; null for none.")
    max_leverage: int | None = Field(description="Largest leverage; null if unknown.")
    initial_margin: ShareString | None = Field(description="Fraction of notional.")
    maintenance_margin: ShareString | None = Field(
        description="Maintenance margin, a fraction of notional."
    )
    maker_fee: ShareString | None = Field(description="Maker fee, a fraction of turnover.")
    taker_fee: ShareString | None = Field(description="Taker fee, a fraction of turnover.")
    funding_interval_ms: int | None

    @classmethod
    def of(cls, version: SpecificationVersion) -> Self:
        contract = version.contract
        return cls(
            valid_from=version.valid_from,
            valid_to=version.valid_to,
            specification=specification_of(contract),
            is_inverse=contract.is_inverse,
            multiplier=contract.multiplier,
            lot_size=contract.lot_size,
            tick_size=contract.tick_size,
            max_order_lots=contract.max_order_lots,
            max_leverage=contract.max_leverage,
            initial_margin=contract.initial_margin,
            maintenance_margin=contract.maintenance_margin,
            maker_fee=contract.maker_fee,
            taker_fee=contract.taker_fee,
            funding_interval_ms=contract.funding_interval_ms,
        )


class FormatsOut(Out):
    """Names of the contract at other venues; null where no name for the same thing exists."""

    symbol_id: str
    standard: str = Field(examples=["BTCUSDT"], description="Standard spelling.")
    kucoin_futures: str = Field(
        examples=["XBTUSDTM"], description="Name of the contract at KuCoin Futures."
    )
    kucoin_spot: str | None = Field(
        examples=["BTC-USDT"], description="Name of the pair at KuCoin Spot; null without one."
    )
    ccxt: str | None = Field(
        examples=["BTC/USDT:USDT"], description="Unified symbol of CCXT; null without one."
    )
    binance: str | None = Field(
        description="By its naming convention; a listing is not implied.", examples=["BTCUSDT"]
    )

    @classmethod
    def of(cls, symbol_id: str, formats: SymbolFormats) -> Self:
        return cls(
            symbol_id=symbol_id,
            standard=formats.standard,
            kucoin_futures=formats.kucoin_futures,
            kucoin_spot=formats.kucoin_spot,
            ccxt=formats.ccxt,
            binance=formats.binance,
        )


class RuleOut(Out):
    """Rule of the funnel applied to one symbol; amounts are decimal strings."""

    name: str = Field(examples=["turnover_24h"], description="Stable name of the rule.")
    title: str = Field(description="Rule, in words.")
    value: RawString | str | int | float | bool | None = Field(description="null: unknown.")
    limit: RawString | str | int | float | bool | None = Field(
        description="Limit of the rule, in the unit of its title; null without one."
    )
    passed: bool = Field(description="True if the symbol passes the rule.")

    @classmethod
    def of(cls, check: RuleCheck) -> Self:
        return cls(
            name=check.name,
            title=check.title,
            value=_shown(check.value),
            limit=_shown(check.limit),
            passed=check.passed,
        )


class EligibilityOut(Freshness):
    """Every rule in order; the symbol is eligible when all pass."""

    symbol: str
    eligible: bool
    first_failure: str | None = Field(
        description="Name of the first rule that failed; null without one."
    )
    rules: list[RuleOut] = Field(description="Rules in order of application.")

    @classmethod
    def of(
        cls, moment: MarketMoment, source: DataSource, symbol: str, checks: tuple[RuleCheck, ...]
    ) -> Self:
        failed = next((check.name for check in checks if not check.passed), None)
        return cls(
            symbol=symbol,
            eligible=failed is None,
            first_failure=failed,
            rules=[RuleOut.of(check) for check in checks],
            **fresh(moment, source),
        )


class ValidOut(Out):
    position: int = Field(description="Position in the request's list, from 0.")
    symbol_id: str
    symbol: str = Field(examples=["BTCUSDT"])
    contract: str = Field(examples=["XBTUSDTM"])


class InvalidOut(Out):
    position: int = Field(description="Position in the request's list, from 0.")
    code: Code = Field(description="Stable code of the refusal.")
    reason: str
    near_matches: list[str] = Field(
        description="Similar symbols of the registry, nearest first; empty without one."
    )


class ValidatedOut(Out):
    """Result for each spelling; the texts themselves are not repeated."""

    valid: list[ValidOut] = Field(description="Resolved spellings, in the order of the request.")
    invalid: list[InvalidOut] = Field(description="Refused spellings, in the order of the request.")

    @classmethod
    def of(cls, results: tuple[SpellingResult, ...]) -> Self:
        valid: list[ValidOut] = []
        invalid: list[InvalidOut] = []
        for position, one in enumerate(results):
            if one.entry is not None:
                valid.append(
                    ValidOut(
                        position=position,
                        symbol_id=one.entry.symbol_id,
                        symbol=one.entry.symbol,
                        contract=one.entry.contract.code,
                    )
                )
            if one.refusal is not None:
                near = one.refusal.facts["near_matches"]
                invalid.append(
                    InvalidOut(
                        position=position,
                        code=one.refusal.code,
                        reason=one.refusal.detail,
                        near_matches=list(near),
                    )
                )
        return cls(valid=valid, invalid=invalid)


class RejectionOut(Out):
    contract: str = Field(description="`?` for an invalid name.")
    field: str = Field(description="Field of the exchange's entry that could not be read.")
    reason: str


class SyncOut(Freshness):
    """Changes by the exchange's list; `quarantined` is the reason if it was not accepted."""

    synced_at: UtcTime = Field(description="UTC time of the comparison.")
    listed: int = Field(description="Number of contracts in the exchange's list.")
    added: list[str] = Field(description="Symbols that are new.")
    specification_changed: list[str] = Field(description="Symbols with a new specification.")
    updated: list[str] = Field(description="Symbols with other changed facts.")
    delisted: list[str] = Field(description="Symbols that the exchange lists no longer.")
    rejected: list[RejectionOut] = Field(description="Entries of the list that could not be read.")
    quarantined: str | None = Field(
        description="Reason for which the list was not accepted; null if it was."
    )
    confirmations: int = Field(description="Times the implausible list arrived; 3 confirm it.")

    @classmethod
    def of(cls, moment: MarketMoment, source: DataSource, summary: SyncSummary) -> Self:
        return cls(
            synced_at=summary.at,
            listed=summary.listed,
            added=list(summary.added),
            specification_changed=list(summary.specification_changed),
            updated=list(summary.updated),
            delisted=list(summary.delisted),
            rejected=[
                RejectionOut(contract=one.key, field=one.field, reason=one.reason)
                for one in summary.rejections
            ],
            quarantined=summary.quarantined,
            confirmations=summary.confirmations,
            **fresh(moment, source),
        )


def instant_of(stamp_ms: int | None) -> datetime | None:
    """Converts epoch milliseconds to UTC; None stays None."""
    return None if stamp_ms is None else instant(stamp_ms)


def _shown(value: Measured) -> Measured:
    return round(value, 3) if isinstance(value, float) else value
