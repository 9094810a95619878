"""Contracts of the local exchange: names, specifications and liquidity."""

import math
from calendar import monthcalendar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np

# BASE or BASE:price. A base without a price gets a draw from a fixed log-normal.
LEADING = """
XBT:86000 ETH:2900 SOL:135 XRP:2.1 DOGE:0.15 BNB:860 SUI:1.6 ADA:0.42 LINK:13 AVAX:14 HYPE:34
ZEC:480 PEPE:0.0000046 LTC:84 BCH:540 TRX:0.28 TON:1.6 DOT:2.3 ENA:0.26 NEAR:1.8 UNI:6.1 AAVE:170
XLM:0.25 APT:2.7 HBAR:0.14 TAO:290 FIL:1.6 WIF:0.37 ARB:0.21 ETC:14 ICP:4.2 OP:0.31 INJ:5.6
SHIB:0.0000084 1000BONK:0.0097 ATOM:2.5 FARTCOIN:0.3 ONDO:0.48 WLD:0.64 TIA:0.63 PENGU:0.011
SEI:0.14 TRUMP:6.6 POL:0.13 LDO:0.66 ASTER:1.2 XMR:370 JUP:0.24 CRV:0.39 STX:0.31 RENDER:1.8
FET:0.25 VIRTUAL:0.93 PUMP:0.003 KAS:0.049 DASH:58 GALA:0.0076 KCS:10.5 ALGO:0.14 S:0.1 DYDX:0.21
ORDI:4.2 IMX:0.3 PENDLE:2.2 SAND:0.15 VET:0.0136 GRT:0.048 RUNE:0.7 AXS:1.0 CAKE:2.3 APE:0.25
ETHFI:0.84 EIGEN:0.55 JTO:0.45 STRK:0.13 ZRO:1.4 PYTH:0.07 W:0.045 AR:3.9 CFX:0.078 MANA:0.16
CHZ:0.029 FLOKI:0.000045 BOME:0.00065 PNUT:0.09 MOODENG:0.075 POPCAT:0.11 NEIROCTO:0.00014
1000RATS:0.035 1MBABYDOGE:0.00078 1000000MOG:0.24 10000SATS:0.00019 10000CAT:0.03 1000CHEEMS:0.001
1INCH:0.18 0G:1.2 2Z:0.13 4:0.024 KAITO:0.7 BERA:1.0 IP:2.9 XPL:0.2 WLFI:0.15 LINEA:0.01 MYX:2.4
COMP:33 SNX:0.5 SUSHI:0.33 YFI:4000 THETA:0.35 EGLD:8.1 NEO:4.0 QTUM:1.5 XTZ:0.5 IOTA:0.1 KSM:8.4
ZIL:0.0056 ENJ:0.033 BAT:0.22 ZRX:0.15 MASK:0.64 ENS:11 GMX:9.1 BLUR:0.03 MINA:0.08 JASMY:0.0068
LUNC:0.000028 LUNA:0.073 USTC:0.0071 XEC:0.000012 HOT:0.00052 DENT:0.0002 RSR:0.004 SPELL:0.00028
XVG:0.006 SUN:0.021 CKB:0.0026 ONE:0.0036 BLAST:0.001 NOT:0.0006 DOGS:0.00005 HMSTR:0.00028
TURBO:0.002 MEW:0.0012 BRETT:0.018 SPX:0.55 AIXBT:0.04 ZEREBRO:0.03 GOAT:0.04 QNT:82 PAXG:4080
XAUT:4070 XAG:50 XPT:1540 XPD:1380 USDC:1 USDG:1 ETHBTC:0.0337 BROCCOLI714:0.02 BANANAS31:0.004
BINANCELIFE:0.11 WOTAMALAILE:0.05 US:0.01 BAN:0.05 TRB:21 ILV:8 NMR:11 MLN:6.5 BSV:22 TRUTH:0.03
FTT:0.6 ZEN:14 GAS:2.2 ORCA:1.2 LPT:4.6 CVX:1.9
"""

