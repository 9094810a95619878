"""Modes of the service, from normal to halted."""

from enum import StrEnum


class Mode(StrEnum):
    """NORMAL decides; DEGRADED decides without the stale symbols; FROZEN only reads.

    HALTED only reads, too, until somebody has made room or the database writable again.
    """

    NORMAL = "NORMAL"
    DEGRADED = "DEGRADED"
    FROZEN = "FROZEN"
    HALTED = "HALTED"
