"""The listings of the local exchange: names, specifications and how liquid each is."""

import math
from calendar import monthcalendar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np

from app.sandbox.tickers import tickers

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

Kind = Literal["linear", "inverse", "dated"]
Nature = Literal["coin", "stable", "metal", "ratio", "twin"]


@dataclass(frozen=True, slots=True)
class Listing:
    """One contract of the exchange as its specification has it.

    `tick_digits` decimals of the price step, `multiplier` base coins per lot (-1 inverse),
    `turnover` typical USD a day, `driver` the symbol whose price a twin follows,
    `first_open_ms` and `expire_ms` epoch milliseconds, `announced_ms` from when the expiry is
    told (None: always), `funding_hours` None on dated futures.
    """

    symbol: str
    base: str
    quote: str
    settle: str
    kind: Kind
    nature: Nature
    price: float
    tick_digits: int
    multiplier: float
    turnover: float
    rank: int
    first_open_ms: int
    funding_hours: int | None
    next_funding_hours: int | None = None
    expire_ms: int | None = None
    announced_ms: int | None = None
    status: str = "Open"
    stage: str = "NORMAL"
    driver: str | None = None

    @property
    def inverse(self) -> bool:
        """Whether it is margined and settled in the base coin."""
        return self.kind != "linear"

    @property
    def lot(self) -> float:
        """Absolute size of one lot: base coins, or USD when inverse."""
        return abs(self.multiplier)


# Specifications that traders know by heart: (multiplier, decimals of the tick).
KNOWN = {
    "XBT": (0.001, 1),
    "ETH": (0.01, 2),
    "SOL": (0.1, 3),
    "XRP": (10.0, 4),
    "DOGE": (100.0, 5),
    "LTC": (0.1, 2),
    "ADA": (10.0, 5),
    "TRX": (100.0, 5),
    "ZRX": (10.0, 4),
    "WIF": (10.0, 4),
    "BNB": (0.01, 2),
}
NATURES: dict[str, Nature] = {
    **dict.fromkeys(("USDC", "USDG"), "stable"),
    **dict.fromkeys(("PAXG", "XAUT", "XAG", "XPT", "XPD"), "metal"),
    "ETHBTC": "ratio",
}
RANKS = {"USDC": 150, "USDG": 520, "ETHBTC": 300, "4": 210, "XPT": 330, "XPD": 340}
PAUSED = frozenset({"WAVES"})
PRE_MARKET = frozenset({"MEGA", "OPN", "ZAMA"})
DELISTED_IN_DAYS = {"SXP": 3, "MLN": 9, "PHB": 21}
AGES_DAYS = {
    "MON": 62,
    "MET": 74,
    "ALLO": 41,
    "CC": 55,
    "MMT": 33,
    "AZTEC": 25,
    "SENT": 12,
    "ESP": 4,
    "ROBO": 2,
    "BIRB": 80,
    "SKR": 18,
    "FIGHT": 50,
    **dict.fromkeys(PRE_MARKET, 8),
}
USDC_MARGINED = ("XBT", "ETH", "SOL", "XRP", "DOGE", "SUI", "PEPE")
COIN_MARGINED = ("XBT", "ETH", "SOL", "XRP", "DOGE", "DOT", "SUI")
# What a short list keeps so that every oddity can be met: twins first, then odd linear ones.
SHOWCASE = (
    *("XBTUSDM", "XBTUSDCM", "ETHUSDM", "1000BONKUSDTM", "1MBABYDOGEUSDTM", "4USDTM"),
    *("ETHBTCUSDTM", "USDCUSDTM", "WAVESUSDTM", "SXPUSDTM", "MEGAUSDTM", "MONUSDTM"),
    *("ROBOUSDTM", "PAXGUSDTM", "AUSDTM", "USUSDTM"),
)


def usual_turnover(rank: int) -> float:
    """Typical USD a day of the contract of this rank: Zipf to rank 265, then a thin tail."""
    if rank <= 265:
        return 3.0e9 * math.pow(rank, -1.138)
    return 5.24e6 * math.exp(-(rank - 265) * math.log(5.24e6 / 5.0e4) / 276.0)


def tick_digits_for(price: float) -> int:
    """Decimals that leave the price at least five significant digits."""
    return max(0, min(12, 4 - math.floor(math.log10(price))))


def multiplier_for(price: float) -> float:
    """The power of ten of base coins that makes a lot worth a few dollars."""
    return float(f"1e{round(math.log10(3.0 / price))}")


