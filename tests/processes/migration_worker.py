"""A process that migrates a database, and dies in the midst of it."""

import asyncio
import os
import signal

from sqlalchemy import Engine, event

from app.foundation.sql import migrations


def migrate(url: str, after: int) -> None:
    """Killed before its statement number `after` that changes the schema; 0: before its commit."""
    left = [after]

    def counted(_c: object, _cursor: object, sql: str, *_: object) -> None:
        if sql.lstrip().startswith(("CREATE", "ALTER", "DROP")):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def committing(_: object) -> None:
        if after == 0 and left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", counted)
    event.listen(Engine, "commit", committing)
    asyncio.run(migrations.upgrade(url))