# Liquid middle, then the tail, without prices.
MIDDLE = """
KAIA ZK MORPHO MOVE PLUME SAHARA INIT RAY HYPER GRASS AERO COW MET ZETA MANTA DYM ALT XAI PIXEL
PORTAL AEVO METIS SAGA TNSR REZ BB IO LISTA G BANANA CATI EUL SCR CETUS DEEP WAL HAEDAL BIO SOLV
ANIME SHELL NIL PARTI FORM MUBARAK TUT BMT GPS KERNEL SIGN DOOD NXPC SOPH HUMA RESOLV HOME SPK
NEWT ERA TREE PROVE TOWNS BARD AVNT FF ENSO EDEN HOLO OPEN SOMI MITO DOLO ZKC SKY SYRUP FLUID VVV
ALLO MMT MON CC BANK KITE TURTLE AT YB ZBT TRUST CLANKER ZORA TOSHI DEGEN PROMPT B A C D F H M Q T
U AKE ARC GRIFFAIN SWARMS ALCH ACTSOL COOKIE CHILLGUY MELANIA VINE JELLYJELLY PIPPIN USELESS
GIGGLE HIPPO KOMA AVA AVAAI VANA USUAL ME MOCA ATH CYBER ARKM BIGTIME ID EDU MAV HOOK MAGIC GMT
GTC AGLD ALICE ALPINE ANKR API3 ARK ARPA ASTR AUCTION AUDIO AXL BAND BEL BNT C98 CELO CELR CHR
COTI CTC CTSI CVC DODO DUSK FLOW FLUX FORTH FRAX GLMR HFT HIGH HIVE ICX IOTX JOE KAVA KNC LQTY LRC
MBOX MOVR MTL MERL MEME NFP NTRN OGN ONT ORBS OXT PEOPLE PHA PHB POLYX POWR PROM RARE RDNT RIF RON
ROSE RVN SFP SKL SSV STEEM STG STORJ SUPER SXP TAIKO TRU TWT UMA VANRY VIC WAVES WAXP WOO XVS YGG
ZKJ ACE ACH AGI AI AIN AIO AIOT AGT ACU ALU APR ARIA ASP ASR AWE AZTEC
"""

TAIL = """
A2Z B2 B3 BABY BAS BDX BDXN BEAT BIRB BLESS BLUAI BOBBOB BR BREV BSU BTR CAMP CARV CGPT CLO COAI
COLLECT CRO CROSS CYS DAM DOG DRIFT ELSA ES ESP ESPORTS EVAA FHE FIGHT FLOCK FOGO FOLKS GAIB GUA
GUN GWEI HANA HEI HEMI ICNT IDOL IKA IN INX IR IRYS JCT KAT KGEN LA LAB LIGHT LIT LYN MAGMA MAVIA
MEGA MIRA NAORIS NIGHT NOM NPC NUMI OG ON OPN ORDER PIEVERSE PLAI PLANCK POWER PRCL PTB PUFFER
RAVE RECALL REDSTONE RIVER RLS RNBW ROAM ROBO SAPIEN SENT SIREN SKR SKYAI SOLAYER SONIC SOON SPACE
SPORTFUN SQD STABLE STBL STO SUPRA SXT TA TAC TAG TAKE THE TRADOOR TRIA TSTBSC UAI UB VELO VELVET
VFY VOOI WARD WCT WET WHITEWHALE WILD XAN XNY XPIN YZY ZAMA ZIG ZKP AERGO
"""


def tickers() -> list[tuple[str, float | None]]:
    """All 541 bases in order of liquidity with their typical price or None."""
    table: list[tuple[str, float | None]] = []
    for word in f"{LEADING} {MIDDLE} {TAIL}".split():
        base, _, price = word.partition(":")
        table.append((base, float(price) if price else None))
    return table


DAY_MS = 86_400_000
HOUR_MS = 3_600_000

Kind = Literal["linear", "inverse", "dated"]
Nature = Literal["coin", "stable", "metal", "ratio", "twin"]


@dataclass(frozen=True, slots=True)
class ListedContract:
    """Specification of one contract of the exchange.

    `tick_digits` decimals of the price step, `multiplier` base coins per lot (-1 inverse),
    `turnover` typical USD a day, `driver` the symbol whose price a twin follows,
    `first_open_ms` and `expire_ms` epoch milliseconds, `announced_ms` the announcement of the
    expiry (None: always known), `funding_hours` None on dated futures.
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
        """True if it is margined and settled in the base coin."""
        return self.kind != "linear"

    @property
    def lot(self) -> float:
        """Absolute size of one lot: base coins, or USD when inverse."""
        return abs(self.multiplier)


# Well-known specifications: (multiplier, decimals of the tick).
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
# A short list keeps one contract of every special kind: twins first, then odd linear ones.
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
    """Power of ten of base coins that makes a lot worth a few dollars."""
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


def _linear(now_ms: int) -> list[ListedContract]:
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
            ListedContract(
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


def full_universe(now_ms: int) -> list[ListedContract]:
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


def select_contracts(listings: list[ListedContract], count: int | None) -> list[int]:
    """Returns the positions of `count` contracts: special ones, liquid coins, then the rest."""
    if count is None or count >= len(listings):
        return list(range(len(listings)))
    symbols = {listing.symbol: index for index, listing in enumerate(listings)}
    keep = [symbols[name] for name in SHOWCASE[: count // 3] if name in symbols]
    if count >= 6:
        keep.append(len(listings) - 1)
    others = [position for position in range(len(listings)) if position not in keep]
    others.sort(key=lambda position: listings[position].nature != "coin")
    return sorted([*keep, *others[: count - len(keep)]])