def quarterly(now_ms: int) -> tuple[str, int]:
    """Symbol and expiry (ms) of the next quarterly coin-margined future: last Friday, 08:00."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    for step in range(24):
        month = (now.month - 1 + step) % 12 + 1
        year = now.year + (now.month - 1 + step) // 12
        code = {3: "H", 6: "M", 9: "U", 12: "Z"}.get(month)
        if code is None:
            continue
        friday = max(week[4] for week in monthcalendar(year, month))
        expiry = datetime(year, month, friday, 8, tzinfo=UTC)
        if expiry - now > timedelta(days=14):
            return f"XBTM{code}{year % 100:02d}", int(expiry.timestamp() * 1000)
    raise ValueError("no quarterly expiry within two years")


def _linear(now_ms: int) -> list[Listing]:
    draw = np.random.default_rng(20_200_330)
    day0 = now_ms - now_ms % DAY_MS
    listings = []
    for position, (base, price) in enumerate(tickers(), start=1):
        drawn = float(np.exp(draw.normal(-2.2, 1.5)))
        old = int(draw.integers(500, 2200))
        typical = price if price is not None else float(f"{drawn:.3g}")
        known = KNOWN.get(base)
        rank = RANKS.get(base, position)
        hours = 8 if rank <= 15 else (8, 4, 8, 4, 8, 8, 4, 1)[position % 8]
        listings.append(
            Listing(
                symbol=f"{base}USDTM",
                base=base,
                quote="USDT",
                settle="USDT",
                kind="linear",
                nature=NATURES.get(base, "coin"),
                price=typical,
                tick_digits=known[1] if known else tick_digits_for(typical),
                multiplier=known[0] if known else multiplier_for(typical),
                turnover=usual_turnover(rank),
                rank=rank,
                first_open_ms=day0 - AGES_DAYS.get(base, old) * DAY_MS,
                funding_hours=hours,
                next_funding_hours=4 if base == "ENS" else None,
                expire_ms=(
                    day0 + DELISTED_IN_DAYS[base] * DAY_MS + 9 * HOUR_MS
                    if base in DELISTED_IN_DAYS
                    else None
                ),
                status="Paused" if base in PAUSED else "Open",
                stage="PRE_MARKET" if base in PRE_MARKET else "NORMAL",
            )
        )
    return listings


def full_universe(now_ms: int) -> list[Listing]:
    """All 556 contracts: 541 USDT and 7 USDC margined, 7 coin margined, one dated."""
    linear = _linear(now_ms)
    by_base = {listing.base: listing for listing in linear}
    twins = []
    for base in USDC_MARGINED:
        parent = by_base[base]
        twins.append(
            replace(
                parent,
                symbol=f"{base}USDCM",
                quote="USDC",
                settle="USDC",
                nature="twin",
                driver=parent.symbol,
                multiplier=0.0001 if base == "XBT" else parent.multiplier,
                turnover=parent.turnover * 0.02,
            )
        )
    for base in COIN_MARGINED:
        parent = by_base[base]
        twins.append(
            replace(
                parent,
                symbol=f"{base}USDM",
                quote="USD",
                settle=base,
                kind="inverse",
                nature="twin",
                driver=parent.symbol,
                multiplier=-1.0,
                turnover=parent.turnover * 0.01,
                funding_hours=8,
            )
        )
    symbol, expiry = quarterly(now_ms)
    twins.append(
        replace(
            twins[len(USDC_MARGINED)],
            symbol=symbol,
            kind="dated",
            turnover=4.0e6,
            funding_hours=None,
            first_open_ms=expiry - 180 * DAY_MS,
            expire_ms=expiry,
        )
    )
    return linear + twins


def chosen(listings: list[Listing], count: int | None) -> list[int]:
    """Positions kept when only `count` contracts are wanted: the odd ones, then the liquid."""
    if count is None or count >= len(listings):
        return list(range(len(listings)))
    symbols = {listing.symbol: index for index, listing in enumerate(listings)}
    keep = [symbols[name] for name in SHOWCASE[: count // 3] if name in symbols]
    if count >= 6:
        keep.append(len(listings) - 1)
    liquid = (i for i, item in enumerate(listings) if item.nature == "coin" and i not in keep)
    while len(keep) < count:
        keep.append(next(liquid))
    return sorted(keep)
