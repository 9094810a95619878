"""Log configuration: one line per event as JSON or text; masks secrets, prevents forged lines."""

import logging
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from app.security.domain.keys import BRAND

MASK: Final = "***"
_SHORTEST_SECRET: Final = 4  # create_mask shorter values would mask ordinary text
_SECRET_NAME: Final = re.compile(
    r"password|passphrase|secret|token|authori[sz]ation|cookie|api[_-]?key|signature|credential",
    re.IGNORECASE,
)
_API_KEY: Final = re.compile(rf"({BRAND}[0-9A-Za-z]{{8}})[0-9A-Za-z]+")
_WEBSOCKET_QUERY: Final = re.compile(r'("WebSocket [^\s"?]*)\?[^\s"]*')  # in uvicorn's own lines
_USER_INFO: Final = re.compile(r"(://[^/\s:@]*):[^@\s/]+@")
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_ORDINARY: Final = frozenset({"debug", "info"})
_KEY_CHARACTERS: Final = 80
_SUPPRESSED_KEYS: Final = 1_000
_QUIET: Final = ("aiohttp", "aiosqlite", "asyncio", "httpx", "httpx2", "sqlalchemy", "websockets")


class LogStream(Protocol):
    """Receiver of whole log lines."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> None: ...


class RotatedLog:
    """Log file that is renamed to `.1` before it grows beyond a size; `.1` becomes `.2`, and so on.

    Raises OSError for a file that cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int, count: int) -> None:
        self._handler = RotatingFileHandler(
            path, maxBytes=max_bytes, backupCount=count, encoding="utf-8"
        )

    def write(self, text: str, /) -> None:
        """Appends one line."""
        self._handler.handle(logging.makeLogRecord({"msg": text.rstrip("\n")}))

    def flush(self) -> None:
        """Does nothing: each line is written at once."""

    def close(self) -> None:
        self._handler.close()


def configure_logging(
    *,
    level: Literal["debug", "info", "warning", "error"],
    form: Literal["json", "console"],
    secrets: Sequence[str] = (),
    stream: LogStream | None = None,
) -> None:
    """Sends structlog and standard-library logs through one pipeline to `stream` (stderr).

    Every value in `secrets` is masked in all fields, tracebacks included.
    """
    out: Any = stream if stream is not None else sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    sampler = LogSampler()
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        create_mask(secrets),
    ]
    after: list[Processor] = [_RENDERERS[form]()]
    if form == "console":
        after.insert(0, printable)
    structlog.configure(
        processors=[sampler.sample, *before, *after],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *after],
        )
    )
    handler.addFilter(sampler)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    # At debug the server logs the query and every header of a WebSocket, cookies included.
    logging.getLogger("uvicorn.error").setLevel(max(number, logging.INFO))


@dataclass(slots=True)
class LogSampler:
    """Rate limit of each log event per second; the next line states the number of suppressed ones.

    `per_second` applies to debug and info lines, `warnings_per_second` to the others.
    """

    monotonic: Callable[[], float] = time.monotonic
    per_second: int = 1_000
    warnings_per_second: int = 20
    _counts: dict[str, int] = field(default_factory=dict)  # of the current second
    _suppressed: dict[str, int] = field(default_factory=dict)
    _second: int = 0

    def admit(self, event: str, *, is_warning: bool) -> int | None:
        """Returns the number of suppressed lines so far; None to suppress this line too."""
        second = int(self.monotonic())
        if second != self._second:
            self._second = second
            self._counts.clear()
        key = event[:_KEY_CHARACTERS]
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count > (self.warnings_per_second if is_warning else self.per_second):
            if key in self._suppressed or len(self._suppressed) < _SUPPRESSED_KEYS:
                self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return None
        return self._suppressed.pop(key, 0)

    def sample(self, _: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Structlog processor. Raises DropEvent."""
        suppressed = self.admit(str(event.get("event")), is_warning=method not in _ORDINARY)
        if suppressed is None:
            raise structlog.DropEvent
        if suppressed:
            event["suppressed"] = suppressed
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """Standard-library filter, by the message without its arguments."""
        text = f"{record.name}: {record.msg}"
        return self.admit(text, is_warning=record.levelno >= logging.WARNING) is not None


def create_mask(secrets: Sequence[str]) -> Processor:
    """Returns a processor that masks secret fields by name, known secret values and API keys."""
    known = sorted({text for text in secrets if len(text) >= _SHORTEST_SECRET}, key=len)
    values = re.compile("|".join(map(re.escape, reversed(known)))) if known else None

    def clean(text: str) -> str:
        text = _USER_INFO.sub(rf"\1:{MASK}@", text)
        if BRAND in text:
            text = _API_KEY.sub(rf"\1{MASK}", text)
        if '"WebSocket ' in text:
            text = _WEBSOCKET_QUERY.sub(rf"\1?{MASK}", text)
        return values.sub(MASK, text) if values else text

    def mask(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {name: _masked(name, value, clean) for name, value in event.items()}

    return mask


def _masked(name: str, value: Any, clean: Callable[[str], str]) -> Any:
    if _SECRET_NAME.search(name):
        return MASK
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): _masked(str(key), part, clean) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked("", part, clean) for part in value]
    if value is None or isinstance(value, bool | int | float) or name.startswith("_"):
        return value  # names with an underscore are structlog's own
    return clean(repr(value))


def printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escapes characters that move a terminal's cursor; tracebacks keep their line ends."""
    return {
        _escape(name): _spelled(value, keep="\n" if name == "exception" else "")
        for name, value in event.items()
    }


def _spelled(value: Any, keep: str) -> Any:
    if isinstance(value, str):
        return _escape(value, keep)
    if isinstance(value, Mapping | list):
        return _escape(repr(value), keep)
    return value


def _escape(text: str, keep: str = "") -> str:
    return _UNPRINTABLE.sub(
        lambda found: found.group() if found.group() in keep else ascii(found.group())[1:-1], text
    )


_RENDERERS: Final[Mapping[str, Callable[[], Processor]]] = {
    "json": structlog.processors.JSONRenderer,  # escapes everything beyond printable ASCII
    "console": lambda: structlog.dev.ConsoleRenderer(colors=False),
}
