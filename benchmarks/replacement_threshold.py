"""The hysteresis of replacement on real candles: its noise, and the median threshold D.

    python -m benchmarks.replacement_threshold [FOLDER]

FOLDER holds `daily_panel.parquet` (perpetuals of 2024 and 2025). On a date every four weeks the 60
most liquid symbols are scored over the last month; D is taken over all their pairs at a round trip
of 20 basis points and equal funding. A `noise_multiple` for a median D of .55 is named.
"""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from pyarrow import parquet

from app.configuration.domain.model import Configuration
from app.market.domain.models import Floats, Interval
from app.market.domain.panel import Panel
from app.scoring.domain.algorithm import build_algorithm
from app.scoring.domain.score_stability import back_scores, weekly_noise

FOLDER: Final = Path(__file__).resolve().parents[1] / "../shared/market"
SYMBOLS: Final = 60
BARS: Final = 250
EVERY: Final = 28  # days
COST: Final = 20.0  # basis points, both legs
AIM: Final = 0.55
_NAMES: Final = {"turnover": "quote_volume"}
_FIELDS: Final = ("open", "high", "low", "close", "volume", "turnover")


def main(folder: Path = FOLDER) -> float:
    """Print noise and threshold; the median D of the defaults."""
    settings = Configuration()
    rules, spec = settings.replacement, build_algorithm(settings)
    cost = COST / (rules.return_per_z * rules.horizon_days)
    pairs: list[Floats] = []
    noises: list[Floats] = []
    for panel in _panels(folder / "daily_panel.parquet"):
        noise = weekly_noise(back_scores(panel, spec))
        noise = noise[np.isfinite(noise)]
        one, other = np.triu_indices(len(noise), 1)
        pairs.append(np.hypot(noise[one], noise[other]))
        noises.append(noise)
    both, alone = np.concatenate(pairs), np.concatenate(noises)
    middle = float(np.median(both))
    found = rules.noise_multiple * middle + cost
    lines = (
        f"{len(pairs)} dates, {len(alone)} symbols, {len(both)} pairs",
        f"noise of a symbol: median {np.median(alone):.3f}; of a pair: median {middle:.3f}",
        f"cost of {COST:g} bp: {cost:.3f}",
        f"noise_multiple {rules.noise_multiple:g}: median D {found:.3f}",
        f"noise_multiple for a median D of {AIM:g}: {(AIM - cost) / middle:.2f}",
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return found


def _panels(path: Path) -> list[Panel]:
    columns = ["symbol", "ts", *(_NAMES.get(name, name) for name in _FIELDS)]
    table = parquet.read_table(
        path, columns=columns, filters=[("venue", "==", "binance_usdm_perp")]
    ).to_pydict()
    names, stamps = np.array(table["symbol"]), np.array(table["ts"], np.int64)
    symbols, column = np.unique(names, return_inverse=True)
    days = np.arange(stamps.min(), stamps.max() + 1, Interval.DAY.ms, dtype=np.int64)
    row = (stamps - days[0]) // Interval.DAY.ms
    fields: dict[str, Floats] = {}
    for name in _FIELDS:
        filled = np.full((len(days), len(symbols)), np.nan)
        filled[row, column] = np.array(table[_NAMES.get(name, name)], np.float64)
        fields[name] = filled
    found = []
    for end in range(BARS, len(days) + 1, EVERY):
        within = {name: array[end - BARS : end] for name, array in fields.items()}
        bars = np.isfinite(within["close"]).sum(axis=0)
        traded = np.nanmedian(np.where(bars >= 90, within["turnover"][-30:], 0.0), axis=0)
        best = np.sort(np.argsort(-np.nan_to_num(traded), kind="stable")[:SYMBOLS])
        chosen = {name: array[:, best] for name, array in within.items()}
        panel = Panel(Interval.DAY, tuple(symbols[best].tolist()), days[end - BARS : end], **chosen)
        found.append(panel)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
