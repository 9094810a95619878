"""Makes the compiled loops ready before the first scoring asks for them, and says what it took."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from app.scoring.domain.kernels.compilation import Kernel
from app.scoring.domain.kernels.indicators import TAKE
from app.scoring.domain.kernels.last_bar import at_last_bar
from app.workers.schedule import TURN_S
from app.workers.supervisor import Beat, Supervisor

KERNELS: Final = "kernels"
_log = structlog.get_logger("kernels")


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a start cost: seconds, and whether the machine code was there from an earlier one."""

    duration_s: float
    was_loaded: bool
    is_kept: bool


def prepare() -> Preparation:
    """Compiles what scoring uses, or loads it from disk: seconds once, half a second from then on.

    Called in a thread. Where neither the folder of the code nor the user's cache can be written,
    a folder of this user under the system's temporary one keeps it.
    """
    begun = time.monotonic()
    keep(TAKE, Path(tempfile.gettempdir()))
    bar = np.full((1, 1), np.nan)
    at_last_bar(bar, bar, bar, bar, bar)
    done = Preparation(time.monotonic() - begun, TAKE.was_loaded(), TAKE.is_kept)
    _log.info(
        "kernels_ready",
        duration_s=round(done.duration_s, 3),
        was_loaded=done.was_loaded,
        is_kept=done.is_kept,
    )
    return done


def begin(supervisor: Supervisor, work: Callable[[], object] = prepare) -> None:
    """Has `work` done in a thread, once, beside the first fill.

    It is a task like all others: where it fails it is named, and begins again.
    """

    async def ready(_: Beat) -> None:
        await asyncio.to_thread(work)

    supervisor.start(KERNELS, ready, lambda: TURN_S)


def keep(kernel: Kernel[..., None], below: Path) -> None:
    """Gives a kernel without a place one under `below`, if that can be this user's alone.

    What is loaded from there is run: nobody else may have written it.
    """
    if kernel.has_place():
        return
    folder = below / f"my-symbols-kernels-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return
    if found.st_uid == os.getuid() and found.st_mode & 0o170077 == 0o040000:
        kernel.keep_in(str(folder))
