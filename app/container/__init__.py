"""The composition root: the one place that knows how the program is put together."""

from app.container.assembly import Services, assemble
from app.container.opening import opened
from app.container.seams import code_version, new_id, utc_now

__all__ = ["Services", "assemble", "code_version", "new_id", "opened", "utc_now"]
