"""Logs where the event loop hangs, from a thread beside it: afterwards the stack is gone."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import structlog

LOOK_S: Final = 0.5
LIMIT_S: Final = 2.0
_log = structlog.get_logger("loop")


@dataclass(slots=True)
class LoopWatch:
    """A thread asks the loop for a sign; who owes one for `limit_s` is shown with its stack.

    Looks are counted and no time: while the whole process does not run, nobody hangs. `blocked`
    is told once for each time, in the thread; the log has files, lines and functions, no values.
    """

    blocked: Callable[[], None]
    look_s: float = LOOK_S
    limit_s: float = LIMIT_S
    _missed: int = 0  # looks since the last sign
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop, whose = asyncio.get_running_loop(), threading.get_ident()
        self._thread = threading.Thread(
            target=self._look, args=(loop, whose), name="loop-watch", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _sign(self) -> None:
        self._missed = 0

    def _look(self, loop: asyncio.AbstractEventLoop, whose: int) -> None:
        most = max(1, round(self.limit_s / self.look_s))
        while not self._ended.wait(self.look_s):
            self._missed += 1
            if self._missed == most:
                _log.error("event_loop_blocked", at=_stack(whose))
                self.blocked()
            try:
                loop.call_soon_threadsafe(self._sign)
            except RuntimeError:
                return  # it is closed


def _stack(whose: int) -> list[str]:
    """The innermost calls of a thread, the last one at the end."""
    frame = sys._current_frames().get(whose)  # noqa: SLF001  # there is no other way from outside
    calls = [] if frame is None else traceback.extract_stack(frame)[-_CALLS:]
    return [f"{one.filename.rpartition('/')[2]}:{one.lineno} {one.name}" for one in calls]


_CALLS: Final = 12
