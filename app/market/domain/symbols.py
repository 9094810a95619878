"""Symbol index that resolves every accepted spelling, and arithmetic on ticks and lots."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from difflib import get_close_matches
from hashlib import sha256
from itertools import product
from types import MappingProxyType
from typing import Final

from app.foundation.errors import Code, RefusedError
from app.market.domain.models import Contract, ContractKind

MAX_SPELLING: Final = 64
NEAR_MATCHES: Final = 5
_SPECIFICATION_LENGTH: Final = 12
_SPELLING: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9/:_.-]*")
_NAME: Final = re.compile(r"[A-Z0-9]{1,24}")
_CODE: Final = re.compile(r"[A-Z0-9]{2,32}")
_MONTH_CODES: Final = "FGHJKMNQUVXZ"

# The only coin with two names; a table, because XBT inside another name means nothing.
_BASE_ALIASES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"BTC": ("BTC", "XBT")})

# KuCoin contracts on a scaled coin, an index or a metal: no spot market trades the same unit.
# A leading digit proves nothing (1INCH, 0G, 2Z and 4 are coins), so they are listed.
_SCALED_ELSEWHERE: Final = frozenset(
    {"10000CAT", "10000SATS", "10000LADYS", "10000STARL", "1000PEPE2"}
)
_NO_SPOT: Final = _SCALED_ELSEWHERE | {
    *("1000BONK", "1000RATS", "1000CHEEMS", "1000000MOG", "1MBABYDOGE"),
    *("BTCDOM", "DEFI", "ETHBTC"),
    *("XAG", "XAU", "XPD", "XPT"),
}
# Scales that Binance does not use for the same coin: the same text would mean another unit.
_NO_BINANCE: Final = _SCALED_ELSEWHERE | {"ETHBTC"}

# Letters that only look Latin; used only to suggest near matches.
_LOOK_ALIKES: Final = str.maketrans(
    "АВЕКМНОРСТУХавекмнорстухΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "ABEKMHOPCTYXABEKMHOPCTYXABEZHIKMNOPTYX",
)

_PERPETUAL_FORMS: Final = (
    "{base}{quote}",
    "{base}{quote}M",
    "{base}{quote}.P",
    "{base}-{quote}",
    "{base}_{quote}",
    "{base}/{quote}",
    "{base}-{quote}-SWAP",
    "{base}/{quote}:{settle}",
)
_INVERSE_FORMS: Final = ("{base}{quote}_PERP",)
_DATED_FORMS: Final = (
    "{base}{quote}-{date}",
    "{base}{quote}_{date}",
    "{base}-{quote}-{date}",
    "{base}/{quote}-{date}",
    "{base}/{quote}:{settle}-{date}",
    "{base}M{month}{year}",
)


@dataclass(frozen=True, slots=True)
class SymbolFormats:
    """Names of one contract at other venues; None where no name for the same thing exists.

    Binance and spot names follow the naming convention there; a listing is not implied.
    """

    standard: str
    kucoin_futures: str
    kucoin_spot: str | None
    ccxt: str | None
    binance: str | None


@dataclass(frozen=True, slots=True)
class SymbolEntry:
    """Registered contract: id, standard symbol, listing, and names at other venues."""

    symbol_id: str
    symbol: str
    contract: Contract
    formats: SymbolFormats


@dataclass(frozen=True, slots=True, repr=False)
class SymbolIndex:
    """Dictionary of every accepted spelling; no input is truncated or guessed."""

    entries: tuple[SymbolEntry, ...]  # by standard symbol
    _exact: Mapping[str, SymbolEntry]  # id, standard symbol, contract code
    _other: Mapping[str, tuple[SymbolEntry, ...]]

    @classmethod
    def from_contracts(cls, registered: Iterable[tuple[str, Contract]]) -> "SymbolIndex":
        """Builds the index of (registry id, contract) pairs.

        Raises RefusedError(symbol_ambiguous) naming both when two contracts have one name.
        """
        entries = sorted(
            (
                SymbolEntry(symbol_id, standard_symbol(contract), contract, formats_of(contract))
                for symbol_id, contract in registered
            ),
            key=lambda entry: entry.symbol,
        )
        exact: dict[str, SymbolEntry] = {}
        for entry in entries:
            for key in {entry.symbol_id.upper(), entry.symbol, entry.contract.code}:
                other = exact.setdefault(key, entry)
                if other is not entry:
                    raise RefusedError(
                        Code.SYMBOL_AMBIGUOUS,
                        f"Two contracts have one name: {other.contract.code} "
                        f"and {entry.contract.code} are both {key}.",
                    )
        spellings: dict[str, tuple[SymbolEntry, ...]] = {}
        for entry in entries:
            for key in spellings_of(entry.contract) - exact.keys():
                spellings[key] = (*spellings.get(key, ()), entry)
        return cls(tuple(entries), MappingProxyType(exact), MappingProxyType(spellings))

    def resolve(self, text: str) -> SymbolEntry:
        """Returns the one contract of a spelling, in any case, or of a registry id.

        Raises RefusedError: symbol_unknown or symbol_ambiguous, with near matches.
        """
        if not readable(text):
            raise self._refusal(Code.SYMBOL_UNKNOWN, text, ())
        key = text.upper()
        entry = self._exact.get(key)
        if entry is not None:
            return entry
        matches = self._other.get(key, ())
        if len(matches) == 1 and key not in _bases(matches[0].contract):
            return matches[0]
        code = Code.SYMBOL_AMBIGUOUS if len(matches) > 1 else Code.SYMBOL_UNKNOWN
        raise self._refusal(code, text, tuple(entry.symbol for entry in matches))

    def find(self, symbol: str) -> SymbolEntry | None:
        """Returns the entry of a standard symbol, contract code or id, else None."""
        return self._exact.get(symbol.upper())

    def id_of(self, symbol: str) -> str | None:
        """Returns the id of a standard symbol; None if it is not known."""
        entry = self._exact.get(symbol)
        return None if entry is None else entry.symbol_id

    def to_kucoin(self, text: str) -> str:
        """Returns KuCoin's contract code for any spelling; raises as `resolve`."""
        return self.resolve(text).contract.code

    def to_standard(self, text: str) -> str:
        """Returns the standard symbol for any spelling; raises as `resolve`."""
        return self.resolve(text).symbol

    def near(self, text: str) -> tuple[str, ...]:
        """Returns standard symbols similar to `text`, best first."""
        wanted = text[:MAX_SPELLING].translate(_LOOK_ALIKES).upper()
        symbols = {entry.symbol: entry.symbol for entry in self.entries}
        codes = {entry.contract.code: entry.symbol for entry in self.entries}
        names = codes | symbols
        close = get_close_matches(wanted, names, n=2 * NEAR_MATCHES, cutoff=0.6)
        return tuple(dict.fromkeys(names[name] for name in close))[:NEAR_MATCHES]

    def _refusal(self, code: Code, text: str, meant: tuple[str, ...]) -> RefusedError:
        near = meant or self.near(text)
        message = {
            Code.SYMBOL_AMBIGUOUS: "Several contracts have this spelling",
            Code.SYMBOL_UNKNOWN: "No contract has this spelling",
        }[code]
        hint = f"; perhaps one of: {', '.join(near)}." if near else "."
        facts = {"near_matches": near}
        return RefusedError(code, message + hint, facts=facts, subject=text)


