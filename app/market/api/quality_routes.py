"""The quality of one symbol's data: verdict, score with its parts, history; the operator's word."""

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
    """One part of the score: 0 is worthless, 1 faultless."""

    name: str = Field(examples=["prices"])
    score: Score
    weight: Score = Field(description="Of this part in the score.")
    flag: str | None = Field(description="A stable word for what is wrong; null: nothing.")
    reason: str

    @classmethod
    def of(cls, part: Part) -> Self:
        return cls(
            name=part.name, score=part.value, weight=part.weight, flag=part.flag, reason=part.reason
        )


class PastVerdictOut(Out):
    """It held from `at` on, until the next one."""

    at: UtcTime
    verdict: QualityVerdict
    score: Score
    flags: list[str]

    @classmethod
    def of(cls, one: PastVerdict) -> Self:
        return cls(at=one.at, verdict=one.verdict, score=one.score, flags=list(one.flags))


class QualityOut(Freshness):
    """`quarantined`: its prices are not believed, so it gets no score, its weight stays, it may
    not be traded and does not come in. `flagged`: what needs the part that is wrong is missing.
    """

    symbol: str
    verdict: QualityVerdict
    quality_score: Score = Field(
        description="Mean of the parts by weight; 0 for what is in quarantine or not there."
    )
    flags: list[str]
    parts: list[PartOut]
    quarantined_since: UtcTime | None
    revised_candles: int = Field(
        description="How often the exchange has changed a candle after its close; the former word "
        "is kept."
    )
    history: list[PastVerdictOut] = Field(
        description="Changes of the verdict, newest first, for `quality.history_days`."
    )
    next_cursor: str | None = Field(description="Pass as `cursor` for older changes.")

    @classmethod
    def of(
        cls,
        found: Quality,
        past: list[PastVerdictOut],
        next_cursor: str | None,
        source: DataSource,
        revised: int,
    ) -> Self:
        report = found.report
        return cls(
            symbol=found.entry.symbol,
            verdict=report.verdict,
            quality_score=report.score,
            flags=list(report.flags),
            parts=[PartOut.of(part) for part in report.parts],
            quarantined_since=found.quarantined_since,
            revised_candles=revised,
            history=past,
            next_cursor=next_cursor,
            as_of=found.as_of,
            data_source=source,
            data_status=found.status,
        )


class ReleaseIn(Body):
    reason: ReasonText
    user: NameText | None = None


class ReleaseOut(Out):
    """It is taken up with the next refresh of the market, by whoever reads the exchange."""

    symbol: str
    released_at: UtcTime
    reason: str
    released_by: str
    was_quarantined: bool = Field(description="False: there was nothing to release.")

    @classmethod
    def of(cls, done: Release) -> Self:
        return cls(
            symbol=done.symbol,
            released_at=done.at,
            reason=done.reason,
            released_by=done.released_by,
            was_quarantined=done.was_quarantined,
        )


def _released(done: Release) -> StoredResponse:
    return keep(ReleaseOut.of(done))


@router.get("/{symbol}/quality", summary="Quality of one symbol's data", responses=problems(*NAMES))
@requires(Role.VIEWER)
async def quality(
    quality: Provided[QualityService],
    market: Provided[MarketData],
    cursors: CursorsDep,
    symbol: SymbolPath,
    limit: Limit = 20,
    cursor: CursorText = None,
) -> QualityOut:
    """Verdict, score 0..1 with its parts, each with its reason, and how the verdict changed."""
    found = quality.now(symbol)
    chosen = {"symbol": found.entry.symbol_id}
    start = cursors.decode("quality", chosen, cursor)
    before = moment(start)
    rows = await quality.history(found.entry.symbol_id, before, limit + 1)
    page, last = cut(rows, limit, lambda one: (one.at.isoformat(),))
    return QualityOut.of(
        found,
        [PastVerdictOut.of(one) for one in page],
        None if last is None else cursors.encode("quality", chosen, last),
        market.source,
        await quality.revised(found.entry.symbol_id),
    )


@router.post(
    "/{symbol}/quality/release",
    summary="End a quarantine by your word",
    response_model=ReleaseOut,
    responses=problems(*NAMES, Code.IDEMPOTENCY_IN_PROGRESS, Code.IDEMPOTENCY_KEY_REUSED),
)
@requires(Role.OPERATOR)
async def release(
    quality: Provided[QualityService],
    command: UnversionedDep,
    symbol: SymbolPath,
    body: ReleaseIn,
) -> Response:
    """For a price that no index will confirm, as after a change of the size of a lot.

    Prices that still contradict each other go back into quarantine at once.
    """
    who = by(command, body.user)
    return sent(await quality.release(symbol, body.reason, who, _released))
