"""Settings of data quality: from where on a number is not believed, and what makes it so again."""

from dataclasses import dataclass

from app.configuration.domain.fields import setting


@dataclass(frozen=True, slots=True)
class QualityRules:
    """Limits of what is believed; deviations are fractions, times are seconds."""

    last_off_mark: float = setting(0.10, 0.001, 10.0)  # last trade against the mark price
    mark_off_index: float = setting(0.05, 0.001, 10.0)  # mark price against the index
    jump: float = setting(0.50, 0.01, 10.0)  # between two readings, where no index confirms it
    jump_window: int = setting(120, 1, 3_600)  # readings further apart are not compared
    confirmations: int = setting(3, 1, 100)  # readings in a row that end a quarantine ...
    confirmation_gap: int = setting(10, 0, 3_600)  # ... at least so far apart
    lot_change: float = setting(0.20, 0.001, 10.0)  # value of a lot, when its size has changed
    max_spread: float = setting(0.05, 0.0001, 1.0)  # of mid; a wider quote is none
    turnover_off_price: float = setting(0.10, 0.001, 10.0)  # turnover / volume beyond low and high
    volume_jump: float = setting(100.0, 2.0, 1e6)  # of an hour over the median of that hour ...
    min_volume: float = setting(1_000.0, 0.0, 1e12)  # turnover of a day in quote currency
    max_gap: int = setting(5, 0, 400)  # hourly candles in a row that may be missing
    frozen_after: int = setting(1_800, 60, 86_400)  # without a trade ...
    frozen_index_move: float = setting(0.02, 0.0001, 1.0)  # ... while the index moved by so much
    divergence: float = setting(0.005, 0.0001, 1.0)  # a told quote against an answered one ...
    divergence_after: int = setting(10, 0, 3_600)  # ... for so long: then neither is believed
    run_span: int = setting(5, 1, 3_600)  # quotes of one scoring may be so far apart
    history_days: int = setting(30, 1, 365)  # verdicts are kept for so long ...
    history_rows: int = setting(200, 1, 10_000)  # ... and so many of a symbol
    # A scoring looks 250 days back: what was said of those bars before stays as long.
    revision_days: int = setting(400, 251, 3_650)
