"""The composition root: the one place that knows how the program is put together."""

from app.container.assembly import Services, assemble
from app.container.runtime_values import code_version, new_id, utc_now
from app.container.startup import open_service

__all__ = ["Services", "assemble", "code_version", "new_id", "open_service", "utc_now"]