# Perpetual contracts in the spellings of KuCoin, ccxt, Binance, OKX and charts.
_PERPETUAL: Final = re.compile(
    r"(?P<base>[A-Z0-9]{1,24}?)[-_/]?(?P<quote>USDT|USDC|USD)"
    r"(?:M|\.P|_PERP|-SWAP|:(?:[A-Z0-9]{1,24}))?"
)
_KUCOIN_BASES: Final[Mapping[str, str]] = MappingProxyType({"BTC": "XBT"})


def to_kucoin(text: str) -> str:
    """Returns KuCoin's code of a perpetual contract by its naming convention: BTCUSDT, XBTUSDTM.

    It knows no listing; `SymbolIndex.to_kucoin` does. Raises RefusedError(symbol_unknown).
    """
    base, quote = _perpetual_coins(text)
    return f"{_KUCOIN_BASES.get(base, base)}{quote}M"


def to_standard(text: str) -> str:
    """Returns the standard symbol of a perpetual contract by naming convention, as `to_kucoin`."""
    base, quote = _perpetual_coins(text)
    return f"{base}{quote}"


def _perpetual_coins(text: str) -> tuple[str, str]:
    match = _PERPETUAL.fullmatch(text.upper()) if readable(text) else None
    if match is None:
        raise RefusedError(Code.SYMBOL_UNKNOWN, "No perpetual contract has this spelling.")
    names = {alias: base for base, alias in _KUCOIN_BASES.items()}
    return names.get(match["base"], match["base"]), match["quote"]


def readable(text: str) -> bool:
    """True if `text` can be a spelling: short ASCII of letters, digits and / : _ . -"""
    return len(text) <= MAX_SPELLING and _SPELLING.fullmatch(text) is not None


