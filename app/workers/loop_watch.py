"""Stack dump of an event loop that is blocked."""

import asyncio
import faulthandler
from typing import IO, Final

CHECK_S: Final = 0.5
LIMIT_S: Final = 2.0
_STDERR: Final = 2


async def dump_stack_when_blocked(
    file: IO[str] | int = _STDERR, check_s: float = CHECK_S, limit_s: float = LIMIT_S
) -> None:
    """Write the stacks of all threads to `file` (stderr) once the loop is blocked for `limit_s`.

    The timer runs in C beside the interpreter, so that it also sees a loop that holds the GIL. The
    dump holds files, lines and functions, no values. One process has one such timer.
    """
    try:
        while True:
            faulthandler.dump_traceback_later(limit_s, file=file)
            await asyncio.sleep(check_s)
    finally:
        faulthandler.cancel_dump_traceback_later()
