"""Measures the process itself: memory, buffers, throughput, service levels."""

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.foundation.event_bus import Bus
from app.foundation.metrics import Metrics, ResponseQuantiles, ResponseTimes, total
from app.foundation.ports import Monotonic
from app.foundation.sql.database import Database

_STATM: Final = Path("/proc/self/statm")


def free_disk_bytes(path: Path) -> int | None:
    """Returns the free space of the disk that holds `path`; None where the system hides it."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def resident_bytes() -> int | None:
    """Returns the resident memory; None on systems without /proc."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


_WINDOW_S: Final = 60.0
_FRESH_S: Final = 1.0  # summing all counters costs as much as the rest of a health check
_CPU: Final = "cpu_seconds"
_MIN_PERIOD_S: Final = 4.0  # shortest period of a meaningful rate


@dataclass(frozen=True, slots=True)
class BufferUsage:
    """Usage of a buffer; `dropped` is None for one that never drops."""

    name: str
    used: int
    capacity: int
    dropped: int | None

    @property
    def fill(self) -> float:
        """Used part; a pool may lend more connections than its size, so it may exceed 1."""
        return self.used / self.capacity if self.capacity else 0.0


@dataclass(frozen=True, slots=True)
class Throughput:
    """Rate of one kind of work; None before the first measurement."""

    name: str
    per_minute: float | None


@dataclass(frozen=True, slots=True)
class ProcessMetrics:
    """Memory, CPU, disk, buffers, throughput and response times of this process."""

    memory_bytes: int | None  # None where the system does not report it
    buffers: tuple[BufferUsage, ...]
    throughput: tuple[Throughput, ...]
    cpu_share: float | None  # of one core over the last minute; None before it is known
    disk_free_bytes: int | None
    response_time: ResponseQuantiles


@dataclass(slots=True)
class ProcessMetricsCollector:
    """Collects process metrics; rates cover the last minute between samples."""

    read_counters: Callable[[], Mapping[str, float]] = dict
    buffers: Callable[[], tuple[BufferUsage, ...]] = tuple
    memory: Callable[[], int | None] = resident_bytes
    monotonic: Monotonic = time.monotonic
    cpu_s: Callable[[], float] = time.process_time
    disk_free: Callable[[], int | None] = lambda: None
    response_times: ResponseTimes = field(default_factory=ResponseTimes)
    _samples: deque[tuple[float, Mapping[str, float]]] = field(default_factory=deque)
    _throughput: tuple[float, tuple[Throughput, ...], float | None] | None = field(
        default=None, init=False
    )

    def sample(self) -> None:
        """Takes a sample of the counters."""
        now = self.monotonic()
        self._samples.append((now, {**self.read_counters(), _CPU: self.cpu_s()}))
        while len(self._samples) > 1 and now - self._samples[1][0] >= _WINDOW_S:
            self._samples.popleft()

    def read(self) -> ProcessMetrics:
        """Returns the current metrics."""
        now = self.monotonic()
        if self._throughput is None or not 0.0 <= now - self._throughput[0] < _FRESH_S:
            counts = self.read_counters().items()
            cpu_s_per_minute = self._rate(_CPU, self.cpu_s(), places=3)
            self._throughput = (
                now,
                tuple(Throughput(name, self._rate(name, count)) for name, count in counts),
                None if cpu_s_per_minute is None else round(cpu_s_per_minute / 60.0, 4),
            )
        return ProcessMetrics(
            self.memory(),
            self.buffers(),
            self._throughput[1],
            self._throughput[2],
            self.disk_free(),
            self.response_times.quantiles(),
        )

    def _rate(self, name: str, count: float, places: int = 1) -> float | None:
        if not self._samples:
            return None
        started_at, before = self._samples[0]
        period_s = self.monotonic() - started_at
        if period_s < _MIN_PERIOD_S:
            return None
        return round((count - before[name]) / period_s * 60.0, places)


def work_counters(metrics: Metrics) -> Callable[[], Mapping[str, float]]:
    """Returns a reader of the monotonic work counters."""
    return lambda: {
        "requests": total(metrics.http_requests),
        "exchange_requests": total(metrics.exchange_requests),
        "scores": total(metrics.scoring_scores),
        "candles": total(metrics.market_candles_stored),
        "stream_frames": total(metrics.stream_frames),
        "notifications": total(metrics.notifications),
    }


def buffer_usage(bus: Bus, database: Database) -> Callable[[], tuple[BufferUsage, ...]]:
    """Returns a reader of the buffers that can fill up."""
    return lambda: (
        BufferUsage("bus", bus.longest_queue(), bus.capacity, bus.dropped),
        BufferUsage("database_connections", database.pool.in_use, database.pool.size, None),
    )


WINDOWS_S: Final = (3_600, 86_400)
_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """Share of good samples in a window; None before the first sample."""

    name: str
    window_s: int
    share: float | None
    samples: int


@dataclass(slots=True)
class _Minute:
    started_s: float
    samples: int = 0
    good: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class ServiceLevels:
    """Service levels counted per minute: a day needs the same memory at any sampling rate."""

    monotonic: Monotonic = time.monotonic
    _names: dict[str, None] = field(default_factory=dict)  # in order of first use
    _minutes: deque[_Minute] = field(
        default_factory=lambda: deque(maxlen=int(WINDOWS_S[-1] / _MINUTE_S))
    )

    def sample(self, **states: bool) -> None:
        """Records one sample: whether each service level holds now."""
        now = self.monotonic()
        self._names |= dict.fromkeys(states)
        if not self._minutes or now - self._minutes[-1].started_s >= _MINUTE_S:
            self._minutes.append(_Minute(now))
        minute = self._minutes[-1]
        minute.samples += 1
        for name, is_good in states.items():
            minute.good[name] = minute.good.get(name, 0) + is_good

    def levels(self) -> tuple[ServiceLevel, ...]:
        """Returns every level over every window."""
        return tuple(self._level(name, window) for name in self._names for window in WINDOWS_S)

    def _level(self, name: str, window_s: int) -> ServiceLevel:
        first = self.monotonic() - window_s
        minutes = [one for one in self._minutes if one.started_s > first]
        samples = sum(one.samples for one in minutes)
        good = sum(one.good.get(name, 0) for one in minutes)
        return ServiceLevel(name, window_s, good / samples if samples else None, samples)