def nameable(contract: Contract) -> bool:
    """True if the names of a listing are valid for storage and display."""
    coins = (contract.base, contract.quote, contract.settle)
    return _CODE.fullmatch(contract.code) is not None and all(map(_NAME.fullmatch, coins))


def standard_symbol(contract: Contract) -> str:
    """Returns BTCUSDT, BTCUSD for inverse, BTCUSD-260327 for dated, else the exchange's code."""
    if contract.kind is ContractKind.PERPETUAL:
        return f"{contract.base}{contract.quote}"
    date = _expiry(contract)
    if contract.kind is ContractKind.DATED and date is not None:
        return f"{contract.base}{contract.quote}-{date:%y%m%d}"
    return contract.code


def formats_of(contract: Contract) -> SymbolFormats:
    """Returns the names of the contract at other venues."""
    base, quote, settle = contract.base, contract.quote, contract.settle
    date = _expiry(contract) if contract.kind is ContractKind.DATED else None
    pair = f"{base}/{quote}:{settle}"
    spot = ccxt = binance = None
    if contract.kind is ContractKind.PERPETUAL:
        ccxt = pair
        if base not in _NO_BINANCE:
            binance = f"{base}{quote}_PERP" if contract.is_inverse else f"{base}{quote}"
        coin = contract.market_type in {None, "CRYPTO"} and base not in _NO_SPOT
        if coin and not contract.is_inverse:
            spot = f"{base}-{quote}"
    elif date is not None:
        ccxt = f"{pair}-{date:%y%m%d}"
        binance = f"{base}{quote}_{date:%y%m%d}"
    return SymbolFormats(standard_symbol(contract), contract.code, spot, ccxt, binance)


def spellings_of(contract: Contract) -> frozenset[str]:
    """Returns every accepted upper-case spelling of the contract besides its proper names."""
    date = _expiry(contract)
    words = {"quote": contract.quote, "date": "", "month": "", "year": ""}
    forms: tuple[str, ...] = ()
    if contract.kind is ContractKind.PERPETUAL:
        forms = _PERPETUAL_FORMS + (_INVERSE_FORMS if contract.is_inverse else ())
    elif contract.kind is ContractKind.DATED and date is not None:
        forms = _DATED_FORMS
        words |= {
            "date": f"{date:%y%m%d}",
            "month": _MONTH_CODES[date.month - 1],
            "year": f"{date:%y}",
        }
    bases = _bases(contract)
    settles = _BASE_ALIASES.get(contract.settle, (contract.settle,))
    full = {
        form.format(base=base, settle=settle, **words)
        for form, base, settle in product(forms, bases, settles)
    }
    return frozenset(full | set(bases))


def _bases(contract: Contract) -> tuple[str, ...]:
    # A coin alone names no contract; its spelling only serves near matches.
    return _BASE_ALIASES.get(contract.base, (contract.base,))


def _expiry(contract: Contract) -> datetime | None:
    if contract.expires_ms is None:
        return None
    return datetime.fromtimestamp(contract.expires_ms / 1000, UTC)


def specification_of(contract: Contract) -> str:
    """Returns a hash of the numbers that an order depends on."""
    numbers = (
        contract.is_inverse,
        contract.multiplier.normalize(),
        contract.lot_size,
        contract.tick_size.normalize(),
        contract.max_order_lots,
    )
    return sha256("/".join(map(str, numbers)).encode()).hexdigest()[:_SPECIFICATION_LENGTH]


def round_to_tick(price: Decimal, tick: Decimal, rounding: str = ROUND_HALF_EVEN) -> Decimal:
    """Rounds `price` to the grid of `tick`, exactly; raises ValueError unless tick is positive."""
    if tick <= 0:
        raise ValueError("tick must be positive")
    return (price / tick).to_integral_value(rounding) * tick


def base_quantity(contract: Contract, lots: int, price: Decimal) -> Decimal:
    """Returns the base coins in `lots`; an inverse lot is one USD, so the price decides."""
    amount = lots * contract.multiplier
    return amount / price if contract.is_inverse else amount


def notional(contract: Contract, lots: int, price: Decimal) -> Decimal:
    """Returns the value of `lots` in quote currency (USD for inverse)."""
    amount = lots * contract.multiplier
    return amount if contract.is_inverse else amount * price


def lots_for(contract: Contract, value: Decimal, price: Decimal) -> int:
    """Returns the most lots, a multiple of the lot step, whose notional is at most `value`."""
    step = notional(contract, contract.lot_size, price)
    return int((value / step).to_integral_value(ROUND_DOWN)) * contract.lot_size
