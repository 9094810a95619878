"""Routes of one symbol's data quality: verdict, score with parts, history, and release."""

from typing import Self

from pydantic import Field
from starlette.responses import Response

from app.foundation.data_status import DataSource
from app.foundation.errors import Code
from app.foundation.http.dependencies import (
    CursorsDep,
    Provided,
    UnversionedDep,
    by,
)
from app.foundation.http.errors import problems
from app.foundation.http.pagination import cut, moment
from app.foundation.http.permissions import requires
from app.foundation.http.request_body import Body, NameText, ReasonText
from app.foundation.http.responses import keep, sent
from app.foundation.http.routing import api_router
from app.foundation.http.schemas import (
    NAMES,
    CursorText,
    Freshness,
    Limit,
    Out,
    Score,
    SymbolPath,
    UtcTime,
)
from app.foundation.idempotency import StoredResponse
from app.foundation.principals import Role
from app.market.domain.quality_report import Part, QualityVerdict
from app.market.services.quality import PastVerdict, Quality, QualityService, Release
from app.market.services.service import MarketData

router = api_router("market", "/market")


class PartOut(Out):
    """Part of the score: 0 is worthless, 1 faultless."""

    name: str = Field(examples=["prices"], description="Name of the part.")
    score: Score = Field(description="Score of the part: 0 is worthless, 1 faultless.")
    weight: Score = Field(description="Of this part in the score.")
    flag: str | None = Field(description="Stable code of a fault; null without one.")
    reason: str

    @classmethod
    def of(cls, part: Part) -> Self:
        return cls(
            name=part.name, score=part.value, weight=part.weight, flag=part.flag, reason=part.reason
        )


class PastVerdictOut(Out):
    """Verdict valid from `at` until the next one."""

    at: UtcTime = Field(description="UTC time from which the verdict is valid.")
    verdict: QualityVerdict = Field(description="Verdict on the data.")
    score: Score = Field(description="Quality score: 0 is worthless, 1 faultless.")
    flags: list[str]

    @classmethod
    def of(cls, one: PastVerdict) -> Self:
        return cls(at=one.at, verdict=one.verdict, score=one.score, flags=list(one.flags))


class QualityOut(Freshness):
    """Data quality of one symbol.

    `quarantined`: untrusted prices, so no score, an unchanged weight, no trades and no entry into
    the portfolio. `flagged`: values that need a faulty part are missing.
    """

    symbol: str
    verdict: QualityVerdict = Field(description="Verdict on the data.")
    quality_score: Score = Field(
        description="Mean of the parts by weight; 0 in quarantine or without data."
    )
    flags: list[str]
    parts: list[PartOut] = Field(description="Parts of the score.")
    quarantined_since: UtcTime | None = Field(
        description="UTC time at which the quarantine began; null without one."
    )
    revised_candles: int = Field(
        description="Number of changes of candles after their close; former values are stored."
    )
    history: list[PastVerdictOut] = Field(
        description="Changes of the verdict, newest first, for `quality.history_days`."
    )
    next_cursor: str | None = Field(description="Pass as `cursor` for older changes.")

    @classmethod
    def of(
        cls,
        current: Quality,
        past: list[PastVerdictOut],
        next_cursor: str | None,
        source: DataSource,
        revised: int,
    ) -> Self:
        report = current.report
        return cls(
            symbol=current.entry.symbol,
            verdict=report.verdict,
            quality_score=report.score,
            flags=list(report.flags),
            parts=[PartOut.of(part) for part in report.parts],
            quarantined_since=current.quarantined_since,
            revised_candles=revised,
            history=past,
            next_cursor=next_cursor,
            as_of=current.as_of,
            data_source=source,
            data_status=current.status,
        )


class ReleaseIn(Body):
    reason: ReasonText = Field(description="Reason that the audit log records.")
    user: NameText | None = Field(None, description="Recorded as the claimed actor.")


class ReleaseOut(Out):
    """Release, which the process that reads the exchange applies with its next refresh."""

    symbol: str
    released_at: UtcTime = Field(description="UTC time of the release.")
    reason: str
    released_by: str = Field(description="Principal that released the symbol.")
    was_quarantined: bool = Field(description="False without a quarantine to release.")

    @classmethod
    def of(cls, release: Release) -> Self:
        return cls(
            symbol=release.symbol,
            released_at=release.at,
            reason=release.reason,
            released_by=release.released_by,
            was_quarantined=release.was_quarantined,
        )


def _release_response(release: Release) -> StoredResponse:
    return keep(ReleaseOut.of(release))


@router.get("/{symbol}/quality", summary="Quality of one symbol's data", responses=problems(*NAMES))
@requires(Role.VIEWER)
async def get_data_quality(
    quality: Provided[QualityService],
    market: Provided[MarketData],
    cursors: CursorsDep,
    symbol: SymbolPath,
    limit: Limit = 20,
    cursor: CursorText = None,
) -> QualityOut:
    """Verdict, score 0..1 with its parts and their reasons, and changes of the verdict."""
    current = quality.now(symbol)
    chosen = {"symbol": current.entry.symbol_id}
    start = cursors.decode("quality", chosen, cursor)
    before = moment(start)
    rows = await quality.history(current.entry.symbol_id, before, limit + 1)
    page, last = cut(rows, limit, lambda one: (one.at.isoformat(),))
    return QualityOut.of(
        current,
        [PastVerdictOut.of(one) for one in page],
        None if last is None else cursors.encode("quality", chosen, last),
        market.source,
        await quality.count_revised_candles(current.entry.symbol_id),
    )


@router.post(
    "/{symbol}/quality/release",
    summary="Release a quarantine",
    response_model=ReleaseOut,
    responses=problems(*NAMES, Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED),
)
@requires(Role.OPERATOR)
async def release_quarantine(
    quality: Provided[QualityService],
    command: UnversionedDep,
    symbol: SymbolPath,
    body: ReleaseIn,
) -> Response:
    """Releases prices that no index will confirm, as after a change of the contract size.

    Prices that still contradict each other return to quarantine at once.
    """
    command = by(command, body.user)
    return sent(await quality.release(symbol, body.reason, command, _release_response))
