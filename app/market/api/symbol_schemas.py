"""Schemas of symbols: list, contract, names, eligibility rules, validation, sync."""

from datetime import datetime
from typing import Self, TypedDict

from pydantic import Field

from app.foundation.data_status import DataSource, DataStatus
from app.foundation.errors import Code
from app.foundation.http.schemas import Freshness, MoneyString, Out, UtcTime
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
    base: str = Field(examples=["BTC"])
    quote: str = Field(examples=["USDT"])
    status: ContractStatus
    sector: str = Field(examples=["layer1"])
    market_cap_category: str = Field(examples=["large"])
    eligible: bool
    excluded_by: str | None = Field(description="First failed rule.", examples=[None])
    in_portfolio: bool

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

    valid_from: UtcTime
    valid_to: UtcTime | None
    specification: str = Field(description="Hash of lots, ticks and multiplier.")
    is_inverse: bool
    multiplier: MoneyString = Field(description="Base coins per lot; USD per lot if inverse.")
    lot_size: int = Field(description="Smallest order step, in lots.")
    tick_size: MoneyString
    max_order_lots: int | None
    max_leverage: int | None
    initial_margin: MoneyString | None = Field(description="Fraction of notional.")
    maintenance_margin: MoneyString | None
    maker_fee: MoneyString | None
    taker_fee: MoneyString | None
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
    standard: str = Field(examples=["BTCUSDT"])
    kucoin_futures: str = Field(examples=["XBTUSDTM"])
    kucoin_spot: str | None = Field(examples=["BTC-USDT"])
    ccxt: str | None = Field(examples=["BTC/USDT:USDT"])
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

    name: str = Field(examples=["turnover_24h"])
    title: str
    value: MoneyString | str | int | float | bool | None = Field(description="null: unknown.")
    limit: MoneyString | str | int | float | bool | None
    passed: bool

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
    first_failure: str | None
    rules: list[RuleOut]

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
    code: Code
    reason: str
    near_matches: list[str]


class ValidatedOut(Out):
    """Result for each spelling; the texts themselves are not repeated."""

    valid: list[ValidOut]
    invalid: list[InvalidOut]

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
                        near_matches=near.split(", ") if near else [],
                    )
                )
        return cls(valid=valid, invalid=invalid)


class RejectionOut(Out):
    contract: str = Field(description="`?` for an invalid name.")
    field: str
    reason: str


class SyncOut(Freshness):
    """Changes by the exchange's list; `quarantined` is the reason if it was not accepted."""

    synced_at: UtcTime
    listed: int
    added: list[str]
    specification_changed: list[str]
    updated: list[str]
    delisted: list[str]
    rejected: list[RejectionOut]
    quarantined: str | None
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
