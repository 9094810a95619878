"""A step that fails for a moment does not fail the whole job."""

import pytest

from app.foundation.errors import Code, ServiceError, UnavailableError
from app.foundation.jobs import Document
from app.workers.durable import run_with_retries

BUSY = UnavailableError(Code.DATABASE_CONTENTION, "busy", retry_after_s=1)
STALE = UnavailableError(Code.MARKET_DATA_STALE, "old", retry_after_s=30)
NEVER = UnavailableError(Code.EXCHANGE_TIMEOUT, "nobody knows for how long")


class Step:
    """Fails with these, one after the other, and then is done."""

    def __init__(self, *errors: ServiceError) -> None:
        self.errors = list(errors)
        self.pauses: list[float] = []

    async def __call__(self) -> Document:
        if self.errors:
            raise self.errors.pop(0)
        return {"done": True}

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def test_a_step_is_tried_again_when_its_error_says_so() -> None:
    step = Step(BUSY, BUSY)
    assert await run_with_retries("check", step, step.sleep) == {"done": True}
    assert step.pauses == [1, 1]


async def test_the_third_failure_is_the_last() -> None:
    step = Step(BUSY, BUSY, BUSY)
    with pytest.raises(UnavailableError) as caught:
        await run_with_retries("check", step, step.sleep)
    assert (caught.value, step.pauses) == (BUSY, [1, 1])


@pytest.mark.parametrize("error", [STALE, NEVER])
async def test_a_long_retry_after_fails_without_retry(error: UnavailableError) -> None:
    step = Step(error)
    with pytest.raises(UnavailableError):
        await run_with_retries("check", step, step.sleep)
    assert step.pauses == []
