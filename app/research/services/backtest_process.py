"""Runs a trial in a process of its own, so that neither loop nor memory of the caller bears it."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final

from app.configuration.domain.document import from_document
from app.foundation.errors import Code, RefusedError
from app.market.domain.sectors import Classification, SectorTable
from app.research.domain.history import CandleHistory
from app.research.domain.trials import Trial
from app.research.services.backtest import BoardSeries
from app.research.services.trials import TrialRequest, run_trial

_NICENESS: Final = 10  # the service goes first
_GRACE_S: Final = 5.0  # for the end of a killed process


@dataclass(frozen=True, slots=True, eq=False)
class TrialInputs:
    """Everything that a trial reads, in values that travel between processes.

    `settings` is the document of the configuration, `trial_sharpes` are those of the former trials.
    """

    history: CandleHistory
    settings: dict[str, Any]
    settings_version: int
    sectors: dict[str, Classification]
    request: TrialRequest
    trial_id: str
    started_at: datetime
    code_version: str
    trial_sharpes: tuple[float, ...]


def compute_trial(inputs: TrialInputs, progress: Callable[[str], None] = lambda _: None) -> Trial:
    """Returns the trial of the inputs. Raises ValueError as `run_trial` and `BoardSeries.of`."""
    used = from_document(inputs.settings, inputs.settings_version)
    boards = BoardSeries.of(inputs.history, used, SectorTable(inputs.sectors), inputs.request.costs)
    return run_trial(
        boards,
        used,
        inputs.request,
        inputs.trial_id,
        lambda: inputs.started_at,
        inputs.code_version,
        inputs.trial_sharpes,
        progress,
    ).trial


async def run_in_process(inputs: TrialInputs, progress: Callable[[str], None]) -> Trial:
    """Returns the trial, computed by a new process; cancelling kills that process.

    `progress` receives the name of each stage. Raises RefusedError for inputs that give no trial,
    RuntimeError if the process dies.
    """
    context = get_context("spawn")
    near, far = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(inputs, far), daemon=True)
    try:
        await asyncio.to_thread(process.start)
        far.close()  # so that the death of the process ends the reading
        while True:
            match await asyncio.to_thread(_receive, near):
                case Trial() as trial:
                    return trial
                case ValueError() as refused:
                    raise RefusedError(Code.VALIDATION_FAILED, f"{refused}.")
                case str() as stage:
                    progress(stage)
                case _:
                    raise RuntimeError("the process of a backtest died")
    finally:
        if process.pid is not None:
            process.kill()
            await asyncio.to_thread(process.join, _GRACE_S)


def _receive(connection: Connection) -> object:
    """Returns the next message; None if the process has ended."""
    try:
        message: object = connection.recv()
    except EOFError:
        return None
    return message


def _work(inputs: TrialInputs, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service decides when to stop
    os.nice(_NICENESS)
    try:
        connection.send(compute_trial(inputs, connection.send))
    except ValueError as refused:
        connection.send(ValueError(str(refused)))
