"""The settings of data quality, as they are read and written over HTTP."""

from pydantic import Field

from app.foundation.http.request_body import Body
from app.foundation.http.schemas import Out


class QualitySettingsOut(Out):
    """Deviations are fractions, times are seconds."""

    last_off_mark: float = Field(description="Last trade against the mark price.")
    mark_off_index: float = Field(description="Mark price against the index.")
    jump: float = Field(description="Between two readings that no index confirms.")
    jump_window: int = Field(description="Readings further apart are not compared.")
    confirmations: int = Field(description="Readings in a row that end a quarantine.")
    confirmation_gap: int = Field(description="They count at least so far apart.")
    max_spread: float = Field(description="Of mid; a wider quote is none.")
    turnover_off_price: float = Field(description="Turnover / volume beyond low and high.")
    volume_jump: float = Field(description="Of an hour over the median of that hour of the day.")
    min_volume: float = Field(description="Turnover of a day, in quote currency.")
    max_gap: int = Field(description="Hourly candles in a row that may be missing.")
    frozen_after: int = Field(description="Without a trade while the index moves.")
    frozen_index_move: float
    lot_change: float = Field(description="Of a lot's value, when its size has changed.")
    divergence: float = Field(description="A quote that is told against one that is answered.")
    divergence_after: int = Field(description="They differ for so long: neither is believed.")
    run_span: int = Field(
        description="Quotes of one scoring may be so far apart, beside the pause between two looks."
    )
    history_days: int = Field(description="Verdicts are kept for so long.")
    history_rows: int = Field(description="And so many of a symbol.")
    revision_days: int = Field(description="Former words on a closed candle are kept for so long.")


class QualitySettingsIn(Body):
    last_off_mark: float | None = None
    mark_off_index: float | None = None
    jump: float | None = None
    jump_window: int | None = None
    confirmations: int | None = None
    confirmation_gap: int | None = None
    max_spread: float | None = None
    turnover_off_price: float | None = None
    volume_jump: float | None = None
    min_volume: float | None = None
    max_gap: int | None = None
    frozen_after: int | None = None
    frozen_index_move: float | None = None
    lot_change: float | None = None
    divergence: float | None = None
    divergence_after: int | None = None
    run_span: int | None = None
    history_days: int | None = None
    history_rows: int | None = None
    revision_days: int | None = None
